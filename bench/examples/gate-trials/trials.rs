//! Error rates of the gate: many gates between equal builds, half of them with an injected slow-down.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::bail;
use serde::{Deserialize, Serialize};

use echobench::gate::builds::Copies;
use echobench::gate::rule::{GateMetric, GateVerdict, InconclusiveReason};
use echobench::gate::{Gate, GateReport, Observer};
use echobench::host::files::write_file;
use echobench::host::signals::unless_interrupted;
use echobench::results::{SCHEMA_VERSION, csv_text, read};
use echobench::stats::{median, proportion_interval};

use crate::rules::{OTHER_RULES, Series};

/// Blocks of one look at the size of a slow-down, before the first gate.
const CALIBRATION_BLOCKS: u32 = 24;
/// Steps of arithmetic for each request in the first look: enough to slow down any model clearly.
const CALIBRATION_STEPS: u32 = 500;
/// Looks, each with a better guess at the steps.
const CALIBRATION_LOOKS: u32 = 4;
/// Confidence of the intervals of error rates.
pub(crate) const CONFIDENCE: f64 = 0.95;
/// Files of a folder of trials.
const TRIALS: &str = "trials.csv";
const BLOCKS: &str = "blocks.csv";
const RATES: &str = "rates.csv";

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
}

/// Row of `trials.csv`: one gate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct TrialRow {
    /// Rises when a column changes its name or meaning.
    pub(crate) schema_version: u32,
    /// Its number, from 1.
    pub(crate) trial: u32,
    /// Difference between the builds.
    pub(crate) truth: Truth,
    /// Steps of arithmetic that were added to each request.
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
    /// Metrics called regressions, as in `throughput;cpu`.
    pub(crate) regressed: String,
}

/// Row of `blocks.csv`: one arm in one block of one gate, up to its last look.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct TrialBlockRow {
    /// Rises when a column changes its name or meaning.
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

/// Row of `rates.csv`: the share of an answer among the gates of one truth.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct RateRow {
    /// Rises when a column changes its name or meaning.
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
    /// The gate, with equal builds and one model.
    pub(crate) gate: Gate,
    /// Share by which candidates are slowed down.
    pub(crate) share: f64,
    /// Whether another thread uses the CPUs at random times.
    pub(crate) load: bool,
}

/// Results of the gates that have ended.
#[derive(Default)]
pub(crate) struct TrialResults {
    /// One row per gate.
    pub(crate) trials: Vec<TrialRow>,
    /// One row per block and arm.
    pub(crate) blocks: Vec<TrialBlockRow>,
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
        let mut truths: Vec<Truth> = (0..self.gates)
            .map(|trial| match trial % 4 {
                0 | 2 => Truth::Equal,
                1 => Truth::Cpu,
                _ => Truth::Throughput,
            })
            .collect();
        random.shuffle(&mut truths);

        let hog = self.load.then(|| Hog::start(random.u64(..)));
        let mut results = TrialResults::default();
        for (trial, truth) in (1..).zip(truths) {
            let steps = steps.get(&truth).copied().unwrap_or(0);
            self.gate.seed = random.u64(..);
            self.gate.candidate_options = vec!["--inject-steps".to_owned(), steps.to_string()];

            let began = Instant::now();
            let mut blocks = Vec::new();
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
                },
                progress: &|_| (),
            });

            let Some(report) = unless_interrupted(outcome)? else {
                break;
            };
            let seconds = began.elapsed().as_secs_f64();
            blocks.retain(|row| row.block <= report.blocks);
            let row = trial_row(trial, truth, steps, self.load, &report, seconds);
            progress(&format!(
                "gate {trial} of {}: {} in {seconds:.1} s",
                self.gates,
                row.verdict.name()
            ));

            results.trials.push(row);
            results.blocks.extend(blocks);
            results.write(folder)?;
        }

        drop(hog);
        Ok(results)
    }

    /// Finds the steps that slow down the candidate by the share, for each truth.
    fn calibrate(&mut self, progress: &dyn Fn(&str)) -> anyhow::Result<BTreeMap<Truth, u32>> {
        let mut found = BTreeMap::new();
        for (truth, metric) in [
            (Truth::Cpu, GateMetric::Cpu),
            (Truth::Throughput, GateMetric::Throughput),
        ] {
            // More for a larger slow-down than 5 %.
            let enough = |times: &u32| 0.05 * f64::from(*times) >= self.share;
            let mut steps = CALIBRATION_STEPS * (1..10).find(enough).unwrap_or(10);
            let mut looks = Vec::new();

            for _ in 0..CALIBRATION_LOOKS {
                let slowdown = self.slowdown(steps, metric)?;
                progress(&format!(
                    "{steps} steps of arithmetic for each request cost {:.1} % in {}",
                    100.0 * slowdown,
                    metric.title()
                ));
                looks.push((steps, slowdown));
                steps = steps_for(self.share, metric, &looks)?;
            }

            progress(&format!(
                "{steps} steps are taken for {:.1} % in {}",
                100.0 * self.share,
                metric.title()
            ));
            found.insert(truth, steps);
        }
        Ok(found)
    }

    /// Measures the slow-down from so many steps for each request.
    fn slowdown(&mut self, steps: u32, metric: GateMetric) -> anyhow::Result<f64> {
        self.gate.candidate_options = vec!["--inject-steps".to_owned(), steps.to_string()];
        let samples = self.gate.measure(CALIBRATION_BLOCKS)?;
        let sample = samples.iter().find(|sample| sample.metric == metric);

        let slowdown = sample.and_then(|sample| median(&sample.candidate));
        Ok(slowdown.map_or(f64::NAN, f64::exp_m1))
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
            "{} steps of arithmetic for each request cost less than {:.0} % in {}: the machine is too \
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
    let name = Copies::NAMES.into_iter().find(|name| arm.ends_with(name));
    name.unwrap_or_default().to_owned()
}

