//! Tables about workers: the connections that each took in, and the CPU time that process control costs
//! (Stevens, *UNIX Network Programming*, 3rd ed., vol. 1, ch. 30).

use std::collections::BTreeMap;

use super::scenario_report::{ArmLine, ScenarioReport};
use crate::render::Part;
use crate::render::grid::Cell;
use crate::render::units::{self, UNKNOWN, to_count};
use crate::results::summary::{REFERENCE, interval_of};
use crate::results::{ConditionKey, Metric};
use crate::stats::median;

/// The design whose CPU time is that of the service alone.
const BASELINE: &str = "iterative";

/// Process control CPU time in seconds as published (Stevens, figure 30.1), by the arm of the same design.
const PUBLISHED: &[(&str, f64)] = &[
    ("thread", 0.99),
    ("fork", 20.90),
    ("prefork", 1.80),
    ("prefork --accept block", 1.80),
    ("prefork --accept file-lock", 2.07),
    ("prefork --accept mutex", 1.75),
    ("prefork --accept pass", 2.58),
    ("prethread --accept mutex", 1.93),
    ("pool", 2.05),
];

impl ScenarioReport<'_> {
    /// Connections of each worker, context switches and memory at rest, where workers accept for
    /// themselves.
    pub(super) fn worker_table(&self) -> Vec<Part> {
        let accepting = |line: &ArmLine<'_>| line.estimate(Metric::WorkerJainIndex).is_some();
        let conditions = self.conditions_of(accepting);
        if conditions.is_empty() {
            return Vec::new();
        }

        let names = ["model", "least", "most", "Jain", "switches/req", "at rest"];
        let shown = |line: &ArmLine<'_>| conditions.contains(&line.condition());
        let grid = self.by_condition(&names, &[0], shown, |line| {
            let connections = |metric| line.cell(metric, |n| units::count(to_count(n)));
            let digits = |metric| line.cell(metric, |value| format!("{value:.2}"));
            vec![
                line.model().into(),
                connections(Metric::WorkerLeastConnections),
                connections(Metric::WorkerMostConnections),
                digits(Metric::WorkerJainIndex),
                digits(Metric::ContextSwitchesPerRequest),
                line.cell(Metric::MemoryAtRest, units::bytes),
            ]
        });

        let intro = "Workers: connections of the worker with the fewest and the most in a block, Jain's index (1: equal \
                     shares), context switches of the server for each request, and its memory before the first \
                     connection.";
        vec![Part::Lines(vec![intro.to_owned()]), Part::Table(grid)]
    }

    /// CPU time for each connection beyond that of [`BASELINE`], where connections come and go.
    pub(super) fn process_control_table(&self) -> Vec<Part> {
        let churns = |line: &ArmLine<'_>| {
            // Clients that stay connected open no connection in a slice.
            line.model() == BASELINE && line.estimate(Metric::ConnectP50).is_some()
        };
        let conditions = self.conditions_of(churns);
        if conditions.is_empty() {
            return Vec::new();
        }

        let over_baseline = format!("over {BASELINE}");
        let over_reference = format!("÷ {REFERENCE}");
        let published = format!("Stevens ÷ {REFERENCE}");
        let names = [
            "model",
            "CPU/conn",
            &over_baseline,
            &over_reference,
            &published,
        ];
        let shown = |line: &ArmLine<'_>| conditions.contains(&line.condition());
        let grid = self.by_condition(&names, &[0, 2, 3], shown, |line| {
            vec![
                line.model().into(),
                line.time(Metric::CpuPerRequest),
                self.control_time(line).into(),
                self.control_ratio(line).into(),
                published_ratio(line.model()),
            ]
        });

        let intro = format!(
            "Process control: CPU time of the server for each connection beyond that of {BASELINE} in the same \
             block, and relative to {REFERENCE}; intervals of 95 % each. Last column: the same ratio as published \
             (Stevens, UNIX Network Programming, 3rd ed., figure 30.1).",
        );
        vec![Part::Lines(vec![intro]), Part::Table(grid)]
    }

    fn control_time(&self, line: &ArmLine<'_>) -> String {
        if line.model() == BASELINE {
            return "0 (baseline)".to_owned();
        }
        let control = self.control_ns(line.model(), &line.condition());
        with_interval(control.into_iter().flatten(), signed_duration)
    }

    fn control_ratio(&self, line: &ArmLine<'_>) -> String {
        if [BASELINE, REFERENCE].contains(&line.model()) {
            let is_reference = line.model() == REFERENCE;
            return if is_reference { "1 (reference)" } else { "0" }.to_owned();
        }

        let own = self.control_ns(line.model(), &line.condition());
        let reference = self.control_ns(REFERENCE, &line.condition());
        let both = || {
            own.iter()
                .copied()
                .zip(&reference)
                .filter_map(|(own, reference)| own.zip(*reference))
        };
        // A ratio to nothing, or to less, would say nothing.
        if both().any(|(_, reference)| reference <= 0.0) {
            return UNKNOWN.to_owned();
        }
        with_interval(both().map(|(own, reference)| own / reference), |ratio| {
            format!("{ratio:.2}")
        })
    }

    /// The difference to the baseline in each block in which both have a value.
    fn control_ns(&self, model: &str, condition: &ConditionKey) -> Vec<Option<f64>> {
        let by_block = |model: &str| -> BTreeMap<u32, f64> {
            let rows = self.blocks_of(model, condition).filter(|row| row.is_ok());
            rows.filter_map(|row| Some((row.block, row.cpu_ns_per_request?)))
                .collect()
        };
        let (own, baseline) = (by_block(model), by_block(BASELINE));

        let last = self.blocks.iter().map(|row| row.block).max().unwrap_or(0);
        (1..=last)
            .map(|block| Some(own.get(&block)? - baseline.get(&block)?))
            .collect()
    }
}

