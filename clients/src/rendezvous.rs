//! Phases that all clients pass together: ready, started, ended, released.
//!
//! Results are summed up only after the last client has ended: the CPU time for it would otherwise be taken
//! from clients that are still measured.

use std::sync::{Condvar, Mutex, MutexGuard};

/// Synchronization of one client, or of a group of them, with all others.
pub(crate) trait Rendezvous {
    /// Reports that the client is connected, or has failed to, and waits for the start. Returns the instant
    /// at which the windows begin, or `None` if they never will.
    fn wait_for_start(&mut self) -> Option<u64>;

    /// Reports that the client has ended, and waits for all others.
    fn wait_for_end(&mut self);
}

/// Rendezvous of threads, led by the thread that starts them.
#[derive(Default)]
pub(crate) struct ThreadRendezvous {
    state: Mutex<State>,
    arrived: Condvar,
    went_on: Condvar,
}

#[derive(Default)]
struct State {
    ready: u32,
    ended: u32,
    phase: Phase,
}

#[derive(Clone, Copy, Default, PartialEq)]
enum Phase {
    #[default]
    Connecting,
    /// The windows start at this instant.
    Started(u64),
    Released,
    /// The windows never start.
    Cancelled,
}

impl ThreadRendezvous {
    /// Entry of a thread. A thread that panics counts as ready and ended, so that no other waits for it.
    pub(crate) fn participant(&self) -> Participant<'_> {
        Participant {
            rendezvous: self,
            is_ready: false,
            has_ended: false,
        }
    }

    pub(crate) fn wait_until_ready(&self, participants: u32) {
        self.wait(&self.arrived, |state| state.ready < participants);
    }

    pub(crate) fn start(&self, start_ns: u64) {
        self.go_on(Phase::Started(start_ns));
    }

    pub(crate) fn wait_until_ended(&self, participants: u32) {
        self.wait(&self.arrived, |state| state.ended < participants);
    }

    /// Lets the threads that have ended go on, to sum up.
    pub(crate) fn release(&self) {
        self.go_on(Phase::Released);
    }

    /// Ends all threads without a start.
    pub(crate) fn cancel(&self) {
        self.go_on(Phase::Cancelled);
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.lock().phase == Phase::Cancelled
    }

    fn go_on(&self, phase: Phase) {
        self.lock().phase = phase;
        self.went_on.notify_all();
    }

    fn arrive(&self, count: impl FnOnce(&mut State)) {
        count(&mut self.lock());
        self.arrived.notify_one();
    }

    fn wait(&self, condition: &Condvar, until_not: impl Fn(&State) -> bool) -> Phase {
        let waited = condition.wait_while(self.lock(), |state| until_not(state));
        waited.expect("no panic while it is locked").phase
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while it is locked")
    }
}

/// One thread at a [`ThreadRendezvous`].
pub(crate) struct Participant<'a> {
    rendezvous: &'a ThreadRendezvous,
    is_ready: bool,
    has_ended: bool,
}

impl Participant<'_> {
    fn report_ready(&mut self) {
        if !self.is_ready {
            self.is_ready = true;
            self.rendezvous.arrive(|state| state.ready += 1);
        }
    }

    fn report_end(&mut self) {
        if !self.has_ended {
            self.has_ended = true;
            self.rendezvous.arrive(|state| state.ended += 1);
        }
    }
}

impl Rendezvous for Participant<'_> {
    fn wait_for_start(&mut self) -> Option<u64> {
        self.report_ready();
        let rendezvous = self.rendezvous;
        let phase = rendezvous.wait(&rendezvous.went_on, |state| {
            state.phase == Phase::Connecting
        });
        match phase {
            Phase::Started(start_ns) => Some(start_ns),
            Phase::Connecting | Phase::Released | Phase::Cancelled => None,
        }
    }

    fn wait_for_end(&mut self) {
        self.report_end();
        let rendezvous = self.rendezvous;
        rendezvous.wait(&rendezvous.went_on, |state| {
            matches!(state.phase, Phase::Started(_))
        });
    }
}

impl Drop for Participant<'_> {
    fn drop(&mut self) {
        self.report_ready();
        self.report_end();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::thread;

    use super::*;

    #[test]
    fn nobody_is_released_before_all_have_ended() {
        let rendezvous = ThreadRendezvous::default();
        let ended = AtomicU32::new(0);

        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let mut participant = rendezvous.participant();
                    assert_eq!(participant.wait_for_start(), Some(7));
                    ended.fetch_add(1, Ordering::Relaxed);
                    participant.wait_for_end();
                    assert_eq!(ended.load(Ordering::Relaxed), 8);
                });
            }
            rendezvous.wait_until_ready(8);
            rendezvous.start(7);
            rendezvous.wait_until_ended(8);
            assert_eq!(ended.load(Ordering::Relaxed), 8);
            rendezvous.release();
        });
    }

    #[test]
    fn a_thread_that_panics_holds_nobody() {
        let rendezvous = ThreadRendezvous::default();
        let panicked = thread::scope(|scope| {
            let panics = scope.spawn(|| {
                let _participant = rendezvous.participant();
                panic!("on purpose");
            });
            scope.spawn(|| {
                let mut participant = rendezvous.participant();
                participant.wait_for_start();
                participant.wait_for_end();
            });

            rendezvous.wait_until_ready(2);
            rendezvous.start(7);
            rendezvous.wait_until_ended(2);
            rendezvous.release();
            panics.join().is_err()
        });
        assert!(panicked);
    }

    #[test]
    fn a_cancelled_start_ends_everyone() {
        let rendezvous = ThreadRendezvous::default();
        thread::scope(|scope| {
            let waiting = scope.spawn(|| rendezvous.participant().wait_for_start());
            rendezvous.wait_until_ready(1);
            rendezvous.cancel();
            assert_eq!(waiting.join().unwrap(), None);
        });
    }
}
