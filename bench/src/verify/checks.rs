//! The checks: a table of properties, each with the exchange that proves it.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use echobench_protocol::{
    DEFAULT_MAX_PAYLOAD, HEADER_LEN, MAX_PAYLOAD, Reason, Work, error_reason,
};

use super::connection::{Connection, Limits, OwnLimit, changed, echo, frame};

/// Longest silence that a server may keep on a connection.
const SILENCE: Duration = Duration::from_secs(10);

/// Connections that are open at once in the check `many`.
pub(super) const CONNECTIONS: u32 = 200;

/// A server under test.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    address: SocketAddr,
    /// Time limit of each check.
    limit: Duration,
    /// Limits of the check in progress.
    limits: Limits,
    /// Whether it does work and answers malformed requests with an error frame. Otherwise it returns every
    /// byte (RFC 862), and no more can be asked of it than frames without work.
    speaks_frames: bool,
}

/// One check.
pub struct Check {
    /// Its name.
    pub name: &'static str,
    /// The property that it proves.
    pub what: &'static str,
    /// Only a server that speaks frames can pass.
    needs_frames: bool,
    holds: fn(Peer) -> anyhow::Result<()>,
}

/// Outcome of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckOutcome {
    /// The property holds.
    Passed,
    /// It does not, and why.
    Failed(String),
    /// The server returns bytes and does not claim it.
    Skipped,
    /// This process could not do the check, and why.
    NotDone(String),
}

/// Every check, from simple to complex.
pub const CHECKS: &[Check] = &[
    Check {
        name: "sizes",
        what: "frames of every size come back as they are",
        needs_frames: false,
        holds: sizes,
    },
    Check {
        name: "bytewise",
        what: "frames may arrive byte by byte",
        needs_frames: false,
        holds: bytewise,
    },
    Check {
        name: "pipelined",
        what: "many requests sent at once are answered in their order",
        needs_frames: false,
        holds: pipelined,
    },
    Check {
        name: "half-close",
        what: "a client that sends no more is still answered",
        needs_frames: false,
        holds: half_close,
    },
    Check {
        name: "reset",
        what: "a reset in the middle of a frame hurts nobody else",
        needs_frames: false,
        holds: reset,
    },
    Check {
        name: "many",
        what: "200 connections at once are all served, at least each in its turn",
        needs_frames: false,
        holds: many,
    },
    Check {
        name: "work",
        what: "work is done for as long as it is asked for, then answered",
        needs_frames: true,
        holds: work,
    },
    Check {
        name: "cut-short",
        what: "to half a frame there is no reply",
        needs_frames: true,
        holds: cut_short,
    },
    Check {
        name: "oversize",
        what: "a frame over the limit is refused, and the server lives",
        needs_frames: true,
        holds: oversize,
    },
    Check {
        name: "malformed",
        what: "what is no request is refused with its reason",
        needs_frames: true,
        holds: malformed,
    },
];

impl Check {
    /// Does the check.
    #[must_use]
    pub fn run(&self, peer: Peer) -> CheckOutcome {
        if self.needs_frames && !peer.speaks_frames {
            return CheckOutcome::Skipped;
        }

        let limits = Limits::new(SILENCE, peer.limit);
        match (self.holds)(Peer { limits, ..peer }) {
            Ok(()) => CheckOutcome::Passed,
            // The cause keeps its type below the context that says how far the check came.
            Err(error) if error.downcast_ref::<OwnLimit>().is_some() => {
                CheckOutcome::NotDone(format!("{error:#}"))
            }
            Err(error) => CheckOutcome::Failed(format!("{error:#}")),
        }
    }
}

impl Peer {
    /// Connects to a server and finds out its kind. A request for an unknown kind of work comes back as it
    /// is from a server that returns every byte; any other behaviour is judged by all checks.
    pub(super) fn meet(address: SocketAddr, limit: Duration) -> anyhow::Result<Self> {
        let peer = Peer::known(address, limit);
        let client = peer.connect()?;

        let request = unknown_work(0);
        let returns_bytes = || -> anyhow::Result<bool> {
            client.send(&request)?;
            Ok(client.receive(HEADER_LEN)? == request)
        };
        Ok(Peer {
            speaks_frames: !returns_bytes().unwrap_or(false),
            ..peer
        })
    }

