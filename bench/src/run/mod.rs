//! The study behind `echobench run`: server models under scenarios, measured, tabulated, judged and drawn.

mod capacity;
mod charts;
mod committed;
pub mod compare;
pub(crate) mod compare_page;
mod dependence;
pub mod engine;
pub mod history;
mod host_notes;
mod machines;
mod memory;
mod notes;
pub mod options;
pub(crate) mod page;
mod plan;
mod progress;
mod resolution;
mod scenario_report;
mod slo;
pub mod stored;
pub mod sweep;
pub mod tables;
pub mod traffic;
mod verdict;
mod winner_map;
mod workers;
mod workload;
