//! Judgement of an arm by an objective, at one rate of an open loop.

use crate::render::units::{count, plural};
use crate::results::summary::interval_of;
use crate::results::{BlockRow, Metric, Validity, ValidityFlag};
use crate::scenario::{Percentile, Slo};

/// Whether an arm keeps an objective.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum SloVerdict {
    /// The whole interval of the percentile over blocks is within the limit, and no request failed.
    Kept,
    /// The whole interval is beyond it, or requests failed.
    Missed,
    /// The limit is inside the interval, or there is none.
    Unresolved,
    /// Too many blocks say nothing about the server: the machine was disturbed, or the load was not the
    /// planned one.
    NotJudged,
}

impl SloVerdict {
    pub(super) fn words(self) -> &'static str {
        match self {
            SloVerdict::Kept => "kept",
            SloVerdict::Missed => "missed",
            SloVerdict::Unresolved => "not resolved",
            SloVerdict::NotJudged => "not judged",
        }
    }
}

/// A verdict with the blocks behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SloJudgement {
    pub(super) verdict: SloVerdict,
    /// Judged blocks with the percentile within the limit.
    pub(super) within: usize,
    /// Judged blocks.
    pub(super) judged: usize,
    /// Blocks that say nothing about the server.
    pub(super) left_out: usize,
    /// Those of them in which the load generator was the limit, on a machine that was not disturbed.
    pub(super) limited: usize,
    /// Failed requests in the judged blocks.
    pub(super) failed: u64,
}

/// Metric of the summary that is a percentile of latency.
pub(super) fn metric_of(percentile: Percentile) -> Metric {
    match percentile {
        Percentile::P50 => Metric::LatencyP50,
        Percentile::P99 => Metric::LatencyP99,
        Percentile::P999 => Metric::LatencyP999,
        Percentile::P9999 => Metric::LatencyP9999,
    }
}

/// Whether the load of a block was another than planned, or the machine was not the server's own.
fn says_nothing(validity: &Validity) -> bool {
    let about_the_server = [
        ValidityFlag::Overran,
        ValidityFlag::Files,
        ValidityFlag::Refused,
    ];
    let mut flags = validity.flags();
    flags.any(|flag| !about_the_server.contains(&flag)) || validity.unknown().next().is_some()
}

