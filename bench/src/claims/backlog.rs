//! Connects to a busy server beyond its backlog: C5.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::Context;
use echobench_clients::raise_file_limit;
use echobench_protocol::Work;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, Socket, Type};

use super::evidence::Evidence;
use super::lab::{self, Lab};
use super::rule::{does_not_hold, holds, inconclusive, places};
use super::{CHAPTERS, Claim, Ruling};

pub(super) const C5: Claim = Claim {
    id: "C5",
    claim: "a backlog of 5 lets up to 5 clients wait",
    source: CHAPTERS,
    metric: "of a burst of connects to a busy server: those connected at once, those dropped and \
             retried (more than 0.9 s), those refused; over backlog and burst",
    rule: "holds if of every burst larger than the backlog of 5, 5 or 6 are connected while the server is \
           busy (Linux takes one more than the backlog), and all of a burst of 5; does not hold if \
           the numbers are others",
    experiment: measure_bursts,
    figures: &[
        ("connected", &JUDGED),
        ("retried", &JUDGED),
        ("refused", &JUDGED),
        ("given_up", &JUDGED),
    ],
    decide: decide_bursts,
};

const BACKLOGS: [u32; 3] = [5, 128, 4096];
/// Places of the figures that are judged in every run.
const JUDGED: [&str; 4] = [
    "backlog 5, 5 clients",
    "backlog 5, 20 clients",
    "backlog 5, 100 clients",
    "backlog 5, 1000 clients",
];
/// Time for which the server is busy: shorter than the second after which the kernel retries a dropped
/// connect, so that the retry finds the server free.
const BUSY: Duration = Duration::from_millis(500);
/// A connect that takes longer than this was dropped and retried.
const RETRIED: Duration = Duration::from_millis(900);
/// Time limit of the connects: beyond their second retry, at three seconds.
const GIVEN_UP: Duration = Duration::from_millis(3500);

/// Outcomes of a burst of connects.
#[derive(Clone, Copy, Default)]
struct Burst {
    connected: usize,
    retried: usize,
    refused: usize,
    given_up: usize,
}

/// One outcome of [`Burst`], by the name of its metric.
type Count = (&'static str, fn(&Burst) -> usize);

const COUNTS: [Count; 4] = [
    ("connected", |burst| burst.connected),
    ("retried", |burst| burst.retried),
    ("refused", |burst| burst.refused),
    ("given_up", |burst| burst.given_up),
];

fn measure_bursts(lab: &Lab) -> anyhow::Result<Evidence> {
    let sizes: &[u32] = lab.pick(&[5, 20, 100, 1000], &[5, 6, 20, 100, 300, 1000]);
    let of_each: u32 = sizes.iter().sum();
    // All bursts of a round are open at once, so that a round takes one timeout, not one per burst.
    raise_file_limit(BACKLOGS.iter().map(|_| of_each).sum())?;

    let rounds: anyhow::Result<Vec<Vec<Burst>>> =
        (0..lab.pick(1, 6)).map(|_| round(sizes)).collect();
    let rounds = rounds?;

    let mut evidence = Evidence::default();
    let kinds = BACKLOGS
        .iter()
        .flat_map(|backlog| sizes.iter().map(move |size| (*backlog, size)));
    for (index, (backlog, size)) in kinds.enumerate() {
        let at = format!("backlog {backlog}, {size} clients");
        for (metric, count) in COUNTS {
            let values: Vec<f64> = rounds
                .iter()
                .map(|round| count(&round[index]) as f64)
                .collect();
            // One round has no interval: its count is exact.
            let figure = if let [value] = values[..] {
                evidence.exact(metric, &at, value)
            } else {
                evidence.median(metric, &at, &values, 1)
            };
            figure.headline = backlog == BACKLOGS[0] && metric == "connected";
        }
    }
    Ok(evidence)
}

/// Bursts at one busy server for each backlog and size.
fn round(sizes: &[u32]) -> anyhow::Result<Vec<Burst>> {
    lab::fail_if_interrupted()?;
    let mut servers = Vec::new();
    for backlog in BACKLOGS {
        for &size in sizes {
            let server = lab::serve(&format!("iterative --backlog {backlog}"))?;
            servers.push((server, size));
        }
    }

    let mut bursts = Vec::new();
    let mut sockets = Vec::new();
    let mut holders = Vec::new();
    for (index, (server, size)) in servers.iter().enumerate() {
        holders.push(occupy(server.address())?);
        let mut burst = Burst::default();
        for _ in 0..*size {
            sockets.extend(begin_connect(server.address(), index, &mut burst)?);
        }
        bursts.push(burst);
    }

    // The first retry of the kernel finds the servers free again.
    wait_for_connects(sockets, &mut bursts)?;
    drop(holders);
    for (server, _) in servers {
        server.stop()?;
    }
    Ok(bursts)
}

/// Keeps an iterative server busy with a connection that it serves before all others.
fn occupy(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    // A reply proves that the server has accepted this connection.
    lab::exchange(&mut stream, Work::None)?;
    stream.write_all(&lab::frame(Work::Block(BUSY)))?;
    stream.shutdown(std::net::Shutdown::Write)?;
    Ok(stream)
}

/// A connect in progress.
struct Connecting {
    socket: Socket,
    began: Instant,
    /// Index of its burst.
    burst: usize,
}

/// Begins to connect; `None` if the outcome is known at once, and counted in `burst`.
fn begin_connect(
    address: SocketAddr,
    index: usize,
    burst: &mut Burst,
) -> anyhow::Result<Option<Connecting>> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking(),
        None,
    )?;
    let began = Instant::now();

    match socket.connect(&address.into()) {
        Ok(()) => {
            burst.count_connected(began.elapsed());
            Ok(None)
        }
        Err(error) if error.raw_os_error() == Some(Errno::EINPROGRESS as i32) => {
            Ok(Some(Connecting {
                socket,
                began,
                burst: index,
            }))
        }
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            burst.refused += 1;
            Ok(None)
        }
        Err(error) => Err(error).context("cannot connect"),
    }
}

