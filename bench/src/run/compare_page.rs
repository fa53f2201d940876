//! Page of two runs: the sentences and the table of `compare`, and both estimates of each arm in charts.

use maud::{Markup, html};

use super::charts::{file_name, of_peak, place};
use super::committed::{FOLLOWED_METRICS, SeriesKey};
use super::compare::{ComparedRuns, Comparison, Detail, Quantity};
use crate::render::Part;
use crate::render::axis::{Axis, Unit};
use crate::render::chart::{Frame, Mark, Picture, PointChart, PointRow, Tip};
use crate::render::looks::Looks;
use crate::render::page::{Chapter, Page, PageRun, table_part};
use crate::render::units::plural;
use crate::results::ordered::entry;
use crate::results::{ConditionKey, Metric, SummaryRow};

/// The page of two runs.
pub(crate) fn page<'a>(runs: Vec<PageRun<'a>>, compared: &'a ComparedRuns) -> Page<'a> {
    let comparison = Comparison::new(compared);
    let looks = Looks::new(compared.arms());

    let mut tables = vec![Part::Lines(comparison.notes())];
    tables.extend(compared.agreement());
    let overview = Chapter {
        name: "comparison".to_owned(),
        question: None,
        verdicts: vec![(String::new(), comparison.sentences(None))],
        charts: Vec::new(),
        tables: tables.iter().map(table_part).collect(),
    };

    let question = |name: &str| {
        let mut records = runs.iter().map(|run| run.record);
        let scenario = records.find_map(|record| record.scenarios.get(name))?;
        Some(scenario.question.clone())
    };
    let chapters = comparison.scenarios().into_iter().map(|name| {
        let table = comparison.table(Some(name), Detail::Intervals);
        Chapter {
            name: name.to_owned(),
            question: question(name),
            verdicts: vec![(String::new(), comparison.sentences(Some(name)))],
            charts: charts(&comparison, compared, name, &looks),
            tables: vec![table_part(&Part::Table(table))],
        }
    });
    let chapters = std::iter::once(overview).chain(chapters).collect();
    Page {
        runs,
        map: None,
        chapters,
        looks,
        method: method(),
    }
}

/// Charts of a scenario: one for each followed metric, driver and placement.
fn charts(
    comparison: &Comparison<'_>,
    compared: &ComparedRuns,
    scenario: &str,
    looks: &Looks<'_>,
) -> Vec<Picture> {
    // Absolute figures say more than ratios, where they may be compared.
    let quantity = comparison.quantities().last().copied();
    let Some(quantity) = quantity else {
        return Vec::new();
    };

    let mut pictures = Vec::new();
    for metric in FOLLOWED_METRICS {
        let mut places: Vec<(String, Vec<&SeriesKey>)> = Vec::new();
        let keys = comparison.keys(Some(scenario)).into_iter();
        for key in keys.filter(|key| key.metric == metric.name()) {
            entry(&mut places, place(&key.condition)).push(key);
        }
        for (place, keys) in places {
            let chart = PairChart {
                comparison,
                metric,
                quantity,
            };
            let frame = chart.frame(compared, scenario, &place);
            pictures.extend(chart.draw(frame, &keys, looks));
        }
    }
    pictures
}

/// Both estimates of a metric, for each arm.
struct PairChart<'r, 'a> {
    comparison: &'r Comparison<'a>,
    metric: Metric,
    quantity: Quantity,
}

impl PairChart<'_, '_> {
    fn frame(&self, compared: &ComparedRuns, scenario: &str, place: &str) -> Frame {
        let what = match self.quantity {
            Quantity::Ratio => format!("{} ÷ reference, of two runs", title(self.metric)),
            Quantity::Estimate => format!("{} of two runs", title(self.metric)),
        };
        let [(_, before), (_, after)] = compared.named();
        Frame {
            name: file_name(&format!("pair-{}", self.metric.name()), scenario, place),
            title: what,
            subtitle: format!("{scenario}, clients as {place}"),
            notes: vec![
                format!("Open, before: {}.", before.origin()),
                format!("Filled, after: {}.", after.origin()),
                "Right: the change; * the intervals of the two runs do not overlap.".to_owned(),
            ],
        }
    }

