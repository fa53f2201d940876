//! How data travels: C8 and C9.

use std::io::{self, Read};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::thread::JoinHandleExt;
use std::thread;
use std::time::Duration;

use echobench_protocol::{Header, Work};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::socket::{MsgFlags, send};
use socket2::{Domain, Socket, Type};

use super::evidence::{Evidence, shown};
use super::lab::{self, Lab};
use super::signals;
use crate::host::signals::take;
use crate::processes::probe::{self, Between, Probe, ProbeArgs};
use crate::results::summary::REFERENCE;
use crate::scenario::Placement;

/// Messages there and back that one block times.
const MESSAGES: u64 = 1500;

/// C8.
pub(super) fn ladder(lab: &Lab) -> anyhow::Result<Evidence> {
    let mut evidence = Evidence::default();
    for between in Between::ALL {
        let rungs: Vec<_> = probe::OPERATIONS
            .iter()
            .filter(|operation| operation.between().contains(&between))
            .collect();
        let values = lab.blocks(&rungs, lab.pick(21, 41), |operation| {
            let mut probe = Probe::start(&ProbeArgs {
                between,
                placement: Placement::Same,
                ..ProbeArgs::new(operation)
            })?;
            probe.time(MESSAGES / 10)?;
            Ok(probe.time(MESSAGES)?.as_nanos() as f64 / MESSAGES as f64)
        })?;
        let tcp = rungs.iter().position(|rung| rung.name == "tcp");
        for (rung, values) in rungs.iter().zip(&values) {
            let metric = format!("{}_round_trip_ns", rung.name);
            let figure = evidence.median(&metric, &between, values, 1);
            figure.headline = ["channel", "fifo", "tcp"].contains(&rung.name);
        }
        for queue in ["channel", "mpsc"] {
            let place = rungs.iter().position(|rung| rung.name == queue);
            if let Some((tcp, queue_at)) = tcp.zip(place) {
                let metric = format!("tcp_over_{queue}_ratio");
                let ratio = (&values[tcp][..], &values[queue_at][..]);
                shown(evidence.ratio(&metric, &between, ratio, 2));
            }
        }
    }
    Ok(evidence)
}

/// The size of a message of C9, and of the buffer it has to go through.
const MESSAGE_BYTES: u32 = 1 << 20;
const BUFFER_BYTES: usize = 4096;
/// How often the sender is interrupted.
const INTERRUPTED_EVERY: Duration = Duration::from_micros(200);

/// How C9 sends.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Blocking,
    Interrupted,
    NonBlocking,
}

/// What a sender saw.
#[derive(Default)]
struct Sent {
    calls: u64,
    short: u64,
    lost: u64,
}

/// C9.
pub(super) fn short_sends(lab: &Lab) -> anyhow::Result<Evidence> {
    let mut evidence = Evidence::default();
    take(Signal::SIGALRM, false)?;
    let server = lab::serve(REFERENCE)?;
    let mut lost = 0;
    for (way, at) in [
        (Way::Blocking, "blocking"),
        (Way::Interrupted, "blocking, signals"),
        (Way::NonBlocking, "non-blocking"),
    ] {
        let mut sum = Sent::default();
        for number in 0..lab.pick(8, 64) {
            let sent = transfer(server.address(), way, number)?;
            sum.calls += sent.calls;
            sum.short += sent.short;
            lost += sent.lost;
        }
        evidence.exact("send_calls", &at, sum.calls as f64);
        shown(evidence.exact(
            "short_sends_share",
            &at,
            sum.short as f64 / sum.calls as f64,
        ));
    }
    server.stop()?;
    shown(evidence.exact("bytes_lost_or_wrong", &"", lost as f64));
    Ok(evidence)
}

/// Sends one message and reads it back at the same time.
fn transfer(address: SocketAddr, way: Way, number: u64) -> anyhow::Result<Sent> {
    let message = message(number);
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_send_buffer_size(BUFFER_BYTES)?;
    socket.connect(&address.into())?;
    socket.set_nonblocking(way == Way::NonBlocking)?;
    let stream = TcpStream::from(socket);
    let (reader, length) = (stream.try_clone()?, message.len());
    let receiver = thread::spawn(move || receive(reader, length));
    let sender = thread::spawn({
        let (stream, message) = (stream.try_clone()?, message.clone());
        move || send_all(&stream, &message)
    });
    if way == Way::Interrupted {
        while !sender.is_finished() {
            signals::interrupt(sender.as_pthread_t(), Signal::SIGALRM);
            thread::sleep(INTERRUPTED_EVERY);
        }
    }
    let mut sent = sender.join().expect("the sender does not panic")?;
    let reply = receiver.join().expect("the receiver does not panic")?;
    let right = reply.iter().zip(&message).filter(|(a, b)| a == b).count();
    sent.lost = (message.len() - right) as u64;
    Ok(sent)
}

/// A frame of which every part is different.
fn message(number: u64) -> Vec<u8> {
    let header = Header {
        work: Work::None,
        payload_len: MESSAGE_BYTES,
        sequence: number,
    };
    let mut random = fastrand::Rng::with_seed(number);
    let payload = std::iter::repeat_with(|| random.u8(..)).take(MESSAGE_BYTES as usize);
    header.encode().into_iter().chain(payload).collect()
}

/// Offers the whole rest in every call, until nothing is left.
fn send_all(stream: &TcpStream, message: &[u8]) -> io::Result<Sent> {
    let mut sent = Sent::default();
    let mut rest = message;
    while !rest.is_empty() {
        match send(stream.as_raw_fd(), rest, MsgFlags::MSG_NOSIGNAL) {
            Ok(count) => {
                sent.calls += 1;
                sent.short += u64::from(count < rest.len());
                rest = &rest[count..];
            }
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => {
                let mut events = [PollFd::new(stream.as_fd(), PollFlags::POLLOUT)];
                // Interrupted or not: the next call tells.
                let _ = poll(&mut events, PollTimeout::NONE);
            }
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(sent)
}

fn receive(mut stream: TcpStream, length: usize) -> io::Result<Vec<u8>> {
    let mut reply = vec![0; length];
    let mut received = 0;
    while received < length {
        match stream.read(&mut reply[received..]) {
            Ok(0) => break,
            Ok(count) => received += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let mut events = [PollFd::new(stream.as_fd(), PollFlags::POLLIN)];
                let _ = poll(&mut events, PollTimeout::NONE);
            }
            Err(error) => return Err(error),
        }
    }
    reply.truncate(received);
    Ok(reply)
}
