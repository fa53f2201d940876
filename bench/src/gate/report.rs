//! Report of a gate: the verdict and the figures behind it.

use serde::Serialize;

use super::rule::{Finding, GateComparison, GateVerdict, InconclusiveReason};
use super::server::GateServer;

/// Result of a gate.
#[derive(Clone, Debug, Serialize)]
pub struct GateReport {
    /// Version of the fields; rises when one changes its name or meaning.
    pub schema_version: u32,
    /// The verdict.
    pub verdict: GateVerdict,
    /// The reason for an inconclusive one.
    pub reason: Option<InconclusiveReason>,
    /// Name of the scenario.
    pub scenario: String,
    /// The server that was compared with.
    pub baseline: GateServer,
    /// The server that was judged.
    pub candidate: GateServer,
    /// Blocks in the table.
    pub blocks: u32,
    /// Looks taken.
    pub looks: u32,
    /// The table.
    pub comparisons: Vec<GateComparison>,
    /// Blocks of the run that had to confirm a suspected regression; 0 if there was none.
    pub confirmation_blocks: u32,
    /// The table of that run.
    pub confirmation: Vec<GateComparison>,
}

impl GateReport {
    /// Whether the second run confirmed this line of the first one.
    #[must_use]
    pub fn is_confirmed(&self, line: &GateComparison) -> bool {
        self.confirmation.iter().any(|again| {
            again.finding == Finding::Slower
                && (&again.subject, again.metric) == (&line.subject, line.metric)
        })
    }
}
