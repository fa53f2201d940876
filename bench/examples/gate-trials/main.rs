//! Error rates of the gate on this machine, and those of other tools' rules over the same blocks. For
//! maintainers of the gate: `scripts/gate-error-rates.sh` runs it.

mod resample;
mod rules;
mod table;
mod trials;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand};
use echobench::cli::{Command, GateForm};
use echobench::gate::GateServer;
use echobench::host::files::write_file;
use echobench::host::signals::{catch_interrupts, interrupted};
use echobench::render::Style;
use echobench::render::splice::splice;
use echobench::results::{RunRecord, RunStatus};
use echobench::{noteln, outln};

use trials::{TrialResults, Trials};

/// Error rates of the gate.
#[derive(Parser)]
#[command(name = "gate-trials", disable_help_subcommand = true)]
struct GateTrials {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Run many gates between equal builds, half of them with a known slow-down, and count the errors
    Measure(MeasureArgs),
    /// Print the error rates of folders
    Show(ShowArgs),
    /// The servers and clients of a gate are this executable again
    #[command(flatten)]
    Echobench(Command),
}

#[derive(Args)]
struct MeasureArgs {
    /// Number of gates
    #[arg(value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    gates: u32,

    /// A new folder for all verdicts and values
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    /// Let something else use the CPUs at random meanwhile
    #[arg(long)]
    load: bool,

    /// The true slow-down of those that are slower in CPU time or throughput, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=50))]
    slower: u32,

    /// Try servers of another project in place of this build: the one to compare with
    #[arg(long, value_name = "COMMAND", requires = "candidate")]
    baseline: Option<String>,

    /// An equal one to judge. To slow it down, a number of steps is added to its command line
    #[arg(long, value_name = "COMMAND", requires = "baseline")]
    candidate: Option<String>,

    /// The steps that an earlier trial found for this slow-down, with the same servers on the same machine
    #[arg(long, value_name = "N", requires = "candidate", value_parser = clap::value_parser!(u32).range(1..))]
    steps: Option<u32>,

    #[command(flatten)]
    form: GateForm,
}

#[derive(Args)]
struct ShowArgs {
    /// Folders of trials, or folders of such folders, read as one
    #[arg(value_name = "DIR", required = true)]
    folders: Vec<PathBuf>,

    /// Replace the text between the markers `<!-- rates -->` and `<!-- /rates -->` of this document
    #[arg(long, value_name = "FILE")]
    into: Option<PathBuf>,

    /// Name of the markers
    #[arg(long, value_name = "NAME", default_value = "rates", requires = "into")]
    marker: String,
}

fn main() -> ExitCode {
    let result = match GateTrials::parse().action {
        Action::Measure(args) => measure(&args),
        Action::Show(args) => show(&args),
        Action::Echobench(command) => command.run(),
    };
    result.unwrap_or_else(|error| {
        noteln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn measure(args: &MeasureArgs) -> anyhow::Result<ExitCode> {
    let folder = &args.out;
    if folder.exists() {
        bail!(
            "{} is there already; results are never overwritten: give another --out",
            folder.display()
        );
    }
    let own = std::env::current_exe()?;
    let own = own
        .to_str()
        .context("the path of this executable is not UTF-8")?;
    let open = |side: &str, given: &Option<String>| {
        GateServer::open(side, given.as_deref().unwrap_or(own))
    };
    let baseline = open("baseline", &args.baseline)?;
    let candidate = open("candidate", &args.candidate)?;
    let options = args.form.options()?;
    let gate = options.gate(baseline, candidate)?;

    catch_interrupts()?;
    gate.rehearse()?;

    let mut record = options.record(&gate);
    fs::create_dir_all(folder).with_context(|| format!("cannot write to {}", folder.display()))?;
    write_record(folder, &record)?;
    let mut trials = Trials {
        gates: args.gates,
        gate,
        steps: args.steps,
        share: f64::from(args.slower) / 100.0,
        load: args.load,
    };
    let results = trials.run(folder, &|message| noteln!("{message}"))?;

    record.status = if interrupted() {
        RunStatus::Interrupted
    } else {
        RunStatus::Complete
    };
    record.environment.finish();
    write_record(folder, &record)?;
    outln!("{}", table::text(&results, Style::Plain));
    if !interrupted() {
        return Ok(ExitCode::SUCCESS);
    }
    noteln!(
        "interrupted: {} of {} gates are in {}",
        results.trials.len(),
        args.gates,
        folder.display()
    );
    Ok(ExitCode::FAILURE)
}

fn write_record(folder: &Path, record: &RunRecord) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(record)? + "\n";
    write_file(&folder.join("run.json"), text)
}

fn show(args: &ShowArgs) -> anyhow::Result<ExitCode> {
    let results = TrialResults::read(&args.folders)?;
    match &args.into {
        Some(document) => {
            let text = table::text(&results, Style::Markdown);
            splice(document, &args.marker, &command(&args.folders), &text)?;
        }
        None => outln!("{}", table::text(&results, Style::Plain)),
    }
    Ok(ExitCode::SUCCESS)
}

/// The command that prints the error rates of folders, as documents name it.
fn command(folders: &[PathBuf]) -> String {
    let names = folders.iter().map(|folder| folder.display().to_string());
    let names: Vec<String> = names
        .map(|name| name.trim_end_matches('/').to_owned())
        .collect();
    format!("scripts/gate-error-rates.sh --from {}", names.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_in_the_documents_are_those_of_the_committed_folders() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let text = fs::read_to_string(root.join("docs/gate.md")).unwrap();
        for marker in ["rates", "servers"] {
            let (_, block) = text.split_once(&format!("<!-- {marker} -->\n")).unwrap();
            let (block, _) = block.split_once(&format!("<!-- /{marker} -->")).unwrap();
            let (_, rest) = block.split_once("--from ").expect("the command");
            let names = rest.split('`').next().unwrap().split(' ');
            let folders: Vec<PathBuf> = names.map(PathBuf::from).collect();
            let paths: Vec<PathBuf> = folders.iter().map(|folder| root.join(folder)).collect();

            let results = TrialResults::read(&paths).unwrap();
            let table = table::text(&results, Style::Markdown);
            assert!(block.contains(&command(&folders)));
            assert!(
                block.contains(&table),
                "scripts/gate-error-rates.sh --from DIR --into docs/gate.md --marker {marker}"
            );
        }
    }
}
