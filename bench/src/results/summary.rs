//! From rows to answers: medians over blocks, ratios to the reference arm, and the verdicts.

use std::collections::BTreeMap;

use crate::results::{BlockRow, ConditionKey, SCHEMA_VERSION, SliceRow, SummaryRow};
use crate::stats::{compare_family, median, sign_interval};

/// The arm that ratios refer to, where it is there; else the first arm.
pub const REFERENCE: &str = "thread";
/// The rate of wrong "differences" over all comparisons of one scenario and metric.
pub const ALPHA: f64 = 0.05;
/// The confidence of the interval of a single estimate.
const CONFIDENCE: f64 = 0.95;

/// How one arm's value of a metric comes about.
enum Source {
    /// One value a slice; a block's ratio is the median over its rounds.
    Slice(fn(&SliceRow) -> Option<f64>, fn(&BlockRow) -> Option<f64>),
    /// One value a block.
    Block(fn(&BlockRow) -> Option<f64>),
    /// A sum over all blocks, which is not compared.
    Sum(fn(&BlockRow) -> f64),
    /// The median over the blocks, which is not compared.
    Median(fn(&BlockRow) -> Option<f64>),
}

/// A column of the summary.
struct Metric {
    name: &'static str,
    source: Source,
}

fn float(value: Option<u64>) -> Option<f64> {
    value.map(|value| value as f64)
}

const fn block(name: &'static str, value: fn(&BlockRow) -> Option<f64>) -> Metric {
    Metric {
        name,
        source: Source::Block(value),
    }
}

const fn median_only(name: &'static str, value: fn(&BlockRow) -> Option<f64>) -> Metric {
    Metric {
        name,
        source: Source::Median(value),
    }
}

const fn sum(name: &'static str, value: fn(&BlockRow) -> f64) -> Metric {
    Metric {
        name,
        source: Source::Sum(value),
    }
}

/// Every metric, under the names of `summary.csv`.
const METRICS: &[Metric] = &[
    Metric {
        name: "throughput_per_second",
        source: Source::Slice(
            |row| Some(row.throughput_per_second),
            |row| row.throughput_per_second,
        ),
    },
    Metric {
        name: "latency_p50_ns",
        source: Source::Slice(
            |row| float(row.latency_p50_ns),
            |row| float(row.latency_p50_ns),
        ),
    },
    block("latency_p99_ns", |row| float(row.latency_p99_ns)),
    block("latency_p999_ns", |row| float(row.latency_p999_ns)),
    block("latency_p9999_ns", |row| float(row.latency_p9999_ns)),
    median_only("rate_per_second", |row| row.rate_per_second),
    block("service_p50_ns", |row| float(row.service_p50_ns)),
    block("service_p99_ns", |row| float(row.service_p99_ns)),
    median_only("lag_p50_ns", |row| float(row.lag_p50_ns)),
    median_only("lag_p99_ns", |row| float(row.lag_p99_ns)),
    block("connect_p50_ns", |row| float(row.connect_p50_ns)),
    median_only("connected_per_second", |row| row.connected_per_second),
    block("cpu_ns_per_request", |row| row.cpu_ns_per_request),
    block("cpu_user_ns_per_request", |row| row.cpu_user_ns_per_request),
    block("cpu_system_ns_per_request", |row| {
        row.cpu_system_ns_per_request
    }),
    block("context_switches_per_request", |row| {
        row.context_switches_per_request
    }),
    median_only("server_cpus", |row| row.server_cpus),
    median_only("client_cpus", |row| row.client_cpus),
    block("memory_bytes_per_connection", |row| {
        row.memory_bytes_per_connection
    }),
    median_only("kernel_stack_bytes_per_connection", |row| {
        row.kernel_stack_bytes_per_connection
    }),
    median_only("socket_bytes_per_connection", |row| {
        row.socket_bytes_per_connection
    }),
    median_only("page_table_bytes_per_connection", |row| {
        row.page_table_bytes_per_connection
    }),
    sum("failed_requests", |row| row.failed as f64),
    sum("unsent_requests", |row| row.unsent as f64),
    median_only("clients_never_served", |row| {
        Some(row.clients_never_served as f64)
    }),
    median_only("jain_index", |row| row.jain_index),
    median_only("client_least_requests", |row| {
        float(row.client_least_requests)
    }),
    median_only("client_most_requests", |row| {
        float(row.client_most_requests)
    }),
    median_only("first_reply_max_ns", |row| float(row.first_reply_max_ns)),
];

/// The rows of one arm.
#[derive(Default)]
struct Arm<'a> {
    blocks: Vec<&'a BlockRow>,
    slices: BTreeMap<(u32, u32), &'a SliceRow>,
}

/// The arms of each section, and the sections of each scenario, in the order in which they came.
struct Table<'a> {
    sections: Vec<(ConditionKey, Vec<(&'a str, Arm<'a>)>)>,
}

impl<'a> Table<'a> {
    fn new(slices: &'a [SliceRow], blocks: &'a [BlockRow]) -> Self {
        let mut table = Table {
            sections: Vec::new(),
        };
        for row in blocks {
            let key = row.condition();
            let arm = table.arm(key, &row.model);
            if row.is_ok() {
                arm.blocks.push(row);
            }
        }
        for row in slices {
            let key = row.condition();
            table
                .arm(key, &row.model)
                .slices
                .insert((row.block, row.round), row);
        }
        table
    }

