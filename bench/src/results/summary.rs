//! Summary of a run: medians over blocks, ratios to the reference arm, and their verdicts.

use std::collections::BTreeMap;

use super::metric::{Metric, Source};
use super::ordered::{distinct, entry};
use crate::results::{BlockRow, ConditionKey, SCHEMA_VERSION, SliceRow, SummaryRow};
use crate::scenario::Views;
use crate::stats::{compare_family, log_ratio, median, median_log_ratio, sign_interval};

/// The arm that ratios refer to where no other is chosen, if it was measured; else the first arm.
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

impl<'a> ArmRows<'a> {
    /// Slices of a block, in the order of its rounds.
    fn slices_of(&self, block: &BlockRow) -> impl Iterator<Item = (&(u32, u32), &&'a SliceRow)> {
        self.slices
            .range((block.block, 0)..=(block.block, u32::MAX))
    }
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
        distinct(self.conditions.iter().map(|(key, _)| key.scenario.as_str()))
    }
}

/// Summarizes all rows of a run: for each arm and metric an estimate, and its ratio to the reference
/// arm.
///
/// All ratios of one scenario and metric are one family: the probability of any wrong verdict among
/// them is at most [`ALPHA`].
#[must_use]
pub fn summarize(slices: &[SliceRow], blocks: &[BlockRow], views: &Views) -> Vec<SummaryRow> {
    let run = RunRows::new(slices, blocks);
    let mut rows = Vec::new();
    for scenario in run.scenarios() {
        let reference = views.reference(scenario).unwrap_or(REFERENCE);
        for &metric in Metric::ALL {
            rows.extend(summarize_metric(&run, scenario, metric, reference));
        }
    }
    rows
}

/// Summarizes one metric alone, for interim figures.
#[must_use]
pub fn summarize_one(
    metric: Metric,
    scenario: &str,
    (slices, blocks): (&[SliceRow], &[BlockRow]),
    views: &Views,
) -> Vec<SummaryRow> {
    let reference = views.reference(scenario).unwrap_or(REFERENCE);
    summarize_metric(&RunRows::new(slices, blocks), scenario, metric, reference)
}

