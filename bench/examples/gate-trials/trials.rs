//! Error rates of the gate: many gates between equal builds, half of them with an injected slow-down.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

use echobench::experiment::observation::BlockOutcome;
use echobench::gate::measure::{ARMS, log_slowdown};
use echobench::gate::rule::{GateMetric, GateVerdict, InconclusiveReason};
use echobench::gate::{Gate, GateReport, GateServer, Observer};
use echobench::host::files::write_file;
use echobench::host::signals::unless_interrupted;
use echobench::results::{BlockRow, SCHEMA_VERSION, csv_text, read};
use echobench::stats::{median, proportion_interval};

use crate::rules::{OTHER_RULES, Series};

/// Blocks of one look at the size of a slow-down, before the first gate.
const CALIBRATION_BLOCKS: u32 = 12;
/// Steps of arithmetic for each request in the first look.
const CALIBRATION_STEPS: u32 = 500;
/// The same for requests of the tail alone: some ten microseconds.
const CALIBRATION_TAIL_STEPS: u32 = 20_000;
/// Share by which the 99th percentile of latency is raised.
const TAIL_SHARE: f64 = 0.2;
/// Looks, each with a better guess at the steps.
const CALIBRATION_LOOKS: u32 = 4;
/// Confidence of the intervals of error rates.
pub(crate) const CONFIDENCE: f64 = 0.95;
/// Files of a folder of trials.
const TRIALS: &str = "trials.csv";
const BLOCKS: &str = "blocks.csv";
const RATES: &str = "rates.csv";
const SLOWDOWNS: &str = "slowdowns.csv";

/// Difference between the builds of a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Truth {
    /// None.
    Equal,
    /// The candidate's CPU time for each request was raised by the share.
    Cpu,
    /// The candidate's time for each reply was raised by the share.
    Throughput,
    /// One in 80 requests was slowed down, so that the 99th percentile of latency rises by 20 % and the median stays.
    Tail,
}

impl Truth {
    /// The order in which gates come before they are shuffled: half of them are between equal servers. Servers of
    /// other projects know one way to be slower.
    fn cycle(gate: &Gate) -> &'static [Truth] {
        match gate.candidate {
            GateServer::Build(_) => &[
                Truth::Equal,
                Truth::Cpu,
                Truth::Equal,
                Truth::Throughput,
                Truth::Equal,
                Truth::Tail,
            ],
            GateServer::External(_) => &[Truth::Equal, Truth::Throughput],
        }
    }

    /// Additional arguments of the candidate for so many steps.
    fn arguments(self, candidate: &GateServer, steps: u32) -> Vec<String> {
        let option = match (self, candidate) {
            (Truth::Equal, _) => return Vec::new(),
            (_, GateServer::External(_)) => return vec![steps.to_string()],
            (Truth::Cpu | Truth::Throughput, _) => "--inject-steps",
            (Truth::Tail, _) => "--inject-tail-steps",
        };
        vec![option.to_owned(), steps.to_string()]
    }

    /// The metric in which the size of the slow-down is known.
    fn metric(self) -> Option<GateMetric> {
        match self {
            Truth::Equal => None,
            Truth::Cpu => Some(GateMetric::Cpu),
            Truth::Throughput => Some(GateMetric::Throughput),
            Truth::Tail => Some(GateMetric::P99),
        }
    }
}

/// Row of `trials.csv`: one gate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct TrialRow {
    /// Version of the columns.
    pub(crate) schema_version: u32,
    /// Its number, from 1.
    pub(crate) trial: u32,
    /// Its model, or the name of another server.
    pub(crate) model: String,
    /// Difference between the builds.
    pub(crate) truth: Truth,
    /// Steps of arithmetic that were added to each request, or to one in 80 with [`Truth::Tail`].
    pub(crate) injected_steps: u32,
    /// Whether another thread used the CPUs at random times.
    pub(crate) load: bool,
    /// Answer of the gate.
    pub(crate) verdict: GateVerdict,
    /// Reason for an inconclusive answer.
    pub(crate) reason: Option<InconclusiveReason>,
    /// Looks taken.
    pub(crate) looks: u32,
    /// Blocks up to the last look.
    pub(crate) blocks: u32,
    /// Blocks of the confirmation; 0 without one.
    pub(crate) confirmation_blocks: u32,
    /// Wall time.
    pub(crate) seconds: f64,
    /// Estimated slow-down in throughput.
    pub(crate) throughput_slowdown: Option<f64>,
    /// Estimated slow-down in CPU time for each request.
    pub(crate) cpu_slowdown: Option<f64>,
    /// Estimated slow-down in the 99th percentile of latency.
    pub(crate) p99_slowdown: Option<f64>,
    /// Estimated slow-down in the 99th percentile of a typical slice.
    pub(crate) slice_p99_slowdown: Option<f64>,
    /// Metrics called regressions, as in `throughput;cpu`.
    pub(crate) regressed: String,
}