    /// None if no arm has a value.
    fn draw(&self, frame: Frame, keys: &[&SeriesKey], looks: &Looks<'_>) -> Option<Picture> {
        let mut groups: Vec<(String, Vec<PointRow<'_>>)> = Vec::new();
        let mut values = Vec::new();
        for key in keys {
            let marks = self.marks(key);
            let ends = |mark: &Mark| mark.interval.map_or([mark.y; 2], |(low, high)| [low, high]);
            values.extend(
                marks
                    .iter()
                    .flat_map(|mark| [[mark.y; 2], ends(mark)].concat()),
            );
            if marks.is_empty() {
                continue;
            }

            let change = self.comparison.change(key, self.quantity);
            let row = PointRow {
                arm: &key.model,
                marks,
                remark: change.map(|change| change.to_string()).unwrap_or_default(),
            };
            entry(&mut groups, clients(&key.condition)).push(row);
        }
        if values.is_empty() {
            return None;
        }

        let unit = self.unit();
        let label = match self.quantity {
            Quantity::Ratio => "ratio to the reference arm",
            Quantity::Estimate => self.metric.meaning().trim_end_matches('.'),
        };
        let most = values.iter().copied().fold(0.0, f64::max);
        let axis = match self.quantity {
            Quantity::Ratio => Axis::from_zero(label, unit, most),
            Quantity::Estimate => Axis::amounts(label, unit, &values),
        };
        let chart = PointChart {
            frame,
            axis,
            groups,
        };
        Some(chart.draw(looks))
    }

    fn unit(&self) -> Unit {
        match (self.quantity, self.metric) {
            (Quantity::Ratio, _) => Unit::Index,
            (Quantity::Estimate, Metric::Throughput) => Unit::Rate,
            (Quantity::Estimate, _) => Unit::Time,
        }
    }

    /// The values of both runs that have a bound.
    fn marks(&self, key: &SeriesKey) -> Vec<Mark> {
        let rows = self
            .comparison
            .rows(key)
            .into_iter()
            .zip(["before", "after"]);
        rows.filter_map(|(row, run)| self.mark(key, row?, run))
            .collect()
    }

    fn mark(&self, key: &SeriesKey, row: &SummaryRow, run: &'static str) -> Option<Mark> {
        let figure = self.quantity.of(row);
        let value = figure.value.filter(|value| value.is_finite())?;
        let unit = self.unit();
        let mut text = unit.show(value);
        if let Some((low, high)) = figure.ends {
            text = format!("{text} [{}, {}]", unit.show(low), unit.show(high));
        }

        Some(Mark {
            y: value,
            interval: figure
                .ends
                .filter(|(low, high)| low.is_finite() && high.is_finite()),
            // Only the estimate itself is a value of the summary's metric.
            metric: (self.quantity == Quantity::Estimate).then(|| self.metric.name()),
            tag: key.condition.tag(&key.model),
            tip: Some(Tip {
                place: format!("{}, {}, {run}", key.model, key.condition.clients_in_words()),
                value: text,
            }),
            hollow: run == "before",
            run: Some(run),
            ..Mark::default()
        })
    }
}

fn title(metric: Metric) -> &'static str {
    match metric {
        Metric::Throughput => "Throughput",
        Metric::LatencyP99 => "99th percentile of latency",
        Metric::CpuPerRequest => "CPU time per request",
        other => other.name(),
    }
}

/// `8 clients`, and the share of the peak in a rate sweep.
fn clients(condition: &ConditionKey) -> String {
    plural(condition.clients as usize, "client") + &of_peak(condition)
}

fn method() -> Markup {
    html! {
        p { "Estimates are medians over blocks with exact sign-test intervals, a ratio is taken within each block. The change "
            "is the later estimate divided by the earlier one. It is marked with * where the intervals of the two runs do "
            "not overlap, which is stricter than a test of the two would be." }
        p { "Two runs lie apart in time, so whatever the machine did meanwhile is in the changes of absolute figures. Ratios "
            "are taken between arms that were alive at the same time, and are open to less. A change of your own server is "
            "best judged by " code { "echobench gate" } ", which runs both builds side by side." }
        p { "Runs of different workloads are not compared, nor are absolute figures of different kinds of machines." }
    }
}
