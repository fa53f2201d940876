//! The experiment of echobench: servers and clients as processes, slices and blocks, statistics,
//! results and tables.
//!
//! `ARCHITECTURE.md` shows how the parts fit together.

pub mod agent;
pub mod arm;
pub mod claims;
pub mod commands;
pub mod drive;
pub mod environment;
pub mod experiment;
pub mod gate;
pub mod histograms;
pub mod history;
pub mod measure;
pub mod order;
pub mod probe;
pub mod processes;
pub mod report;
pub mod responder;
pub mod results;
pub mod rows;
pub mod scenario;
pub mod selfcheck;
pub mod stats;
pub mod summary;
pub mod supervise;
pub mod tables;
pub mod text;
pub mod verify;
