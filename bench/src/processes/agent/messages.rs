//! Messages between a run and the agent of a host: one JSON message per line, over the standard input and
//! output of the launcher.
//!
//! ```text
//! run                              agent                       supervise, drive
//!  │ ◀────────────────────── Hello ─┤
//!  ├─ Describe ───────────────────▶ │
//!  │ ◀──────────────── Description ─┤
//!  ├─ Lease, Clock × 30 ──────────▶ │                          before each block
//!  ├─ Start, Pass ────────────────▶ ├─ starts, passes on ────▶ │
//!  │ ◀─────────────── Said, Ended ──┤ ◀────── its messages ────┤
//!  ├─ Watch ──────────────────────▶ │
//!  │ ◀──────────────────── Watched ─┤                          after the block
//!  ├─ Clock × 30, End ────────────▶ ┘
//! ```

use std::collections::BTreeMap;
use std::net::IpAddr;

use echobench_servers::MODELS;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::host::cpus::allowed_cpus;
use crate::host::environment::{Environment, executable_sha256, kernel_id};
use crate::host::machine::{MachineWatch, socket_bytes};
use crate::host::network::Network;

/// Requests of a run to an agent.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ToAgent {
    /// Read the clock. Answered at once by [`FromAgent::Clock`].
    Clock,
    /// Go on for so long, unless another lease is granted.
    Lease { seconds: u64 },
    /// Describe the host, whose servers listen on this address, or whose clients connect to it. Answered by
    /// [`FromAgent::Description`].
    Describe { server: IpAddr },
    /// Find a program. Answered by [`FromAgent::Missing`].
    Find { program: String },
    /// Start a process of this executable.
    Start { id: u32, arguments: Vec<String> },
    /// Pass a message to a process.
    Pass { id: u32, message: Box<RawValue> },
    /// Close the input of a process, and end it if it goes on.
    End { id: u32 },
    /// Watch the machine between two instants of its clock. Answered by [`FromAgent::Watched`].
    Watch { start_ns: u64, end_ns: u64 },
}

/// Messages of an agent to its run.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FromAgent {
    /// The agent has started. All before it is output of login shells.
    Hello(Hello),
    /// A reading of the clock, with the instant at which the request arrived.
    Clock { received_ns: u64, sent_ns: u64 },
    /// The host.
    Description(Box<Description>),
    /// The reason for skipping what needs a program, if there is one.
    Missing(Option<String>),
    /// A message of a process.
    Said { id: u32, message: Box<RawValue> },
    /// A process has ended.
    Ended { id: u32 },
    /// A process could not be started.
    Refused { id: u32, reason: String },
    /// Figures of the machine over a block.
    Watched(Box<MachineWatch>),
}

/// Build of an agent: the only message that every build has to understand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// Version of echobench.
    pub(crate) version: String,
    /// SHA-256 of the executable, in hexadecimal.
    pub(crate) executable_sha256: Option<String>,
    /// Architecture of the processor.
    pub(crate) architecture: String,
}

impl Hello {
    pub(crate) fn of_this_executable() -> Self {
        Hello {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            executable_sha256: executable_sha256(),
            architecture: std::env::consts::ARCH.to_owned(),
        }
    }
}

/// A host, as far as an experiment has to know it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Description {
    pub(crate) environment: Environment,
    /// Id of the running kernel: hosts with the same id share CPUs and readings of the machine.
    pub(crate) kernel_id: Option<String>,
    /// CPUs on which processes may run.
    pub(crate) cpus: Vec<usize>,
    /// Kernel memory of a connection's end.
    pub(crate) socket_bytes: Option<u64>,
    /// The network towards the server's address.
    pub(crate) network: Network,
    /// Models that the host cannot serve, with the reason.
    pub(crate) unavailable: BTreeMap<String, String>,
}

impl Description {
    /// The host that this process runs on, in a run with its server at this address.
    pub(crate) fn capture(server: IpAddr) -> Self {
        let reasons = MODELS.iter().filter_map(|model| {
            let reason = model.unavailable()?;
            Some((model.name.to_owned(), reason))
        });
        Description {
            environment: Environment::capture(),
            kernel_id: kernel_id(),
            cpus: allowed_cpus().unwrap_or_default(),
            socket_bytes: socket_bytes(),
            network: Network::towards(server),
            unavailable: reasons.collect(),
        }
    }
}
