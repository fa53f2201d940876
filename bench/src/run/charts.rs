//! Which charts a scenario gets from its summary and its histograms. A chart without data is not
//! drawn, and a value that is missing is a gap.

use echobench_clients::Driver;

use crate::render::axis::{Axis, Unit};
use crate::render::chart::{BarChart, Frame, LineChart, Mark, Picture, Series, apart};
use crate::render::looks::Looks;
use crate::results::summary::interval_of;
use crate::results::{ConditionKey, Latencies};
use crate::run::tables::{Line, Report};
use crate::scenario::Placement;
use crate::stats::median;

/// Something shown against the number of clients.
struct Against {
    name: &'static str,
    metric: &'static str,
    title: &'static str,
    label: &'static str,
    unit: Unit,
}

const AGAINST_CLIENTS: [Against; 4] = [
    Against {
        name: "throughput",
        metric: "throughput_per_second",
        title: "Throughput",
        label: "requests per second",
        unit: Unit::Rate,
    },
    Against {
        name: "cpu",
        metric: "cpu_ns_per_request",
        title: "CPU time per request",
        label: "CPU time of the server per request",
        unit: Unit::Time,
    },
    Against {
        name: "memory",
        metric: "memory_bytes_per_connection",
        title: "Memory per connection",
        label: "anonymous memory (PSS) per connection",
        unit: Unit::Bytes,
    },
    FAIRNESS,
];

const FAIRNESS: Against = Against {
    name: "fairness",
    metric: "jain_index",
    title: "Fairness",
    label: "Jain's index of the clients' requests (1: equal shares)",
    unit: Unit::Index,
};

/// The metrics of a rate sweep that are drawn against its rates.
const AGAINST_RATE: [(&str, &str, &str); 2] = [
    (
        "latency-p50",
        "latency_p50_ns",
        "Median latency against rate",
    ),
    (
        "latency-p99",
        "latency_p99_ns",
        "99th percentile of latency against rate",
    ),
];

/// The percentiles that stand in the summary.
const IN_SUMMARY: [(f64, &str, &str); 4] = [
    (0.5, "latency_p50_ns", "p50"),
    (0.99, "latency_p99_ns", "p99"),
    (0.999, "latency_p999_ns", "p99.9"),
    (0.9999, "latency_p9999_ns", "p99.99"),
];

/// Steps of a percentile curve in each tenth of the requests that is left.
const STEPS: u32 = 10;

/// The sections that are drawn into one chart: they differ in one thing only.
type Facet<'r, 'a> = (String, Vec<&'r Line<'a>>);

/// All charts of a scenario.
pub(super) fn charts(
    report: &Report<'_>,
    latencies: &Latencies,
    looks: &Looks<'_>,
) -> Vec<Picture> {
    let figures = Figures { report, looks };
    let mut pictures = Vec::new();
    for against in &AGAINST_CLIENTS {
        pictures.extend(figures.against_clients(against));
    }
    for (name, metric, title) in AGAINST_RATE {
        pictures.extend(figures.against_rate(name, metric, title));
    }
    pictures.extend(figures.percentiles(latencies));
    pictures
}

struct Figures<'r, 'a> {
    report: &'r Report<'a>,
    looks: &'r Looks<'a>,
}

impl<'r, 'a> Figures<'r, 'a> {
    /// The lines that `wanted` holds for, apart by what `key` says of their section.
    fn facets(
        &self,
        wanted: impl Fn(&Line<'a>) -> bool,
        key: impl Fn(&ConditionKey) -> String,
    ) -> Vec<Facet<'r, 'a>> {
        let mut facets: Vec<Facet<'r, 'a>> = Vec::new();
        for line in self.report.lines.iter().filter(|line| wanted(line)) {
            let name = key(&line.first().condition());
            match facets.iter_mut().find(|(known, _)| *known == name) {
                Some((_, lines)) => lines.push(line),
                None => facets.push((name, vec![line])),
            }
        }
        facets
    }

    fn against_clients(&self, against: &Against) -> Vec<Picture> {
        if against.metric == FAIRNESS.metric && !self.report.lines.iter().any(Report::unfair) {
            return Vec::new();
        }
        let closed = |line: &Line<'_>| line.first().load_percent.is_none();
        let facets = self.facets(closed, |section| clients_as(None, section));
        let lines: Vec<&Line<'_>> = facets
            .iter()
            .flat_map(|(_, lines)| lines.iter().copied())
            .collect();
        let values = ends(&lines, against.metric);
        if values.is_empty() {
            return Vec::new();
        }
        let frame = |place: &str, title: String| {
            self.frame(against.name, place, title, &lines, against.metric)
        };
        if distinct_clients(&lines).len() < 2 {
            let most = values.iter().copied().fold(0.0, f64::max);
            let most = if against.unit == Unit::Index {
                1.0
            } else {
                most
            };
            let clients = lines.first().map_or(0, |line| line.first().clients);
            let groups = facets.iter().map(|(name, lines)| {
                let bar = |line: &&Line<'a>| {
                    (
                        line.first().model.as_str(),
                        mark(line, against.metric, against.unit),
                    )
                };
                (name.clone(), lines.iter().map(bar).collect())
            });
            let chart = BarChart {
                frame: frame("", format!("{} at {clients} clients", against.title)),
                axis: Axis::from_zero(against.label, against.unit, most),
                groups: groups.collect(),
            };
            return vec![chart.draw(self.looks)];
        }
        let y = Axis::amounts(against.label, against.unit, &values);
        let chart = |(place, lines): &Facet<'r, 'a>| {
            let all = distinct_clients(lines);
            let series = self.series(
                lines,
                |line| {
                    let mut mark = mark(line, against.metric, against.unit)?;
                    mark.x = f64::from(line.first().clients);
                    Some(mark)
                },
                &all,
            );
            (!series.is_empty()).then(|| {
                LineChart {
                    frame: frame(place, format!("{} against clients", against.title)),
                    x: Axis::occurring("clients", &all),
                    y: y.clone(),
                    series,
                }
                .draw(self.looks)
            })
        };
        facets.iter().filter_map(chart).collect()
    }

