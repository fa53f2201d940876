//! Client on a blocking socket, for the drivers `threads` and `processes`.

use std::io::{self, ErrorKind as Io, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::client::{Action, Client};
use crate::clock::{self, SpinWait};
use crate::connect::{PendingBytes, socket};
use crate::failure::Failure;
use crate::plan::Plan;
use crate::rendezvous::Rendezvous;
use crate::stop;

/// Size of a frame that fits into the buffers of both ends, so that it can be sent before its reply is
/// read. Larger ones are sent and received at the same time: a server that replies while it receives
/// would block if its replies were not read.
pub(crate) const SEND_FIRST_MAX_BYTES: usize = 32 * 1024;
/// Maximum duration of a blocking call; deadlines are checked between two of them.
const BLOCKING_CALL_MAX: Duration = Duration::from_millis(50);

/// Runs one client until it is done, and adds its results when all others are, too. The load began to connect at
/// `began_ns`.
pub(crate) fn run(
    plan: &Plan,
    began_ns: u64,
    mut client: Client<'_>,
    mut rendezvous: impl Rendezvous,
) {
    let mut reply = vec![0; client.message().reply_capacity()];
    let mut stream = None;
    if let Some(instant) = client.first_connect_ns(began_ns) {
        stop::sleep_until(instant);
        // A stop ends the ramp-up: no further client connects.
        if clock::now() >= instant {
            stream = connect(plan, &mut client);
        }
    }
    let Some(start) = rendezvous.wait_for_start() else {
        return;
    };

    clock::minimize_timer_slack();
    client.start(start);
    let cpu_before = clock::thread_cpu();
    let mut now = clock::now();

    loop {
        match client.next(now) {
            Action::SleepUntil(instant) => {
                stop::sleep_until(instant);
                now = clock::now();
            }
            Action::Pace(due) => {
                pace(&mut client, due);
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

    if !client.stays_connected() {
        drop(stream.take());
    }
    let cpu_ns = clock::thread_cpu() - cpu_before;
    rendezvous.wait_for_end();
    drop(stream);
    client.finish(cpu_ns);
}

/// Waits until a request is due.
fn pace(client: &mut Client<'_>, due: u64) {
    if !client.spins_before_due() {
        stop::sleep_until(due);
        return;
    }

    stop::sleep_until(due.saturating_sub(clock::SPIN_NS));
    if stop::stopped_ns().is_some() {
        return;
    }
    let mut wait = SpinWait::until(due, clock::now());
    while !wait.is_over() {
        std::hint::spin_loop();
        wait.read(clock::now(), false);
    }
    if wait.had_hiccup {
        client.hiccup();
    }
}

fn connect(plan: &Plan, client: &mut Client<'_>) -> Option<TcpStream> {
    let began = clock::now();
    let opened = socket(plan, client).and_then(|socket| {
        let timeout = Duration::from_nanos(plan.workload.timeout_ns);
        socket.connect_timeout(&plan.target.into(), timeout)?;
        if client.message().frame().len() > SEND_FIRST_MAX_BYTES {
            socket.set_nonblocking(true)?;
        } else {
            socket.set_read_timeout(Some(timeout.min(BLOCKING_CALL_MAX)))?;
            socket.set_write_timeout(Some(timeout.min(BLOCKING_CALL_MAX)))?;
        }
        Ok(TcpStream::from(socket))
    });

    let opened = opened.map_err(|error| Failure::connect(plan.target, &error));
    client.connect_ended(began, clock::now(), opened)
}

/// Sends one request and receives its reply; returns the time at its end.
fn exchange(client: &mut Client<'_>, stream: &TcpStream, reply: &mut [u8]) -> u64 {
    let early = client.early_reply(|| PendingBytes::of(stream));
    client.request();
    let sent = clock::now();
    let outcome = match early {
        Some(failure) => Err(failure),
        None if client.message().frame().len() > SEND_FIRST_MAX_BYTES => {
            send_and_receive(client, stream, reply, sent)
        }
        None => send_then_receive(client, stream, reply, sent),
    };
    let received = clock::now();

    let outcome = outcome.and_then(|length| {
        client.check_surplus(|| PendingBytes::of(stream))?;
        Ok(&reply[..length])
    });
    print_line(client.exchange_ended(sent, received, outcome));
    received
}

/// Prints a line by one write, so that the lines of several processes do not mix.
pub(crate) fn print_line(line: Option<String>) {
    if let Some(line) = line {
        // A closed standard output does not end the load; the counts remain.
        let _ = io::stdout().lock().write_all(line.as_bytes());
    }
}

/// Sends the whole request, then receives the reply, on a blocking socket.
fn send_then_receive(
    client: &Client<'_>,
    mut stream: &TcpStream,
    reply: &mut [u8],
    sent_ns: u64,
) -> Result<usize, Failure> {
    let frame = client.message().frame();
    let mut sent = 0;
    while sent < frame.len() {
        match stream.write(&frame[sent..]) {
            Ok(count) => sent += count,
            Err(error) => wait(client, stream, PollFlags::POLLOUT, sent_ns, &error)?,
        }
    }

    let room = client.message().reply_room();
    let mut received = 0;
    while received < room {
        match stream.read(&mut reply[received..]) {
            Ok(0) => return client.message().end_of_stream(&reply[..received]),
            Ok(count) => {
                received += count;
                if received < room {
                    check_deadline(client, sent_ns)?;
                }
            }
            Err(error) => wait(client, stream, PollFlags::POLLIN, sent_ns, &error)?,
        }
    }
    Ok(received)
}

/// Sends and receives at the same time, on a non-blocking socket.
fn send_and_receive(
    client: &Client<'_>,
    mut stream: &TcpStream,
    reply: &mut [u8],
    sent_ns: u64,
) -> Result<usize, Failure> {
    let frame = client.message().frame();
    let room = client.message().reply_room();
    let (mut sent, mut received) = (0, 0);

    while received < room {
        let mut has_sent = false;
        if sent < frame.len() {
            match stream.write(&frame[sent..]) {
                Ok(count) => {
                    sent += count;
                    has_sent = true;
                }
                Err(error) if error.kind() == Io::WouldBlock => {}
                Err(error) => wait(client, stream, PollFlags::POLLOUT, sent_ns, &error)?,
            }
        }

        match stream.read(&mut reply[received..]) {
            Ok(0) => return client.message().end_of_stream(&reply[..received]),
            Ok(count) => {
                received += count;
                if received < room {
                    check_deadline(client, sent_ns)?;
                }
            }
            Err(error) if error.kind() == Io::WouldBlock && has_sent => {}
            Err(error) => {
                let mut events = PollFlags::POLLIN;
                events.set(PollFlags::POLLOUT, sent < frame.len());
                wait(client, stream, events, sent_ns, &error)?;
            }
        }
    }
    Ok(received)
}

/// Fails after the deadline: a reply that arrives in parts has no more time than any other.
fn check_deadline(client: &Client<'_>, sent_ns: u64) -> Result<(), Failure> {
    if clock::now() < client.deadline(sent_ns) {
        Ok(())
    } else {
        Err(Failure::timed_out())
    }
}

/// Waits, after a call that made no progress, until another one may make some. Fails after the deadline,
/// or if the error is not a temporary one.
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
        _ => return Err(Failure::exchange(error)),
    }

    loop {
        let left = client.deadline(sent_ns).saturating_sub(clock::now());
        if left == 0 {
            return Err(Failure::timed_out());
        }
        let millis = i32::try_from(left.div_ceil(1_000_000)).unwrap_or(i32::MAX);
        let timeout = PollTimeout::try_from(millis).expect("not negative");
        // A stop shortens the deadline.
        let woken = stop::pending().map(|woken| PollFd::new(woken, PollFlags::POLLIN));
        let mut waits: Vec<_> = [PollFd::new(stream.as_fd(), events)]
            .into_iter()
            .chain(woken)
            .collect();
        match poll(&mut waits, timeout) {
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) if waits[0].any() == Some(false) => {}
            Ok(_) => return Ok(()),
            Err(errno) => return Err(Failure::exchange(&errno.into())),
        }
    }
}
