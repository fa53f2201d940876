//! Plan of a run: the conditions that its record asks for, in the order in which they are measured.

use std::path::Path;

use anyhow::bail;

use crate::experiment::condition::Condition;
use crate::experiment::order::balanced_rounds;
use crate::host::environment::Environment;
use crate::results::{
    BlockRow, ConditionKey, HostRecord, PlannedRows, RunRecord, RunStatus, SCHEMA_VERSION,
};
use crate::scenario::arm::Arm;
use crate::scenario::{Effort, Scenario};
use crate::stats::median;

/// All conditions of a run but the open loops of a sweep or a search, which need the peaks first.
pub(super) fn conditions(record: &RunRecord) -> anyhow::Result<Vec<Condition>> {
    let mut conditions = Vec::new();
    for scenario in record.scenarios.values() {
        conditions.extend(closed_loops(scenario, record.effort_of(scenario))?);
    }
    Ok(conditions)
}

/// The conditions of a scenario; of a sweep or a search the closed loops.
pub(super) fn closed_loops(
    scenario: &Scenario,
    mut effort: Effort,
) -> anyhow::Result<Vec<Condition>> {
    // The closed loops of a sweep or of a search only find the peaks.
    let sweep = scenario.sweep.as_ref().map(|sweep| sweep.peak_blocks);
    let search = scenario
        .capacity
        .as_ref()
        .map(|capacity| capacity.peak_blocks);
    if let Some(peak_blocks) = sweep.or(search) {
        effort.blocks = effort.blocks.min(peak_blocks);
    }

    let mut conditions = Vec::new();
    for condition in Condition::all_of(scenario, effort) {
        let arms = condition.scenario.arms()?;
        let at_once = if scenario.alternate { arms.len() } else { 1 };
        let groups = arms.chunks(at_once);
        conditions.extend(groups.map(|group| condition.with_arms(group.to_vec())));
    }
    Ok(conditions)
}

/// The open loops of a rate sweep, at rates relative to the peaks of the closed loop `condition`.
pub(super) fn sweep(
    condition: &Condition,
    record: &RunRecord,
    blocks: &[BlockRow],
) -> Vec<Condition> {
    let Some(sweep) = &condition.scenario.sweep else {
        return Vec::new();
    };

    let peaks: Vec<f64> = condition
        .arms
        .iter()
        .map(|arm| peak(condition, arm, blocks))
        .collect();
    let at = |&percent: &u32| Condition {
        effort: record.effort_of(&condition.scenario),
        load_percent: Some(percent),
        rates: peaks
            .iter()
            .map(|peak| peak * f64::from(percent) / 100.0)
            .collect(),
        ..condition.clone()
    };
    sweep.percent.iter().map(at).collect()
}

/// Median throughput of an arm in a closed loop.
pub(super) fn peak(condition: &Condition, arm: &Arm, blocks: &[BlockRow]) -> f64 {
    let own = |row: &&BlockRow| row.condition() == condition.key() && row.model == arm.name;
    let rates: Vec<f64> = blocks
        .iter()
        .filter(own)
        .filter_map(|row| row.throughput_per_second)
        .collect();

    // An arm without a peak has failed, and fails again at any rate.
    median(&rates).filter(|rate| *rate >= 1.0).unwrap_or(1.0)
}

/// Rows that a run plans, for resuming it.
pub(super) struct RunPlan<'a> {
    pub(super) record: &'a RunRecord,
    pub(super) conditions: &'a [Condition],
}

impl RunPlan<'_> {
    /// The condition of a block, or the closed loop of its sweep or search, given the row of its first arm.
    fn condition(&self, first: &BlockRow) -> Option<&Condition> {
        let key = ConditionKey {
            load_percent: None,
            step: None,
            ..first.condition()
        };
        self.conditions
            .iter()
            .find(|condition| condition.key() == key && condition.arms[0].name == first.model)
    }
}

impl PlannedRows for RunPlan<'_> {
    fn hosts(&self) -> usize {
        self.record.hosts.len()
    }

    fn arms(&self, first: &BlockRow) -> Option<Vec<String>> {
        let condition = self.condition(first)?;
        let of_open_loop = self.record.effort_of(&condition.scenario).blocks;
        let blocks = match (first.load_percent, first.step) {
            (None, None) => condition.effort.blocks,
            (Some(percent), _) => {
                let sweep = condition.scenario.sweep.as_ref()?;
                sweep.percent.contains(&percent).then_some(of_open_loop)?
            }
            (None, Some(step)) => {
                let capacity = condition.scenario.capacity.as_ref()?;
                (1..=capacity.steps)
                    .contains(&step)
                    .then_some(of_open_loop)?
            }
        };
        let arms = condition.arms.iter().map(|arm| arm.name.clone());
        (first.block <= blocks).then(|| arms.collect())
    }

    fn slices_of_each(&self, first: &BlockRow, driven: usize) -> Option<usize> {
        let condition = self.condition(first)?;
        Some(balanced_rounds(driven, condition.effort.rounds))
    }
}

/// Fails where resuming would mix rows of different builds or machines.
pub(super) fn check_resumable(
    record: &RunRecord,
    now: &Environment,
    folder: &Path,
) -> anyhow::Result<()> {
    let folder = folder.display();
    let begun = &record.environment;
    if record.status == RunStatus::Complete {
        bail!("the run in {folder} is complete; see it with: echobench table {folder}");
    }

    if record.schema_version != SCHEMA_VERSION
        || begun.executable_sha256 != now.executable_sha256
        || begun.revision != now.revision
    {
        bail!(
            "the run in {folder} was begun by another build of echobench ({}); resume it with \
             that one, or start a new run",
            begun.short_revision().unwrap_or(&begun.version)
        );
    }

    if begun.machine != now.machine {
        bail!(
            "the run in {folder} was begun on another kind of machine ({}, this is {}); resume it \
             there, or start a new run",
            begun.machine.slug(),
            now.machine.slug()
        );
    }
    Ok(())
}

/// Fails where resuming would mix rows of different hosts.
pub(super) fn check_hosts(
    record: &RunRecord,
    now: &[HostRecord],
    folder: &Path,
) -> anyhow::Result<()> {
    let folder = folder.display();
    if record.hosts.len() != now.len() {
        bail!(
            "the run in {folder} was begun {}; give its options for hosts again",
            match record.hosts.len() {
                0 => "on one host".to_owned(),
                hosts => format!("with a server host and {} load hosts", hosts - 1),
            }
        );
    }

    for (begun, now) in record.hosts.iter().zip(now) {
        let (begun_on, is) = (&begun.environment.machine, &now.environment.machine);
        if begun_on != is {
            bail!(
                "the run in {folder} was begun with another kind of machine as {} ({}, this is {}); resume it \
                 with that one, or start a new run",
                begun.role,
                begun_on.slug(),
                is.slug()
            );
        }
    }
    Ok(())
}