/// Row of `blocks.csv`: one arm in one block of one gate, up to its last look.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct TrialBlockRow {
    /// Version of the columns.
    pub(crate) schema_version: u32,
    /// Number of the gate.
    pub(crate) trial: u32,
    /// Number of the block.
    pub(crate) block: u32,
    /// `baseline1`, `baseline2` or `candidate`.
    pub(crate) arm: String,
    /// Median over slices.
    pub(crate) throughput_per_second: Option<f64>,
    /// CPU time for each request.
    pub(crate) cpu_ns_per_request: Option<f64>,
    /// 99th percentile of latency.
    pub(crate) latency_p99_ns: Option<u64>,
}

/// Row of `slowdowns.csv`: one metric in one block of one gate, its confirmation included. Natural logarithms of
/// slow-downs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct SlowdownRow {
    /// Version of the columns.
    pub(crate) schema_version: u32,
    /// Number of the gate.
    pub(crate) trial: u32,
    /// Number of the block.
    pub(crate) block: u32,
    /// The metric.
    pub(crate) metric: GateMetric,
    /// The candidate against the first baseline.
    pub(crate) candidate: Option<f64>,
    /// The second baseline against the first.
    pub(crate) again: Option<f64>,
    /// The second baseline against the candidate.
    pub(crate) again_candidate: Option<f64>,
}

/// Row of `rates.csv`: the share of an answer among the gates of one truth.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct RateRow {
    /// Version of the columns.
    pub(crate) schema_version: u32,
    /// Rule that judged the blocks.
    pub(crate) rule: String,
    /// Its answer.
    pub(crate) said: String,
    /// Difference between the builds.
    pub(crate) truth: Truth,
    /// Gates with this answer.
    pub(crate) count: u64,
    /// Gates of this truth.
    pub(crate) gates: u64,
    /// `count` ÷ `gates`.
    pub(crate) share: f64,
    /// Lower end of its exact interval at 95 %.
    pub(crate) low: f64,
    /// Upper end of the same.
    pub(crate) high: f64,
}

/// Plan of many gates.
pub(crate) struct Trials {
    /// Number of gates.
    pub(crate) gates: u32,
    /// The gate, with equal servers; each trial is of one of its models.
    pub(crate) gate: Gate,
    /// Steps of arithmetic that are known to make the slow-down; they are looked for if not given.
    pub(crate) steps: Option<u32>,
    /// Share by which candidates are slowed down in CPU time or throughput.
    pub(crate) share: f64,
    /// Whether another thread uses the CPUs at random times.
    pub(crate) load: bool,
}

/// Results of the gates that have ended.
#[derive(Debug, Default)]
pub(crate) struct TrialResults {
    /// One row per gate.
    pub(crate) trials: Vec<TrialRow>,
    /// One row per block and arm.
    pub(crate) blocks: Vec<TrialBlockRow>,
    /// One row per block and metric.
    pub(crate) slowdowns: Vec<SlowdownRow>,
}