fn summarize_metric(
    run: &RunRows<'_>,
    scenario: &str,
    metric: Metric,
    reference: &str,
) -> Vec<SummaryRow> {
    let mut rows = Vec::new();
    let mut compared = Vec::new();
    let mut family = Vec::new();

    let conditions = run.conditions.iter();
    for (key, arms) in conditions.filter(|(key, _)| key.scenario == scenario) {
        let reference = arms.iter().find(|(name, _)| *name == reference);
        let reference = reference.or(arms.first());
        // Each arm of a search has a rate of its own, so that a ratio would compare the rates.
        let reference = reference.filter(|_| key.step.is_none());

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
        traffic,
        step,
    } = key.clone();

    let mut row = SummaryRow {
        schema_version: SCHEMA_VERSION,
        scenario,
        clients,
        driver,
        placement,
        load_percent,
        traffic,
        step,
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
        Source::SlicesOnly(value) => {
            let in_block = |block: &&BlockRow| {
                let slices = arm.slices_of(block);
                let values: Vec<f64> = slices
                    .filter_map(|(_, slice)| value(slice, block))
                    .collect();
                median(&values)
            };
            arm.blocks.iter().filter_map(in_block).collect()
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
///
/// An arm that stood still against one that served has an infinite one. If both stood still, nothing is known.
fn log_ratios(metric: Metric, arm: &ArmRows<'_>, reference: &ArmRows<'_>) -> Option<Vec<f64>> {
    let both = arm.blocks.iter().filter_map(|block| {
        let mut others = reference.blocks.iter();
        let other = others.find(|other| other.block == block.block)?;
        Some((*block, *other))
    });

    match metric.source() {
        Source::Block(value) => {
            // No growth of memory and no tick of CPU time are too small to be seen, not zero.
            let seen = |row| value(row).filter(|value| *value > 0.0);
            let ratios = both.filter_map(|(a, b)| log_ratio(seen(a)?, seen(b)?));
            Some(ratios.collect())
        }
        Source::Slice(value, _) | Source::SlicesOnly(value) => {
            let ratio = |(block, other): (&BlockRow, &BlockRow)| {
                median_log_ratio(arm.slices_of(block).filter_map(|(round, slice)| {
                    let of = reference.slices.get(round)?;
                    Some((value(slice, block)?, value(of, other)?))
                }))
            };
            Some(both.filter_map(ratio).collect())
        }
        Source::Sum(_) | Source::Median(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::results::{csv_text, read_blocks, read_slices, read_summary};
    use crate::stats::RatioVerdict;

    const BLOCKS: u32 = 8;
    const STILL: (u64, u64) = (1, 0);
    const NOTHING_DUE: (u64, u64) = (0, 0);
    const SERVED: (u64, u64) = (100, 100);

    /// Rows of an arm whose slices have these numbers of requests and replies in every block.
    fn arm(
        model: &str,
        rate_per_second: Option<f64>,
        slices: &[(u64, u64)],
    ) -> (Vec<SliceRow>, Vec<BlockRow>) {
        let (mut all_slices, mut all_blocks) = (Vec::new(), Vec::new());
        for block in 1..=BLOCKS {
            for (round, &(planned, replies)) in (1_u32..).zip(slices) {
                all_slices.push(SliceRow {
                    schema_version: SCHEMA_VERSION,
                    scenario: "steady".to_owned(),
                    model: model.to_owned(),
                    block,
                    round,
                    planned,
                    answered: replies,
                    replies,
                    throughput_per_second: replies as f64,
                    latency_p50_ns: (replies > 0).then_some(1_000),
                    latency_p99_ns: (replies > 0).then_some(10 * replies),
                    ..SliceRow::default()
                });
            }

            let answered: u64 = slices.iter().map(|slice| slice.1).sum();
            let rates: Vec<f64> = slices.iter().map(|slice| slice.1 as f64).collect();
            all_blocks.push(BlockRow {
                schema_version: SCHEMA_VERSION,
                scenario: "steady".to_owned(),
                model: model.to_owned(),
                block,
                rate_per_second,
                planned: slices.iter().map(|slice| slice.0).sum(),
                answered,
                throughput_per_second: median(&rates),
                latency_p50_ns: (answered > 0).then_some(1_000),
                latency_p99_ns: (answered > 0).then_some(2_000),
                ..BlockRow::default()
            });
        }
        (all_slices, all_blocks)
    }

    /// The summary of two arms, the first of which is the reference.
    fn two_arms(
        rate_per_second: Option<f64>,
        reference: &[(u64, u64)],
        other: &[(u64, u64)],
    ) -> Vec<SummaryRow> {
        let (mut slices, mut blocks) = arm(REFERENCE, rate_per_second, reference);
        let (other_slices, other_blocks) = arm("fork", rate_per_second, other);
        slices.extend(other_slices);
        blocks.extend(other_blocks);
        summarize(&slices, &blocks, &Views::default())
    }

    fn row<'a>(summary: &'a [SummaryRow], model: &str, metric: Metric) -> &'a SummaryRow {
        let mut rows = summary.iter();
        rows.find(|row| row.model == model && row.metric == metric)
            .expect("a row of each metric")
    }

    fn ratio(summary: &[SummaryRow], metric: Metric) -> (Option<f64>, Option<RatioVerdict>) {
        let row = row(summary, "fork", metric);
        (row.ratio, row.verdict)
    }

    const HIGHER: Option<RatioVerdict> = Some(RatioVerdict::Higher);
    const LOWER: Option<RatioVerdict> = Some(RatioVerdict::Lower);
    const UNBOUNDED: Option<f64> = Some(f64::INFINITY);

    #[test]
    fn a_slice_without_a_reply_counts_as_infinitely_slow() {
        let (served, mostly_still) = ([SERVED; 3], [STILL, STILL, SERVED]);

        let summary = two_arms(None, &served, &mostly_still);
        assert_eq!(ratio(&summary, Metric::Throughput), (Some(0.0), LOWER));
        assert_eq!(ratio(&summary, Metric::LatencyP50), (UNBOUNDED, HIGHER));
        let estimate = row(&summary, "fork", Metric::Throughput).estimate;
        assert_eq!(estimate, Some(0.0));

        let summary = two_arms(None, &mostly_still, &served);
        assert_eq!(ratio(&summary, Metric::Throughput), (UNBOUNDED, HIGHER));
        assert_eq!(ratio(&summary, Metric::LatencyP50), (Some(0.0), LOWER));
    }

    /// One slice in which both served would else be the ratio of the whole block.
    #[test]
    fn a_round_in_which_both_stood_still_says_nothing() {
        let both = [STILL, STILL, SERVED];
        let even = (Some(1.0), Some(RatioVerdict::Unresolved));
        assert_eq!(
            ratio(&two_arms(None, &both, &both), Metric::Throughput),
            even
        );

        let summary = two_arms(None, &[STILL; 3], &[STILL; 3]);
        for metric in [Metric::Throughput, Metric::LatencyP50, Metric::LatencyP99] {
            assert_eq!(ratio(&summary, metric), (None, None), "{metric}");
        }
        // As often the one as the other.
        let (first, second) = ([STILL, SERVED], [SERVED, STILL]);
        assert_eq!(
            ratio(&two_arms(None, &first, &second), Metric::Throughput),
            even
        );
    }

    /// In a closed loop, clients that wait begin nothing: a slice without a request stands still as well.
    #[test]
    fn a_slice_in_which_nothing_was_due_says_nothing() {
        let (served, little) = ([SERVED; 3], [NOTHING_DUE, NOTHING_DUE, SERVED]);
        let open = ratio(&two_arms(Some(10.0), &served, &little), Metric::Throughput);
        assert_eq!(open, (Some(1.0), Some(RatioVerdict::Unresolved)));
        let closed = ratio(&two_arms(None, &served, &little), Metric::Throughput);
        assert_eq!(closed, (Some(0.0), LOWER));

        let lost = [STILL, STILL, SERVED];
        let open = ratio(&two_arms(Some(10.0), &served, &lost), Metric::Throughput);
        assert_eq!(open, (Some(0.0), LOWER));
    }

    #[test]
    fn the_latency_of_a_block_without_an_answer_has_no_bound() {
        let summary = two_arms(None, &[SERVED; 3], &[STILL; 3]);
        for metric in [Metric::LatencyP50, Metric::LatencyP99] {
            assert_eq!(row(&summary, "fork", metric).estimate, UNBOUNDED);
            assert_eq!(ratio(&summary, metric), (UNBOUNDED, HIGHER));
        }

        let nothing_due = two_arms(Some(10.0), &[SERVED; 3], &[NOTHING_DUE; 3]);
        assert_eq!(row(&nothing_due, "fork", Metric::LatencyP99).estimate, None);
        assert_eq!(ratio(&nothing_due, Metric::LatencyP99), (None, None));
    }

    /// One bad slice in three makes the tail of the block, and not that of a typical slice.
    #[test]
    fn the_p99_of_a_typical_slice_is_a_median_over_slices() {
        let (even, one_bad) = ([SERVED; 3], [(100, 100), (100, 120), (900, 900)]);
        let summary = two_arms(None, &even, &one_bad);
        let metric = Metric::SliceLatencyP99;

        assert_eq!(row(&summary, REFERENCE, metric).estimate, Some(1_000.0));
        let other = row(&summary, "fork", metric);
        assert_eq!(other.estimate, Some(1_200.0));
        assert_eq!(other.blocks, BLOCKS as usize);
        assert!((other.ratio.unwrap() - 1.2).abs() < 1e-12, "{other:?}");
        assert_eq!(other.verdict, HIGHER);

        // No request was answered: without bound, as in the block.
        let still = two_arms(None, &even, &[STILL; 3]);
        assert_eq!(row(&still, "fork", metric).estimate, UNBOUNDED);
    }

    #[test]
    fn values_without_bound_read_back() {
        let folder = tempfile::TempDir::new().unwrap();
        let summary = two_arms(None, &[STILL, STILL, SERVED], &[SERVED; 3]);
        let text = csv_text(&summary, true).unwrap();
        assert!(
            text.contains(",inf,inf,inf,") && !text.contains("NaN"),
            "{text}"
        );

        fs::write(folder.path().join("summary.csv"), &text).unwrap();
        let read = read_summary(folder.path()).unwrap().unwrap();
        assert_eq!(csv_text(&read, true).unwrap(), text);
    }

    /// Committed summaries, byte for byte.
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
            let summary = summarize(&slices, &blocks, &Views::default());
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
