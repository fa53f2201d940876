//! Servers of a gate: a build of echobench, which serves every model, or any other server by its command line.

use std::path::Path;

use serde::Serialize;

use super::builds::{Build, Copy};
use crate::scenario::arm::{Arm, External, PORT};

/// One side of a gate.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum GateServer {
    /// A build of echobench.
    Build(Build),
    /// A server of another project.
    External(External),
}

impl GateServer {
    /// Reads an argument: a command line has a placeholder for the port, anything else is the path of a build.
    /// `side` is `baseline` or `candidate`.
    pub fn open(side: &str, text: &str) -> anyhow::Result<Self> {
        if text.contains(PORT) {
            let external = text.parse::<External>();
            return external
                .map(GateServer::External)
                .map_err(|error| anyhow::anyhow!("the {side}: {error}"));
        }
        Build::open(side, Path::new(text)).map(GateServer::Build)
    }

    /// Text that tells it from other servers: version and revision of a build, or the command line.
    #[must_use]
    pub fn title(&self) -> String {
        match self {
            GateServer::Build(build) => build.title(),
            GateServer::External(external) => format!("`{}`", external.command),
        }
    }

    /// Its program for one arm.
    pub(super) fn program(&self) -> anyhow::Result<ArmProgram> {
        Ok(match self {
            GateServer::Build(build) => ArmProgram::Copy(build.copy()?),
            GateServer::External(external) => ArmProgram::External(external.clone()),
        })
    }
}

/// The program of one arm. Each arm of a build has a copy of its own. A command is run as it is: its program may
/// be a script, or look for other files beside itself.
pub(super) enum ArmProgram {
    Copy(Copy),
    External(External),
}

impl ArmProgram {
    /// The arm of this name. A build serves the model.
    pub(super) fn arm(&self, name: String, model: &str) -> anyhow::Result<Arm> {
        match self {
            ArmProgram::Copy(copy) => Ok(Arm::of_build(name, &copy.path(), model)),
            ArmProgram::External(external) => Arm::of_external(&External {
                name,
                ..external.clone()
            }),
        }
    }
}
