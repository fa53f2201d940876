//! The one acceptor of all models: it accepts, sees to signals, and brings the server to its end.

use std::collections::HashSet;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::panic;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::{SigHandler, SigSet, Signal, kill, signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::connection::Connection;
use crate::listener::{Accepted, BindError, Incoming, Listener, REST};
use crate::server::{Server, Trouble, now, say};
use crate::settings::Settings;

/// So many connections are accepted before signals get a look.
const BURST: u32 = 64;
/// How often to look whether the last connection has ended.
const DRAIN_LOOK: Duration = Duration::from_millis(5);
const LONGEST_WAIT: Duration = Duration::from_secs(60);

const LISTENER: u64 = 0;
const SIGNALS: u64 = 1;
const STOP: u64 = 2;

/// What [`Acceptor::poll_accept`] has to offer.
pub(crate) enum Accept {
    /// A connection, with a socket that does not block.
    Connection(Connection),
    /// Nothing until [`Acceptor::events`] is readable, or this much time has passed.
    Wait(Duration),
    /// The server has come to its end.
    Stop,
}

enum Phase {
    Accepting,
    Draining { deadline: Instant },
    Over,
}

type Announce = Box<dyn FnOnce(SocketAddr) -> io::Result<()>>;

/// Brings a server to its end from within its own process, as SIGTERM does from outside.
#[derive(Debug)]
pub struct Stopper(Arc<Server>);

impl Stopper {
    /// The server stops accepting, and ends when its connections have come to their end.
    pub fn stop(&self) {
        self.0.tell_stop();
    }
}

/// Accepts the connections of a server, and everything else that happens to it.
///
/// A model calls `accept` until there is nothing more: by then every connection has ended, or the
/// time for that is over.
pub struct Acceptor {
    server: Arc<Server>,
    epoll: Epoll,
    signals: SignalFd,
    listener: Option<Listener>,
    /// The listener, if threads of the model accept for themselves.
    shared: Option<Arc<Listener>>,
    address: SocketAddr,
    phase: Phase,
    /// What to do as soon as the model has set itself up.
    announce: Option<Announce>,
    /// So many connections to accept before the next look at the events.
    burst: u32,
    rests_until: Option<Instant>,
    next_stats: Option<Instant>,
    next_look: Instant,
    children: HashSet<Pid>,
}

impl Acceptor {
    /// Listens on `address`: from here on clients can connect.
    ///
    /// This blocks the signals that the acceptor takes care of, for the calling thread and those
    /// it will start; so it has to come before any other thread, and once in a process.
    pub fn bind(address: SocketAddr, settings: Settings) -> Result<Self, BindError> {
        let next_stats = settings
            .stats_every
            .map(|every| after(Instant::now(), every));
        let next_look = after(Instant::now(), settings.idle_timeout);
        let server = Arc::new(Server::new(settings)?);
        let listener = Listener::bind(address, &server)?;
        let address = listener.local_addr()?;
        let signals = take_signals().map_err(io::Error::from)?;
        count_panics(&server);
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(io::Error::from)?;
        let readable = |source| EpollEvent::new(EpollFlags::EPOLLIN, source);
        epoll
            .add(&listener, readable(LISTENER))
            .and_then(|()| epoll.add(&signals, readable(SIGNALS)))
            .and_then(|()| epoll.add(server.stop(), readable(STOP)))
            .map_err(io::Error::from)?;
        Ok(Acceptor {
            server,
            epoll,
            signals,
            listener: Some(listener),
            shared: None,
            address,
            phase: Phase::Accepting,
            announce: Some(Box::new(announce)),
            burst: 0,
            rests_until: None,
            next_stats,
            next_look,
            children: HashSet::new(),
        })
    }

    /// Where it listens, with the real port.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Does this, instead of printing `ready ADDR`, when the server can be connected to.
    pub fn when_ready(&mut self, announce: impl FnOnce(SocketAddr) -> io::Result<()> + 'static) {
        self.announce = Some(Box::new(announce));
    }

    /// For another thread of this process.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        Stopper(Arc::clone(&self.server))
    }

    pub(crate) fn settings(&self) -> Settings {
        self.server.settings.clone()
    }

    /// Waits for the next connection; `None` at the end of the server.
    pub(crate) fn accept(&mut self) -> io::Result<Option<Connection>> {
        loop {
            match self.next(true)? {
                Accept::Connection(connection) => return Ok(Some(connection)),
                Accept::Wait(_) => {}
                Accept::Stop => return Ok(None),
            }
        }
    }

    /// The next connection if there is one, without waiting.
    pub(crate) fn poll_accept(&mut self) -> io::Result<Accept> {
        self.next(false)
    }

    /// A descriptor that is readable when [`Acceptor::poll_accept`] has something to do.
    pub(crate) fn events(&self) -> io::Result<OwnedFd> {
        self.epoll.0.try_clone()
    }

    /// Sees to what has happened, without accepting. False once the server has to end.
    pub(crate) fn attend(&mut self) -> io::Result<bool> {
        self.look(Duration::ZERO)?;
        Ok(!self.over())
    }

    /// Leaves accepting to a thread of the model, which drops what it gets from here when that says
    /// that it is over. [`Acceptor::accept`] then has no connections, and only comes to an end.
    pub(crate) fn share(&mut self) -> io::Result<Incoming> {
        if let Some(listener) = self.listener.take() {
            self.epoll.delete(&listener)?;
            self.shared = Some(Arc::new(listener));
        }
        let shared = self.shared.as_ref().expect("shared while it was open");
        Ok(Incoming::new(Arc::clone(shared)))
    }

    /// A child of this process serves the connection from now on.
    pub(crate) fn adopt(&mut self, child: Pid, connection: Connection) {
        self.children.insert(child);
        connection.hand_over();
    }

    /// Says on standard error, but not for each connection, what has run out.
    pub(crate) fn complain(&self, what: &str, error: &io::Error) {
        let what = format_args!("{what}: {error}; see the counters");
        self.server.complain(Trouble::Start, what);
    }

    fn next(&mut self, may_wait: bool) -> io::Result<Accept> {
        // Not before the model has set itself up, whose memory is part of a server at rest.
        if let Some(announce) = self.announce.take() {
            announce(self.address)?;
        }
        loop {
            if self.over() {
                return Ok(Accept::Stop);
            }
            if self.burst > 0 {
                self.burst -= 1;
                if let Some(connection) = self.take_connection(may_wait) {
                    return Ok(Accept::Connection(connection));
                }
                continue;
            }
            let limit = if may_wait {
                self.patience()
            } else {
                Duration::ZERO
            };
            let happened = self.look(limit)?;
            if !happened && self.burst == 0 && !may_wait {
                return Ok(Accept::Wait(self.patience()));
            }
        }
    }

    /// A connection from the backlog. If there is none, the next look has to come first.
    fn take_connection(&mut self, blocking: bool) -> Option<Connection> {
        let accepted = self.listener.as_ref()?.accept(blocking);
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
            Accepted::Exhausted => self.rest(),
        }
        self.burst = 0;
        None
    }

    /// Sees to the events that have happened, or happen within `limit`; false if none did.
    fn look(&mut self, limit: Duration) -> io::Result<bool> {
        // Rounded up: to wake too early would be to wake twice.
        let millis = limit.as_nanos().div_ceil(1_000_000);
        let timeout = EpollTimeout::from(u16::try_from(millis).unwrap_or(u16::MAX));
        let mut events = [EpollEvent::empty(); 3];
        let count = match self.epoll.wait(&mut events, timeout) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(error) => return Err(error.into()),
        };
        for event in &events[..count] {
            match event.data() {
                LISTENER => self.burst = self.burst.max(BURST),
                SIGNALS => self.heed_signals()?,
                _ => {
                    // It stays readable.
                    self.epoll.delete(self.server.stop())?;
                    if matches!(self.phase, Phase::Accepting) {
                        self.stop();
                    }
                }
            }
        }
        self.heed_time();
        Ok(count > 0)
    }

    fn heed_signals(&mut self) -> io::Result<()> {
        while let Some(signal) = self.signals.read_signal()? {
            let number = i32::try_from(signal.ssi_signo).unwrap_or(0);
            let signal = Signal::try_from(number);
            if self.server.settings.verbose
                && let Ok(signal) = signal
            {
                say(&format!("{} {signal}", now()));
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

    fn heed_time(&mut self) {
        let now = Instant::now();
        if now >= self.next_look {
            let limit = self.server.settings.idle_timeout;
            // A server that was stopped meanwhile has kept its clients waiting, not they it.
            if now - self.next_look < limit / 2 {
                self.server.look_for_idle();
            }
            self.next_look = after(now, limit);
        }
        if self.rests_until.is_some_and(|end| now >= end) {
            self.rests_until = None;
            self.watch_listener(EpollFlags::EPOLLIN);
        }
        if let Some(due) = self.next_stats.filter(|due| now >= *due) {
            self.server.print_counters();
            let every = self.server.settings.stats_every.unwrap_or(LONGEST_WAIT);
            // A server that was held up does not print what it has missed.
            let next = after(due, every);
            self.next_stats = Some(if next > now { next } else { after(now, every) });
        }
    }

    /// How long to wait for events at most.
    fn patience(&self) -> Duration {
        if !matches!(self.phase, Phase::Accepting) {
            return DRAIN_LOOK;
        }
        [self.rests_until, self.next_stats, Some(self.next_look)]
            .into_iter()
            .flatten()
            .map(|due| due.saturating_duration_since(Instant::now()))
            .fold(LONGEST_WAIT, Duration::min)
    }

    /// Descriptors or memory have run out: nothing is accepted for a while.
    fn rest(&mut self) {
        self.rests_until = Some(Instant::now() + REST);
        self.watch_listener(EpollFlags::empty());
    }

    fn watch_listener(&self, flags: EpollFlags) {
        if let Some(listener) = &self.listener {
            let mut event = EpollEvent::new(flags, LISTENER);
            // Changes an entry that is there, which takes no memory.
            let _ = self.epoll.modify(listener, &mut event);
        }
    }

    fn close_listener(&mut self) {
        if let Some(listener) = self.listener.take() {
            // A child that was forked just now may hold a copy that would keep the entry alive.
            let _ = self.epoll.delete(&listener);
        }
        self.burst = 0;
    }

    /// SIGTERM or SIGINT: the first begins the drain, the second ends the server.
    fn stop(&mut self) {
        match self.phase {
            Phase::Accepting => {
                let deadline = after(Instant::now(), self.server.settings.drain);
                self.phase = Phase::Draining { deadline };
                self.server.drain();
                self.signal_children(Signal::SIGTERM);
                // Who has connected before is served: what waits in the backlog is accepted.
                self.burst = self.server.settings.backlog;
            }
            Phase::Draining { .. } => self.end("at the second signal"),
            Phase::Over => {}
        }
    }

    /// Whether the server has come to its end, which it does here.
    fn over(&mut self) -> bool {
        if let Phase::Draining { deadline } = self.phase {
            let accepting = self.listener.is_some()
                || self
                    .shared
                    .as_ref()
                    .is_some_and(|shared| Arc::strong_count(shared) > 1);
            if !accepting && self.server.counters.open() == 0 {
                self.end("");
            } else if Instant::now() >= deadline {
                self.end("at the end of the drain limit; --drain sets it");
            }
        }
        matches!(self.phase, Phase::Over)
    }

    fn end(&mut self, why: &str) {
        self.phase = Phase::Over;
        self.close_listener();
        let cut_off = self.server.counters.open();
        if cut_off > 0 {
            say(&format!("connections cut off {why}: {cut_off}"));
        }
        self.signal_children(Signal::SIGKILL);
        for child in self.children.clone() {
            if let Ok(status) = waitpid(child, None) {
                self.buried(status);
            }
        }
        self.server.print_counters();
    }

    fn signal_children(&self, signal: Signal) {
        for child in &self.children {
            // It may be a zombie, but its number is its own until it is reaped.
            let _ = kill(*child, signal);
        }
    }

    /// Collects every child that has ended. One signal may stand for many of them.
    fn reap(&mut self) {
        if !self.server.settings.reap {
            return;
        }
        while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            if status == WaitStatus::StillAlive {
                break;
            }
            self.buried(status);
        }
    }

    fn buried(&mut self, status: WaitStatus) {
        let ours = status.pid().is_some_and(|pid| self.children.remove(&pid));
        if ours {
            if !matches!(status, WaitStatus::Exited(_, 0)) {
                self.server.counters.cell(0).failed();
            }
            self.server.counters.reap();
            self.server.counters.end();
        }
    }
}

/// The first line of a server: where it can be connected to.
fn announce(address: SocketAddr) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "ready {address}").and_then(|()| out.flush())
}

/// This much later, or never if no clock goes that far.
fn after(start: Instant, time: Duration) -> Instant {
    const NEVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
    start.checked_add(time).unwrap_or(start + NEVER)
}

/// Panics of handlers are said like other trouble: not each of them.
fn count_panics(server: &Arc<Server>) {
    let server = Arc::clone(server);
    panic::set_hook(Box::new(move |panic| {
        let text = panic.payload().downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.payload().downcast_ref::<String>().map(String::as_str));
        let text = text.unwrap_or("no message");
        match panic.location() {
            Some(at) => server.complain(Trouble::Panic, format_args!("panicked at {at}: {text}")),
            None => server.complain(Trouble::Panic, format_args!("panicked: {text}")),
        }
    }));
}

/// The signals of a server as a descriptor, blocked for this thread and those it will start.
fn take_signals() -> nix::Result<SignalFd> {
    #[expect(unsafe_code, reason = "a disposition can only be set this way")]
    // SAFETY: the default disposition is no handler. Whoever started this process may have left
    // SIGCHLD ignored, and then the kernel would bury children, and their CPU time, unseen.
    unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) }?;
    let signals = SigSet::from_iter([
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGUSR1,
        Signal::SIGCHLD,
    ]);
    signals.thread_block()?;
    SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}
