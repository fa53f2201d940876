//! The acceptor of all models: accepts connections, handles signals and timers, and runs the drain.

use std::collections::HashMap;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::panic;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc::c_int;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, kill, sigaction};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::connection::Connection;
use crate::counters::{MAX_WORKERS, Place};
use crate::incoming::{Incoming, Turns};
use crate::listener::{Accepted, BACK_OFF, BindError, Listener};
use crate::pass::{Passing, Receiver};
use crate::runtime::cannot_start;
use crate::server::{Server, Warning, log, timestamp};
use crate::settings::{AcceptMode, Settings};

/// Connections accepted between two checks for signals and timers.
const BURST: u32 = 64;
/// Interval at which the drain checks whether the last connection has ended.
const DRAIN_INTERVAL: Duration = Duration::from_millis(5);
const LONGEST_WAIT: Duration = Duration::from_secs(60);

const LISTENER: u64 = 0;
const SIGNALS: u64 = 1;
const STOP: u64 = 2;
const TIMER: u64 = 3;
/// The key of the socket to worker 0; those of the others follow.
const WORKERS: u64 = 4;

/// Events taken from the kernel at once.
const BATCH: usize = 16;

/// Interrupts accept(2) of a thread; SIGALRM stays free for experiments with interrupted system calls.
const INTERRUPT: Signal = Signal::SIGUSR2;

/// The place of the acceptor itself, and of a process for one connection.
const ACCEPTOR: usize = 0;

/// Results of [`Acceptor::poll_accept`].
pub(crate) enum Accept {
    /// A connection, with a non-blocking socket.
    Connection(Connection),
    /// No connection until [`Acceptor::events`] is readable.
    Wait,
    /// The server has ended.
    Stop,
}

enum Phase {
    Accepting,
    Draining { deadline: Instant },
    Stopped,
}

type Announce = Box<dyn FnOnce(SocketAddr) -> io::Result<()>>;

/// A handle that stops a server from within its own process, as SIGTERM does from outside.
#[derive(Debug)]
pub struct Stopper(Arc<Server>);

impl Stopper {
    /// Starts the drain: the server stops accepting, and ends when its connections have ended.
    pub fn stop(&self) {
        self.0.signal_stop();
    }
}

/// The listening socket of a server, with its signals, timers and children.
///
/// A model calls `accept` until it returns no connection: by then every connection has ended, or the
/// drain limit is over.
pub struct Acceptor {
    server: Arc<Server>,
    epoll: Epoll,
    signals: SignalFd,
    /// Readable when the next timer is due, for those who wait for [`Acceptor::events`].
    timer: TimerFd,
    timer_due: Option<Instant>,
    listener: Option<Listener>,
    /// Whether the listener is watched for connections.
    watched: bool,
    /// The place in which this process accepts.
    place: Place,
    /// The listeners of workers that accept for themselves: one for all, or one for each.
    shared: Vec<Arc<Listener>>,
    turns: Option<Turns>,
    /// The sockets to workers that accept nothing themselves.
    passing: Option<Passing>,
    address: SocketAddr,
    phase: Phase,
    /// Called once, when the model has set itself up.
    announce: Option<Announce>,
    /// Connections to accept before the next check for events.
    burst: u32,
    backs_off_until: Option<Instant>,
    next_stats: Option<Instant>,
    next_idle_check: Instant,
    /// Children with their places: that of a worker, or [`ACCEPTOR`] for one connection.
    children: HashMap<Pid, usize>,
    /// No worker is started again before this.
    next_start: Option<Instant>,
}

impl Acceptor {
    /// Listens on `address`: from here on clients can connect.
    ///
    /// Blocks the signals that the acceptor handles, for the calling thread and those it will start;
    /// so it has to be called before any other thread is started, and once per process.
    pub fn bind(address: SocketAddr, settings: Settings) -> Result<Self, BindError> {
        let next_stats = settings
            .stats_every
            .map(|interval| saturating_add(Instant::now(), interval));
        let next_idle_check = saturating_add(Instant::now(), settings.idle_timeout);

        let server = Arc::new(Server::new(settings)?);
        let listener = Listener::bind(address, &server)?;
        let address = listener.local_addr()?;
        let signals = block_signals().map_err(io::Error::from)?;
        report_panics(&server);

        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(io::Error::from)?;
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags).map_err(io::Error::from)?;
        let readable = |source| EpollEvent::new(EpollFlags::EPOLLIN, source);
        epoll
            .add(&listener, readable(LISTENER))
            .and_then(|()| epoll.add(&signals, readable(SIGNALS)))
            .and_then(|()| epoll.add(server.stop_event(), readable(STOP)))
            .and_then(|()| epoll.add(&timer, readable(TIMER)))
            .map_err(io::Error::from)?;

