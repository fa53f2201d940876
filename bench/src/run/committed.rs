//! A committed run, as far as histories and comparisons need it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, bail};
use serde::Deserialize;
use serde_json::Value;

use super::stored::check_measured;
use super::workload::Workload;
use crate::host::environment::short_revision;
use crate::host::machine_key::MachineKey;
use crate::render::units::{or_unknown, plural};
use crate::results::summary::summarize;
use crate::results::{
    BlockRow, ConditionKey, Metric, RunStatus, SummaryRow, ValidityFlag, read_blocks, read_slices,
    read_summary,
};
use crate::scenario::{View, Views};

/// Metrics that are compared and followed over time.
pub(super) const FOLLOWED_METRICS: [Metric; 3] = [
    Metric::Throughput,
    Metric::LatencyP99,
    Metric::CpuPerRequest,
];

/// Mark of a ratio whose blocks are not valid in at least half of the cases.
pub(super) const NOT_VALID: char = '!';

/// A committed run.
pub(super) struct CommittedRun {
    /// Name of its folder.
    pub(super) name: String,
    /// Time of its start, in RFC 3339.
    pub(super) started: String,
    /// Revision of the executable.
    revision: Option<String>,
    machine: MachineKey,
    /// The other hosts of servers and clients; none if those were on the same machine.
    hosts: Vec<HostHead>,
    /// Whether idle CPUs were kept out of their sleep states.
    pub(super) awake: bool,
    /// The platform of the build; unknown in older runs.
    target: Option<String>,
    workloads: BTreeMap<String, Workload>,
    summary: Vec<SummaryRow>,
    /// Arms of which at least half of the blocks are not valid.
    mostly_invalid: BTreeSet<(ConditionKey, String)>,
    /// Facts that make its figures doubtful, in words.
    flaws: Vec<String>,
}

/// The part of `run.json` that is needed here; later versions may add to it.
#[derive(Deserialize)]
struct RecordHead {
    status: Option<RunStatus>,
    environment: EnvironmentHead,
    #[serde(default)]
    hosts: Vec<HostHead>,
    #[serde(default)]
    scenarios: BTreeMap<String, Value>,
}

/// A host with its duty.
#[derive(Deserialize)]
struct HostHead {
    role: String,
    environment: HostEnvironmentHead,
}

#[derive(Deserialize)]
struct HostEnvironmentHead {
    machine: MachineKey,
}

#[derive(Deserialize)]
struct EnvironmentHead {
    started: String,
    machine: MachineKey,
    #[serde(default)]
    awake: bool,
    target: Option<String>,
    revision: Option<String>,
    profile: Option<String>,
    dirty: Option<bool>,
}

impl CommittedRun {
    /// Reads a results folder, with ratios to another arm than the run's if one is given. Fails if it has no
    /// summary.
    pub(super) fn read(folder: &Path, reference: Option<&str>) -> anyhow::Result<Self> {
        let name = folder.display();
        let Some(mut summary) = read_summary(folder)? else {
            bail!("{name} has no summary.csv: its run did not end")
        };
        let blocks = if folder.join("blocks.csv").exists() {
            read_blocks(folder)?
        } else {
            Vec::new()
        };
        if let Some(reference) = reference {
            check_measured(reference, &blocks)?;
            let view = View {
                reference: Some(reference.to_owned()),
                ..View::default()
            };
            summary = summarize(&read_slices(folder)?, &blocks, &Views::new(view, []));
        }

        let path = folder.join("run.json");
        let text = fs::read_to_string(&path).with_context(|| format!("{name} has no run.json"))?;
        let head: RecordHead = serde_json::from_str(&text)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let workloads = head.scenarios.iter();
        let workloads = workloads.map(|(name, scenario)| (name.clone(), Workload::of(scenario)));

        let name = folder.file_name().unwrap_or(folder.as_os_str());
        Ok(CommittedRun {
            name: name.to_string_lossy().into_owned(),
            workloads: workloads.collect(),
            summary,
            mostly_invalid: mostly_invalid(&blocks),
            flaws: flaws(&head, &blocks),
            started: head.environment.started,
            revision: head.environment.revision,
            machine: head.environment.machine,
            hosts: head.hosts,
            awake: head.environment.awake,
            target: head.environment.target,
        })
    }

