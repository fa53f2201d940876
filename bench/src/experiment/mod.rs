//! One block of an experiment: from a condition to its rows.

pub mod block;
pub mod condition;
pub mod host_check;
mod host_rows;
pub mod hosts;
mod hosts_file;
pub mod observation;
pub mod order;
mod reach;
pub(crate) mod schedule;
mod shares;
