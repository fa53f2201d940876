//! Tables of a run: the same text after a run, from a committed folder, and in documents.

use super::scenario_report::{ArmLine, Load, ScenarioReport, THROUGHPUT};
use crate::host::environment::Environment;
use crate::render::grid::{Cell, Grid};
use crate::render::units::{self, UNKNOWN, to_count};
use crate::render::{Part, Style};
use crate::results::{BlockRow, Metric, SummaryRow};
use crate::scenario::Views;

/// Jain's index below which the fairness table is shown; 0.5 is that of half the clients unserved.
const UNFAIR: f64 = 0.5;

/// The tables of each scenario of a run, with their notes.
#[must_use]
pub fn tables(summary: &[SummaryRow], blocks: &[BlockRow], style: Style, views: &Views) -> String {
    let text = |report: ScenarioReport<'_>| {
        let mut texts = vec![match style {
            Style::Markdown => format!("**{}**", report.name),
            Style::Plain | Style::Terminal(_) => report.name.to_owned(),
        }];
        texts.extend(report.parts().iter().map(|part| part.text(style)));
        texts.join("\n\n") + "\n"
    };
    let reports = ScenarioReport::each(summary, blocks, views);
    let in_short: Vec<String> = reports
        .iter()
        .map(|report| report.in_short().join("\n"))
        .filter(|lines| !lines.is_empty())
        .collect();

    let mut texts: Vec<String> = reports.into_iter().map(text).collect();
    if !in_short.is_empty() {
        let heading = match style {
            Style::Markdown => "**In short**",
            Style::Plain | Style::Terminal(_) => "In short",
        };
        texts.push(format!("{heading}\n\n{}\n", in_short.join("\n\n")));
    }
    texts.join("\n")
}

/// Notes below the tables of a run on its environment: the state of idle CPUs, and limits on CPU time.
pub(super) fn environment_notes(environment: &Environment) -> String {
    let mut notes = Vec::new();
    if environment.awake {
        notes.push("Idle CPUs were kept awake.".to_owned());
    }
    if let Some(allowed) = environment.machine.allowed_cpus {
        let all = environment.machine.logical_cpus;
        notes.push(format!("The run could use {allowed} of {all} CPUs."));
    }
    if let Some(quota) = environment.machine.quota() {
        notes.push(format!("The run had a CPU quota of {quota}."));
    }
    if let Some(throttled_ns) = environment.throttled_ns().filter(|&ns| ns > 0) {
        notes.push(format!(
            "THROTTLED: by its CPU quota for {}; blocks in which that happened count as disturbed.",
            units::duration(throttled_ns as f64)
        ));
    }

    match notes.join("\n") {
        text if text.is_empty() => text,
        text => format!("\n{text}\n"),
    }
}

