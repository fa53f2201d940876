//! The regression gate: a candidate build against a baseline build, in one experiment.
//!
//! - [`engine`] runs a gate from its [`options`] to its exports; [`builds`] are the two executables;
//! - [`measure`] runs the blocks, [`rule`] judges them: arithmetic only, so that its error rates can be
//!   simulated;
//! - [`report`] is the result, [`export`] writes it in the formats of other tools.
//!
//! `docs/gate.md` describes the rule and its measured error rates.

pub mod builds;
pub mod engine;
pub mod export;
pub mod measure;
pub mod options;
pub mod report;
pub mod rule;

pub use measure::{Gate, Observer, WrongReplies};
pub use report::GateReport;
