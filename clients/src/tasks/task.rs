//! One client of an event loop: its connection, and how far its request and its reply have come.

use std::io::{self, ErrorKind as Io, Read, Write};
use std::net::TcpStream;
use std::task::Poll;

use nix::errno::Errno;
use nix::sys::epoll::EpollFlags;

use super::poller::Poller;
use crate::blocking::print_line;
use crate::client::Client;
use crate::clock;
use crate::connect::{PendingBytes, socket};
use crate::failure::Failure;
use crate::plan::Plan;

/// A client and the state of its connection.
pub(super) struct Task<'a> {
    pub(super) client: Client<'a>,
    connection: Option<Connection>,
    pub(super) step: Step,
    /// The event loop holds a timeout for this task.
    pub(super) has_timeout: bool,
    /// Buffer for replies that arrive in parts; empty until one has.
    parts: Vec<u8>,
}

/// Event that a task is waiting for.
#[derive(Clone, Copy)]
pub(super) enum Step {
    /// Nothing: it has not been started, or has ended.
    Idle,
    /// An instant.
    Sleep,
    /// An instant shortly before a request is due.
    Pace { due_ns: u64 },
    /// The end of an attempt to connect.
    Connect { began_ns: u64 },
    /// The end of an exchange.
    Exchange(Exchange),
}

/// Request and reply in flight.
#[derive(Clone, Copy)]
pub(super) struct Exchange {
    sent_ns: u64,
    /// Bytes of the request that were sent.
    sent: usize,
    /// Bytes of the reply that were received.
    received: usize,
}

/// Socket, with what the kernel has reported of it and what has not been used up.
struct Connection {
    stream: TcpStream,
    is_readable: bool,
    is_writable: bool,
    /// The server has closed its end: the next reading does not wait, whatever it returns.
    is_closed: bool,
}

impl<'a> Task<'a> {
    pub(super) fn new(client: Client<'a>) -> Self {
        Task {
            client,
            connection: None,
            step: Step::Idle,
            has_timeout: false,
            parts: Vec::new(),
        }
    }

    /// Takes note of an event of the connection.
    pub(super) fn notice(&mut self, flags: EpollFlags) {
        let Some(connection) = &mut self.connection else {
            return;
        };
        let closed = EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR;
        connection.is_closed |= flags.intersects(closed);
        connection.is_readable |= flags.intersects(closed | EpollFlags::EPOLLIN);
        connection.is_writable |= flags.intersects(closed | EpollFlags::EPOLLOUT);
    }

    /// Begins to connect. Returns the time at the end, if it has ended.
    pub(super) fn connect(&mut self, plan: &Plan, poller: &Poller, number: usize) -> Option<u64> {
        self.connection = None;
        let began_ns = clock::now();
        let opened = self.open(plan, poller, number);

        let outcome = match opened {
            Ok(Poll::Pending) => {
                self.step = Step::Connect { began_ns };
                return None;
            }
            Ok(Poll::Ready(())) => Ok(()),
            Err(error) => Err(Failure::connect(plan.target, &error)),
        };
        Some(self.end_connect(began_ns, outcome))
    }

    fn open(&mut self, plan: &Plan, poller: &Poller, number: usize) -> io::Result<Poll<()>> {
        let socket = socket(plan, &self.client)?;
        socket.set_nonblocking(true)?;

        let outcome = match socket.connect(&plan.target.into()) {
            Ok(()) => Poll::Ready(()),
            Err(error) if error.raw_os_error() == Some(Errno::EINPROGRESS as i32) => Poll::Pending,
            Err(error) => return Err(error),
        };
        poller.watch(&socket, number)?;
        self.connection = Some(Connection {
            stream: socket.into(),
            is_readable: false,
            is_writable: outcome.is_ready(),
            is_closed: false,
        });
        Ok(outcome)
    }

    /// Result of an attempt to connect, once the kernel has reported its end.
    pub(super) fn connect_result(&self, plan: &Plan) -> Option<Result<(), Failure>> {
        let connection = self.connection.as_ref()?;
        if !connection.is_writable {
            return None;
        }
        let outcome = match connection.stream.take_error() {
            Ok(None) => Ok(()),
            Ok(Some(error)) | Err(error) => Err(Failure::connect(plan.target, &error)),
        };
        Some(outcome)
    }

    /// Ends an attempt to connect; returns the time.
    pub(super) fn end_connect(&mut self, began_ns: u64, outcome: Result<(), Failure>) -> u64 {
        self.step = Step::Idle;
        let ended_ns = clock::now();
        if self
            .client
            .connect_ended(began_ns, ended_ns, outcome)
            .is_none()
        {
            self.connection = None;
        }
        ended_ns
    }

    /// Closes the connection.
    pub(super) fn close(&mut self) {
        self.connection = None;
    }

