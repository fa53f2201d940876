//! `echobench report DIR`: the report of a run or of a ledger of claims as one HTML page, and its charts as SVG
//! files beside it.

use std::fs;
use std::path::{Component, Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;

use super::table::read_tables;
use crate::claims;
use crate::host::files::write_file;
use crate::render::page::Rendered;
use crate::render::units::plural;
use crate::results::{
    ClaimRow, FILES, RunRecord, is_ledger, read_claims, read_latencies, read_record,
};
use crate::run::page::{self, RunResults};
use crate::run::sweep::Objective;
use crate::{noteln, outln};

/// The options of `report`.
#[derive(Args)]
pub struct ReportArgs {
    /// A results folder
    #[arg(value_name = "DIR")]
    folder: PathBuf,

    /// Where to write the page; its charts go into a folder beside it that has its name without the
    /// extension [default: DIR/report.html]
    #[arg(short, long, value_name = "FILE")]
    out: Option<PathBuf>,

    /// What to look for in a rate sweep: the highest rate at which a percentile of latency keeps
    /// within a time
    #[arg(long, value_name = "pNN=TIME", default_value_t)]
    objective: Objective,
}

pub(super) fn run(args: &ReportArgs) -> anyhow::Result<ExitCode> {
    let record = read_record(&args.folder)?;
    let results = read_results(args)?;
    let path = args
        .out
        .clone()
        .unwrap_or_else(|| args.folder.join("report.html"));
    let charts = path.with_extension("");
    let place = || format!("cannot write the report to {}", path.display());
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(parent).with_context(place)?;
    if charts == path || charts == args.folder {
        anyhow::bail!(
            "{} leaves no name for the charts' folder: end it in .html",
            path.display()
        );
    }
    let files = links(parent, &args.folder).with_context(place)?;
    let report = results.render(&record, &files);
    fs::create_dir_all(&charts).with_context(place)?;
    for (name, svg) in &report.pictures {
        write_file(&charts.join(name).with_extension("svg"), svg)?;
    }
    write_file(&path, &report.html)?;
    outln!("{}", path.display());
    let number = plural(report.pictures.len(), "chart");
    noteln!("{number} in {}", charts.display());
    Ok(ExitCode::SUCCESS)
}

/// The results of a folder, read.
enum Results {
    Run(RunResults),
    Ledger(Vec<ClaimRow>),
}

impl Results {
    fn render(&self, record: &RunRecord, files: &[(String, String)]) -> Rendered {
        match self {
            Results::Run(run) => page::page(record, run, files).render(),
            Results::Ledger(rows) => claims::page::page(record, rows, files).render(),
        }
    }
}

fn read_results(args: &ReportArgs) -> anyhow::Result<Results> {
    let folder = &args.folder;
    if is_ledger(folder) {
        return read_claims(folder).map(Results::Ledger);
    }
    let (summary, blocks) = read_tables(folder)?;
    Ok(Results::Run(RunResults {
        latencies: read_latencies(folder, &blocks)?,
        summary,
        blocks,
        objective: args.objective,
    }))
}

/// The files of the folder that are there, as links from a page in `from`.
fn links(from: &Path, folder: &Path) -> std::io::Result<Vec<(String, String)>> {
    let way = way(&from.canonicalize()?, &folder.canonicalize()?);
    let there = FILES.iter().filter(|name| folder.join(name).exists());
    Ok(there
        .map(|name| ((*name).to_owned(), escaped(&way.join(name))))
        .collect())
}

/// The relative path from one folder to another.
fn way(from: &Path, to: &Path) -> PathBuf {
    let (from, to): (Vec<Component<'_>>, Vec<Component<'_>>) =
        (from.components().collect(), to.components().collect());
    let same = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
    let up = from[same..].iter().map(|_| Component::ParentDir);
    up.chain(to[same..].iter().copied()).collect()
}

/// A path as a link: a few letters mean something else there.
fn escaped(path: &Path) -> String {
    let mut link = String::new();
    for letter in path.display().to_string().chars() {
        match letter {
            ' ' => link.push_str("%20"),
            '%' => link.push_str("%25"),
            '?' => link.push_str("%3F"),
            '#' => link.push_str("%23"),
            letter => link.push(letter),
        }
    }
    link
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_from_the_page_to_the_folder() {
        let way = |from: &str, to: &str| way(Path::new(from), Path::new(to)).display().to_string();
        assert_eq!(way("/a/b", "/a/b"), "");
        assert_eq!(way("/a", "/a/results/x"), "results/x");
        assert_eq!(way("/a/pages", "/a/results/x"), "../results/x");
        assert_eq!(escaped(Path::new("50% done/run 1")), "50%25%20done/run%201");
    }
}
