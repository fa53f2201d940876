//! Tables of a rate sweep: latency against rate, and the highest rate that meets an objective.

use super::scenario_report::{ArmLine, Load, ScenarioReport};
use super::slo::SloVerdict;
use crate::render::Part;
use crate::render::grid::Grid;
use crate::render::units::{self, or_unknown};
use crate::results::Metric;
use crate::results::ordered::entry;
use crate::scenario::Slo;

impl ScenarioReport<'_> {
    /// Latency against rate, and the highest rate that meets the objective.
    pub(super) fn sweep_tables(&self) -> Vec<Part> {
        let slo = self.slo.unwrap_or_default();
        let swept = |line: &ArmLine<'_>| line.load() == Load::Swept;
        if !self.lines.iter().any(swept) {
            return Vec::new();
        }

        let intro = "Open loop: each arm at shares of its own closed-loop peak; latency counts from when a request \
                     was due.";
        vec![
            Part::Lines(vec![intro.to_owned()]),
            Part::Table(self.rate_table(swept)),
            Part::List(
                format!(
                    "Highest rate up to which {slo} is kept (its interval over blocks), no request failing:"
                ),
                self.highest_rates(slo),
            ),
        ]
    }

    fn rate_table(&self, swept: impl Fn(&ArmLine<'_>) -> bool) -> Grid {
        let names = [
            "of peak",
            "model",
            "rate",
            "p50",
            "p99",
            "p99.9",
            "p99.99",
            "service p99",
            "lag p99",
            "CPU/req",
            "errors",
        ];
        let grid = self.by_condition(&names, &[1, 10], swept, |line| {
            vec![
                or_unknown(line.first().load_percent, |percent| format!("{percent} %")).into(),
                line.model().into(),
                line.cell(Metric::PlannedRate, units::rate),
                line.time(Metric::LatencyP50),
                line.time(Metric::LatencyP99),
                line.time(Metric::LatencyP999),
                line.time(Metric::LatencyP9999),
                line.time(Metric::ServiceP99),
                line.time(Metric::LagP99),
                line.time(Metric::CpuPerRequest),
                line.errors().into(),
            ]
        });
        Grid {
            spare: &[
                "CPU/req",
                "lag p99",
                "service p99",
                "p50",
                "p99.99",
                "p99.9",
            ],
            ..grid
        }
    }

    /// The highest rate at which each arm keeps the objective, a line each.
    fn highest_rates(&self, slo: Slo) -> Vec<String> {
        let mut arms: Vec<(String, Vec<&ArmLine<'_>>)> = Vec::new();
        for line in &self.lines {
            let first = line.first();
            if line.load() != Load::Swept {
                continue;
            }
            let arm = format!(
                "{} ({}, placement {})",
                first.model,
                line.condition().clients_in_words(),
                first.placement
            );
            entry(&mut arms, arm).push(line);
        }

        let text = |(arm, mut lines): (String, Vec<&ArmLine<'_>>)| {
            lines.sort_by_key(|line| line.first().load_percent);
            format!("{arm}: {}", self.highest_rate(slo, &lines))
        };
        arms.into_iter().map(text).collect()
    }

    /// The highest rate of an arm up to which it keeps the objective, and why not at the next one.
    fn highest_rate(&self, slo: Slo, rates: &[&ArmLine<'_>]) -> String {
        let share = |line: &ArmLine<'_>| {
            let percent = line.first().load_percent.unwrap_or(0);
            format!("{percent} % of its peak")
        };

        // A higher rate that seems to be kept beyond one that is not says nothing.
        let kept = rates
            .iter()
            .take_while(|line| self.judge(slo, line).verdict == SloVerdict::Kept)
            .count();
        let highest = match kept.checked_sub(1) {
            Some(last) => {
                let rate = or_unknown(rates[last].estimate(Metric::PlannedRate), units::rate);
                format!("kept at {rate}, {}", share(rates[last]))
            }
            None => "kept at none of the rates".to_owned(),
        };
        let Some(next) = rates.get(kept) else {
            return highest;
        };
        let judgement = self.judge(slo, next);
        format!(
            "{highest}; {} at {} ({})",
            judgement.verdict.words(),
            share(next),
            judgement.evidence()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::summary::summarize;
    use crate::results::{BlockRow, Validity, ValidityFlag};
    use crate::scenario::Views;

    /// Blocks of one arm at a share of its peak, with these 99th percentiles in microseconds.
    fn blocks(percent: u32, p99_us: [u64; 8], failed: u64) -> Vec<BlockRow> {
        let row = |(block, us): (u32, u64)| BlockRow {
            scenario: "rate_sweep".to_owned(),
            model: "thread".to_owned(),
            clients: 64,
            load_percent: Some(percent),
            block,
            rate_per_second: Some(f64::from(percent) * 1000.0),
            planned: 1000,
            answered: 1000 - failed,
            failed,
            throughput_per_second: Some(f64::from(percent) * 1000.0),
            latency_p99_ns: Some(us * 1000),
            ..BlockRow::default()
        };
        (1..).zip(p99_us).map(row).collect()
    }

    fn highest(blocks: &[BlockRow]) -> String {
        let views = Views::default();
        let summary = summarize(&[], blocks, &views);
        let report = ScenarioReport::each(&summary, blocks, &views)
            .pop()
            .unwrap();
        report.highest_rates(Slo::default()).pop().unwrap()
    }

    const BELOW: [u64; 8] = [400; 8];
    const ABOVE: [u64; 8] = [2000; 8];
    const ACROSS: [u64; 8] = [400, 400, 400, 400, 400, 2000, 2000, 2000];

    #[test]
    fn a_rate_is_kept_or_missed_by_its_interval() {
        let text = highest(&[blocks(10, BELOW, 0), blocks(30, ABOVE, 0)].concat());
        assert!(
            text.contains("kept at 10,000/s, 10 % of its peak; missed at 30 %"),
            "{text}"
        );
        assert!(text.ends_with("(within it in 0 of 8 blocks)"), "{text}");
    }

    /// A median below the limit is not enough: here it is below in 5 of 8 blocks.
    #[test]
    fn a_limit_inside_the_interval_is_not_resolved() {
        let text = highest(&[blocks(10, BELOW, 0), blocks(30, ACROSS, 0)].concat());
        assert!(
            text.contains("not resolved at 30 % of its peak (within it in 5 of 8"),
            "{text}"
        );

        let text = highest(&blocks(10, ACROSS, 0));
        assert!(
            text.contains("kept at none of the rates; not resolved at 10 %"),
            "{text}"
        );
    }

    #[test]
    fn rates_are_kept_up_to_the_first_that_is_not() {
        let text = highest(
            &[
                blocks(30, BELOW, 0),
                blocks(10, BELOW, 0),
                blocks(50, ABOVE, 0),
                blocks(70, BELOW, 0),
            ]
            .concat(),
        );
        assert!(
            text.contains("kept at 30,000/s") && text.contains("missed at 50 %"),
            "{text}"
        );

        let all = highest(&[blocks(10, BELOW, 0), blocks(30, BELOW, 0)].concat());
        assert!(all.ends_with("kept at 30,000/s, 30 % of its peak"), "{all}");
    }

    #[test]
    fn unanswered_requests_and_invalid_rows_are_named() {
        let mut rows = blocks(10, BELOW, 1);
        let generator = [ValidityFlag::Generator];
        rows[0].validity = generator.into_iter().collect::<Validity>();
        let text = highest(&rows);
        let expected = "missed at 10 % of its peak (within it in 7 of 7 blocks, 1 left out as not valid, failed \
                        requests: 7)";
        assert!(text.ends_with(expected), "{text}");
    }
}
