//! An event loop per worker, on epoll.
//!
//! Each thread waits for events of all its connections at once, and serves each as far as it goes
//! without waiting: neither a thread nor a stack belongs to a connection. Every loop has a listener of
//! its own (`SO_REUSEPORT`), because loops that share one leave nearly all connections to one of them.
//! Blocking work becomes a timer; spinning work holds up its loop, as any computation would.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::acceptor::Acceptor;
use crate::event::{Blocking, Conversation, Next};
use crate::incoming::{Incoming, Offer};
use crate::listener::BACK_OFF;
use crate::settings::{AcceptMode, ModelOption, Settings};
use crate::{Family, Model};

/// Events taken from the kernel at once.
const BATCH: usize = 256;
/// Keys of events that are not a connection's: no descriptor has such a number.
const LISTENER: u64 = u64::MAX;
const STOP: u64 = u64::MAX - 1;
/// In place of a descriptor: the timer after which the listener is watched again.
const LISTENER_TIMER: usize = usize::MAX;

pub(crate) const MODEL: Model = Model {
    name: "reactor",
    summary: "an event loop per worker, on epoll",
    family: Family::EventLoops,
    options: &[
        ModelOption::Workers,
        ModelOption::Accept,
        ModelOption::StackSize,
    ],
    accept: &[
        AcceptMode::Reuseport,
        AcceptMode::Exclusive,
        AcceptMode::Poll,
    ],
    probe: None,
    serve,
};

fn serve(mut acceptor: Acceptor, settings: &Settings) -> io::Result<()> {
    let workers = settings.event_workers()?;
    let mode = settings.accept.unwrap_or(MODEL.accept[0]);

    for number in 1..=workers {
        let event_loop = EventLoop::new(acceptor.incoming(number, mode)?)?;
        acceptor.start_worker(number, workers, || event_loop.run())?;
    }
    acceptor.accept().map(|_end| ())
}

/// The event loop of one worker.
struct EventLoop {
    epoll: Epoll,
    /// `None` once the drain has emptied the backlog.
    incoming: Option<Incoming>,
    /// Conversations by their descriptors.
    conversations: Vec<Option<Box<Watched>>>,
    open: usize,
    timers: BinaryHeap<Reverse<(Instant, usize)>>,
}

/// A conversation with what epoll and the timers know of it.
struct Watched {
    conversation: Conversation,
    next: Next,
}

