//! The cheapest possible server: it sends back all bytes that it reads, so that a measurement against it
//! is one of the load generator. It can delay each reply by a known time, or stop on a known schedule, so
//! that the figures of a load generator can be compared with arithmetic.
//!
//! One thread, one `epoll`; one read and one write per request.

use std::collections::VecDeque;
use std::io::{self, ErrorKind as Io, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use echobench_clients::{clock, parse_duration, raise_file_limit};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::prctl::set_timerslack;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use super::child::die_with_parent;
use crate::host::time::nanoseconds;

/// Time before an instant that is due which is spent polling: a wake-up takes some tens of microseconds,
/// and longer on a virtual machine.
const POLL_NS: u64 = 80_000;
/// Bytes per read: a small request takes one.
const BUFFER_BYTES: usize = 64 * 1024;
/// Events per `epoll_wait`.
const EVENTS: usize = 256;
/// The data of events of the listener and of the timer; that of a connection is its index.
const LISTENER: u64 = u64::MAX;
const TIMER: u64 = u64::MAX - 1;

/// The arguments of the responder.
#[derive(Args)]
pub struct RespondArgs {
    /// Address to listen on; port 0 takes any free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    listen: SocketAddr,

    /// Delay between the arrival of a request and its reply
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = parse_duration)]
    delay: Duration,

    /// Interval of stops of the server; the first starts this long after it is ready
    #[arg(long, value_name = "TIME", value_parser = parse_duration, requires = "stall_for")]
    stall_every: Option<Duration>,

    /// Length of each stop
    #[arg(long, value_name = "TIME", value_parser = parse_duration, requires = "stall_every")]
    stall_for: Option<Duration>,

    /// Never sleep between events: exact if the server has a CPU of its own
    #[arg(long)]
    poll: bool,
}

/// Responds until it is killed.
pub fn run(args: &RespondArgs) -> anyhow::Result<ExitCode> {
    die_with_parent()?;
    let stall = match args.stall_every.zip(args.stall_for) {
        Some((every, stall)) if stall.is_zero() || stall >= every => bail!(
            "a stall of {stall:?} every {every:?} leaves nothing to stall or to serve; \
             give a --stall-for between 0s and --stall-every"
        ),
        stall => stall,
    };

    // Without a higher limit, the kernel refuses further connections.
    let _ = raise_file_limit(0);
    // Without it, replies leave up to 50 µs later.
    let _ = set_timerslack(1);

    let listener = TcpListener::bind(args.listen).with_context(|| {
        format!(
            "cannot listen on {}; take port 0 for any free one",
            args.listen
        )
    })?;
    let address = listener.local_addr()?;
    let mut responder = Responder::new(listener, nanoseconds(args.delay))?;

    let mut output = io::stdout();
    writeln!(output, "ready {address}").and_then(|()| output.flush())?;

    responder.poll = args.poll;
    responder.stall = stall.map(|(every, stall)| Stall {
        next_ns: clock::now().saturating_add(nanoseconds(every)),
        every_ns: nanoseconds(every),
        for_ns: nanoseconds(stall),
    });
    Err(responder.run().into())
}

/// The schedule on which the server does nothing.
struct Stall {
    next_ns: u64,
    every_ns: u64,
    for_ns: u64,
}

struct Connection {
    stream: TcpStream,
    /// Unique over the life of the server, unlike the index, which is used again.
    number: u64,
    /// Bytes that did not fit into the send buffer.
    unsent: Vec<u8>,
    /// Number of replies in the queue.
    waiting: usize,
    /// Whether the client has closed its direction.
    ended: bool,
}

impl Connection {
    /// Events to wait for. While a reply does not fit, the next request is not read.
    fn interest(&self) -> EpollFlags {
        match (self.unsent.is_empty(), self.ended) {
            (false, _) => EpollFlags::EPOLLOUT,
            (true, false) => EpollFlags::EPOLLIN,
            (true, true) => EpollFlags::empty(),
        }
    }