    /// Sends a request. Returns the time at the end of the exchange, if it has ended.
    pub(super) fn exchange(&mut self, reply: &mut [u8]) -> Option<u64> {
        let open = self.connection.as_ref();
        let stream = &open.expect("a connected client has a connection").stream;
        let early = self.client.early_reply(|| PendingBytes::of(stream));

        self.client.request();
        let sent_ns = clock::now();
        let exchange = Exchange {
            sent_ns,
            sent: 0,
            received: 0,
        };
        match early {
            Some(failure) => Some(self.end_exchange(exchange, reply, Err(failure))),
            None => self.go_on(exchange, reply),
        }
    }

    /// Sends and receives as much of an exchange as is possible without waiting. Returns the time at its end, if it
    /// has ended. `reply` is a buffer for whoever needs it only within this call.
    pub(super) fn go_on(&mut self, mut exchange: Exchange, reply: &mut [u8]) -> Option<u64> {
        match self.transfer(&mut exchange, reply) {
            Poll::Ready(outcome) => Some(self.end_exchange(exchange, reply, outcome)),
            Poll::Pending => {
                if exchange.received > 0 && self.parts.is_empty() {
                    self.parts = reply[..self.client.message().reply_capacity()].to_vec();
                }
                self.step = Step::Exchange(exchange);
                None
            }
        }
    }

    /// Ends an exchange, with the length of its reply; returns the time.
    pub(super) fn end_exchange(
        &mut self,
        exchange: Exchange,
        reply: &[u8],
        outcome: Result<usize, Failure>,
    ) -> u64 {
        let received_ns = clock::now();
        self.step = Step::Idle;
        let reply = if self.parts.is_empty() {
            reply
        } else {
            &self.parts
        };

        let outcome = outcome.and_then(|length| {
            let open = self.connection.as_ref();
            let stream = &open.expect("a reply came over a connection").stream;
            self.client.check_surplus(|| PendingBytes::of(stream))?;
            Ok(&reply[..length])
        });
        print_line(
            self.client
                .exchange_ended(exchange.sent_ns, received_ns, outcome),
        );
        received_ns
    }

    /// Time at which the task stops waiting for the server; `None` if it does not wait for it.
    pub(super) fn deadline_ns(&self, plan: &Plan) -> Option<u64> {
        match self.step {
            Step::Connect { began_ns } => Some(began_ns.saturating_add(plan.workload.timeout_ns)),
            Step::Exchange(exchange) => Some(self.client.deadline(exchange.sent_ns)),
            Step::Idle | Step::Sleep | Step::Pace { .. } => None,
        }
    }

    /// A complete reply, or an error frame, may arrive before the whole request was sent.
    fn transfer(
        &mut self,
        exchange: &mut Exchange,
        reply: &mut [u8],
    ) -> Poll<Result<usize, Failure>> {
        let message = self.client.message();
        let connection = self.connection.as_mut();
        let connection = connection.expect("a connected client has a connection");
        let reply = if self.parts.is_empty() {
            &mut reply[..message.reply_capacity()]
        } else {
            &mut self.parts[..]
        };

        if let Err(error) = connection.send(message.frame(), &mut exchange.sent) {
            return Poll::Ready(Err(Failure::exchange(&error)));
        }
        match connection.receive(reply, message.reply_room(), &mut exchange.received) {
            Ok(Received::Part) => Poll::Pending,
            Ok(Received::All) => Poll::Ready(Ok(exchange.received)),
            Ok(Received::End) => Poll::Ready(message.end_of_stream(&reply[..exchange.received])),
            Err(error) => Poll::Ready(Err(Failure::exchange(&error))),
        }
    }
}

/// Part of a reply that has arrived.
enum Received {
    /// Less than all.
    Part,
    All,
    /// Less than all, and the end of the stream.
    End,
}

impl Connection {
    /// Sends what can be sent without waiting of the bytes of `frame` from `sent` on.
    fn send(&mut self, frame: &[u8], sent: &mut usize) -> io::Result<()> {
        while *sent < frame.len() && self.is_writable {
            match self.stream.write(&frame[*sent..]) {
                Ok(count) => *sent += count,
                Err(error) if error.kind() == Io::WouldBlock => self.is_writable = false,
                Err(error) if error.kind() == Io::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Receives what is there, until `reply` has at least `room` bytes, `received` of which are there already.
    fn receive(
        &mut self,
        reply: &mut [u8],
        room: usize,
        received: &mut usize,
    ) -> io::Result<Received> {
        while *received < room {
            if !self.is_readable {
                return Ok(Received::Part);
            }

            let free = &mut reply[*received..];
            match self.stream.read(free) {
                Ok(0) => return Ok(Received::End),
                Ok(count) => {
                    // After a part of what was asked for nothing is left, and the next bytes are an event (epoll(7)).
                    self.is_readable = count == free.len() || self.is_closed;
                    *received += count;
                }
                Err(error) if error.kind() == Io::WouldBlock => self.is_readable = false,
                Err(error) if error.kind() == Io::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Received::All)
    }
}