        Ok(Acceptor {
            place: server.counters.place(ACCEPTOR),
            server,
            epoll,
            signals,
            timer,
            timer_due: None,
            listener: Some(listener),
            watched: true,
            shared: Vec::new(),
            turns: None,
            passing: None,
            address,
            phase: Phase::Accepting,
            announce: Some(Box::new(print_ready)),
            burst: 0,
            backs_off_until: None,
            next_stats,
            next_idle_check,
            children: HashMap::new(),
            next_start: None,
        })
    }

    /// The address it listens on, with the real port.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Replaces the line `ready ADDR` on standard output by a call of `announce`, made when the model
    /// is ready to serve.
    pub fn when_ready(&mut self, announce: impl FnOnce(SocketAddr) -> io::Result<()> + 'static) {
        self.announce = Some(Box::new(announce));
    }

    /// Leaves SIGTERM and SIGINT to the rest of the process, which stops the server by [`Acceptor::stopper`].
    /// The descriptor of the signals could otherwise take one before the handler of another thread runs.
    pub fn leave_interrupts(&mut self) -> io::Result<()> {
        let signals = SigSet::from_iter([Signal::SIGUSR1, Signal::SIGCHLD]);
        self.signals.set_mask(&signals).map_err(Into::into)
    }

    /// A handle with which another thread of this process can stop the server.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        Stopper(Arc::clone(&self.server))
    }

    pub(crate) fn settings(&self) -> Settings {
        self.server.settings.clone()
    }

    /// Waits for the next connection; `None` when the server has ended.
    pub(crate) fn accept(&mut self) -> io::Result<Option<Connection>> {
        loop {
            match self.next(true)? {
                Accept::Connection(connection) => return Ok(Some(connection)),
                Accept::Wait => {}
                Accept::Stop => return Ok(None),
            }
        }
    }

    /// Returns the next connection if there is one, without waiting.
    pub(crate) fn poll_accept(&mut self) -> io::Result<Accept> {
        self.next(false)
    }

    /// A descriptor that is readable when [`Acceptor::poll_accept`] has something to do.
    pub(crate) fn events(&self) -> io::Result<OwnedFd> {
        self.epoll.0.try_clone()
    }

    /// Handles pending signals and timers without accepting. Returns false once the server has ended.
    pub(crate) fn handle_events(&mut self) -> io::Result<bool> {
        self.poll_events(Duration::ZERO)?;
        Ok(!self.has_stopped())
    }

    /// Returns the source of connections of worker `number`, from 1, or of the only one, which has the
    /// number 0. [`Acceptor::accept`] then only returns at the end of the server.
    ///
    /// A process calls it for itself, after the fork; a thread gets it from the one that starts it.
    pub(crate) fn incoming(&mut self, number: usize, mode: AcceptMode) -> io::Result<Incoming> {
        self.share_listener(number, mode)?;
        let listener = match mode {
            AcceptMode::Reuseport => &self.shared[number.saturating_sub(1)],
            _ => &self.shared[0],
        };
        let turns = self.turns.as_ref().expect("made with the first listener");
        Incoming::new(
            Arc::clone(listener),
            self.server.counters.place(number),
            turns,
        )
    }

    /// Prepares the listeners of the workers up to `number`, and whatever they take turns with.
    pub(crate) fn share_listener(&mut self, number: usize, mode: AcceptMode) -> io::Result<()> {
        if number > MAX_WORKERS {
            let text = format!("{number} workers are too many: there can be {MAX_WORKERS}");
            return Err(io::Error::other(text));
        }
        if mode == AcceptMode::Pass {
            self.passing.get_or_insert_default();
            return Ok(());
        }
        if let Some(listener) = self.listener.take() {
            self.epoll.delete(&listener)?;
            self.turns = Some(Turns::new(mode)?);
            ignore(INTERRUPT)?;
            self.share(listener, mode)?;
        }
        while mode == AcceptMode::Reuseport && self.shared.len() < number {
            let listener = self.shared[0].beside()?;
            self.share(listener, mode)?;
        }
        Ok(())
    }

    fn share(&mut self, listener: Listener, mode: AcceptMode) -> io::Result<()> {
        // Workers that wait elsewhere may find that another was faster, and must not block then.
        let waits_elsewhere = matches!(mode, AcceptMode::Poll | AcceptMode::Exclusive);
        listener.set_nonblocking(waits_elsewhere)?;
        self.shared.push(Arc::new(listener));
        Ok(())
    }

    /// Starts the thread of worker `number` of `workers`.
    pub(crate) fn start_worker(
        &self,
        number: usize,
        workers: usize,
        run: impl FnOnce() + Send + 'static,
    ) -> io::Result<()> {
        let builder = thread::Builder::new().stack_size(self.server.settings.stack_size());
        match builder.spawn(run) {
            Ok(_detached) => Ok(()),
            Err(error) => Err(cannot_start(number, workers, &error)),
        }
    }

    /// Waits until one of `workers` places has no worker process, at first or because it died, and
    /// returns its number, from 1; `None` when the server has ended. Meanwhile it passes connections, if
    /// that is their way to the workers.
    pub(crate) fn vacancy(&mut self, workers: usize) -> io::Result<Option<usize>> {
        loop {
            if let Some(number) = self.vacant_place(workers) {
                match self.open_socket(number) {
                    Ok(()) => return Ok(Some(number)),
                    Err(error) => self.worker_failed(number, &error)?,
                }
            }

            // Announces the server once every place is taken.
            match self.next(true)? {
                Accept::Connection(connection) => self.pass(connection),
                Accept::Wait => {}
                Accept::Stop => return Ok(None),
            }
        }
    }

    /// The place in which a worker is to be started now.
    fn vacant_place(&self, workers: usize) -> Option<usize> {
        let may_start = self.children.len() < workers
            && matches!(self.phase, Phase::Accepting)
            && self.next_start.is_none_or(|time| Instant::now() >= time);
        let is_vacant = |number: &usize| !self.children.values().any(|taken| taken == number);
        (1..=workers).find(|number| may_start && is_vacant(number))
    }

    /// Makes the socket to a worker, if connections are passed to it.
    fn open_socket(&mut self, number: usize) -> io::Result<()> {
        if let Some(passing) = &mut self.passing {
            passing.open(number, &self.epoll, WORKERS + number as u64)?;
        }
        Ok(())
    }

    /// Closes the socket to a worker.
    fn close_socket(&mut self, number: usize) {
        if let Some(passing) = &mut self.passing {
            passing.close(number, &self.epoll);
        }
    }

    /// Passes a connection to a worker.
    fn pass(&mut self, connection: Connection) {
        if let Some(passing) = &mut self.passing {
            let place = |number| self.server.counters.place(number);
            passing.pass(connection, place, &self.epoll);
        }
    }

    /// Whether an accepted connection would be served at once, as far as the acceptor can know.
    fn may_accept(&self) -> bool {
        let passing = self.passing.as_ref();
        passing.is_none_or(Passing::has_free_worker)
    }

    /// Becomes the source of connections of worker `number`, in its process: with all that is the
    /// acceptor's closed.
    pub(crate) fn into_receiver(mut self, number: usize) -> Receiver {
        let passing = self.passing.as_mut().expect("connections are passed");
        let socket = passing.take_worker_end().expect("made before the fork");
        if let Some(connection) = passing.take_held() {
            connection.close_copy();
        }
        let place = self.server.counters.place(number);
        Receiver::new(socket, self.server, place)
    }

    /// Records that a child of this process is worker `number` from now on.
    pub(crate) fn worker_started(&mut self, child: Pid, number: usize) {
        self.children.insert(child, number);
        if let Some(passing) = &mut self.passing {
            drop(passing.take_worker_end());
        }
    }

    /// Handles a worker process that could not be started: an error before the server is ready, later
    /// a warning and a pause.
    pub(crate) fn worker_failed(&mut self, number: usize, error: &io::Error) -> io::Result<()> {
        self.close_socket(number);
        if self.announce.is_some() {
            let text = format!("cannot start worker {number}: {error}");
            return Err(io::Error::new(error.kind(), text));
        }
        self.next_start = Some(Instant::now() + BACK_OFF);
        self.warn_start_failed("cannot start a worker again", error);
        Ok(())
    }

    /// Records that a child of this process serves the connection from now on.
    pub(crate) fn child_started(&mut self, child: Pid, connection: Connection) {
        self.children.insert(child, ACCEPTOR);
        connection.leave_to_child();
    }

    /// Warns, at a limited rate, that a thread or process could not be started.
    pub(crate) fn warn_start_failed(&self, action: &str, error: &io::Error) {
        let text = format_args!("{action}: {error}; see the counters");
        self.server.warn(Warning::StartFailed, text);
    }

    fn next(&mut self, may_wait: bool) -> io::Result<Accept> {
        // Not earlier: what the model has set up is part of the memory of a server at rest.
        if let Some(announce) = self.announce.take() {
            announce(self.address)?;
        }

        loop {
            if self.has_stopped() {
                return Ok(Accept::Stop);
            }

            // The backlog is drained: workers end when their sockets are closed.
            if self.listener.is_none() {
                self.passing.take_if(|passing| !passing.holds_connection());
            }

            let may_accept = self.may_accept();
            if may_accept && let Some(connection) = self.take_held() {
                return Ok(Accept::Connection(connection));
            }

            if may_accept && self.burst > 0 {
                self.burst -= 1;
                if let Some(connection) = self.take_connection(may_wait) {
                    return Ok(Accept::Connection(connection));
                }
                continue;
            }

            let limit = if may_wait {
                self.next_timeout()
            } else {
                Duration::ZERO
            };
            let any_event = self.poll_events(limit)?;
            if may_wait {
                // What has happened may be for the caller: a worker may have died.
                return Ok(Accept::Wait);
            }
            if !any_event && self.burst == 0 {
                self.arm_timer()?;
                return Ok(Accept::Wait);
            }
        }
    }

    /// Takes the connection that was accepted, but could not be passed.
    fn take_held(&mut self) -> Option<Connection> {
        self.passing.as_mut()?.take_held()
    }

    /// Accepts a connection from the backlog. If there is none, ends the burst.
    fn take_connection(&mut self, blocking: bool) -> Option<Connection> {
        let accepted = self.listener.as_ref()?.accept(self.place, blocking);
        let draining = matches!(self.phase, Phase::Draining { .. });

        match accepted {
            Accepted::Connection(connection) => {
                if draining && self.burst == 0 {
                    self.close_listener();
                }
                return Some(connection);
            }
            Accepted::Refused => return None,
            _ if draining => self.close_listener(),
            Accepted::Empty => {}
            Accepted::Exhausted => self.back_off(),
        }

        self.burst = 0;
        None
    }

    /// Handles the events that are pending, or occur within `limit`; returns whether there were any.
    fn poll_events(&mut self, limit: Duration) -> io::Result<bool> {
        self.watch_listener();

        // Rounded up: waking before a timer is due would mean waking twice.
        let millis = limit.as_nanos().div_ceil(1_000_000);
        let timeout = EpollTimeout::from(u16::try_from(millis).unwrap_or(u16::MAX));
        let mut events = [EpollEvent::empty(); BATCH];
        let count = match self.epoll.wait(&mut events, timeout) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(error) => return Err(error.into()),
        };

        for event in &events[..count] {
            match event.data() {
                LISTENER => self.burst = self.burst.max(BURST),
                SIGNALS => self.handle_signals()?,
                TIMER => {
                    // To read it makes it unreadable. It may have been set anew meanwhile.
                    let _ = self.timer.wait();
                    self.timer_due = None;
                }
                STOP => {
                    // It stays readable for the threads that accept for themselves.
                    self.epoll.delete(self.server.stop_event())?;
                    if matches!(self.phase, Phase::Accepting) {
                        self.stop();
                    }
                }
                key => {
                    let number = usize::try_from(key - WORKERS).unwrap_or(0);
                    if let Some(passing) = &mut self.passing {
                        passing.report(number, &self.epoll);
                    }
                }
            }
        }

        self.handle_timers();
        Ok(count > 0)
    }

    fn handle_signals(&mut self) -> io::Result<()> {
        while let Some(signal) = self.signals.read_signal()? {
            let number = i32::try_from(signal.ssi_signo).unwrap_or(0);
            let signal = Signal::try_from(number);

            if self.server.settings.verbose
                && let Ok(signal) = signal
            {
                log(format_args!("{} {signal}", timestamp()));
            }

            match signal {
                Ok(Signal::SIGTERM | Signal::SIGINT) => self.stop(),
                Ok(Signal::SIGUSR1) => self.server.print_counters(),
                Ok(Signal::SIGCHLD) => self.reap(),
                _ => {}
            }
        }
        Ok(())
    }

    fn handle_timers(&mut self) {
        let now = Instant::now();

        if now >= self.next_idle_check {
            let interval = self.server.settings.idle_timeout;
            // A server that was itself stopped (SIGSTOP, a suspended machine) must not blame its
            // clients.
            if now - self.next_idle_check < interval / 2 {
                self.server.check_idle();
            }
            self.next_idle_check = saturating_add(now, interval);
        }

        self.next_start = self.next_start.filter(|time| now < *time);

        if self.backs_off_until.is_some_and(|end| now >= end) {
            self.backs_off_until = None;
            self.watch_listener();
        }

        if let Some(due) = self.next_stats.filter(|due| now >= *due) {
            self.server.print_counters();
            let interval = self.server.settings.stats_every.unwrap_or(LONGEST_WAIT);
            // After a delay, missed lines are left out instead of printed at once.
            let next = saturating_add(due, interval);
            self.next_stats = Some(if next > now {
                next
            } else {
                saturating_add(now, interval)
            });
        }
    }

    /// The time until the next timer is due.
    fn next_timeout(&self) -> Duration {
        self.next_due().saturating_duration_since(Instant::now())
    }

    /// Makes [`Acceptor::events`] readable when the next timer is due. One system call per timer, and
    /// none per wait: a runtime with a timer of its own would set one in the kernel for every wait.
    fn arm_timer(&mut self) -> io::Result<()> {
        let due = self.next_due();
        if self.timer_due == Some(due) {
            return Ok(());
        }

        // Zero would disarm it.
        let time = due.saturating_duration_since(Instant::now());
        let time = TimeSpec::from_duration(time.max(Duration::from_nanos(1)));
        self.timer
            .set(Expiration::OneShot(time), TimerSetTimeFlags::empty())?;
        self.timer_due = Some(due);
        Ok(())
    }

    /// The instant at which the next timer is due.
    fn next_due(&self) -> Instant {
        let now = Instant::now();
        if !matches!(self.phase, Phase::Accepting) {
            return now + DRAIN_INTERVAL;
        }

        [
            self.next_start,
            self.backs_off_until,
            self.next_stats,
            Some(self.next_idle_check),
        ]
        .into_iter()
        .flatten()
        .fold(saturating_add(now, Duration::MAX), Instant::min)
    }

    /// Accepts nothing for a while: out of descriptors or memory.
    fn back_off(&mut self) {
        self.backs_off_until = Some(Instant::now() + BACK_OFF);
        self.watch_listener();
    }

    /// Watches the listener for connections, but not while none could be accepted.
    fn watch_listener(&mut self) {
        let watched = self.backs_off_until.is_none() && self.may_accept();
        if watched == self.watched {
            return;
        }

        if let Some(listener) = &self.listener {
            let flags = if watched {
                EpollFlags::EPOLLIN
            } else {
                EpollFlags::empty()
            };
            // Modifying an entry takes no memory, so it cannot fail where adding one might.
            let mut event = EpollEvent::new(flags, LISTENER);
            let _ = self.epoll.modify(listener, &mut event);
            self.watched = watched;
        }
    }

    fn close_listener(&mut self) {
        if let Some(listener) = self.listener.take() {
            // A child forked a moment ago may hold a copy, which would keep the entry alive.
            let _ = self.epoll.delete(&listener);
        }
        self.burst = 0;
    }

    /// Handles SIGTERM or SIGINT: the first begins the drain, the second ends the server.
    fn stop(&mut self) {
        match self.phase {
            Phase::Accepting => {
                let deadline = saturating_add(Instant::now(), self.server.settings.drain);
                self.phase = Phase::Draining { deadline };
                self.server.drain();
                for listener in &self.shared {
                    // Workers find the backlog empty from now on, instead of blocking.
                    let _ = listener.set_nonblocking(true);
                }
                self.server.interrupt_accepts(INTERRUPT);
                self.signal_children(Signal::SIGTERM);
                // Clients in the backlog have connected before the signal: they are served too.
                self.burst = self.server.settings.backlog;
            }
            Phase::Draining { .. } => self.end("at the second signal"),
            Phase::Stopped => {}
        }
    }

    /// Whether the server has ended. Ends it when the drain is complete or its limit is over.
    fn has_stopped(&mut self) -> bool {
        if let Phase::Draining { deadline } = self.phase {
            let shared = |listener: &Arc<Listener>| Arc::strong_count(listener) > 1;
            let accepting = self.listener.is_some()
                || self.shared.iter().any(shared)
                || self.children.values().any(|number| *number != ACCEPTOR);

            if !accepting && self.server.counters.open() == 0 {
                self.end("");
            } else if Instant::now() >= deadline {
                self.end("at the end of the drain limit; --drain sets it");
            }
        }
        matches!(self.phase, Phase::Stopped)
    }

    fn end(&mut self, reason: &str) {
        self.phase = Phase::Stopped;
        self.close_listener();

        let cut_off = self.server.counters.open();
        if cut_off > 0 {
            log(format_args!("connections cut off {reason}: {cut_off}"));
        }

        self.signal_children(Signal::SIGKILL);
        let children: Vec<Pid> = self.children.keys().copied().collect();
        for child in children {
            if let Ok(status) = waitpid(child, None) {
                self.child_exited(status);
            }
        }
        self.server.print_counters();
    }

    fn signal_children(&self, signal: Signal) {
        for child in self.children.keys() {
            // It may be a zombie, but its number is not reused until it is reaped.
            let _ = kill(*child, signal);
        }
    }

    /// Collects every child that has exited. One SIGCHLD may stand for many of them.
    fn reap(&mut self) {
        if !self.server.settings.reap {
            return;
        }
        while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            if status == WaitStatus::StillAlive {
                break;
            }
            self.child_exited(status);
        }
    }

    fn child_exited(&mut self, status: WaitStatus) {
        let number = status.pid().and_then(|pid| self.children.remove(&pid));
        let Some(number) = number else { return };

        if !matches!(status, WaitStatus::Exited(_, 0)) {
            self.server.counters.tally(0).failed();
        }
        self.server.counters.reap();
        let place = self.server.counters.place(number);
        if number == ACCEPTOR {
            place.end();
        } else {
            place.vacate();
            self.close_socket(number);
            if !matches!(self.phase, Phase::Accepting) && self.children.is_empty() {
                // Nobody is left to serve what is in the backlog.
                self.close_listener();
                self.passing = None;
            }
            // A worker that gives up would do so again at once, unlike one that was killed.
            if !matches!(status, WaitStatus::Signaled(..)) {
                self.next_start = Some(Instant::now() + BACK_OFF);
            }
        }
    }
}

