//! Accuracy of the tool on this machine: servers with known delays and known stalls, the lag of its own
//! requests, the limit of its own throughput, and an arm against itself.

pub(crate) mod aa;
mod arithmetic;
pub(crate) mod checks;
mod report;
mod rig;