    /// A server that is known to speak frames.
    #[must_use]
    pub fn known(address: SocketAddr, limit: Duration) -> Self {
        Peer {
            address,
            limit,
            limits: Limits::new(SILENCE, limit),
            speaks_frames: true,
        }
    }

    fn connect(&self) -> anyhow::Result<Connection> {
        Connection::open(self.address, self.limits)
    }

    /// Work for a server that does it.
    fn work(&self, work: Work) -> Work {
        if self.speaks_frames { work } else { Work::None }
    }
}

fn unknown_work(sequence: u64) -> Vec<u8> {
    changed(sequence, 5, 0xff)
}

fn sizes(peer: Peer) -> anyhow::Result<()> {
    let largest = DEFAULT_MAX_PAYLOAD as usize;
    let client = peer.connect()?;
    for (sequence, payload) in (0..).zip([0, 1, 64, 4072, 4073, 100_000, largest]) {
        exchange_both_ways(&client, &frame(sequence, payload, Work::None))
            .with_context(|| format!("payload of {payload} bytes"))?;
    }

    client.exchange(&frame(u64::MAX, 0, Work::None))?;
    client.finish()?;
    no_more(&client)
}

/// Sends and reads at the same time: a plain echo server returns the begin of a large frame before it has
/// read the end, and blocks when nobody reads.
fn exchange_both_ways(client: &Connection, frame: &[u8]) -> anyhow::Result<()> {
    thread::scope(|scope| {
        let sender = thread::Builder::new().spawn_scoped(scope, || client.send(frame));
        let sender = sender.map_err(OwnLimit::of_thread)?;
        let returned = client.returned(frame);
        let sent = sender.join().expect("sending does not panic");
        returned.and(sent)
    })
}

/// Fails if the server sends more before it closes.
fn no_more(client: &Connection) -> anyhow::Result<()> {
    let rest = client.rest()?;
    if let Some(reason) = error_reason(&rest) {
        bail!("the server refuses: {reason}");
    }
    ensure!(rest.is_empty(), "{} bytes too many at the end", rest.len());
    Ok(())
}

fn bytewise(peer: Peer) -> anyhow::Result<()> {
    let client = peer.connect()?;
    let work = peer.work(Work::Block(Duration::from_millis(1)));
    let frames = [echo(1), frame(2, 5, work)].concat();
    // Nagle's algorithm is off, so every byte leaves in a segment of its own.
    for byte in &frames {
        client.send(&[*byte])?;
    }
    client.returned(&frames)
}

fn pipelined(peer: Peer) -> anyhow::Result<()> {
    let client = peer.connect()?;
    let time = Duration::from_micros(100);
    let work = |sequence| match sequence % 10 {
        3 => peer.work(Work::Block(time)),
        7 => peer.work(Work::Spin(time)),
        _ => Work::None,
    };
    let frames = (0..100_u8).map(|number| frame(number.into(), number.into(), work(number)));
    client.exchange(&frames.collect::<Vec<_>>().concat())
}

fn half_close(peer: Peer) -> anyhow::Result<()> {
    let client = peer.connect()?;
    let slow = frame(1, 64, peer.work(Work::Block(Duration::from_millis(20))));
    let frames = [slow, echo(2)].concat();
    client.send(&frames)?;
    client.finish()?;
    client.returned(&frames)?;
    no_more(&client)
}

fn reset(peer: Peer) -> anyhow::Result<()> {
    let client = peer.connect()?;
    // The reply shows that the server is reading on this connection when the reset comes.
    client.exchange(&echo(1))?;
    client.send(&echo(2)[..50])?;
    client.reset()?;
    peer.connect()?.exchange(&echo(3))
}