    /// A series for each arm, apart where one of the values `all` on the lower axis is missing.
    fn series(
        &self,
        lines: &[&'r Line<'a>],
        mark: impl Fn(&Line<'a>) -> Option<Mark>,
        all: &[f64],
    ) -> Vec<Series<'a>> {
        let mut series = Vec::new();
        for &arm in self.looks.arms() {
            let own = lines.iter().filter(|line| line.first().model == arm);
            let marks: Vec<Mark> = own.filter_map(|line| mark(line)).collect();
            let stretches: Vec<Vec<Mark>> = apart(marks, all);
            if !stretches.is_empty() {
                series.push(Series { arm, stretches });
            }
        }
        series
    }

    fn against_rate(&self, name: &str, metric: &'static str, title: &str) -> Vec<Picture> {
        let swept = |line: &Line<'_>| line.first().load_percent.is_some();
        let key = |section: &ConditionKey| clients_as(Some(section.clients), section);
        let facets = self.facets(swept, key);
        let chart = |(place, lines): &Facet<'r, 'a>| {
            let mut series = Vec::new();
            for &arm in self.looks.arms() {
                let own = lines.iter().filter(|line| line.first().model == arm);
                // A value that is missing ends the line: beyond it the arm did not keep up.
                let mut stretches = vec![Vec::new()];
                for line in own {
                    match mark(line, metric, Unit::Time).zip(line.estimate("rate_per_second")) {
                        Some((mark, x)) => stretches.last_mut()?.push(Mark { x, ..mark }),
                        None => stretches.push(Vec::new()),
                    }
                }
                stretches.retain(|stretch| !stretch.is_empty());
                if !stretches.is_empty() {
                    series.push(Series { arm, stretches });
                }
            }
            let rates: Vec<f64> = lines
                .iter()
                .filter_map(|line| line.estimate("rate_per_second"))
                .collect();
            let most = rates.iter().copied().fold(0.0, f64::max);
            (!series.is_empty()).then(|| {
                LineChart {
                    frame: self.frame(name, place, title.to_owned(), lines, metric),
                    x: Axis::from_zero("requests per second, planned", Unit::Rate, most),
                    y: Axis::amounts(
                        "latency, from when a request was due",
                        Unit::Time,
                        &ends(lines, metric),
                    ),
                    series,
                }
                .draw(self.looks)
            })
        };
        facets.iter().filter_map(chart).collect()
    }

    /// Percentile curves of each section: for each percentile the median over the blocks, as in the
    /// summary.
    fn percentiles(&self, latencies: &Latencies) -> Vec<Picture> {
        let key = |section: &ConditionKey| section.tag("");
        let facets = self.facets(|_| true, key);
        facets
            .iter()
            .filter_map(|(_, lines)| self.percentile_chart(lines, latencies))
            .collect()
    }

    fn percentile_chart(&self, lines: &[&'r Line<'a>], latencies: &Latencies) -> Option<Picture> {
        let section = lines.first()?.first().condition();
        let mut series = Vec::new();
        for line in lines {
            let arm = line.first().model.as_str();
            let blocks = latencies.of(&section.tag(arm));
            let marks: Vec<Mark> = grid()
                .into_iter()
                .map_while(|q| percentile(line, blocks, q))
                .collect();
            if !marks.is_empty() {
                series.push(Series {
                    arm,
                    stretches: vec![marks],
                });
            }
        }
        let marks = || series.iter().flat_map(|series| &series.stretches).flatten();
        let highest = marks().map(|mark| mark.x).fold(0.0, f64::max);
        let values: Vec<f64> = marks()
            .flat_map(|mark| {
                [
                    Some(mark.y),
                    mark.interval.map(|ends| ends.0),
                    mark.interval.map(|ends| ends.1),
                ]
            })
            .flatten()
            .collect();
        if values.is_empty() {
            return None;
        }
        let load = section
            .load_percent
            .map(|percent| format!(" at {percent} % of peak"));
        let place = clients_as(Some(section.clients), &section) + &load.unwrap_or_default();
        let chart = LineChart {
            frame: self.frame(
                "latency",
                &place,
                "Latency by percentile".to_owned(),
                lines,
                "latency_p50_ns",
            ),
            x: Axis::quantiles(highest),
            y: Axis::amounts("latency", Unit::Time, &values),
            series,
        };
        Some(chart.draw(self.looks))
    }