    /// Reads the results folders in a folder, in the order in which their runs began.
    pub(super) fn read_all(folder: &Path) -> anyhow::Result<Vec<Self>> {
        let place = || format!("cannot read {}", folder.display());
        let mut runs = Vec::new();
        for entry in fs::read_dir(folder).with_context(place)? {
            let path = entry.with_context(place)?.path();
            if path.join("summary.csv").exists() && path.join("run.json").exists() {
                runs.push(CommittedRun::read(&path, None)?);
            }
        }

        if runs.is_empty() {
            bail!(
                "{} holds no results folders; give one such as results/",
                folder.display()
            );
        }
        runs.sort_by(|a, b| a.started.cmp(&b.started));
        Ok(runs)
    }

    /// The kind of its machine, and the state of idle CPUs if they were kept awake.
    pub(super) fn machine_name(&self) -> String {
        let awake = if self.awake { ", CPUs awake" } else { "" };
        let hosts = self.hosts.iter();
        let hosts =
            hosts.map(|host| format!(", {} {}", host.role, host.environment.machine.slug()));
        self.machine.slug() + &hosts.collect::<String>() + awake
    }

    /// The difference between the machines of two runs: that of `run` itself, or that of a host.
    pub(super) fn machine_difference(&self, other: &Self) -> Option<String> {
        let roles = |run: &Self| -> Vec<String> {
            run.hosts.iter().map(|host| host.role.clone()).collect()
        };
        let (own, its) = (roles(self), roles(other));
        if own != its {
            let list = |roles: Vec<String>| {
                if roles.is_empty() {
                    "none".to_owned()
                } else {
                    roles.join(", ")
                }
            };
            return Some(format!("other hosts ({} and {})", list(own), list(its)));
        }

        let mut pairs = self.hosts.iter().zip(&other.hosts);
        let of_hosts = pairs.find_map(|(own, its)| {
            let difference = own
                .environment
                .machine
                .difference(&its.environment.machine)?;
            Some(format!("{}: {difference}", own.role))
        });
        self.machine.difference(&other.machine).or(of_hosts)
    }

    /// The difference that keeps the figures of two runs from being compared; `None` if there is none.
    pub(super) fn difference(&self, other: &Self) -> Option<String> {
        let state = |run: &Self| if run.awake { "awake" } else { "asleep" };
        let idle = || format!("idle CPUs ({} and {})", state(self), state(other));

        // The C library starts the threads and holds the memory of a connection.
        let builds = || {
            let (own, its) = (self.target.as_ref()?, other.target.as_ref()?);
            (own != its).then(|| format!("builds ({own} and {its})"))
        };

        let machines = self.machine_difference(other);
        let idle = || (self.awake != other.awake).then(idle);
        machines.or_else(idle).or_else(builds)
    }

    /// The workloads of the scenarios that the record has, by name.
    pub(super) fn workloads(&self) -> impl Iterator<Item = (&str, &Workload)> {
        let workloads = self.workloads.iter();
        workloads.map(|(name, workload)| (name.as_str(), workload))
    }

    /// The difference between the workloads that two runs have under the name of a scenario; `None` if there is
    /// none, or if a record has no such scenario.
    pub(super) fn workload_difference(&self, other: &Self, scenario: &str) -> Option<String> {
        let own = self.workloads.get(scenario)?;
        own.difference(other.workloads.get(scenario)?)
    }

    /// Its revision, day and machine in a few words, for a chart.
    pub(super) fn origin(&self) -> String {
        let revision = self.revision.as_deref().and_then(short_revision);
        let revision = or_unknown(revision, str::to_owned);
        let day = self.started.split('T').next().unwrap_or_default();
        format!("{revision} of {day}, {}", self.machine_name())
    }

    /// The name of the folder, and the facts that make the run's figures doubtful.
    pub(super) fn title(&self) -> String {
        match &self.flaws[..] {
            [] => self.name.clone(),
            flaws => format!("{} ({})", self.name, flaws.join("; ")),
        }
    }

    /// The arms of its rows, with repetitions.
    pub(super) fn arms(&self) -> impl Iterator<Item = &str> {
        self.summary.iter().map(|row| row.model.as_str())
    }

