//! Record of a run: `run.json`.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::column::{EffortName, RunStatus};
use crate::host::environment::Environment;
use crate::scenario::{Effort, Scenario};

/// The record of a run: its plan, its state, and the machine and build it ran on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunRecord {
    /// Version of the columns.
    pub schema_version: u32,
    /// The form of its scenarios: `quick` or `full`.
    pub effort: EffortName,
    /// Seed of the orders of the arms and of the clients' traffic.
    pub seed: u64,
    /// `running`, `complete`, or the reason why it ended early.
    pub status: RunStatus,
    /// Times at which it was resumed after an interruption, in RFC 3339, UTC.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resumed: Vec<String>,
    /// The machine and the build.
    pub environment: Environment,
    /// The scenarios as they were run, by name, in the order of the tables.
    pub scenarios: IndexMap<String, Scenario>,
}

impl RunRecord {
    /// The effort of one of its scenarios.
    #[must_use]
    pub fn effort_of(&self, scenario: &Scenario) -> Effort {
        match self.effort {
            EffortName::Quick => scenario.quick,
            EffortName::Full => scenario.full,
        }
    }
}
