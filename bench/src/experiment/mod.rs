//! One block of an experiment: from a condition to its rows.

pub mod block;
pub mod condition;
pub mod host_check;
pub mod hosts;
mod hosts_file;
pub mod observation;
pub mod order;
pub(crate) mod schedule;
mod shares;
