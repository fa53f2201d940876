//! The driver `threads`: a thread per client.

use std::sync::Mutex;
use std::thread;

use crate::client::Client;
use crate::plan::Plan;
use crate::rendezvous::ThreadRendezvous;
use crate::report::LoadReport;
use crate::room::Room;
use crate::{LoadError, blocking};

/// Small stacks, because clients hold their buffers on the heap.
const STACK_BYTES: usize = 128 * 1024;
/// Address space that a client needs.
const ROOM_BYTES: usize = STACK_BYTES + 64 * 1024;

pub(crate) fn run(
    plan: &Plan,
    began_ns: u64,
    start: impl FnOnce() -> u64,
) -> Result<LoadReport, LoadError> {
    let room = Room::take(plan.clients, ROOM_BYTES);
    drop(room.map_err(|(client, error)| LoadError::Spawn {
        client,
        clients: plan.clients,
        error,
    })?);

    let shared = &Mutex::new(LoadReport::empty(plan.windows.len()));
    let rendezvous = &ThreadRendezvous::default();

    thread::scope(|scope| {
        for (nth, index) in (1..).zip(plan.numbers()) {
            let client = move || {
                let participant = rendezvous.participant();
                blocking::run(
                    plan,
                    began_ns,
                    Client::new(plan, index, shared),
                    participant,
                );
            };

            let builder = thread::Builder::new().stack_size(STACK_BYTES);
            if let Err(error) = builder.spawn_scoped(scope, client) {
                rendezvous.cancel();
                return Err(LoadError::Spawn {
                    client: nth,
                    clients: plan.clients,
                    error,
                });
            }
        }

        rendezvous.wait_until_ready(plan.clients);
        rendezvous.start(start());
        rendezvous.wait_until_ended(plan.clients);
        rendezvous.release();
        Ok(())
    })?;

    let report = std::mem::take(&mut *shared.lock().expect("no client panics"));
    Ok(report)
}
