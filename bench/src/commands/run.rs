//! `echobench run`: an experiment over one or more scenarios, block by block.

use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::bail;
use clap::Args;
use echobench_clients::raise_file_limit;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::agent::{catch_interrupts, interrupted};
use crate::arm::Arm;
use crate::environment::Environment;
use crate::experiment::Cell;
use crate::histograms::interval_line;
use crate::results::{BlockRow, RunRecord, SCHEMA_VERSION, SliceRow, Writer};
use crate::rows::BlockOutcome;
use crate::scenario::{Placement, Scenario, check_arm};
use crate::stats::median;
use crate::summary::summarize;
use crate::tables::{Objective, Style, tables};

/// Starting and ending the processes of a block takes about this long for each of its clients.
const START_PER_CLIENT: Duration = Duration::from_millis(1);

/// The options of `run`.
#[derive(Args)]
pub struct RunArgs {
    /// Scenarios by name (see `echobench list`), or files: NAME.toml
    #[arg(value_name = "SCENARIO", required = true)]
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

    /// Another placement than the scenario's: none, split (servers and clients on CPUs of their
    /// own) or same (all on one CPU)
    #[arg(long)]
    placement: Option<Placement>,

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
}

pub(super) fn run(args: &RunArgs) -> anyhow::Result<ExitCode> {
    let scenarios = scenarios(args)?;
    let cells = cells(args, &scenarios);
    let environment = Environment::capture();
    let folder = args
        .out
        .clone()
        .unwrap_or_else(|| default_folder(args, &environment));
    let seed = args
        .seed
        .unwrap_or_else(|| jiff::Timestamp::now().as_millisecond().unsigned_abs());
    let record = RunRecord {
        schema_version: SCHEMA_VERSION,
        effort: if args.full { "full" } else { "quick" }.to_owned(),
        seed,
        status: "running".to_owned(),
        environment,
        scenarios: scenarios
            .iter()
            .map(|s| (s.name.clone(), s.clone()))
            .collect(),
    };
    let writer = Writer::create(&folder, &record)?;
    catch_interrupts()?;
    let mut run = Run {
        writer,
        record,
        seed,
        began: Instant::now(),
        slices: Vec::new(),
        blocks: Vec::new(),
        violations: Vec::new(),
    };
    run.all_blocks(&cells)?;
    let sweeps: Vec<Cell> = cells
        .iter()
        .flat_map(|cell| sweep(args, cell, &run.blocks))
        .collect();
    if !sweeps.is_empty() && !interrupted() {
        run.all_blocks(&sweeps)?;
    }
    run.finish(args.objective)
}

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
        for (index, arm) in scenario.models.iter().enumerate() {
            check_arm(arm)?;
            if scenario.models[..index].contains(arm) {
                bail!("model '{arm}' is named twice");
            }
        }
        if let Some(placement) = args.placement {
            scenario.placements = vec![placement];
        }
        for placement in &scenario.placements {
            placement.cpus()?;
        }
        // Better now than in the middle of the run; servers and load processes inherit the limit.
        raise_file_limit(scenario.clients.iter().copied().max().unwrap_or(0))?;
        scenarios.push(scenario);
    }
    Ok(scenarios)
}

fn cells(args: &RunArgs, scenarios: &[Scenario]) -> Vec<Cell> {
    let mut cells = Vec::new();
    for scenario in scenarios {
        let mut effort = if args.full {
            scenario.full
        } else {
            scenario.quick
        };
        effort.blocks = args.blocks.unwrap_or(effort.blocks);
        if let Some(sweep) = &scenario.sweep {
            // As closed loops, only to find the peaks.
            effort.blocks = effort.blocks.min(sweep.peak_blocks);
        }
        for &placement in &scenario.placements {
            for &clients in &scenario.clients {
                for &driver in &scenario.drivers {
                    cells.push(Cell {
                        scenario: scenario.clone(),
                        arms: scenario.models.iter().map(|m| Arm::of_model(m)).collect(),
                        effort,
                        clients,
                        driver,
                        placement,
                        load_percent: None,
                        peaks: Vec::new(),
                    });
                }
            }
        }
    }
    cells
}

/// The open loops of a rate sweep, relative to the peaks that the closed loop `cell` has found.
fn sweep(args: &RunArgs, cell: &Cell, blocks: &[BlockRow]) -> Vec<Cell> {
    let Some(sweep) = &cell.scenario.sweep else {
        return Vec::new();
    };
    let mut effort = if args.full {
        cell.scenario.full
    } else {
        cell.scenario.quick
    };
    effort.blocks = args.blocks.unwrap_or(effort.blocks);
    let peak = |arm: &Arm| {
        let own = |row: &&BlockRow| row.section() == cell.section() && row.model == arm.name;
        let rates: Vec<f64> = blocks
            .iter()
            .filter(own)
            .filter_map(|row| row.throughput_per_second)
            .collect();
        // An arm without a peak has failed, and will say so again.
        median(&rates).filter(|rate| *rate >= 1.0).unwrap_or(1.0)
    };
    let peaks: Vec<f64> = cell.arms.iter().map(peak).collect();
    let at = |&percent: &u32| Cell {
        effort,
        load_percent: Some(percent),
        peaks: peaks.clone(),
        ..cell.clone()
    };
    sweep.percent.iter().map(at).collect()
}

