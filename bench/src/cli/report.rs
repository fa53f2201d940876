//! `echobench report DIR`: options of the HTML page about a run, about a ledger of claims, or about two runs.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::bail;
use clap::Args;

use super::view::ViewArgs;
use crate::claims;
use crate::render::page::{PageRun, Rendered};
use crate::render::report::ReportLocation;
use crate::results::{ClaimRow, RunRecord, is_ledger, read_claims, read_record};
use crate::run::compare::{CompareOptions, ComparedRuns};
use crate::run::page::RunResults;
use crate::run::{compare_page, page};

/// Options of `report`.
#[derive(Args)]
pub struct ReportArgs {
    /// A results folder; with two, the earlier one
    #[arg(value_name = "DIR")]
    folder: PathBuf,

    /// A later results folder: the page shows both runs, and what changed
    #[arg(value_name = "AFTER")]
    after: Option<PathBuf>,

    /// File of the page; its charts go into a folder beside it that has its name without the extension
    /// [default: DIR/report.html, or AFTER/compare.html]
    #[arg(short, long, value_name = "FILE")]
    out: Option<PathBuf>,

    /// Also show two runs on different kinds of machines; then ratios only
    #[arg(long, requires = "after")]
    allow_unlike: bool,

    #[command(flatten)]
    view: ViewArgs,
}

impl ReportArgs {
    /// The results folders, each with its name on the page.
    fn folders(&self) -> Vec<(&'static str, &Path)> {
        match &self.after {
            None => vec![("", &self.folder)],
            Some(after) => vec![("before", &self.folder), ("after", after)],
        }
    }

    fn page(&self) -> PathBuf {
        let default = || match &self.after {
            None => self.folder.join("report.html"),
            Some(after) => after.join("compare.html"),
        };
        self.out.clone().unwrap_or_else(default)
    }
}

pub(super) fn run(args: &ReportArgs) -> anyhow::Result<ExitCode> {
    let folders = args.folders();
    let records = folders.iter().map(|(_, folder)| read_record(folder));
    let records: Vec<RunRecord> = records.collect::<anyhow::Result<_>>()?;
    let results = StudyResults::read(args)?;

    let paths: Vec<&Path> = folders.iter().map(|(_, folder)| *folder).collect();
    let location = ReportLocation::create(args.page(), &paths)?;
    let mut runs = Vec::new();
    for ((name, folder), record) in folders.into_iter().zip(&records) {
        runs.push(PageRun {
            name,
            record,
            files: location.links(folder)?,
        });
    }
    location.write(&results.render(runs))?;
    Ok(ExitCode::SUCCESS)
}

/// Results of the study that wrote a folder, or of two runs.
enum StudyResults {
    Run(RunResults),
    Claims(Vec<ClaimRow>),
    TwoRuns(Box<ComparedRuns>),
}

impl StudyResults {
    fn read(args: &ReportArgs) -> anyhow::Result<Self> {
        let Some(after) = &args.after else {
            if is_ledger(&args.folder) {
                return read_claims(&args.folder).map(StudyResults::Claims);
            }
            return RunResults::read(&args.folder, args.view.view()).map(StudyResults::Run);
        };

        let view = args.view.view();
        if view.slo.is_some() {
            bail!("--slo: the page of two runs has no objective; give one DIR");
        }
        if is_ledger(&args.folder) || is_ledger(after) {
            bail!(
                "a ledger of claims has no page beside another: `echobench claims --from DIR --from DIR` compares them"
            );
        }
        let options = CompareOptions {
            before: args.folder.clone(),
            after: after.clone(),
            allow_unlike: args.allow_unlike,
            reference: view.reference,
        };
        ComparedRuns::read(&options).map(|runs| StudyResults::TwoRuns(Box::new(runs)))
    }

    fn render(&self, runs: Vec<PageRun<'_>>) -> Rendered {
        match self {
            StudyResults::Run(run) => page::page(runs, run).render(),
            StudyResults::Claims(rows) => claims::page::page(runs, rows).render(),
            StudyResults::TwoRuns(compared) => compare_page::page(runs, compared).render(),
        }
    }
}
