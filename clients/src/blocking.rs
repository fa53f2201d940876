//! A client on a blocking socket: what threads and processes have in common.

use std::io::{self, ErrorKind as Io, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::client::{Action, Client, Failure};
use crate::clock::{self, Watch};
use crate::connect::{connect_failure, exchange_failure, socket, timed_out};
use crate::plan::Plan;

/// A frame up to this size fits into the buffers of both ends, so that it can be sent whole before
/// its reply is read. A server that sends larger ones back while they arrive would stop when
/// nobody reads.
pub(crate) const SEND_WHOLE: usize = 32 * 1024;
/// How long a blocking call lasts at most before deadlines are looked at.
const GLANCE: Duration = Duration::from_millis(50);

/// Runs one client to its end. `ready` is called when it is connected, or has failed to be, and
/// returns the instant at which the windows start, or `None` if they never will.
pub(crate) fn run(plan: &Plan, mut client: Client<'_>, ready: impl FnOnce() -> Option<u64>) {
    let mut reply = vec![0; client.reply_room()];
    let mut stream = None;
    if client.connects_ahead() {
        stream = connect(plan, &mut client);
    }
    let Some(start) = ready() else { return };
    clock::sharpen_timers();
    client.start(start);
    let cpu_before = clock::thread_cpu();
    let mut now = clock::now();
    loop {
        match client.next(now) {
            Action::SleepUntil(instant) => {
                clock::sleep_until(instant);
                now = clock::now();
            }
            Action::Pace(instant) => {
                if client.watches_clock() {
                    clock::sleep_until(instant.saturating_sub(clock::SPIN_NS));
                    let mut watch = Watch::until(instant);
                    while !watch.is_due() {
                        std::hint::spin_loop();
                        watch.look(false);
                    }
                    if watch.hiccup {
                        client.hiccup();
                    }
                } else {
                    clock::sleep_until(instant);
                }
                now = clock::now();
            }
            Action::Connect => {
                stream = connect(plan, &mut client);
                now = clock::now();
            }
            Action::Exchange => {
                let open = stream.as_ref().expect("a connected client has a stream");
                now = exchange(&mut client, open, &mut reply);
            }
            Action::Close => {
                stream = None;
                now = clock::now();
            }
            Action::Done => break,
        }
    }
    drop(stream);
    client.finish(clock::thread_cpu() - cpu_before);
}

fn connect(plan: &Plan, client: &mut Client<'_>) -> Option<TcpStream> {
    let began = clock::now();
    let opened = socket(plan, client).and_then(|socket| {
        let timeout = Duration::from_nanos(plan.workload.timeout_ns);
        socket.connect_timeout(&plan.target.into(), timeout)?;
        if client.frame().len() > SEND_WHOLE {
            socket.set_nonblocking(true)?;
        } else {
            socket.set_read_timeout(Some(timeout.min(GLANCE)))?;
            socket.set_write_timeout(Some(timeout.min(GLANCE)))?;
        }
        Ok(TcpStream::from(socket))
    });
    let now = clock::now();
    match opened {
        Ok(stream) => {
            client.connected(began, now);
            Some(stream)
        }
        Err(error) => {
            client.failed(began, now, connect_failure(plan.target, &error));
            None
        }
    }
}

/// One request and its reply; returns the time at its end.
fn exchange(client: &mut Client<'_>, stream: &TcpStream, reply: &mut [u8]) -> u64 {
    client.request();
    let sent = clock::now();
    let outcome = if client.frame().len() > SEND_WHOLE {
        both_ways(client, stream, reply, sent)
    } else {
        there_and_back(client, stream, reply, sent)
    };
    let received = clock::now();
    let checked = outcome.and_then(|length| client.check(&reply[..length]).map(|()| length));
    match checked {
        Ok(length) => {
            client.answered(sent, received);
            print(client.line(&reply[..length]));
        }
        Err(failure) => client.failed(sent, received, failure),
    }
    received
}

/// Prints a whole line by one write, so that those of several processes stay whole.
pub(crate) fn print(line: Option<String>) {
    if let Some(line) = line {
        // Nobody may read it any more; the counts remain.
        let _ = io::stdout().lock().write_all(line.as_bytes());
    }
}

fn there_and_back(
    client: &Client<'_>,
    mut stream: &TcpStream,
    reply: &mut [u8],
    sent_ns: u64,
) -> Result<usize, Failure> {
    let frame = client.frame();
    let mut sent = 0;
    while sent < frame.len() {
        match stream.write(&frame[sent..]) {
            Ok(count) => sent += count,
            Err(error) => wait(client, stream, PollFlags::POLLOUT, sent_ns, &error)?,
        }
    }
    let mut received = 0;
    while received < reply.len() {
        match stream.read(&mut reply[received..]) {
            Ok(0) => return client.ended(&reply[..received]),
            Ok(count) => {
                received += count;
                if received < reply.len() {
                    in_time(client, sent_ns)?;
                }
            }
            Err(error) => wait(client, stream, PollFlags::POLLIN, sent_ns, &error)?,
        }
    }
    Ok(received)
}

/// Sends and receives at the same time, on a socket that does not block.
fn both_ways(
    client: &Client<'_>,
    mut stream: &TcpStream,
    reply: &mut [u8],
    sent_ns: u64,
) -> Result<usize, Failure> {
    let frame = client.frame();
    let (mut sent, mut received) = (0, 0);
    while received < reply.len() {
        let mut idle = true;
        if sent < frame.len() {
            match stream.write(&frame[sent..]) {
                Ok(count) => {
                    sent += count;
                    idle = false;
                }
                Err(error) if error.kind() == Io::WouldBlock => {}
                Err(error) => wait(client, stream, PollFlags::POLLOUT, sent_ns, &error)?,
            }
        }
        match stream.read(&mut reply[received..]) {
            Ok(0) => return client.ended(&reply[..received]),
            Ok(count) => {
                received += count;
                if received < reply.len() {
                    in_time(client, sent_ns)?;
                }
            }
            Err(error) if error.kind() == Io::WouldBlock && !idle => {}
            Err(error) => {
                let writing = if sent < frame.len() {
                    PollFlags::POLLOUT
                } else {
                    PollFlags::empty()
                };
                wait(client, stream, PollFlags::POLLIN | writing, sent_ns, &error)?;
            }
        }
    }
    Ok(received)
}

/// A reply that comes in parts is awaited no longer than one that does not come.
fn in_time(client: &Client<'_>, sent_ns: u64) -> Result<(), Failure> {
    if clock::now() < client.deadline(sent_ns) {
        Ok(())
    } else {
        Err(timed_out())
    }
}

/// After a call that ended without progress: returns when another one may make some, or fails when
/// the error is a real one or the deadline has come.
#[cold]
fn wait(
    client: &Client<'_>,
    stream: &TcpStream,
    events: PollFlags,
    sent_ns: u64,
    error: &io::Error,
) -> Result<(), Failure> {
    match error.kind() {
        Io::Interrupted => return Ok(()),
        Io::WouldBlock | Io::TimedOut => {}
        _ => return Err(exchange_failure(error)),
    }
    let deadline = client.deadline(sent_ns);
    loop {
        let left = deadline.saturating_sub(clock::now());
        if left == 0 {
            return Err(timed_out());
        }
        let millis = i32::try_from(left.div_ceil(1_000_000)).unwrap_or(i32::MAX);
        let timeout = PollTimeout::try_from(millis).expect("not negative");
        match poll(&mut [PollFd::new(stream.as_fd(), events)], timeout) {
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return Ok(()),
            Err(errno) => return Err(exchange_failure(&errno.into())),
        }
    }
}