impl EventLoop {
    fn new(incoming: Incoming) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        incoming.watch(&epoll, LISTENER)?;
        let stop = EpollEvent::new(EpollFlags::EPOLLIN, STOP);
        epoll.add(incoming.stop_event(), stop)?;
        Ok(EventLoop {
            epoll,
            incoming: Some(incoming),
            conversations: Vec::new(),
            open: 0,
            timers: BinaryHeap::new(),
        })
    }

    fn run(mut self) {
        let mut events = vec![EpollEvent::empty(); BATCH];
        while self.incoming.is_some() || self.open > 0 {
            let count = match self.epoll.wait(&mut events, self.timeout()) {
                Ok(count) => count,
                Err(Errno::EINTR) => 0,
                Err(error) => panic!("epoll_wait: {error}"),
            };

            for event in &events[..count] {
                match event.data() {
                    LISTENER | STOP => self.accept(),
                    key => self.proceed(index(key), Conversation::proceed),
                }
            }
            self.expire_timers();
        }
    }

    /// Accepts what is in the backlog. Level-triggered: what is left comes with the next event.
    fn accept(&mut self) {
        for _ in 0..BATCH {
            let Some(incoming) = &mut self.incoming else {
                return;
            };
            match incoming.offer() {
                Offer::Connection(connection) => {
                    if let Some(conversation) = Conversation::begin(connection, Blocking::Timer) {
                        self.insert(conversation);
                    }
                }
                Offer::Nothing | Offer::Refused => return,
                Offer::Exhausted => {
                    incoming.unwatch(&self.epoll);
                    let again = Instant::now() + BACK_OFF;
                    self.timers.push(Reverse((again, LISTENER_TIMER)));
                    return;
                }
                Offer::End => {
                    incoming.unwatch(&self.epoll);
                    // It stays readable until the end of the server.
                    let _ = self.epoll.delete(incoming.stop_event());
                    self.incoming = None;
                }
            }
        }
    }

    /// Serves a new conversation at once: its first request is often there already, and a service
    /// that speaks first has nothing to wait for.
    fn insert(&mut self, mut conversation: Conversation) {
        let index = conversation.index();
        let next = conversation.proceed();
        if self.conversations.len() <= index {
            self.conversations.resize_with(index + 1, || None);
        }
        let waits = next != Next::Over && self.watch(&conversation, None, next).is_ok();
        if waits {
            self.conversations[index] = Some(Box::new(Watched { conversation, next }));
            self.open += 1;
        }
    }

    /// Continues a conversation, and waits for its next event.
    fn proceed(&mut self, index: usize, step: impl FnOnce(&mut Conversation) -> Next) {
        // An earlier event of the same batch may have ended it.
        let Some(mut watched) = self.conversations[index].take() else {
            return;
        };

        let before = watched.next;
        watched.next = step(&mut watched.conversation);
        let waits = watched.next != Next::Over
            && self
                .watch(&watched.conversation, Some(before), watched.next)
                .is_ok();
        if waits {
            self.conversations[index] = Some(watched);
        } else {
            self.open -= 1;
        }
    }

    /// Tells epoll, or the timers, what a conversation waits for.
    fn watch(
        &mut self,
        conversation: &Conversation,
        before: Option<Next>,
        next: Next,
    ) -> nix::Result<()> {
        let flags = |next| match next {
            Next::Readable => Some(EpollFlags::EPOLLIN),
            Next::Writable => Some(EpollFlags::EPOLLOUT),
            Next::At(_) | Next::Over => None,
        };
        let due = match next {
            Next::At(time) => Some(time),
            _ => conversation.deadline(),
        };
        if let Some(time) = due {
            self.timers.push(Reverse((time, conversation.index())));
        }

        let event = |flags| EpollEvent::new(flags, conversation.index() as u64);
        match (before.and_then(flags), flags(next)) {
            (old, new) if old == new => Ok(()),
            (None, Some(new)) => self.epoll.add(conversation, event(new)),
            (Some(_), Some(new)) => self.epoll.modify(conversation, &mut event(new)),
            // Taken out, since a client that disconnects would be reported again and again.
            (_, None) => self.epoll.delete(conversation),
        }
    }

    fn timeout(&self) -> EpollTimeout {
        let Some(Reverse((due, _))) = self.timers.peek() else {
            return EpollTimeout::NONE;
        };
        // Rounded up: waking before the timer is due would mean waking twice.
        let left = due.saturating_duration_since(Instant::now());
        let millis = left.as_nanos().div_ceil(1_000_000);
        EpollTimeout::try_from(i32::try_from(millis).unwrap_or(i32::MAX))
            .unwrap_or(EpollTimeout::MAX)
    }

    fn expire_timers(&mut self) {
        while let Some(&Reverse((due, index))) = self.timers.peek() {
            if due > Instant::now() {
                return;
            }
            self.timers.pop();
            if index == LISTENER_TIMER {
                if let Some(incoming) = &self.incoming {
                    // Fails only if it is watched already.
                    let _ = incoming.watch(&self.epoll, LISTENER);
                }
                continue;
            }

            // The conversation it was set for may be over, and its descriptor in use again.
            match &self.conversations[index] {
                Some(watched) if watched.next == Next::At(due) => {
                    self.proceed(index, Conversation::work_done);
                }
                Some(watched) if watched.conversation.deadline() == Some(due) => {
                    self.proceed(index, Conversation::expire);
                }
                _ => {}
            }
        }
    }
}

/// The place of a conversation among all, from the key of its events.
fn index(key: u64) -> usize {
    usize::try_from(key).expect("a key is a descriptor")
}
