//! The schedule of a block: the slices of each arm in time.

use echobench_clients::Window;
use echobench_servers::{Family, Settings};

use super::condition::Condition;
use super::order;
use crate::scenario::Effort;
use crate::scenario::arm::Arm;

/// Part of a gap for each client: its request in flight ends, on one CPU one after the other.
const GAP_PER_CLIENT_NS: u64 = 24_000;
/// Part of a gap for each process of the server: the CPU time of each is read.
const GAP_PER_PROCESS_NS: u64 = 14_000;
/// Part of a gap for each client of a server that forks for each of their requests, under churn: a request in
/// flight waits for as many forks as there are clients.
const GAP_PER_FORK_NS: u64 = 400_000;
/// Time after the last slice in which the servers' memory is read, and clients that still wait give up.
const MEMORY_NS: u64 = 7_000_000;
const MEMORY_PER_CLIENT_NS: u64 = 60_000;
/// Addition for each process of a server.
const MEMORY_PER_PROCESS_NS: u64 = 150_000;

/// The instants of a block, in nanoseconds after its start.
pub(crate) struct Schedule {
    /// The slices in order of time.
    slots: Vec<Slot>,
    effort: Effort,
    /// End of the gap after the last slice.
    windows_end_ns: u64,
    /// Time after the last slice, for readings of memory while connections are open.
    memory_ns: u64,
}

/// The place of one slice, all from 0, and its begin.
struct Slot {
    round: usize,
    position: usize,
    arm: usize,
    start_ns: u64,
    /// Time after the slice, for requests in flight to end and for a reading of CPU time.
    gap_ns: u64,
}

impl Schedule {
    /// A schedule whose slices are further apart by `separation_ns` than those on a single host.
    pub(super) fn new(
        condition: &Condition,
        random: &mut fastrand::Rng,
        separation_ns: u64,
    ) -> Self {
        let arms = condition.arms.iter().enumerate();
        let driven: Vec<usize> = arms
            .filter(|(_, arm)| arm.skip.is_none())
            .map(|(index, _)| index)
            .collect();

        let rounds = order::balanced_rounds(driven.len(), condition.effort.rounds);
        let orders = order::rounds(driven.len(), rounds, random);
        let clients = u64::from(condition.clients);
        let mut slots = Vec::new();
        let mut start_ns = 0;

        for (round, order) in orders.into_iter().enumerate() {
            for (position, nth) in order.into_iter().enumerate() {
                let arm = driven[nth];
                let usual_gap_ns = condition.effort.gap.ns()
                    + clients * GAP_PER_CLIENT_NS
                    + processes(&condition.arms[arm], clients) * GAP_PER_PROCESS_NS
                    + forks(condition, arm) * GAP_PER_FORK_NS;
                let gap_ns = usual_gap_ns * condition.gap_percent / 100 + separation_ns;

                slots.push(Slot {
                    round,
                    position,
                    arm,
                    start_ns,
                    gap_ns,
                });
                start_ns += condition.effort.ramp.ns() + condition.effort.slice.ns() + gap_ns;
            }
        }

        let most = driven
            .iter()
            .map(|&arm| processes(&condition.arms[arm], clients))
            .max();
        Schedule {
            slots,
            effort: condition.effort,
            windows_end_ns: start_ns,
            memory_ns: MEMORY_NS
                + separation_ns
                + clients * MEMORY_PER_CLIENT_NS
                + most.unwrap_or(0) * MEMORY_PER_PROCESS_NS,
        }
    }

    /// The slice in a slot, as a window of a load plan.
    pub(crate) fn window(&self, slot: usize) -> Window {
        let start_ns = self.slots[slot].start_ns;
        let measure_ns = start_ns + self.effort.ramp.ns();
        let end_ns = measure_ns + self.effort.slice.ns();
        Window {
            start_ns,
            measure_ns,
            end_ns,
            requests: None,
        }
    }

    /// The slots of an arm, in order of time.
    pub(crate) fn slots_of(&self, arm: usize) -> impl Iterator<Item = usize> {
        (0..self.slots.len()).filter(move |&slot| self.slots[slot].arm == arm)
    }

    /// The round of a slot, and the position in it, both from 0.
    pub(crate) fn place(&self, slot: usize) -> (usize, usize) {
        let Slot {
            round, position, ..
        } = self.slots[slot];
        (round, position)
    }

    /// Begin of the slice after that of a slot.
    pub(crate) fn next_start_ns(&self, slot: usize) -> u64 {
        let next = self.slots.get(slot + 1);
        next.map_or(self.windows_end_ns, |next| next.start_ns)
    }

    /// Instant in the gap after a slice at which the CPU time of its server is read.
    pub(super) fn reading_ns(&self, slot: usize) -> u64 {
        self.window(slot).end_ns + self.slots[slot].gap_ns / 2
    }

    /// Time that is measured, over all arms.
    pub(super) fn measured_ns(&self) -> u64 {
        self.slots.len() as u64 * self.effort.slice.ns()
    }

    /// The shortest time between two slices; `None` without any.
    pub(super) fn least_gap_ns(&self) -> Option<u64> {
        self.slots.iter().map(|slot| slot.gap_ns).min()
    }

    pub(super) fn windows_end_ns(&self) -> u64 {
        self.windows_end_ns
    }

    pub(super) fn end_ns(&self) -> u64 {
        self.windows_end_ns() + self.memory_ns
    }
}

/// Number of forks that the requests in flight at the end of a slice wait for.
fn forks(condition: &Condition, arm: usize) -> u64 {
    let churns = condition.scenario.traffic.requests_per_connection.is_some();
    let model = condition.arms[arm].model();
    let forks = model.is_some_and(|model| model.family == Family::Processes);
    u64::from(condition.clients) * u64::from(churns && forks)
}

/// Number of processes of an arm's server that are read one by one, at most. That of another project may
/// have one for each client.
fn processes(arm: &Arm, clients: u64) -> u64 {
    match arm.model().map(|model| model.family) {
        None | Some(Family::Processes) => clients,
        Some(Family::ProcessPool) => Settings::WORKERS as u64,
        Some(_) => 1,
    }
}
