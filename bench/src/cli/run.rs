//! `echobench run`: options of an experiment over one or more scenarios.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::hosts::HostsArgs;
use super::traffic::TrafficArgs;
use super::view::ViewArgs;
use crate::run::engine::{RunOutcome, RunTask, RunView, execute};
use crate::run::options::RunOptions;
use crate::scenario::arm::External;

/// Options of `run`.
#[derive(Args)]
#[command(
    after_help = "Exit codes: 0 all arms were measured; 1 an arm failed or its server refused connections, or the \
                  run was interrupted; 2 a wrong reply, or a count that does not match; with --require-slo: 2 an arm \
                  misses the objective, 3 that is not resolved."
)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is an option of its own"
)]
pub struct RunArgs {
    /// Scenarios by name (see `echobench list`), or files: NAME.toml. Without any, options describe the traffic
    #[arg(value_name = "SCENARIO", required_unless_present_any = ["resume", "models", "external", "clients",
          "drivers", "placement", "payload", "work", "think", "rate", "capacity", "requests_per_connection"])]
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

    /// Additional arm: an echo server of another project, as in "mine=server --port {port}", or without a name
    /// "server --port {port}"; it has to listen on 127.0.0.1, port {port}. Can be given several times
    #[arg(long, value_name = "[NAME=]COMMAND")]
    external: Vec<External>,

    /// Keep idle CPUs out of their sleep states (C-states), so that no wake-up waits for a CPU to leave
    /// one; needs root
    #[arg(long, alias = "awake")]
    no_cpu_idle: bool,

    /// Number of blocks in place of the scenario's; few blocks resolve no differences
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    blocks: Option<u32>,

    #[command(flatten)]
    view: ViewArgs,

    /// Fail unless every arm keeps the objective at its rate
    #[arg(long, requires = "slo")]
    require_slo: bool,

    /// Results folder [default: a new folder under results/]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// Seed of the order of the arms and of the clients' traffic [default: from the clock]
    #[arg(long)]
    seed: Option<u64>,

    /// Finish the interrupted run in this results folder, with its own options, by the same executable
    /// on the same kind of machine; a run on other hosts needs their options again
    #[arg(long, value_name = "DIR", conflicts_with_all = ["scenarios", "quick", "full", "models",
          "external", "no_cpu_idle", "blocks", "out", "seed", "clients", "drivers", "placement", "payload", "work",
          "think", "rate", "arrivals", "capacity", "requests_per_connection"])]
    resume: Option<PathBuf>,

    #[command(flatten)]
    traffic: TrafficArgs,

    #[command(flatten)]
    hosts: HostsArgs,
}

impl RunArgs {
    fn task(&self) -> anyhow::Result<RunTask> {
        if let Some(folder) = &self.resume {
            return Ok(RunTask::Resume(folder.clone(), self.hosts.options()?));
        }
        Ok(RunTask::New(Box::new(RunOptions {
            scenarios: self.scenarios.clone(),
            full: self.full,
            models: self.models.clone(),
            external: self.external.clone(),
            traffic: self.traffic.options(self.view.view()),
            max_time: self.traffic.max_time(),
            no_cpu_idle: self.no_cpu_idle,
            blocks: self.blocks,
            out: self.out.clone(),
            seed: super::seed(self.seed),
            hosts: self.hosts.options()?,
        })))
    }
}

pub(super) fn run(args: &RunArgs) -> anyhow::Result<ExitCode> {
    let view = RunView {
        view: args.view.view(),
        require_slo: args.require_slo,
    };
    Ok(match execute(&args.task()?, view)? {
        RunOutcome::Complete => ExitCode::SUCCESS,
        RunOutcome::Interrupted | RunOutcome::ArmFailed => ExitCode::FAILURE,
        RunOutcome::WrongReplies | RunOutcome::SloMissed => ExitCode::from(2),
        RunOutcome::SloUnresolved => ExitCode::from(3),
    })
}
