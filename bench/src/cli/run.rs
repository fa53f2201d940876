//! `echobench run`: an experiment over one or more scenarios, block by block.

use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::bail;
use clap::Args;
use echobench_clients::raise_file_limit;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::host::signals::{catch_interrupts, interrupted};

use crate::experiment::condition::Condition;
use crate::experiment::observation::BlockOutcome;
use crate::host::cpus::Awake;
use crate::host::environment::Environment;
use crate::render::Style;
use crate::results::summary::{summarize, summarize_throughput};
use crate::results::{
    BlockRow, ConditionKey, RunRecord, SCHEMA_VERSION, SliceRow, Writer, default_folder,
    read_record,
};
use crate::run::sweep::Objective;
use crate::run::tables::tables;
use crate::scenario::arm::{Arm, External};
use crate::scenario::{Effort, Placement, Scenario};
use crate::stats::median;
use crate::{noteln, out};

/// Starting and ending the processes of a block takes about this long for each of its clients.
const START_PER_CLIENT: Duration = Duration::from_millis(1);

/// The options of `run`.
#[derive(Args)]
#[command(
    after_help = "Exit codes: 0 all arms were measured; 1 one was not, or the run was interrupted; 2 a wrong reply, \
                  or a count that does not match."
)]
pub struct RunArgs {
    /// Scenarios by name (see `echobench list`), or files: NAME.toml; needed unless --resume is given
    #[arg(value_name = "SCENARIO", required_unless_present = "resume")]
    scenarios: Vec<String>,

    /// The short form (the default)
    #[arg(long, conflicts_with = "full")]
    quick: bool,

    /// The long form, whose results are worth keeping
    #[arg(long)]
    full: bool,

    /// Other arms than the scenario's: models, each with options of `serve` if it needs any, such
    /// as "thread,pool --workers 8"
    #[arg(long, value_name = "MODELS", value_delimiter = ',')]
    models: Vec<String>,

    /// One more arm, an echo server of another project, as in "mine=server --port {port}"; {port} is
    /// where it is to listen on 127.0.0.1. Can be given several times
    #[arg(long, value_name = "NAME=COMMAND")]
    external: Vec<External>,

    /// Another placement than the scenario's: none, split (servers and clients on CPUs of their
    /// own) or same (all on one CPU)
    #[arg(long)]
    placement: Option<Placement>,

    /// Keep idle CPUs from sleeping, so that no wake-up waits for one to come back; needs root
    #[arg(long)]
    awake: bool,

    /// Another number of blocks than the scenario's; few blocks resolve no differences
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    blocks: Option<u32>,

    /// What a rate sweep looks for: the highest rate at which a percentile of latency keeps within
    /// a time
    #[arg(long, value_name = "pNN=TIME", default_value_t)]
    objective: Objective,

    /// Where to put the results [default: a new folder under results/]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// Decides the order of the arms and the clients' traffic [default: from the clock]
    #[arg(long)]
    seed: Option<u64>,

    /// Finish the run in this results folder, which was killed or interrupted: as it was begun, by the
    /// same executable on the same machine
    #[arg(long, value_name = "DIR", conflicts_with_all = ["scenarios", "quick", "full", "models",
          "external", "placement", "awake", "blocks", "out", "seed"])]
    resume: Option<PathBuf>,
}

pub(super) fn run(args: &RunArgs) -> anyhow::Result<ExitCode> {
    let mut run = match &args.resume {
        Some(folder) => Run::resume(folder)?,
        None => Run::begin(args)?,
    };
    catch_interrupts()?;
    let conditions = run.record.conditions()?;
    run.all_blocks(&conditions)?;
    let sweeps: Vec<Condition> = conditions
        .iter()
        .flat_map(|condition| sweep(condition, &run.record, &run.blocks))
        .collect();
    if !sweeps.is_empty() && !interrupted() {
        run.all_blocks(&sweeps)?;
    }
    run.finish(args.objective)
}

/// The scenarios as the options want them.
fn scenarios(args: &RunArgs) -> anyhow::Result<Vec<Scenario>> {
    let mut scenarios: Vec<Scenario> = Vec::new();
    for name in &args.scenarios {
        let mut scenario = Scenario::find(name)?;
        if scenarios.iter().any(|other| other.name == scenario.name) {
            bail!("scenario '{}' is named twice", scenario.name);
        }
        if !args.models.is_empty() {
            scenario.models = args
                .models
                .iter()
                .map(|model| model.trim().to_owned())
                .collect();
        }
        if !args.models.is_empty() {
            scenario.external.clear();
        }
        scenario.external.extend_from_slice(&args.external);
        scenario.check_arms()?;
        if let Some(placement) = args.placement {
            scenario.placements = vec![placement];
        }
        if let Some(blocks) = args.blocks {
            scenario.quick.blocks = blocks;
            scenario.full.blocks = blocks;
        }
        scenarios.push(scenario);
    }
    Ok(scenarios)
}

