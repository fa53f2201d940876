//! The host of an experiment: process trees, the machine, CPUs, signals, standard streams, result files,
//! and the environment record.

pub mod cpus;
pub mod environment;
pub mod files;
pub mod machine;
pub mod output;
pub mod process_tree;
pub mod signals;
pub mod threads;
pub mod time;
