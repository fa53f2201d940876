//! Transport of data between threads and processes: C8 and C9.

use std::io::{self, Read};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::thread;
use std::time::Duration;

use echobench_protocol::{Header, Work};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::socket::{MsgFlags, send};
use socket2::{Domain, Socket, Type};

use super::evidence::Evidence;
use super::lab::{self, Lab};
use super::rule::{Compared, MARGIN, does_not_hold, holds, holds_only_when, inconclusive};
use super::signals::signal_thread;
use super::{CHAPTER_5, Claim, Ruling, TUTORIAL};
use crate::host::signals::ignore_with_handler;
use crate::host::threads;
use crate::processes::probe::{self, Between, Probe, ProbeArgs};
use crate::results::summary::REFERENCE;
use crate::scenario::Placement;

pub(super) const C8: Claim = Claim {
    id: "C8",
    claim: "queues suffice between threads, sockets between processes; fifos and sockets work for both",
    source: CHAPTER_5,
    metric: "round-trip time of channel, mpsc, pipe, fifo, Unix stream and TCP, on one CPU, between threads and \
             between processes",
    rule: "holds if no queue takes more than 1.5 times as long as TCP between threads, and fifo, Unix \
           stream and TCP were measured in both places; does not hold if a queue takes longer",
    experiment: measure_round_trips,
    figures: &[
        ("tcp_over_channel_ratio", &["threads"]),
        ("tcp_over_mpsc_ratio", &["threads"]),
        ("fifo_round_trip_ns", &["threads", "processes"]),
        ("unix_round_trip_ns", &["threads", "processes"]),
        ("tcp_round_trip_ns", &["threads", "processes"]),
    ],
    decide: decide_round_trips,
};

/// Round trips that one block times.
const ROUND_TRIPS: u64 = 1500;

fn measure_round_trips(lab: &Lab) -> anyhow::Result<Evidence> {
    let mut evidence = Evidence::default();
    for between in Between::ALL {
        let at = between.to_string();
        let operations: Vec<_> = probe::OPERATIONS
            .iter()
            .filter(|operation| operation.between().contains(&between))
            .collect();

        let values = lab.blocks(&operations, lab.pick(21, 41), |operation| {
            let mut probe = Probe::start(&ProbeArgs {
                between,
                placement: Placement::Same,
                ..ProbeArgs::new(operation)
            })?;
            // Caches and the pages of buffers are warm after a few round trips.
            probe.time(ROUND_TRIPS / 10)?;
            Ok(probe.time(ROUND_TRIPS)?.as_nanos() as f64 / ROUND_TRIPS as f64)
        })?;

        for (operation, values) in operations.iter().zip(&values) {
            let metric = format!("{}_round_trip_ns", operation.name);
            let figure = evidence.median(&metric, &at, values, 1);
            figure.headline = ["channel", "fifo", "tcp"].contains(&operation.name);
        }

        let times_of = |name: &str| {
            let index = operations.iter().position(|known| known.name == name)?;
            Some(&values[index][..])
        };
        for queue in ["channel", "mpsc"] {
            if let Some(times) = times_of("tcp").zip(times_of(queue)) {
                let metric = format!("tcp_over_{queue}_ratio");
                evidence.ratio(&metric, &at, times, 2).mark_headline();
            }
        }
    }
    Ok(evidence)
}

fn decide_round_trips(evidence: &Evidence) -> Ruling {
    let ratios = || {
        evidence
            .all("tcp_over_channel_ratio")
            .chain(evidence.all("tcp_over_mpsc_ratio"))
    };
    let no_slower = Compared::with(1.0 / MARGIN, ratios());
    let faster = Compared::with(MARGIN, ratios());

    if !no_slower.below.is_empty() {
        does_not_hold("a queue between threads is slower than TCP")
    } else if !no_slower.all_above() {
        inconclusive("not resolved whether queues are as fast as TCP")
    } else if faster.above.is_empty() {
        holds(
            "queues are no slower than TCP between threads on one CPU, but hardly faster: waking up dominates",
        )
    } else if faster.all_above() {
        holds("queues are at least 1.5 times faster than TCP between threads on one CPU")
    } else {
        holds(
            "queues are no slower than TCP between threads on one CPU, and one kind is 1.5 times faster",
        )
    }
}

pub(super) const C9: Claim = Claim {
    id: "C9",
    claim: "send may take only part of the data; the application must send the rest",
    source: TUTORIAL,
    metric: "share of send calls that take less than they are offered, of 1 MiB through a buffer of \
             4 KiB: on a blocking socket, on one interrupted by signals, on a non-blocking one; \
             bytes lost when the rest is sent",
    rule: "holds if short sends occur in every way and no byte is lost; only when, if not in every \
           way; does not hold if in none, or if bytes are lost",
    experiment: measure_short_sends,
    figures: &[
        (
            "short_sends_share",
            &["blocking", "blocking, signals", "non-blocking"],
        ),
        ("bytes_lost_or_wrong", &[""]),
    ],
    decide: decide_short_sends,
};

/// Size of a message.
const MESSAGE_BYTES: u32 = 1 << 20;
/// Size of the send buffer.
const BUFFER_BYTES: usize = 4096;
/// Time between two signals to the sender.
const SIGNAL_EVERY: Duration = Duration::from_micros(200);

/// Kind of the sending socket.
#[derive(Clone, Copy, PartialEq)]
enum Sending {
    Blocking,
    Interrupted,
    NonBlocking,
}

/// Counts of one sender.
#[derive(Default)]
struct Sent {
    calls: u64,
    short: u64,
    lost: u64,
}

