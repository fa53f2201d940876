//! The schedule of a block: the slices of each arm in time.

use echobench_clients::Window;

use super::condition::Condition;
use super::order;
use crate::scenario::Effort;

/// Addition to the gap for each client: a server may have a process per client, whose CPU times are all
/// read in the gap.
const GAP_PER_CLIENT_NS: u64 = 15_000;
/// Time after the last slice in which the servers' memory is read, and its part for each client.
const MEMORY_NS: u64 = 20_000_000;
const MEMORY_PER_CLIENT_NS: u64 = 800_000;

/// The instants of a block, in nanoseconds after its start.
pub(crate) struct Schedule {
    /// The slices in order of time.
    slots: Vec<Slot>,
    effort: Effort,
    /// Time between two slices, for requests in flight to end and for readings of CPU time.
    pub(super) gap_ns: u64,
    /// Time after the last slice, for readings of memory while connections are open.
    memory_ns: u64,
}

/// The place of one slice, all from 0.
struct Slot {
    round: usize,
    position: usize,
    arm: usize,
}

impl Schedule {
    pub(super) fn new(condition: &Condition, random: &mut fastrand::Rng) -> Self {
        let arms = condition.arms.iter().enumerate();
        let driven: Vec<usize> = arms
            .filter(|(_, arm)| arm.skip.is_none())
            .map(|(index, _)| index)
            .collect();

        let rounds = order::balanced_rounds(driven.len(), condition.effort.rounds);
        let orders = order::rounds(driven.len(), rounds, random);
        let mut slots = Vec::new();

        for (round, order) in orders.into_iter().enumerate() {
            for (position, nth) in order.into_iter().enumerate() {
                slots.push(Slot {
                    round,
                    position,
                    arm: driven[nth],
                });
            }
        }

        let clients = u64::from(condition.clients);
        Schedule {
            slots,
            effort: condition.effort,
            gap_ns: condition.effort.gap.ns() + clients * GAP_PER_CLIENT_NS,
            memory_ns: MEMORY_NS + clients * MEMORY_PER_CLIENT_NS,
        }
    }

    /// Time from the start of a slice to that of the next.
    pub(crate) fn slot_ns(&self) -> u64 {
        self.effort.ramp.ns() + self.effort.slice.ns() + self.gap_ns
    }

    /// The slice in a slot, as a window of a load plan.
    pub(crate) fn window(&self, slot: usize) -> Window {
        let start_ns = slot as u64 * self.slot_ns();
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

    pub(super) fn windows_end_ns(&self) -> u64 {
        self.slots.len() as u64 * self.slot_ns()
    }

    pub(super) fn end_ns(&self) -> u64 {
        self.windows_end_ns() + self.memory_ns
    }
}