    /// Sends a reply, and keeps the bytes that do not fit, in order.
    fn send(&mut self, mut reply: &[u8]) -> io::Result<()> {
        if self.unsent.is_empty() {
            let sent = write(&mut self.stream, reply)?;
            reply = &reply[sent..];
        }
        self.unsent.extend_from_slice(reply);
        Ok(())
    }

    fn send_rest(&mut self) -> io::Result<()> {
        let sent = write(&mut self.stream, &self.unsent)?;
        self.unsent.drain(..sent);
        Ok(())
    }
}

/// Writes as many bytes as fit into the send buffer; returns their number.
fn write(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    let mut sent = 0;
    while sent < bytes.len() {
        match stream.write(&bytes[sent..]) {
            Ok(count) => sent += count,
            Err(error) if error.kind() == Io::Interrupted => {}
            Err(error) if error.kind() == Io::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(sent)
}

/// A delayed reply.
struct Reply {
    due_ns: u64,
    index: usize,
    number: u64,
    bytes: Vec<u8>,
}

struct Responder {
    epoll: Epoll,
    listener: TcpListener,
    timer: TimerFd,
    timer_at_ns: u64,
    connections: Vec<Option<Connection>>,
    vacant: Vec<usize>,
    connected: u64,
    delay_ns: u64,
    stall: Option<Stall>,
    poll: bool,
    /// Delayed replies, in order of their instants, since all have the same delay.
    queue: VecDeque<Reply>,
    /// Buffers of sent replies, to be used again.
    spare: Vec<Vec<u8>>,
    buffer: Vec<u8>,
}

impl Responder {
    fn new(listener: TcpListener, delay_ns: u64) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?;
        epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
        // Edge-triggered, so that the timer need not be read.
        let edges = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
        epoll.add(&timer, EpollEvent::new(edges, TIMER))?;
        Ok(Responder {
            epoll,
            listener,
            timer,
            timer_at_ns: 0,
            connections: Vec::new(),
            vacant: Vec::new(),
            connected: 0,
            delay_ns,
            stall: None,
            poll: false,
            queue: VecDeque::new(),
            spare: Vec::new(),
            buffer: vec![0; BUFFER_BYTES],
        })
    }

    /// Serves until a system call fails; returns its error.
    fn run(&mut self) -> io::Error {
        let mut events = [EpollEvent::empty(); EVENTS];
        loop {
            if let Err(error) = self.turn(&mut events) {
                return error;
            }
        }
    }

    fn turn(&mut self, events: &mut [EpollEvent]) -> io::Result<()> {
        let timeout = self.do_due_work()?;
        let count = match self.epoll.wait(events, timeout) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(errno) => return Err(errno.into()),
        };

        // The same for all events, which have arrived by now.
        let due_ns = match self.delay_ns {
            0 => 0,
            delay => clock::now().saturating_add(delay),
        };

        for event in &events[..count] {
            match event.data() {
                LISTENER => self.accept()?,
                TIMER => {}
                index => self.serve(index, event.events(), due_ns),
            }
        }
        Ok(())
    }

    /// Stops and sends replies that are due; returns the longest wait for the next events.
    fn do_due_work(&mut self) -> io::Result<EpollTimeout> {
        loop {
            let idle = self.queue.is_empty() && self.stall.is_none();
            if idle && self.poll {
                return Ok(EpollTimeout::ZERO);
            }
            if idle {
                return Ok(EpollTimeout::NONE);
            }

            let now = clock::now();
            if let Some(stall) = self.stall.as_mut().filter(|stall| now >= stall.next_ns) {
                clock::sleep_until(stall.next_ns.saturating_add(stall.for_ns));
                stall.next_ns = stall.next_ns.saturating_add(stall.every_ns);
                continue;
            }
            self.send_due(now);

            let stall_ns = self.stall.as_ref().map(|stall| stall.next_ns);
            let reply_ns = self.queue.front().map(|reply| reply.due_ns);
            let Some(next_ns) = stall_ns.into_iter().chain(reply_ns).min() else {
                continue;
            };
            if self.poll || next_ns <= now + POLL_NS {
                return Ok(EpollTimeout::ZERO);
            }
            self.set_timer(next_ns - POLL_NS)?;
            return Ok(EpollTimeout::NONE);
        }
    }

    fn set_timer(&mut self, instant: u64) -> io::Result<()> {
        if self.timer_at_ns == instant {
            return Ok(());
        }
        let at = TimeSpec::from_duration(Duration::from_nanos(instant));
        let absolute = TimerSetTimeFlags::TFD_TIMER_ABSTIME;
        self.timer.set(Expiration::OneShot(at), absolute)?;
        self.timer_at_ns = instant;
        Ok(())
    }

    fn send_due(&mut self, now: u64) {
        while self.queue.front().is_some_and(|reply| reply.due_ns <= now) {
            let Some(mut reply) = self.queue.pop_front() else {
                return;
            };
            let at = self.connections.get_mut(reply.index);
            let connection = at
                .and_then(Option::as_mut)
                .filter(|connection| connection.number == reply.number);
            if let Some(connection) = connection {
                connection.waiting -= 1;
                let sent = connection.send(&reply.bytes);
                self.settle(reply.index, sent.is_ok());
            }

            reply.bytes.clear();
            self.spare.push(reply.bytes);
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => self.admit(stream)?,
                Err(error) if error.kind() == Io::WouldBlock => return Ok(()),
                Err(error) if [Io::Interrupted, Io::ConnectionAborted].contains(&error.kind()) => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn admit(&mut self, stream: TcpStream) -> io::Result<()> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let index = self.vacant.pop().unwrap_or_else(|| {
            self.connections.push(None);
            self.connections.len() - 1
        });
        self.epoll
            .add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, index as u64))?;

        self.connected += 1;
        self.connections[index] = Some(Connection {
            stream,
            number: self.connected,
            unsent: Vec::new(),
            waiting: 0,
            ended: false,
        });
        Ok(())
    }

    fn serve(&mut self, index: u64, events: EpollFlags, due_ns: u64) {
        let Ok(index) = usize::try_from(index) else {
            return;
        };
        let Some(connection) = self.connections.get_mut(index).and_then(Option::as_mut) else {
            return;
        };
        if !connection.unsent.is_empty() {
            let sent = connection.send_rest();
            return self.settle(index, sent.is_ok());
        }
        if connection.ended {
            // No events were asked for, so this is an error or the end of the connection.
            return self.settle(index, !events.contains(EpollFlags::EPOLLERR));
        }

        match connection.stream.read(&mut self.buffer) {
            Ok(0) => {
                connection.ended = true;
                self.settle(index, true);
            }
            Ok(count) if self.delay_ns == 0 => {
                let sent = connection.send(&self.buffer[..count]);
                if sent.is_err() || !connection.unsent.is_empty() {
                    self.settle(index, sent.is_ok());
                }
            }
            Ok(count) => {
                let mut bytes = self.spare.pop().unwrap_or_default();
                bytes.extend_from_slice(&self.buffer[..count]);
                connection.waiting += 1;
                self.queue.push_back(Reply {
                    due_ns,
                    index,
                    number: connection.number,
                    bytes,
                });
            }
            Err(error) if [Io::Interrupted, Io::WouldBlock].contains(&error.kind()) => {}
            Err(_) => self.settle(index, false),
        }
    }

    /// Closes a connection that has failed (not `sound`) or ended, or updates the events it waits for.
    fn settle(&mut self, index: usize, sound: bool) {
        let Some(connection) = &self.connections[index] else {
            return;
        };

        let finished = connection.ended && connection.waiting == 0 && connection.unsent.is_empty();
        let mut interest = EpollEvent::new(connection.interest(), index as u64);
        if !sound
            || finished
            || self
                .epoll
                .modify(&connection.stream, &mut interest)
                .is_err()
        {
            // Closing the descriptor removes it from the `epoll`.
            self.connections[index] = None;
            self.vacant.push(index);
        }
    }
}
