//! Instruments that experiments share: servers, loads, and blocks in balanced random order.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Stdio;

use anyhow::ensure;
use echobench_clients::{Driver, LoadReport, Plan, Window, WindowReport, Workload};
use echobench_protocol::{HEADER_LEN, Header, Work};

use crate::experiment::order;
use crate::host::signals::interrupted;
use crate::processes::start::{Server, carry_out, carry_out_together};

/// Effort and randomness of all experiments of a run.
pub(super) struct Lab {
    /// Two minutes for all claims instead of ten.
    pub(super) quick: bool,
    /// Seed of the orders of arms and of the clients' traffic.
    pub(super) seed: u64,
}

impl Lab {
    /// One of two values, by the effort.
    pub(super) fn pick<T>(&self, quick: T, full: T) -> T {
        if self.quick { quick } else { full }
    }

    /// Measures every arm once per block, the arms of a block in a balanced random order (ABBA for
    /// two). Returns the values of each arm, in the order of the blocks.
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
                fail_if_interrupted()?;
                values[arm].push(measure(&arms[arm])?);
            }
        }
        Ok(values)
    }
}

/// Ends an experiment early once the process has been interrupted.
pub(super) fn fail_if_interrupted() -> anyhow::Result<()> {
    ensure!(!interrupted(), "interrupted");
    Ok(())
}

/// Starts `serve` with these arguments.
pub(super) fn serve(arguments: &str) -> anyhow::Result<Server> {
    let arguments: Vec<&str> = ["serve", "--drain", "200ms"]
        .into_iter()
        .chain(arguments.split_whitespace())
        .collect();

    Server::start(&arguments, |command| {
        // A server that fails shows in the replies of its clients.
        command.stderr(Stdio::null());
        Ok(())
    })
}

/// Plan of a fixed number of requests, sent as fast as the clients can.
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
        part: None,
        source_addresses: Vec::new(),
        task_threads: 1,
        workload: Workload::default(),
        windows: vec![window],
        end_ns: None,
    }
}

/// The same plan with a new connection for each request.
pub(super) fn churn(target: SocketAddr, driver: Driver, clients: u32, count: u64) -> Plan {
    let mut plan = requests(target, driver, clients, count);
    plan.workload.requests_per_connection = Some(1);
    plan
}

/// Runs a plan, and fails unless every request is answered.
pub(super) fn run_answered(plan: &Plan) -> anyhow::Result<LoadReport> {
    let report = run(plan)?;
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

/// Runs a plan, whether its requests are answered or not.
pub(super) fn run(plan: &Plan) -> anyhow::Result<LoadReport> {
    Ok(carry_out(plan, &[], |_, _| Ok(()))?.0)
}

/// Time from the first request to the last reply, in nanoseconds.
pub(super) fn completion_ns(report: &LoadReport) -> f64 {
    let total = report.total();
    total.last_ns.saturating_sub(total.first_ns) as f64
}

/// Length of a slice: short enough that a slow drift of the machine meets both arms alike.
pub(super) const SLICE_NS: u64 = 30_000_000;
/// Load before a slice is measured.
const RAMP_NS: u64 = 4_000_000;
/// Time without load after a slice.
pub(super) const PAUSE_NS: u64 = 6_000_000;

/// Runs two plans alternately with all clients connected throughout: slices in the order ABBA,
/// twice. Returns the totals of each plan.
pub(super) fn run_alternating(mut plans: [Plan; 2]) -> anyhow::Result<[WindowReport; 2]> {
    let slots = [[0, 3, 4, 7], [1, 2, 5, 6]];
    for (plan, slots) in plans.iter_mut().zip(slots) {
        let window = |slot| {
            let start_ns = slot * (RAMP_NS + SLICE_NS + PAUSE_NS);
            let measure_ns = start_ns + RAMP_NS;
            Window {
                start_ns,
                measure_ns,
                end_ns: measure_ns + SLICE_NS,
                requests: None,
            }
        };
        plan.windows = slots.map(window).to_vec();
    }

    // Both loads stay connected, so a slice does not begin with the cost of connecting.
    let [first, second] = carry_out_together(plans.each_ref())?;
    Ok([first.total(), second.total()])
}

/// Replies per second over the slices of [`run_alternating`].
pub(super) fn per_second(total: &WindowReport) -> f64 {
    let measured_ns = 4 * SLICE_NS;
    total.replies_in_window as f64 * 1e9 / measured_ns as f64
}

/// Sends a frame without payload and reads it back.
pub(super) fn exchange(stream: &mut TcpStream, work: Work) -> anyhow::Result<()> {
    let frame = frame(work);
    stream.write_all(&frame)?;

    let mut reply = [0; HEADER_LEN];
    stream.read_exact(&mut reply)?;
    ensure!(reply == frame, "wrong bytes");
    Ok(())
}

/// A frame without payload.
pub(super) fn frame(work: Work) -> [u8; HEADER_LEN] {
    Header {
        work,
        payload_len: 0,
        sequence: 0,
    }
    .encode()
}
