//! The driver `threads`: a thread per client.

use std::sync::{Condvar, Mutex};
use std::thread;

use crate::client::Client;
use crate::plan::Plan;
use crate::report::LoadReport;
use crate::{LoadError, blocking};

/// Small stacks, because clients hold their buffers on the heap.
const STACK_BYTES: usize = 128 * 1024;

pub(crate) fn run(plan: &Plan, start: impl FnOnce() -> u64) -> Result<LoadReport, LoadError> {
    let shared = Mutex::new(LoadReport::empty(plan.windows.len()));
    let barrier = &StartBarrier::default();

    thread::scope(|scope| {
        for index in 0..plan.clients {
            let shared = &shared;
            let client = move || {
                blocking::run(plan, Client::new(plan, index, shared), || barrier.wait());
            };

            let builder = thread::Builder::new().stack_size(STACK_BYTES);
            if let Err(source) = builder.spawn_scoped(scope, client) {
                barrier.open(StartSignal::Cancelled);
                return Err(LoadError::Spawn {
                    client: index + 1,
                    clients: plan.clients,
                    source,
                });
            }
        }

        barrier.wait_for_all(plan.clients);
        barrier.open(StartSignal::At(start()));
        Ok(())
    })?;

    Ok(shared.into_inner().expect("no client panics"))
}

/// Barrier at which the clients wait for each other and for the start.
#[derive(Default)]
struct StartBarrier {
    state: Mutex<BarrierState>,
    all_arrived: Condvar,
    opened: Condvar,
}

#[derive(Default)]
struct BarrierState {
    arrived: u32,
    signal: StartSignal,
}

#[derive(Clone, Copy, Default, PartialEq)]
enum StartSignal {
    #[default]
    Pending,
    /// The windows start at this instant.
    At(u64),
    /// The windows never start.
    Cancelled,
}

impl StartBarrier {
    /// Waits, as a client, for the start; `None` if it is cancelled.
    fn wait(&self) -> Option<u64> {
        let mut state = self.state.lock().expect("no client panics");
        state.arrived += 1;
        self.all_arrived.notify_one();

        let waited = self
            .opened
            .wait_while(state, |state| state.signal == StartSignal::Pending);
        match waited.expect("no client panics").signal {
            StartSignal::At(start) => Some(start),
            StartSignal::Pending | StartSignal::Cancelled => None,
        }
    }

    fn wait_for_all(&self, clients: u32) {
        let state = self.state.lock().expect("no client panics");
        let waited = self
            .all_arrived
            .wait_while(state, |state| state.arrived < clients);
        drop(waited.expect("no client panics"));
    }

    fn open(&self, signal: StartSignal) {
        self.state.lock().expect("no client panics").signal = signal;
        self.opened.notify_all();
    }
}