impl Trials {
    /// Runs all gates, or those before an interrupt. Every finished gate is written to `folder`.
    pub(crate) fn run(
        &mut self,
        folder: &Path,
        progress: &dyn Fn(&str),
    ) -> anyhow::Result<TrialResults> {
        let mut random = fastrand::Rng::with_seed(self.gate.seed);
        let Some(steps) = unless_interrupted(self.calibrate(progress))? else {
            return Ok(TrialResults::default());
        };
        let models: Vec<String> = self.gate.servers().cloned().collect();
        let cycle = Truth::cycle(&self.gate);
        let mut plan: Vec<(String, Truth)> = (0..self.gates as usize)
            .map(|gate| {
                let model = &models[gate / cycle.len() % models.len()];
                (model.clone(), cycle[gate % cycle.len()])
            })
            .collect();
        random.shuffle(&mut plan);

        let hog = self.load.then(|| Hog::start(random.u64(..)));
        let mut results = TrialResults::default();
        for (trial, (model, truth)) in (1..).zip(plan) {
            let steps = steps.get(&(model.clone(), truth)).copied().unwrap_or(0);
            self.gate.seed = random.u64(..);
            restrict(&mut self.gate, &model, truth, steps);

            let began = Instant::now();
            let (mut blocks, mut slowdowns) = (Vec::new(), Vec::new());
            let outcome = self.gate.run(&mut Observer {
                writer: None,
                blocks: &mut |_, outcome| {
                    blocks.extend(outcome.blocks.iter().map(|row| TrialBlockRow {
                        schema_version: SCHEMA_VERSION,
                        trial,
                        block: row.block,
                        arm: side(&row.model),
                        throughput_per_second: row.throughput_per_second,
                        cpu_ns_per_request: row.cpu_ns_per_request,
                        latency_p99_ns: row.latency_p99_ns,
                    }));
                    slowdowns.extend(slowdown_rows(trial, outcome));
                },
                progress: &|_| (),
            });

            let Some(report) = unless_interrupted(outcome)? else {
                break;
            };
            let seconds = began.elapsed().as_secs_f64();
            blocks.retain(|row| row.block <= report.blocks);
            let row = TrialRow {
                model,
                injected_steps: steps,
                load: self.load,
                seconds,
                ..trial_row(trial, truth, &report)
            };
            progress(&format!(
                "gate {trial} of {}: {}, {} in {seconds:.1} s",
                self.gates,
                row.model,
                row.verdict.name()
            ));

            results.trials.push(row);
            results.blocks.extend(blocks);
            results.slowdowns.extend(slowdowns);
            results.write(folder)?;
        }

        drop(hog);
        Ok(results)
    }

    /// Finds the steps that slow down the candidate by the share, for each model and truth.
    fn calibrate(
        &mut self,
        progress: &dyn Fn(&str),
    ) -> anyhow::Result<BTreeMap<(String, Truth), u32>> {
        let mut found = BTreeMap::new();
        for model in self.gate.servers() {
            for &truth in Truth::cycle(&self.gate) {
                if truth == Truth::Equal {
                    continue;
                }
                let steps = match self.steps {
                    Some(steps) => steps,
                    None => self.calibrate_one(model, truth, progress)?,
                };
                found.insert((model.clone(), truth), steps);
            }
        }
        Ok(found)
    }

    fn calibrate_one(
        &self,
        model: &str,
        truth: Truth,
        progress: &dyn Fn(&str),
    ) -> anyhow::Result<u32> {
        let metric = truth.metric().expect("a slow-down has a size");
        let (share, mut steps) = if truth == Truth::Tail {
            (TAIL_SHARE, CALIBRATION_TAIL_STEPS)
        } else {
            // More for a larger slow-down than 5 %.
            let enough = |times: &u32| 0.05 * f64::from(*times) >= self.share;
            let times = (1..10).find(enough).unwrap_or(10);
            (self.share, CALIBRATION_STEPS * times)
        };

        let mut looks = Vec::new();
        for look in 1..=CALIBRATION_LOOKS {
            let slowdown = self.slowdown(model, truth, steps, metric)?;
            progress(&format!(
                "{model}: {steps} steps of arithmetic cost {:.1} % in {}",
                100.0 * slowdown,
                metric.title()
            ));
            looks.push((steps, slowdown));

            let is_enough = looks.iter().any(|(_, slowdown)| *slowdown >= share);
            if is_enough || look == CALIBRATION_LOOKS {
                steps = steps_for(share, metric, &looks)?;
            } else {
                steps *= 2;
            }
        }

        progress(&format!(
            "{model}: {steps} steps are taken for {:.1} % in {}",
            100.0 * share,
            metric.title()
        ));
        Ok(steps)
    }

    /// Measures the slow-down of a model from so many steps.
    fn slowdown(
        &self,
        model: &str,
        truth: Truth,
        steps: u32,
        metric: GateMetric,
    ) -> anyhow::Result<f64> {
        let mut gate = self.gate.clone();
        restrict(&mut gate, model, truth, steps);
        let samples = gate.measure(CALIBRATION_BLOCKS)?;
        let sample = samples.iter().find(|sample| sample.metric == metric);

        let slowdown = sample.and_then(|sample| median(&sample.candidate));
        Ok(slowdown.map_or(f64::NAN, f64::exp_m1))
    }
}

