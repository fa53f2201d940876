//! Tables for people: the same text after a run, from a committed folder, and in the README.

use crate::render::grid::{Cell, Grid, Row};
use crate::render::units::{self, UNKNOWN, or_unknown, plural, to_count};
use crate::render::{Part, Style};
use crate::results::summary::ALPHA;
use crate::results::{BlockRow, SummaryRow};
use crate::scenario::Placement;
use crate::stats::Verdict;

use super::sweep::Objective;

/// Below this, a fairness table is shown: as if half of the clients got nothing.
const UNFAIR: f64 = 0.5;

/// The tables of each scenario of a run.
#[must_use]
pub fn tables(
    summary: &[SummaryRow],
    blocks: &[BlockRow],
    style: Style,
    objective: Objective,
) -> String {
    let text = |report: Report<'_>| {
        let mut texts = vec![match style {
            Style::Markdown => format!("**{}**", report.name),
            Style::Plain | Style::Terminal(_) => report.name.to_owned(),
        }];
        texts.extend(report.parts(objective).iter().map(|part| part.text(style)));
        texts.join("\n\n") + "\n"
    };
    let texts: Vec<String> = Report::of(summary, blocks).into_iter().map(text).collect();
    texts.join("\n")
}

/// All metrics of one arm in one section.
pub(crate) struct Line<'a> {
    rows: Vec<&'a SummaryRow>,
}

impl<'a> Line<'a> {
    fn of(rows: &[&'a SummaryRow]) -> Vec<Self> {
        let mut lines: Vec<Line<'a>> = Vec::new();
        for row in rows {
            let same = |line: &&mut Line<'_>| {
                same_section(line.rows[0], row) && line.rows[0].model == row.model
            };
            match lines.iter_mut().find(same) {
                Some(line) => line.rows.push(row),
                None => lines.push(Line { rows: vec![row] }),
            }
        }
        lines
    }

    pub(crate) fn first(&self) -> &'a SummaryRow {
        self.rows[0]
    }

    pub(crate) fn metric(&self, name: &str) -> Option<&'a SummaryRow> {
        self.rows.iter().find(|row| row.metric == name).copied()
    }

    pub(crate) fn estimate(&self, name: &str) -> Option<f64> {
        self.metric(name)?.estimate
    }

    /// A cell with the estimate of a metric.
    pub(super) fn cell(&self, metric: &'static str, show: impl FnOnce(f64) -> String) -> Cell {
        let value = self.estimate(metric);
        Cell {
            text: or_unknown(value, show),
            source: value.map(|value| (metric, value)),
        }
    }

    pub(super) fn time(&self, metric: &'static str) -> Cell {
        self.cell(metric, units::duration)
    }

    pub(super) fn count(&self, name: &str) -> u64 {
        self.estimate(name).map_or(0, to_count)
    }

    pub(crate) fn starved(&self) -> u64 {
        self.count("clients_never_served")
    }

    pub(crate) fn errors(&self) -> String {
        if self.estimate("throughput_per_second").is_none() {
            return "FAILED".to_owned();
        }
        let (failed, unsent) = (self.count("failed_requests"), self.count("unsent_requests"));
        if self.starved() > 0 {
            let clients = u64::from(self.first().clients);
            return format!(
                "{} of {} STARVE",
                units::count(self.starved()),
                units::count(clients)
            );
        }
        match (failed, unsent) {
            (failed, 0) => units::count(failed),
            (0, unsent) => format!("{} unsent", units::count(unsent)),
            (failed, unsent) => {
                format!("{}, {} unsent", units::count(failed), units::count(unsent))
            }
        }
    }

    pub(crate) fn ratio(&self) -> String {
        let Some(row) = self.metric("throughput_per_second") else {
            return UNKNOWN.to_owned();
        };
        match (row.reference.is_some(), row.estimate, row.ratio) {
            (false, Some(_), _) => "1 (reference)".to_owned(),
            (true, _, Some(ratio)) => {
                let ends = row.ratio_low.zip(row.ratio_high);
                // The ratio may not look as if it lay outside of its interval.
                let digits = ends.map_or(2, |(low, high)| digits(low).max(digits(high)));
                let interval = ends.map_or_else(String::new, |(low, high)| {
                    format!(" [{low:.digits$}, {high:.digits$}]")
                });
                let mark = match row.verdict {
                    Some(Verdict::Higher | Verdict::Lower) => "",
                    Some(Verdict::Unresolved) => " ~",
                    Some(Verdict::TooFewBlocks) | None => " ?",
                };
                format!("{ratio:.digits$}{interval}{mark}")
            }
            _ => UNKNOWN.to_owned(),
        }
    }

    /// Whether the throughput is resolved to be above the reference's, or below it.
    fn ranking(&self) -> Option<bool> {
        match self.metric("throughput_per_second")?.verdict? {
            Verdict::Higher => Some(true),
            Verdict::Lower => Some(false),
            Verdict::Unresolved | Verdict::TooFewBlocks => None,
        }
    }
}