/// Better now than in the middle of the run.
fn check_possible<'a>(scenarios: impl IntoIterator<Item = &'a Scenario>) -> anyhow::Result<()> {
    for scenario in scenarios {
        for placement in &scenario.placements {
            placement.cpus()?;
        }
        // Servers and load processes inherit the limit. Where only the larger numbers of clients are
        // beyond it, their rows say so.
        raise_file_limit(scenario.clients.iter().copied().min().unwrap_or(0))?;
    }
    Ok(())
}

impl RunRecord {
    /// Whether the long forms of the scenarios are run.
    const FULL: &str = "full";

    fn effort(&self, scenario: &Scenario) -> Effort {
        if self.effort == Self::FULL {
            scenario.full
        } else {
            scenario.quick
        }
    }

    fn conditions(&self) -> anyhow::Result<Vec<Condition>> {
        let mut conditions = Vec::new();
        for scenario in self.scenarios.values() {
            let mut effort = self.effort(scenario);
            if let Some(sweep) = &scenario.sweep {
                // As closed loops, only to find the peaks.
                effort.blocks = effort.blocks.min(sweep.peak_blocks);
            }
            let arms = scenario.arms()?;
            let at_once = if scenario.alternate { arms.len() } else { 1 };
            for &placement in &scenario.placements {
                for &clients in &scenario.clients {
                    for &driver in &scenario.drivers {
                        conditions.extend(arms.chunks(at_once).map(|arms| Condition {
                            scenario: scenario.clone(),
                            arms: arms.to_vec(),
                            effort,
                            clients,
                            driver,
                            placement,
                            load_percent: None,
                            peaks: Vec::new(),
                        }));
                    }
                }
            }
        }
        Ok(conditions)
    }

    /// The arms whose rows were written together with `first`, the row of the first of them; `None` for
    /// a row of no block of this run.
    fn together(&self, conditions: &[Condition], first: &BlockRow) -> Option<Vec<String>> {
        let section = ConditionKey {
            load_percent: None,
            ..first.condition()
        };
        let is_first = |condition: &&Condition| {
            condition.key() == section && condition.arms[0].name == first.model
        };
        let condition = conditions.iter().find(is_first)?;
        let blocks = match first.load_percent {
            None => condition.effort.blocks,
            Some(percent) => {
                let sweep = condition.scenario.sweep.as_ref()?;
                sweep.percent.contains(&percent).then_some(())?;
                self.effort(&condition.scenario).blocks
            }
        };
        (first.block <= blocks).then(|| condition.arms.iter().map(|arm| arm.name.clone()).collect())
    }

    /// Refuses to go on under other conditions than those of the rows that are there.
    fn check_same_conditions(&self, now: &Environment, folder: &Path) -> anyhow::Result<()> {
        let folder = folder.display();
        let begun = &self.environment;
        if self.status == COMPLETE {
            bail!("the run in {folder} is complete; see it with: echobench table {folder}");
        }
        if self.schema_version != SCHEMA_VERSION
            || begun.executable_sha256 != now.executable_sha256
            || begun.revision != now.revision
        {
            bail!(
                "the run in {folder} was begun by another build of echobench ({}); resume it with \
                 that one, or start a new run",
                begun.short_revision().unwrap_or(&begun.version)
            );
        }
        if begun.machine != now.machine {
            bail!(
                "the run in {folder} was begun on another kind of machine ({}, this is {}); resume it \
                 there, or start a new run",
                begun.machine.slug(),
                now.machine.slug()
            );
        }
        Ok(())
    }
}

/// The open loops of a rate sweep, relative to the peaks that the closed loop `condition` has found.
fn sweep(condition: &Condition, record: &RunRecord, blocks: &[BlockRow]) -> Vec<Condition> {
    let Some(sweep) = &condition.scenario.sweep else {
        return Vec::new();
    };
    let effort = record.effort(&condition.scenario);
    let peak = |arm: &Arm| {
        let own = |row: &&BlockRow| row.condition() == condition.key() && row.model == arm.name;
        let rates: Vec<f64> = blocks
            .iter()
            .filter(own)
            .filter_map(|row| row.throughput_per_second)
            .collect();
        // An arm without a peak has failed, and will say so again.
        median(&rates).filter(|rate| *rate >= 1.0).unwrap_or(1.0)
    };
    let peaks: Vec<f64> = condition.arms.iter().map(peak).collect();
    let at = |&percent: &u32| Condition {
        effort,
        load_percent: Some(percent),
        peaks: peaks.clone(),
        ..condition.clone()
    };
    sweep.percent.iter().map(at).collect()
}

