//! Options of all commands that show the results of a run.

use clap::Args;

use crate::scenario::{Slo, View};

/// Choices with which results are read.
#[derive(Args)]
pub(super) struct ViewArgs {
    /// Objective of open loops, a percentile of latency and its limit [default: that of the run, or p99=1ms for a rate
    /// sweep]
    #[arg(long, alias = "objective", value_name = "pNN=TIME")]
    slo: Option<Slo>,

    /// Arm that ratios refer to [default: that of the run]
    #[arg(long, value_name = "ARM")]
    reference: Option<String>,
}

impl ViewArgs {
    pub(super) fn view(&self) -> View {
        View {
            slo: self.slo,
            reference: self.reference.clone(),
        }
    }
}
