//! The load process of one arm: takes a plan from standard input, says when it is ready, starts when
//! told, and reports.

use std::io::BufRead;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use echobench_clients::Plan;
use nix::sys::signal::Signal;

use crate::host::cpus;
use crate::host::signals::take;
use crate::processes::agent::{FromDriver, Start, die_with_parent, say};

/// The arguments of a load process.
#[derive(Args)]
pub struct DriveArgs {
    /// CPUs for the clients, such as 0,1; all if not given
    #[arg(long, value_delimiter = ',')]
    cpus: Vec<usize>,

    /// Take SIGALRM and do nothing, so that it breaks off system calls (used by `claims`)
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
        take(Signal::SIGALRM, false)?;
    }
    let Some(plan) = hear::<Plan>()? else {
        return Ok(ExitCode::FAILURE);
    };
    let started = echobench_clients::run(&plan, || {
        // Without a start there is nobody to report to either.
        match say(&FromDriver::Ready).and_then(|()| hear::<Start>()) {
            Ok(Some(start)) => start.start_ns,
            Ok(None) | Err(_) => std::process::exit(1),
        }
    });
    match started {
        Ok(report) => say(&FromDriver::Done { report })?,
        Err(error) => say(&FromDriver::Failed {
            message: error.to_string(),
        })?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The next message; `None` when nobody will send one.
fn hear<M: serde::de::DeserializeOwned>() -> anyhow::Result<Option<M>> {
    let mut line = String::new();
    if std::io::stdin().lock().read_line(&mut line)? == 0 {
        return Ok(None);
    }
    serde_json::from_str(&line)
        .map(Some)
        .context("not a message for a load process")
}
