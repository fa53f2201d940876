//! Tables for people: the same text after a run, from a committed folder, and in the README.

use std::fmt::Write;

use comfy_table::{CellAlignment, Table, presets};

use crate::results::{BlockRow, SummaryRow};
use crate::stats::Verdict;
use crate::summary::ALPHA;
use crate::text::{self, UNKNOWN, or_unknown};

/// How a table is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// For a terminal.
    Plain,
    /// For a Markdown document.
    Markdown,
}

/// A table for each scenario of a run.
#[must_use]
pub fn tables(summary: &[SummaryRow], blocks: &[BlockRow], style: Style) -> String {
    let mut scenarios: Vec<&str> = Vec::new();
    for row in summary {
        if !scenarios.contains(&row.scenario.as_str()) {
            scenarios.push(&row.scenario);
        }
    }
    let tables: Vec<String> = scenarios
        .into_iter()
        .map(|scenario| {
            let rows: Vec<_> = summary
                .iter()
                .filter(|row| row.scenario == scenario)
                .collect();
            let blocks: Vec<_> = blocks
                .iter()
                .filter(|row| row.scenario == scenario)
                .collect();
            scenario_table(scenario, &rows, &blocks, style)
        })
        .collect();
    tables.join("\n")
}

/// All metrics of one arm in one section.
struct Line<'a> {
    rows: Vec<&'a SummaryRow>,
}

impl<'a> Line<'a> {
    fn of(rows: &[&'a SummaryRow]) -> Vec<Self> {
        let mut lines: Vec<Line<'a>> = Vec::new();
        for row in rows {
            match lines.iter_mut().find(|line| same_arm(line.rows[0], row)) {
                Some(line) => line.rows.push(row),
                None => lines.push(Line { rows: vec![row] }),
            }
        }
        lines
    }

    fn metric(&self, name: &str) -> Option<&'a SummaryRow> {
        self.rows.iter().find(|row| row.metric == name).copied()
    }

    fn estimate(&self, name: &str) -> Option<f64> {
        self.metric(name)?.estimate
    }

    fn time(&self, name: &str) -> String {
        or_unknown(self.estimate(name), text::duration)
    }

    fn errors(&self) -> String {
        let whole = |name| self.estimate(name).map_or(0, to_count);
        let (failed, starved) = (whole("failed_requests"), whole("clients_never_served"));
        match (failed, starved) {
            (0, 0) => "0".to_owned(),
            (failed, 0) => text::count(failed),
            (_, starved) => {
                format!(
                    "{} of {} starved",
                    text::count(starved),
                    self.rows[0].clients
                )
            }
        }
    }

    fn ratio(&self) -> String {
        let Some(row) = self.metric("throughput_per_second") else {
            return UNKNOWN.to_owned();
        };
        if row.reference.is_none() {
            return if row.estimate.is_some() {
                "1 (reference)".to_owned()
            } else {
                UNKNOWN.to_owned()
            };
        }
        let Some(ratio) = row.ratio else {
            return UNKNOWN.to_owned();
        };
        let interval = match (row.ratio_low, row.ratio_high) {
            (Some(low), Some(high)) => format!(" [{low:.2}, {high:.2}]"),
            _ => String::new(),
        };
        let mark = match row.verdict {
            Some(Verdict::Higher | Verdict::Lower) => "",
            Some(Verdict::Unresolved) => " ~",
            Some(Verdict::TooFewBlocks) | None => " ?",
        };
        format!("{ratio:.2}{interval}{mark}")
    }

    fn cells(&self) -> Vec<String> {
        let row = self.rows[0];
        vec![
            row.clients.to_string(),
            row.driver.to_string(),
            row.model.clone(),
            or_unknown(self.estimate("throughput_per_second"), text::rate),
            self.time("latency_p50_ns"),
            self.time("latency_p99_ns"),
            self.time("cpu_ns_per_request"),
            or_unknown(self.estimate("memory_bytes_per_connection"), text::bytes),
            self.errors(),
            self.ratio(),
        ]
    }
}

fn same_arm(a: &SummaryRow, b: &SummaryRow) -> bool {
    same_section(a, b) && a.model == b.model
}

fn same_section(a: &SummaryRow, b: &SummaryRow) -> bool {
    (a.clients, a.driver, a.placement) == (b.clients, b.driver, b.placement)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a count"
)]
fn to_count(value: f64) -> u64 {
    value.round() as u64
}

fn scenario_table(
    scenario: &str,
    rows: &[&SummaryRow],
    blocks: &[&BlockRow],
    style: Style,
) -> String {
    let lines = Line::of(rows);
    let reference = rows
        .iter()
        .find_map(|row| row.reference.as_deref())
        .unwrap_or(&rows[0].model);
    let mut table = Table::new();
    table.load_style(match style {
        Style::Plain => presets::NOTHING,
        Style::Markdown => presets::ASCII_MARKDOWN,
    });
    let names = [
        "clients",
        "driver",
        "model",
        "throughput",
        "p50",
        "p99",
        "CPU/req",
        "mem/conn",
        "errors",
    ];
    let mut header: Vec<String> = names.map(str::to_owned).to_vec();
    header.push(format!("throughput ÷ {reference}"));
    table.set_header(header);
    let mut last: Option<&SummaryRow> = None;
    for line in &lines {
        if style == Style::Plain && last.is_some_and(|last| !same_section(last, line.rows[0])) {
            table.add_row([""; 10]);
        }
        last = Some(line.rows[0]);
        table.add_row(line.cells());
    }
    for (index, column) in table.column_iter_mut().enumerate() {
        if ![1, 2, 8, 9].contains(&index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let drawn: Vec<String> = table
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect();
    let mut text = match style {
        Style::Plain => format!("{scenario}\n\n"),
        Style::Markdown => format!("**{scenario}**\n\n"),
    };
    writeln!(text, "{}\n", drawn.join("\n")).expect("writing to a string succeeds");
    text.push_str(&notes(&lines, rows, blocks));
    text
}

/// What a reader must know to read the table rightly.
fn notes(lines: &[Line<'_>], rows: &[&SummaryRow], blocks: &[&BlockRow]) -> String {
    let count = blocks.iter().map(|row| row.block).max().unwrap_or(0);
    let placement = rows[0].placement.name();
    let mut notes = vec![format!(
        "Medians of {count} blocks; placement {placement}. Ratio: within blocks, with sign-test interval, \
         Holm-corrected to {:.0} % over this table.",
        (1.0 - ALPHA) * 100.0
    )];
    let ratios: Vec<String> = lines.iter().map(Line::ratio).collect();
    if ratios.iter().any(|ratio| ratio.ends_with('~')) {
        notes.push("~ no difference resolved: the interval covers 1.".to_owned());
    }
    if ratios.iter().any(|ratio| ratio.ends_with('?')) {
        notes.push("? too few blocks to resolve any difference.".to_owned());
    }
    if lines.iter().any(|line| line.errors().ends_with("starved")) {
        notes.push(
            "starved: clients that were connected but never answered; the throughput is that of the others."
                .to_owned(),
        );
    }
    let mut failures: Vec<String> = Vec::new();
    for row in blocks.iter().filter(|row| !row.is_ok()) {
        let failure = format!(
            "FAILED: {}, {} {}: {}",
            row.model, row.clients, row.driver, row.status
        );
        if !failures.contains(&failure) {
            failures.push(failure);
        }
    }
    notes.extend(failures);
    notes.join("\n") + "\n"
}
