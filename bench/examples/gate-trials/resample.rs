//! Gates over blocks that are drawn with replacement from those measured in trials: many more than could be run.

use std::collections::BTreeMap;

use echobench::gate::rule::{
    Finding, GateMetric, GateVerdict, LOOKS, Sample, Step, decide, is_confirmed, judge,
};

use crate::trials::{TrialResults, Truth};

/// Seed of the draws: the same folders always give the same table.
const SEED: u64 = 1;

/// Metrics of one block: slow-downs of the candidate and the second baseline against the first baseline, and of the
/// second baseline against the candidate.
type Block = BTreeMap<GateMetric, [Option<f64>; 3]>;

/// Gates of one kind, and how often each answer was given.
pub(crate) struct Resampled {
    /// Difference between the builds.
    pub(crate) truth: Truth,
    /// The model that was slowed down; none where all are equal.
    pub(crate) model: Option<String>,
    /// Number of gates.
    pub(crate) gates: u64,
    /// Gates that were a regression.
    pub(crate) regressions: u64,
    /// Gates that were inconclusive.
    pub(crate) inconclusive: u64,
    /// Gates in which a line of this metric was confirmed.
    pub(crate) confirmed: BTreeMap<GateMetric, u64>,
}

/// Judges as many gates of all models for each truth, in each of which one model was slowed down; none without blocks
/// of equal builds of every model, and of a confirmation, which tell how long a gate is.
pub(crate) fn resample(results: &TrialResults, gates: u64) -> Vec<Resampled> {
    let pools = pools(results);
    let blocks = results.trials.iter().map(|row| row.confirmation_blocks);
    let blocks = blocks.max().unwrap_or(0);
    let mut models: Vec<&String> = pools.keys().map(|(model, _)| model).collect();
    models.dedup();
    let equal = models
        .iter()
        .map(|&model| pools.get(&(model.clone(), Truth::Equal)));
    let Some(equal) = equal.collect::<Option<Vec<_>>>() else {
        return Vec::new();
    };
    if blocks == 0 || models.is_empty() {
        return Vec::new();
    }

    let all_equal = Subjects {
        names: &models,
        equal: &equal,
        slow: None,
        blocks,
    };
    let mut rows = vec![all_equal.judge_many(Truth::Equal, gates)];
    for truth in [Truth::Cpu, Truth::Throughput, Truth::Tail] {
        for (index, &model) in models.iter().enumerate() {
            let slow = pools.get(&(model.clone(), truth));
            rows.extend(slow.map(|slow| {
                let subjects = Subjects {
                    slow: Some((index, slow)),
                    ..all_equal
                };
                subjects.judge_many(truth, gates)
            }));
        }
    }
    rows
}

/// The measured blocks by model and truth.
fn pools(results: &TrialResults) -> BTreeMap<(String, Truth), Vec<Block>> {
    let mut blocks: BTreeMap<(u32, u32), Block> = BTreeMap::new();
    for row in &results.slowdowns {
        let block = blocks.entry((row.trial, row.block)).or_default();
        let values = [row.candidate, row.again, row.again_candidate];
        block.insert(row.metric, values);
    }

    let mut pools: BTreeMap<(String, Truth), Vec<Block>> = BTreeMap::new();
    for ((trial, _), block) in blocks {
        let mut trials = results.trials.iter();
        if let Some(row) = trials.find(|row| row.trial == trial) {
            let key = (row.model.clone(), row.truth);
            pools.entry(key).or_default().push(block);
        }
    }
    pools
}

/// The models of a gate, with the pools that their blocks are drawn from.
#[derive(Clone, Copy)]
struct Subjects<'a> {
    names: &'a [&'a String],
    equal: &'a [&'a Vec<Block>],
    slow: Option<(usize, &'a Vec<Block>)>,
    blocks: u32,
}

