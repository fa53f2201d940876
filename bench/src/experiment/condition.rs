//! Conditions: the arms, clients and placement of one section of a table.

use std::time::Duration;

use echobench_clients::{Arrivals, Driver};

use super::schedule::Schedule;
use crate::results::ConditionKey;
use crate::scenario::arm::Arm;
use crate::scenario::{Effort, Placement, Scenario};

/// One section of a table: all arms under the same clients.
#[derive(Clone, Debug)]
pub struct Condition {
    /// The workload, with the traffic of this condition.
    pub scenario: Scenario,
    /// Name of its traffic among the scenario's conditions, as in `1 KiB`; empty if all have the same.
    pub traffic: String,
    /// The servers under test.
    pub arms: Vec<Arm>,
    /// The amount of measurement, quick or full.
    pub effort: Effort,
    /// Number of clients.
    pub clients: u32,
    /// The way the clients are run.
    pub driver: Driver,
    /// The CPUs of servers and clients.
    pub placement: Placement,
    /// In a rate sweep, the rate as a percentage of each arm's own peak.
    pub load_percent: Option<u32>,
    /// In a capacity search, the number of the step.
    pub step: Option<u32>,
    /// In a rate sweep or a capacity search, the rate of each arm, in requests per second.
    pub rates: Vec<f64>,
}

impl Condition {
    /// A condition with the scenario's own traffic: no rate is derived from a peak.
    #[must_use]
    pub fn new(
        scenario: &Scenario,
        effort: Effort,
        arms: Vec<Arm>,
        (clients, driver, placement): (u32, Driver, Placement),
    ) -> Self {
        Condition {
            scenario: scenario.clone(),
            traffic: String::new(),
            arms,
            effort,
            clients,
            driver,
            placement,
            load_percent: None,
            step: None,
            rates: Vec::new(),
        }
    }

    /// A condition without arms for each kind of traffic and each load of the scenario, in this order.
    #[must_use]
    pub fn all_of(scenario: &Scenario, effort: Effort) -> Vec<Self> {
        let mut conditions = Vec::new();
        for (name, traffic) in scenario.traffic.each() {
            let scenario = Scenario {
                traffic,
                ..scenario.clone()
            };
            for load in scenario.loads() {
                conditions.push(Condition {
                    traffic: name.clone(),
                    ..Condition::new(&scenario, effort, Vec::new(), load)
                });
            }
        }
        conditions
    }

    /// The same condition with these arms.
    #[must_use]
    pub fn with_arms(&self, arms: Vec<Arm>) -> Self {
        Condition {
            arms,
            ..self.clone()
        }
    }

    /// The key of its rows.
    #[must_use]
    pub fn key(&self) -> ConditionKey {
        ConditionKey {
            scenario: self.scenario.name.clone(),
            placement: self.placement,
            driver: self.driver,
            clients: self.clients,
            load_percent: self.load_percent,
            traffic: self.traffic.clone(),
            step: self.step,
        }
    }

    /// The schedule of an arm's requests, if they have one.
    pub(crate) fn arrivals(&self, arm: usize) -> Option<Arrivals> {
        if self.rates.is_empty() {
            return self.scenario.traffic.arrivals;
        }
        let sweep = self.scenario.sweep.as_ref().map(|sweep| sweep.spacing);
        let capacity = self
            .scenario
            .capacity
            .as_ref()
            .map(|capacity| capacity.spacing);
        Some(Arrivals {
            per_second: *self.rates.get(arm)?,
            spacing: sweep.or(capacity)?,
        })
    }

    /// The length of a block, without the start and the end of its processes.
    #[must_use]
    pub fn block_time(&self) -> Duration {
        let schedule = Schedule::new(self, &mut fastrand::Rng::with_seed(0), 0);
        Duration::from_nanos(schedule.end_ns())
    }

    /// The part of it that is measured.
    #[must_use]
    pub fn measured_time(&self) -> Duration {
        let schedule = Schedule::new(self, &mut fastrand::Rng::with_seed(0), 0);
        Duration::from_nanos(schedule.measured_ns())
    }
}