/// Median of the values, with its interval.
fn with_interval(values: impl Iterator<Item = f64>, show: impl Fn(f64) -> String) -> String {
    let values: Vec<f64> = values.collect();
    let Some(value) = median(&values) else {
        return UNKNOWN.to_owned();
    };
    let interval = interval_of(&values).map_or_else(String::new, |(low, high)| {
        format!(" [{}, {}]", show(low), show(high))
    });
    format!("{}{interval}", show(value))
}

/// A difference of times, which may be negative.
fn signed_duration(ns: f64) -> String {
    let sign = if ns < 0.0 { "−" } else { "" };
    format!("{sign}{}", units::duration(ns.abs()))
}

fn published_ratio(model: &str) -> Cell {
    let seconds = |name: &str| PUBLISHED.iter().find(|(known, _)| *known == name);
    let (own, reference) = (seconds(model), seconds(REFERENCE));
    own.zip(reference)
        .map_or_else(
            || UNKNOWN.to_owned(),
            |((_, own), (_, reference))| units::ratio(own / reference),
        )
        .into()
}

#[cfg(test)]
mod tests {
    use crate::render::Style;
    use crate::results::BlockRow;
    use crate::results::summary::summarize;
    use crate::run::tables::tables;
    use crate::scenario::Views;

    fn row(model: &str, block: u32, cpu_ns: f64) -> BlockRow {
        BlockRow {
            scenario: "accept".to_owned(),
            clients: 8,
            model: model.to_owned(),
            block,
            throughput_per_second: Some(1000.0),
            connect_p50_ns: Some(50_000),
            cpu_ns_per_request: Some(cpu_ns),
            ..BlockRow::default()
        }
    }

    fn text(blocks: &[BlockRow]) -> String {
        tables(
            &summarize(&[], blocks, &Views::default()),
            blocks,
            Style::Plain,
            &Views::default(),
        )
    }

    #[test]
    fn process_control_is_the_time_beyond_the_baseline_of_the_same_block() {
        let mut blocks = Vec::new();
        for block in 1..=7 {
            // The machine gets slower from block to block; the differences stay.
            let service = f64::from(block) * 10_000.0;
            blocks.push(row("thread", block, service + 20_000.0));
            blocks.push(row("fork", block, service + 50_000.0));
            blocks.push(row("iterative", block, service));
        }

        let text = text(&blocks);
        assert!(text.contains("20.0 µs [20.0 µs, 20.0 µs]"), "{text}");
        assert!(text.contains("2.50 [2.50, 2.50]"), "{text}");
        assert!(text.contains("21.1"), "{text}");
        assert!(text.contains("0 (baseline)"), "{text}");
    }

    #[test]
    fn an_arm_that_is_cheaper_than_the_baseline_has_a_negative_time_and_no_ratio_to_it() {
        let mut blocks = Vec::new();
        for block in 1..=7 {
            blocks.push(row("thread", block, 19_000.0));
            blocks.push(row("fork", block, 50_000.0));
            blocks.push(row("iterative", block, 20_000.0));
        }
        let text = text(&blocks);
        assert!(text.contains("−1.00 µs [−1.00 µs, −1.00 µs]"), "{text}");
        assert!(!text.contains("NaN") && !text.contains("-30"), "{text}");
    }

    #[test]
    fn a_block_without_a_value_is_left_out_of_the_differences() {
        let mut blocks = Vec::new();
        for block in 1..=7 {
            blocks.push(row("thread", block, 30_000.0));
            blocks.push(row("iterative", block, 20_000.0));
        }
        blocks[1].cpu_ns_per_request = None;
        let text = text(&blocks);
        assert!(text.contains("10.0 µs [10.0 µs, 10.0 µs]"), "{text}");
    }

    #[test]
    fn the_workers_of_an_arm_are_shown_beside_the_others() {
        let mut blocks = Vec::new();
        for block in 1..=7 {
            blocks.push(row("thread", block, 30_000.0));
            let mut shared = row("reactor", block, 20_000.0);
            shared.worker_least_connections = Some(3);
            shared.worker_most_connections = Some(61);
            shared.worker_jain_index = Some(0.55);
            blocks.push(shared);
        }

        let text = text(&blocks);
        let line = text
            .lines()
            .find(|line| line.contains("0.55"))
            .expect("the table of workers");
        assert!(line.contains("reactor") && line.contains(" 61"), "{text}");
        assert!(!text.contains("Process control"), "{text}");
    }
}