impl Burst {
    fn count_connected(&mut self, time: Duration) {
        if time > RETRIED {
            self.retried += 1;
        } else {
            self.connected += 1;
        }
    }
}

/// Waits until the outcome of every connect is known or given up. Connected sockets are closed at once;
/// they stay in the backlog all the same until they are accepted.
fn wait_for_connects(mut sockets: Vec<Connecting>, bursts: &mut [Burst]) -> anyhow::Result<()> {
    let deadline = Instant::now() + GIVEN_UP;
    while !sockets.is_empty() && Instant::now() < deadline {
        let mut events: Vec<PollFd> = sockets
            .iter()
            .map(|connecting| PollFd::new(connecting.socket.as_fd(), PollFlags::POLLOUT))
            .collect();
        match poll(&mut events, PollTimeout::from(100_u8)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).context("cannot wait for connects"),
        }

        let decided: Vec<bool> = events
            .iter()
            .map(|event| event.any() == Some(true))
            .collect();
        let mut decided = decided.into_iter();
        sockets.retain(|connecting| {
            if decided.next() != Some(true) {
                return true;
            }
            let burst = &mut bursts[connecting.burst];
            match connecting.socket.take_error() {
                Ok(None) => burst.count_connected(connecting.began.elapsed()),
                _ => burst.refused += 1,
            }
            false
        });
    }

    for connecting in sockets {
        bursts[connecting.burst].given_up += 1;
    }
    Ok(())
}

fn decide_bursts(evidence: &Evidence) -> Ruling {
    const PLACE: &str = "backlog 5, ";
    let bursts = evidence.all("connected").filter_map(|figure| {
        let number = figure.at.strip_prefix(PLACE)?.split(' ').next()?;
        Some((figure, number.parse::<f64>().ok()?))
    });

    let (mut seen, mut unresolved) = (0, Vec::new());
    for (figure, clients) in bursts {
        seen += 1;
        let most = clients.min(6.0);
        match (figure.at_least(5.0), figure.at_least(most + 0.5)) {
            (Some(true), Some(false)) => {}
            (Some(false), _) | (_, Some(true)) => {
                let value = figure.value.unwrap_or(0.0);
                return does_not_hold(format!("{value} of {clients} could wait"));
            }
            _ => unresolved.push(figure),
        }
    }
    if seen == 0 || !unresolved.is_empty() {
        return inconclusive(format!("not resolved for {}", places(&unresolved)));
    }

    let happened = |metric| {
        let mut figures = evidence
            .all(metric)
            .filter(|figure| figure.at.starts_with(PLACE));
        figures.any(|figure| figure.value.is_some_and(|count| count > 0.0))
    };
    if happened("refused") {
        holds("one more than the backlog waits; of the others some are refused")
    } else if happened("retried") || happened("given_up") {
        holds(
            "one more than the backlog waits; the others are not refused: the kernel tries their connect \
             again after 1 s, 3 s and so on",
        )
    } else {
        holds("one more than the backlog waits")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claims::ClaimVerdict;
    use crate::claims::rule::made_up::counts;

    #[test]
    fn c5_allows_one_more_than_the_backlog() {
        let judge = |few: f64, many: f64| {
            let counts = counts(&[
                ("connected", "backlog 5, 5 clients", few),
                ("connected", "backlog 5, 100 clients", many),
                ("connected", "backlog 128, 100 clients", 100.0),
                ("retried", "backlog 5, 100 clients", 100.0 - many),
            ]);
            decide_bursts(&counts)
        };

        assert_eq!(judge(5.0, 5.0).verdict, ClaimVerdict::Holds);
        let linux = judge(5.0, 6.0);
        assert_eq!(linux.verdict, ClaimVerdict::Holds);
        assert!(linux.condition.contains("not refused"), "{linux:?}");

        assert_eq!(judge(5.0, 8.0).verdict, ClaimVerdict::DoesNotHold);
        assert_eq!(judge(4.0, 5.0).verdict, ClaimVerdict::DoesNotHold);
    }
}