/// The states of a run, as the record has them.
const RUNNING: &str = "running";
const COMPLETE: &str = "complete";
const INTERRUPTED: &str = "interrupted";

/// A run under way: what has been measured so far, here and on disk.
struct Run {
    writer: Writer,
    record: RunRecord,
    _awake: Option<Awake>,
    /// The zero of the times in the interval log is so much before `began`.
    log_age: Duration,
    began: Instant,
    slices: Vec<SliceRow>,
    blocks: Vec<BlockRow>,
    violations: Vec<String>,
}

impl Run {
    /// A new run in a new folder.
    fn begin(args: &RunArgs) -> anyhow::Result<Self> {
        let scenarios = scenarios(args)?;
        check_possible(&scenarios)?;
        let awake = super::keep_awake(args.awake)?;
        let environment = Environment {
            awake: args.awake,
            ..Environment::capture()
        };
        let folder = args
            .out
            .clone()
            .unwrap_or_else(|| default_folder(args.full, &environment, ""));
        let effort = if args.full { RunRecord::FULL } else { "quick" };
        let record = RunRecord {
            schema_version: SCHEMA_VERSION,
            effort: effort.to_owned(),
            seed: super::seed(args.seed),
            status: RUNNING.to_owned(),
            resumed: Vec::new(),
            environment,
            scenarios: scenarios.into_iter().map(|s| (s.name.clone(), s)).collect(),
        };
        Ok(Run {
            writer: Writer::create(&folder, &record)?,
            record,
            _awake: awake,
            log_age: Duration::ZERO,
            began: Instant::now(),
            slices: Vec::new(),
            blocks: Vec::new(),
            violations: Vec::new(),
        })
    }

    /// A run that was cut short, with what it has measured.
    fn resume(folder: &Path) -> anyhow::Result<Self> {
        let mut record = read_record(folder)?;
        let now = Environment::capture();
        record.check_same_conditions(&now, folder)?;
        check_possible(record.scenarios.values())?;
        let awake = super::keep_awake(record.environment.awake)?;
        let conditions = record.conditions()?;
        let (writer, kept) = Writer::resume(folder, |row| record.together(&conditions, row))?;
        RUNNING.clone_into(&mut record.status);
        record.resumed.push(now.started);
        writer.record(&record)?;
        let nothing_more = BTreeMap::new();
        let violations = kept.blocks.iter();
        let violations = violations.flat_map(|row| row.violations(&nothing_more));
        Ok(Run {
            violations: violations.collect(),
            writer,
            record,
            _awake: awake,
            log_age: kept.log_age,
            began: Instant::now(),
            slices: kept.slices,
            blocks: kept.blocks,
        })
    }

