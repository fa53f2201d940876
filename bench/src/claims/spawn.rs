//! What it costs to start threads and processes, bare and in a server: C1 and C13.

use std::time::Duration;

use echobench_clients::{Driver, WorkMix};

use super::evidence::{Evidence, shown};
use super::lab::{self, Lab};
use crate::processes::probe::{self, Probe, ProbeArgs};
use crate::results::summary::REFERENCE;
use crate::scenario::Placement;
use crate::stats::fit_line;

/// Resident memory of the process that starts others.
const RESIDENT_MIB: [u32; 4] = [0, 64, 256, 1024];
/// What is started: `thread` first, the reference.
const STARTS: [&str; 3] = [REFERENCE, "fork", "spawn"];
/// How long one block times an operation, about.
const BLOCK: Duration = Duration::from_millis(12);

/// C1.
pub(super) fn cheaper_to_start(lab: &Lab) -> anyhow::Result<Evidence> {
    let mut evidence = Evidence::default();
    // To fill much memory takes most of the time; what is taken once is shown, not judged.
    let blocks = lab.pick([9, 9, 1, 1], [15; RESIDENT_MIB.len()]);
    let judged = blocks.iter().filter(|&&blocks| blocks > 1).count();
    let mut curves: Vec<Vec<(f64, f64)>> = vec![Vec::new(); STARTS.len()];
    let of = judged * (STARTS.len() - 1);
    for (mib, blocks) in RESIDENT_MIB.into_iter().zip(blocks) {
        let at = format!("{mib} MiB");
        let values = lab.blocks(&STARTS, blocks, |name| start_ns(name, mib))?;
        for (index, name) in STARTS.iter().enumerate() {
            let figure = evidence.median(&format!("{name}_start_ns"), &&at, &values[index], of);
            let points = figure.value.map(|ns| (f64::from(mib), ns));
            curves[index].extend(points);
        }
        for (index, name) in STARTS.iter().enumerate().skip(1) {
            let metric = format!("{name}_over_thread_ratio");
            let figure = evidence.ratio(&metric, &&at, (&values[index], &values[0]), of);
            figure.headline = mib == RESIDENT_MIB[0] || mib == RESIDENT_MIB[3];
        }
    }
    if let Some(line) = fit_line(&curves[1]) {
        let growth = evidence.exact("fork_growth_ns_per_mib", &"", line.slope);
        shown(growth);
        shown(evidence.exact("fork_growth_r_squared", &"", line.r_squared));
    }
    connections(lab, &mut evidence)?;
    Ok(evidence)
}

/// The time of one start and end in a fresh process with so much memory.
fn start_ns(name: &str, resident_mib: u32) -> anyhow::Result<f64> {
    let operation = probe::find(name)?;
    let mut probe = Probe::start(&ProbeArgs {
        resident_mib,
        // To be woken on another CPU costs more than to be started, and a matter of luck.
        placement: Placement::Same,
        ..ProbeArgs::new(operation)
    })?;
    // The first ones also load what the others find.
    let few = 3;
    let one = probe.time(few)?.as_nanos() / u128::from(few);
    let count = (BLOCK.as_nanos() / one.max(1)).clamp(3, 1000);
    let count = u64::try_from(count)?;
    Ok(probe.time(count)?.as_nanos() as f64 / count as f64)
}

/// What it means for a server: connections per second, a new one for every request.
fn connections(lab: &Lab, evidence: &mut Evidence) -> anyhow::Result<()> {
    const CLIENTS: u32 = 16;
    let mut rates = [Vec::new(), Vec::new()];
    for _ in 0..lab.pick(12, 21) {
        let servers = [lab::serve(REFERENCE)?, lab::serve("fork")?];
        let plans = servers
            .each_ref()
            .map(|server| lab::churn(server.address(), Driver::Threads, CLIENTS, 0));
        for (rates, total) in rates.iter_mut().zip(lab::in_turns(plans)?) {
            rates.push(lab::per_second(&total));
        }
        for server in servers {
            server.stop()?;
        }
    }
    let at = format!("{CLIENTS} clients");
    evidence.median("thread_connections_per_second", &&at, &rates[0], 1);
    evidence.median("fork_connections_per_second", &&at, &rates[1], 1);
    let ratio = (&rates[1][..], &rates[0][..]);
    shown(evidence.ratio("fork_over_thread_connections_ratio", &&at, ratio, 1));
    Ok(())
}

/// CPU time of one job, and how many there are of it, in the short form and in the long one.
const JOBS: [(&str, u64, u64); 5] = [
    ("10us", 240, 480),
    ("100us", 240, 480),
    ("1ms", 64, 160),
    ("10ms", 16, 32),
    ("100ms", 0, 16),
];
/// Jobs under way at a time.
const AT_A_TIME: u32 = 8;

/// C13.
pub(super) fn short_jobs(lab: &Lab) -> anyhow::Result<Evidence> {
    let mut evidence = Evidence::default();
    let lengths: Vec<_> = JOBS
        .iter()
        .map(|&(length, quick, full)| (length, lab.pick(quick, full)))
        .filter(|&(_, jobs)| jobs > 0)
        .collect();
    let blocks = lab.pick(12, 15);
    for (index, &(length, jobs)) in lengths.iter().enumerate() {
        let work: WorkMix = format!("spin:{length}").parse()?;
        let values = lab.blocks(&[REFERENCE, "fork"], blocks, |model| {
            let server = lab::serve(model)?;
            let mut plan = lab::churn(server.address(), Driver::Threads, AT_A_TIME, jobs);
            plan.workload.work = work.clone();
            let report = lab::answered(&plan)?;
            server.stop()?;
            Ok(lab::completion_ns(&report))
        })?;
        let at = length.replace("us", " µs").replace("ms", " ms");
        let of = lengths.len();
        evidence.median("thread_completion_ns", &&at, &values[0], of);
        evidence.median("fork_completion_ns", &&at, &values[1], of);
        let ratio = (&values[1][..], &values[0][..]);
        let figure = evidence.ratio("fork_over_thread_ratio", &&at, ratio, of);
        figure.headline = index == 0 || index + 1 == lengths.len();
    }
    Ok(evidence)
}
