//! Takes up a results folder whose run was cut short: keeps the rows of finished blocks, and cuts
//! every file back to where they end.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};

use super::read::read_lines;
use super::{BlockRow, SliceRow, Writer};
use crate::results::histogram_log::interval_log_header;

/// What is kept of a run that was cut short.
pub struct ResumableRun {
    /// The slices of its finished blocks.
    pub slices: Vec<SliceRow>,
    /// The rows of these blocks.
    pub blocks: Vec<BlockRow>,
    /// How long ago the times of the interval log began.
    pub log_age: Duration,
}

impl Writer {
    /// Opens the folder again. `together` tells which arms were written in one go, given the row of
    /// the first of them; a row that it does not know belongs to another experiment. Where one of
    /// them is missing, the block was not finished.
    ///
    /// The files only ever lose what comes after the last finished block, so a kill at any moment of
    /// this loses nothing either.
    pub fn resume(
        folder: &Path,
        together: impl Fn(&BlockRow) -> Option<Vec<String>>,
    ) -> anyhow::Result<(Self, ResumableRun)> {
        let mut writer = Self::open(folder)?;
        let (blocks, blocks_end) = finished_blocks(folder, together)?;
        let finished: BTreeSet<_> = blocks
            .iter()
            .map(|row| (row.condition(), row.model.as_str(), row.block))
            .collect();
        let slices: Vec<(SliceRow, u64)> = read_lines(folder, "slices.csv")?;
        let is_kept = |row: &SliceRow| {
            let key = (row.condition(), row.model.as_str(), row.block);
            finished.contains(&key)
        };
        let (slices, slices_end) = whole_lines(slices, is_kept);
        let lines = blocks.iter().filter(|row| row.is_ok()).count();
        let log = fs::read_to_string(folder.join("latency.hlog"))
            .with_context(|| format!("cannot read {}/latency.hlog", folder.display()))?;
        let Some(log_end) = end_of_log(&log, lines) else {
            bail!(
                "{}/latency.hlog has fewer lines than blocks.csv has rows; start a new run",
                folder.display()
            );
        };
        let cut = |file: &File, end: u64| {
            file.set_len(end)
                .with_context(|| format!("cannot write results to {}", folder.display()))
        };
        cut(&writer.blocks, blocks_end)?;
        cut(&writer.slices, slices_end)?;
        cut(&writer.latency, log_end)?;
        if log_end == 0 {
            writer.latency.write_all(interval_log_header().as_bytes())?;
        }
        writer.named = blocks_end > 0;
        // What there may be of it is that of fewer blocks.
        match fs::remove_file(folder.join("summary.csv")) {
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

/// The first rows, as long as they are to be kept, and where in the file they end.
fn whole_lines<R>(lines: Vec<(R, u64)>, is_kept: impl Fn(&R) -> bool) -> (Vec<R>, u64) {
    let mut end = 0;
    let mut rows = Vec::new();
    for (row, at) in lines.into_iter().take_while(|(row, _)| is_kept(row)) {
        rows.push(row);
        end = at;
    }
    (rows, end)
}

/// The rows of the finished blocks, and where in the file they end.
fn finished_blocks(
    folder: &Path,
    together: impl Fn(&BlockRow) -> Option<Vec<String>>,
) -> anyhow::Result<(Vec<BlockRow>, u64)> {
    let lines: Vec<(BlockRow, u64)> = read_lines(folder, "blocks.csv")?;
    let mut finished = 0;
    while let Some((first, _)) = lines.get(finished) {
        let arms = together(first).unwrap_or_default();
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

/// Where an interval log ends after so many histograms; 0 if not even its head is whole.
fn end_of_log(log: &str, histograms: usize) -> Option<u64> {
    let head = interval_log_header().lines().count();
    let ends: Vec<_> = log.match_indices('\n').map(|(at, _)| at + 1).collect();
    if histograms == 0 && ends.len() < head {
        return Some(0);
    }
    let end = *ends.get(head + histograms - 1)?;
    u64::try_from(end).ok()
}

/// How long ago the times of an interval log began, by its own head.
fn log_age(log: &str) -> Option<Duration> {
    let mut lines = log.lines();
    let base = lines.find_map(|line| line.strip_prefix("#[BaseTime: "))?;
    let seconds = base.split_whitespace().next()?.parse().ok()?;
    let base = UNIX_EPOCH.checked_add(Duration::try_from_secs_f64(seconds).ok()?)?;
    SystemTime::now().duration_since(base).ok()
}
