//! History of committed runs: the ratios of an arm over time, and where they changed.

use std::collections::BTreeMap;
use std::path::Path;

use super::committed::{CommittedRun, KEY_COLUMNS, NOT_VALID, SeriesKey};
use super::machines::{MachineRuns, across_machines};
use super::scenario_report::{fixed, ratio_with_interval};
use super::workload::Workload;
use crate::render::Style;
use crate::render::units::{UNKNOWN, or_unknown};
use crate::results::SummaryRow;
use crate::results::summary::REFERENCE;
use crate::stats::holm;

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
    text += &on_machines(&runs);

    let note = format!(
        "Ratios to the reference arm of the same run, oldest first; {UNKNOWN} where a run has none, \
         {NOT_VALID} where at least half of the blocks are not valid. A change is marked with at least \
         {RUNS_EACH_SIDE} runs on each side, and a false one with a probability of at most {:.0} % over \
         all rows of a table.\n",
        100.0 * ALPHA
    );
    Ok(text + &note)
}

/// The ratios that several kinds of machines have. Runs with idle CPUs kept awake are apart from others.
fn on_machines(runs: &[CommittedRun]) -> String {
    let mut text = String::new();
    for awake in [false, true] {
        let mut machines: Vec<MachineRuns<'_>> = Vec::new();
        for run in runs.iter().filter(|run| run.awake == awake) {
            let same = |(_, runs): &&mut MachineRuns<'_>| runs[0].machine_difference(run).is_none();
            match machines.iter_mut().find(same) {
                Some((_, runs)) => runs.push(run),
                None => machines.push((run.machine_name(), vec![run])),
            }
        }
        if machines.len() > 1 {
            for part in across_machines(&machines) {
                text += &(part.text(Style::Plain) + "\n\n");
            }
        }
    }
    text
}

/// The history of runs on one kind of machine, which is that of `first`.
fn machine_history(first: &CommittedRun, runs: &[&CommittedRun]) -> String {
    let title = format!("{}, runs: {}", first.machine_name(), runs.len());
    let list = runs.iter().enumerate();
    let list: Vec<String> = list
        .map(|(index, run)| format!("  {}  {}", index + 1, run.title()))
        .collect();

    let workloads = Workloads::of(runs);
    let names = [&KEY_COLUMNS[..], &["ratios", "change"]].concat();
    let rows = ratio_series(runs, &workloads)
        .into_iter()
        .map(|series| cells(&series, runs))
        .collect();
    let table = Style::Plain.table(&names, rows, &[0, 2, 3, 4, 5, 6, 7]);

    let mut parts = vec![format!("{title}\n{}", list.join("\n")), table];
    if !workloads.differences.is_empty() {
        parts.push(workloads.differences.join("\n"));
    }
    parts.join("\n\n") + "\n\n"
}

fn cells(series: &RatioSeries<'_>, runs: &[&CommittedRun]) -> Vec<String> {
    let ratio_of = |run: usize| {
        let mut ratios = series.ratios.iter();
        or_unknown(ratios.find(|ratio| ratio.run == run), |ratio| {
            let mark = ratio.mark.map(String::from).unwrap_or_default();
            fixed(ratio.value, 2) + &mark
        })
    };
    let ratios: Vec<String> = (0..runs.len()).map(ratio_of).collect();
    let change = series.change.map(|change| {
        let run = series.ratios[change.at].run;
        format!("from {} on (p {:.4})", runs[run].name, change.p)
    });

    let mut cells = key_cells(&series.id);
    cells.extend([ratios.join(" "), change.unwrap_or_default()]);
    cells
}

/// The cells under [`KEY_COLUMNS`].
pub(super) fn key_cells(id: &SeriesId) -> Vec<String> {
    let SeriesId {
        key,
        workload,
        reference,
    } = id;
    let workload = match workload {
        0 => String::new(),
        number => format!(" ({})", number + 1),
    };
    let mut cells = key.cells(&workload);
    if reference != REFERENCE {
        cells[4] = format!("{} ÷ {reference}", cells[4]);
    }
    cells
}

/// Different workloads of scenarios that share a name.
pub(super) struct Workloads<'a> {
    /// Number of the workload, from 0, by run and scenario.
    numbers: BTreeMap<(usize, &'a str), usize>,
    /// The difference of each further workload from the first one, a line each.
    differences: Vec<String>,
}

