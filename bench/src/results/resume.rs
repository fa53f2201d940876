//! Resuming an interrupted run: its finished blocks are kept, and every file is cut back to their end.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};

use super::read::read_lines;
use super::{BLOCKS, BlockRow, HOSTS, HostRow, LATENCY, SLICES, SUMMARY, SliceRow, Writer};
use crate::results::histogram_log::interval_log_header;

/// Finished part of an interrupted run.
pub struct ResumableRun {
    /// Slices of its finished blocks.
    pub slices: Vec<SliceRow>,
    /// Rows of these blocks.
    pub blocks: Vec<BlockRow>,
    /// Their hosts; none if everything is on one.
    pub hosts: Vec<HostRow>,
    /// Time since the zero of the interval log.
    pub log_age: Duration,
}

/// Rows that a run plans to write.
pub trait PlannedRows {
    /// Number of hosts, each with a row in every block; 0 if everything is on one.
    fn hosts(&self) -> usize;

    /// Names of the arms of a block, given the row of the first of them; `None` for a row that is not planned.
    fn arms(&self, first: &BlockRow) -> Option<Vec<String>>;

    /// Number of slices of each arm in the same block, of which `driven` arms were not skipped.
    fn slices_of_each(&self, first: &BlockRow, driven: usize) -> Option<usize>;
}

impl Writer {
    /// Opens the folder of an interrupted run. A block in which the row of an arm is missing was not finished.
    /// Fails, and changes nothing, if rows of a finished block are missing in another file.
    ///
    /// The files only ever lose what comes after the last finished block, so that a kill at any moment of
    /// this loses nothing either.
    pub fn resume(
        folder: &Path,
        planned: &impl PlannedRows,
    ) -> anyhow::Result<(Self, ResumableRun)> {
        // Opening creates the files, so a lost one has to be noticed before.
        let has_hosts = planned.hosts() > 0;
        let hosts_file = has_hosts.then_some(HOSTS);
        for name in [BLOCKS, SLICES, LATENCY].into_iter().chain(hosts_file) {
            if !folder.join(name).exists() {
                bail!(
                    "{} has no {name}; restore it, or start a new run",
                    folder.display()
                );
            }
        }

        let mut writer = Self::open(folder, has_hosts)?;
        let (blocks, blocks_end, count) = finished_blocks(folder, planned)?;
        let finished: BTreeSet<_> = blocks
            .iter()
            .map(|row| (row.condition(), row.model.as_str(), row.block))
            .collect();

        let slices: Vec<(SliceRow, u64)> = read_lines(folder, SLICES)?;
        let is_kept = |row: &SliceRow| {
            let key = (row.condition(), row.model.as_str(), row.block);
            finished.contains(&key)
        };
        let (slices, slices_end) = leading_rows(slices, is_kept);
        check_slices(folder, planned, &blocks, &slices)?;

        let hosts: Vec<(HostRow, u64)> = if has_hosts {
            read_lines(folder, HOSTS)?
        } else {
            Vec::new()
        };
        let (hosts, hosts_end) = leading_rows(hosts, |row: &HostRow| {
            let key = (row.condition(), row.model.as_str(), row.block);
            finished.contains(&key)
        });
        let expected = count * planned.hosts();
        if hosts.len() != expected {
            bail!(
                "{}/hosts.csv has {} of {expected} rows of finished blocks; restore it, or start a new run",
                folder.display(),
                hosts.len()
            );
        }

        let lines = blocks.iter().filter(|row| row.is_ok()).count();
        let log = fs::read_to_string(folder.join(LATENCY))
            .with_context(|| format!("cannot read {}/latency.hlog", folder.display()))?;
        let Some(log_end) = end_of_log(&log, lines) else {
            bail!(
                "{}/latency.hlog has fewer lines than blocks.csv has rows; restore it, or start a new run",
                folder.display()
            );
        };

        let truncate = |file: &File, end: u64| {
            file.set_len(end)
                .with_context(|| format!("cannot write results to {}", folder.display()))
        };
        truncate(&writer.blocks, blocks_end)?;
        truncate(&writer.slices, slices_end)?;
        truncate(&writer.latency, log_end)?;
        if let Some(file) = &writer.hosts {
            truncate(file, hosts_end)?;
        }
        if log_end == 0 {
            writer.latency.write_all(interval_log_header().as_bytes())?;
        }
        writer.named = blocks_end > 0;

        // An interrupted run has a summary of its finished blocks; it must not outlive the next kill.
        match fs::remove_file(folder.join(SUMMARY)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }

        let kept = ResumableRun {
            slices,
            blocks,
            hosts,
            log_age: log_age(&log).unwrap_or_default(),
        };
        Ok((writer, kept))
    }
}

