//! History of committed runs: the ratios of an arm over time, and where they changed.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, bail};
use serde::Deserialize;

use crate::host::machine_key::MachineKey;
use crate::render::Style;
use crate::results::{ConditionKey, Metric, SummaryRow, read_summary};
use crate::stats::holm;

/// Metrics that are followed over time.
const FOLLOWED_METRICS: [Metric; 3] = [
    Metric::Throughput,
    Metric::LatencyP99,
    Metric::CpuPerRequest,
];
/// Runs that a change point needs on each side.
const RUNS_EACH_SIDE: usize = 5;
/// Probability of marking any change where there is none, over all series together.
const ALPHA: f64 = 0.05;
/// Random orders that a series is compared with.
const SHUFFLES: u32 = 9_999;

/// The history of all results folders in a folder: a table for each kind of machine.
pub fn history(folder: &Path) -> anyhow::Result<String> {
    let runs = CommittedRun::read_all(folder)?;
    let mut rest: Vec<&CommittedRun> = runs.iter().collect();
    let mut text = String::new();
    while let Some(&first) = rest.first() {
        let (alike, others): (Vec<_>, Vec<_>) = rest
            .into_iter()
            .partition(|run| run.difference(first).is_none());
        text += &machine_history(first, &alike);
        rest = others;
    }

    let note = format!(
        "Ratios to the reference arm of the same run, oldest first. A change is marked with at least \
         {RUNS_EACH_SIDE} runs on each side, and a false one with a probability of at most {:.0} % over \
         all rows of a table.\n",
        100.0 * ALPHA
    );
    Ok(text + &note)
}

/// The history of runs on one kind of machine, which is that of `first`.
fn machine_history(first: &CommittedRun, runs: &[&CommittedRun]) -> String {
    let awake = if first.awake { ", CPUs awake" } else { "" };
    let title = format!("{}{awake}, runs: {}", first.machine.slug(), runs.len());
    let list = runs.iter().enumerate();
    let list: Vec<String> = list
        .map(|(index, run)| format!("  {}  {}", index + 1, run.name))
        .collect();

    let names = [&KEY_COLUMNS[..], &["ratios", "change"]].concat();
    let rows = ratio_series(runs)
        .into_iter()
        .map(|series| cells(&series, runs))
        .collect();
    let table = Style::Plain.table(&names, rows, &[0, 2, 3, 4, 5, 6, 7]);
    format!("{title}\n{}\n\n{table}\n\n", list.join("\n"))
}

fn cells(series: &RatioSeries, runs: &[&CommittedRun]) -> Vec<String> {
    let ratios: Vec<String> = series
        .ratios
        .iter()
        .map(|(_, ratio)| format!("{ratio:.2}"))
        .collect();
    let change = series.change.map(|change| {
        let (run, _) = series.ratios[change.at];
        format!("from {} on (p {:.4})", runs[run].name, change.p)
    });

    let mut cells = series.key.cells();
    cells.extend([ratios.join(" "), change.unwrap_or_default()]);
    cells
}

/// A committed run, as far as histories and comparisons need it.
pub(super) struct CommittedRun {
    /// Name of its folder.
    name: String,
    /// Time of its start, in RFC 3339.
    started: String,
    machine: MachineKey,
    /// Whether idle CPUs were kept out of their sleep states.
    awake: bool,
    pub(super) summary: Vec<SummaryRow>,
}

/// The part of `run.json` that is needed here; later versions may add to it.
#[derive(Deserialize)]
struct RecordHead {
    environment: EnvironmentHead,
}

#[derive(Deserialize)]
struct EnvironmentHead {
    started: String,
    machine: MachineKey,
    #[serde(default)]
    awake: bool,
}

impl CommittedRun {
    /// Reads a results folder. Fails if it has no summary.
    pub(super) fn read(folder: &Path) -> anyhow::Result<Self> {
        let name = folder.display();
        let Some(summary) = read_summary(folder)? else {
            bail!("{name} has no summary.csv: its run did not end")
        };

        let path = folder.join("run.json");
        let text = fs::read_to_string(&path).with_context(|| format!("{name} has no run.json"))?;
        let head: RecordHead = serde_json::from_str(&text)
            .with_context(|| format!("cannot read {}", path.display()))?;

        let name = folder.file_name().unwrap_or(folder.as_os_str());
        Ok(CommittedRun {
            name: name.to_string_lossy().into_owned(),
            started: head.environment.started,
            machine: head.environment.machine,
            awake: head.environment.awake,
            summary,
        })
    }

