//! The conformance suite: what a server has to do, as a table of checks that know nothing of it but its
//! address.

mod exchange;

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use echobench_protocol::{
    DEFAULT_MAX_PAYLOAD, HEADER_LEN, MAX_PAYLOAD, Reason, Work, error_reason,
};

pub use exchange::{Exchange, changed, connect, echo, frame};

/// A server under test.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    address: SocketAddr,
    /// How long it may take for anything.
    patience: Duration,
    /// Whether it does work and answers what is malformed by an error frame. Otherwise it returns every
    /// byte (RFC 862), which is all that frames without work ask for.
    speaks_frames: bool,
}

/// One check.
pub struct Check {
    /// Its name.
    pub name: &'static str,
    /// What holds.
    pub what: &'static str,
    /// Only a server that speaks frames can pass.
    needs_frames: bool,
    holds: fn(Peer) -> anyhow::Result<()>,
}

/// What a check came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It holds.
    Passed,
    /// It does not, and why.
    Failed(String),
    /// The server does not claim it.
    Skipped,
}

/// Every check, from what is simple to what is not.
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
    /// Carries it out.
    #[must_use]
    pub fn run(&self, peer: Peer) -> Outcome {
        if self.needs_frames && !peer.speaks_frames {
            return Outcome::Skipped;
        }
        match (self.holds)(peer) {
            Ok(()) => Outcome::Passed,
            Err(error) => Outcome::Failed(format!("{error:#}")),
        }
    }
}

impl Peer {
    /// Finds out what kind of server it is: one that speaks frames answers a request for an unknown kind
    /// of work by an error frame. Fails when it cannot be connected to.
    pub fn meet(address: SocketAddr, patience: Duration) -> anyhow::Result<Self> {
        let client = connect(address, patience)?;
        let refused = || -> anyhow::Result<bool> {
            client.send(&unknown_work(0))?;
            let header = client.receive(HEADER_LEN)?;
            Ok(error_reason(&header) == Some(Reason::UnknownWork))
        };
        Ok(Peer {
            address,
            patience,
            // Whatever else it does, the checks will say.
            speaks_frames: refused().unwrap_or(false),
        })
    }

    /// A server that is known to speak frames.
    #[must_use]
    pub fn known(address: SocketAddr, patience: Duration) -> Self {
        Peer {
            address,
            patience,
            speaks_frames: true,
        }
    }

    fn connect(&self) -> anyhow::Result<TcpStream> {
        connect(self.address, self.patience)
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
    let rest = client.rest()?;
    ensure!(rest.is_empty(), "{} bytes too many at the end", rest.len());
    Ok(())
}

/// A plain echo server returns the begin of a large frame before it has read the end: somebody has to
/// read meanwhile.
fn exchange_both_ways(client: &TcpStream, frame: &[u8]) -> anyhow::Result<()> {
    std::thread::scope(|scope| {
        let sent = scope.spawn(|| client.send(frame));
        let returned = client.returned(frame);
        sent.join().expect("sending does not panic")?;
        returned
    })
}

fn bytewise(peer: Peer) -> anyhow::Result<()> {
    let client = peer.connect()?;
    let work = peer.work(Work::Block(Duration::from_millis(1)));
    let frames = [echo(1), frame(2, 5, work)].concat();
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
    let rest = client.rest()?;
    ensure!(rest.is_empty(), "{} bytes too many at the end", rest.len());
    Ok(())
}

fn reset(peer: Peer) -> anyhow::Result<()> {
    let client = peer.connect()?;
    client.exchange(&echo(1))?;
    client.send(&echo(2)[..50])?;
    client.reset()?;
    peer.connect()?.exchange(&echo(3))
}

fn many(peer: Peer) -> anyhow::Result<()> {
    const CONNECTIONS: u64 = 200;
    let clients: anyhow::Result<Vec<_>> = (0..CONNECTIONS).map(|_| peer.connect()).collect();
    let clients = clients?;
    for (sequence, client) in (0..).zip(&clients) {
        client.send(&echo(sequence))?;
    }
    // A server with fewer workers comes to the next when one has gone.
    for (sequence, client) in (0..).zip(clients) {
        let returned = client.returned(&echo(sequence));
        returned.with_context(|| format!("connection {} of {CONNECTIONS}", sequence + 1))?;
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
    // What came before it is answered first.
    let client = peer.connect()?;
    client.send(&[echo(1), unknown_work(9)].concat())?;
    client.returned(&echo(1))?;
    client.refused(Reason::UnknownWork, 9)?;
    if peer.connect()?.exchange(&echo(2)).is_err() {
        bail!("serves nobody afterwards");
    }
    Ok(())
}