impl<'a> Workloads<'a> {
    pub(super) fn of(runs: &[&'a CommittedRun]) -> Self {
        let mut known: BTreeMap<&str, Vec<&Workload>> = BTreeMap::new();
        let mut workloads = Workloads {
            numbers: BTreeMap::new(),
            differences: Vec::new(),
        };

        for (index, run) in runs.iter().enumerate() {
            for (scenario, workload) in run.workloads() {
                let known = known.entry(scenario).or_default();
                let same = |other: &&Workload| other.difference(workload).is_none();
                let number = known.iter().position(same).unwrap_or(known.len());
                if number == known.len() {
                    if let Some(first) = known.first() {
                        let difference = first.difference(workload).unwrap_or_default();
                        let number = number + 1;
                        workloads.differences.push(format!(
                            "{scenario} ({number}) is another workload than {scenario}: {difference}."
                        ));
                    }
                    known.push(workload);
                }
                workloads.numbers.insert((index, scenario), number);
            }
        }
        workloads
    }

    fn number(&self, run: usize, scenario: &str) -> usize {
        self.numbers.get(&(run, scenario)).copied().unwrap_or(0)
    }
}

/// Identity of a series of comparable ratios.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SeriesId {
    key: SeriesKey,
    /// Number of the workload among those of the scenario's name.
    workload: usize,
    reference: String,
}

/// A ratio in a run.
#[derive(Clone, Copy)]
pub(super) struct RunRatio<'a> {
    /// Index of the run.
    pub(super) run: usize,
    value: f64,
    mark: Option<char>,
    pub(super) row: &'a SummaryRow,
}

impl RunRatio<'_> {
    /// The ratio with its interval and marks.
    pub(super) fn text(&self) -> String {
        let mark = self.mark.map(String::from).unwrap_or_default();
        ratio_with_interval(self.row, self.value) + &mark
    }
}

/// Ratios of one arm and metric to one reference arm, over the runs on one kind of machine.
struct RatioSeries<'a> {
    id: SeriesId,
    ratios: Vec<RunRatio<'a>>,
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

/// The ratios of runs by series, in the order of the runs.
pub(super) fn ratios_by_series<'a>(
    runs: &[&'a CommittedRun],
    workloads: &Workloads<'_>,
) -> BTreeMap<SeriesId, Vec<RunRatio<'a>>> {
    let mut ratios: BTreeMap<SeriesId, Vec<RunRatio<'a>>> = BTreeMap::new();
    for (index, run) in runs.iter().enumerate() {
        for (key, row) in run.by_key() {
            let Some((value, reference)) = row.ratio.zip(row.reference.clone()) else {
                continue;
            };
            let id = SeriesId {
                workload: workloads.number(index, &key.condition.scenario),
                key,
                reference,
            };
            ratios.entry(id).or_default().push(RunRatio {
                run: index,
                value,
                mark: run.mark(row),
                row,
            });
        }
    }
    ratios
}

/// All series of runs on one kind of machine, with the changes that are significant among them all.
fn ratio_series<'a>(runs: &[&'a CommittedRun], workloads: &Workloads<'_>) -> Vec<RatioSeries<'a>> {
    let mut all: Vec<RatioSeries<'_>> = ratios_by_series(runs, workloads)
        .into_iter()
        .map(|(id, ratios)| {
            let values: Vec<f64> = ratios.iter().map(|ratio| ratio.value).collect();
            RatioSeries {
                id,
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
    // An arm that served nothing has a ratio of 0, or one without bound, which has no mean.
    let is_bounded = values.iter().all(|value| value.is_finite());
    let (at, _) = best_split(if is_bounded { values } else { &ranks });
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
    fn ratios_without_bound_are_ranked() {
        let mut values = vec![1.0; 5];
        values.extend([f64::INFINITY; 5]);
        let change = find_change(&values).unwrap();
        assert_eq!(change.at, 5);
        assert!(change.p < 0.01, "{change:?}");
    }

    #[test]
    fn a_series_that_stands_still_has_no_change() {
        assert!(find_change(&[1.0; 20]).unwrap().p > 0.9);
    }
}