/// Makes it a gate of one model, with a candidate that is slowed down by so many steps.
fn restrict(gate: &mut Gate, model: &str, truth: Truth, steps: u32) {
    gate.candidate_options = truth.arguments(&gate.candidate, steps);
    if let GateServer::Build(_) = gate.candidate {
        gate.scenario.models = vec![model.to_owned()];
    }
}

/// Guesses the steps for a slow-down by `share` from earlier looks, each with its steps and slow-down: on
/// the line between the two looks that enclose it. No steps make no slow-down.
fn steps_for(share: f64, metric: GateMetric, looks: &[(u32, f64)]) -> anyhow::Result<u32> {
    let below = looks.iter().filter(|(_, slowdown)| *slowdown < share);
    let above = looks.iter().filter(|(_, slowdown)| *slowdown >= share);
    let (less, low) = below
        .max_by_key(|(steps, _)| *steps)
        .copied()
        .unwrap_or((0, 0.0));

    let Some(&(more, high)) = above.min_by_key(|(steps, _)| *steps) else {
        bail!(
            "{} steps of arithmetic cost less than {:.0} % in {}: the machine is too \
             disturbed to calibrate a slow-down",
            looks.iter().map(|(steps, _)| *steps).max().unwrap_or(0),
            100.0 * share,
            metric.title()
        )
    };

    let (less, more) = (f64::from(less), f64::from(more));
    // Fewer steps that cost more are noise; in between is as good as anything.
    let part = if less < more {
        (share - low) / (high - low)
    } else {
        0.5
    };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between two numbers of steps"
    )]
    let steps = (less + part * (more - less)).round().max(1.0) as u32;
    Ok(steps)
}

/// Name of the copy within the name of an arm.
fn side(arm: &str) -> String {
    let name = ARMS.into_iter().find(|name| arm.ends_with(name));
    name.unwrap_or_default().to_owned()
}

/// The slow-downs of a block, a row for each metric.
fn slowdown_rows(trial: u32, outcome: &BlockOutcome) -> impl Iterator<Item = SlowdownRow> {
    let [one, two, candidate] = ARMS.map(|name| {
        let mut rows = outcome.blocks.iter();
        let own = rows.find(|row| row.model.ends_with(name));
        own.expect("a row of each arm")
    });
    let block = one.block;

    GateMetric::ALL.iter().map(move |&metric| {
        let log = |arm: &BlockRow, reference: &BlockRow| {
            log_slowdown(outcome, metric, &arm.model, &reference.model)
        };
        SlowdownRow {
            schema_version: SCHEMA_VERSION,
            trial,
            block,
            metric,
            candidate: log(candidate, one),
            again: log(two, one),
            again_candidate: log(two, candidate),
        }
    })
}

/// The row of a gate, without what its report does not know.
fn trial_row(trial: u32, truth: Truth, report: &GateReport) -> TrialRow {
    let line = |metric| {
        let mut lines = report.comparisons.iter();
        lines.find(|line| line.metric == metric)
    };
    let slowdown = |metric| {
        let slowdown = line(metric).and_then(|line| line.slowdown);
        slowdown.filter(|slowdown| slowdown.is_finite())
    };

    let confirmed =
        |metric: &GateMetric| line(*metric).is_some_and(|line| report.is_confirmed(line));
    let regressed: Vec<&str> = GateMetric::ALL
        .iter()
        .filter(|metric| confirmed(metric))
        .map(|metric| metric.name())
        .collect();

    TrialRow {
        schema_version: SCHEMA_VERSION,
        trial,
        model: String::new(),
        truth,
        injected_steps: 0,
        load: false,
        verdict: report.verdict,
        reason: report.reason,
        looks: report.looks,
        blocks: report.blocks,
        confirmation_blocks: report.confirmation_blocks,
        seconds: 0.0,
        throughput_slowdown: slowdown(GateMetric::Throughput),
        cpu_slowdown: slowdown(GateMetric::Cpu),
        p99_slowdown: slowdown(GateMetric::P99),
        slice_p99_slowdown: slowdown(GateMetric::SliceP99),
        regressed: regressed.join(";"),
    }
}

