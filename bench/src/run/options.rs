//! Options of a new run, and the scenarios that they select.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use echobench_clients::raise_file_limit;

use super::traffic::{CUSTOM, TrafficOptions};
use crate::experiment::hosts::HostsOptions;
use crate::noteln;
use crate::scenario::arm::External;
use crate::scenario::{Placement, Scenario};

/// Options of a new run.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// Built-in scenarios by name, or TOML files by path.
    pub scenarios: Vec<String>,
    /// The long form instead of the short one.
    pub full: bool,
    /// Models that replace those of the scenarios; empty to keep them.
    pub models: Vec<String>,
    /// External servers that are added as arms.
    pub external: Vec<External>,
    /// Traffic that replaces that of the scenarios, or makes one of its own.
    pub traffic: TrafficOptions,
    /// Keeps idle CPUs out of their sleep states.
    pub no_cpu_idle: bool,
    /// Time of a run after which no further step of a capacity search begins.
    pub max_time: Option<Duration>,
    /// Number of blocks that replaces those of the scenarios.
    pub blocks: Option<u32>,
    /// Results folder; a new one under `results/` if not given.
    pub out: Option<PathBuf>,
    /// Seed of the order of the arms and of the clients' traffic.
    pub seed: u64,
    /// The hosts of servers and clients.
    pub hosts: HostsOptions,
}

impl RunOptions {
    /// The selected scenarios, with the replacements applied.
    pub(super) fn scenarios(&self) -> anyhow::Result<Vec<Scenario>> {
        if !self.hosts.are_none() {
            self.check_hosts_options()?;
        }
        let mut found = Vec::new();
        for name in &self.scenarios {
            found.push(Scenario::find(name)?);
        }
        if found.is_empty() {
            found.push(Scenario::plain(CUSTOM, "Which model for this traffic?"));
        }

        let mut scenarios: Vec<Scenario> = Vec::new();
        for scenario in found {
            let scenario = self.adapted(scenario)?;
            let mut others = scenarios.iter().map(|other| &other.name);
            if others.any(|other| *other == scenario.name) {
                bail!("scenario '{}' is named twice", scenario.name);
            }
            scenarios.push(scenario);
        }
        if self.traffic.slo.is_some() && !scenarios.iter().any(Scenario::is_open_loop) {
            bail!(
                "--slo needs an open loop: give --rate or --capacity, or a scenario with arrivals or a sweep"
            );
        }
        Ok(scenarios)
    }

    /// Fails if an option is given that has no meaning for other hosts.
    fn check_hosts_options(&self) -> anyhow::Result<()> {
        self.hosts
            .check_placement(self.traffic.placements.first().copied())?;
        if self.no_cpu_idle {
            bail!("--no-cpu-idle holds for this host only; leave it out");
        }
        Ok(())
    }

    /// A scenario with the replacements applied.
    fn adapted(&self, mut scenario: Scenario) -> anyhow::Result<Scenario> {
        if !self.models.is_empty() {
            scenario.models.clone_from(&self.models);
            scenario.normalise_models();
            scenario.external.clear();
        }
        scenario.external.extend_from_slice(&self.external);
        scenario.take_form(self.full);
        self.traffic.apply(&mut scenario);
        scenario.check()?;

        let is_placed = !self.traffic.placements.is_empty();
        if !self.hosts.are_none() {
            let servers = if scenario.alternate {
                scenario.models.len() + scenario.external.len()
            } else {
                1
            };
            self.hosts.check_ports(&scenario, servers)?;
            scenario.place(&[Placement::Apart]);
        } else if !is_placed && scenario.leave_out_impossible_placements() {
            noteln!(
                "{}: one CPU only: placement split is left out, or replaced by none",
                scenario.name
            );
        }
        if let Some(blocks) = self.blocks {
            scenario.quick.blocks = blocks;
            scenario.full.blocks = blocks;
        }
        Ok(scenario)
    }
}

/// Fails where a scenario cannot be run on this machine, before anything is measured.
pub(super) fn check_runnable<'a>(
    scenarios: impl IntoIterator<Item = &'a Scenario>,
) -> anyhow::Result<()> {
    for scenario in scenarios {
        let loads = scenario.loads();
        if loads
            .iter()
            .all(|(.., placement)| *placement == Placement::Apart)
        {
            // The limits are those of other hosts.
            continue;
        }
        for (_, _, placement) in &loads {
            placement.cpus()?;
        }
        // Servers and load processes inherit the limit. Numbers of clients beyond it fail in their
        // own rows, so only the smallest one has to fit.
        let least = loads.iter().map(|(clients, ..)| *clients).min();
        raise_file_limit(least.unwrap_or(0))?;
    }
    Ok(())
}
