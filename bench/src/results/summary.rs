//! Summary of a run: medians over blocks, ratios to the reference arm, and their verdicts.

use std::collections::BTreeMap;

use super::metric::{Metric, Source};
use crate::results::{BlockRow, ConditionKey, SCHEMA_VERSION, SliceRow, SummaryRow};
use crate::stats::{compare_family, median, sign_interval};

/// The arm that ratios refer to, if it was measured; else the first arm.
pub const REFERENCE: &str = "thread";
/// Error rate of the verdicts over all comparisons of one scenario and metric.
pub const ALPHA: f64 = 0.05;
/// Confidence of the interval of a single estimate.
const CONFIDENCE: f64 = 0.95;

/// The rows of one arm under one condition.
#[derive(Default)]
struct ArmRows<'a> {
    /// Measured blocks.
    blocks: Vec<&'a BlockRow>,
    /// Slices by block and round.
    slices: BTreeMap<(u32, u32), &'a SliceRow>,
}

/// The arms of one condition by name, in the order of their first rows.
type Arms<'a> = Vec<(&'a str, ArmRows<'a>)>;

/// All rows of a run by condition and arm, in the order of their first rows.
struct RunRows<'a> {
    conditions: Vec<(ConditionKey, Arms<'a>)>,
}

impl<'a> RunRows<'a> {
    fn new(slices: &'a [SliceRow], blocks: &'a [BlockRow]) -> Self {
        let mut rows = RunRows {
            conditions: Vec::new(),
        };

        for row in blocks {
            let arm = rows.arm(row.condition(), &row.model);
            if row.is_ok() {
                arm.blocks.push(row);
            }
        }

        for row in slices {
            let arm = rows.arm(row.condition(), &row.model);
            arm.slices.insert((row.block, row.round), row);
        }

        rows
    }

    fn arm(&mut self, key: ConditionKey, model: &'a str) -> &mut ArmRows<'a> {
        let arms = entry(&mut self.conditions, key);
        entry(arms, model)
    }

    fn scenarios(&self) -> Vec<&str> {
        let mut scenarios: Vec<&str> = Vec::new();
        for (key, _) in &self.conditions {
            if !scenarios.contains(&key.scenario.as_str()) {
                scenarios.push(&key.scenario);
            }
        }
        scenarios
    }
}

/// The value of a key in a list, which keeps the order in which keys were added.
fn entry<K: PartialEq, V: Default>(list: &mut Vec<(K, V)>, key: K) -> &mut V {
    let known = list.iter().position(|(known, _)| *known == key);
    let index = known.unwrap_or_else(|| {
        list.push((key, V::default()));
        list.len() - 1
    });
    &mut list[index].1
}

/// Summarizes all rows of a run: for each arm and metric an estimate, and its ratio to the reference
/// arm.
///
/// All ratios of one scenario and metric are one family: the probability of any wrong verdict among
/// them is at most [`ALPHA`].
#[must_use]
pub fn summarize(slices: &[SliceRow], blocks: &[BlockRow]) -> Vec<SummaryRow> {
    let run = RunRows::new(slices, blocks);
    let mut rows = Vec::new();
    for scenario in run.scenarios() {
        for &metric in Metric::ALL {
            rows.extend(summarize_metric(&run, scenario, metric));
        }
    }
    rows
}

/// Summarizes the throughput alone, for interim figures.
#[must_use]
pub fn summarize_throughput(
    scenario: &str,
    slices: &[SliceRow],
    blocks: &[BlockRow],
) -> Vec<SummaryRow> {
    summarize_metric(&RunRows::new(slices, blocks), scenario, Metric::Throughput)
}

fn summarize_metric(run: &RunRows<'_>, scenario: &str, metric: Metric) -> Vec<SummaryRow> {
    let mut rows = Vec::new();
    let mut compared = Vec::new();
    let mut family = Vec::new();

    let conditions = run.conditions.iter();
    for (key, arms) in conditions.filter(|(key, _)| key.scenario == scenario) {
        let reference = arms.iter().find(|(name, _)| *name == REFERENCE);
        let reference = reference.or(arms.first());

        for (name, arm) in arms {
            let mut row = estimate(key, name, arm, metric);
            if let Some((reference_name, reference)) = reference
                && reference_name != name
                && let Some(ratios) = log_ratios(metric, arm, reference)
            {
                row.reference = Some((*reference_name).to_owned());
                compared.push(rows.len());
                family.push(ratios);
            }
            rows.push(row);
        }
    }

    for (index, comparison) in compared.into_iter().zip(compare_family(&family, ALPHA)) {
        let row = &mut rows[index];
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

/// The row of one arm and metric, without a comparison.
fn estimate(key: &ConditionKey, model: &str, arm: &ArmRows<'_>, metric: Metric) -> SummaryRow {
    let ConditionKey {
        scenario,
        placement,
        driver,
        clients,
        load_percent,
    } = key.clone();

    let mut row = SummaryRow {
        schema_version: SCHEMA_VERSION,
        scenario,
        clients,
        driver,
        placement,
        load_percent,
        model: model.to_owned(),
        metric,
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

    let values: Vec<f64> = match metric.source() {
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

/// Natural logarithms of the ratio to the reference, one for each block in which both have a value; `None`
/// for a metric that is not compared.
fn log_ratios(metric: Metric, arm: &ArmRows<'_>, reference: &ArmRows<'_>) -> Option<Vec<f64>> {
    let ratio = |value: Option<f64>, of: Option<f64>| match (value, of) {
        (Some(value), Some(of)) if value > 0.0 && of > 0.0 => Some((value / of).ln()),
        _ => None,
    };

    let both = arm.blocks.iter().filter_map(|block| {
        let mut others = reference.blocks.iter();
        let other = others.find(|other| other.block == block.block)?;
        Some((*block, *other))
    });

    match metric.source() {
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::results::{csv_text, read_blocks, read_slices};

    /// The lines of committed summaries, byte for byte. Metrics that a folder is too old to have are left
    /// out.
    #[test]
    fn committed_summaries_follow_from_their_rows() {
        let results = Path::new(env!("CARGO_MANIFEST_DIR")).join("../results");
        let mut folders = 0;
        for entry in fs::read_dir(results).unwrap() {
            let folder = entry.unwrap().path();
            let Ok(committed) = fs::read_to_string(folder.join("summary.csv")) else {
                continue;
            };

            let (slices, blocks) = (read_slices(&folder).unwrap(), read_blocks(&folder).unwrap());
            let mut summary = summarize(&slices, &blocks);
            summary.retain(|row| committed.contains(&format!(",{},", row.metric)));

            let recomputed = csv_text(&summary, true).unwrap();
            for (now, then) in recomputed.lines().zip(committed.lines()) {
                assert_eq!(now, then, "{}", folder.display());
            }
            assert_eq!(recomputed.lines().count(), committed.lines().count());
            folders += 1;
        }
        assert!(folders > 0);
    }
}
