//! Memory per connection: the cost of one more connection as a slope, and of thousands held at once.

use super::scenario_report::{ArmLine, ScenarioReport};
use crate::render::Part;
use crate::render::grid::{Cell, Grid, Row};
use crate::render::units::{self, or_unknown};
use crate::results::Metric;
use crate::stats::{self, fit_line};

/// Numbers of connections that a slope needs at least …
const SLOPE_POINTS: usize = 3;
/// … and the least value of the largest of them.
const SLOPE_CONNECTIONS: u32 = 500;

/// Connections from which a scenario is about holding them.
const MANY_CONNECTIONS: u32 = 5000;

const METRICS: [Metric; 4] = [
    Metric::MemoryPerConnection,
    Metric::KernelStackPerConnection,
    Metric::PageTablePerConnection,
    Metric::SocketPerConnection,
];
const METRIC_NAMES: [&str; 5] = ["memory", "kernel stack", "page tables", "socket", "sum"];
const R_SQUARED: &str = "R² of memory";
const AT_REST: &str = "at rest";

impl ScenarioReport<'_> {
    /// Memory against connections, as a line: its slope is the cost of one more connection.
    pub(super) fn marginal_memory_table(&self) -> Vec<Part> {
        let mut counts: Vec<u32> = self.lines.iter().map(|line| line.first().clients).collect();
        counts.sort_unstable();
        counts.dedup();
        let most = counts.last().copied().unwrap_or(0);
        if counts.len() < SLOPE_POINTS || most < SLOPE_CONNECTIONS {
            return Vec::new();
        }

        let mut models: Vec<&str> = Vec::new();
        for line in &self.lines {
            if !models.contains(&line.model()) {
                models.push(line.model());
            }
        }

        let intro = format!(
            "The bill for one more connection, by least squares over {} to {most} connections, and the memory of \
             the server before the first; buffers of data under way come on top.",
            counts[0],
        );
        let names = [&["model"][..], &METRIC_NAMES, &[R_SQUARED, AT_REST]].concat();
        let grid = Grid {
            header: names.into_iter().map(str::to_owned).collect(),
            left: vec![0],
            spare: &[R_SQUARED, "page tables", "kernel stack", "socket"],
            rows: models
                .into_iter()
                .map(|model| self.marginal_memory(model))
                .collect(),
            ..Grid::default()
        };
        vec![Part::Lines(vec![intro]), Part::Table(grid)]
    }

    fn marginal_memory(&self, model: &str) -> Row {
        let fits = METRICS.map(|metric| self.fit(model, metric));
        // Only root can read the sizes of socket structures; without them the sum is that of the others.
        let known: Vec<f64> = fits.iter().flatten().map(|fit| fit.slope).collect();
        let sum = fits[0].map(|_| known.iter().sum());

        let slopes = fits.iter().map(|fit| fit.map(|fit| fit.slope));
        let mut cells: Vec<Cell> = vec![model.into()];
        cells.extend(slopes.map(|slope| or_unknown(slope, units::bytes).into()));
        cells.push(or_unknown(sum, units::bytes).into());
        cells.push(or_unknown(fits[0], |fit| format!("{:.4}", fit.r_squared)).into());
        // The same before any number of connections.
        let line = self.lines.iter().find(|line| line.model() == model);
        cells.extend(line.map(|line| line.cell(Metric::MemoryAtRest, units::bytes)));
        Row {
            arm: String::new(),
            section: String::new(),
            cells,
        }
    }

    /// Sum of a metric over all connections, against their number.
    fn fit(&self, model: &str, metric: Metric) -> Option<stats::Line> {
        let own = self.lines.iter().filter(|line| line.model() == model);
        let points: Vec<(f64, f64)> = own
            .filter_map(|line| {
                let clients = f64::from(line.first().clients);
                Some((clients, line.estimate(metric)? * clients))
            })
            .collect();
        fit_line(&points).filter(|_| points.len() >= SLOPE_POINTS)
    }

    /// Rate of connecting and memory of each arm with thousands of connections, where there are too few
    /// numbers of connections for a slope.
    pub(super) fn held_connections_table(&self) -> Vec<Part> {
        let many = |line: &ArmLine<'_>| line.first().clients >= MANY_CONNECTIONS;
        if !self.marginal_memory_table().is_empty() || !self.lines.iter().any(many) {
            return Vec::new();
        }

        let names = [&["model", "connected"][..], &METRIC_NAMES, &[AT_REST]].concat();
        let grid = self.by_condition(&names, &[0], many, |line| {
            let parts = METRICS.map(|metric| line.estimate(metric));
            let known: Vec<f64> = parts.iter().flatten().copied().collect();
            let sum = (!known.is_empty()).then(|| known.iter().sum());

            let mut cells: Vec<Cell> = vec![
                line.model().into(),
                line.cell(Metric::ConnectRate, units::rate),
            ];
            cells.extend(METRICS.map(|metric| line.cell(metric, units::bytes)));
            cells.push(or_unknown(sum, units::bytes).into());
            cells.push(line.cell(Metric::MemoryAtRest, units::bytes));
            cells
        });

        let intro = "Connections: opened in a second, and what each of them takes while all are open; buffers of data \
                     under way come on top. At rest: memory of the server before the first connection.";
        vec![
            Part::Lines(vec![intro.to_owned()]),
            Part::Table(Grid {
                spare: &["page tables", "kernel stack", "socket"],
                ..grid
            }),
        ]
    }
}