impl TrialResults {
    /// Reads folders of trials, and those in folders of them, as one; the gates of each are numbered after those before it.
    pub(crate) fn read(folders: &[PathBuf]) -> anyhow::Result<Self> {
        let mut all = TrialResults::default();
        for folder in &with_trials(folders)? {
            let before = all.trials.iter().map(|row| row.trial).max().unwrap_or(0);
            let mut trials: Vec<TrialRow> = read(folder, TRIALS)?;
            let mut blocks: Vec<TrialBlockRow> = read(folder, BLOCKS)?;
            // Older folders have none.
            let mut slowdowns: Vec<SlowdownRow> = if folder.join(SLOWDOWNS).exists() {
                read(folder, SLOWDOWNS)?
            } else {
                Vec::new()
            };

            for row in &mut trials {
                row.trial += before;
            }
            for row in &mut blocks {
                row.trial += before;
            }
            for row in &mut slowdowns {
                row.trial += before;
            }
            all.trials.append(&mut trials);
            all.blocks.append(&mut blocks);
            all.slowdowns.append(&mut slowdowns);
        }
        Ok(all)
    }

    /// Writes all rows, and the rates so far.
    fn write(&self, folder: &Path) -> anyhow::Result<()> {
        write_file(&folder.join(TRIALS), &csv_text(&self.trials, true)?)?;
        write_file(&folder.join(BLOCKS), &csv_text(&self.blocks, true)?)?;
        write_file(&folder.join(SLOWDOWNS), &csv_text(&self.slowdowns, true)?)?;
        write_file(&folder.join(RATES), &csv_text(&self.rates(), true)?)
    }

    /// Error rates of the gate and of other tools' rules.
    #[must_use]
    pub(crate) fn rates(&self) -> Vec<RateRow> {
        let mut rates = Vec::new();
        for verdict in [
            GateVerdict::Regression,
            GateVerdict::Inconclusive,
            GateVerdict::Pass,
        ] {
            let said = |row: &TrialRow| Some(row.verdict == verdict);
            rates.extend(self.rate("gate", verdict.name(), said));
        }

        for &metric in GateMetric::ALL {
            let name = format!("gate, {} alone", metric.title());
            // Older folders do not have it.
            let is_judged =
                |row: &TrialRow| metric != GateMetric::SliceP99 || row.slice_p99_slowdown.is_some();
            let regressed = |row: &TrialRow| row.regressed.split(';').any(|m| m == metric.name());
            let said = |row: &TrialRow| is_judged(row).then(|| regressed(row));
            rates.extend(self.rate(&name, "regression", said));
        }

        for other in OTHER_RULES {
            let said = |row: &TrialRow| {
                let all: Vec<_> = GateMetric::ALL
                    .iter()
                    .map(|&metric| (other.says_slower)(&self.series(row, metric)))
                    .collect();
                all.iter()
                    .any(Option::is_some)
                    .then(|| all.contains(&Some(true)))
            };
            rates.extend(self.rate(other.name, "regression", said));
        }
        rates
    }

    /// Share of the gates of each truth for which `said` holds; it has no answer where data is missing.
    fn rate(
        &self,
        rule: &str,
        word: &str,
        said: impl Fn(&TrialRow) -> Option<bool>,
    ) -> Vec<RateRow> {
        let mut answers: BTreeMap<Truth, Vec<bool>> = BTreeMap::new();
        for row in &self.trials {
            answers.entry(row.truth).or_default().extend(said(row));
        }

        answers.retain(|_, answers| !answers.is_empty());
        let rows = answers.into_iter().map(|(truth, answers)| {
            let gates = answers.len() as u64;
            let count = answers.into_iter().filter(|yes| *yes).count() as u64;
            let (low, high) = proportion_interval(count, gates, CONFIDENCE);
            RateRow {
                schema_version: SCHEMA_VERSION,
                rule: rule.to_owned(),
                said: word.to_owned(),
                truth,
                count,
                gates,
                share: count as f64 / gates as f64,
                low,
                high,
            }
        });
        rows.collect()
    }

