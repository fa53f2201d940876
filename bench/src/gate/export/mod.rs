//! Formats of a gate's report, for people and for the tools of CI: one file each.

mod bmf;
mod github_action_benchmark;
mod json;
mod junit;
mod table;

use std::path::PathBuf;
use std::str::FromStr;

use echobench_protocol::textual_enum;

use super::GateReport;
use super::rule::GateComparison;
use crate::host::files::ResultFile;
use crate::render::Style;

/// A format of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Table for a terminal.
    Table,
    /// Markdown.
    Markdown,
    /// JSON with every field.
    Json,
    /// Bencher Metric Format.
    Bmf,
    /// `customSmallerIsBetter` of github-action-benchmark.
    GithubActionBenchmark,
    /// `JUnit` XML.
    Junit,
}

textual_enum!(Format, "format", {
    Table => "table",
    Markdown => "markdown",
    Json => "json",
    Bmf => "bmf",
    GithubActionBenchmark => "github-action-benchmark",
    Junit => "junit",
});

impl Format {
    /// The report in this format.
    pub fn render(self, report: &GateReport) -> anyhow::Result<String> {
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

/// A file for the report: `FORMAT=FILE`.
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
        let format = format.parse::<Format>();
        Ok(Export {
            format: format.map_err(|error| error.to_string())?,
            path: path.into(),
        })
    }
}

impl Export {
    /// Checks that the file can be written, before the measurement.
    pub(super) fn open(&self) -> anyhow::Result<ExportFile> {
        Ok(ExportFile {
            format: self.format,
            file: ResultFile::open(&self.path)?,
        })
    }
}

/// An export whose file was found to be writable.
pub(super) struct ExportFile {
    format: Format,
    file: ResultFile,
}

impl ExportFile {
    /// Writes the file, whole or not at all.
    pub(super) fn write(&self, report: &GateReport) -> anyhow::Result<()> {
        self.file.write(self.format.render(report)?)
    }
}

/// Name of a comparison in the lists of other tools.
fn comparison_name(report: &GateReport, line: &GateComparison) -> String {
    format!("{}/{}", report.scenario, line.subject)
}
