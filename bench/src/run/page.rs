//! Page of a run: the winner map, and verdicts, charts and tables of each scenario.

use std::path::Path;

use maud::{Markup, html};

use super::charts::{charts, curve_quantiles};
use super::scenario_report::ScenarioReport;
use super::stored::StoredRun;
use super::verdict::RankingGroup;
use super::winner_map::winner_map;
use crate::render::looks::Looks;
use crate::render::page::{Chapter, Page, PageRun, table_part};
use crate::results::{BlockPercentiles, read_percentiles};
use crate::scenario::View;

/// Results of a run, as a page shows them.
pub(crate) struct RunResults {
    run: StoredRun,
    percentiles: BlockPercentiles,
}

impl RunResults {
    /// Reads a results folder.
    pub(crate) fn read(folder: &Path, view: View) -> anyhow::Result<Self> {
        let run = StoredRun::read(folder, view)?;
        Ok(RunResults {
            percentiles: read_percentiles(folder, &run.blocks, curve_quantiles())?,
            run,
        })
    }
}

/// The page of a run.
pub(crate) fn page<'a>(runs: Vec<PageRun<'a>>, results: &'a RunResults) -> Page<'a> {
    let StoredRun {
        summary,
        blocks,
        views,
        ..
    } = &results.run;
    let looks = Looks::new(summary.iter().map(|row| row.model.as_str()));
    let reports = ScenarioReport::each(summary, blocks, views);
    let groups: Vec<Vec<RankingGroup<'_>>> = reports.iter().map(ScenarioReport::groups).collect();

    let mut map_rows = Vec::new();
    for (report, groups) in reports.iter().zip(&groups) {
        let by_throughput = groups.iter();
        let by_throughput = by_throughput.filter(|(_, group)| group[0].is_by_throughput());
        for (group, rankings) in by_throughput {
            let name = match groups.len() {
                1 => report.name.to_owned(),
                _ => format!("{}, {}", report.name, group.replace(", placement ", ", ")),
            };
            map_rows.push((name, rankings.as_slice()));
        }
    }
    let map = winner_map(&map_rows, &looks);

    let scenarios = &runs[0].record.scenarios;
    let chapters = reports.iter().zip(&groups).map(|(report, groups)| Chapter {
        name: report.name.to_owned(),
        question: scenarios
            .get(report.name)
            .map(|scenario| scenario.question.clone()),
        verdicts: report.verdicts(groups),
        charts: charts(report, &results.percentiles, &looks),
        tables: report.parts().iter().map(table_part).collect(),
    });
    Page {
        runs,
        map,
        chapters: chapters.collect(),
        looks,
        method: method(),
    }
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