fn trial_row(
    trial: u32,
    truth: Truth,
    injected_steps: u32,
    load: bool,
    report: &GateReport,
    seconds: f64,
) -> TrialRow {
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
        truth,
        injected_steps,
        load,
        verdict: report.verdict,
        reason: report.reason,
        looks: report.looks,
        blocks: report.blocks,
        confirmation_blocks: report.confirmation_blocks,
        seconds,
        throughput_slowdown: slowdown(GateMetric::Throughput),
        cpu_slowdown: slowdown(GateMetric::Cpu),
        p99_slowdown: slowdown(GateMetric::P99),
        regressed: regressed.join(";"),
    }
}

impl TrialResults {
    /// Reads a folder of trials.
    pub(crate) fn read(folder: &Path) -> anyhow::Result<Self> {
        Ok(TrialResults {
            trials: read(folder, TRIALS)?,
            blocks: read(folder, BLOCKS)?,
        })
    }

    /// Writes all rows, and the rates so far.
    fn write(&self, folder: &Path) -> anyhow::Result<()> {
        write_file(&folder.join(TRIALS), &csv_text(&self.trials, true)?)?;
        write_file(&folder.join(BLOCKS), &csv_text(&self.blocks, true)?)?;
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
            let said = |row: &TrialRow| Some(row.regressed.split(';').any(|m| m == metric.name()));
            rates.extend(self.rate(&name, "regression", said));
        }

        for other in OTHER_RULES {
            let said = |row: &TrialRow| {
                let all: Vec<_> = GateMetric::ALL
                    .iter()
                    .map(|&metric| (other.says_slower)(&self.series(row.trial, metric)))
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

    fn series(&self, trial: u32, metric: GateMetric) -> Series {
        let values = |trial: u32, arm: &str| -> Vec<f64> {
            let rows = self
                .blocks
                .iter()
                .filter(|row| row.trial == trial && row.arm == arm);
            let time = |row: &TrialBlockRow| match metric {
                GateMetric::Throughput => Some(1e9 / row.throughput_per_second?),
                GateMetric::Cpu => row.cpu_ns_per_request,
                GateMetric::P99 => row.latency_p99_ns.map(|ns| ns as f64),
            };
            rows.filter_map(time).collect()
        };

        Series {
            baseline: values(trial, Copies::NAMES[0]),
            candidate: values(trial, Copies::NAMES[2]),
            stored: values(trial - 1, Copies::NAMES[0]),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn row(trial: u32, truth: Truth, verdict: GateVerdict) -> TrialRow {
        TrialRow {
            schema_version: SCHEMA_VERSION,
            trial,
            truth,
            injected_steps: 0,
            load: false,
            verdict,
            reason: None,
            looks: 1,
            blocks: 10,
            confirmation_blocks: 0,
            seconds: 1.0,
            throughput_slowdown: Some(1.0),
            cpu_slowdown: Some(1.0),
            p99_slowdown: None,
            regressed: String::new(),
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
        let back = TrialResults::read(folder.path()).unwrap();
        assert_eq!(back.trials, results.trials);
        assert_eq!(back.blocks, results.blocks);
    }

    #[test]
    fn slow_downs_are_scaled_to_their_share() {
        let next = |looks: &[(u32, f64)]| steps_for(0.05, GateMetric::Cpu, looks);
        assert_eq!(next(&[(500, 0.25)]).unwrap(), 100);
        // It grows less and less: 125 steps make 5 %.
        let mut looks = Vec::new();
        let mut steps = CALIBRATION_STEPS;
        for _ in 0..CALIBRATION_LOOKS {
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
