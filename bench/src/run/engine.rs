//! Engine of a run: measures its blocks one by one, keeps each on disk, and prints the tables.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::bail;

use super::capacity;
use super::host_notes::{host_notes, host_paragraph};
use super::notes::failures;
use super::options::{RunOptions, check_runnable};
use super::plan::{self, RunPlan};
use super::progress::Progress;
use super::resolution;
use super::scenario_report::{ScenarioReport, fixed};
use super::slo::SloVerdict;
use super::tables::{environment_notes, tables};
use crate::experiment::condition::Condition;
use crate::experiment::hosts::{Hosts, HostsOptions};
use crate::experiment::observation::BlockOutcome;
use crate::host::cpus::CpuIdleGuard;
use crate::host::environment::Environment;
use crate::host::signals::{catch_interrupts, interrupted, on_forced_exit};
use crate::processes::site::HostFailed;
use crate::render::Style;
use crate::results::summary::{summarize, summarize_one};
use crate::results::{
    BlockRow, EffortName, HostRow, Metric, RunRecord, RunStatus, SCHEMA_VERSION, SliceRow,
    SummaryRow, Writer, create_default_folder, read_record,
};
use crate::scenario::{Scenario, View, Views};
use crate::{noteln, out};

/// Request to measure something.
#[derive(Clone, Debug)]
pub enum RunTask {
    /// A new run.
    New(Box<RunOptions>),
    /// The rest of an interrupted run, by its results folder, with the hosts that it was begun on.
    Resume(PathBuf, HostsOptions),
}

/// Result of a run as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunOutcome {
    /// Every arm was measured or skipped.
    Complete,
    /// Interrupted before the last block.
    Interrupted,
    /// At least one arm failed, or its server refused connections.
    ArmFailed,
    /// A reply was wrong, or clients and server counted differently.
    WrongReplies,
    /// An arm misses the required objective.
    SloMissed,
    /// It is not resolved whether an arm keeps the required objective.
    SloUnresolved,
}

/// Choices with which the results of a run are shown and judged.
#[derive(Clone, Debug, Default)]
pub struct RunView {
    /// Objective and reference arm, in place of those of the scenarios.
    pub view: View,
    /// Whether the outcome depends on the objective.
    pub require_slo: bool,
}

/// Measures what the task asks for and prints its tables. Whatever ends it early, the command that resumes it
/// is printed.
pub fn execute(task: &RunTask, view: RunView) -> anyhow::Result<RunOutcome> {
    catch_interrupts()?;
    let mut run = match task {
        RunTask::New(options) => ActiveRun::create(options, view)?,
        RunTask::Resume(folder, hosts) => ActiveRun::resume(folder, hosts, view)?,
    };
    let resume = run.resume_command();
    let at_once = format!("ended at once: finished blocks are kept; for the others: {resume}");
    on_forced_exit(move || noteln!("{at_once}"));

    let outcome = run.measure_all().and_then(|()| run.finish());
    outcome.inspect_err(|error| {
        run.record.status = RunStatus::Failed(HostFailed::nameless(error));
        // The disk may be full; then the record says that the run is under way, which is resumed as well.
        let _ = run.writer.record(&run.record);
        noteln!("not complete: finished blocks are kept; for the others: {resume}");
    })
}

/// A run in progress: its rows so far, in memory and on disk.
struct ActiveRun {
    writer: Writer,
    record: RunRecord,
    hosts: Hosts,
    /// The options by which the hosts are reached, which are not recorded.
    hosts_options: HostsOptions,
    _awake: Option<CpuIdleGuard>,
    /// Time between the zero of the interval log and `began`; more than nothing for a resumed run.
    log_age: Duration,
    began: Instant,
    /// Time in slices, all of which are measured.
    measured: Duration,
    slices: Vec<SliceRow>,
    blocks: Vec<BlockRow>,
    host_rows: Vec<HostRow>,
    violations: Vec<String>,
    views: Views,
    require_slo: bool,
    /// Time after which no further step of a search begins.
    max_time: Option<Duration>,
}

