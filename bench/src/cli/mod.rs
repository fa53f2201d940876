//! The commands of the executable, one file each.

use std::process::ExitCode;

mod about;
mod claims;
mod compare;
mod completions;
mod gate;
mod gate_trials;
mod history;
mod list;
mod load;
mod report;
mod run;
mod selfcheck;
mod serve;
mod table;
mod verify;

/// Which server concurrency model wins for your traffic, by how much, how sure, and at what cost.
#[derive(clap::Parser)]
#[command(
    name = "echobench",
    version,
    propagate_version = false,
    disable_help_subcommand = true
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What `echobench` can do.
#[derive(clap::Subcommand)]
pub enum Command {
    /// Run one server process of a model
    Serve(serve::ServeArgs),
    /// Put a load on any echo server and check every reply
    Load(load::LoadArgs),
    /// Compare server models under a scenario: an experiment, its table and its results folder
    Run(run::RunArgs),
    /// Measure and judge what the textbooks say about threads and processes
    Claims(claims::ClaimsArgs),
    /// Compare two builds and fail if the candidate got slower: the gate for CI
    Gate(gate::GateArgs),
    /// Put two results folders beside each other
    Compare(compare::CompareArgs),
    /// List the ratios of each arm over all committed runs, and where they changed
    History(history::HistoryArgs),
    /// Print the tables of a results folder again
    Table(table::TableArgs),
    /// Check that a server does what an echo server has to do
    Verify(verify::VerifyArgs),
    /// Draw a results folder: one HTML page with verdicts, charts and tables, and the charts as SVG
    Report(report::ReportArgs),
    /// Prove this tool's own accuracy on this machine: known delays, known stops, send lag, ceiling
    Selfcheck(selfcheck::SelfcheckArgs),
    /// Show the models, services and scenarios there are
    List,
    /// Print a completion script for a shell
    Completions(completions::CompletionsArgs),
    /// Write the man pages into a folder
    Man(completions::ManArgs),
    /// Find the error rates of the gate on this machine
    #[command(hide = true)]
    GateTrials(gate_trials::GateTrialsArgs),
    /// Say what this executable is, as JSON (used by `gate`)
    #[command(hide = true)]
    About,
    /// Watch over one server process (used by `run`)
    #[command(hide = true)]
    Supervise(crate::processes::supervise::SuperviseArgs),
    /// Carry out a load plan from standard input (used by `run`)
    #[command(hide = true)]
    Drive(crate::processes::drive::DriveArgs),
    /// Report in which order clients are answered that start one after another (used by `claims`)
    #[command(hide = true)]
    StartOrder(crate::claims::start_order::StartOrderArgs),
    /// Give back what is read, at once or after a known time (used by `selfcheck`)
    #[command(hide = true)]
    Respond(crate::processes::respond::RespondArgs),
    /// Time one primitive operation, as often as each line of standard input says (used by `cargo bench`)
    #[command(hide = true)]
    Probe(crate::processes::probe::ProbeArgs),
    /// End at once (used by `probe spawn`)
    #[command(hide = true)]
    Nothing,
}

impl Command {
    /// Runs the command; the exit code says how it ended.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Command::Serve(args) => serve::run(&args),
            Command::Load(args) => load::run(&args),
            Command::Run(args) => run::run(&args),
            Command::Claims(args) => claims::run(&args),
            Command::StartOrder(args) => crate::claims::start_order::run(&args),
            Command::Gate(args) => gate::run(&args),
            Command::Compare(args) => compare::run(&args),
            Command::History(args) => history::run(&args),
            Command::Table(args) => table::run(&args),
            Command::Verify(args) => verify::run(&args),
            Command::Selfcheck(args) => selfcheck::run(&args),
            Command::Report(args) => report::run(&args),
            Command::GateTrials(args) => gate_trials::run(&args),
            Command::About => about::run(),
            Command::List => list::run(),
            Command::Completions(args) => completions::completions(&args),
            Command::Man(args) => completions::man(&args),
            Command::Supervise(args) => crate::processes::supervise::run(&args),
            Command::Drive(args) => crate::processes::drive::run(&args),
            Command::Respond(args) => crate::processes::respond::run(&args),
            Command::Probe(args) => crate::processes::probe::run(&args),
            Command::Nothing => Ok(ExitCode::SUCCESS),
        }
    }
}

/// The seed that was given, or one from the clock.
fn seed(given: Option<u64>) -> u64 {
    given.unwrap_or_else(|| jiff::Timestamp::now().as_millisecond().unsigned_abs())
}
