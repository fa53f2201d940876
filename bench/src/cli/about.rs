//! `echobench about`: description of this executable, for another build of it that is to drive it.

use std::process::ExitCode;

use crate::gate::builds::About;
use crate::processes::messages::send;

pub(super) fn run() -> anyhow::Result<ExitCode> {
    send(&About::this_build())?;
    Ok(ExitCode::SUCCESS)
}
