//! Tables of a rate sweep: latency against rate, and the highest rate that meets an objective.

use std::fmt;
use std::str::FromStr;

use echobench_clients::parse_duration;

use super::scenario_report::{ArmLine, ScenarioReport};
use crate::render::Part;
use crate::render::grid::Grid;
use crate::render::units::{self, or_unknown};
use crate::results::Metric;
use crate::results::ordered::entry;

/// Service-level objective: a percentile of latency within a limit, as in `p99=1ms`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slo {
    metric: Metric,
    percentile: &'static str,
    limit_ns: f64,
}

const PERCENTILES: [(&str, Metric); 4] = [
    ("p50", Metric::LatencyP50),
    ("p99", Metric::LatencyP99),
    ("p99.9", Metric::LatencyP999),
    ("p99.99", Metric::LatencyP9999),
];

impl Default for Slo {
    fn default() -> Self {
        let [_, (percentile, metric), ..] = PERCENTILES;
        Slo {
            metric,
            percentile,
            limit_ns: 1e6,
        }
    }
}

impl fmt::Display for Slo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limit = units::duration(self.limit_ns).replace(' ', "");
        write!(f, "{}={}", self.percentile, limit.replace(".00", ""))
    }
}

impl FromStr for Slo {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong =
            || format!("'{text}' is not an objective such as p99=1ms (p50, p99, p99.9, p99.99)");
        let (name, limit) = text.split_once('=').ok_or_else(wrong)?;
        let limit = parse_duration(limit).map_err(|_| wrong())?;
        let known = PERCENTILES.into_iter().find(|(known, _)| *known == name);
        let (percentile, metric) = known.ok_or_else(wrong)?;
        Ok(Slo {
            metric,
            percentile,
            limit_ns: limit.as_nanos() as f64,
        })
    }
}

impl ScenarioReport<'_> {
    /// Latency against rate, and the highest rate that meets the objective.
    pub(super) fn sweep_tables(&self, slo: Slo) -> Vec<Part> {
        let swept = |line: &ArmLine<'_>| line.first().load_percent.is_some();
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
                    "Highest rate up to which {slo} is kept (its interval over blocks), every request answered:"
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
            if first.load_percent.is_none() {
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
            .take_while(|line| slo.judge(line) == SloVerdict::Kept)
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
        format!(
            "{highest}; {} at {} ({})",
            slo.judge(next).words(),
            share(next),
            self.evidence(slo, next)
        )
    }

    /// The blocks behind a verdict.
    fn evidence(&self, slo: Slo, line: &ArmLine<'_>) -> String {
        let rows: Vec<_> = self
            .blocks_of(line.model(), &line.condition())
            .filter(|row| row.is_ok())
            .collect();
        let within = rows
            .iter()
            .filter_map(|row| slo.metric.of_block(row))
            .filter(|latency| *latency <= slo.limit_ns)
            .count();
        let invalid = rows.iter().filter(|row| !row.validity.is_valid()).count();

        let mut parts = vec![format!(
            "within it in {within} of {}",
            units::plural(rows.len(), "block")
        )];
        if invalid > 0 {
            parts.push(format!("of which {invalid} not valid"));
        }
        if line.errors() != "0" {
            parts.push(format!("errors: {}", line.errors()));
        }
        parts.join(", ")
    }
}

/// Whether an arm keeps an objective at a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SloVerdict {
    /// The whole interval of the percentile is within the limit, and every request was answered.
    Kept,
    /// The whole interval is beyond it, or requests were not answered.
    Missed,
    /// The limit is inside the interval, or there is none.
    Unresolved,
}

impl SloVerdict {
    fn words(self) -> &'static str {
        match self {
            SloVerdict::Kept => "kept",
            SloVerdict::Missed => "missed",
            SloVerdict::Unresolved => "not resolved",
        }
    }
}

impl Slo {
    /// Judges a rate of an open loop by the interval of the percentile over blocks.
    fn judge(self, line: &ArmLine<'_>) -> SloVerdict {
        if line.errors() != "0" {
            return SloVerdict::Missed;
        }
        let Some((low, high)) = line
            .metric(self.metric)
            .and_then(|row| row.low.zip(row.high))
        else {
            return SloVerdict::Unresolved;
        };
        if high <= self.limit_ns {
            SloVerdict::Kept
        } else if low > self.limit_ns {
            SloVerdict::Missed
        } else {
            SloVerdict::Unresolved
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::summary::summarize;
    use crate::results::{BlockRow, Validity, ValidityFlag};

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
        let summary = summarize(&[], blocks);
        let report = ScenarioReport::each(&summary, blocks).pop().unwrap();
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
        let expected = "missed at 10 % of its peak (within it in 8 of 8 blocks, of which 1 not valid, errors: 8)";
        assert!(text.ends_with(expected), "{text}");
    }
}
