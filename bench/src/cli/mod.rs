//! Commands of the executable, one file each: arguments → options of a study → exit code.

use std::process::ExitCode;

use crate::render::Style;

mod about;
mod claims;
mod compare;
mod completions;
mod gate;
mod history;
mod hosts;
mod list;
mod load;
mod report;
mod run;
mod selfcheck;
mod serve;
mod start_order;
mod table;
mod traffic;
mod values;
mod verify;
mod view;

pub use gate::GateForm;

/// Which server concurrency model wins for your traffic, by how much, how sure, and at what cost.
#[derive(clap::Parser)]
#[command(
    name = "echobench",
    version,
    propagate_version = false,
    disable_help_subcommand = true
)]
pub struct Cli {
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// Commands of `echobench`.
#[derive(clap::Subcommand)]
pub enum Command {
    /// Run one server process of a model
    Serve(serve::ServeArgs),
    /// Put a load on any echo server and check every reply
    Load(load::LoadArgs),
    /// Compare server models under a scenario: an experiment, its table and its results folder
    Run(Box<run::RunArgs>),
    /// Measure and judge the textbooks' claims about threads and processes
    Claims(claims::ClaimsArgs),
    /// Compare two servers and fail if the candidate is slower: the gate for CI
    Gate(gate::GateArgs),
    /// Check hosts for a run: that they start, match clocks, and reach the server; no load
    Hosts(hosts::HostsCommand),
    /// Compare two results folders
    Compare(compare::CompareArgs),
    /// List the ratios of each arm over all committed runs, and their changes
    History(history::HistoryArgs),
    /// Print the tables of a results folder
    Table(table::TableArgs),
    /// Check a server against the conformance suite of echo servers
    Verify(verify::VerifyArgs),
    /// Draw a results folder: an HTML page with verdicts, charts and tables, and the charts as SVG
    Report(report::ReportArgs),
    /// Measure this tool's own accuracy on this machine: known delays, known stops, send lag, ceiling
    Selfcheck(selfcheck::SelfcheckArgs),
    /// List all models, services and scenarios, or print the file of a scenario
    List(list::ListArgs),
    /// Print a completion script for a shell
    Completions(completions::CompletionsArgs),
    /// Write the man pages into a folder
    Man(completions::ManArgs),
    /// Describe this executable as JSON (used by `gate`)
    #[command(hide = true)]
    About,
    /// Supervise one server process (used by `run`)
    #[command(hide = true)]
    Supervise(crate::processes::supervise::SuperviseArgs),
    /// Start and relay the processes of a run on this host (used by `run`)
    #[command(hide = true)]
    Agent(crate::processes::agent::AgentArgs),
    /// Execute a load plan from standard input (used by `run`)
    #[command(hide = true)]
    Drive(crate::processes::drive::DriveArgs),
    /// Report in which order clients are answered that start one after another (used by `claims`)
    #[command(hide = true)]
    StartOrder(start_order::StartOrderArgs),
    /// Echo every byte, at once or after a known delay (used by `selfcheck`)
    #[command(hide = true)]
    Respond(crate::processes::respond::RespondArgs),
    /// Time a primitive operation; each line of standard input is a number of repetitions (used by
    /// `cargo bench`)
    #[command(hide = true)]
    Probe(crate::processes::probe::ProbeArgs),
    /// Exit at once (used by `probe spawn`)
    #[command(hide = true)]
    Nothing,
}

impl Command {
    /// Runs the command to its exit code.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Command::Serve(args) => serve::run(&args),
            Command::Load(args) => load::run(&args),
            Command::Run(args) => run::run(&args),
            Command::Claims(args) => claims::run(&args),
            Command::StartOrder(args) => start_order::run(&args),
            Command::Gate(args) => gate::run(&args),
            Command::Hosts(args) => hosts::run(&args),
            Command::Compare(args) => compare::run(&args),
            Command::History(args) => history::run(&args),
            Command::Table(args) => table::run(&args),
            Command::Verify(args) => verify::run(&args),
            Command::Selfcheck(args) => selfcheck::run(&args),
            Command::Report(args) => report::run(&args),
            Command::About => about::run(),
            Command::List(args) => list::run(&args),
            Command::Completions(args) => completions::completions(&args),
            Command::Man(args) => completions::man(&args),
            Command::Supervise(args) => crate::processes::supervise::run(&args),
            Command::Agent(args) => crate::processes::agent::run(&args),
            Command::Drive(args) => crate::processes::drive::run(&args),
            Command::Respond(args) => crate::processes::respond::run(&args),
            Command::Probe(args) => crate::processes::probe::run(&args),
            Command::Nothing => Ok(ExitCode::SUCCESS),
        }
    }
}

/// Style of tables: Markdown if it was asked for.
fn style(markdown: bool, otherwise: Style) -> Style {
    if markdown { Style::Markdown } else { otherwise }
}

/// The given seed, or one from the clock.
fn seed(given: Option<u64>) -> u64 {
    given.unwrap_or_else(|| jiff::Timestamp::now().as_millisecond().unsigned_abs())
}
