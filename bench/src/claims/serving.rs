//! Who waits for whom at a server, and in which order: C4, C5, C6 and C7.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::Context;
use echobench_clients::{Driver, raise_file_limit};
use echobench_protocol::Work;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{Domain, Socket, Type};

use super::evidence::{Evidence, shown};
use super::lab::{self, Lab};
use super::roll_call;
use crate::results::summary::REFERENCE;

/// The clients of C4 and C6, as in the textbook.
const FEW: u32 = 5;

/// C4.
pub(super) fn makes_others_wait(lab: &Lab) -> anyhow::Result<Evidence> {
    const SMALL_POOL: &str = "pool --workers 2";
    let arms = [
        "iterative",
        REFERENCE,
        "fork",
        "async",
        "pool --workers 5",
        SMALL_POOL,
    ];
    let values = lab.blocks(&arms, lab.pick(10, 20), |arm| {
        let server = lab::serve(arm)?;
        let mut plan = lab::requests(server.address(), Driver::Threads, FEW, u64::from(FEW));
        plan.workload.work = "block:40ms".parse()?;
        let report = lab::answered(&plan)?;
        server.stop()?;
        Ok(lab::completion_ns(&report))
    })?;
    let mut evidence = Evidence::default();
    let of = arms.len() - 1;
    for (arm, values) in arms.iter().zip(&values) {
        shown(evidence.median("completion_ns", &arm, values, of));
    }
    for (arm, under) in arms.iter().zip(&values).skip(1) {
        if *arm == SMALL_POOL {
            let ratio = (&under[..], &values[1][..]);
            shown(evidence.ratio("small_pool_over_thread_ratio", &arm, ratio, of));
        } else {
            evidence.ratio("iterative_over_model_ratio", &arm, (&values[0], under), of);
        }
    }
    Ok(evidence)
}

const BACKLOGS: [u32; 3] = [5, 128, 4096];
/// How long the server is busy. The kernel tries a connect again that was dropped after one second.
const BUSY: Duration = Duration::from_millis(500);
/// Connects that take longer were dropped and tried again.
const RETRIED: Duration = Duration::from_millis(900);
/// The time until the connects are given up: after their second retry, at three seconds.
const GIVEN_UP: Duration = Duration::from_millis(3500);

/// C5.
pub(super) fn backlog(lab: &Lab) -> anyhow::Result<Evidence> {
    let sizes: &[u32] = lab.pick(&[5, 20, 100, 1000], &[5, 6, 20, 100, 300, 1000]);
    let rounds = lab.pick(1, 6);
    let of_each: u32 = sizes.iter().sum();
    raise_file_limit(BACKLOGS.iter().map(|_| of_each).sum())?;
    let mut bursts: Vec<Vec<Outcome>> = Vec::new();
    for _ in 0..rounds {
        bursts.push(round(sizes)?);
    }
    let mut evidence = Evidence::default();
    let mut index = 0;
    for backlog in BACKLOGS {
        for size in sizes {
            let at = format!("backlog {backlog}, {size} clients");
            let mut show = |metric: &str, read: fn(&Outcome) -> usize| {
                let of_round = |round: &Vec<Outcome>| read(&round[index]) as f64;
                let values: Vec<f64> = bursts.iter().map(of_round).collect();
                // One round has no interval, and the count is what it is.
                let figure = if let [value] = values[..] {
                    evidence.exact(metric, &&at, value)
                } else {
                    evidence.median(metric, &&at, &values, 1)
                };
                figure.headline = backlog == BACKLOGS[0] && metric == "connected";
            };
            show("connected", |outcome| outcome.at_once);
            show("retried", |outcome| outcome.retried);
            show("refused", |outcome| outcome.refused);
            show("given_up", |outcome| outcome.never);
            index += 1;
        }
    }
    Ok(evidence)
}

/// What came of a burst of connects.
#[derive(Clone, Copy, Default)]
struct Outcome {
    at_once: usize,
    retried: usize,
    refused: usize,
    never: usize,
}

/// One busy server for each backlog and size, and a burst at each.
fn round(sizes: &[u32]) -> anyhow::Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    let mut bursts = Vec::new();
    for backlog in BACKLOGS {
        for &size in sizes {
            let server = lab::serve(&format!("iterative --backlog {backlog}"))?;
            bursts.push((server, size));
        }
    }
    let mut sockets = Vec::new();
    let mut holders = Vec::new();
    for (index, (server, size)) in bursts.iter().enumerate() {
        holders.push(occupy(server.address())?);
        outcomes.push(Outcome::default());
        for _ in 0..*size {
            let outcome = &mut outcomes[index];
            sockets.extend(begin(server.address(), index, outcome)?);
        }
    }
    // A second attempt of the kernel finds the servers free again.
    watch(sockets, &mut outcomes)?;
    drop(holders);
    for (server, _) in bursts {
        server.stop()?;
    }
    Ok(outcomes)
}

/// Keeps an iterative server busy: it serves this connection, and nobody else meanwhile.
fn occupy(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    // The reply says that the connection is being served.
    lab::exchange(&mut stream, Work::None)?;
    stream.write_all(&lab::frame(Work::Block(BUSY)))?;
    stream.shutdown(std::net::Shutdown::Write)?;
    Ok(stream)
}

