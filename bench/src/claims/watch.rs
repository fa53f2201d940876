//! Watches the machine during an experiment: whether something else used it, or it stood still.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use echobench_clients::clock;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

use crate::rows::MachineWatch;

/// A watch under way.
pub struct Watch {
    over: Arc<AtomicBool>,
    own_before_ns: u64,
    watcher: JoinHandle<MachineWatch>,
}

impl Watch {
    /// Watches from now on.
    #[must_use]
    pub fn start() -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&over);
        let goes_on = move |_| !seen.load(Ordering::Relaxed);
        Watch {
            over,
            own_before_ns: own_ns(),
            watcher: thread::spawn(move || MachineWatch::during(clock::now(), goes_on)),
        }
    }

    /// Whether the machine was disturbed until now. Every process of the experiment has to be
    /// reaped before: what is left counts as others'.
    #[must_use]
    pub fn disturbed(self) -> bool {
        self.over.store(true, Ordering::Relaxed);
        let machine = self.watcher.join().expect("the watch does not panic");
        machine.disturbed(machine.other_cpus(own_ns().saturating_sub(self.own_before_ns)))
    }
}

/// CPU time of this process and of all it has reaped.
fn own_ns() -> u64 {
    let used = |who| {
        getrusage(who).map_or(0, |usage| {
            usage.user_time().num_microseconds() + usage.system_time().num_microseconds()
        })
    };
    let micros = used(UsageWho::RUSAGE_SELF) + used(UsageWho::RUSAGE_CHILDREN);
    micros.unsigned_abs() * 1000
}
