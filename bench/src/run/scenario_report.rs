//! Summary rows of a scenario, one line per arm and condition, as tables and charts need them.

use std::collections::BTreeSet;

use super::slo::{SloJudgement, SloVerdict};
use crate::render::grid::{Cell, Grid, Row};
use crate::render::units::{self, UNKNOWN, or_unknown, to_count};
use crate::results::ordered::distinct;
use crate::results::{BlockRow, ConditionKey, Metric, SummaryRow};
use crate::scenario::{Slo, Views};
use crate::stats::RatioVerdict;

/// Metric that arms of a closed loop are ranked by.
pub(super) const THROUGHPUT: Metric = Metric::Throughput;
/// Metrics by which the arms of an open loop are compared, in which throughput is given.
const OPEN_LOOP_METRICS: &[Metric] = &[
    Metric::LatencyP99,
    Metric::LatencyP50,
    Metric::SliceLatencyP99,
    Metric::CpuPerRequest,
];

/// All metrics of one arm under one condition.
pub(crate) struct ArmLine<'a> {
    rows: Vec<&'a SummaryRow>,
    load: Load,
}

/// Kind of the load of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    /// The next request follows a reply: throughput is a result.
    Closed,
    /// Requests are due at a given rate: latency is the result.
    Open,
    /// An open loop at a share of each arm's own peak.
    Swept,
    /// A step of a search, with a rate for each arm.
    Step,
}

impl<'a> ArmLine<'a> {
    /// The lines of a scenario, of which the conditions in `open` have an open loop.
    fn group(rows: &[&'a SummaryRow], open: &BTreeSet<ConditionKey>) -> Vec<Self> {
        let load = |condition: &ConditionKey| match condition.load_percent {
            Some(_) => Load::Swept,
            None if condition.step.is_some() => Load::Step,
            None if open.contains(condition) => Load::Open,
            None => Load::Closed,
        };
        let mut lines: Vec<ArmLine<'a>> = Vec::new();
        for row in rows {
            let same = |line: &&mut ArmLine<'_>| {
                line.condition() == row.condition() && line.model() == row.model
            };
            match lines.iter_mut().find(same) {
                Some(line) => line.rows.push(row),
                None => lines.push(ArmLine {
                    rows: vec![row],
                    load: load(&row.condition()),
                }),
            }
        }
        lines
    }

    /// Any of the rows, for the columns that they share.
    pub(crate) fn first(&self) -> &'a SummaryRow {
        self.rows[0]
    }

    pub(crate) fn load(&self) -> Load {
        self.load
    }

    pub(crate) fn model(&self) -> &'a str {
        &self.first().model
    }

    pub(crate) fn condition(&self) -> ConditionKey {
        self.first().condition()
    }

    pub(crate) fn metric(&self, metric: Metric) -> Option<&'a SummaryRow> {
        self.rows.iter().find(|row| row.metric == metric).copied()
    }

    pub(crate) fn estimate(&self, metric: Metric) -> Option<f64> {
        self.metric(metric)?.estimate
    }

    /// A cell with the estimate of a metric.
    pub(super) fn cell(&self, metric: Metric, show: impl FnOnce(f64) -> String) -> Cell {
        let value = self.estimate(metric);
        Cell {
            text: or_unknown(value, show),
            source: value
                .filter(|value| value.is_finite())
                .map(|value| (metric.name(), value)),
        }
    }

    /// A cell with the estimate of a metric in nanoseconds.
    pub(super) fn time(&self, metric: Metric) -> Cell {
        self.cell(metric, units::duration)
    }

    fn count(&self, metric: Metric) -> u64 {
        self.estimate(metric).map_or(0, to_count)
    }

    /// Clients that were never answered.
    pub(crate) fn starved(&self) -> u64 {
        self.count(Metric::ClientsNeverServed)
    }

    /// Failed and unsent requests, starved clients, or the failure of the arm.
    pub(crate) fn errors(&self) -> String {
        if self.estimate(THROUGHPUT).is_none() {
            return "FAILED".to_owned();
        }
        if self.starved() > 0 {
            let clients = u64::from(self.first().clients);
            return format!(
                "{} of {} STARVE",
                units::count(self.starved()),
                units::count(clients)
            );
        }

        let (failed, unsent) = (
            self.count(Metric::FailedRequests),
            self.count(Metric::UnsentRequests),
        );
        match (failed, unsent) {
            (failed, 0) => units::count(failed),
            (0, unsent) => format!("{} unsent", units::count(unsent)),
            (failed, unsent) => {
                format!("{}, {} unsent", units::count(failed), units::count(unsent))
            }
        }
    }

    /// The metrics that arms are compared by, the first of which ranks them: throughput, or where it is given
    /// latency and cost.
    pub(super) fn compared_metrics(&self) -> &'static [Metric] {
        match self.load {
            Load::Closed => &[THROUGHPUT],
            Load::Open | Load::Swept | Load::Step => OPEN_LOOP_METRICS,
        }
    }

    /// A metric relative to the reference arm: ratio, interval, and a mark if it is not resolved.
    pub(crate) fn ratio(&self, metric: Metric) -> String {
        let Some(row) = self.metric(metric) else {
            return UNKNOWN.to_owned();
        };
        match (row.reference.is_some(), row.estimate, row.ratio) {
            (false, Some(_), _) => "1 (reference)".to_owned(),
            (true, _, Some(ratio)) => ratio_with_interval(row, ratio),
            _ => UNKNOWN.to_owned(),
        }
    }

    /// The arm that it is compared with.
    pub(super) fn reference(&self) -> Option<&'a str> {
        self.first().reference.as_deref()
    }

    /// Whether it, or its reference, gave no reply in so many slices that their ratio is 0 or without bound.
    pub(super) fn stood_still(&self) -> bool {
        let mut metrics = self.compared_metrics().iter();
        metrics.any(|metric| {
            let ratio = self.metric(*metric).and_then(|row| row.ratio);
            ratio.is_some_and(|ratio| ratio == 0.0 || ratio.is_infinite())
        })
    }
}

