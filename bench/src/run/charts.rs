//! Charts of a scenario, from its summary and its histograms. A chart without data is not drawn; a missing
//! value is a gap.

use std::collections::BTreeSet;

use super::scenario_report::{ArmLine, Load, ScenarioReport, THROUGHPUT};
use crate::render::axis::{Axis, Unit};
use crate::render::chart::{
    BarChart, Frame, LineChart, Mark, Picture, Series, Tip, split_at_gaps, stacked,
};
use crate::render::looks::Looks;
use crate::render::units::plural;
use crate::results::ordered::entry;
use crate::results::summary::interval_of;
use crate::results::{BlockPercentiles, BlockRow, ConditionKey, Metric};
use crate::scenario::Placement;
use crate::stats::median;

/// A metric that is drawn against the number of clients.
struct ClientsChart {
    name: &'static str,
    /// The loads of which it is drawn.
    load: Load,
    metric: Metric,
    title: &'static str,
    label: &'static str,
    unit: Unit,
}

const CLIENTS_CHARTS: [ClientsChart; 7] = [
    ClientsChart {
        name: "throughput",
        load: Load::Closed,
        metric: THROUGHPUT,
        title: "Throughput",
        label: "requests per second",
        unit: Unit::Rate,
    },
    ClientsChart {
        name: "cpu",
        load: Load::Closed,
        metric: Metric::CpuPerRequest,
        title: "CPU time per request",
        label: "CPU time of the server per request",
        unit: Unit::Time,
    },
    ClientsChart {
        name: "memory",
        load: Load::Closed,
        metric: Metric::MemoryPerConnection,
        title: "Memory per connection",
        label: "anonymous memory (PSS) per connection",
        unit: Unit::Bytes,
    },
    ClientsChart {
        name: "fairness",
        load: Load::Closed,
        metric: FAIRNESS_METRIC,
        title: "Fairness",
        label: "Jain's index of the clients' requests (1: equal shares)",
        unit: Unit::Index,
    },
    ClientsChart {
        name: "latency-p50",
        load: Load::Open,
        metric: Metric::LatencyP50,
        title: "Median latency",
        label: "latency, from when a request was due",
        unit: Unit::Time,
    },
    ClientsChart {
        name: "latency-p99",
        load: Load::Open,
        metric: Metric::LatencyP99,
        title: "99th percentile of latency",
        label: "latency, from when a request was due",
        unit: Unit::Time,
    },
    ClientsChart {
        name: "cpu",
        load: Load::Open,
        metric: Metric::CpuPerRequest,
        title: "CPU time per request",
        label: "CPU time of the server per request",
        unit: Unit::Time,
    },
];

/// Drawn only where an arm was unfair.
const FAIRNESS_METRIC: Metric = Metric::JainIndex;

/// Metrics of a rate sweep that are drawn against its rates: name, metric and title.
const RATE_CHARTS: [(&str, Metric, &str); 2] = [
    (
        "latency-p50",
        Metric::LatencyP50,
        "Median latency against rate",
    ),
    (
        "latency-p99",
        Metric::LatencyP99,
        "99th percentile of latency against rate",
    ),
];

/// Percentiles that the summary has: quantile, metric and name.
const SUMMARY_PERCENTILES: [(f64, Metric, &str); 4] = [
    (0.5, Metric::LatencyP50, "p50"),
    (0.99, Metric::LatencyP99, "p99"),
    (0.999, Metric::LatencyP999, "p99.9"),
    (0.9999, Metric::LatencyP9999, "p99.99"),
];

/// Panels of latency over time: metric and name.
const TIME_PANELS: [(Metric, &str); 2] =
    [(Metric::LatencyP99, "p99"), (Metric::LatencyP50, "median")];

/// Points of a percentile curve in each decade of the remaining requests.
const POINTS_PER_DECADE: u32 = 10;

