//! `customSmallerIsBetter` of github-action-benchmark: a list of names with values. The values are
//! slow-downs in percent of the baseline's time, so that a figure of another machine may stand
//! beside them. Source: the README of github-action-benchmark, "Custom".

use serde::Serialize;

use super::super::GateReport;
use super::comparison_name;

#[derive(Serialize)]
struct Entry {
    name: String,
    unit: &'static str,
    value: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    range: Option<String>,
    extra: String,
}

pub(super) fn render(report: &GateReport) -> anyhow::Result<String> {
    let percent = |ratio: f64| 100.0 * ratio;
    let entries: Vec<Entry> = report
        .comparisons
        .iter()
        .filter_map(|line| {
            let bounds = line.low.zip(line.high);
            Some(Entry {
                name: format!("{}/{}", comparison_name(report, line), line.metric.name()),
                unit: "% of baseline",
                value: percent(line.slowdown?),
                range: bounds
                    .map(|(low, high)| format!("{:.1} to {:.1}", percent(low), percent(high))),
                extra: format!(
                    "verdict: {}\nblocks: {}",
                    report.verdict.name(),
                    line.blocks
                ),
            })
        })
        .collect();

    Ok(serde_json::to_string_pretty(&entries)? + "\n")
}
