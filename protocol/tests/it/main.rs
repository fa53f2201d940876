//! Integration tests of the protocol, all in memory.

mod allocation;
mod endpoint;
mod golden;
mod session;
mod splits;
