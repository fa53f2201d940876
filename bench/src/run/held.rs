//! What it takes to hold thousands of connections, where there are too few points for a bill.

use super::memory::{self, METRICS};
use super::tables::{Line, Report};
use crate::render::Part;
use crate::render::grid::{Cell, Grid};
use crate::render::units::{self, or_unknown};

/// From so many connections on, holding them is the point of a scenario.
const MANY: u32 = 5000;

impl Report<'_> {
    /// For each arm with thousands of connections, how fast they came, and what each takes.
    pub(super) fn held_table(&self) -> Vec<Part> {
        let many = |line: &Line<'_>| line.first().clients >= MANY;
        if !self.bill_table().is_empty() || !self.lines.iter().any(many) {
            return Vec::new();
        }
        let mut names = vec!["model", "connected"];
        names.extend(&memory::NAMES[1..6]);
        let grid = self.sectioned(&names, &[0], many, |line| {
            let parts = METRICS.map(|metric| line.estimate(metric));
            let known: Vec<f64> = parts.iter().flatten().copied().collect();
            let sum = (!known.is_empty()).then(|| known.iter().sum());
            let mut cells: Vec<Cell> = vec![
                line.first().model.as_str().into(),
                line.cell("connected_per_second", units::rate),
            ];
            cells.extend(METRICS.map(|metric| line.cell(metric, units::bytes)));
            cells.push(or_unknown(sum, units::bytes).into());
            cells
        });
        let intro = "Connections: opened in a second, and what each of them takes while all are open; buffers of data \
                     under way come on top.";
        vec![
            Part::Lines(vec![intro.to_owned()]),
            Part::Table(Grid {
                spare: &["page tables", "kernel stack", "socket"],
                ..grid
            }),
        ]
    }
}
