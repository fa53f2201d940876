//! `JUnit` XML: a test case for each comparison. A comparison that is not decided is an error,
//! never a success; one that a pass does not need is skipped.

use std::fmt::Write;

use super::super::GateReport;
use super::super::rule::{Finding, GateComparison, GateVerdict};
use super::{comparison_name, table};

pub(super) fn render(report: &GateReport) -> String {
    let cases: Vec<(&GateComparison, &str)> = report
        .comparisons
        .iter()
        .map(|line| (line, kind(report, line)))
        .collect();

    let count = |kind: &str| cases.iter().filter(|(_, other)| *other == kind).count();
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <testsuites>\n  <testsuite name=\"echobench gate\" tests=\"{}\" failures=\"{}\" errors=\"{}\" \
         skipped=\"{}\">\n",
        cases.len(),
        count("failure"),
        count("error"),
        count("skipped")
    );

    for (line, kind) in cases {
        let opening = format!(
            "    <testcase classname=\"{}\" name=\"{}\"",
            escaped(&comparison_name(report, line)),
            line.metric.name()
        );
        let message = escaped(&table::sentence(line));
        let written = if kind.is_empty() {
            writeln!(text, "{opening}/>")
        } else {
            writeln!(
                text,
                "{opening}>\n      <{kind} message=\"{message}\"/>\n    </testcase>"
            )
        };
        written.expect("writing to a string succeeds");
    }

    text + "  </testsuite>\n</testsuites>\n"
}

/// The element for the result of a case; empty for a success.
fn kind(report: &GateReport, line: &GateComparison) -> &'static str {
    match (report.verdict, line.finding) {
        (GateVerdict::Regression, Finding::Slower) if report.is_confirmed(line) => "failure",
        (_, Finding::Within) => "",
        (_, Finding::Unresolved) if !line.metric.is_required() => "skipped",
        _ => "error",
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
