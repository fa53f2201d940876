//! The tool held against what is known: servers with known delays and known stalls, the lag of its
//! own requests, the limit of its own throughput, and an arm against itself.

pub mod aa;
pub mod arithmetic;
pub mod checks;
pub mod report;
pub mod rig;
