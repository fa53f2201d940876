//! `echobench run`: options of an experiment over one or more scenarios.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::run::engine::{RunOutcome, RunTask, execute};
use crate::run::options::RunOptions;
use crate::run::sweep::Slo;
use crate::scenario::Placement;
use crate::scenario::arm::External;

/// Options of `run`.
#[derive(Args)]
#[command(
    after_help = "Exit codes: 0 all arms were measured; 1 an arm failed or its server refused connections, or the \
                  run was interrupted; 2 a wrong reply, or a count that does not match."
)]
pub struct RunArgs {
    /// Scenarios by name (see `echobench list`), or files: NAME.toml; needed unless --resume is given
    #[arg(value_name = "SCENARIO", required_unless_present = "resume")]
    scenarios: Vec<String>,

    /// The short form (the default)
    #[arg(long, conflicts_with = "full")]
    quick: bool,

    /// The long form, for results worth keeping
    #[arg(long)]
    full: bool,

    /// Models in place of the scenario's, each with options of `serve` if it needs any, such as
    /// "thread,pool --workers 8"
    #[arg(long, value_name = "MODELS", value_delimiter = ',')]
    models: Vec<String>,

    /// Additional arm: an echo server of another project, as in "mine=server --port {port}"; it has to
    /// listen on 127.0.0.1, port {port}. Can be given several times
    #[arg(long, value_name = "NAME=COMMAND")]
    external: Vec<External>,

    /// Placement in place of the scenario's: none, split (servers and clients on CPUs of their own) or
    /// same (all on one CPU)
    #[arg(long)]
    placement: Option<Placement>,

    /// Keep idle CPUs out of their sleep states (C-states), so that no wake-up waits for a CPU to leave
    /// one; needs root
    #[arg(long, alias = "awake")]
    no_cpu_idle: bool,

    /// Number of blocks in place of the scenario's; few blocks resolve no differences
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    blocks: Option<u32>,

    /// Service-level objective of a rate sweep: a percentile of latency and its limit
    #[arg(long, alias = "objective", value_name = "pNN=TIME", default_value_t)]
    slo: Slo,

    /// Results folder [default: a new folder under results/]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// Seed of the order of the arms and of the clients' traffic [default: from the clock]
    #[arg(long)]
    seed: Option<u64>,

    /// Finish the interrupted run in this results folder, with its own options, by the same executable
    /// on the same kind of machine
    #[arg(long, value_name = "DIR", conflicts_with_all = ["scenarios", "quick", "full", "models",
          "external", "placement", "no_cpu_idle", "blocks", "out", "seed"])]
    resume: Option<PathBuf>,
}

impl RunArgs {
    fn task(&self) -> RunTask {
        if let Some(folder) = &self.resume {
            return RunTask::Resume(folder.clone());
        }
        RunTask::New(RunOptions {
            scenarios: self.scenarios.clone(),
            full: self.full,
            models: self.models.clone(),
            external: self.external.clone(),
            placement: self.placement,
            no_cpu_idle: self.no_cpu_idle,
            blocks: self.blocks,
            out: self.out.clone(),
            seed: super::seed(self.seed),
        })
    }
}

pub(super) fn run(args: &RunArgs) -> anyhow::Result<ExitCode> {
    Ok(match execute(&args.task(), args.slo)? {
        RunOutcome::Complete => ExitCode::SUCCESS,
        RunOutcome::Interrupted | RunOutcome::ArmFailed => ExitCode::FAILURE,
        RunOutcome::WrongReplies => ExitCode::from(2),
    })
}
