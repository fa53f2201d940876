//! The report of a run: one HTML page that stands on its own, and its charts as SVG files.

mod axis;
mod chart;
mod figures;
mod looks;
mod map;
mod page;
mod standing;

use crate::results::{BlockRow, Latencies, RunRecord, SummaryRow};
use crate::tables::{Line, Objective, Report};

use figures::{charts, where_to};
use looks::Looks;
use map::winner_map;
use page::{Chapter, Page};
use standing::{Standing, arm_sentences, lead_sentence};

/// What a report is made from.
pub struct Source<'a> {
    /// The record of the run.
    pub record: &'a RunRecord,
    /// Its summary.
    pub summary: &'a [SummaryRow],
    /// Its blocks.
    pub blocks: &'a [BlockRow],
    /// Its histograms.
    pub latencies: &'a Latencies,
    /// The files of the run: their names and where they are, seen from the page.
    pub files: Vec<(String, String)>,
    /// What a rate sweep looks for.
    pub objective: Objective,
}

/// A finished report.
pub struct Rendered {
    /// The page.
    pub html: String,
    /// The names of the charts, without the extension, and the charts as SVG.
    pub pictures: Vec<(String, String)>,
}

/// Makes the report of a run. Equal runs make equal reports.
#[must_use]
pub fn render(source: Source<'_>) -> Rendered {
    let looks = Looks::new(source.summary.iter().map(|row| row.model.as_str()));
    let reports = Report::of(source.summary, source.blocks);
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
        question: source
            .record
            .scenarios
            .get(report.name)
            .map(|scenario| scenario.question.clone()),
        verdicts: groups
            .iter()
            .map(|(group, standings)| verdicts(group, standings))
            .collect(),
        charts: charts(report, source.latencies, &looks),
        tables: report.parts(source.objective),
    });
    let page = Page {
        record: source.record,
        looks: &looks,
        map,
        chapters: chapters.collect(),
        files: source.files,
    };
    let charts = page.chapters.iter().flat_map(|chapter| &chapter.charts);
    let pictures = page.map.iter().chain(charts);
    Rendered {
        pictures: pictures
            .map(|picture| (picture.name.clone(), picture.file()))
            .collect(),
        html: page.html(),
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
        let section = line.first().section();
        match sections
            .iter_mut()
            .find(|lines| lines[0].first().section() == section)
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
