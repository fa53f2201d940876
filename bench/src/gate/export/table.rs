//! The report for people, on a terminal or in Markdown.

use super::super::GateReport;
use super::super::rule::{ALPHA, Finding, GateComparison, GateVerdict, InconclusiveReason};
use crate::render::Style;
use crate::render::units::or_unknown;

pub(super) fn render(report: &GateReport, style: Style) -> String {
    let headline = match style {
        Style::Plain | Style::Terminal(_) => format!("gate: {}", headline(report)),
        Style::Markdown => format!("### Gate: {}", headline(report)),
    };

    let mut parts = vec![headline, about(report), table(&report.comparisons, style)];
    if report.confirmation_blocks > 0 {
        parts.push(format!(
            "Again, in {} other blocks with new processes:",
            report.confirmation_blocks
        ));
        parts.push(table(&report.confirmation, style));
    }

    parts.push(NOTE.to_owned());
    parts.join("\n\n") + "\n"
}

/// Explanation of the columns.
const NOTE: &str = "Slower: median over the blocks, + is worse. At least, at most: one-sided sign-test bounds; \
    the first is corrected over the table. A/A: the baseline against itself. p99 latency: of all requests of a block. \
    p99 of a slice: median over its slices, which rare bad slices do not move.";

fn about(report: &GateReport) -> String {
    format!(
        "candidate {} against baseline {}, scenario {}, {} blocks, false alarms at most {:.0} %",
        report.candidate.title(),
        report.baseline.title(),
        report.scenario,
        report.blocks,
        100.0 * ALPHA
    )
}

/// The verdict and its grounds.
fn headline(report: &GateReport) -> String {
    let word = report.verdict.name();
    let lines = |finding| {
        report
            .comparisons
            .iter()
            .filter(move |line| line.finding == finding)
    };

    let why = match (report.verdict, report.reason) {
        (GateVerdict::Pass, _) => {
            let open: Vec<_> = lines(Finding::Unresolved).map(title).collect();
            if open.is_empty() {
                "every line is within its floor".to_owned()
            } else {
                format!(
                    "throughput and CPU per request are within their floors; not resolved: {}",
                    open.join(", ")
                )
            }
        }
        (GateVerdict::Regression, _) => {
            let confirmed = report
                .comparisons
                .iter()
                .filter(|line| report.is_confirmed(line));
            confirmed.map(sentence).collect::<Vec<_>>().join("; ")
        }
        (GateVerdict::Inconclusive, Some(InconclusiveReason::Contaminated)) => {
            let dirty: Vec<_> = lines(Finding::Contaminated).map(sentence).collect();
            format!(
                "{}; quiet the machine, or give more --blocks",
                dirty.join("; ")
            )
        }
        (GateVerdict::Inconclusive, Some(InconclusiveReason::NotConfirmed)) => {
            "what looked slower did not in a second run".to_owned()
        }
        (GateVerdict::Inconclusive, _) => {
            let open = lines(Finding::Unresolved).filter(|line| line.metric.is_required());
            let open: Vec<_> = open.map(sentence).collect();
            format!(
                "{}; quiet the machine, or give more --blocks",
                open.join("; ")
            )
        }
    };

    format!("{word}: {why}")
}

fn title(line: &GateComparison) -> String {
    format!("{} {}", line.subject, line.metric.title())
}

/// One line of the table in words.
pub(super) fn sentence(line: &GateComparison) -> String {
    let title = title(line);
    match line.finding {
        Finding::Slower => format!(
            "{title} is {} worse",
            change(line.slowdown).trim_start_matches('+')
        ),
        Finding::Within => format!("{title} is at most {} worse", change(line.high)),
        Finding::Unresolved if line.high.is_none() => format!("{title} could not be measured"),
        Finding::Unresolved => format!(
            "{title} may be up to {} worse, the floor is {}",
            change(line.high).trim_start_matches('+'),
            percent(line.floor)
        ),
        Finding::Contaminated => {
            format!(
                "the baseline differs from itself in {title} ({})",
                change(line.again)
            )
        }
    }
}

fn table(lines: &[GateComparison], style: Style) -> String {
    let names = [
        "model", "metric", "slower", "at least", "at most", "floor", "A/A", "blocks", "finding",
    ];
    let rows = lines.iter().map(|line| {
        let finding = match line.finding {
            Finding::Slower => "SLOWER",
            Finding::Within => "within",
            Finding::Unresolved => "not resolved",
            Finding::Contaminated => "CONTAMINATED",
        };
        vec![
            line.subject.clone(),
            line.metric.title().to_owned(),
            change(line.slowdown),
            change(line.low),
            change(line.high),
            percent(line.floor),
            change(line.again),
            line.blocks.to_string(),
            finding.to_owned(),
        ]
    });

    style.table(&names, rows.collect(), &[0, 1, 8])
}

fn percent(share: f64) -> String {
    format!("{:.0} %", 100.0 * share)
}

/// A slow-down as a change in percent, with its sign.
fn change(ratio: Option<f64>) -> String {
    or_unknown(ratio, |ratio| {
        let percent = 100.0 * (ratio - 1.0);
        // Without this, a change that rounds to zero could be shown as a negative one.
        let percent = if percent.abs() < 0.05 { 0.0 } else { percent };
        format!("{percent:+.1} %").replace('-', "\u{2212}")
    })
}
