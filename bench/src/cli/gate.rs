//! `echobench gate`: options of a comparison of two servers, with an exit code for CI.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};

use super::hosts::HostsArgs;
use crate::gate::engine::{GateOutcome, GateTask, execute};
use crate::gate::export::{Export, Format};
use crate::gate::options::GateOptions;
use crate::gate::rule::GateVerdict;
use crate::results::EffortName;
use crate::scenario::Placement;

/// Examples and exit codes, at the end of the help.
const AFTER_HELP: &str = "\
Examples:
  echobench gate --baseline old/echobench --candidate target/release/echobench --quick
  echobench gate --baseline 'base/server {port}' --candidate 'head/server {port}'
  echobench gate --baseline 'mine=python3 base/server.py {port}' \\
                 --candidate 'mine=python3 head/server.py {port}' --export markdown=gate.md

A command line is an echo server of any kind (docs/protocol.md). It has to listen on {address},
port {port}; {address} is 127.0.0.1, or that of --server-address. Reports name it after its
program, or by NAME in NAME='COMMAND {port}'.

Exit codes: 0 pass; 1 it could not be done; 2 a regression, or wrong replies; 3 inconclusive.";

/// Options of `gate`.
#[derive(Args)]
#[command(after_help = AFTER_HELP)]
pub struct GateArgs {
    /// Server to compare with: an echobench executable, or a command line with {port}
    #[arg(long, value_name = "SERVER")]
    baseline: String,

    /// Server to judge, of the same kind
    #[arg(long, value_name = "SERVER")]
    candidate: String,

    #[command(flatten)]
    form: GateForm,

    /// Format of the report
    #[arg(long, value_name = "FORMAT", value_parser = formats(), default_value = Format::Table.name())]
    format: Format,

    /// Also write the report to a file, as in junit=gate.xml; repeatable
    #[arg(long, value_name = "FORMAT=FILE")]
    export: Vec<Export>,

    /// New results folder for all rows
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Workload of a gate, as options.
#[derive(Args)]
pub struct GateForm {
    /// Workload: a scenario (see `echobench list`), or a file NAME.toml
    #[arg(long, value_name = "SCENARIO", default_value = "gate")]
    scenario: String,

    /// Models in place of the scenario's, if the servers are echobench
    #[arg(long, value_name = "MODELS", value_delimiter = ',')]
    models: Vec<String>,

    /// Fewer and shorter blocks: faster, and more often inconclusive
    #[arg(long)]
    quick: bool,

    /// Number of blocks; the verdict may come after half of them
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    blocks: Option<u32>,

    /// Placement in place of the scenario's: none, split or same
    #[arg(long)]
    placement: Option<Placement>,

    /// Seed of orders and traffic [default: from the clock]
    #[arg(long)]
    seed: Option<u64>,

    #[command(flatten)]
    hosts: HostsArgs,
}

impl GateForm {
    /// The same for the engine.
    pub fn options(&self) -> anyhow::Result<GateOptions> {
        Ok(GateOptions {
            scenario: self.scenario.clone(),
            models: self.models.clone(),
            effort: if self.quick {
                EffortName::Quick
            } else {
                EffortName::Full
            },
            blocks: self.blocks,
            placement: self.placement,
            seed: super::seed(self.seed),
            hosts: self.hosts.options()?,
        })
    }
}

/// Parser of the formats.
fn formats() -> impl TypedValueParser<Value = Format> {
    let names = Format::ALL.iter().map(|format| format.name());
    PossibleValuesParser::new(names).try_map(|name| name.parse::<Format>())
}

pub(super) fn run(args: &GateArgs) -> anyhow::Result<ExitCode> {
    let outcome = execute(&GateTask {
        baseline: args.baseline.clone(),
        candidate: args.candidate.clone(),
        options: args.form.options()?,
        format: args.format,
        exports: args.export.clone(),
        out: args.out.clone(),
    })?;

    Ok(exit_code(outcome))
}

/// The verdict comes first: a file that could not be written only makes a pass a failure.
fn exit_code(outcome: GateOutcome) -> ExitCode {
    let GateOutcome::Judged { verdict, published } = outcome else {
        return ExitCode::from(2);
    };
    match verdict {
        GateVerdict::Pass if published => ExitCode::SUCCESS,
        GateVerdict::Pass => ExitCode::FAILURE,
        GateVerdict::Regression => ExitCode::from(2),
        GateVerdict::Inconclusive => ExitCode::from(3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_file_never_replaces_the_code_of_a_verdict() {
        for (verdict, code, code_without_files) in [
            (GateVerdict::Pass, 0, 1),
            (GateVerdict::Regression, 2, 2),
            (GateVerdict::Inconclusive, 3, 3),
        ] {
            for (published, expected) in [(true, code), (false, code_without_files)] {
                let outcome = GateOutcome::Judged { verdict, published };
                assert_eq!(exit_code(outcome), ExitCode::from(expected), "{outcome:?}");
            }
        }
        assert_eq!(exit_code(GateOutcome::WrongReplies), ExitCode::from(2));
    }
}