    fn series(&self, trial: &TrialRow, metric: GateMetric) -> Series {
        let earlier = self.trials.iter().filter(|row| row.trial < trial.trial);
        let before = earlier.filter(|row| row.model == trial.model);
        let before = before.map(|row| row.trial).max().unwrap_or(0);

        let values = |trial: u32, arm: &str| -> Vec<f64> {
            let rows = self
                .blocks
                .iter()
                .filter(|row| row.trial == trial && row.arm == arm);
            let time = |row: &TrialBlockRow| match metric {
                GateMetric::Throughput => Some(1e9 / row.throughput_per_second?),
                GateMetric::Cpu => row.cpu_ns_per_request,
                GateMetric::P99 => row.latency_p99_ns.map(|ns| ns as f64),
                // The rules of other tools know no slices.
                GateMetric::SliceP99 => None,
            };
            rows.filter_map(time).collect()
        };

        Series {
            baseline: values(trial.trial, ARMS[0]),
            candidate: values(trial.trial, ARMS[2]),
            stored: values(before, ARMS[0]),
        }
    }

    /// Median of the slow-downs that the gates of one truth estimated.
    #[must_use]
    pub(crate) fn estimated(
        &self,
        truth: Truth,
        value: fn(&TrialRow) -> Option<f64>,
    ) -> Option<f64> {
        let rows = self.trials.iter().filter(|row| row.truth == truth);
        median(&rows.filter_map(value).collect::<Vec<_>>())
    }
}

/// The folders, with those inside in the place of one that has no trials of its own.
fn with_trials(folders: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for folder in folders {
        if folder.join(TRIALS).exists() {
            all.push(folder.clone());
            continue;
        }
        let place = || format!("cannot read {}", folder.display());
        let entries = fs::read_dir(folder).with_context(place)?;
        let inside = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let mut inside: Vec<PathBuf> = inside.filter(|path| path.join(TRIALS).exists()).collect();
        if inside.is_empty() {
            bail!(
                "{} has no trials, and no folder with trials",
                folder.display()
            );
        }
        inside.sort();
        all.append(&mut inside);
    }
    Ok(all)
}

/// Thread that uses a CPU at random times.
struct Hog {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Hog {
    fn start(seed: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut busy = false;
            while !seen.load(Ordering::Relaxed) {
                let until = Instant::now() + Duration::from_millis(random.u64(50..1_000));
                busy = !busy;
                while Instant::now() < until && !seen.load(Ordering::Relaxed) {
                    if busy {
                        std::hint::spin_loop();
                    } else {
                        thread::sleep(Duration::from_millis(10));
                    }
                }
            }
        });

        Hog {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Hog {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It does not panic.
            let _ = thread.join();
        }
    }
}

