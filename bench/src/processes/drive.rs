//! The load process of one arm: receives a plan, connects its clients, starts when told, and reports.

use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use echobench_clients::{Plan, clock};
use nix::sys::signal::Signal;

use super::child::die_with_parent;
use super::messages::{self, FromDriver, Start};
use crate::host::cpus;
use crate::host::signals::ignore_with_handler;

/// The arguments of a load process.
#[derive(Args)]
pub struct DriveArgs {
    /// CPUs for the clients, such as 0,1; all if not given
    #[arg(long, value_delimiter = ',')]
    cpus: Vec<usize>,

    /// Handle SIGALRM by doing nothing, so that it interrupts system calls (used by `claims`)
    #[arg(long)]
    take_alarms: bool,
}

/// Carries out one plan. Starts no thread of its own: clients may be forked from this process.
pub fn run(args: &DriveArgs) -> anyhow::Result<ExitCode> {
    die_with_parent()?;
    if !args.cpus.is_empty() {
        cpus::pin_current_process(&args.cpus).context("cannot pin the clients to their CPUs")?;
    }
    if args.take_alarms {
        ignore_with_handler(Signal::SIGALRM, false)?;
    }

    let Some(plan) = messages::receive::<Plan>()? else {
        return Ok(ExitCode::FAILURE);
    };
    let mut late_ns = 0;
    let result = echobench_clients::run(&plan, || {
        let start = messages::send(&FromDriver::Ready).and_then(|()| messages::receive::<Start>());
        match start {
            Ok(Some(start)) => {
                late_ns = clock::now().saturating_sub(start.start_ns);
                start.start_ns
            }
            // Without an experiment there is nobody to report to either.
            Ok(None) | Err(_) => std::process::exit(1),
        }
    });

    match result {
        Ok(report) => messages::send(&FromDriver::Done { report, late_ns })?,
        Err(error) => messages::send(&FromDriver::Failed {
            message: error.to_string(),
        })?,
    }
    Ok(ExitCode::SUCCESS)
}
