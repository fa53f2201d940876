//! Resuming an interrupted run: the rows of its finished blocks are kept, and every file is truncated to
//! their end.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};

use super::read::read_lines;
use super::{BLOCKS, BlockRow, LATENCY, SLICES, SUMMARY, SliceRow, Writer};
use crate::results::histogram_log::interval_log_header;

/// The finished part of an interrupted run.
pub struct ResumableRun {
    /// The slices of its finished blocks.
    pub slices: Vec<SliceRow>,
    /// The rows of these blocks.
    pub blocks: Vec<BlockRow>,
    /// Time since the zero of the interval log's times.
    pub log_age: Duration,
}

impl Writer {
    /// Opens the folder of an interrupted run. `arms_of_block` names the arms whose rows were written
    /// together, given the row of the first of them; `None` for a row of another experiment. A block in
    /// which one of them is missing was not finished.
    ///
    /// The files lose only what follows the last finished block, so a kill during this loses nothing
    /// either.
    pub fn resume(
        folder: &Path,
        arms_of_block: impl Fn(&BlockRow) -> Option<Vec<String>>,
    ) -> anyhow::Result<(Self, ResumableRun)> {
        let mut writer = Self::open(folder)?;
        let (blocks, blocks_end) = finished_blocks(folder, arms_of_block)?;

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

        let lines = blocks.iter().filter(|row| row.is_ok()).count();
        let log = fs::read_to_string(folder.join(LATENCY))
            .with_context(|| format!("cannot read {}/latency.hlog", folder.display()))?;
        let Some(log_end) = end_of_log(&log, lines) else {
            bail!(
                "{}/latency.hlog has fewer lines than blocks.csv has rows; start a new run",
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
            log_age: log_age(&log).unwrap_or_default(),
        };
        Ok((writer, kept))
    }
}

/// The first rows for which `is_kept` holds, and the position of their end in the file.
fn leading_rows<R>(lines: Vec<(R, u64)>, is_kept: impl Fn(&R) -> bool) -> (Vec<R>, u64) {
    let mut end = 0;
    let mut rows = Vec::new();
    for (row, at) in lines.into_iter().take_while(|(row, _)| is_kept(row)) {
        rows.push(row);
        end = at;
    }
    (rows, end)
}

/// The rows of the finished blocks, and the position of their end in the file.
fn finished_blocks(
    folder: &Path,
    arms_of_block: impl Fn(&BlockRow) -> Option<Vec<String>>,
) -> anyhow::Result<(Vec<BlockRow>, u64)> {
    let lines: Vec<(BlockRow, u64)> = read_lines(folder, BLOCKS)?;
    let mut finished = 0;

    while let Some((first, _)) = lines.get(finished) {
        let arms = arms_of_block(first).unwrap_or_default();
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
    }

    let end = finished.checked_sub(1).map_or(0, |last| lines[last].1);
    let blocks = lines.into_iter().take(finished).map(|(row, _)| row);
    Ok((blocks.collect(), end))
}

/// Position in an interval log after so many histograms; 0 if not even its header is whole.
fn end_of_log(log: &str, histograms: usize) -> Option<u64> {
    let header = interval_log_header().lines().count();
    let ends: Vec<_> = log.match_indices('\n').map(|(at, _)| at + 1).collect();
    if histograms == 0 && ends.len() < header {
        return Some(0);
    }
    let end = *ends.get(header + histograms - 1)?;
    u64::try_from(end).ok()
}

/// Time since the zero of an interval log's times, by its header.
fn log_age(log: &str) -> Option<Duration> {
    let mut lines = log.lines();
    let base = lines.find_map(|line| line.strip_prefix("#[BaseTime: "))?;
    let seconds = base.split_whitespace().next()?.parse().ok()?;
    let base = UNIX_EPOCH.checked_add(Duration::try_from_secs_f64(seconds).ok()?)?;
    SystemTime::now().duration_since(base).ok()
}
