//! `echobench verify`: the conformance suite against any server.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use echobench_clients::parse_duration;

use crate::scenario::arm::External;
use crate::verify::{VerifyOptions, VerifyTarget, verify};
use crate::{noteln, out};

/// Options of `verify`.
#[derive(Args)]
#[command(
    after_help = "Exit codes: 0 all checks passed; 1 it could not be done, or not all of it; 2 a check failed."
)]
pub struct VerifyArgs {
    /// A model, with options of `serve` if it needs any, as in "pool --workers 8"; or the address of a
    /// server that runs, as in 127.0.0.1:7000
    #[arg(required_unless_present = "external", conflicts_with = "external")]
    target: Option<String>,

    /// A server to start, as in "mine=server --port {port}"; {port} is where it is to listen on 127.0.0.1
    #[arg(long, value_name = "NAME=COMMAND")]
    external: Option<External>,

    /// Time limit of each check
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = parse_duration)]
    limit: Duration,
}

pub(super) fn run(args: &VerifyArgs) -> anyhow::Result<ExitCode> {
    let target = match (&args.external, &args.target) {
        (Some(external), _) => VerifyTarget::external(external)?,
        (None, Some(target)) => VerifyTarget::parse(target)?,
        (None, None) => bail!("nothing to verify"),
    };
    if args.limit.is_zero() {
        bail!("--limit must be longer than 0");
    }
    let options = VerifyOptions {
        target,
        limit: args.limit,
    };

    let report = verify(&options, |check| noteln!("{check}"))?;
    out!("{}", report.text());
    for remark in report.remarks() {
        noteln!("error: {remark}");
    }
    Ok(ExitCode::from(report.exit_code()))
}