/// A gate that passed at its first look.
#[cfg(test)]
pub(crate) fn example_row(trial: u32, model: &str, truth: Truth) -> TrialRow {
    TrialRow {
        schema_version: SCHEMA_VERSION,
        trial,
        model: model.to_owned(),
        truth,
        injected_steps: 0,
        load: false,
        verdict: GateVerdict::Pass,
        reason: None,
        looks: 1,
        blocks: 10,
        confirmation_blocks: 0,
        seconds: 1.0,
        throughput_slowdown: Some(1.0),
        cpu_slowdown: Some(1.0),
        p99_slowdown: None,
        slice_p99_slowdown: None,
        regressed: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(trial: u32, truth: Truth, verdict: GateVerdict) -> TrialRow {
        TrialRow {
            verdict,
            ..example_row(trial, "thread", truth)
        }
    }

    fn blocks(trial: u32, arm: &str, throughput: f64) -> impl Iterator<Item = TrialBlockRow> {
        (1..=10).map(move |block| TrialBlockRow {
            schema_version: SCHEMA_VERSION,
            trial,
            block,
            arm: arm.to_owned(),
            throughput_per_second: Some(throughput + f64::from(block % 3)),
            cpu_ns_per_request: None,
            latency_p99_ns: None,
        })
    }

    fn example() -> TrialResults {
        let mut results = TrialResults::default();
        for trial in 1..=40 {
            let (truth, verdict) = match trial % 2 {
                0 => (Truth::Equal, GateVerdict::Pass),
                _ => (Truth::Cpu, GateVerdict::Regression),
            };
            results.trials.push(row(trial, truth, verdict));
            // Another time, another speed: only the stored baseline is deceived.
            let speed = if trial % 2 == 0 { 100.0 } else { 150.0 };
            results.blocks.extend(blocks(trial, "baseline1", speed));
            results.blocks.extend(blocks(trial, "candidate", speed));
            results.slowdowns.push(SlowdownRow {
                schema_version: SCHEMA_VERSION,
                trial,
                block: 1,
                metric: GateMetric::SliceP99,
                candidate: Some(0.25),
                again: None,
                again_candidate: Some(-0.25),
            });
        }
        results
    }

    #[test]
    fn rates_count_what_was_said_under_each_truth() {
        let rates = example().rates();
        let rate = |rule: &str, said: &str, truth| {
            let own = |row: &&RateRow| row.rule == rule && row.said == said && row.truth == truth;
            let row = rates.iter().find(own).expect("it is there");
            (row.count, row.gates)
        };
        assert_eq!(rate("gate", "regression", Truth::Equal), (0, 20));
        assert_eq!(rate("gate", "regression", Truth::Cpu), (20, 20));
        assert_eq!(rate("gate", "pass", Truth::Equal), (20, 20));
        let stored = "10 % ratio, stored baseline";
        assert_eq!(rate(stored, "regression", Truth::Equal), (20, 20));
        // The first gate has no baseline stored before it.
        assert_eq!(rate(stored, "regression", Truth::Cpu), (0, 19));
        let after = "10 % ratio, one run after the other";
        assert_eq!(rate(after, "regression", Truth::Equal), (0, 20));
    }

    #[test]
    fn a_folder_of_trials_reads_back() {
        let folder = tempfile::tempdir().unwrap();
        let results = example();
        results.write(folder.path()).unwrap();
        let back = TrialResults::read(&[folder.path().to_owned()]).unwrap();
        assert_eq!(back.trials, results.trials);
        assert_eq!(back.blocks, results.blocks);
        assert_eq!(back.slowdowns, results.slowdowns);

        // The gates of a second folder follow, whether it is named or found.
        let outer = tempfile::tempdir().unwrap();
        for name in ["1", "2"] {
            fs::create_dir(outer.path().join(name)).unwrap();
            results.write(&outer.path().join(name)).unwrap();
        }
        let named = [folder.path(), folder.path()].map(Path::to_owned);
        for folders in [&named[..], &[outer.path().to_owned()]] {
            let both = TrialResults::read(folders).unwrap();
            assert_eq!(both.trials.len(), 2 * results.trials.len());
            assert_eq!(both.trials.last().unwrap().trial, 80);
            assert_eq!(both.slowdowns.last().unwrap().trial, 80);
        }

        let empty = tempfile::tempdir().unwrap();
        let error = TrialResults::read(&[empty.path().to_owned()]).unwrap_err();
        assert!(error.to_string().contains("has no trials"), "{error}");
    }

    #[test]
    fn the_dictionary_has_every_column() {
        let folder = tempfile::tempdir().unwrap();
        example().write(folder.path()).unwrap();
        let dictionary = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/results-format.md");
        let dictionary = fs::read_to_string(dictionary).unwrap();

        for (file, section) in [
            (TRIALS, "trials.csv"),
            (BLOCKS, "blocks.csv of trials"),
            (SLOWDOWNS, "slowdowns.csv"),
            (RATES, "rates.csv"),
        ] {
            let text = fs::read_to_string(folder.path().join(file)).unwrap();
            let written: Vec<&str> = text.lines().next().unwrap().split(',').collect();
            let (_, rest) = dictionary.split_once(&format!("\n## {section}\n")).unwrap();
            let lines = rest.lines().take_while(|line| !line.starts_with("## "));
            let rows = lines.filter_map(|line| line.strip_prefix("| `")?.split('`').next());
            assert_eq!(rows.collect::<Vec<_>>(), written, "{file}");
        }
    }

    #[test]
    fn slow_downs_are_scaled_to_their_share() {
        let next = |looks: &[(u32, f64)]| steps_for(0.05, GateMetric::Cpu, looks);
        assert_eq!(next(&[(500, 0.25)]).unwrap(), 100);
        // It grows less and less: 125 steps make 5 %.
        let mut looks = Vec::new();
        let mut steps = 500;
        for _ in 0..4 {
            looks.push((steps, 0.1 * (f64::from(steps) / 500.0).sqrt()));
            steps = next(&looks).unwrap();
        }
        assert!((120..140).contains(&steps), "{steps}: {looks:?}");
        // Looks that contradict each other, and one that shows nothing.
        assert_eq!(next(&[(500, 0.06), (400, 0.07), (420, 0.04)]).unwrap(), 410);
        for slowdown in [0.01, -0.1, f64::NAN] {
            let error = next(&[(500, slowdown)]).unwrap_err();
            assert!(error.to_string().contains("too disturbed"));
        }
    }
}
