//! The protocol between the processes of an experiment: one JSON message per line, over standard
//! input and output, so that a process may as well run on another host.
//!
//! A block of an experiment has two processes per arm, beside the server itself:
//!
//! ```text
//! experiment                     supervise                   drive
//!     │                              │ starts the server       │
//!     │ ◀──────────────────── Ready ─┤                         │
//!     ├─ Plan ─────────────────────────────────────────────▶   │ connects
//!     │ ◀───────────────────────────────────────────── Ready ──┤
//!     ├─ Settle ──────────────────▶  │                         │
//!     │ ◀────────────────── Settled ─┤                         │
//!     ├─ Watch ───────────────────▶  │                         │
//!     ├─ Start ────────────────────────────────────────────▶   │ runs the plan
//!     │ ◀────────────────── Watched ─┤                         │
//!     │ ◀────────────────────────────────────────────── Done ──┤
//!     ├─ Stop ────────────────────▶  │ ends the server         │
//!     │ ◀─────────────────── Exited ─┘                         ┘
//! ```
//!
//! All instants are on the monotonic clock of the host, in nanoseconds. The end of its standard input
//! tells a process that the experiment is gone.

use std::io::{self, BufRead as _, Write as _};

use anyhow::Context as _;
use echobench_clients::LoadReport;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::host::process_tree::{CpuTime, Memory};

/// Requests of an experiment to a supervisor.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToSupervisor {
    /// Wait until the server has taken in all connections, then read its context switches for the first time.
    /// Answered by [`FromSupervisor::Settled`].
    Settle,
    /// Read the CPU time of the server's process tree at each of these instants, then its memory.
    /// Answered by [`FromSupervisor::Watched`].
    Watch {
        /// Instants of the readings of CPU time, in ascending order.
        cpu_at_ns: Vec<u64>,
        /// Instant of the reading of memory, after all others.
        memory_at_ns: u64,
        /// Instant at which the connections close, which ends the state that memory is read in.
        memory_until_ns: u64,
    },
    /// Ask the server to drain and exit. Answered by [`FromSupervisor::Exited`].
    Stop,
}

/// Messages of a supervisor to its experiment.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromSupervisor {
    /// The server accepts connections.
    Ready {
        /// Address of its listener.
        address: String,
        /// Its memory before the first connection.
        memory: Option<Memory>,
    },
    /// The server uses no CPU time any more, or went on for the longest time that is waited for.
    Settled,
    /// All readings of a [`ToSupervisor::Watch`].
    Watched {
        /// One reading for each instant; `None` where the server could not be read.
        cpu: Vec<Option<CpuTime>>,
        /// The memory.
        memory: Option<Memory>,
        /// Context switches of the server's threads between the rest before the start and the last reading of
        /// CPU time; of those threads and processes that existed all the time.
        context_switches: Option<u64>,
        /// Whether memory was read before the connections closed.
        in_time: bool,
    },
    /// The server has ended, on request or by itself.
    Exited {
        /// Whether it was asked to end, and ended with exit code 0.
        clean: bool,
        /// The way it ended, in words.
        status: String,
        /// CPU time of the server and of all its reaped descendants over their whole life.
        cpu_ns: u64,
        /// The server's last line of counters.
        counters: Option<String>,
    },
}

/// Messages of a load process to its experiment.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromDriver {
    /// All clients are connected, or have failed to connect.
    Ready,
    /// The plan has been carried out.
    Done {
        /// Its results.
        report: LoadReport,
        /// Time by which it was told the start too late; 0 if it was in time.
        late_ns: u64,
    },
    /// The plan could not be carried out.
    Failed {
        /// The reason.
        message: String,
    },
}

/// The start signal to a load process.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Start {
    /// Instant at which the first window starts.
    pub start_ns: u64,
}

/// Sends one message to the experiment.
pub fn send(message: &impl Serialize) -> anyhow::Result<()> {
    let mut output = io::stdout().lock();
    output.write_all(line_of(message)?.as_bytes())?;
    output.flush().context("the experiment does not listen")
}

/// Receives the next message from the experiment; `None` at the end of standard input.
pub(super) fn receive<M: DeserializeOwned>() -> anyhow::Result<Option<M>> {
    let mut line = String::new();
    if io::stdin().lock().read_line(&mut line)? == 0 {
        return Ok(None);
    }
    serde_json::from_str(&line)
        .map(Some)
        .context("not a message for this process")
}

/// A message as one line of JSON.
pub(super) fn line_of(message: &impl Serialize) -> anyhow::Result<String> {
    let mut line = serde_json::to_string(message)?;
    line.push('\n');
    Ok(line)
}
