//! Tables of a rate sweep: latency against rate, and the highest rate that meets an objective.

use std::fmt;
use std::str::FromStr;

use echobench_clients::parse_duration;

use super::scenario_report::{ArmLine, ScenarioReport};
use crate::render::Part;
use crate::render::grid::Grid;
use crate::render::units::{self, or_unknown};
use crate::results::Metric;

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

/// A rate that meets the objective, and the percentage of the arm's peak that it is.
type MetRate = Option<(f64, u32)>;

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
                format!("Highest rate measured with {slo} and every request answered:"),
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

    /// The highest rate of each arm that meets the objective, a line each.
    fn highest_rates(&self, slo: Slo) -> Vec<String> {
        let mut highest: Vec<(String, MetRate)> = Vec::new();
        for line in &self.lines {
            let first = line.first();
            let Some(percent) = first.load_percent else {
                continue;
            };
            let arm = format!(
                "{} ({} {}, placement {})",
                first.model, first.clients, first.driver, first.placement
            );

            let rate = slo.met_rate(line).map(|rate| (rate, percent));
            match highest.iter_mut().find(|(known, _)| *known == arm) {
                Some((_, most)) => {
                    if rate.is_some_and(|(rate, _)| most.is_none_or(|(most, _)| rate > most)) {
                        *most = rate;
                    }
                }
                None => highest.push((arm, rate)),
            }
        }

        let text = |(arm, highest): (String, MetRate)| match highest {
            Some((rate, percent)) => {
                format!("{arm}: {}, {percent} % of its peak", units::rate(rate))
            }
            None => format!("{arm}: at none of the rates"),
        };
        highest.into_iter().map(text).collect()
    }
}

impl Slo {
    /// The rate of an open loop, if it meets the objective with every request answered.
    fn met_rate(self, line: &ArmLine<'_>) -> Option<f64> {
        let latency = line.estimate(self.metric)?;
        let met = latency <= self.limit_ns && line.errors() == "0";
        line.estimate(Metric::PlannedRate).filter(|_| met)
    }
}
