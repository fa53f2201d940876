//! A fixed number of worker threads that share all connections: a worker takes a request, not a
//! connection.
//!
//! One epoll instance watches every connection for one event at a time. By default the workers take
//! turns as leader: the leader waits for an event, passes the lead on, and serves the request with
//! blocking work, as the threads of `pool` do. With `--hand-off queue` a thread of its own waits for
//! events, and a queue hands them to the workers. However many clients there are, an idle one
//! occupies no worker.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crossbeam::channel;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::acceptor::Acceptor;
use crate::connection::LINGER;
use crate::event::{Blocking, Conversation, Next};
use crate::settings::{HandOff, ModelOption, Settings};
use crate::{Family, Model};

pub(crate) const MODEL: Model = Model {
    name: "leader",
    summary: "a fixed number of threads, each taking the next request of any connection",
    family: Family::EventLoops,
    options: &[
        ModelOption::Workers,
        ModelOption::HandOff,
        ModelOption::StackSize,
    ],
    accept: &[],
    probe: None,
    serve,
};

fn serve(mut acceptor: Acceptor, settings: &Settings) -> io::Result<()> {
    let workers = settings.blocking_workers();
    let ready = Arc::new(ReadySet::new()?);

    match settings.hand_off.unwrap_or_default() {
        HandOff::Leader => {
            let lead = Arc::new(Mutex::new(()));
            for number in 1..=workers {
                let (ready, lead) = (Arc::clone(&ready), Arc::clone(&lead));
                acceptor.start_worker(number, workers, move || {
                    loop {
                        let leading = lock(&lead);
                        let key = ready.wait();
                        drop(leading);
                        ready.serve(key);
                    }
                })?;
            }
        }
        HandOff::Queue => {
            let (sender, receiver) = channel::unbounded();
            for number in 1..=workers {
                let (ready, receiver) = (Arc::clone(&ready), receiver.clone());
                acceptor.start_worker(number, workers, move || {
                    receiver.into_iter().for_each(|key| ready.serve(key));
                })?;
            }
            let ready = Arc::clone(&ready);
            acceptor.start_worker(workers + 1, workers + 1, move || {
                while sender.send(ready.wait()).is_ok() {}
            })?;
        }
    }

    while let Some(connection) = acceptor.accept()? {
        if let Some(conversation) = Conversation::begin(connection, Blocking::Thread) {
            ready.enter(conversation);
        }
    }
    Ok(())
}

/// The conversations that wait for an event.
struct ReadySet {
    epoll: Epoll,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    conversations: HashMap<u64, Conversation>,
    /// Deadlines of clients that were sent an error frame, the earliest first.
    deadlines: VecDeque<(Instant, u64)>,
}

impl ReadySet {
    fn new() -> io::Result<Self> {
        Ok(ReadySet {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            waiting: Mutex::default(),
        })
    }

    /// Waits until an event has occurred, and returns its conversation's key.
    fn wait(&self) -> u64 {
        let mut events = [EpollEvent::empty()];
        loop {
            match self.epoll.wait(&mut events, self.expire()) {
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => return events[0].data(),
                Err(error) => panic!("epoll_wait: {error}"),
            }
        }
    }

    /// Adds a new conversation. Its first event is that it may write, so that a worker also begins
    /// those of a service that speaks first.
    fn enter(&self, conversation: Conversation) {
        let key = conversation.index() as u64;
        let first = EpollEvent::new(EpollFlags::EPOLLOUT | EpollFlags::EPOLLONESHOT, key);
        let mut waiting = lock(&self.waiting);
        if self.epoll.add(&conversation, first).is_ok() {
            waiting.conversations.insert(key, conversation);
        }
    }

    /// Serves the conversation of an event, which no other worker has, until it has to wait again.
    fn serve(&self, key: u64) {
        let Some(mut conversation) = lock(&self.waiting).conversations.remove(&key) else {
            return;
        };
        let deadline_before = conversation.deadline();
        let flags = match conversation.proceed() {
            Next::Readable => EpollFlags::EPOLLIN,
            Next::Writable => EpollFlags::EPOLLOUT,
            Next::At(_) | Next::Over => return,
        };

        let mut next = EpollEvent::new(flags | EpollFlags::EPOLLONESHOT, key);
        // Before the event is asked for: it may occur at once, and the worker that serves it has to
        // find the conversation.
        let mut waiting = lock(&self.waiting);
        if self.epoll.modify(&conversation, &mut next).is_err() {
            return;
        }
        if conversation.deadline() != deadline_before {
            let deadline = conversation.deadline().map(|deadline| (deadline, key));
            waiting.deadlines.extend(deadline);
        }
        waiting.conversations.insert(key, conversation);
    }

    /// Cuts off the clients whose deadline is over, and returns the time until the next one.
    fn expire(&self) -> EpollTimeout {
        let mut waiting = lock(&self.waiting);
        while let Some(&(deadline, key)) = waiting.deadlines.front() {
            let left = deadline.saturating_duration_since(Instant::now());
            if !left.is_zero() {
                // Rounded up: waking before the deadline would mean waking twice.
                let millis = u16::try_from(left.as_millis() + 1).unwrap_or(u16::MAX);
                return EpollTimeout::from(millis);
            }
            waiting.deadlines.pop_front();

            // It may be over, and its descriptor in use again.
            let expired = |conversation: &Conversation| conversation.deadline() == Some(deadline);
            if waiting.conversations.get(&key).is_some_and(expired)
                && let Some(mut conversation) = waiting.conversations.remove(&key)
            {
                conversation.expire();
            }
        }
        // A deadline that is set meanwhile is noticed this much later at the most.
        EpollTimeout::try_from(LINGER).unwrap_or(EpollTimeout::MAX)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
