//! `echobench about`: what this executable is, for another one that wants to drive it.

use std::process::ExitCode;

use crate::gate::builds::About;
use crate::processes::messages::send;

pub(super) fn run() -> anyhow::Result<ExitCode> {
    send(&About::this_build())?;
    Ok(ExitCode::SUCCESS)
}
