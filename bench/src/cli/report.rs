//! `echobench report DIR`: options of the HTML page about a run or about a ledger of claims.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::view::ViewArgs;
use crate::claims;
use crate::render::page::Rendered;
use crate::render::report::ReportLocation;
use crate::results::{ClaimRow, RunRecord, is_ledger, read_claims, read_record};
use crate::run::page::{self, RunResults};

/// Options of `report`.
#[derive(Args)]
pub struct ReportArgs {
    /// A results folder
    #[arg(value_name = "DIR")]
    folder: PathBuf,

    /// File of the page; its charts go into a folder beside it that has its name without the extension
    /// [default: DIR/report.html]
    #[arg(short, long, value_name = "FILE")]
    out: Option<PathBuf>,

    #[command(flatten)]
    view: ViewArgs,
}

pub(super) fn run(args: &ReportArgs) -> anyhow::Result<ExitCode> {
    let record = read_record(&args.folder)?;
    let results = StudyResults::read(args)?;

    let location = ReportLocation::create(&args.folder, args.out.as_deref())?;
    let report = results.render(&record, &location.links()?);
    location.write(&report)?;
    Ok(ExitCode::SUCCESS)
}

/// Results of the study that wrote a folder.
enum StudyResults {
    Run(RunResults),
    Claims(Vec<ClaimRow>),
}

impl StudyResults {
    fn read(args: &ReportArgs) -> anyhow::Result<Self> {
        if is_ledger(&args.folder) {
            return read_claims(&args.folder).map(StudyResults::Claims);
        }
        RunResults::read(&args.folder, args.view.view()).map(StudyResults::Run)
    }

    fn render(&self, record: &RunRecord, files: &[(String, String)]) -> Rendered {
        match self {
            StudyResults::Run(run) => page::page(record, run, files).render(),
            StudyResults::Claims(rows) => claims::page::page(record, rows, files).render(),
        }
    }
}
