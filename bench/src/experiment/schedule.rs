//! The schedule of a block: which arm is driven when.

use echobench_clients::Window;

use super::condition::Condition;
use super::order;
use crate::scenario::Effort;

/// When everything happens, in nanoseconds after the start of the block.
pub(crate) struct Schedule {
    /// For each slice in order of time: round, position, and arm.
    slots: Vec<(usize, usize, usize)>,
    effort: Effort,
    /// Between two slices: to drain, and to read the CPU time of a server of that many processes.
    pub(super) gap_ns: u64,
    /// After the last slice, time to read the servers' memory while connections are open.
    memory_ns: u64,
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
                slots.push((round, position, driven[nth]));
            }
        }
        let gap_ns = condition.effort.gap.ns() + 15_000 * u64::from(condition.clients);
        let memory_ns = 20_000_000 + 800_000 * u64::from(condition.clients);
        Schedule {
            slots,
            effort: condition.effort,
            gap_ns,
            memory_ns,
        }
    }

    /// From the begin of a slice to that of the next.
    pub(crate) fn slot_ns(&self) -> u64 {
        self.effort.ramp.ns() + self.effort.slice.ns() + self.gap_ns
    }

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

    pub(crate) fn slots_of(&self, arm: usize) -> impl Iterator<Item = usize> {
        (0..self.slots.len()).filter(move |&slot| self.slots[slot].2 == arm)
    }

    /// The round of a slot, and the position in it, both from 0.
    pub(crate) fn place(&self, slot: usize) -> (usize, usize) {
        let (round, position, _) = self.slots[slot];
        (round, position)
    }

    pub(super) fn windows_end_ns(&self) -> u64 {
        self.slots.len() as u64 * self.slot_ns()
    }

    pub(super) fn end_ns(&self) -> u64 {
        self.windows_end_ns() + self.memory_ns
    }
}