/// The leading rows that are to be kept, and the position of their end in the file.
fn leading_rows<R>(lines: Vec<(R, u64)>, is_kept: impl Fn(&R) -> bool) -> (Vec<R>, u64) {
    let mut end = 0;
    let mut rows = Vec::new();
    for (row, at) in lines.into_iter().take_while(|(row, _)| is_kept(row)) {
        rows.push(row);
        end = at;
    }
    (rows, end)
}

/// Fails if an arm of a finished block has not all its slices: `slices.csv` was shortened, since a block's
/// slices are written before its row. Rows from the first on that is not planned, or of an unfinished block, are not
/// looked at.
pub fn check_slices(
    folder: &Path,
    planned: &impl PlannedRows,
    blocks: &[BlockRow],
    slices: &[SliceRow],
) -> anyhow::Result<()> {
    let mut found: BTreeMap<_, usize> = BTreeMap::new();
    for row in slices {
        let arm = (row.condition(), row.block, row.model.as_str());
        *found.entry(arm).or_default() += 1;
    }

    let mut rest = blocks;
    while let Some(first) = rest.first() {
        let arms = planned.arms(first).map_or(0, |arms| arms.len());
        let Some((block, others)) = rest.split_at_checked(arms).filter(|_| arms > 0) else {
            break;
        };
        let driven = block.iter().filter(|row| row.skipped().is_none()).count();
        let expected = planned.slices_of_each(first, driven).unwrap_or(0);

        for row in block.iter().filter(|row| row.is_ok()) {
            let arm = (row.condition(), row.block, row.model.as_str());
            let found = found.get(&arm).copied().unwrap_or(0);
            if found != expected {
                bail!(
                    "{}/slices.csv has {found} of {expected} slices of {}, {}, {}, block {}; restore it, or \
                     start a new run",
                    folder.display(),
                    row.scenario,
                    row.condition().clients_in_words(),
                    row.model,
                    row.block
                );
            }
        }
        rest = others;
    }
    Ok(())
}

/// The rows of the finished blocks, the position of their end in the file, and the number of blocks.
fn finished_blocks(
    folder: &Path,
    planned: &impl PlannedRows,
) -> anyhow::Result<(Vec<BlockRow>, u64, usize)> {
    let lines: Vec<(BlockRow, u64)> = read_lines(folder, BLOCKS)?;
    let (mut finished, mut count) = (0, 0);

    while let Some((first, _)) = lines.get(finished) {
        let arms = planned.arms(first).unwrap_or_default();
        let rows = lines[finished..].iter().map(|(row, _)| &row.model);
        if arms.is_empty() || rows.zip(&arms).any(|(model, arm)| model != arm) {
            bail!(
                "{}/blocks.csv has a row that run.json does not plan ({}, {}, block {}); start a new \
                 run",
                folder.display(),
                first.scenario,
                first.model,
                first.block
            );
        }

        if finished + arms.len() > lines.len() {
            break;
        }
        finished += arms.len();
        count += 1;
    }

    let end = finished.checked_sub(1).map_or(0, |last| lines[last].1);
    let blocks = lines.into_iter().take(finished).map(|(row, _)| row);
    Ok((blocks.collect(), end, count))
}

/// Position of the end of an interval log with a number of histograms; 0 if its head is not whole.
fn end_of_log(log: &str, histograms: usize) -> Option<u64> {
    let header = interval_log_header().lines().count();
    let ends: Vec<_> = log.match_indices('\n').map(|(at, _)| at + 1).collect();
    if histograms == 0 && ends.len() < header {
        return Some(0);
    }
    let end = *ends.get(header + histograms - 1)?;
    u64::try_from(end).ok()
}

/// Time since the zero of an interval log, by its head.
fn log_age(log: &str) -> Option<Duration> {
    let mut lines = log.lines();
    let base = lines.find_map(|line| line.strip_prefix("#[BaseTime: "))?;
    let seconds = base.split_whitespace().next()?.parse().ok()?;
    let base = UNIX_EPOCH.checked_add(Duration::try_from_secs_f64(seconds).ok()?)?;
    SystemTime::now().duration_since(base).ok()
}
