//! Writing a results folder.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde::Serialize;

use super::histogram_log::interval_log_header;
use super::record::RunRecord;
use super::rows::{BlockRow, ClaimRow, HostRow, SliceRow, SummaryRow};
use super::{BLOCKS, CLAIMS, HOSTS, LATENCY, RECORD, SLICES, SUMMARY};
use crate::host::environment::Environment;
use crate::host::files::write_file;

/// A results folder that is being written.
pub struct Writer {
    folder: PathBuf,
    pub(super) slices: File,
    /// Locked, so that no two runs write to the same folder.
    pub(super) blocks: Flock<File>,
    pub(super) latency: File,
    /// `None` if everything is on one host.
    pub(super) hosts: Option<File>,
    /// Whether the names of the columns are written; they are with the first rows.
    pub(super) named: bool,
}

impl Writer {
    /// Creates the folder, which must not exist yet or be empty.
    pub fn create(folder: &Path, record: &RunRecord) -> anyhow::Result<Self> {
        let place = || format!("cannot write results to {}", folder.display());
        create_empty(folder)?;

        let mut writer = Self::open(folder, !record.hosts.is_empty())?;
        writer
            .latency
            .write_all(interval_log_header().as_bytes())
            .with_context(place)?;
        writer.record(record)?;
        Ok(writer)
    }

    /// Opens the files that grow.
    pub(super) fn open(folder: &Path, has_hosts: bool) -> anyhow::Result<Self> {
        let append = |name: &str| append_to(folder, name);
        let blocks = Flock::lock(append(BLOCKS)?, FlockArg::LockExclusiveNonblock);

        let blocks = match blocks {
            Ok(blocks) => blocks,
            Err((_, Errno::EWOULDBLOCK)) => {
                bail!(
                    "another run is writing to {}; wait for it",
                    folder.display()
                )
            }
            Err((_, error)) => bail!("cannot lock {}/blocks.csv: {error}", folder.display()),
        };

        Ok(Writer {
            slices: append(SLICES)?,
            blocks,
            latency: append(LATENCY)?,
            hosts: has_hosts.then(|| append(HOSTS)).transpose()?,
            named: false,
            folder: folder.to_owned(),
        })
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Adds the rows of one block, all or none.
    pub fn block(
        &mut self,
        slices: &[SliceRow],
        blocks: &[BlockRow],
        hosts: &[HostRow],
        latency: &str,
    ) -> anyhow::Result<()> {
        let place = || format!("cannot write results to {}", self.folder.display());
        let names = !std::mem::replace(&mut self.named, true);

        self.slices
            .write_all(csv_text(slices, names)?.as_bytes())
            .with_context(place)?;
        self.latency
            .write_all(latency.as_bytes())
            .with_context(place)?;

        if let Some(file) = &mut self.hosts {
            file.write_all(csv_text(hosts, names)?.as_bytes())
                .with_context(place)?;
        }

        // Last, since a block with rows in this file counts as finished: a kill before it leaves the block
        // to be measured again.
        self.blocks
            .write_all(csv_text(blocks, names)?.as_bytes())
            .with_context(place)
    }

    /// Writes or replaces `run.json`.
    pub fn record(&self, record: &RunRecord) -> anyhow::Result<()> {
        write_record(&self.folder, record)
    }

    /// Writes or replaces `summary.csv`.
    pub fn summary(&self, summary: &[SummaryRow]) -> anyhow::Result<()> {
        write_file(&self.folder.join(SUMMARY), &csv_text(summary, true)?)
    }
}

/// A results folder of a ledger of claims that is being written.
pub struct ClaimsWriter {
    folder: PathBuf,
    claims: File,
    /// Whether the names of the columns are written; they are with the first rows.
    named: bool,
}

impl ClaimsWriter {
    /// Creates the folder, which must not exist yet or be empty.
    pub fn create(folder: &Path, record: &RunRecord) -> anyhow::Result<Self> {
        create_empty(folder)?;
        write_record(folder, record)?;
        Ok(ClaimsWriter {
            claims: append_to(folder, CLAIMS)?,
            named: false,
            folder: folder.to_owned(),
        })
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Adds the rows of one claim, all or none.
    pub fn claim(&mut self, rows: &[ClaimRow]) -> anyhow::Result<()> {
        let names = !std::mem::replace(&mut self.named, true);
        self.claims
            .write_all(csv_text(rows, names)?.as_bytes())
            .with_context(|| format!("cannot write results to {}", self.folder.display()))
    }

    /// Writes or replaces `run.json`.
    pub fn record(&self, record: &RunRecord) -> anyhow::Result<()> {
        write_record(&self.folder, record)
    }
}

/// Creates a folder, or checks that it is empty.
fn create_empty(folder: &Path) -> anyhow::Result<()> {
    let place = || format!("cannot write results to {}", folder.display());
    fs::create_dir_all(folder).with_context(place)?;

    if fs::read_dir(folder).with_context(place)?.next().is_some() {
        bail!(
            "{} is not empty; results are never overwritten: give another --out",
            folder.display()
        );
    }
    Ok(())
}

fn append_to(folder: &Path, name: &str) -> anyhow::Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(folder.join(name))
        .with_context(|| format!("cannot write results to {}", folder.display()))
}

fn write_record(folder: &Path, record: &RunRecord) -> anyhow::Result<()> {
    write_file(
        &folder.join(RECORD),
        &(serde_json::to_string_pretty(record)? + "\n"),
    )
}

/// Creates the results folder of a run or ledger without `--out`. Short forms go to a folder of their own,
/// which git ignores. `suffix` names the contents of a folder that is not a run's.
///
/// Creating it reserves the name: of two runs that start in the same second, the later one takes the next.
pub fn create_default_folder(
    full: bool,
    environment: &Environment,
    suffix: &str,
) -> anyhow::Result<PathBuf> {
    let revision = environment.short_revision().unwrap_or("unknown");
    let now = jiff::Timestamp::now();

    let base = if full {
        let date = now.strftime("%Y-%m-%d");
        let machine = environment.machine.slug();
        Path::new("results").join(format!("{date}-{revision}-{machine}{suffix}"))
    } else {
        let time = now.strftime("%Y-%m-%dT%H%M%SZ");
        Path::new("results/quick").join(format!("{time}-{revision}{suffix}"))
    };

    if let Some(parent) = base.parent() {
        fs::create_dir_all(parent).with_context(|| failure(parent))?;
    }
    let mut folder = base.clone();
    let mut number = 1;
    loop {
        match fs::create_dir(&folder) {
            Ok(()) => return Ok(folder),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                number += 1;
                folder = PathBuf::from(format!("{}-{number}", base.display()));
            }
            Err(error) => return Err(error).with_context(|| failure(&folder)),
        }
    }
}

fn failure(folder: &Path) -> String {
    format!("cannot write results to {}", folder.display())
}

/// Rows as CSV, with or without the line of names.
pub fn csv_text<R: Serialize>(rows: &[R], names: bool) -> anyhow::Result<String> {
    let mut writer = csv::WriterBuilder::new()
        .has_headers(names)
        .from_writer(Vec::new());
    for row in rows {
        writer.serialize(row)?;
    }

    Ok(String::from_utf8(writer.into_inner()?)?)
}
