//! Largest throughput of the generator: a server that comes near it was not the limit.

use echobench_clients::Driver;

use super::{Bench, Group};
use crate::selfcheck::report::{Bound, Check, Unit};
use crate::selfcheck::rig::{Load, LoadOutcome};

/// Largest relative difference between the connections that Little's law finds busy and those that there
/// are.
const LITTLE_TOLERANCE: f64 = 0.05;

impl Bench<'_> {
    pub(super) fn check_ceiling(&mut self) -> anyhow::Result<()> {
        (self.progress)("how much the generator can do");
        let server = self.rig.server(&["respond"])?;

        for driver in [Driver::Threads, Driver::Tasks] {
            for clients in [1, 64] {
                let length = self.lengths.ceiling;
                let load = Load::closed(driver, clients, length);
                let outcome = self.load(&server, &load, |outcome| {
                    outcome.machine.reason(0.5).is_some()
                })?;

                let rate = outcome.last().replies_in_window as f64 / length.as_secs_f64();
                let what = format!("most the generator can do, {clients} {driver}");
                self.check_against(&outcome, what, Unit::PerSecond, Bound::Any, rate);
                self.check_littles_law(clients, rate, &outcome);
            }
        }
        Ok(())
    }

    /// In a closed loop without pauses every connection is always busy, so by Little's law throughput
    /// times mean latency is their number.
    fn check_littles_law(&mut self, clients: u32, rate: f64, outcome: &LoadOutcome) {
        let clients = f64::from(clients);
        let busy = rate * outcome.last().latency.mean() / 1e9;
        let what = "the same: throughput × mean latency".to_owned();
        // The time of a client between two requests is no part of their latency.
        let bound = Bound::within(clients, clients * LITTLE_TOLERANCE);
        self.check_against(outcome, what, Unit::Connections, bound, busy);
    }

    fn check_against(
        &mut self,
        outcome: &LoadOutcome,
        what: String,
        unit: Unit,
        bound: Bound,
        measured: f64,
    ) {
        let group = Group::Ceiling.name();
        let disturbance = outcome.machine.reason(0.5);
        let check = Check::new(group, what, unit, bound, Some(measured), disturbance);
        self.checks.push(check.on(&outcome.machine));
    }
}