impl ActiveRun {
    /// Creates a new run in a new folder.
    fn create(options: &RunOptions, view: RunView) -> anyhow::Result<Self> {
        let scenarios = options.scenarios()?;
        check_runnable(&scenarios)?;
        if let Some(limit) = options.max_time {
            let effort = EffortName::of_form(options.full);
            capacity::check_time(&scenarios, effort, limit)?;
        }
        check_required(&view, &scenarios)?;
        let views = Views::new(view.view, &scenarios);
        let hosts = Hosts::connect(&options.hosts)?;
        let awake = CpuIdleGuard::hold_if(options.no_cpu_idle)?;

        let environment = Environment {
            awake: options.no_cpu_idle,
            ..Environment::capture()
        };
        let folder = match &options.out {
            Some(folder) => folder.clone(),
            None => create_default_folder(options.full, &environment, "")?,
        };
        let effort = EffortName::of_form(options.full);
        let record = RunRecord {
            schema_version: SCHEMA_VERSION,
            effort,
            seed: options.seed,
            status: RunStatus::Running,
            resumed: Vec::new(),
            environment,
            hosts: hosts.records(),
            scenarios: scenarios.into_iter().map(|s| (s.name.clone(), s)).collect(),
        };

        Ok(ActiveRun {
            writer: Writer::create(&folder, &record)?,
            record,
            hosts,
            hosts_options: options.hosts.clone(),
            _awake: awake,
            log_age: Duration::ZERO,
            began: Instant::now(),
            measured: Duration::ZERO,
            slices: Vec::new(),
            blocks: Vec::new(),
            host_rows: Vec::new(),
            violations: Vec::new(),
            views,
            require_slo: view.require_slo,
            max_time: options.max_time,
        })
    }

    /// Opens an interrupted run with the blocks that it had finished.
    fn resume(folder: &Path, hosts_options: &HostsOptions, view: RunView) -> anyhow::Result<Self> {
        let mut record = read_record(folder)?;
        check_required(&view, record.scenarios.values())?;
        let views = Views::new(view.view, record.scenarios.values());
        let now = Environment::capture();
        plan::check_resumable(&record, &now, folder)?;
        check_runnable(record.scenarios.values())?;
        let hosts = Hosts::connect(hosts_options)?;
        plan::check_hosts(&record, &hosts.records(), folder)?;
        let awake = CpuIdleGuard::hold_if(record.environment.awake)?;

        let conditions = plan::conditions(&record)?;
        let planned = RunPlan {
            record: &record,
            conditions: &conditions,
        };
        let (writer, kept) = Writer::resume(folder, &planned)?;

        record.status = RunStatus::Running;
        record.resumed.push(now.started);
        writer.record(&record)?;

        // Messages of errors are not in the rows; the counts are.
        let no_messages = BTreeMap::new();
        let violations = kept.blocks.iter();
        let violations = violations.flat_map(|row| row.violations(&no_messages));
        Ok(ActiveRun {
            violations: violations.collect(),
            writer,
            record,
            hosts,
            hosts_options: hosts_options.clone(),
            _awake: awake,
            log_age: kept.log_age,
            began: Instant::now(),
            measured: Duration::ZERO,
            slices: kept.slices,
            blocks: kept.blocks,
            host_rows: kept.hosts,
            views,
            require_slo: view.require_slo,
            max_time: None,
        })
    }

    /// Command line that measures the missing blocks.
    fn resume_command(&self) -> String {
        let folder = self.writer.folder().display().to_string();
        let words = ["echobench", "run", "--resume", &folder].map(str::to_owned);
        let words = words
            .into_iter()
            .chain(self.hosts_options.words.iter().cloned());
        let quoted = words.map(|word| {
            let quoted = shlex::try_quote(&word).map(Cow::into_owned);
            quoted.unwrap_or(word)
        });
        quoted.collect::<Vec<_>>().join(" ")
    }

    /// Measures every block that is missing, until it is interrupted.
    fn measure_all(&mut self) -> anyhow::Result<()> {
        let conditions = plan::conditions(&self.record)?;
        let conditions: Vec<Condition> = conditions
            .iter()
            .map(|condition| self.hosts.adapted(condition))
            .collect::<anyhow::Result<_>>()?;
        let notes = resolution::notes(&conditions).into_iter();
        let notes = notes.chain(self.hosts.idle_notes(&conditions));
        for note in notes.chain(capacity::expected_times(&conditions, &self.record)) {
            noteln!("{note}");
        }
        let mut all = self.measure(&conditions)?;
        if all {
            all = self.search(&conditions)?;
        }
        if all {
            // The rates of a sweep depend on the peaks, which are known only now.
            let sweeps: Vec<Condition> = conditions
                .iter()
                .flat_map(|condition| plan::sweep(condition, &self.record, &self.blocks))
                .collect();
            all = self.measure(&sweeps)?;
        }

        self.record.status = if all {
            RunStatus::Complete
        } else {
            RunStatus::Interrupted
        };
        Ok(())
    }

