//! Tables of a rate sweep: latency against rate, and how high the rate may go.

use std::fmt;
use std::str::FromStr;

use echobench_clients::parse_duration;

use super::tables::{Line, Report};
use crate::render::Part;
use crate::render::grid::Grid;
use crate::render::units::{self, or_unknown};

/// What a rate sweep looks for: a percentile of latency within a time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Objective {
    metric: &'static str,
    name: &'static str,
    ns: f64,
}

const OBJECTIVES: [(&str, &str); 4] = [
    ("p50", "latency_p50_ns"),
    ("p99", "latency_p99_ns"),
    ("p99.9", "latency_p999_ns"),
    ("p99.99", "latency_p9999_ns"),
];

impl Default for Objective {
    fn default() -> Self {
        let [_, (name, metric), ..] = OBJECTIVES;
        Objective {
            metric,
            name,
            ns: 1e6,
        }
    }
}

impl fmt::Display for Objective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = units::duration(self.ns).replace(' ', "");
        write!(f, "{}={}", self.name, time.replace(".00", ""))
    }
}

impl FromStr for Objective {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong =
            || format!("'{text}' is not an objective such as p99=1ms (p50, p99, p99.9, p99.99)");
        let (name, time) = text.split_once('=').ok_or_else(wrong)?;
        let time = parse_duration(&time.replace('µ', "u")).map_err(|_| wrong())?;
        let known = OBJECTIVES.into_iter().find(|(known, _)| *known == name);
        let (name, metric) = known.ok_or_else(wrong)?;
        Ok(Objective {
            metric,
            name,
            ns: time.as_nanos() as f64,
        })
    }
}

impl Report<'_> {
    /// Latency against rate, and the highest rate at which it keeps the objective.
    pub(super) fn sweep_tables(&self, objective: Objective) -> Vec<Part> {
        let swept = |line: &Line<'_>| line.first().load_percent.is_some();
        if !self.lines.iter().any(swept) {
            return Vec::new();
        }
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
        let grid = self.sectioned(&names, &[1, 10], swept, |line| {
            vec![
                or_unknown(line.first().load_percent, |percent| format!("{percent} %")).into(),
                line.first().model.as_str().into(),
                line.cell("rate_per_second", units::rate),
                line.time("latency_p50_ns"),
                line.time("latency_p99_ns"),
                line.time("latency_p999_ns"),
                line.time("latency_p9999_ns"),
                line.time("service_p99_ns"),
                line.time("lag_p99_ns"),
                line.time("cpu_ns_per_request"),
                line.errors().into(),
            ]
        });
        let intro = "Open loop: each arm at shares of its own closed-loop peak; latency counts from when a request \
                     was due.";
        vec![
            Part::Lines(vec![intro.to_owned()]),
            Part::Table(Grid {
                spare: &[
                    "CPU/req",
                    "lag p99",
                    "service p99",
                    "p50",
                    "p99.99",
                    "p99.9",
                ],
                ..grid
            }),
            Part::List(
                format!("Highest rate measured with {objective} and every request answered:"),
                self.best_rates(objective),
            ),
        ]
    }

    fn best_rates(&self, objective: Objective) -> Vec<String> {
        let mut best: Vec<(String, Option<(f64, u32)>)> = Vec::new();
        for line in &self.lines {
            let first = line.first();
            let Some(percent) = first.load_percent else {
                continue;
            };
            let arm = format!(
                "{} ({} {}, placement {})",
                first.model, first.clients, first.driver, first.placement
            );
            let kept = line
                .estimate(objective.metric)
                .is_some_and(|ns| ns <= objective.ns)
                && line.errors() == "0";
            let rate = line
                .estimate("rate_per_second")
                .filter(|_| kept)
                .map(|rate| (rate, percent));
            match best.iter_mut().find(|(known, _)| *known == arm) {
                Some((_, highest)) => {
                    if rate.is_some_and(|(rate, _)| highest.is_none_or(|(most, _)| rate > most)) {
                        *highest = rate;
                    }
                }
                None => best.push((arm, rate)),
            }
        }
        best.into_iter()
            .map(|(arm, highest)| match highest {
                Some((rate, percent)) => {
                    format!("{arm}: {}, {percent} % of its peak", units::rate(rate))
                }
                None => format!("{arm}: at none of the rates"),
            })
            .collect()
    }
}
