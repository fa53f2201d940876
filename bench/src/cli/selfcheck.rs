//! `echobench selfcheck`: accuracy of the tool on this machine.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::ensure;
use clap::Args;

use crate::host::files::ResultFile;
use crate::selfcheck::aa::{self, AaOptions};
use crate::selfcheck::checks::{self, ChecksOptions, Group};
use crate::{noteln, out, outln};

/// Options of `selfcheck`.
#[derive(Args)]
#[command(
    after_help = "Exit codes: 0 all is as it should be; 1 it could not be done, or was interrupted; 2 something is not, or one of two \
                  equal arms came out ahead; 3 the machine was too disturbed to say, or errors are above their targets."
)]
pub struct SelfcheckArgs {
    /// The long form, of 4 minutes instead of 1: stops of a second in ten, longer loads
    #[arg(long, conflicts_with = "aa")]
    full: bool,

    /// Only these checks: delay (known delays), omission (what a closed loop hides), stall (a server that is
    /// stopped), lag (requests leave late), ceiling (what the generator can do)
    #[arg(
        long,
        value_name = "CHECKS",
        value_delimiter = ',',
        conflicts_with = "aa"
    )]
    only: Vec<Group>,

    /// Print the result as JSON
    #[arg(long)]
    json: bool,

    /// The same arm against itself: how small a difference a comparison can resolve, and whether
    /// it finds some where there is none
    #[arg(long)]
    aa: bool,

    /// With --aa: how long each pair of arms is compared for
    #[arg(long, value_name = "S", default_value_t = 60, requires = "aa",
          value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: u32,

    /// With --aa: seed of orders and traffic
    #[arg(long, default_value_t = 1, requires = "aa")]
    seed: u64,

    /// With --aa: also write the rows as CSV
    #[arg(long, value_name = "FILE", requires = "aa")]
    out: Option<PathBuf>,
}

pub(super) fn run(args: &SelfcheckArgs) -> anyhow::Result<ExitCode> {
    if args.aa {
        return compare_equal_arms(args);
    }

    let options = ChecksOptions {
        only: args.only.clone(),
        full: args.full,
    };
    let report = checks::run(&options, &progress)?;
    if args.json {
        outln!("{}", serde_json::to_string(&report)?);
    } else {
        out!("{}", report.text());
    }
    Ok(ExitCode::from(report.exit_code()))
}

fn compare_equal_arms(args: &SelfcheckArgs) -> anyhow::Result<ExitCode> {
    let out = args.out.as_deref().map(new_file).transpose()?;

    let options = AaOptions {
        seconds: args.seconds,
        seed: args.seed,
    };
    let report = aa::run(&options, progress)?;
    if let Some(out) = &out {
        aa::write(out, &report)?;
    }
    if args.json {
        outln!("{}", serde_json::to_string(&report)?);
    } else {
        out!("{}", report.text());
    }
    Ok(ExitCode::from(report.exit_code()))
}

/// Checks before the measurement that its results can be written, and replace nothing.
fn new_file(path: &Path) -> anyhow::Result<ResultFile> {
    let is_taken = path.metadata().is_ok_and(|file| file.is_file());
    ensure!(
        !is_taken,
        "{} is there already; results are never overwritten: give another --out",
        path.display()
    );
    ResultFile::open(path)
}

fn progress(step: &str) {
    noteln!("{step}");
}