/// A ratio with its interval, and a mark if it is not resolved.
pub(super) fn ratio_with_interval(row: &SummaryRow, ratio: f64) -> String {
    let ends = row.ratio_low.zip(row.ratio_high);
    // With fewer digits than its interval, a ratio may seem to lie outside of it.
    let digits = ends.map_or(2, |(low, high)| {
        digits_from_one(low).max(digits_from_one(high))
    });
    let interval = ends.map_or_else(String::new, |(low, high)| {
        format!(" [{}, {}]", fixed(low, digits), fixed(high, digits))
    });

    let mark = match row.verdict {
        Some(RatioVerdict::Higher | RatioVerdict::Lower) => "",
        Some(RatioVerdict::Unresolved) => " ~",
        Some(RatioVerdict::TooFewBlocks) | None => " ?",
    };
    format!("{}{interval}{mark}", fixed(ratio, digits))
}

/// A ratio with this number of digits after the point. That of an arm that served nothing is 0, and one to such an
/// arm has no bound.
pub(super) fn fixed(ratio: f64, digits: usize) -> String {
    match ratio {
        0.0 => "0".to_owned(),
        f64::INFINITY => units::UNBOUNDED.to_owned(),
        _ => format!("{ratio:.digits$}"),
    }
}

/// A ratio with as many digits as tell it from 1.
pub(super) fn ratio_from_one(ratio: f64) -> String {
    fixed(ratio, digits_from_one(ratio))
}

/// Digits after the point that tell a ratio from 1: 2 to 4.
fn digits_from_one(ratio: f64) -> usize {
    let differs = |digits: &usize| format!("{ratio:.digits$}") != format!("{:.digits$}", 1.0);
    [2, 3].into_iter().find(differs).unwrap_or(4)
}

/// Results of one scenario.
pub(crate) struct ScenarioReport<'a> {
    /// Name of the scenario.
    pub(crate) name: &'a str,
    /// Its arms, condition by condition.
    pub(crate) lines: Vec<ArmLine<'a>>,
    /// Its blocks.
    pub(crate) blocks: Vec<&'a BlockRow>,
    /// The objective of its open loops.
    pub(super) slo: Option<Slo>,
}

