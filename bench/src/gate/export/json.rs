//! JSON with every field of the report.

use super::super::GateReport;

pub(super) fn render(report: &GateReport) -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(report)? + "\n")
}