    fn arm(&mut self, key: ConditionKey, model: &'a str) -> &mut Arm<'a> {
        let arms = entry(&mut self.sections, key);
        entry(arms, model)
    }
}

/// The value of a key in a list that keeps the order in which keys came.
fn entry<K: PartialEq, V: Default>(list: &mut Vec<(K, V)>, key: K) -> &mut V {
    let index = list
        .iter()
        .position(|(known, _)| *known == key)
        .unwrap_or_else(|| {
            list.push((key, V::default()));
            list.len() - 1
        });
    &mut list[index].1
}

/// The summary of all rows of a run: for each arm and metric an estimate, and its ratio to the
/// reference arm.
///
/// All ratios of one scenario and metric are one family: their verdicts together are wrong with a
/// probability of at most [`ALPHA`].
#[must_use]
pub fn summarize(slices: &[SliceRow], blocks: &[BlockRow]) -> Vec<SummaryRow> {
    let table = Table::new(slices, blocks);
    let mut rows = Vec::new();
    let mut scenarios: Vec<&str> = Vec::new();
    for (ConditionKey { scenario, .. }, _) in &table.sections {
        if !scenarios.contains(&scenario.as_str()) {
            scenarios.push(scenario);
        }
    }
    for scenario in scenarios {
        for metric in METRICS {
            rows.extend(summarize_metric(&table, scenario, metric));
        }
    }
    rows
}

fn summarize_metric(table: &Table<'_>, scenario: &str, metric: &Metric) -> Vec<SummaryRow> {
    let mut rows = Vec::new();
    let mut family = Vec::new();
    for (section, arms) in table
        .sections
        .iter()
        .filter(|(section, _)| section.scenario == scenario)
    {
        let reference = arms
            .iter()
            .find(|(name, _)| *name == REFERENCE)
            .or(arms.first());
        for (name, arm) in arms {
            let mut row = estimate(section, name, arm, metric);
            if let Some((reference_name, reference)) = reference
                && reference_name != name
                && let Some(ratios) = log_ratios(metric, arm, reference)
            {
                row.reference = Some((*reference_name).to_owned());
                family.push((rows.len(), ratios));
            }
            rows.push(row);
        }
    }
    let (places, ratios): (Vec<usize>, Vec<Vec<f64>>) = family.into_iter().unzip();
    for (place, comparison) in places.into_iter().zip(compare_family(&ratios, ALPHA)) {
        let row = &mut rows[place];
        row.ratio = comparison.ratio;
        row.ratio_low = comparison.low;
        row.ratio_high = comparison.high;
        if comparison.blocks > 0 {
            row.ratio_level = Some(comparison.level);
            row.verdict = Some(comparison.verdict);
        }
    }
    rows
}

fn estimate(section: &ConditionKey, model: &str, arm: &Arm<'_>, metric: &Metric) -> SummaryRow {
    let ConditionKey {
        scenario,
        placement,
        driver,
        clients,
        load_percent,
    } = section.clone();
    let mut row = SummaryRow {
        schema_version: SCHEMA_VERSION,
        scenario,
        clients,
        driver,
        placement,
        load_percent,
        model: model.to_owned(),
        metric: metric.name.to_owned(),
        estimate: None,
        low: None,
        high: None,
        level: None,
        method: "median of blocks, sign-test interval".to_owned(),
        blocks: arm.blocks.len(),
        reference: None,
        ratio: None,
        ratio_low: None,
        ratio_high: None,
        ratio_level: None,
        verdict: None,
    };
    let values: Vec<f64> = match metric.source {
        Source::Slice(_, value) | Source::Block(value) | Source::Median(value) => {
            arm.blocks.iter().filter_map(|block| value(block)).collect()
        }
        Source::Sum(value) => {
            "sum of blocks".clone_into(&mut row.method);
            row.estimate = Some(arm.blocks.iter().map(|block| value(block)).sum());
            return row;
        }
    };
    row.blocks = values.len();
    row.estimate = median(&values);
    if let Some(interval) = sign_interval(&values, CONFIDENCE) {
        row.low = Some(interval.low);
        row.high = Some(interval.high);
        row.level = Some(interval.level);
    }
    row
}

/// The interval of a median over blocks, as in the summary.
#[must_use]
pub fn interval_of(values: &[f64]) -> Option<(f64, f64)> {
    sign_interval(values, CONFIDENCE).map(|interval| (interval.low, interval.high))
}

/// The summary of the throughput alone, for those who cannot wait.
#[must_use]
pub fn summarize_throughput(
    scenario: &str,
    slices: &[SliceRow],
    blocks: &[BlockRow],
) -> Vec<SummaryRow> {
    summarize_metric(&Table::new(slices, blocks), scenario, &METRICS[0])
}

/// The logarithm of the ratio to the reference in each block in which both have a value.
fn log_ratios(metric: &Metric, arm: &Arm<'_>, reference: &Arm<'_>) -> Option<Vec<f64>> {
    let ratio = |value: Option<f64>, of: Option<f64>| match (value, of) {
        (Some(value), Some(of)) if value > 0.0 && of > 0.0 => Some((value / of).ln()),
        _ => None,
    };
    let both = arm.blocks.iter().filter_map(|block| {
        let same = reference
            .blocks
            .iter()
            .find(|other| other.block == block.block)?;
        Some((*block, *same))
    });
    match metric.source {
        Source::Block(value) => Some(
            both.filter_map(|(a, b)| ratio(value(a), value(b)))
                .collect(),
        ),
        Source::Slice(value, _) => Some(
            both.filter_map(|(block, _)| {
                let rounds = arm.slices.range((block.block, 0)..=(block.block, u32::MAX));
                let ratios: Vec<f64> = rounds
                    .filter_map(|(round, slice)| {
                        ratio(value(slice), value(reference.slices.get(round)?))
                    })
                    .collect();
                median(&ratios)
            })
            .collect(),
        ),
        Source::Sum(_) | Source::Median(_) => None,
    }
}
