//! Readiness of the sockets of one thread, and one precise timer: epoll and a timer descriptor.

use std::io;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use crate::{clock, stop};

/// Events taken from the kernel at a time.
const EVENTS: usize = 256;
/// Marks of the descriptors that belong to no task.
const TIMER: u64 = u64::MAX;
const STOP: u64 = u64::MAX - 1;
/// An instant that never comes.
pub(super) const NEVER: u64 = u64::MAX;

/// Source of an event.
pub(super) enum Source {
    /// The socket of the task with this number.
    Task(usize),
    /// The instant that was given to [`Poller::wait`] has come.
    Timer,
    /// All loads of the process are to end early.
    Stop,
}

/// Events of one thread. All are edge-triggered: each change is reported once.
pub(super) struct Poller {
    epoll: Epoll,
    /// The timeout of epoll counts in milliseconds, this timer in nanoseconds.
    timer: TimerFd,
    /// Instant that the timer is set to, or [`NEVER`].
    set_to_ns: u64,
    events: Vec<EpollEvent>,
}

impl Poller {
    pub(super) fn new() -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?;

        let once = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
        epoll.add(&timer, EpollEvent::new(once, TIMER))?;
        if let Some(stopped) = stop::pending() {
            epoll.add(stopped, EpollEvent::new(once, STOP))?;
        }

        Ok(Poller {
            epoll,
            timer,
            set_to_ns: NEVER,
            events: vec![EpollEvent::empty(); EVENTS],
        })
    }

    /// Reports what happens to the socket of a task, until the socket is closed.
    pub(super) fn watch(&self, socket: impl AsFd, task: usize) -> io::Result<()> {
        let flags = EpollFlags::EPOLLIN
            | EpollFlags::EPOLLOUT
            | EpollFlags::EPOLLRDHUP
            | EpollFlags::EPOLLET;
        self.epoll
            .add(socket, EpollEvent::new(flags, task as u64))?;
        Ok(())
    }

    /// Waits for events, at most until the instant `until_ns`; does not wait if `is_busy`. Returns the number of events.
    pub(super) fn wait(&mut self, until_ns: u64, is_busy: bool) -> usize {
        if until_ns != self.set_to_ns {
            self.set_timer(until_ns);
        }

        let timeout = if is_busy {
            EpollTimeout::ZERO
        } else {
            EpollTimeout::NONE
        };
        match self.epoll.wait(&mut self.events, timeout) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(error) => unreachable!("epoll_wait fails only for wrong arguments: {error}"),
        }
    }

    /// Event number `index` of those that the last wait returned.
    pub(super) fn event(&mut self, index: usize) -> (Source, EpollFlags) {
        let event = self.events[index];
        let source = match event.data() {
            TIMER => {
                self.set_to_ns = NEVER;
                Source::Timer
            }
            STOP => Source::Stop,
            task => Source::Task(usize::try_from(task).expect("made from a number like this")),
        };
        (source, event.events())
    }

    fn set_timer(&mut self, instant: u64) {
        self.set_to_ns = instant;
        let set = if instant == NEVER {
            self.timer.unset()
        } else {
            let expiration = Expiration::OneShot(clock::time_spec(instant));
            self.timer
                .set(expiration, TimerSetTimeFlags::TFD_TIMER_ABSTIME)
        };
        set.expect("an instant on the clock is a valid time");
    }
}
