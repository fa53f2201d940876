//! `echobench about`: description of this executable, for another build of it that is to drive it.

use std::process::ExitCode;

use crate::gate::builds::About;
use crate::outln;

pub(super) fn run() -> anyhow::Result<ExitCode> {
    outln!("{}", serde_json::to_string(&About::this_build())?);
    Ok(ExitCode::SUCCESS)
}
