//! The report of a results folder: one HTML page that stands on its own, and its charts as SVG files.

mod axis;
mod chart;
mod figures;
mod ledger;
mod looks;
mod map;
mod page;
mod run;
mod standing;

use crate::results::{BlockRow, ClaimRow, Latencies, RunRecord, SummaryRow};
use crate::tables::Objective;

/// What a report is made from.
pub struct Source {
    /// The record of the run.
    pub record: RunRecord,
    /// What came of it.
    pub results: Results,
    /// The files of the folder: their names and where they are, seen from the page.
    pub files: Vec<(String, String)>,
}

/// What a results folder holds.
pub enum Results {
    /// The results of a run.
    Run(Run),
    /// The ledger of claims.
    Ledger(Vec<ClaimRow>),
}

/// The results of a run.
pub struct Run {
    /// Its summary.
    pub summary: Vec<SummaryRow>,
    /// Its blocks.
    pub blocks: Vec<BlockRow>,
    /// Its histograms.
    pub latencies: Latencies,
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

/// Makes the report of a results folder. Equal folders make equal reports.
#[must_use]
pub fn render(source: &Source) -> Rendered {
    let Source {
        record,
        results,
        files,
    } = source;
    let page = match results {
        Results::Run(run) => run::page(record, run, files),
        Results::Ledger(rows) => ledger::page(record, rows, files),
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