    /// Searches for the capacity under each condition that asks for it, step by step. Returns whether it came to
    /// its end.
    fn search(&mut self, conditions: &[Condition]) -> anyhow::Result<bool> {
        loop {
            let next = |condition| capacity::next_step(condition, &self.record, &self.blocks);
            let steps: Vec<Condition> = conditions.iter().filter_map(next).collect();
            if steps.is_empty() {
                return Ok(true);
            }
            let time: Duration = steps.iter().map(capacity::time_of).sum();
            if self
                .max_time
                .is_some_and(|limit| self.began.elapsed() + time > limit)
            {
                noteln!("the search ends: the next step would take it beyond --max-time");
                return Ok(true);
            }

            for step in &steps {
                noteln!("{}", capacity::announcement(step));
            }
            if !self.measure(&steps)? {
                return Ok(false);
            }
        }
    }

    /// Measures block 1 of every condition, then block 2 of every condition, and so on: a slow drift of
    /// the machine then affects all conditions alike. Blocks of a resumed run are skipped. Returns whether all
    /// blocks are there.
    fn measure(&mut self, conditions: &[Condition]) -> anyhow::Result<bool> {
        let missing: Vec<(&Condition, u32)> = in_turn(conditions)
            .filter(|&(condition, block)| !self.has(condition, block))
            .collect();
        if missing.is_empty() {
            return Ok(true);
        }

        let progress = Progress::new(&missing);

        for (condition, block) in missing {
            progress.begin(condition, block);
            let adapted = condition.after(self.blocks.iter());
            match adapted.run_block(&self.hosts, block, self.record.seed) {
                Ok(outcome) => self.keep(&adapted, outcome)?,
                Err(_) if interrupted() => {
                    progress.clear();
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
            progress.finish_block(condition);
            progress.show_interim(|| self.interim_ratios(condition));
        }

        progress.clear();
        Ok(true)
    }

    fn has(&self, condition: &Condition, block: u32) -> bool {
        let key = condition.key();
        let first = &condition.arms[0].name;
        let mut rows = self.blocks.iter();
        rows.any(|row| row.block == block && row.model == *first && row.condition() == key)
    }

    /// Ratios of a condition's arms over the blocks so far, in one line; empty without any.
    fn interim_ratios(&self, condition: &Condition) -> String {
        let is_open = condition.scenario.traffic.arrivals.is_some();
        let (metric, title) = if is_open {
            (Metric::LatencyP99, "p99")
        } else {
            (Metric::Throughput, "throughput")
        };
        // A terminal of 80 columns has room for this much of an arm's name.
        let name = |arm: &str| format!("{arm:.50}");
        let rows = (&self.slices[..], &self.blocks[..]);
        let summary = summarize_one(metric, &condition.scenario.name, rows, &self.views);
        let ratios = summary
            .iter()
            .filter(|row| row.condition() == condition.key())
            .filter_map(|row| Some((row, row.ratio?, row.ratio_low.zip(row.ratio_high))));
        let texts: Vec<String> = ratios
            .map(|(row, ratio, interval)| match interval {
                Some((low, high)) => {
                    let [ratio, low, high] = [ratio, low, high].map(|value| fixed(value, 2));
                    format!("\n  {ratio} [{low}, {high}]  {}", name(&row.model))
                }
                None => format!("\n  {}  {}", fixed(ratio, 2), name(&row.model)),
            })
            .collect();

        let reference = summary.iter().find_map(|row| row.reference.as_deref());
        match reference {
            Some(reference) if !texts.is_empty() => format!(
                "\n{} ÷ that of {}, {}, so far:{}",
                title,
                name(reference),
                condition.key().clients_in_words(),
                texts.concat()
            ),
            _ => String::new(),
        }
    }

    /// Writes a finished block.
    fn keep(&mut self, condition: &Condition, outcome: BlockOutcome) -> anyhow::Result<()> {
        self.measured += condition.measured_time();
        let length = condition.block_time();
        let start = (self.log_age + self.began.elapsed()).saturating_sub(length);
        let log = outcome.interval_log(start, length);
        self.writer
            .block(&outcome.slices, &outcome.blocks, &outcome.hosts, &log)?;

        self.slices.extend(outcome.slices);
        self.blocks.extend(outcome.blocks);
        self.host_rows.extend(outcome.hosts);
        self.violations.extend(outcome.violations);
        Ok(())
    }

    /// Writes the summary and the record, and prints the tables.
    fn finish(&mut self) -> anyhow::Result<RunOutcome> {
        let summary = summarize(&self.slices, &self.blocks, &self.views);
        self.writer.summary(&summary)?;
        self.record.environment.finish();
        self.writer.record(&self.record)?;

        let notes = host_notes(&self.host_rows, &self.record.hosts);
        out!(
            "{}{}{}",
            tables(&summary, &self.blocks, Style::of_stdout(), &self.views),
            environment_notes(&self.record.environment),
            host_paragraph(&notes)
        );
        // Records, and what is printed of them, name no hosts.
        for line in self.hosts.launchers_of(notes.iter().map(|note| note.host)) {
            noteln!("{line}");
        }
        let folder = self.writer.folder();
        noteln!("\nresults in {}", folder.display());
        let (measured, all) = (
            self.measured.as_secs_f64(),
            self.began.elapsed().as_secs_f64(),
        );
        noteln!(
            "measured for {measured:.0} s of {all:.0} s ({:.0} %); the rest starts and ends \
             processes, and separates slices",
            100.0 * measured / all
        );

        let outcome = self.outcome(&summary);
        match outcome {
            RunOutcome::Interrupted => noteln!(
                "interrupted: {} finished blocks are kept; for the others: {}",
                self.finished_blocks(),
                self.resume_command()
            ),
            RunOutcome::WrongReplies => {
                for violation in &self.violations {
                    noteln!("wrong: {violation}");
                }
            }
            RunOutcome::ArmFailed => {
                for failure in failures(&self.blocks) {
                    noteln!("failed: {failure}");
                }
            }
            RunOutcome::SloMissed => noteln!("an arm misses the objective"),
            RunOutcome::SloUnresolved => {
                noteln!("not resolved whether every arm keeps the objective: see its column");
            }
            RunOutcome::Complete => {}
        }
        Ok(outcome)
    }

    fn outcome(&self, summary: &[SummaryRow]) -> RunOutcome {
        if self.record.status != RunStatus::Complete {
            RunOutcome::Interrupted
        } else if !self.violations.is_empty() {
            RunOutcome::WrongReplies
        } else if !failures(&self.blocks).is_empty() {
            RunOutcome::ArmFailed
        } else if self.require_slo {
            self.slo_outcome(summary)
        } else {
            RunOutcome::Complete
        }
    }

    /// The outcome of the worst judgement by the objective.
    fn slo_outcome(&self, summary: &[SummaryRow]) -> RunOutcome {
        let reports = ScenarioReport::each(summary, &self.blocks, &self.views);
        let verdicts: Vec<SloVerdict> = reports
            .iter()
            .flat_map(ScenarioReport::slo_verdicts)
            .collect();
        if verdicts.contains(&SloVerdict::Missed) {
            return RunOutcome::SloMissed;
        }
        let all_kept = verdicts.iter().all(|verdict| *verdict == SloVerdict::Kept);
        if all_kept {
            RunOutcome::Complete
        } else {
            RunOutcome::SloUnresolved
        }
    }

    fn finished_blocks(&self) -> usize {
        let block = |row: &BlockRow| (row.condition(), row.block);
        self.blocks.iter().map(block).collect::<BTreeSet<_>>().len()
    }
}

/// Fails if an objective is required and no scenario has a rate at which it could be judged.
fn check_required<'a>(
    view: &RunView,
    scenarios: impl IntoIterator<Item = &'a Scenario>,
) -> anyhow::Result<()> {
    let mut scenarios = scenarios.into_iter();
    if view.require_slo && !scenarios.any(|scenario| scenario.traffic.arrivals.is_some()) {
        bail!("--require-slo needs a given rate: give --rate, or a scenario with arrivals");
    }
    Ok(())
}

/// The blocks of all conditions, by their number first.
fn in_turn(conditions: &[Condition]) -> impl Iterator<Item = (&Condition, u32)> {
    let most = conditions
        .iter()
        .map(|condition| condition.effort.blocks)
        .max()
        .unwrap_or(0);
    (1..=most).flat_map(|block| {
        let conditions = conditions
            .iter()
            .filter(move |condition| block <= condition.effort.blocks);
        conditions.map(move |condition| (condition, block))
    })
}
