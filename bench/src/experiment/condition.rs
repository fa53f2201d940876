//! Conditions: the arms, clients and placement of one section of a table.

use std::collections::HashMap;
use std::time::Duration;

use echobench_clients::{Arrivals, Driver};

use super::schedule::Schedule;
use crate::results::{BlockRow, ConditionKey, ValidityFlag};
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
    /// Length of the gaps in percent of the usual ones, see [`Condition::after`].
    pub gap_percent: u64,
}

/// Length of the usual gaps in percent.
const USUAL_GAP: u64 = 100;
/// Addition to the gaps for each block in which an arm overran.
const LONGER_GAP: u64 = 50;
/// Longest gaps.
const LONGEST_GAP: u64 = 400;

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
            gap_percent: USUAL_GAP,
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

    /// The same condition after these blocks, its own or others: on a machine on which replies outlast the usual gaps,
    /// gaps become longer, for all arms alike.
    #[must_use]
    pub fn after<'a>(&self, blocks: impl Iterator<Item = &'a BlockRow>) -> Self {
        let key = self.key();
        let mut overran: HashMap<&str, u64> = HashMap::new();
        for row in blocks {
            if row.validity.contains(ValidityFlag::Overran) && row.condition() == key {
                *overran.entry(&row.model).or_default() += 1;
            }
        }
        let most = overran.into_values().max().unwrap_or(0);

        Condition {
            gap_percent: (USUAL_GAP + most * LONGER_GAP).min(LONGEST_GAP),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn condition() -> Condition {
        let arms = ["thread", "async"].map(Arm::of_model).to_vec();
        let load = (64, Driver::Tasks, Placement::Split);
        Condition::new(&Scenario::plain("x", "?"), Effort::quick(), arms, load)
    }

    /// A row of an arm with these flags, in the condition with this number of clients.
    fn row(model: &str, clients: u32, flags: &[ValidityFlag]) -> BlockRow {
        BlockRow {
            scenario: "x".to_owned(),
            clients,
            driver: Driver::Tasks,
            placement: Placement::Split,
            model: model.to_owned(),
            validity: flags.iter().copied().collect(),
            ..BlockRow::default()
        }
    }

    #[test]
    fn gaps_grow_with_the_blocks_in_which_an_arm_overran() {
        let overran = row(
            "async",
            64,
            &[ValidityFlag::Overran, ValidityFlag::Disturbed],
        );
        let mut blocks = vec![
            row("thread", 64, &[ValidityFlag::Disturbed]),
            row("thread", 256, &[ValidityFlag::Overran]),
        ];
        for expected in [100, 150, 200, 250, 300, 350, 400, 400] {
            assert_eq!(condition().after(blocks.iter()).gap_percent, expected);
            blocks.push(overran.clone());
        }
    }

    #[test]
    fn longer_gaps_are_those_of_all_arms_and_nothing_else_is_longer() {
        let usual = condition();
        let longer = usual.after([row("async", 64, &[ValidityFlag::Overran])].iter());
        assert_eq!(longer.measured_time(), usual.measured_time());

        for arm in 0..2 {
            let gaps = |condition: &Condition| -> Vec<u64> {
                let schedule = Schedule::new(condition, &mut fastrand::Rng::with_seed(0), 0);
                let slots = schedule.slots_of(arm);
                slots
                    .map(|slot| schedule.next_start_ns(slot) - schedule.window(slot).end_ns)
                    .collect()
            };
            let half_as_long_again: Vec<u64> = gaps(&usual).iter().map(|gap| gap * 3 / 2).collect();
            assert_eq!(gaps(&longer), half_as_long_again);
        }
    }
}
