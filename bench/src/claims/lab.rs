//! The instruments that experiments share: servers, loads, and blocks in balanced random order.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Stdio;

use anyhow::{bail, ensure};
use echobench_clients::{Driver, LoadReport, Plan, Window, WindowReport, Workload};
use echobench_protocol::{HEADER_LEN, Header, Work};

use crate::experiment::order;
use crate::host::signals::interrupted;
use crate::processes::start::{Server, carry_out, carry_out_together};

/// Where experiments are made.
pub struct Lab {
    /// Whether it has to be done in two minutes, not ten.
    pub quick: bool,
    /// Decides the orders of arms and the clients' traffic.
    pub seed: u64,
}

impl Lab {
    /// The one value or the other.
    pub(super) fn pick<T>(&self, quick: T, full: T) -> T {
        if self.quick { quick } else { full }
    }

    /// Measures every arm once in each block, the arms of a block in a balanced random order: ABBA
    /// for two. The values of each arm, in the order of the blocks.
    pub(super) fn blocks<A, T>(
        &self,
        arms: &[A],
        blocks: usize,
        mut measure: impl FnMut(&A) -> anyhow::Result<T>,
    ) -> anyhow::Result<Vec<Vec<T>>> {
        let mut random = fastrand::Rng::with_seed(self.seed);
        let mut values: Vec<Vec<T>> = arms.iter().map(|_| Vec::new()).collect();
        for order in order::rounds(arms.len(), blocks, &mut random) {
            for arm in order {
                if interrupted() {
                    bail!("interrupted");
                }
                values[arm].push(measure(&arms[arm])?);
            }
        }
        Ok(values)
    }
}

/// Starts `serve` with these words.
pub(super) fn serve(words: &str) -> anyhow::Result<Server> {
    let arguments: Vec<&str> = ["serve", "--drain", "200ms"]
        .into_iter()
        .chain(words.split_whitespace())
        .collect();
    Server::start(&arguments, |command| {
        // What it complains about shows in what its clients get.
        command.stderr(Stdio::null());
        Ok(())
    })
}

/// A plan of so many requests, as fast as the clients can.
pub(super) fn requests(target: SocketAddr, driver: Driver, clients: u32, requests: u64) -> Plan {
    let window = Window {
        start_ns: 0,
        measure_ns: 0,
        end_ns: u64::MAX,
        requests: Some(requests),
    };
    Plan {
        target,
        driver,
        clients,
        task_threads: 1,
        workload: Workload::default(),
        windows: vec![window],
        end_ns: None,
    }
}

/// The same with a connection for each request.
pub(super) fn churn(target: SocketAddr, driver: Driver, clients: u32, count: u64) -> Plan {
    let mut plan = requests(target, driver, clients, count);
    plan.workload.requests_per_connection = Some(1);
    plan
}

/// Carries out a plan; every request has to be answered.
pub(super) fn answered(plan: &Plan) -> anyhow::Result<LoadReport> {
    let report = attempted(plan)?;
    let total = report.total();
    let why = report.messages.values().next().map_or("", String::as_str);
    ensure!(
        total.answered == total.planned && total.planned > 0,
        "{} of {} requests were not answered ({why}); is a limit on files or processes too low?",
        total.planned - total.answered,
        total.planned
    );
    Ok(report)
}

/// Carries out a plan, whatever comes of it.
pub(super) fn attempted(plan: &Plan) -> anyhow::Result<LoadReport> {
    Ok(carry_out(plan, &[], |_, _| Ok(()))?.0)
}

/// From the first request to the last reply, in nanoseconds.
pub(super) fn completion_ns(report: &LoadReport) -> f64 {
    let total = report.total();
    total.last_ns.saturating_sub(total.first_ns) as f64
}

/// The length of a slice, and of the ramp and the pause around it.
const SLICE_NS: u64 = 30_000_000;
const RAMP_NS: u64 = 4_000_000;
const PAUSE_NS: u64 = 6_000_000;

/// Carries out two plans in turns, all clients being there all the time: slices in the order ABBA,
/// twice. What came of each.
pub(super) fn in_turns(mut plans: [Plan; 2]) -> anyhow::Result<[WindowReport; 2]> {
    let turns = [[0, 3, 4, 7], [1, 2, 5, 6]];
    for (plan, turns) in plans.iter_mut().zip(turns) {
        plan.windows = turns
            .map(|turn| {
                let start_ns = turn * (RAMP_NS + SLICE_NS + PAUSE_NS);
                Window {
                    start_ns,
                    measure_ns: start_ns + RAMP_NS,
                    end_ns: start_ns + RAMP_NS + SLICE_NS,
                    requests: None,
                }
            })
            .to_vec();
    }
    let [first, second] = carry_out_together(plans.each_ref())?;
    Ok([first.total(), second.total()])
}

/// Replies in a second over the slices of [`in_turns`].
pub(super) fn per_second(total: &WindowReport) -> f64 {
    let measured_ns = 4 * SLICE_NS;
    total.replies_in_window as f64 * 1e9 / measured_ns as f64
}

/// Sends a frame of no payload and gets it back.
pub(super) fn exchange(stream: &mut TcpStream, work: Work) -> anyhow::Result<()> {
    let frame = frame(work);
    stream.write_all(&frame)?;
    let mut reply = [0; HEADER_LEN];
    stream.read_exact(&mut reply)?;
    ensure!(reply == frame, "wrong bytes");
    Ok(())
}

/// A frame of no payload.
pub(super) fn frame(work: Work) -> [u8; HEADER_LEN] {
    Header {
        work,
        payload_len: 0,
        sequence: 0,
    }
    .encode()
}