/// Lines that are drawn into one chart, and a name for what their conditions share.
type Facet<'r, 'a> = (String, Vec<&'r ArmLine<'a>>);

/// All charts of a scenario.
pub(super) fn charts(
    report: &ScenarioReport<'_>,
    percentiles: &BlockPercentiles,
    looks: &Looks<'_>,
) -> Vec<Picture> {
    let charts = ScenarioCharts { report, looks };
    let mut pictures = Vec::new();
    for spec in &CLIENTS_CHARTS {
        pictures.extend(charts.against_clients(spec));
    }
    for (name, metric, title) in RATE_CHARTS {
        pictures.extend(charts.against_rate(name, metric, title));
    }
    pictures.extend(charts.percentiles(percentiles));
    pictures.extend(charts.over_time());
    pictures
}

struct ScenarioCharts<'r, 'a> {
    report: &'r ScenarioReport<'a>,
    looks: &'r Looks<'a>,
}

impl<'r, 'a> ScenarioCharts<'r, 'a> {
    /// The lines that are `wanted`, grouped by the name that `name` gives to their condition.
    fn facets(
        &self,
        wanted: impl Fn(&ArmLine<'a>) -> bool,
        name: impl Fn(&ConditionKey) -> String,
    ) -> Vec<Facet<'r, 'a>> {
        let mut facets: Vec<Facet<'r, 'a>> = Vec::new();
        for line in self.report.lines.iter().filter(|line| wanted(line)) {
            entry(&mut facets, name(&line.condition())).push(line);
        }
        facets
    }

    /// A chart for each driver, placement and traffic; bars for those with only one number of clients.
    fn against_clients(&self, spec: &ClientsChart) -> Vec<Picture> {
        if spec.metric == FAIRNESS_METRIC
            && !self.report.lines.iter().any(ScenarioReport::is_unfair)
        {
            return Vec::new();
        }

        let shown = |line: &ArmLine<'_>| line.load() == spec.load;
        let facets = self.facets(shown, |condition| clients_as(None, condition));
        let lines: Vec<&ArmLine<'_>> = facets
            .iter()
            .flat_map(|(_, lines)| lines.iter().copied())
            .collect();
        let values = values_with_ends(&lines, spec.metric);
        if values.is_empty() {
            return Vec::new();
        }

        // Loads beside those of the scenario have one number of clients.
        let (curves, single): (Vec<_>, Vec<_>) = facets
            .into_iter()
            .partition(|(_, lines)| distinct_clients(lines).len() > 1);
        let y = Axis::amounts(spec.label, spec.unit, &values);
        let mut charts: Vec<Picture> = curves
            .iter()
            .filter_map(|facet| self.clients_chart(spec, facet, &lines, &y))
            .collect();
        if !single.is_empty() {
            charts.push(self.bars(spec, &single, &lines, &values));
        }
        charts
    }

    fn bars(
        &self,
        spec: &ClientsChart,
        facets: &[Facet<'r, 'a>],
        lines: &[&ArmLine<'_>],
        values: &[f64],
    ) -> Picture {
        let most = values.iter().copied().fold(0.0, f64::max);
        let most = if spec.unit == Unit::Index { 1.0 } else { most };
        let groups = facets.iter().map(|(name, lines)| {
            let bar = |line: &&ArmLine<'a>| (line.model(), mark(line, spec.metric, spec.unit));
            (name.clone(), lines.iter().map(bar).collect())
        });

        let clients = facets[0].1[0].first().clients;
        let title = format!("{} at {clients} clients", spec.title);
        let chart = BarChart {
            frame: self.frame(spec.name, "", title, lines, spec.metric),
            axis: Axis::from_zero(spec.label, spec.unit, most),
            groups: groups.collect(),
        };
        chart.draw(self.looks)
    }

    fn clients_chart(
        &self,
        spec: &ClientsChart,
        (place, lines): &Facet<'r, 'a>,
        all_lines: &[&ArmLine<'_>],
        y: &Axis,
    ) -> Option<Picture> {
        let clients = distinct_clients(lines);
        let at_clients = |line: &ArmLine<'a>| {
            let x = f64::from(line.first().clients);
            mark(line, spec.metric, spec.unit).map(|mark| Mark { x, ..mark })
        };
        let series = self.series(lines, at_clients, &clients);
        if series.is_empty() {
            return None;
        }

        let title = format!("{} against clients", spec.title);
        let frame = self.frame(spec.name, place, title, all_lines, spec.metric);
        let chart = LineChart {
            x: Axis::occurring("clients", &clients),
            y: y.clone(),
            series,
        };
        Some(stacked(&frame, &[chart], self.looks))
    }

    /// A series for each arm, interrupted where one of the values `all` on the lower axis is missing.
    fn series(
        &self,
        lines: &[&'r ArmLine<'a>],
        mark: impl Fn(&ArmLine<'a>) -> Option<Mark>,
        all: &[f64],
    ) -> Vec<Series<'a>> {
        let mut series = Vec::new();
        for &arm in self.looks.arms() {
            let own = lines.iter().filter(|line| line.model() == arm);
            let marks: Vec<Mark> = own.filter_map(|line| mark(line)).collect();
            let stretches: Vec<Vec<Mark>> = split_at_gaps(marks, all);
            if !stretches.is_empty() {
                series.push(Series { arm, stretches });
            }
        }
        series
    }

    fn against_rate(&self, name: &str, metric: Metric, title: &str) -> Vec<Picture> {
        let swept = |line: &ArmLine<'_>| matches!(line.load(), Load::Swept | Load::Step);
        let facets = self.facets(swept, |condition| {
            let condition = &condition.without_step();
            clients_as(Some(condition.clients), condition)
        });

        let chart = |(place, lines): &Facet<'r, 'a>| {
            let series = self.rate_series(lines, metric);
            if series.is_empty() {
                return None;
            }
            let rates = lines
                .iter()
                .filter_map(|line| line.estimate(Metric::PlannedRate));
            let frame = self.frame(name, place, title.to_owned(), lines, metric);
            let chart = LineChart {
                x: Axis::from_zero(
                    "requests per second, planned",
                    Unit::Rate,
                    rates.fold(0.0, f64::max),
                ),
                y: Axis::amounts(
                    "latency, from when a request was due",
                    Unit::Time,
                    &values_with_ends(lines, metric),
                ),
                series,
            };
            Some(stacked(&frame, &[chart], self.looks))
        };
        facets.iter().filter_map(chart).collect()
    }

    /// A series for each arm, interrupted at a missing value: at that rate the arm did not keep up.
    fn rate_series(&self, lines: &[&'r ArmLine<'a>], metric: Metric) -> Vec<Series<'a>> {
        let mut series = Vec::new();
        for &arm in self.looks.arms() {
            let mut stretches: Vec<Vec<Mark>> = Vec::new();
            let mut interrupted = true;
            let mut own: Vec<_> = lines.iter().filter(|line| line.model() == arm).collect();
            let planned = |line: &ArmLine<'_>| line.estimate(Metric::PlannedRate).unwrap_or(0.0);
            own.sort_by(|a, b| planned(a).total_cmp(&planned(b)));
            for line in own {
                let rate = line.estimate(Metric::PlannedRate);
                let Some((mark, x)) = mark(line, metric, Unit::Time).zip(rate) else {
                    interrupted = true;
                    continue;
                };
                match stretches.last_mut() {
                    Some(stretch) if !interrupted => stretch.push(Mark { x, ..mark }),
                    _ => stretches.push(vec![Mark { x, ..mark }]),
                }
                interrupted = false;
            }

            if !stretches.is_empty() {
                series.push(Series { arm, stretches });
            }
        }
        series
    }

    /// Percentile curves under each condition: the median of each percentile over the blocks, as in the
    /// summary.
    fn percentiles(&self, percentiles: &BlockPercentiles) -> Vec<Picture> {
        let shown = |line: &ArmLine<'_>| line.load() != Load::Step;
        let facets = self.facets(shown, |condition| condition.tag(""));
        facets
            .iter()
            .filter_map(|(_, lines)| self.percentile_chart(lines, percentiles))
            .collect()
    }

    fn percentile_chart(
        &self,
        lines: &[&'r ArmLine<'a>],
        percentiles: &BlockPercentiles,
    ) -> Option<Picture> {
        let condition = lines.first()?.condition();
        let mut series = Vec::new();
        for line in lines {
            let arm = line.model();
            let marks: Vec<Mark> = percentiles
                .of(&condition.tag(arm))
                .map_while(|(q, values)| percentile(line, q, values))
                .collect();
            if !marks.is_empty() {
                series.push(Series {
                    arm,
                    stretches: vec![marks],
                });
            }
        }

        let marks: Vec<&Mark> = series
            .iter()
            .flat_map(|series| &series.stretches)
            .flatten()
            .collect();
        if marks.is_empty() {
            return None;
        }
        let highest = marks.iter().map(|mark| mark.x).fold(0.0, f64::max);
        let ends = |mark: &Mark| mark.interval.map_or([mark.y; 2], |(low, high)| [low, high]);
        let values: Vec<f64> = marks
            .iter()
            .flat_map(|mark| [[mark.y; 2], ends(mark)].concat())
            .collect();

        let place = section(&condition);
        let title = "Latency by percentile".to_owned();
        let frame = self.frame("latency", &place, title, lines, Metric::LatencyP50);
        let chart = LineChart {
            x: Axis::quantiles(highest),
            y: Axis::amounts("latency", Unit::Time, &values),
            series,
        };
        Some(stacked(&frame, &[chart], self.looks))
    }

    /// Latency of each block under each condition, in the order of time: drift, and single bad moments.
    fn over_time(&self) -> Vec<Picture> {
        let shown = |line: &ArmLine<'_>| line.load() != Load::Step;
        let facets = self.facets(shown, |condition| condition.tag(""));
        facets
            .iter()
            .filter_map(|(_, lines)| self.time_chart(lines))
            .collect()
    }

    /// A panel for each percentile; none for a single block.
    fn time_chart(&self, lines: &[&'r ArmLine<'a>]) -> Option<Picture> {
        let condition = lines.first()?.condition();
        let rows = self.report.blocks.iter();
        let rows = rows.filter(|row| row.condition() == condition);
        let rows: Vec<&BlockRow> = rows.copied().collect();

        let panels = TIME_PANELS
            .iter()
            .filter_map(|(metric, name)| time_panel(lines, &rows, *metric, name));
        let panels: Vec<LineChart<'_>> = panels.collect();
        if panels.is_empty() {
            return None;
        }

        let mut notes = vec![
            "A point is a block: fresh processes, and slices of all arms in turns.".to_owned(),
        ];
        if rows.iter().any(|row| !row.validity.is_valid()) {
            notes.push(
                "Hollow: the block is not valid for this arm; its value says why.".to_owned(),
            );
        }
        let frame = Frame {
            notes,
            ..self.frame(
                "time",
                &section(&condition),
                "Latency over time".to_owned(),
                lines,
                Metric::LatencyP50,
            )
        };
        Some(stacked(&frame, &panels, self.looks))
    }

    fn frame(
        &self,
        name: &str,
        place: &str,
        title: String,
        lines: &[&ArmLine<'_>],
        metric: Metric,
    ) -> Frame {
        let scenario = self.report.name;
        let rows = || lines.iter().filter_map(|line| line.metric(metric));
        let blocks = rows().map(|row| row.blocks).max().unwrap_or(0);
        let mut notes = vec![match (blocks, rows().any(|row| row.low.is_some())) {
            (1, _) => "One block: no intervals.".to_owned(),
            (_, false) => format!("Medians of {blocks} blocks, too few for intervals."),
            (_, true) => format!("Medians of {blocks} blocks with their sign-test intervals."),
        }];
        if lines.iter().any(|line| line.starved() > 0) {
            notes.push("Hollow: clients were left without an answer.".to_owned());
        }

        let subtitle = match place {
            "" => scenario.to_owned(),
            _ => format!("{scenario}, {place}"),
        };
        Frame {
            name: file_name(name, scenario, place),
            title,
            subtitle,
            notes,
        }
    }
}

/// `threads`, and the placement and the traffic if there are several.
pub(super) fn place(condition: &ConditionKey) -> String {
    let driver = condition.driver;
    let place = match condition.placement {
        Placement::None => driver.to_string(),
        placement => format!("{driver}, placement {placement}"),
    };
    condition.with_traffic(&place)
}

/// `8 clients as threads`, and the placement and the traffic if there are several.
fn clients_as(count: Option<u32>, condition: &ConditionKey) -> String {
    let place = place(condition);
    match count {
        Some(count) => format!("{} as {place}", plural(count as usize, "client")),
        None => format!("clients as {place}"),
    }
}

/// `8 clients as threads`, and the share of the peak in a rate sweep.
fn section(condition: &ConditionKey) -> String {
    clients_as(Some(condition.clients), condition) + &of_peak(condition)
}

/// The share of the peak in a rate sweep, with its preposition; nothing elsewhere.
pub(super) fn of_peak(condition: &ConditionKey) -> String {
    let percent = condition.load_percent;
    percent.map_or_else(String::new, |percent| format!(" at {percent} % of peak"))
}

/// `throughput-steady-8-threads`: the words that tell a chart from others.
pub(super) fn file_name(name: &str, scenario: &str, place: &str) -> String {
    let common = ["client", "clients", "as", "placement", "at", "of", "peak"];
    let words = place
        .split(|letter: char| !letter.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty() && !common.contains(word));
    let scenario = scenario.replace(|letter: char| !letter.is_ascii_alphanumeric(), "-");
    let parts: Vec<&str> = [name, scenario.as_str()].into_iter().chain(words).collect();
    parts.join("-")
}

fn distinct_clients(lines: &[&ArmLine<'_>]) -> Vec<f64> {
    let mut counts: Vec<u32> = lines.iter().map(|line| line.first().clients).collect();
    counts.sort_unstable();
    counts.dedup();
    counts.into_iter().map(f64::from).collect()
}

/// Every value of a metric that has a bound, and the ends of its interval.
fn values_with_ends(lines: &[&ArmLine<'_>], metric: Metric) -> Vec<f64> {
    let rows = lines.iter().filter_map(|line| line.metric(metric));
    rows.flat_map(|row| [row.estimate, row.low, row.high])
        .flatten()
        .filter(|value| value.is_finite())
        .collect()
}

/// The estimate of a metric as a mark; the caller sets its place on the lower axis. A value without bound has
/// none.
fn mark(line: &ArmLine<'_>, metric: Metric, unit: Unit) -> Option<Mark> {
    let row = line.metric(metric)?;
    let estimate = row.estimate.filter(|estimate| estimate.is_finite())?;
    let interval = row.low.zip(row.high);

    let first = line.first();
    let load = first.load_percent.map(|percent| format!(" at {percent} %"));
    let place = format!(
        "{}, {}{}",
        first.model,
        line.condition().clients_in_words(),
        load.unwrap_or_default(),
    );
    let mut value = unit.show(estimate);
    if let Some((low, high)) = interval {
        value = format!("{value} [{}, {}]", unit.show(low), unit.show(high));
    }
    if line.starved() > 0 {
        value = format!("{value}, {}", line.errors());
    }

    Some(Mark {
        x: 0.0,
        y: estimate,
        interval: interval.filter(|(low, high)| low.is_finite() && high.is_finite()),
        metric: Some(metric.name()),
        tag: line.condition().tag(line.model()),
        tip: Some(Tip { place, value }),
        hollow: line.starved() > 0,
        run: None,
    })
}

/// A metric of each block in the order of time; none if there are no two blocks.
fn time_panel<'a>(
    lines: &[&ArmLine<'a>],
    rows: &[&BlockRow],
    metric: Metric,
    name: &str,
) -> Option<LineChart<'a>> {
    let blocks: BTreeSet<u32> = rows.iter().map(|row| row.block).collect();
    let names: Vec<String> = blocks.iter().map(ToString::to_string).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let places: Vec<f64> = (0..blocks.len()).map(|place| place as f64).collect();

    let mut values = Vec::new();
    let mut series = Vec::new();
    for line in lines {
        let mark = |row: &&BlockRow| {
            let place = blocks.iter().position(|block| *block == row.block)?;
            block_mark(row, metric, name, places[place])
        };
        let own = rows.iter().filter(|row| row.model == line.model());
        let marks: Vec<Mark> = own.filter_map(mark).collect();
        values.extend(marks.iter().map(|mark| mark.y));

        // A block without a value is a gap.
        let stretches = split_at_gaps(marks, &places);
        if !stretches.is_empty() {
            series.push(Series {
                arm: line.model(),
                stretches,
            });
        }
    }

    let is_drawn = blocks.len() > 1 && !series.is_empty();
    is_drawn.then(|| LineChart {
        x: Axis::steps("block, in the order of time", &names),
        y: Axis::amounts(&format!("{name} of each block"), Unit::Time, &values),
        series,
    })
}

/// A metric in one block as a mark, hollow if the block is not valid. A value without bound has none.
fn block_mark(row: &BlockRow, metric: Metric, name: &str, x: f64) -> Option<Mark> {
    let value = metric.of_block(row).filter(|value| value.is_finite())?;
    let is_valid = row.validity.is_valid();
    let mut text = Unit::Time.show(value);
    if !is_valid {
        text = format!("{text}, {}", row.validity.to_string().replace(';', ", "));
    }

    Some(Mark {
        x,
        y: value,
        tag: row.condition().tag(&row.model),
        tip: Some(Tip {
            place: format!("{}, block {}, {name}", row.model, row.block),
            value: text,
        }),
        hollow: !is_valid,
        ..Mark::default()
    })
}

/// Quantiles of a curve, ascending: equally far apart on its axis, and those of the summary.
pub(super) fn curve_quantiles() -> Vec<f64> {
    let step = |step: u32| 1.0 - 10_f64.powf(-f64::from(step) / f64::from(POINTS_PER_DECADE));
    let mut all: Vec<f64> = (0..=4 * POINTS_PER_DECADE)
        .map(step)
        .filter(|q| summary_percentile(*q).is_none())
        .chain(SUMMARY_PERCENTILES.map(|(known, ..)| known))
        .collect();
    all.sort_by(f64::total_cmp);
    all
}

/// Metric and name of a quantile that the summary has.
fn summary_percentile(q: f64) -> Option<(Metric, &'static str)> {
    let mut known = SUMMARY_PERCENTILES.into_iter();
    let (_, metric, name) = known.find(|(known, ..)| (q - known).abs() < 1e-9)?;
    Some((metric, name))
}

/// A percentile as a mark: the median of its values in the blocks with enough requests for it; `None` if there are
/// none.
fn percentile(line: &ArmLine<'_>, q: f64, values: &[f64]) -> Option<Mark> {
    if let Some((metric, name)) = summary_percentile(q) {
        let mark = mark(line, metric, Unit::Time)?;
        let tip = mark.tip.map(|tip| Tip {
            place: format!("{}, {name}", tip.place),
            ..tip
        });
        return Some(Mark { x: q, tip, ..mark });
    }

    Some(Mark {
        x: q,
        y: median(values)?,
        interval: interval_of(values),
        ..Mark::default()
    })
}
