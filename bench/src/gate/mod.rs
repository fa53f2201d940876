//! The regression gate: a candidate against a baseline, in one experiment.
//!
//! - [`engine`] runs a gate from its [`options`] to its exports; [`server`] is one of its two sides, which is one of our
//!   [`builds`] or any other server;
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
pub mod server;

pub use measure::{Gate, Observer, WrongReplies};
pub use report::GateReport;
pub use server::GateServer;