impl ScenarioReport<'_> {
    /// All tables and notes.
    pub(super) fn parts(&self) -> Vec<Part> {
        let mut parts = Vec::new();
        // A run that was cut short may have neither.
        let grids = [self.main_table(), self.open_loop_table()];
        let grids = grids.into_iter().filter(|grid| !grid.rows.is_empty());
        parts.extend(grids.map(Part::Table));
        parts.push(Part::Lines(self.notes()));
        parts.extend(self.dependence_tables());
        parts.extend(self.fairness_table());
        parts.extend(self.worker_table());
        parts.extend(self.process_control_table());
        parts.extend(self.sweep_tables());
        parts.extend(self.capacity_tables());
        parts.extend(self.marginal_memory_table());
        parts.extend(self.held_connections_table());
        parts
    }

    fn main_table(&self) -> Grid {
        let ratio = format!("throughput ÷ {}", self.reference());
        let names = [
            "model",
            "throughput",
            "p50",
            "p99",
            "CPU/req",
            "mem/conn",
            "errors",
            ratio.as_str(),
        ];

        let closed = |line: &ArmLine<'_>| line.load() == Load::Closed;
        let grid = self.by_condition(&names, &[0, 6, 7], closed, |line| {
            vec![
                line.model().into(),
                line.cell(THROUGHPUT, units::rate),
                line.time(Metric::LatencyP50),
                line.time(Metric::LatencyP99),
                line.time(Metric::CpuPerRequest),
                line.cell(Metric::MemoryPerConnection, units::bytes),
                self.errors(line).into(),
                line.ratio(THROUGHPUT).into(),
            ]
        });
        Grid {
            spare: &["mem/conn", "CPU/req", "p50", "p99"],
            bar: Some(THROUGHPUT.name()),
            ..grid
        }
    }

    /// The arms of open loops at a given rate: latency and cost, and whether the objective is kept.
    fn open_loop_table(&self) -> Grid {
        let compared = ["p50", "p99", "slice p99", "CPU/req"];
        let ratios = ["p99", "CPU/req"].map(|name| format!("{name} ÷ {}", self.reference()));
        let slo = self.slo.map(|slo| slo.to_string());
        let mut names = vec!["model", "rate"];
        names.extend(compared);
        names.extend(["mem/conn", "errors"]);
        names.extend(slo.as_deref());
        names.extend(ratios.iter().map(String::as_str));
        let text_columns: Vec<usize> = std::iter::once(0).chain(7..names.len()).collect();

        let open = |line: &ArmLine<'_>| line.load() == Load::Open;
        let grid = self.by_condition(&names, &text_columns, open, |line| {
            let mut cells = vec![
                line.model().into(),
                line.cell(Metric::PlannedRate, units::rate),
                line.time(Metric::LatencyP50),
                line.time(Metric::LatencyP99),
                line.time(Metric::SliceLatencyP99),
                line.time(Metric::CpuPerRequest),
                line.cell(Metric::MemoryPerConnection, units::bytes),
                self.errors(line).into(),
            ];
            let judgement = self.slo.map(|slo| {
                if self.is_skipped(line) {
                    UNKNOWN.to_owned()
                } else {
                    self.judge(slo, line).cell()
                }
            });
            cells.extend(judgement.map(Cell::from));
            let ratios = [Metric::LatencyP99, Metric::CpuPerRequest];
            cells.extend(ratios.map(|metric| line.ratio(metric).into()));
            cells
        });
        Grid {
            spare: &["mem/conn", "slice p99", "p50", "rate"],
            ..grid
        }
    }

    fn errors(&self, line: &ArmLine<'_>) -> String {
        if self.is_skipped(line) {
            return "skipped".to_owned();
        }
        line.errors()
    }

    /// Whether an arm left clients without a reply, or served them very unequally.
    pub(super) fn is_unfair(line: &ArmLine<'_>) -> bool {
        let jain = line.estimate(Metric::JainIndex);
        line.starved() > 0 || jain.is_some_and(|jain| jain < UNFAIR)
    }

    /// Service of the clients under the conditions in which an arm was unfair.
    fn fairness_table(&self) -> Vec<Part> {
        let unfair = self.conditions_of(Self::is_unfair);
        if unfair.is_empty() {
            return Vec::new();
        }

        let names = [
            "model",
            "never served",
            "least served",
            "most served",
            "Jain",
            "first reply",
        ];
        let shown = |line: &ArmLine<'_>| unfair.contains(&line.condition());
        let grid = self.by_condition(&names, &[0], shown, |line| {
            let requests = |name| line.cell(name, |n| units::count(to_count(n)));
            vec![
                line.model().into(),
                units::count(line.starved()).into(),
                requests(Metric::ClientLeastRequests),
                requests(Metric::ClientMostRequests),
                line.cell(Metric::JainIndex, |jain| format!("{jain:.2}")),
                line.time(Metric::FirstReplyMax),
            ]
        });

        let intro = "Fairness: requests of the least and the most served client in a block, Jain's index (1: equal \
                     shares), and the longest wait for a first reply.";
        vec![Part::Lines(vec![intro.to_owned()]), Part::Table(grid)]
    }
}
