//! The study behind `echobench run`: server models under scenarios, measured, tabulated, judged and drawn.

pub(crate) mod charts;
mod held;
pub mod history;
mod memory;
pub(crate) mod page;
pub mod sweep;
pub mod tables;
pub(crate) mod verdict;
mod winner_map;