fn many(peer: Peer) -> anyhow::Result<()> {
    let place = |number: u32| format!("connection {number} of {CONNECTIONS}");
    let clients: anyhow::Result<Vec<_>> = (1..=CONNECTIONS)
        .map(|number| peer.connect().with_context(|| place(number)))
        .collect();
    let clients = clients?;

    for (number, client) in (1..).zip(&clients) {
        client
            .send(&echo(number.into()))
            .with_context(|| place(number))?;
    }
    // A server with fewer workers serves the next connection when one has closed.
    for (number, client) in (1..).zip(clients) {
        let returned = client.returned(&echo(number.into()));
        returned.with_context(|| place(number))?;
    }
    Ok(())
}

fn work(peer: Peer) -> anyhow::Result<()> {
    let client = peer.connect()?;
    let time = Duration::from_millis(3);

    for work in [
        Work::Block(time),
        Work::Spin(time),
        Work::Block(Duration::ZERO),
    ] {
        let began = Instant::now();
        client.exchange(&frame(7, 100, work))?;
        let took = began.elapsed();
        ensure!(
            took >= work.duration(),
            "{work:?} was answered after {took:?}"
        );
    }
    Ok(())
}

fn cut_short(peer: Peer) -> anyhow::Result<()> {
    let client = peer.connect()?;
    client.send(&echo(3)[..50])?;
    client.finish()?;
    let rest = client.rest()?;
    ensure!(rest.is_empty(), "{} bytes of reply", rest.len());
    Ok(())
}

fn oversize(peer: Peer) -> anyhow::Result<()> {
    let client = peer.connect()?;
    client.exchange(&echo(1))?;
    // The header alone: a server has to refuse without waiting for the payload.
    client.send(&frame(2, MAX_PAYLOAD as usize + 1, Work::None)[..HEADER_LEN])?;
    client.refused(Reason::PayloadTooLarge, 2)?;
    peer.connect()?.exchange(&echo(3))
}

fn malformed(peer: Peer) -> anyhow::Result<()> {
    for (bytes, reason, sequence) in [
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), Reason::BadMagic, 0),
        (changed(9, 3, 2), Reason::UnknownVersion, 0),
        (changed(9, 4, 1), Reason::UnknownFlags, 9),
        (changed(9, 7, 1), Reason::UnknownFlags, 9),
        (changed(9, 5, 3), Reason::UnknownWork, 9),
    ] {
        let client = peer.connect()?;
        client.send(&bytes)?;
        client.refused(reason, sequence)?;
    }

    // Requests before the malformed one are answered first.
    let client = peer.connect()?;
    client.send(&[echo(1), unknown_work(9)].concat())?;
    client.returned(&echo(1))?;
    client.refused(Reason::UnknownWork, 9)?;

    let next = peer.connect().and_then(|client| client.exchange(&echo(2)));
    next.context("serves nobody afterwards")
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::net::Ipv4Addr;

    use super::*;

    fn outcome(holds: fn(Peer) -> anyhow::Result<()>) -> CheckOutcome {
        let check = Check {
            name: "one",
            what: "a property",
            needs_frames: false,
            holds,
        };
        check.run(Peer::known((Ipv4Addr::LOCALHOST, 1).into(), SILENCE))
    }

    #[test]
    fn a_limit_of_this_process_is_no_failure_of_the_server() {
        let refused = outcome(|_| {
            let error = io::Error::from(io::ErrorKind::WouldBlock);
            Err(OwnLimit::of_thread(error)).context("payload of 0 bytes")
        });
        let CheckOutcome::NotDone(why) = refused else {
            panic!("{refused:?}");
        };
        assert!(why.starts_with("payload of 0 bytes: cannot start a thread"));
        assert!(why.contains("ulimit -u"), "{why}");

        let wrong = outcome(|_| bail!("byte 0 of 24 came back changed"));
        assert!(matches!(wrong, CheckOutcome::Failed(_)), "{wrong:?}");
    }
}
