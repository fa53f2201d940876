//! The processes that this executable re-executes as, the messages between them, and starting them.

pub mod child;
pub mod drive;
pub mod messages;
pub mod probe;
pub mod respond;
pub mod start;
pub mod supervise;

use std::net::SocketAddr;

/// The address in the line `ready ADDR`, which every server of this executable prints once it can be
/// connected to; `None` for any other line.
#[must_use]
pub fn ready_address(line: &str) -> Option<SocketAddr> {
    line.trim_end().strip_prefix("ready ")?.parse().ok()
}
