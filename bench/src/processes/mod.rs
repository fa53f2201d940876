//! The processes that this executable re-executes as, the messages between them, and starting them.
//!
//! | process | command | started by |
//! | --- | --- | --- |
//! | one server | `serve` | a supervisor, or a study that needs one server |
//! | the supervisor of a server | [`supervise`] | an experiment, once per arm and block |
//! | the clients of an arm | [`drive`] | the same, and studies that measure one server |
//! | the processes on another host | [`agent`] | a run, once per host, through a launcher |
//! | a responder that only echoes | [`respond`] | `selfcheck` |
//! | a probe of one primitive operation | [`probe`] | `claims` and `cargo bench` |
//!
//! [`messages`] is the protocol between an experiment and its processes, [`child`] the parent's side of it. A `Site` starts
//! them here or on another host.

pub mod agent;
pub mod child;
pub(crate) mod clock_match;
pub mod drive;
pub mod messages;
pub mod probe;
pub mod respond;
pub(crate) mod site;
pub mod start;
pub mod supervise;

use std::net::SocketAddr;

/// The address in the line `ready ADDR`, which every server of this executable prints once it accepts
/// connections; `None` for any other line.
#[must_use]
pub fn ready_address(line: &str) -> Option<SocketAddr> {
    line.trim_end().strip_prefix("ready ")?.parse().ok()
}