/// A connect under way.
struct Connecting {
    socket: Socket,
    began: Instant,
    burst: usize,
}

/// Begins to connect; `None` if it is decided at once, which is in the outcome then.
fn begin(
    address: SocketAddr,
    burst: usize,
    outcome: &mut Outcome,
) -> anyhow::Result<Option<Connecting>> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking(),
        None,
    )?;
    let began = Instant::now();
    match socket.connect(&address.into()) {
        Ok(()) => {
            outcome.connected(began.elapsed());
            Ok(None)
        }
        Err(error) if error.raw_os_error() == Some(Errno::EINPROGRESS as i32) => {
            Ok(Some(Connecting {
                socket,
                began,
                burst,
            }))
        }
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            outcome.refused += 1;
            Ok(None)
        }
        Err(error) => Err(error).context("cannot connect"),
    }
}

impl Outcome {
    fn connected(&mut self, time: Duration) {
        if time > RETRIED {
            self.retried += 1;
        } else {
            self.at_once += 1;
        }
    }
}

/// Waits for the connects until all are decided, or given up. A connection is closed as soon as it
/// is there; it waits to be accepted all the same.
fn watch(mut sockets: Vec<Connecting>, outcomes: &mut [Outcome]) -> anyhow::Result<()> {
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
            let outcome = &mut outcomes[connecting.burst];
            match connecting.socket.take_error() {
                Ok(None) => outcome.connected(connecting.began.elapsed()),
                _ => outcome.refused += 1,
            }
            false
        });
    }
    for connecting in sockets {
        outcomes[connecting.burst].never += 1;
    }
    Ok(())
}

/// C6.
pub(super) fn random_order(lab: &Lab) -> anyhow::Result<Evidence> {
    let runs = lab.pick(50, 200);
    let drivers = [Driver::Threads, Driver::Processes];
    let values = lab.blocks(&drivers, lab.pick(10, 20), |&driver| {
        let server = lab::serve(REFERENCE)?;
        let orders = roll_call::runs(server.address(), driver, FEW, runs)?;
        server.stop()?;
        let moved = orders.iter().filter(|order| !order.is_sorted()).count();
        let taus: f64 = orders.iter().map(|order| kendall_tau(order)).sum();
        let all = orders.len() as f64;
        Ok((moved as f64 / all, taus / all))
    })?;
    let mut evidence = Evidence::default();
    for (driver, values) in drivers.iter().zip(values) {
        let (moved, taus): (Vec<f64>, Vec<f64>) = values.into_iter().unzip();
        shown(evidence.median("out_of_order_share", &driver, &moved, 4));
        shown(evidence.median("tau", &driver, &taus, 4));
    }
    Ok(evidence)
}

/// Kendall's rank correlation of an order with the ascending one: the share of pairs in order minus
/// that of pairs out of order. Source: Kendall, "A new measure of rank correlation", *Biometrika* 30
/// (1938).
fn kendall_tau(order: &[u32]) -> f64 {
    let mut sum = 0.0;
    let mut pairs = 0.0;
    for (index, first) in order.iter().enumerate() {
        for second in &order[index + 1..] {
            sum += if first < second { 1.0 } else { -1.0 };
            pairs += 1.0;
        }
    }
    sum / pairs
}

/// The clients of each kind in C7.
const EACH: u32 = 8;
/// C7.
pub(super) fn alike(lab: &Lab) -> anyhow::Result<Evidence> {
    let models: &[&str] = lab.pick(&[REFERENCE, "fork"], &[REFERENCE, "fork", "pool", "async"]);
    let mut evidence = Evidence::default();
    let of = 2 * models.len();
    let mut failed = 0;
    for model in models {
        let mut rates = [Vec::new(), Vec::new()];
        let mut medians = [Vec::new(), Vec::new()];
        for _ in 0..lab.pick(45, 61) {
            let server = lab::serve(model)?;
            let drivers = [Driver::Threads, Driver::Processes];
            let plans = drivers.map(|driver| lab::requests(server.address(), driver, EACH, 0));
            let reports = lab::in_turns(plans)?;
            server.stop()?;
            for (index, total) in reports.iter().enumerate() {
                failed += total.failed() + total.unsent;
                rates[index].push(lab::per_second(total));
                let median = total.latency.quantile(total.lost, 0.5);
                medians[index].push(median.context("too few replies")? as f64);
            }
        }
        let rate = (&rates[1][..], &rates[0][..]);
        let median = (&medians[1][..], &medians[0][..]);
        shown(evidence.ratio("throughput_processes_over_threads_ratio", &model, rate, of));
        shown(evidence.ratio("p50_processes_over_threads_ratio", &model, median, of));
    }
    shown(evidence.exact("failed_requests", &"", failed as f64));
    Ok(evidence)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tau_tells_the_same_order_from_the_reverse_and_from_neither() {
        let close = |order: &[u32], tau: f64| (kendall_tau(order) - tau).abs() < 1e-12;
        assert!(close(&[0, 1, 2, 3, 4], 1.0));
        assert!(close(&[4, 3, 2, 1, 0], -1.0));
        // One pair of ten swapped.
        assert!(close(&[1, 0, 2, 3, 4], 0.8));
    }
}
