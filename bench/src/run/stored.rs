//! A run in its results folder, read back for tables and pages.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::bail;

use super::host_notes::{host_notes, host_paragraph};
use super::plan::{self, RunPlan};
use super::tables::{environment_notes, tables};
use crate::render::Style;
use crate::results::ordered::distinct;
use crate::results::summary::summarize;
use crate::results::{
    BlockRow, RunRecord, SliceRow, SummaryRow, check_slices, read_blocks, read_hosts, read_record,
    read_slices, read_summary,
};
use crate::scenario::{View, Views};

/// A run as its results folder holds it.
pub struct StoredRun {
    /// Notes on the environment; empty if the record cannot be read.
    notes: String,
    /// Summary of the finished blocks.
    pub summary: Vec<SummaryRow>,
    /// The finished blocks.
    pub blocks: Vec<BlockRow>,
    /// The objectives and reference arms.
    pub views: Views,
}

impl StoredRun {
    /// Reads a results folder. The summary of a killed run, which has none on disk, and ratios to another arm than
    /// the run's are computed; this fails if slices of a finished block are missing, as resuming it does.
    pub fn read(folder: &Path, view: View) -> anyhow::Result<Self> {
        let summary = read_summary(folder)?;
        let blocks = read_blocks(folder)?;
        let record = read_record(folder).ok();
        if let Some(reference) = &view.reference {
            check_measured(reference, &blocks)?;
        }

        let scenarios = record.iter().flat_map(|record| record.scenarios.values());
        let summary = summary.filter(|_| view.reference.is_none());
        let views = Views::new(view, scenarios);
        let summary = if let Some(summary) = summary {
            summary
        } else {
            let slices = of_finished_blocks(read_slices(folder)?, &blocks);
            if let Some(record) = &record {
                check_planned_slices(folder, record, &blocks, &slices)?;
            }
            summarize(&slices, &blocks, &views)
        };
        Ok(StoredRun {
            notes: match &record {
                None => String::new(),
                Some(record) => notes(folder, record, &blocks)?,
            },
            summary,
            blocks,
            views,
        })
    }

    /// The tables and the notes below them.
    #[must_use]
    pub fn tables(&self, style: Style) -> String {
        tables(&self.summary, &self.blocks, style, &self.views) + &self.notes
    }
}

/// Notes on the environment and the hosts of a run.
fn notes(folder: &Path, record: &RunRecord, blocks: &[BlockRow]) -> anyhow::Result<String> {
    let finished: BTreeSet<_> = blocks
        .iter()
        .map(|row| (row.condition(), row.block))
        .collect();
    let mut hosts = read_hosts(folder)?;
    hosts.retain(|row| finished.contains(&(row.condition(), row.block)));
    let hosts = host_paragraph(&host_notes(&hosts, &record.hosts));
    Ok(environment_notes(&record.environment) + &hosts)
}

/// Fails if no arm of this name was measured.
pub(super) fn check_measured(arm: &str, blocks: &[BlockRow]) -> anyhow::Result<()> {
    let arms = distinct(blocks.iter().map(|row| row.model.as_str()));
    if !arms.contains(&arm) {
        bail!(
            "--reference: no arm '{arm}' was measured ({})",
            arms.join(", ")
        );
    }
    Ok(())
}

/// Fails if slices that the record plans are missing in a finished block.
fn check_planned_slices(
    folder: &Path,
    record: &RunRecord,
    blocks: &[BlockRow],
    slices: &[SliceRow],
) -> anyhow::Result<()> {
    // Without a plan, nothing is known to be missing.
    let Ok(conditions) = plan::conditions(record) else {
        return Ok(());
    };
    let planned = RunPlan {
        record,
        conditions: &conditions,
    };
    check_slices(folder, &planned, blocks, slices)
}

/// The slices of finished blocks. A kill may leave those of an unfinished one.
fn of_finished_blocks(mut slices: Vec<SliceRow>, blocks: &[BlockRow]) -> Vec<SliceRow> {
    let finished: BTreeSet<_> = blocks
        .iter()
        .map(|row| (row.condition(), row.block))
        .collect();
    slices.retain(|row| finished.contains(&(row.condition(), row.block)));
    slices
}
