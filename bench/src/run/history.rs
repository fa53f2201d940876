//! Committed runs beside each other: what may be compared, the ratios of an arm over time, and where
//! they changed.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, bail};
use serde::Deserialize;

use crate::host::environment::MachineKey;
use crate::results::{ConditionKey, SummaryRow, read_summary};
use crate::stats::holm;

/// The metrics that are followed.
pub const METRICS: [&str; 3] = [
    "throughput_per_second",
    "latency_p99_ns",
    "cpu_ns_per_request",
];
/// A change needs so many runs on each side.
pub const RUNS_EACH_SIDE: usize = 5;
/// The probability of marking any change where there is none, over all series together.
pub const ALPHA: f64 = 0.05;
/// Random orders with which a series is compared.
const SHUFFLES: u32 = 9_999;

/// A committed run.
pub struct Run {
    /// The name of its folder.
    pub name: String,
    /// When it began.
    pub started: String,
    /// The kind of machine.
    pub machine: MachineKey,
    /// Whether idle CPUs were kept from sleeping.
    pub awake: bool,
    /// Its summary.
    pub summary: Vec<SummaryRow>,
}

/// The part of `run.json` that is needed here, whatever else later versions add to it.
#[derive(Deserialize)]
struct Head {
    environment: HeadEnvironment,
}

#[derive(Deserialize)]
struct HeadEnvironment {
    started: String,
    machine: MachineKey,
    #[serde(default)]
    awake: bool,
}

impl Run {
    /// Reads a results folder. Fails when it has no summary.
    pub fn read(folder: &Path) -> anyhow::Result<Self> {
        let name = folder.display();
        let Some(summary) = read_summary(folder)? else {
            bail!("{name} has no summary.csv: its run did not end")
        };
        let path = folder.join("run.json");
        let text = fs::read_to_string(&path).with_context(|| format!("{name} has no run.json"))?;
        let head: Head = serde_json::from_str(&text)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let name = folder.file_name().unwrap_or(folder.as_os_str());
        Ok(Run {
            name: name.to_string_lossy().into_owned(),
            started: head.environment.started,
            machine: head.environment.machine,
            awake: head.environment.awake,
            summary,
        })
    }

    /// What two runs differ in so that their figures cannot be compared; `None` for those of one kind.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Option<String> {
        let state = |run: &Self| if run.awake { "awake" } else { "asleep" };
        let idle = || format!("idle CPUs ({} and {})", state(self), state(other));
        let machines = self.machine.difference(&other.machine);
        machines.or_else(|| (self.awake != other.awake).then(idle))
    }

    /// The results folders in a folder, in the order in which they began.
    pub fn read_all(folder: &Path) -> anyhow::Result<Vec<Self>> {
        let place = || format!("cannot read {}", folder.display());
        let mut runs = Vec::new();
        for entry in fs::read_dir(folder).with_context(place)? {
            let path = entry.with_context(place)?.path();
            if path.join("summary.csv").exists() && path.join("run.json").exists() {
                runs.push(Run::read(&path)?);
            }
        }
        if runs.is_empty() {
            bail!(
                "{} holds no results folders; give one such as results/",
                folder.display()
            );
        }
        runs.sort_by(|a, b| a.started.cmp(&b.started));
        Ok(runs)
    }
}

/// What a series is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The section.
    pub section: ConditionKey,
    /// The arm.
    pub model: String,
    /// The metric.
    pub metric: String,
}

/// The rows of a summary that have a ratio, or are the reference of others, by what they are about.
#[must_use]
pub fn by_key(summary: &[SummaryRow]) -> BTreeMap<Key, &SummaryRow> {
    let followed = summary
        .iter()
        .filter(|row| METRICS.contains(&&row.metric[..]));
    followed
        .map(|row| {
            let key = Key {
                section: row.condition(),
                model: row.model.clone(),
                metric: row.metric.clone(),
            };
            (key, row)
        })
        .collect()
}

/// The ratios of one arm and metric to its reference, over the runs on one kind of machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// What it is about.
    pub key: Key,
    /// The runs, by their place in the list, and their ratios.
    pub ratios: Vec<(usize, f64)>,
    /// Where it changed, if it did.
    pub change: Option<Change>,
}

/// A change in a series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Change {
    /// The place in the series of the first value after it.
    pub at: usize,
    /// The probability that a series without a change looks so much like one.
    pub p: f64,
}