/// Prints the first line of a server: the address it can be connected to. A server can be used without
/// it, so a closed or full standard output does not end it.
#[expect(clippy::unnecessary_wraps, reason = "other announcements may fail")]
fn print_ready(address: SocketAddr) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if let Err(error) = writeln!(out, "ready {address}").and_then(|()| out.flush()) {
        log(format_args!("ready {address} (standard output: {error})"));
    }
    Ok(())
}

/// Installs a handler that does nothing: the signal only interrupts system calls.
fn ignore(interrupt: Signal) -> io::Result<()> {
    extern "C" fn nothing(_: c_int) {}
    let handler = SigHandler::Handler(nothing);
    let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());

    #[expect(unsafe_code, reason = "a signal handler can only be set this way")]
    // SAFETY: the handler does nothing.
    unsafe { sigaction(interrupt, &action) }?;
    Ok(())
}

/// Adds `time`, or a century if no clock goes that far.
fn saturating_add(start: Instant, time: Duration) -> Instant {
    const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
    start.checked_add(time).unwrap_or(start + CENTURY)
}

/// Makes panics of handlers warnings, at a limited rate.
fn report_panics(server: &Arc<Server>) {
    let server = Arc::clone(server);
    panic::set_hook(Box::new(move |panic| {
        let payload = panic.payload();
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        let text = text.unwrap_or("no message");

        match panic.location() {
            Some(at) => server.warn(Warning::Panicked, format_args!("panicked at {at}: {text}")),
            None => server.warn(Warning::Panicked, format_args!("panicked: {text}")),
        }
    }));
}

/// Makes the signals of a server a descriptor, and blocks them for this thread and those it will
/// start.
fn block_signals() -> nix::Result<SignalFd> {
    let signals = SigSet::from_iter([
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGUSR1,
        Signal::SIGCHLD,
    ]);
    signals.thread_block()?;
    SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}
