//! The report as it is, as JSON.

use super::super::Report;

pub(super) fn render(report: &Report) -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(report)? + "\n")
}
