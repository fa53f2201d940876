//! `JUnit` XML: a test case for each comparison. A comparison that is not decided is an error,
//! never a success; one that a pass does not need is skipped.

use std::fmt::Write;

use super::super::Report;
use super::super::rule::{Comparison, Finding, Verdict};
use super::{name, table};

pub(super) fn render(report: &Report) -> String {
    let cases: Vec<(&Comparison, &str)> = report
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
            escaped(&name(report, line)),
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

/// The element that says how the case ended; none for a success.
fn kind(report: &Report, line: &Comparison) -> &'static str {
    match (report.verdict, line.finding) {
        (Verdict::Regression, Finding::Slower) if report.is_confirmed(line) => "failure",
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
