//! The page of a run: who wins where, and the charts and tables of each scenario.

use maud::{Markup, html};

use super::charts::{charts, where_to};
use super::sweep::Objective;
use super::verdict::{Standing, arm_sentences, lead_sentence};
use super::winner_map::winner_map;
use crate::render::looks::Looks;
use crate::render::page::{Chapter, Page, table_part};
use crate::results::{BlockRow, Latencies, RunRecord, SummaryRow};
use crate::run::tables::{Line, Report};

/// The results of a run, as a page shows them.
pub(crate) struct RunResults {
    /// Its summary.
    pub summary: Vec<SummaryRow>,
    /// Its blocks.
    pub blocks: Vec<BlockRow>,
    /// Its histograms.
    pub latencies: Latencies,
    /// The objective of a rate sweep.
    pub objective: Objective,
}

/// The page of a run.
pub(crate) fn page<'a>(
    record: &'a RunRecord,
    run: &'a RunResults,
    files: &'a [(String, String)],
) -> Page<'a> {
    let looks = Looks::new(run.summary.iter().map(|row| row.model.as_str()));
    let reports = Report::of(&run.summary, &run.blocks);
    let groups: Vec<Vec<(String, Vec<Standing<'_>>)>> = reports.iter().map(standings).collect();
    let mut rows = Vec::new();
    for (report, groups) in reports.iter().zip(&groups) {
        for (group, standings) in groups {
            let name = match groups.len() {
                1 => report.name.to_owned(),
                _ => format!("{}, {}", report.name, group.replace(", placement ", ", ")),
            };
            rows.push((name, standings.as_slice()));
        }
    }
    let map = winner_map(&rows, &looks);
    let chapters = reports.iter().zip(&groups).map(|(report, groups)| Chapter {
        name: report.name.to_owned(),
        question: record
            .scenarios
            .get(report.name)
            .map(|scenario| scenario.question.clone()),
        verdicts: groups
            .iter()
            .map(|(group, standings)| verdicts(group, standings))
            .collect(),
        charts: charts(report, &run.latencies, &looks),
        tables: report.parts(run.objective).iter().map(table_part).collect(),
    });
    Page {
        record,
        map,
        chapters: chapters.collect(),
        looks,
        method: method(),
        files,
    }
}

/// The closed loops of a scenario, apart by driver and placement.
fn standings<'a>(report: &Report<'a>) -> Vec<(String, Vec<Standing<'a>>)> {
    let mut sections: Vec<Vec<&Line<'a>>> = Vec::new();
    for line in report
        .lines
        .iter()
        .filter(|line| line.first().load_percent.is_none())
    {
        let section = line.first().condition();
        match sections
            .iter_mut()
            .find(|lines| lines[0].first().condition() == section)
        {
            Some(lines) => lines.push(line),
            None => sections.push(vec![line]),
        }
    }
    let mut groups: Vec<(String, Vec<Standing<'a>>)> = Vec::new();
    for lines in sections {
        let standing = Standing::of(&lines);
        let name = where_to(standing.section.driver, standing.section.placement);
        match groups.iter_mut().find(|(known, _)| *known == name) {
            Some((_, standings)) => standings.push(standing),
            None => groups.push((name, vec![standing])),
        }
    }
    groups
}

fn verdicts(group: &str, standings: &[Standing<'_>]) -> (String, Vec<String>) {
    let lead = std::iter::once(lead_sentence(standings));
    let sentences = lead.chain(arm_sentences(standings)).collect();
    (format!("Clients as {group}"), sentences)
}

fn method() -> Markup {
    html! {
        p { "All arms of a section are alive at the same time, each with its connections open, and get their load in "
            "turns of some tens of milliseconds, in balanced random orders: whatever else the machine does meets them "
            "alike. A block has fresh processes. Blocks, never slices or requests, are what the statistics count." }
        p { "Estimates are medians over blocks with exact sign-test intervals. A ratio is taken within each block, its "
            "interval is corrected after Holm over all comparisons of a scenario and metric, and where it covers 1 no "
            "difference is resolved. A percentile for which there are too few requests is absent, as is an interval for "
            "which there are too few blocks." }
        p { "The whole of it, and where the suite leans: " code { "docs/methodology.md" } " and " code { "docs/biases.md" }
            " of the revision named above. Absolute figures belong to this machine and to no other." }
    }
}