    /// The difference that keeps the figures of two runs from being compared; `None` if there is none.
    pub(super) fn difference(&self, other: &Self) -> Option<String> {
        let state = |run: &Self| if run.awake { "awake" } else { "asleep" };
        let idle = || format!("idle CPUs ({} and {})", state(self), state(other));
        let machines = self.machine.difference(&other.machine);
        machines.or_else(|| (self.awake != other.awake).then(idle))
    }

    /// Reads the results folders in a folder, in the order in which their runs began.
    fn read_all(folder: &Path) -> anyhow::Result<Vec<Self>> {
        let place = || format!("cannot read {}", folder.display());
        let mut runs = Vec::new();
        for entry in fs::read_dir(folder).with_context(place)? {
            let path = entry.with_context(place)?.path();
            if path.join("summary.csv").exists() && path.join("run.json").exists() {
                runs.push(CommittedRun::read(&path)?);
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

/// Columns of a table that show a [`SeriesKey`].
pub(super) const KEY_COLUMNS: [&str; 6] = [
    "scenario",
    "clients",
    "driver",
    "placement",
    "model",
    "metric",
];

/// Identity of a series: the metric of an arm under a condition.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SeriesKey {
    condition: ConditionKey,
    model: String,
    metric: &'static str,
}

impl SeriesKey {
    /// Its cells under [`KEY_COLUMNS`].
    pub(super) fn cells(&self) -> Vec<String> {
        let condition = &self.condition;
        let load = condition
            .load_percent
            .map(|percent| format!(" at {percent} %"));
        vec![
            format!("{}{}", condition.scenario, load.unwrap_or_default()),
            condition.clients.to_string(),
            condition.driver.to_string(),
            condition.placement.to_string(),
            self.model.clone(),
            self.metric.to_owned(),
        ]
    }
}

/// The rows of a summary whose metric is followed, by their series.
pub(super) fn by_key(summary: &[SummaryRow]) -> BTreeMap<SeriesKey, &SummaryRow> {
    let followed = summary
        .iter()
        .filter(|row| FOLLOWED_METRICS.contains(&row.metric));
    followed
        .map(|row| {
            let key = SeriesKey {
                condition: row.condition(),
                model: row.model.clone(),
                metric: row.metric.name(),
            };
            (key, row)
        })
        .collect()
}

/// Ratios of one arm and metric to the reference arm, over the runs on one kind of machine.
struct RatioSeries {
    key: SeriesKey,
    /// Indices of runs, and the ratios there.
    ratios: Vec<(usize, f64)>,
    change: Option<ChangePoint>,
}

/// A change in a series.
#[derive(Clone, Copy, Debug, PartialEq)]
struct ChangePoint {
    /// Index in the series of the first value after the change.
    at: usize,
    /// Probability of a score as large in a series without a change.
    p: f64,
}

/// All series of runs on one kind of machine, with the changes that are significant among them all.
fn ratio_series(runs: &[&CommittedRun]) -> Vec<RatioSeries> {
    let mut ratios: BTreeMap<SeriesKey, Vec<(usize, f64)>> = BTreeMap::new();
    for (index, run) in runs.iter().enumerate() {
        for (key, row) in by_key(&run.summary) {
            if let Some(ratio) = row.ratio {
                ratios.entry(key).or_default().push((index, ratio));
            }
        }
    }

    let mut all: Vec<RatioSeries> = ratios
        .into_iter()
        .map(|(key, ratios)| {
            let values: Vec<f64> = ratios.iter().map(|(_, ratio)| *ratio).collect();
            RatioSeries {
                key,
                ratios,
                change: find_change(&values),
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

/// Most likely change point of a series and its p-value; `None` with too few values.
///
/// The statistic is the largest standardised rank sum over all splits, against random orders of the
/// same values. The place is the split with the least squares around both means, because ranks put it
/// off by one whenever the first new value is the most like the old ones. Source: Pettitt, "A
/// non-parametric approach to the change-point problem", *Applied Statistics* 28 (1979); with a
/// permutation test in place of its approximation.
fn find_change(values: &[f64]) -> Option<ChangePoint> {
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

    Some(ChangePoint {
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

/// The split that explains most of the squares of the values, and its score, in units that are the same
/// for all orders of the same values. The score of ranks is the standardised rank sum.
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