impl Subjects<'_> {
    fn judge_many(&self, truth: Truth, gates: u64) -> Resampled {
        let mut random = fastrand::Rng::with_seed(SEED);
        let mut row = Resampled {
            truth,
            model: self.slow.map(|(index, _)| self.names[index].clone()),
            gates,
            regressions: 0,
            inconclusive: 0,
            confirmed: BTreeMap::new(),
        };

        for _ in 0..gates {
            let (verdict, confirmed) = self.gate(&mut random);
            row.regressions += u64::from(verdict == GateVerdict::Regression);
            row.inconclusive += u64::from(verdict == GateVerdict::Inconclusive);
            for &metric in GateMetric::ALL {
                *row.confirmed.entry(metric).or_default() += u64::from(confirmed.contains(&metric));
            }
        }
        row
    }

    /// The verdict of one gate, and the metrics of its confirmed lines.
    fn gate(&self, random: &mut fastrand::Rng) -> (GateVerdict, Vec<GateMetric>) {
        let lines = self.names.iter().flat_map(|&name| {
            let metrics = GateMetric::ALL.iter();
            metrics.map(move |&metric| Sample::empty(name, metric))
        });
        let mut samples: Vec<Sample> = lines.collect();

        for look in 1..=LOOKS {
            let until = |look| self.blocks * look / LOOKS;
            self.draw(&mut samples, until(look) - until(look - 1), random);
            let table = judge(&samples, LOOKS);
            match decide(&table, look == LOOKS) {
                Step::Pass => return (GateVerdict::Pass, Vec::new()),
                Step::Inconclusive(_) => break,
                Step::GoOn => {}
                Step::Confirm => {
                    let suspected = samples.iter().zip(&table);
                    let suspected = suspected.filter(|(_, line)| line.finding == Finding::Slower);
                    let mut again: Vec<Sample> = suspected
                        .map(|(sample, _)| Sample::empty(&sample.subject, sample.metric))
                        .collect();
                    self.draw(&mut again, self.blocks, random);

                    let confirmation = judge(&again, 1);
                    if !is_confirmed(&confirmation) {
                        break;
                    }
                    let slower = confirmation
                        .iter()
                        .filter(|line| line.finding == Finding::Slower);
                    return (
                        GateVerdict::Regression,
                        slower.map(|line| line.metric).collect(),
                    );
                }
            }
        }
        (GateVerdict::Inconclusive, Vec::new())
    }

    /// Adds whole blocks to the samples: those of one model in one block are all of the same measured block.
    fn draw(&self, samples: &mut [Sample], blocks: u32, random: &mut fastrand::Rng) {
        for (index, &name) in self.names.iter().enumerate() {
            let slow = self.slow.filter(|(slow, _)| *slow == index);
            let pool = slow.map_or(self.equal[index], |(_, pool)| pool);
            for _ in 0..blocks {
                let block = &pool[random.usize(..pool.len())];
                // Of equal builds, either might have been the candidate.
                let swapped = slow.is_none() && random.bool();
                for sample in samples.iter_mut().filter(|sample| sample.subject == *name) {
                    let values = block.get(&sample.metric).copied().unwrap_or_default();
                    let [candidate, again, again_candidate] = values;
                    if swapped {
                        sample.candidate.extend(candidate.map(|log| -log));
                        sample.again.extend(again_candidate);
                    } else {
                        sample.candidate.extend(candidate);
                        sample.again.extend(again);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use echobench::results::SCHEMA_VERSION;

    use super::*;
    use crate::trials::{SlowdownRow, TrialRow};

    /// Trials of two models, whose tails are 20 % worse in every other gate.
    fn trials() -> TrialResults {
        let mut random = fastrand::Rng::with_seed(7);
        let mut results = TrialResults::default();
        for (trial, (model, truth)) in (1..).zip([
            ("thread", Truth::Equal),
            ("thread", Truth::Tail),
            ("async", Truth::Equal),
            ("async", Truth::Tail),
        ]) {
            results.trials.push(TrialRow {
                confirmation_blocks: 36,
                ..crate::trials::example_row(trial, model, truth)
            });
            for block in 1..=60 {
                let slowdowns = GateMetric::ALL.iter().map(|&metric| {
                    let is_tail = matches!(metric, GateMetric::P99 | GateMetric::SliceP99);
                    let slower = if is_tail && truth == Truth::Tail {
                        0.2_f64.ln_1p()
                    } else {
                        0.0
                    };
                    let [one, two, candidate] = [0; 3].map(|_| 0.04 * (random.f64() - 0.5));
                    SlowdownRow {
                        schema_version: SCHEMA_VERSION,
                        trial,
                        block,
                        metric,
                        candidate: Some(slower + candidate - one),
                        again: Some(two - one),
                        again_candidate: Some(two - candidate - slower),
                    }
                });
                results.slowdowns.extend(slowdowns);
            }
        }
        results
    }

    #[test]
    fn resampled_gates_find_a_tail_and_raise_no_alarm() {
        let rows = resample(&trials(), 40);
        let names: Vec<_> = rows
            .iter()
            .map(|row| (row.truth, row.model.as_deref()))
            .collect();
        assert_eq!(
            names,
            [
                (Truth::Equal, None),
                (Truth::Tail, Some("async")),
                (Truth::Tail, Some("thread"))
            ]
        );

        assert_eq!((rows[0].regressions, rows[0].gates), (0, 40));
        for row in &rows[1..] {
            assert_eq!((row.regressions, row.inconclusive), (40, 0));
            // A few are lost where the baseline differs from itself by chance.
            let tails = row.confirmed[&GateMetric::SliceP99];
            assert!(tails >= 36, "{tails}");
            assert!(row.confirmed[&GateMetric::Cpu] <= 4);
        }
    }

    /// Blocks in which the candidate was always ahead by chance are no bias: both arms are equal.
    #[test]
    fn equal_builds_are_swapped_at_random() {
        let mut results = trials();
        for row in &mut results.slowdowns {
            row.candidate = Some(0.04);
            row.again_candidate = row.again.map(|again| again - 0.04);
        }
        let rows = resample(&results, 40);
        assert_eq!(rows[0].regressions, 0);
    }

    #[test]
    fn folders_without_slow_downs_are_not_resampled() {
        let mut results = trials();
        results.slowdowns.clear();
        assert!(resample(&results, 1).is_empty());
    }
}