    /// Block 1 of every condition, then block 2 of every condition: a slow drift of the machine meets all alike.
    fn all_blocks(&mut self, conditions: &[Condition]) -> anyhow::Result<()> {
        let rounds = conditions
            .iter()
            .map(|condition| condition.effort.blocks)
            .max();
        let planned = (1..=rounds.unwrap_or(0)).flat_map(|block| {
            let conditions = conditions
                .iter()
                .filter(move |condition| block <= condition.effort.blocks);
            conditions.map(move |condition| (condition, block))
        });
        // Some are there already if the run was taken up again.
        let missing: Vec<(&Condition, u32)> = planned
            .filter(|&(condition, block)| !self.has(condition, block))
            .collect();
        let progress = Progress::new(&missing);
        for (condition, block) in missing {
            progress.begin(condition, block);
            match condition.run_block(block, self.record.seed) {
                Ok(outcome) => self.keep(condition, outcome)?,
                Err(_) if interrupted() => {
                    progress.end();
                    INTERRUPTED.clone_into(&mut self.record.status);
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
            progress.advance(expected(condition));
            progress.seen(|| self.so_far(condition));
        }
        progress.end();
        COMPLETE.clone_into(&mut self.record.status);
        Ok(())
    }

    fn has(&self, condition: &Condition, block: u32) -> bool {
        let section = condition.key();
        let first = &condition.arms[0].name;
        let mut rows = self.blocks.iter();
        rows.any(|row| row.block == block && row.model == *first && row.condition() == section)
    }

    /// The ratios of a condition's arms as far as they are known by now.
    fn so_far(&self, condition: &Condition) -> String {
        let summary = summarize_throughput(&condition.scenario.name, &self.slices, &self.blocks);
        let ratios = summary
            .iter()
            .filter(|row| row.condition() == condition.key())
            .filter_map(|row| Some((row, row.ratio?, row.ratio_low.zip(row.ratio_high))));
        let texts: Vec<String> = ratios
            .map(|(row, ratio, interval)| match interval {
                Some((low, high)) => format!("{} {ratio:.2} [{low:.2}, {high:.2}]", row.model),
                None => format!("{} {ratio:.2}", row.model),
            })
            .collect();
        let reference = summary.iter().find_map(|row| row.reference.as_deref());
        match reference {
            Some(reference) if !texts.is_empty() => format!(
                "{} {} ÷ {reference}: {}",
                condition.clients,
                condition.driver,
                texts.join(" · ")
            ),
            _ => String::new(),
        }
    }

    fn keep(&mut self, condition: &Condition, outcome: BlockOutcome) -> anyhow::Result<()> {
        let length = condition.block_time();
        let start = (self.log_age + self.began.elapsed()).saturating_sub(length);
        let log = outcome.interval_log(start, length);
        self.writer.block(&outcome.slices, &outcome.blocks, &log)?;
        self.slices.extend(outcome.slices);
        self.blocks.extend(outcome.blocks);
        self.violations.extend(outcome.violations);
        Ok(())
    }

    fn finish(mut self, objective: Objective) -> anyhow::Result<ExitCode> {
        let summary = summarize(&self.slices, &self.blocks);
        self.writer.summary(&summary)?;
        self.record.environment.finish();
        self.writer.record(&self.record)?;
        out!(
            "{}",
            tables(&summary, &self.blocks, Style::of_stdout(), objective)
        );
        out!("{}", super::awake_note(&self.record.environment));
        noteln!("\nresults in {}", self.writer.folder().display());
        if self.record.status != COMPLETE {
            noteln!(
                "interrupted: {} finished blocks are kept; for the others: echobench run --resume {}",
                self.finished_blocks(),
                self.writer.folder().display()
            );
            return Ok(ExitCode::FAILURE);
        }
        if !self.violations.is_empty() {
            for violation in &self.violations {
                noteln!("wrong: {violation}");
            }
            return Ok(ExitCode::from(2));
        }
        let is_well = |row: &BlockRow| row.is_ok() || row.skipped().is_some();
        let all_well = self.blocks.iter().all(is_well);
        Ok(if all_well {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }

    fn finished_blocks(&self) -> usize {
        let block = |row: &BlockRow| (row.condition(), row.block);
        self.blocks.iter().map(block).collect::<BTreeSet<_>>().len()
    }
}

/// How long a block takes in all, roughly; only for the time left.
fn expected(condition: &Condition) -> u64 {
    let processes = u32::try_from(condition.arms.len()).unwrap_or(1) * condition.clients;
    let time = condition.block_time() + Duration::from_millis(150) + START_PER_CLIENT * processes;
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A bar with the time left on a terminal, now and then a line elsewhere.
struct Progress {
    bar: ProgressBar,
    plain: bool,
}

impl Progress {
    fn new(blocks: &[(&Condition, u32)]) -> Self {
        let total = blocks
            .iter()
            .map(|(condition, _)| expected(condition))
            .sum();
        let plain = !std::io::stderr().is_terminal();
        let target = if plain {
            ProgressDrawTarget::hidden()
        } else {
            ProgressDrawTarget::stderr()
        };
        let bar = ProgressBar::with_draw_target(Some(total), target);
        let style =
            ProgressStyle::with_template("{bar:30} {percent:>3} %  {eta} left  {msg}\n{prefix}");
        bar.set_style(style.expect("the template is well formed"));
        if plain {
            noteln!("measuring for about {} s", total / 1000);
        }
        Progress { bar, plain }
    }

    fn begin(&self, condition: &Condition, block: u32) {
        let Condition {
            scenario,
            clients,
            driver,
            effort,
            ..
        } = condition;
        let load = condition
            .load_percent
            .map(|percent| format!(" at {percent} %"))
            .unwrap_or_default();
        let message = format!(
            "{} · {clients} {driver}{load} · {} · block {block}/{}",
            scenario.name,
            scenario.models.join(", "),
            effort.blocks
        );
        self.bar.set_message(message);
    }

    /// Shows what is known so far, on a terminal.
    fn seen(&self, text: impl FnOnce() -> String) {
        if !self.plain {
            self.bar.set_prefix(text());
        }
    }

    fn advance(&self, millis: u64) {
        let tenth = |done: u64| done * 10 / self.bar.length().unwrap_or(1).max(1);
        let before = tenth(self.bar.position());
        self.bar.inc(millis);
        let after = tenth(self.bar.position());
        if self.plain && after > before && after < 10 {
            noteln!(
                "{} % done, about {} s left",
                after * 10,
                self.bar.eta().as_secs()
            );
        }
    }

    fn end(&self) {
        self.bar.finish_and_clear();
    }
}
