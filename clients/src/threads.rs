//! The driver `threads`: a thread for each client.

use std::sync::{Condvar, Mutex};
use std::thread;

use crate::client::Client;
use crate::plan::Plan;
use crate::report::Report;
use crate::{LoadError, blocking};

/// Clients hold their buffers on the heap; their stacks stay small.
const STACK_BYTES: usize = 128 * 1024;

pub(crate) fn run(plan: &Plan, start: impl FnOnce() -> u64) -> Result<Report, LoadError> {
    let shared = Mutex::new(Report::empty(plan.windows.len()));
    let gate = &Gate::default();
    let spawned = thread::scope(|scope| {
        for index in 0..plan.clients {
            let shared = &shared;
            let client = move || {
                blocking::run(plan, Client::new(plan, index, shared), || gate.arrive());
            };
            let builder = thread::Builder::new().stack_size(STACK_BYTES);
            if let Err(source) = builder.spawn_scoped(scope, client) {
                gate.open(Passage::Cancelled);
                return Err(LoadError::Spawn {
                    client: index + 1,
                    clients: plan.clients,
                    source,
                });
            }
        }
        gate.wait_for(plan.clients);
        gate.open(Passage::Open(start()));
        Ok(())
    });
    spawned?;
    Ok(shared.into_inner().expect("no client panics"))
}

/// Where the clients wait for each other and for the start.
#[derive(Default)]
struct Gate {
    state: Mutex<GateState>,
    all_here: Condvar,
    opened: Condvar,
}

#[derive(Default)]
struct GateState {
    arrived: u32,
    passage: Passage,
}

#[derive(Clone, Copy, Default, PartialEq)]
enum Passage {
    #[default]
    Shut,
    /// The windows start at this instant.
    Open(u64),
    /// There will be no start.
    Cancelled,
}

impl Gate {
    /// Called by a client: waits for the start.
    fn arrive(&self) -> Option<u64> {
        let mut state = self.state.lock().expect("no client panics");
        state.arrived += 1;
        self.all_here.notify_one();
        let waited = self
            .opened
            .wait_while(state, |state| state.passage == Passage::Shut);
        match waited.expect("no client panics").passage {
            Passage::Open(start) => Some(start),
            Passage::Shut | Passage::Cancelled => None,
        }
    }

    fn wait_for(&self, clients: u32) {
        let state = self.state.lock().expect("no client panics");
        let waited = self
            .all_here
            .wait_while(state, |state| state.arrived < clients);
        drop(waited.expect("no client panics"));
    }

    fn open(&self, passage: Passage) {
        self.state.lock().expect("no client panics").passage = passage;
        self.opened.notify_all();
    }
}
