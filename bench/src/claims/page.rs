//! Page of a ledger of claims: the verdicts with the figures that decide them, and the cost of a start
//! against the memory of the process that starts.

use maud::{Markup, html};

use crate::claims::CLAIMS;
use crate::claims::table::{Judged, headlines, interval, judged, label, notes, value};
use crate::render::Part;
use crate::render::axis::{Axis, Unit};
use crate::render::chart::{Frame, LineChart, Mark, Picture, Series, Tip, split_at_gaps, stacked};
use crate::render::looks::Looks;
use crate::render::page::{Chapter, Page, PageRun, table_part};
use crate::render::units::plural;
use crate::results::{ClaimRow, ClaimVerdict};

/// Started operations of C1, each with the metric of its cost.
const STARTS: [(&str, &str); 3] = [
    ("thread", "thread_start_ns"),
    ("fork", "fork_start_ns"),
    ("spawn", "spawn_start_ns"),
];

/// Builds the page of a ledger.
pub(crate) fn page<'a>(runs: Vec<PageRun<'a>>, rows: &'a [ClaimRow]) -> Page<'a> {
    let judged = judged(rows, CLAIMS);
    let chart = start_costs(rows);
    let arms = chart.iter().flat_map(|(_, chart)| &chart.series);
    let looks = Looks::new(arms.map(|series| series.arm));
    let charts: Vec<Picture> = chart
        .iter()
        .map(|(frame, chart)| stacked(frame, std::slice::from_ref(chart), &looks))
        .collect();

    let chapter = Chapter {
        name: "claims".to_owned(),
        question: Some(
            "What textbooks say about threads, processes and sockets: does it hold here?"
                .to_owned(),
        ),
        verdicts: vec![(String::new(), vec![tally(&judged)])],
        charts,
        tables: vec![table(&judged), table_part(&Part::Lines(notes(&judged)))],
    };

    Page {
        runs,
        looks,
        map: None,
        chapters: vec![chapter],
        method: method(),
    }
}

/// Number of claims with each verdict.
fn tally(judged: &[Judged<'_>]) -> String {
    if judged.is_empty() {
        return "No claim was finished.".to_owned();
    }

    let verdicts = [
        ClaimVerdict::Holds,
        ClaimVerdict::HoldsOnlyWhen,
        ClaimVerdict::DoesNotHold,
        ClaimVerdict::Inconclusive,
    ];
    let of = |verdict| {
        judged
            .iter()
            .filter(|(_, rows)| rows[0].verdict == verdict)
            .count()
    };

    let counts = verdicts.map(|verdict| (verdict, of(verdict)));
    let parts: Vec<String> = counts
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(verdict, count)| format!("{} ({count})", verdict.words()))
        .collect();
    let claims = plural(judged.len(), "claim");
    format!("{claims}: {}.", parts.join(", "))
}

/// Table with a body for each claim and a row for each of its headline figures.
fn table(judged: &[Judged<'_>]) -> Markup {
    html! {
        div.scroll role="group" aria-label="claims" tabindex="0" { table.ledger {
            thead { tr {
                th.left scope="col" { "claim" }
                th.left scope="col" { "verdict" }
                th.left scope="col" { "measured" }
                th scope="col" { "value" }
                th.left scope="col" { "interval" }
            } }
            @for (claim, rows) in judged {
                @let figures: Vec<&ClaimRow> = headlines(rows).collect();
                @let span = figures.len().max(1);
                tbody { @for index in 0..span {
                    tr.begins[index == 0] data-arm=[figures.get(index).map(|row| tag(row))] {
                        @if index == 0 {
                            th.left scope="rowgroup" rowspan=(span) { b { (claim.id) } " " (claim.claim) }
                            td.left rowspan=(span) {
                                b { (rows[0].verdict.words()) }
                                @if !rows[0].condition.is_empty() { ": " (rows[0].condition) }
                            }
                        }
                        @if let Some(row) = figures.get(index) {
                            td.left { (label(row)) }
                            td data-metric=(row.metric) data-value=[row.value] { (value(row, row.value)) }
                            td.left { (interval(row)) }
                        } @else { td colspan="3" {} }
                    }
                } }
            }
        } }
    }
}

/// Claim of a figure and its place on the curve.
fn tag(row: &ClaimRow) -> String {
    format!("{}/{}", row.claim, row.at)
}

/// Chart of C1's curves; none if it was not measured.
fn start_costs(rows: &[ClaimRow]) -> Option<(Frame, LineChart<'static>)> {
    let of = |metric: &'static str| rows.iter().filter(move |row| row.metric == metric);
    let all = || STARTS.iter().flat_map(|(_, metric)| of(metric));
    let mut places: Vec<&str> = Vec::new();
    for row in all() {
        if !places.contains(&row.at.as_str()) {
            places.push(&row.at);
        }
    }

    let steps: Vec<f64> = (0..places.len()).map(|step| step as f64).collect();
    let curve = |(arm, metric): (&'static str, &'static str)| {
        let marks = of(metric).filter_map(|row| {
            let step = places.iter().position(|place| *place == row.at)?;
            mark(arm, metric, row, step as f64)
        });
        let stretches = split_at_gaps(marks.collect(), &steps);
        (!stretches.is_empty()).then_some(Series { arm, stretches })
    };
    let series: Vec<Series<'static>> = STARTS.into_iter().filter_map(curve).collect();

    let ends = all().flat_map(|row| [row.value, row.low, row.high]);
    let ends: Vec<f64> = ends.flatten().collect();
    let counts = all().map(|row| row.blocks);
    let blocks = match (counts.clone().min()?, counts.max()?) {
        (least, most) if least == most => plural(most, "block"),
        (least, most) => format!("{least} to {most} blocks"),
    };

    let mut notes = vec![format!(
        "Medians of {blocks} with their sign-test intervals; steps not to scale."
    )];
    if all().any(|row| row.value.is_some() && row.low.is_none()) {
        notes.push("Without a band: too few blocks for an interval.".to_owned());
    }

    let frame = Frame {
        name: "start-cost".to_owned(),
        title: "Cost of a start against the parent\u{2019}s memory".to_owned(),
        subtitle: "a thread, a forked process, a new program (spawn); on one CPU".to_owned(),
        notes,
    };
    let chart = LineChart {
        x: Axis::steps("resident memory of the process that starts them", &places),
        y: Axis::amounts("time of one start and end", Unit::Time, &ends),
        series,
    };
    (!chart.series.is_empty()).then_some((frame, chart))
}

fn mark(arm: &str, metric: &'static str, row: &ClaimRow, x: f64) -> Option<Mark> {
    let shown = format!("{} {}", value(row, row.value), interval(row));

    Some(Mark {
        x,
        y: row.value?,
        interval: row.low.zip(row.high),
        metric: Some(metric),
        tag: tag(row),
        tip: Some(Tip {
            place: format!("{arm}, {}", row.at),
            value: shown.trim_end().to_owned(),
        }),
        ..Mark::default()
    })
}

fn method() -> Markup {
    html! {
        p { "Each claim has an experiment, and a rule that was fixed before anything was measured. Rules decide on ratios, "
            "shares and counts, never on times, and call inconclusive what lies between their margins." }
        p { "Every experiment and its rule: " code { "docs/claims.md" } " of the revision named above. Absolute figures "
            "belong to this machine and to no other." }
    }
}
