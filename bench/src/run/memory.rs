//! The bill per connection: what one more of them costs in memory, and in what kind.

use super::tables::Report;
use crate::render::Part;
use crate::render::grid::{Cell, Grid, Row};
use crate::render::units::{self, or_unknown};
use crate::stats;

/// The bill per connection is a line through at least so many numbers of connections …
const BILL_POINTS: usize = 3;
/// … of which the largest is at least this.
const BILL_CONNECTIONS: u32 = 500;

pub(super) const METRICS: [&str; 4] = [
    "memory_bytes_per_connection",
    "kernel_stack_bytes_per_connection",
    "page_table_bytes_per_connection",
    "socket_bytes_per_connection",
];
pub(super) const NAMES: [&str; 7] = [
    "model",
    "memory",
    "kernel stack",
    "page tables",
    "socket",
    "sum",
    "R² of memory",
];

impl Report<'_> {
    /// Memory against connections, as a line: its slope is what one connection costs.
    pub(super) fn bill_table(&self) -> Vec<Part> {
        let mut counts: Vec<u32> = self.lines.iter().map(|line| line.first().clients).collect();
        counts.sort_unstable();
        counts.dedup();
        if counts.len() < BILL_POINTS || counts.last().is_none_or(|most| *most < BILL_CONNECTIONS) {
            return Vec::new();
        }
        let mut models: Vec<&str> = Vec::new();
        for line in &self.lines {
            let model = line.first().model.as_str();
            if !models.contains(&model) {
                models.push(model);
            }
        }
        let intro = format!(
            "The bill for one more connection, by least squares over {} to {} connections; buffers of data \
             under way come on top.",
            counts[0],
            counts[counts.len() - 1],
        );
        let grid = Grid {
            header: NAMES.map(str::to_owned).into(),
            left: vec![0],
            spare: &["R² of memory", "page tables", "kernel stack", "socket"],
            rows: models.into_iter().map(|model| self.bill(model)).collect(),
            ..Grid::default()
        };
        vec![Part::Lines(vec![intro]), Part::Table(grid)]
    }

    fn bill(&self, model: &str) -> Row {
        let lines = METRICS.map(|metric| self.fit(model, metric));
        let bytes =
            |line: &Option<stats::Line>| or_unknown(line.as_ref(), |line| units::bytes(line.slope));
        // Socket structures are known to root alone; without them the sum is that of the others.
        let known: Vec<f64> = lines.iter().flatten().map(|line| line.slope).collect();
        let sum = lines[0].map(|_| known.iter().sum());
        let mut cells: Vec<Cell> = vec![model.into()];
        cells.extend(lines.iter().map(|line| bytes(line).into()));
        cells.push(or_unknown(sum, units::bytes).into());
        cells.push(or_unknown(lines[0], |line| format!("{:.4}", line.r_squared)).into());
        Row {
            arm: String::new(),
            section: String::new(),
            cells,
        }
    }

    /// The sum of a metric over all connections, against their number.
    fn fit(&self, model: &str, metric: &str) -> Option<stats::Line> {
        let own = self.lines.iter().filter(|line| line.first().model == model);
        let points: Vec<(f64, f64)> = own
            .filter_map(|line| {
                let clients = f64::from(line.first().clients);
                Some((clients, line.estimate(metric)? * clients))
            })
            .collect();
        stats::fit_line(&points).filter(|_| points.len() >= BILL_POINTS)
    }
}
