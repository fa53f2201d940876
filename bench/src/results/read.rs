//! Reading a results folder.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use serde::de::DeserializeOwned;

use super::column::RunStatus;
use super::metric::Metric;
use super::record::RunRecord;
use super::rows::{BlockRow, ClaimRow, HostRow, SliceRow, SummaryRow};
use super::{BLOCKS, CLAIMS, HOSTS, RECORD, SCHEMA_VERSION, SLICES, SUMMARY};

/// The slices of a results folder.
pub fn read_slices(folder: &Path) -> anyhow::Result<Vec<SliceRow>> {
    read(folder, SLICES)
}

/// The blocks of a results folder.
pub fn read_blocks(folder: &Path) -> anyhow::Result<Vec<BlockRow>> {
    read(folder, BLOCKS)
}

/// The hosts of a run in each of its blocks; none of a run on one host.
pub fn read_hosts(folder: &Path) -> anyhow::Result<Vec<HostRow>> {
    if !folder.join(HOSTS).exists() {
        return Ok(Vec::new());
    }
    read(folder, HOSTS)
}

/// Whether a results folder is that of a ledger of claims, not that of a run.
#[must_use]
pub fn is_ledger(folder: &Path) -> bool {
    folder.join(CLAIMS).exists() && !folder.join(BLOCKS).exists()
}

/// The claims of a results folder.
pub fn read_claims(folder: &Path) -> anyhow::Result<Vec<ClaimRow>> {
    read(folder, CLAIMS)
}

/// The summary of a results folder; `None` if the run was killed before there was one.
pub fn read_summary(folder: &Path) -> anyhow::Result<Option<Vec<SummaryRow>>> {
    let killed = !folder.join(SUMMARY).exists() && folder.join(BLOCKS).exists();
    if killed {
        return Ok(None);
    }

    // Metrics of other versions are skipped: no table here has a place for them.
    let is_known = |row: &csv::StringRecord, names: &csv::StringRecord| {
        let column = names.iter().position(|name| name == "metric");
        let metric = column.and_then(|column| row.get(column));
        metric.is_none_or(|metric| metric.parse::<Metric>().is_ok())
    };
    let lines = read_lines_where(folder, SUMMARY, is_known)?;
    Ok(Some(lines.into_iter().map(|(row, _)| row).collect()))
}

/// The record of a run.
pub fn read_record(folder: &Path) -> anyhow::Result<RunRecord> {
    let (path, text) = open(folder, RECORD)?;
    let fault = |error: serde_json::Error| {
        let text = error.to_string();
        // serde_json appends the place to its message; ours names the file before the line.
        let what = text.split(" at line ").next().unwrap_or(&text);
        anyhow!("{}, line {}: {what}", path.display(), error.line())
    };

    // The version first: in a record of another version, other fields may be missing as well.
    let known: serde_json::Value = serde_json::from_str(&text).map_err(fault)?;
    let version = &known["schema_version"];
    if *version != SCHEMA_VERSION {
        let place = path.display().to_string();
        bail!("{}", other_version(&place, &version.to_string()));
    }

    let mut record: RunRecord = serde_json::from_str(&text).map_err(fault)?;
    for (name, scenario) in &mut record.scenarios {
        scenario.name.clone_from(name);
    }
    Ok(record)
}

/// The path and the text of a file of a results folder.
fn open(folder: &Path, name: &str) -> anyhow::Result<(PathBuf, String)> {
    if !folder.is_dir() {
        bail!(
            "{} is not a folder; give a results folder, such as one under results/",
            folder.display()
        );
    }

    let path = folder.join(name);
    match fs::read_to_string(&path) {
        Ok(text) => Ok((path, text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => bail!(
            "{} is not a results folder: it has no {name}; give one such as those under results/",
            folder.display()
        ),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

fn other_version(place: &str, version: &str) -> String {
    format!(
        "{place}: schema version '{version}', this echobench reads {SCHEMA_VERSION}; take the one that \
         wrote the folder"
    )
}

/// Removes the partial line that a killed run has left at the end. In a file in which a kill cannot
/// leave one, it is an error.
fn whole_lines(folder: &Path, path: &Path, text: &mut String) -> anyhow::Result<()> {
    let end = text.rfind('\n').map_or(0, |end| end + 1);
    if end < text.len() {
        check_partial_line(folder, path, text.lines().count())?;
        text.truncate(end);
    }

    Ok(())
}

/// Fails if a kill cannot have left a partial line, the one of this number, at the end of a file.
pub(super) fn check_partial_line(folder: &Path, path: &Path, number: usize) -> anyhow::Result<()> {
    let appended = path.file_name().is_some_and(|name| name != SUMMARY);
    let complete = read_record(folder).is_ok_and(|record| record.status == RunStatus::Complete);
    if !appended || complete {
        bail!(
            "{}, line {number}: the line breaks off; the file is damaged",
            path.display()
        );
    }
    Ok(())
}

/// The rows of a CSV file in a folder.
pub fn read<R: DeserializeOwned>(folder: &Path, name: &str) -> anyhow::Result<Vec<R>> {
    let lines = read_lines(folder, name)?;
    Ok(lines.into_iter().map(|(row, _)| row).collect())
}

/// The rows of a CSV file, each with the position of its end in the file.
pub(super) fn read_lines<R: DeserializeOwned>(
    folder: &Path,
    name: &str,
) -> anyhow::Result<Vec<(R, u64)>> {
    read_lines_where(folder, name, |_, _| true)
}

/// The same of the lines for which `wanted` holds, given the line and the names of the columns.
fn read_lines_where<R: DeserializeOwned>(
    folder: &Path,
    name: &str,
    wanted: impl Fn(&csv::StringRecord, &csv::StringRecord) -> bool,
) -> anyhow::Result<Vec<(R, u64)>> {
    let (path, mut text) = open(folder, name)?;
    whole_lines(folder, &path, &mut text)?;

    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let names = reader.headers()?.clone();
    let mut rows = Vec::new();
    let mut record = csv::StringRecord::new();
    let at = |line: u64| format!("{}, line {line}", path.display());

    loop {
        match reader.read_record(&mut record) {
            Ok(true) => {}
            Ok(false) => return Ok(rows),
            Err(error) => {
                let place = at(error.position().map_or(0, csv::Position::line));
                bail!("{place}: {}", csv_fault(&error, &names));
            }
        }

        let place = at(record.position().map_or(0, csv::Position::line));
        let version = record.get(0).unwrap_or_default();
        if version != SCHEMA_VERSION.to_string() {
            bail!("{}", other_version(&place, version));
        }
        if !wanted(&record, &names) {
            continue;
        }
        let row = record
            .deserialize(Some(&names))
            .map_err(|error| anyhow!("{place}: {}", csv_fault(&error, &names)))?;
        rows.push((row, reader.position().byte()));
    }
}

/// The message of a CSV error, without its place.
fn csv_fault(error: &csv::Error, names: &csv::StringRecord) -> String {
    match error.kind() {
        csv::ErrorKind::UnequalLengths {
            expected_len, len, ..
        } => format!("{len} fields instead of {expected_len}"),
        csv::ErrorKind::Deserialize { err, .. } => {
            let column = |field: u64| names.get(usize::try_from(field).ok()?);
            match err.field().and_then(column) {
                Some(column) => format!("{column}: {}", err.kind()),
                None => err.kind().to_string(),
            }
        }
        _ => error.to_string(),
    }
}