    fn frame(
        &self,
        name: &str,
        place: &str,
        title: String,
        lines: &[&Line<'_>],
        metric: &str,
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

/// `threads`, and the placement if there is one.
pub(super) fn where_to(driver: Driver, placement: Placement) -> String {
    match placement {
        Placement::None => driver.to_string(),
        Placement::Split | Placement::Same => format!("{driver}, placement {placement}"),
    }
}

/// `8 clients as threads`, and the placement if there is one.
fn clients_as(count: Option<u32>, section: &ConditionKey) -> String {
    let place = where_to(section.driver, section.placement);
    match count {
        Some(1) => format!("1 client as {place}"),
        Some(count) => format!("{count} clients as {place}"),
        None => format!("clients as {place}"),
    }
}

/// `throughput-steady-8-threads`: what tells it from other charts.
fn file_name(name: &str, scenario: &str, place: &str) -> String {
    let common = ["client", "clients", "as", "placement", "at", "of", "peak"];
    let words = place
        .split(|letter: char| !letter.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty() && !common.contains(word));
    let scenario = scenario.replace(|letter: char| !letter.is_ascii_alphanumeric(), "-");
    let parts: Vec<&str> = [name, scenario.as_str()].into_iter().chain(words).collect();
    parts.join("-")
}

fn distinct_clients(lines: &[&Line<'_>]) -> Vec<f64> {
    let mut counts: Vec<u32> = lines.iter().map(|line| line.first().clients).collect();
    counts.sort_unstable();
    counts.dedup();
    counts.into_iter().map(f64::from).collect()
}

/// Every value of a metric, and the ends of their intervals.
fn ends(lines: &[&Line<'_>], metric: &str) -> Vec<f64> {
    let rows = lines.iter().filter_map(|line| line.metric(metric));
    rows.flat_map(|row| [row.estimate, row.low, row.high])
        .flatten()
        .collect()
}

/// The estimate of a metric; its place on the lower axis is for the caller to say.
fn mark(line: &Line<'_>, metric: &'static str, unit: Unit) -> Option<Mark> {
    let row = line.metric(metric)?;
    let estimate = row.estimate?;
    let interval = row.low.zip(row.high);
    let first = line.first();
    let load = first.load_percent.map(|percent| format!(" at {percent} %"));
    let mut tip = format!(
        "{}, {} {}{}: {}",
        first.model,
        first.clients,
        first.driver,
        load.unwrap_or_default(),
        unit.show(estimate)
    );
    if let Some((low, high)) = interval {
        tip = format!("{tip} [{}, {}]", unit.show(low), unit.show(high));
    }
    if line.starved() > 0 {
        tip = format!("{tip}, {}", line.errors());
    }
    Some(Mark {
        x: 0.0,
        y: estimate,
        interval,
        metric: Some(metric),
        tag: first.condition().tag(&first.model),
        tip: Some(tip),
        hollow: line.starved() > 0,
    })
}

/// The quantiles of a curve: equally far apart on its axis, and those of the summary.
fn grid() -> Vec<f64> {
    let mut all: Vec<f64> = (0..=4 * STEPS)
        .map(|step| 1.0 - 10_f64.powf(-f64::from(step) / f64::from(STEPS)))
        .filter(|q| {
            IN_SUMMARY
                .iter()
                .all(|(known, ..)| (q - known).abs() > 1e-9)
        })
        .chain(IN_SUMMARY.map(|(known, ..)| known))
        .collect();
    all.sort_by(f64::total_cmp);
    all
}

/// The median of a percentile over the blocks that can carry it; none where no block can.
fn percentile(line: &Line<'_>, blocks: &[crate::results::BlockLatency], q: f64) -> Option<Mark> {
    if let Some((_, metric, name)) = IN_SUMMARY
        .into_iter()
        .find(|(known, ..)| (q - known).abs() < 1e-9)
    {
        let mark = mark(line, metric, Unit::Time)?;
        let tip = mark
            .tip
            .map(|tip| tip.replacen(": ", &format!(", {name}: "), 1));
        return Some(Mark { x: q, tip, ..mark });
    }
    let values: Vec<f64> = blocks
        .iter()
        .filter_map(|block| Some(block.histogram.quantile(block.lost, q)? as f64))
        .collect();
    Some(Mark {
        x: q,
        y: median(&values)?,
        interval: interval_of(&values),
        ..Mark::default()
    })
}