    /// The rows of the followed metrics, by arm.
    pub(super) fn by_key(&self) -> BTreeMap<SeriesKey, &SummaryRow> {
        let followed = self
            .summary
            .iter()
            // The rates of a search differ from run to run.
            .filter(|row| FOLLOWED_METRICS.contains(&row.metric) && row.step.is_none());
        followed
            .map(|row| {
                let key = SeriesKey {
                    condition: row.condition(),
                    model: row.model.clone(),
                    metric: row.metric.name(),
                };
                (key, row)
            })
            .collect()
    }

    /// [`NOT_VALID`] for a row whose arm, or whose reference arm, has mostly blocks that are not valid.
    pub(super) fn mark(&self, row: &SummaryRow) -> Option<char> {
        let is_invalid = |model: &String| {
            let arm = (row.condition(), model.clone());
            self.mostly_invalid.contains(&arm)
        };
        let mut arms = std::iter::once(&row.model).chain(&row.reference);
        arms.any(is_invalid).then_some(NOT_VALID)
    }
}

fn mostly_invalid(blocks: &[BlockRow]) -> BTreeSet<(ConditionKey, String)> {
    let mut counts: BTreeMap<(ConditionKey, String), (usize, usize)> = BTreeMap::new();
    for row in blocks.iter().filter(|row| row.skipped().is_none()) {
        let arm = (row.condition(), row.model.clone());
        let (invalid, all) = counts.entry(arm).or_default();
        *invalid += usize::from(!row.is_ok() || !row.validity.is_valid());
        *all += 1;
    }
    counts.retain(|_, (invalid, all)| 2 * *invalid >= *all);
    counts.into_keys().collect()
}

fn flaws(head: &RecordHead, blocks: &[BlockRow]) -> Vec<String> {
    let mut flaws = Vec::new();
    match &head.status {
        None | Some(RunStatus::Complete) => {}
        Some(RunStatus::Running) => flaws.push("killed".to_owned()),
        Some(status) => flaws.push(status.to_string()),
    }
    if let Some(profile) = head.environment.profile.as_deref()
        && profile != "release"
    {
        flaws.push(format!("{profile} build"));
    }
    if head.environment.dirty == Some(true) {
        flaws.push("uncommitted changes".to_owned());
    }

    let count = |flaw: fn(&BlockRow) -> bool| blocks.iter().filter(|row| flaw(row)).count();
    let failed = count(|row| !row.is_ok() && row.skipped().is_none());
    if failed > 0 {
        flaws.push(format!("{} failed", plural(failed, "row")));
    }
    let invalid = count(|row| row.is_ok() && !row.validity.is_valid());
    if invalid > 0 {
        let kinds: Vec<String> = ValidityFlag::ALL
            .iter()
            .filter_map(|flag| {
                let has_flag = |row: &&BlockRow| row.validity.contains(*flag);
                let count = blocks.iter().filter(has_flag).count();
                (count > 0).then(|| format!("{} {count}", flag.name()))
            })
            .collect();
        flaws.push(format!(
            "{invalid} of {} not valid: {}",
            plural(blocks.len(), "row"),
            kinds.join(", ")
        ));
    }
    flaws
}

/// Columns of a table that show a [`SeriesKey`].
pub(super) const KEY_COLUMNS: [&str; 6] = [
    "scenario",
    "clients",
    "driver",
    "placement",
    "model",
    "metric",
];

/// Identity of a series: the metric of an arm under a condition.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SeriesKey {
    pub(super) condition: ConditionKey,
    pub(super) model: String,
    pub(super) metric: &'static str,
}

impl SeriesKey {
    /// Its cells under [`KEY_COLUMNS`]; `workload` tells scenarios of one name apart.
    pub(super) fn cells(&self, workload: &str) -> Vec<String> {
        let condition = &self.condition;
        let load = condition
            .load_percent
            .map(|percent| format!(" at {percent} %"));
        let scenario = condition.with_traffic(&format!("{}{workload}", condition.scenario));
        vec![
            scenario + load.as_deref().unwrap_or_default(),
            condition.clients.to_string(),
            condition.driver.to_string(),
            condition.placement.to_string(),
            self.model.clone(),
            self.metric.to_owned(),
        ]
    }
}