/// All series of runs on the same kind of machine, with the changes that stand out among them all.
#[must_use]
pub fn series(runs: &[&Run]) -> Vec<Series> {
    let mut ratios: BTreeMap<Key, Vec<(usize, f64)>> = BTreeMap::new();
    for (place, run) in runs.iter().enumerate() {
        for (key, row) in by_key(&run.summary) {
            if let Some(ratio) = row.ratio {
                ratios.entry(key).or_default().push((place, ratio));
            }
        }
    }
    let mut all: Vec<Series> = ratios
        .into_iter()
        .map(|(key, ratios)| {
            let values: Vec<f64> = ratios.iter().map(|(_, ratio)| *ratio).collect();
            let change = find_change(&values);
            Series {
                key,
                ratios,
                change,
            }
        })
        .collect();
    let p: Vec<f64> = all.iter().filter_map(|s| Some(s.change?.p)).collect();
    let mut decisions = holm(&p, ALPHA).into_iter();
    for series in &mut all {
        if series.change.is_some() {
            let rejected = decisions.next().is_some_and(|decision| decision.rejected);
            series.change = series.change.filter(|_| rejected);
        }
    }
    all
}

/// The most likely change of a series, and how likely one like it is by chance: the largest
/// standardised rank sum over all splits, against random orders of the same values. Where it is, the
/// values themselves say, by the split with the least squares around both means; ranks would put
/// it off by one whenever the first new value is the most like the old ones. `None` with too few
/// values. Source: Pettitt, "A non-parametric approach to the change-point problem", *Applied
/// Statistics* 28 (1979); with a permutation test in place of its approximation.
#[must_use]
pub fn find_change(values: &[f64]) -> Option<Change> {
    if values.len() < 2 * RUNS_EACH_SIDE {
        return None;
    }
    let mut ranks = ranks(values);
    let (at, _) = best_split(values);
    let (_, observed) = best_split(&ranks);
    let mut random = fastrand::Rng::with_seed(1);
    let as_large = (0..SHUFFLES)
        .filter(|_| {
            random.shuffle(&mut ranks);
            best_split(&ranks).1 >= observed - 1e-9
        })
        .count();
    Some(Change {
        at,
        p: (as_large + 1) as f64 / f64::from(SHUFFLES + 1),
    })
}

/// Ranks from 1; equal values share the mean of theirs.
fn ranks(values: &[f64]) -> Vec<f64> {
    let rank = |value: &f64| {
        let below = values.iter().filter(|other| *other < value).count();
        let not_above = values.iter().filter(|other| *other <= value).count();
        f64::midpoint(below as f64, not_above as f64) + 0.5
    };
    values.iter().map(rank).collect()
}

/// The split that explains most of the squares of the values, and how much, in units that are the
/// same for all orders of the same values. Of ranks, that is the standardised rank sum.
fn best_split(values: &[f64]) -> (usize, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let mut sum = 0.0;
    let mut best = (RUNS_EACH_SIDE, 0.0);
    for (index, value) in values.iter().enumerate() {
        sum += value - mean;
        let before = index + 1;
        if before < RUNS_EACH_SIDE || values.len() - before < RUNS_EACH_SIDE {
            continue;
        }
        let first = before as f64;
        let score = sum * sum / (first * (n - first));
        if score > best.1 {
            best = (before, score);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noisy(random: &mut fastrand::Rng, runs: usize, step_at: usize, step: f64) -> Vec<f64> {
        let value = |run: usize| {
            let noise = 0.04 * (random.f64() - 0.5);
            1.2 * if run < step_at { 1.0 } else { step } * (1.0 + noise)
        };
        (0..runs).map(value).collect()
    }

    #[test]
    fn a_step_is_found_where_it_is() {
        let mut random = fastrand::Rng::with_seed(1);
        for step_at in [5, 8, 12, 15] {
            let change = find_change(&noisy(&mut random, 20, step_at, 0.9)).unwrap();
            assert_eq!(change.at, step_at);
            assert!(change.p < 0.01, "{change:?}");
        }
    }

    #[test]
    fn noise_alone_is_marked_no_more_often_than_promised() {
        let mut random = fastrand::Rng::with_seed(2);
        let histories = 200;
        let marked = (0..histories)
            .filter(|_| find_change(&noisy(&mut random, 12, 12, 1.0)).unwrap().p <= 0.05)
            .count();
        assert!(marked <= 20, "{marked} of {histories}");
    }

    #[test]
    fn five_runs_are_needed_on_each_side() {
        let step = |before: usize, after: usize| {
            let mut values: Vec<f64> = (0..before).map(|run| 1.0 + 0.001 * run as f64).collect();
            values.extend((0..after).map(|run| 2.0 + 0.001 * run as f64));
            find_change(&values)
        };
        assert_eq!(step(4, 5), None);
        assert_eq!(step(5, 5).unwrap().at, 5);
        // The step is too close to the end to be marked where it is.
        assert_eq!(step(10, 2).unwrap().at, 7);
    }

    #[test]
    fn a_series_that_stands_still_has_no_change() {
        assert!(find_change(&[1.0; 20]).unwrap().p > 0.9);
    }
}
