//! What it takes to hold thousands of connections, where there are too few points for a bill.

use super::Report;
use super::bill::{self, METRICS};
use crate::text::{self, or_unknown};

/// From so many connections on, holding them is the point of a scenario.
const MANY: u32 = 5000;

impl Report<'_> {
    /// For each arm with thousands of connections, how fast they came, and what each takes.
    pub(super) fn held_table(&self) -> Option<String> {
        let many = |line: &super::Line<'_>| line.first().clients >= MANY;
        if self.bill_table().is_some() || !self.lines.iter().any(many) {
            return None;
        }
        let mut names = vec!["model", "connected"];
        names.extend(&bill::NAMES[1..6]);
        let table = self.sectioned(&names, &[0], many, |line| {
            let parts = METRICS.map(|metric| line.estimate(metric));
            let known: Vec<f64> = parts.iter().flatten().copied().collect();
            let sum = (!known.is_empty()).then(|| known.iter().sum());
            let mut cells = vec![
                line.first().model.clone(),
                or_unknown(line.estimate("connected_per_second"), text::rate),
            ];
            cells.extend(parts.map(|bytes| or_unknown(bytes, text::bytes)));
            cells.push(or_unknown(sum, text::bytes));
            cells
        });
        Some(format!(
            "Connections: opened in a second, and what each of them takes while all are open; buffers of data \
             under way come on top.\n\n{table}"
        ))
    }
}
