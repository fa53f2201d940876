//! Options of a gate, and the workload that they select.

use std::rc::Rc;

use anyhow::bail;
use echobench_clients::raise_file_limit;

use super::Gate;
use super::measure::ARMS;
use super::server::GateServer;
use crate::experiment::hosts::{Hosts, HostsOptions};
use crate::host::environment::Environment;
use crate::results::{EffortName, RunRecord, RunStatus, SCHEMA_VERSION};
use crate::scenario::arm::{ADDRESS, External, PORT};
use crate::scenario::{Effort, Placement, Scenario};

/// The workload of a gate.
#[derive(Clone, Debug)]
pub struct GateOptions {
    /// A built-in scenario by name, or a TOML file by path.
    pub scenario: String,
    /// Models that replace those of the scenario; empty to keep them.
    pub models: Vec<String>,
    /// The form of the scenario.
    pub effort: EffortName,
    /// Number of blocks that replaces that of the scenario.
    pub blocks: Option<u32>,
    /// Placement that replaces those of the scenario.
    pub placement: Option<Placement>,
    /// Seed of the orders of the arms and of the clients' traffic.
    pub seed: u64,
    /// The hosts of servers and clients.
    pub hosts: HostsOptions,
}

impl GateOptions {
    /// The gate between two servers. Fails if it cannot decide anything.
    pub fn gate(&self, baseline: GateServer, candidate: GateServer) -> anyhow::Result<Gate> {
        let mut scenario = self.scenario()?;
        if self.hosts.server.launcher.is_some() {
            refuse_builds(&baseline, &candidate)?;
        }
        match (&baseline, &candidate) {
            (GateServer::Build(_), GateServer::Build(_)) => {}
            (GateServer::External(_), GateServer::External(external)) => {
                self.serve(&mut scenario, external)?;
            }
            _ => bail!(
                "one side is an executable of echobench, the other a command line with {PORT}: give two of a kind"
            ),
        }
        if self.hosts.are_none() {
            check_runnable(&scenario)?;
        } else {
            scenario.place(&[Placement::Apart]);
            self.hosts.check_ports(&scenario, ARMS.len())?;
        }

        let gate = Gate {
            hosts: Rc::new(Hosts::here()),
            baseline,
            candidate,
            effort: self.effort(&scenario),
            scenario,
            seed: self.seed,
            candidate_options: Vec::new(),
        };

        gate.check()?;
        Ok(Gate {
            hosts: Rc::new(Hosts::connect(&self.hosts)?),
            ..gate
        })
    }

    /// The record of a gate that is about to run.
    #[must_use]
    pub fn record(&self, gate: &Gate) -> RunRecord {
        let scenario = gate.scenario.clone();
        RunRecord {
            schema_version: SCHEMA_VERSION,
            effort: self.effort,
            seed: gate.seed,
            status: RunStatus::Running,
            resumed: Vec::new(),
            environment: Environment::capture(),
            hosts: gate.hosts.records(),
            scenarios: [(scenario.name.clone(), scenario)].into_iter().collect(),
        }
    }

    /// The scenario, with the replacements applied.
    fn scenario(&self) -> anyhow::Result<Scenario> {
        let mut scenario = Scenario::find(&self.scenario)?;
        if scenario.sweep.is_some() || scenario.traffic.arrivals.is_some() {
            bail!(
                "scenario '{}' is an open loop, in which throughput is given: a gate needs a closed one",
                scenario.name
            );
        }
        if !scenario.external.is_empty() || !scenario.alternate {
            bail!(
                "scenario '{}' has external arms or does not alternate between its arms: a gate needs neither",
                scenario.name
            );
        }

        if !self.models.is_empty() {
            let models = self.models.iter().map(|model| model.trim().to_owned());
            scenario.models = models.collect();
        }
        for (index, model) in scenario.models.iter().enumerate() {
            if scenario.models[..index].contains(model) {
                bail!("model '{model}' is named twice");
            }
        }

        scenario.take_form(self.effort == EffortName::Full);
        self.hosts.check_placement(self.placement)?;
        if let Some(placement) = self.placement {
            scenario.place(&[placement]);
        }
        Ok(scenario)
    }

    /// Puts a server of another project in the place of the models. Both sides are known by the name of the candidate.
    fn serve(&self, scenario: &mut Scenario, candidate: &External) -> anyhow::Result<()> {
        if !self.models.is_empty() {
            bail!("--models: a command line is one server, without models");
        }
        if scenario.asks_for_work() {
            bail!(
                "scenario '{}' asks for work, and a server of another project only echoes",
                scenario.name
            );
        }
        scenario.models.clear();
        scenario.external = vec![candidate.clone()];
        Ok(())
    }

    fn effort(&self, scenario: &Scenario) -> Effort {
        let effort = match self.effort {
            EffortName::Quick => scenario.quick,
            EffortName::Full => scenario.full,
        };
        Effort {
            blocks: self.blocks.unwrap_or(effort.blocks),
            ..effort
        }
    }
}

/// Fails for executables where servers run on another host: the files are here.
fn refuse_builds(baseline: &GateServer, candidate: &GateServer) -> anyhow::Result<()> {
    for (side, server) in [("baseline", baseline), ("candidate", candidate)] {
        if matches!(server, GateServer::Build(_)) {
            bail!(
                "the {side} is an executable of this host, and servers run on another one: give the command that \
                 serves there, as in '/path/there/echobench serve thread --listen {ADDRESS}:{PORT}'"
            );
        }
    }
    Ok(())
}

/// Fails where the scenario cannot be run on this host.
fn check_runnable(scenario: &Scenario) -> anyhow::Result<()> {
    let loads = scenario.loads();
    for (_, _, placement) in &loads {
        placement.cpus()?;
    }
    let most = loads.iter().map(|(clients, ..)| *clients).max();
    raise_file_limit(most.unwrap_or(0))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_short_form_leaves_out_loads_of_the_long_one() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("loads.toml");
        let text = "question = \"?\"\nclients = 1\n[[beside]]\nclients = 2\nfull_only = true\n";
        std::fs::write(&file, text).unwrap();

        for (effort, loads) in [(EffortName::Quick, 1), (EffortName::Full, 2)] {
            let options = GateOptions {
                scenario: file.display().to_string(),
                models: Vec::new(),
                effort,
                blocks: None,
                placement: None,
                seed: 0,
                hosts: HostsOptions::default(),
            };
            assert_eq!(options.scenario().unwrap().loads().len(), loads);
        }
    }
}