impl SloJudgement {
    /// Judges an arm by its blocks at one rate. Requests that failed or were not sent count as slower than all
    /// others, in the percentile of each block.
    pub(super) fn new<'a>(slo: Slo, blocks: impl IntoIterator<Item = &'a BlockRow>) -> Self {
        let run = blocks.into_iter().filter(|row| row.skipped().is_none());
        let (left_out, judged): (Vec<&BlockRow>, Vec<&BlockRow>) =
            run.partition(|row| row.is_ok() && says_nothing(&row.validity));

        // An arm that failed answered nothing.
        let latency = |row: &&BlockRow| {
            if row.is_ok() {
                metric_of(slo.percentile).of_block(row)
            } else {
                Some(f64::INFINITY)
            }
        };
        let latencies: Vec<f64> = judged.iter().filter_map(latency).collect();
        let limit_ns = slo.limit.as_nanos() as f64;
        let is_limited = |row: &&&BlockRow| {
            let has = |wanted| row.validity.contains(wanted);
            let by_load = has(ValidityFlag::Generator) || has(ValidityFlag::Late);
            by_load && !has(ValidityFlag::Disturbed)
        };

        let failed = judged.iter().map(|row| row.failed).sum();
        let verdict = match interval_of(&latencies) {
            _ if failed > 0 => SloVerdict::Missed,
            Some((_, high)) if high <= limit_ns => SloVerdict::Kept,
            Some((low, _)) if low > limit_ns => SloVerdict::Missed,
            Some(_) => SloVerdict::Unresolved,
            None if left_out.is_empty() => SloVerdict::Unresolved,
            None => SloVerdict::NotJudged,
        };
        SloJudgement {
            verdict,
            within: latencies.iter().filter(|ns| **ns <= limit_ns).count(),
            judged: judged.len(),
            left_out: left_out.len(),
            limited: left_out.iter().filter(is_limited).count(),
            failed,
        }
    }

    /// `kept, 10 of 10`.
    pub(super) fn cell(&self) -> String {
        format!(
            "{}, {} of {}",
            self.verdict.words(),
            self.within,
            self.judged
        )
    }

    /// The blocks behind the verdict, in words.
    pub(super) fn evidence(&self) -> String {
        let blocks = plural(self.judged, "block");
        let mut parts = vec![format!("within it in {} of {blocks}", self.within)];
        if self.left_out > 0 {
            parts.push(format!("{} left out as not valid", self.left_out));
        }
        if self.failed > 0 {
            parts.push(format!("failed requests: {}", count(self.failed)));
        }
        parts.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(p99_us: u64) -> BlockRow {
        BlockRow {
            planned: 1000,
            answered: 1000,
            latency_p99_ns: Some(p99_us * 1000),
            ..BlockRow::default()
        }
    }

    fn flagged(p99_us: u64, flag: ValidityFlag) -> BlockRow {
        BlockRow {
            validity: [flag].into_iter().collect(),
            ..row(p99_us)
        }
    }

    fn cell(rows: &[BlockRow]) -> String {
        SloJudgement::new(Slo::default(), rows).cell()
    }

    #[test]
    fn an_arm_is_judged_by_the_interval_over_its_blocks() {
        assert_eq!(cell(&[400; 8].map(row)), "kept, 8 of 8");
        assert_eq!(cell(&[2000; 8].map(row)), "missed, 0 of 8");
        let across = [400, 400, 400, 400, 400, 2000, 2000, 2000];
        assert_eq!(cell(&across.map(row)), "not resolved, 5 of 8");
        // With 9 blocks, an interval at 95 % leaves out one at each end.
        let mut rows = [400; 9].map(row);
        rows[4] = row(2000);
        assert_eq!(cell(&rows), "kept, 8 of 9");
        assert_eq!(cell(&[400; 3].map(row)), "not resolved, 3 of 3");
        assert_eq!(cell(&[]), "not resolved, 0 of 0");
    }

    /// Blocks that the tool itself marked as late or disturbed are no evidence against a server.
    #[test]
    fn blocks_that_say_nothing_about_the_server_are_left_out() {
        let mut rows = [400; 12].map(row).to_vec();
        for (index, flag) in [
            ValidityFlag::Late,
            ValidityFlag::Disturbed,
            ValidityFlag::Generator,
        ]
        .into_iter()
        .enumerate()
        {
            rows[index] = flagged(9000, flag);
        }
        let judgement = SloJudgement::new(Slo::default(), &rows);
        assert_eq!(judgement.cell(), "kept, 9 of 9");
        assert_eq!((judgement.left_out, judgement.limited), (3, 2));

        let late: Vec<BlockRow> = (0..8).map(|_| flagged(9000, ValidityFlag::Late)).collect();
        assert_eq!(cell(&late), "not judged, 0 of 0");
        // Replies that overrun their slice are those of a server that is too slow.
        let overran: Vec<BlockRow> = (0..8)
            .map(|_| flagged(9000, ValidityFlag::Overran))
            .collect();
        assert_eq!(cell(&overran), "missed, 0 of 8");
    }

    #[test]
    fn failures_miss_an_objective_and_skipped_arms_do_not() {
        let mut rows = [400; 8].map(row).to_vec();
        rows[0].failed = 1;
        let judgement = SloJudgement::new(Slo::default(), &rows);
        assert_eq!(judgement.verdict, SloVerdict::Missed);
        assert_eq!(
            judgement.evidence(),
            "within it in 8 of 8 blocks, failed requests: 1"
        );

        for row in &mut rows {
            row.status = "killed by SIGKILL".to_owned().into();
        }
        assert_eq!(cell(&rows), "missed, 0 of 8");
        for row in &mut rows {
            row.status = "skipped: no python3".to_owned().into();
        }
        assert_eq!(cell(&rows), "not resolved, 0 of 0");
    }
}
