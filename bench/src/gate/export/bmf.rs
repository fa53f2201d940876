//! Bencher Metric Format: benchmarks by name, in each its measures. The measures are slow-downs, the
//! only figures of a gate that mean the same on every machine. Source: Bencher's documentation,
//! "Bencher Metric Format (BMF)".

use serde::Serialize;
use serde_json::{Map, Value};

use super::super::GateReport;
use super::comparison_name;

#[derive(Serialize)]
struct Measure {
    value: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    lower_value: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upper_value: Option<f64>,
}

pub(super) fn render(report: &GateReport) -> anyhow::Result<String> {
    let mut benchmarks: Map<String, Value> = Map::new();
    for line in &report.comparisons {
        let Some(value) = line.slowdown else { continue };
        let measure = Measure {
            value,
            lower_value: line.low,
            upper_value: line.high,
        };
        let benchmark = benchmarks
            .entry(comparison_name(report, line))
            .or_insert_with(|| Value::Object(Map::new()));
        benchmark[format!("{}-slowdown", line.metric.name())] = serde_json::to_value(measure)?;
    }

    Ok(serde_json::to_string_pretty(&benchmarks)? + "\n")
}
