//! The host of an experiment: process trees, the machine, CPUs, signals, and the environment record.

pub mod cpus;
pub mod environment;
pub mod machine;
pub mod process_tree;
pub mod signals;