fn same_section(a: &SummaryRow, b: &SummaryRow) -> bool {
    a.condition() == b.condition()
}

/// A ratio, with as many digits as it takes to tell it from 1.
pub(crate) fn bound(ratio: f64) -> String {
    format!("{ratio:.*}", digits(ratio))
}

/// So many digits after the point tell a ratio from 1.
fn digits(ratio: f64) -> usize {
    let tells = |digits: &usize| format!("{ratio:.digits$}") != format!("{:.digits$}", 1.0);
    [2, 3].into_iter().find(tells).unwrap_or(4)
}

/// One scenario.
pub(crate) struct Report<'a> {
    /// Its name.
    pub(crate) name: &'a str,
    /// Its arms, section by section.
    pub(crate) lines: Vec<Line<'a>>,
    /// Its blocks.
    pub(crate) blocks: Vec<&'a BlockRow>,
}

impl<'a> Report<'a> {
    /// The scenarios of a run.
    pub(crate) fn of(summary: &'a [SummaryRow], blocks: &'a [BlockRow]) -> Vec<Self> {
        let mut names: Vec<&str> = Vec::new();
        for row in summary {
            if !names.contains(&row.scenario.as_str()) {
                names.push(&row.scenario);
            }
        }
        let report = |name| {
            let rows: Vec<_> = summary.iter().filter(|row| row.scenario == name).collect();
            Report {
                name,
                lines: Line::of(&rows),
                blocks: blocks.iter().filter(|row| row.scenario == name).collect(),
            }
        };
        names.into_iter().map(report).collect()
    }
}