/// Quick results are not for keeping: they have a place of their own, which git ignores.
fn default_folder(args: &RunArgs, environment: &Environment) -> PathBuf {
    let revision = environment.short_revision().unwrap_or("unknown");
    let now = jiff::Timestamp::now();
    let base = if args.full {
        let date = now.strftime("%Y-%m-%d");
        Path::new("results").join(format!("{date}-{revision}-{}", environment.machine.slug()))
    } else {
        let time = now.strftime("%Y-%m-%dT%H%M%SZ");
        Path::new("results/quick").join(format!("{time}-{revision}"))
    };
    let next = (2..).map(|n| PathBuf::from(format!("{}-{n}", base.display())));
    std::iter::once(base.clone())
        .chain(next)
        .find(|folder| !folder.exists())
        .unwrap_or(base)
}

/// A run under way: what has been measured so far, here and on disk.
struct Run {
    writer: Writer,
    record: RunRecord,
    seed: u64,
    began: Instant,
    slices: Vec<SliceRow>,
    blocks: Vec<BlockRow>,
    violations: Vec<String>,
}

impl Run {
    /// Block 1 of every cell, then block 2 of every cell: a slow drift of the machine meets all alike.
    fn all_blocks(&mut self, cells: &[Cell]) -> anyhow::Result<()> {
        let rounds = cells
            .iter()
            .map(|cell| cell.effort.blocks)
            .max()
            .unwrap_or(0);
        let progress = Progress::new(cells);
        for block in 1..=rounds {
            for cell in cells.iter().filter(|cell| block <= cell.effort.blocks) {
                progress.begin(cell, block);
                match cell.run_block(block, self.seed) {
                    Ok(outcome) => self.keep(cell, outcome)?,
                    Err(_) if interrupted() => {
                        progress.end();
                        "interrupted".clone_into(&mut self.record.status);
                        return Ok(());
                    }
                    Err(error) => return Err(error),
                }
                progress.advance(expected(cell));
            }
        }
        progress.end();
        "complete".clone_into(&mut self.record.status);
        Ok(())
    }

    fn keep(&mut self, cell: &Cell, outcome: BlockOutcome) -> anyhow::Result<()> {
        let length = cell.block_time();
        let start = self.began.elapsed().saturating_sub(length);
        let mut log = String::new();
        for (row, histogram) in outcome.blocks.iter().zip(&outcome.latencies) {
            if row.is_ok() {
                let tag = tag(row);
                log.push_str(&interval_line(&tag, start, length, histogram));
            }
        }
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
        print!(
            "{}",
            tables(&summary, &self.blocks, Style::Plain, objective)
        );
        eprintln!("\nresults in {}", self.writer.folder().display());
        if self.record.status != "complete" {
            eprintln!(
                "interrupted: {} finished blocks are kept",
                self.finished_blocks()
            );
            return Ok(ExitCode::FAILURE);
        }
        if !self.violations.is_empty() {
            for violation in &self.violations {
                eprintln!("wrong: {violation}");
            }
            return Ok(ExitCode::from(2));
        }
        let all_well = self.blocks.iter().all(BlockRow::is_ok);
        Ok(if all_well {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }

    fn finished_blocks(&self) -> usize {
        let block = |row: &BlockRow| (row.section(), row.block);
        self.blocks.iter().map(block).collect::<BTreeSet<_>>().len()
    }
}

/// The name of an arm in the interval log.
fn tag(row: &BlockRow) -> String {
    let BlockRow {
        scenario,
        placement,
        clients,
        driver,
        model,
        ..
    } = row;
    let load = row
        .load_percent
        .map(|percent| format!("/{percent}%"))
        .unwrap_or_default();
    format!("{scenario}/{placement}/{clients}/{driver}{load}/{model}")
}

/// How long a block takes in all, roughly; only for the time left.
fn expected(cell: &Cell) -> u64 {
    let processes = u32::try_from(cell.arms.len()).unwrap_or(1) * cell.clients;
    let time = cell.block_time() + Duration::from_millis(150) + START_PER_CLIENT * processes;
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A bar with the time left on a terminal, now and then a line elsewhere.
struct Progress {
    bar: ProgressBar,
    plain: bool,
}

impl Progress {
    fn new(cells: &[Cell]) -> Self {
        let total = cells
            .iter()
            .map(|cell| expected(cell) * u64::from(cell.effort.blocks))
            .sum();
        let plain = !std::io::stderr().is_terminal();
        let target = if plain {
            ProgressDrawTarget::hidden()
        } else {
            ProgressDrawTarget::stderr()
        };
        let bar = ProgressBar::with_draw_target(Some(total), target);
        let style = ProgressStyle::with_template("{bar:30} {percent:>3} %  {eta} left  {msg}");
        bar.set_style(style.expect("the template is well formed"));
        if plain {
            eprintln!("measuring for about {} s", total / 1000);
        }
        Progress { bar, plain }
    }

    fn begin(&self, cell: &Cell, block: u32) {
        let Cell {
            scenario,
            clients,
            driver,
            effort,
            ..
        } = cell;
        let load = cell
            .load_percent
            .map(|percent| format!(" at {percent} %"))
            .unwrap_or_default();
        let message = format!(
            "{} · {clients} {driver}{load} · block {block}/{}",
            scenario.name, effort.blocks
        );
        self.bar.set_message(message);
    }

    fn advance(&self, millis: u64) {
        let tenth = |done: u64| done * 10 / self.bar.length().unwrap_or(1).max(1);
        let before = tenth(self.bar.position());
        self.bar.inc(millis);
        let after = tenth(self.bar.position());
        if self.plain && after > before && after < 10 {
            eprintln!(
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
