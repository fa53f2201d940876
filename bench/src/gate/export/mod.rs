//! What a gate came to, for people and for the tools of CI: one file for each format.

mod bmf;
mod github_action_benchmark;
mod json;
mod junit;
mod table;

use std::path::PathBuf;
use std::str::FromStr;

use clap::ValueEnum;

use super::Report;
use crate::host::files::write_file;
use crate::render::Style;

/// How a report is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For a terminal.
    Table,
    /// For the summary of a CI job.
    Markdown,
    /// Everything, for programs.
    Json,
    /// Bencher Metric Format.
    Bmf,
    /// `customSmallerIsBetter` of github-action-benchmark.
    GithubActionBenchmark,
    /// `JUnit` XML: a test case for each comparison.
    Junit,
}

impl Format {
    /// The report in this format.
    pub fn render(self, report: &Report) -> anyhow::Result<String> {
        Ok(match self {
            Format::Table => table::render(report, Style::Plain),
            Format::Markdown => table::render(report, Style::Markdown),
            Format::Json => json::render(report)?,
            Format::Bmf => bmf::render(report)?,
            Format::GithubActionBenchmark => github_action_benchmark::render(report)?,
            Format::Junit => junit::render(report),
        })
    }
}

/// A file that a report is to be written to: `FORMAT=FILE`.
#[derive(Clone, Debug)]
pub struct Export {
    format: Format,
    path: PathBuf,
}

impl FromStr for Export {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let Some((format, path)) = text.split_once('=').filter(|(_, path)| !path.is_empty()) else {
            return Err("write FORMAT=FILE, such as junit=gate.xml".to_owned());
        };
        Ok(Export {
            format: Format::from_str(format, false)?,
            path: path.into(),
        })
    }
}

impl Export {
    /// Writes the file, whole or not at all.
    pub fn write(&self, report: &Report) -> anyhow::Result<()> {
        write_file(&self.path, &self.format.render(report)?)
    }
}

/// The name of a comparison in the lists of other tools.
fn name(report: &Report, line: &super::rule::Comparison) -> String {
    format!("{}/{}", report.scenario, line.subject)
}