impl Report<'_> {
    /// The tables and what must be known to read them.
    pub(crate) fn parts(&self, objective: Objective) -> Vec<Part> {
        let mut parts = vec![Part::Table(self.main_table()), Part::Lines(self.notes())];
        parts.extend(self.fairness_table());
        parts.extend(self.sweep_tables(objective));
        parts.extend(self.bill_table());
        parts.extend(self.held_table());
        parts
    }

    fn main_table(&self) -> Grid {
        let reference = self
            .lines
            .iter()
            .find_map(|line| line.first().reference.as_deref());
        let reference = reference.unwrap_or(&self.lines[0].first().model);
        let ratio = format!("throughput ÷ {reference}");
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
        let closed = |line: &Line<'_>| line.first().load_percent.is_none();
        let grid = self.sectioned(&names, &[0, 6, 7], closed, |line| {
            vec![
                line.first().model.as_str().into(),
                line.cell("throughput_per_second", units::rate),
                line.time("latency_p50_ns"),
                line.time("latency_p99_ns"),
                line.time("cpu_ns_per_request"),
                line.cell("memory_bytes_per_connection", units::bytes),
                self.errors(line).into(),
                line.ratio().into(),
            ]
        });
        Grid {
            spare: &["mem/conn", "CPU/req", "p50", "p99"],
            bar: Some("throughput_per_second"),
            ..grid
        }
    }

    /// Whether an arm left clients without a reply, or gave them very unequal shares.
    pub(crate) fn unfair(line: &Line<'_>) -> bool {
        let jain = line.estimate("jain_index");
        line.starved() > 0 || jain.is_some_and(|jain| jain < UNFAIR)
    }

    fn errors(&self, line: &Line<'_>) -> String {
        let of_line = |row: &&&BlockRow| {
            row.model == line.first().model && row.condition() == line.first().condition()
        };
        let mut rows = self.blocks.iter().filter(of_line);
        if rows.any(|row| row.skipped().is_some()) {
            return "skipped".to_owned();
        }
        line.errors()
    }

    /// How clients were served, in the sections in which an arm was unfair.
    fn fairness_table(&self) -> Vec<Part> {
        let sections: Vec<_> = self
            .lines
            .iter()
            .filter(|line| Self::unfair(line))
            .map(|line| line.first().condition())
            .collect();
        if sections.is_empty() {
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
        let shown = |line: &Line<'_>| sections.contains(&line.first().condition());
        let grid = self.sectioned(&names, &[0], shown, |line| {
            let requests = |name| line.cell(name, |n| units::count(to_count(n)));
            vec![
                line.first().model.as_str().into(),
                units::count(line.starved()).into(),
                requests("client_least_requests"),
                requests("client_most_requests"),
                line.cell("jain_index", |jain| format!("{jain:.2}")),
                line.time("first_reply_max_ns"),
            ]
        });
        let intro = "Fairness: requests of the least and the most served client in a block, Jain's index (1: equal \
                     shares), and the longest wait for a first reply.";
        vec![Part::Lines(vec![intro.to_owned()]), Part::Table(grid)]
    }

    /// A table with the columns that name a section in front, and a gap between sections.
    pub(super) fn sectioned(
        &self,
        names: &[&str],
        left: &[usize],
        shown: impl Fn(&Line<'_>) -> bool,
        cells: impl Fn(&Line<'_>) -> Vec<Cell>,
    ) -> Grid {
        let placed = self
            .lines
            .iter()
            .any(|line| line.first().placement != self.lines[0].first().placement);
        let mut header = vec!["clients".to_owned(), "driver".to_owned()];
        if placed {
            header.push("placement".to_owned());
        }
        let before = header.len();
        header.extend(names.iter().map(|&name| name.to_owned()));
        let row = |line: &Line<'_>| {
            let first = line.first();
            let (clients, driver) = (first.clients.to_string(), first.driver.to_string());
            let mut section = format!("{clients} {driver}");
            let mut row: Vec<Cell> = vec![clients.into(), driver.into()];
            if placed {
                section = format!("{section}, placement {}", first.placement);
                row.push(first.placement.to_string().into());
            }
            if let Some(percent) = first.load_percent {
                section = format!("{section}, {percent} % of peak");
            }
            row.extend(cells(line));
            Row {
                arm: first.condition().tag(&first.model),
                section,
                cells: row,
            }
        };
        Grid {
            rows: self
                .lines
                .iter()
                .filter(|line| shown(line))
                .map(row)
                .collect(),
            left: (1..before)
                .chain(left.iter().map(|index| before + index))
                .collect(),
            section_columns: before,
            header,
            ..Grid::default()
        }
    }

    /// What a reader must know to read the table rightly.
    fn notes(&self) -> Vec<String> {
        let count = self.blocks.iter().map(|row| row.block).max().unwrap_or(0);
        let mut notes = vec![format!(
            "Medians of {}. Ratio: within blocks; its interval excludes 1 exactly where a sign test resolves \
             a difference, Holm-corrected to {:.0} % over the table.",
            plural(count as usize, "block"),
            ALPHA * 100.0
        )];
        let placements: Vec<Placement> = self
            .lines
            .iter()
            .map(|line| line.first().placement)
            .collect();
        if placements
            .iter()
            .all(|placement| *placement == placements[0])
        {
            notes.push(format!("Placement: {}.", placements[0]));
        }
        let ratios: Vec<String> = self.lines.iter().map(Line::ratio).collect();
        if ratios.iter().any(|ratio| ratio.ends_with('~')) {
            notes.push("~ no difference resolved: the interval covers 1.".to_owned());
        }
        if ratios.iter().any(|ratio| ratio.ends_with('?')) {
            notes.push("? too few blocks to resolve any difference.".to_owned());
        }
        if self.lines.iter().any(|line| line.starved() > 0) {
            notes.push(
                "STARVE: clients that were connected and never answered; throughput and latency are those of \
                 the others."
                    .to_owned(),
            );
        }
        notes.extend(self.flips());
        notes.extend(self.invalid());
        notes.extend(self.failures());
        notes
    }

    /// Arms that are above the reference with one placement and below it with another.
    fn flips(&self) -> Vec<String> {
        let mut flips = Vec::new();
        for (index, line) in self.lines.iter().enumerate() {
            for other in &self.lines[index + 1..] {
                let (a, b) = (line.first(), other.first());
                let same = (a.clients, a.driver, &a.model) == (b.clients, b.driver, &b.model);
                let ranked = line.ranking().zip(other.ranking());
                if same && ranked.is_some_and(|(a, b)| a != b) {
                    flips.push(format!(
                        "FLIP: {}, {} {}: {} with placement {}, {} with {}.",
                        a.model,
                        a.clients,
                        a.driver,
                        line.ratio(),
                        a.placement,
                        other.ratio(),
                        b.placement
                    ));
                }
            }
        }
        flips
    }

    /// Arms whose figures something limited or disturbed, and in how many blocks.
    fn invalid(&self) -> Vec<String> {
        let mut troubles: Vec<(String, usize)> = Vec::new();
        for row in self.blocks.iter().filter(|row| row.is_ok()) {
            for trouble in row
                .validity
                .split(';')
                .filter(|word| *word != BlockRow::VALID)
            {
                let arm = format!(
                    "{}, {} {}, {}",
                    row.model, row.clients, row.driver, row.placement
                );
                let text = match trouble {
                    "disturbed" => "the machine was disturbed".to_owned(),
                    "generator" => format!("the load generator was the limit for {arm}"),
                    "overran" => format!("replies came in another arm's slice for {arm}"),
                    "late" => format!("the load generator was late for {arm}"),
                    "ports" => format!("no local ports were left for {arm}"),
                    "files" => format!("no open files were left for {arm}"),
                    "refused" => format!("the server refused connections for {arm}"),
                    other => format!("{other}: {arm}"),
                };
                match troubles.iter_mut().find(|(known, _)| *known == text) {
                    Some((_, count)) => *count += 1,
                    None => troubles.push((text, 1)),
                }
            }
        }
        troubles
            .into_iter()
            .map(|(text, count)| {
                let of = if text.contains(" for ") {
                    "block"
                } else {
                    "row"
                };
                format!("NOT VALID: {text} in {}.", plural(count, of))
            })
            .collect()
    }

    fn failures(&self) -> Vec<String> {
        let mut failures: Vec<String> = Vec::new();
        for row in self.blocks.iter().filter(|row| !row.is_ok()) {
            let BlockRow {
                model,
                clients,
                driver,
                status,
                ..
            } = row;
            let failure = match row.skipped() {
                Some(reason) => format!("SKIPPED: {model}: {reason}"),
                None => format!("FAILED: {model}, {clients} {driver}: {status}"),
            };
            if !failures.contains(&failure) {
                failures.push(failure);
            }
        }
        failures
    }
}