fn measure_short_sends(lab: &Lab) -> anyhow::Result<Evidence> {
    let mut evidence = Evidence::default();
    ignore_with_handler(Signal::SIGALRM, false)?;
    let server = lab::serve(REFERENCE)?;
    let mut lost = 0;

    for (sending, at) in [
        (Sending::Blocking, "blocking"),
        (Sending::Interrupted, "blocking, signals"),
        (Sending::NonBlocking, "non-blocking"),
    ] {
        let mut sum = Sent::default();
        for number in 0..lab.pick(8, 64) {
            lab::fail_if_interrupted()?;
            let sent = transfer(server.address(), sending, number)?;
            sum.calls += sent.calls;
            sum.short += sent.short;
            lost += sent.lost;
        }
        evidence.exact("send_calls", at, sum.calls as f64);
        let share = sum.short as f64 / sum.calls as f64;
        evidence
            .exact("short_sends_share", at, share)
            .mark_headline();
    }

    server.stop()?;
    let figure = evidence.exact("bytes_lost_or_wrong", "", lost as f64);
    figure.mark_headline();
    Ok(evidence)
}

/// Sends one message and reads it back at the same time.
fn transfer(address: SocketAddr, sending: Sending, number: u64) -> anyhow::Result<Sent> {
    let message = message(number);
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_send_buffer_size(BUFFER_BYTES)?;
    socket.connect(&address.into())?;
    socket.set_nonblocking(sending == Sending::NonBlocking)?;
    let stream = TcpStream::from(socket);

    let (reader, length) = (stream.try_clone()?, message.len());
    let receiver = threads::spawn("receive", move || receive(reader, length))?;
    let sender = threads::spawn("send", {
        let (stream, message) = (stream.try_clone()?, message.clone());
        move || send_all(&stream, &message)
    })?;
    if sending == Sending::Interrupted {
        while !sender.is_finished() {
            signal_thread(&sender, Signal::SIGALRM);
            thread::sleep(SIGNAL_EVERY);
        }
    }

    let mut sent = sender.join().expect("the sender does not panic")?;
    let reply = receiver.join().expect("the receiver does not panic")?;
    let right = reply.iter().zip(&message).filter(|(a, b)| a == b).count();
    sent.lost = (message.len() - right) as u64;
    Ok(sent)
}

/// A frame of random bytes, so that no part of it can stand for another.
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

/// Sends a message; every call offers all that is left.
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
                // An error of poll, or a signal, shows in the next call of send.
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

fn decide_short_sends(evidence: &Evidence) -> Ruling {
    let (mut short, mut whole) = (Vec::new(), Vec::new());
    for figure in evidence.all("short_sends_share") {
        match figure.value {
            Some(share) if share > 0.0 => short.push(figure),
            Some(_) => whole.push(figure),
            None => return inconclusive("a way of sending was not measured"),
        }
    }
    let Some(lost) = evidence.value("bytes_lost_or_wrong", "") else {
        return inconclusive("lost bytes were not counted");
    };

    if lost > 0.0 {
        does_not_hold(format!("{lost} bytes were lost although the rest was sent"))
    } else if short.is_empty() {
        does_not_hold("no send was short")
    } else if whole.is_empty() {
        holds("with the rest sent, nothing is lost")
    } else {
        holds_only_when(
            "the socket does not block, or a signal comes: an undisturbed blocking send takes all",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claims::ClaimVerdict;
    use crate::claims::rule::made_up::{counts, narrow};

    #[test]
    fn c8_compares_queues_and_asks_what_was_measured() {
        let ruling = |ratio: f64, unix: bool| {
            let mut figures = vec![
                ("tcp_over_channel_ratio", "threads", ratio),
                ("tcp_over_mpsc_ratio", "threads", ratio),
            ];
            for at in ["threads", "processes"] {
                figures.push(("fifo_round_trip_ns", at, 1e4));
                figures.push(("tcp_round_trip_ns", at, 1e4));
                if unix {
                    figures.push(("unix_round_trip_ns", at, 1e4));
                }
            }
            C8.ruling(&narrow(&figures))
        };
        let judge = |ratio| ruling(ratio, true).verdict;

        assert_eq!(judge(3.0), ClaimVerdict::Holds);
        assert_eq!(judge(1.0), ClaimVerdict::Holds);
        assert_eq!(judge(0.5), ClaimVerdict::DoesNotHold);
        assert_eq!(judge(0.66), ClaimVerdict::Inconclusive);

        for ratio in [3.0, 0.5] {
            let reason = "unix_round_trip_ns at 'threads' could not be measured";
            assert_eq!(ruling(ratio, false), inconclusive(reason));
        }
    }

    #[test]
    fn c9_asks_which_sends_are_short() {
        let judge = |blocking: f64, other: f64, lost: f64| {
            let counts = counts(&[
                ("short_sends_share", "blocking", blocking),
                ("short_sends_share", "non-blocking", other),
                ("bytes_lost_or_wrong", "", lost),
            ]);
            decide_short_sends(&counts).verdict
        };

        assert_eq!(judge(0.5, 0.9, 0.0), ClaimVerdict::Holds);
        assert_eq!(judge(0.0, 0.9, 0.0), ClaimVerdict::HoldsOnlyWhen);
        assert_eq!(judge(0.0, 0.0, 0.0), ClaimVerdict::DoesNotHold);
        assert_eq!(judge(0.0, 0.9, 7.0), ClaimVerdict::DoesNotHold);
    }
}