impl<'a> ScenarioReport<'a> {
    /// The results of each scenario of a run.
    pub(crate) fn each(
        summary: &'a [SummaryRow],
        blocks: &'a [BlockRow],
        views: &Views,
    ) -> Vec<Self> {
        let names = distinct(summary.iter().map(|row| row.scenario.as_str()));
        let report = |name| {
            let rows: Vec<_> = summary.iter().filter(|row| row.scenario == name).collect();
            let blocks: Vec<_> = blocks.iter().filter(|row| row.scenario == name).collect();
            let open = blocks.iter().filter(|row| row.rate_per_second.is_some());
            let open = open.map(|row| row.condition()).collect();
            ScenarioReport {
                name,
                lines: ArmLine::group(&rows, &open),
                blocks,
                slo: views.slo(name),
            }
        };
        names.into_iter().map(report).collect()
    }

    /// The arm that the others are compared with.
    pub(super) fn reference(&self) -> &'a str {
        let mut lines = self.lines.iter();
        let named = lines.find_map(|line| line.first().reference.as_deref());
        named.unwrap_or(self.lines[0].model())
    }

    /// The conditions of the lines that are `wanted`.
    pub(super) fn conditions_of(&self, wanted: impl Fn(&ArmLine<'_>) -> bool) -> Vec<ConditionKey> {
        // The steps of a search have a table of their own.
        let lines = self.lines.iter().filter(|line| line.load() != Load::Step);
        let lines = lines.filter(|line| wanted(line));
        lines.map(ArmLine::condition).collect()
    }

    /// The verdict on each arm at a given rate; none without an objective.
    pub(super) fn slo_verdicts(&self) -> Vec<SloVerdict> {
        let open = self.lines.iter().filter(|line| line.load() == Load::Open);
        let judged = open.filter(|line| !self.is_skipped(line));
        judged
            .filter_map(|line| Some(self.judge(self.slo?, line).verdict))
            .collect()
    }

    /// Whether an arm was not run.
    pub(super) fn is_skipped(&self, line: &ArmLine<'_>) -> bool {
        let condition = line.condition();
        let mut rows = self.blocks_of(line.model(), &condition);
        rows.any(|row| row.skipped().is_some())
    }

    /// The judgement of an arm by the objective.
    pub(super) fn judge(&self, slo: Slo, line: &ArmLine<'_>) -> SloJudgement {
        SloJudgement::new(slo, self.blocks_of(line.model(), &line.condition()))
    }

    /// The blocks of an arm under a condition.
    pub(super) fn blocks_of(
        &self,
        model: &str,
        condition: &ConditionKey,
    ) -> impl Iterator<Item = &'a BlockRow> {
        let own = move |row: &&&BlockRow| row.model == model && row.condition() == *condition;
        self.blocks.iter().filter(own).copied()
    }

    /// A table of the lines that are `shown`: columns for the condition first, and a gap between
    /// conditions.
    pub(super) fn by_condition(
        &self,
        names: &[&str],
        left: &[usize],
        shown: impl Fn(&ArmLine<'_>) -> bool,
        cells: impl Fn(&ArmLine<'_>) -> Vec<Cell>,
    ) -> Grid {
        let placement = self.lines[0].first().placement;
        let several_placements = self
            .lines
            .iter()
            .any(|line| line.first().placement != placement);
        let mut header = vec!["clients".to_owned(), "driver".to_owned()];
        if several_placements {
            header.push("placement".to_owned());
        }
        let several_traffics = self
            .lines
            .iter()
            .any(|line| !line.first().traffic.is_empty());
        if several_traffics {
            header.push("traffic".to_owned());
        }
        let before = header.len();
        header.extend(names.iter().map(|&name| name.to_owned()));

        let row = |line: &ArmLine<'_>| {
            condition_row(line, several_placements, several_traffics, cells(line))
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
}

/// A row of [`ScenarioReport::by_condition`].
fn condition_row(
    line: &ArmLine<'_>,
    with_placement: bool,
    with_traffic: bool,
    cells: Vec<Cell>,
) -> Row {
    let first = line.first();
    let (clients, driver) = (first.clients.to_string(), first.driver.to_string());
    let mut section = line.condition().clients_in_words();
    let mut row: Vec<Cell> = vec![clients.into(), driver.into()];
    if with_placement {
        section = format!("{section}, placement {}", first.placement);
        row.push(first.placement.to_string().into());
    }
    if with_traffic {
        row.push(first.traffic.clone().into());
    }
    if let Some(percent) = first.load_percent {
        section = format!("{section}, {percent} % of peak");
    }

    row.extend(cells);
    Row {
        arm: line.condition().tag(line.model()),
        section,
        cells: row,
    }
}
