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
    /// The other hosts, first that of the servers; none if servers and clients were on this machine.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<HostRecord>,
    /// The scenarios as they were run, by name, in the order of the tables.
    pub scenarios: IndexMap<String, Scenario>,
}

/// A host of servers or clients. Its name is not recorded.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HostRecord {
    /// Its duty: `server host`, `load host`, or `load host 2` among several.
    pub role: String,
    /// The machine and its build.
    pub environment: Environment,
    /// Driver of the network card towards the other side; `loopback`, or `virtual` without a device.
    pub network_card: Option<String>,
    /// Largest packet of that card.
    pub mtu_bytes: Option<u64>,
    /// Congestion control of TCP connections, such as `cubic`.
    pub congestion_control: Option<String>,
    /// Of a load host: shortest of twenty round trips of a request before the first block.
    pub network_rtt_ns: Option<u64>,
}

impl RunRecord {
    /// The effort of one of its scenarios.
    #[must_use]
    pub fn effort_of(&self, scenario: &Scenario) -> Effort {
        scenario.effort(self.effort == EffortName::Full)
    }
}
