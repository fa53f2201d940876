//! The host of an experiment: process trees, the machine and its CPUs, signals, threads, standard streams,
//! result files, and the environment record.

mod cpu_quota;
pub mod cpus;
pub mod environment;
pub mod files;
pub mod machine;
pub mod machine_key;
pub(crate) mod network;
pub mod output;
pub mod process_tree;
pub mod signals;
mod system_files;
pub(crate) mod threads;
pub mod time;
