//! One block of an experiment: fresh servers and clients for every arm, all alive at once, and the
//! load alternating between them in slices.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use echobench_clients::{
    Driver, ErrorKind, Percentiles, Plan, Report, Window, WindowReport, clock, quantile,
};
use hdrhistogram::Histogram;

use crate::agent::{Agent, FromDriver, FromSupervisor, Start, ToSupervisor, interrupted};
use crate::measure::{CpuTime, Memory};
use crate::order;
use crate::results::{BlockRow, SCHEMA_VERSION, SliceRow, errors_column};
use crate::scenario::{Effort, Placement, Scenario};
use crate::stats::median;

/// How long processes may take to come up, or to answer beyond what was planned.
const PATIENCE: Duration = Duration::from_secs(30);

/// One section of a table: all arms under the same clients.
#[derive(Clone, Debug)]
pub struct Cell {
    /// The workload.
    pub scenario: Scenario,
    /// Its effort, quick or full.
    pub effort: Effort,
    /// Number of clients.
    pub clients: u32,
    /// How they are run.
    pub driver: Driver,
    /// Where servers and clients run.
    pub placement: Placement,
}

/// What one block measured.
#[derive(Default)]
pub struct BlockOutcome {
    /// A row for each slice.
    pub slices: Vec<SliceRow>,
    /// A row for each arm.
    pub blocks: Vec<BlockRow>,
    /// The latencies of each arm.
    pub latencies: Vec<Histogram<u64>>,
    /// Wrong replies, or counts that differ between client and server.
    pub violations: Vec<String>,
}

/// When everything happens, in nanoseconds after the start of the block.
struct Timetable {
    /// For each slice in order of time: round, position, and arm.
    slots: Vec<(usize, usize, usize)>,
    effort: Effort,
    /// After the last slice, time to read the servers' memory while connections are open.
    memory_ns: u64,
}

impl Timetable {
    fn new(cell: &Cell, random: &mut fastrand::Rng) -> Self {
        let arms = cell.scenario.models.len();
        let rounds = order::balanced_rounds(arms, cell.effort.rounds);
        let mut slots = Vec::new();
        for (round, arms) in order::rounds(arms, rounds, random).into_iter().enumerate() {
            for (position, arm) in arms.into_iter().enumerate() {
                slots.push((round, position, arm));
            }
        }
        let memory_ns = 20_000_000 + 200_000 * u64::from(cell.clients);
        Timetable {
            slots,
            effort: cell.effort,
            memory_ns,
        }
    }

    /// From the begin of a slice to that of the next.
    fn slot_ns(&self) -> u64 {
        self.effort.ramp.ns() + self.effort.slice.ns() + self.effort.gap.ns()
    }

    fn window(&self, slot: usize) -> Window {
        let start_ns = slot as u64 * self.slot_ns();
        let measure_ns = start_ns + self.effort.ramp.ns();
        let end_ns = measure_ns + self.effort.slice.ns();
        Window {
            start_ns,
            measure_ns,
            end_ns,
            requests: None,
        }
    }

    fn slots_of(&self, arm: usize) -> impl Iterator<Item = usize> {
        (0..self.slots.len()).filter(move |&slot| self.slots[slot].2 == arm)
    }

    fn windows_end_ns(&self) -> u64 {
        self.slots.len() as u64 * self.slot_ns()
    }

    fn end_ns(&self) -> u64 {
        self.windows_end_ns() + self.memory_ns
    }
}

/// One arm while its block runs.
struct Arm {
    memory_before: Option<Memory>,
    supervisor: Agent,
    load: Agent,
}

/// What an arm's processes reported.
struct Observed {
    report: Report,
    /// When the windows started, on the monotonic clock.
    start_ns: u64,
    cpu: Vec<Option<CpuTime>>,
    memory_before: Option<Memory>,
    memory: Option<Memory>,
    server_cpu_ns: u64,
    server_requests: Option<u64>,
    /// How the server ended, if not as it should.
    server_failed: Option<String>,
}

/// Which arm of which block a row is about.
struct Place<'a> {
    block: u32,
    arm: usize,
    model: &'a str,
}

impl Cell {
    /// How long a block of this cell takes, without starting and ending its processes.
    #[must_use]
    pub fn block_time(&self) -> Duration {
        let timetable = Timetable::new(self, &mut fastrand::Rng::with_seed(0));
        Duration::from_nanos(timetable.end_ns())
    }

    /// Runs block number `block` (from 1). Fails only when interrupted, or when this process itself
    /// cannot go on; an arm that fails has a row that says so.
    pub fn run_block(&self, block: u32, seed: u64) -> anyhow::Result<BlockOutcome> {
        let mut random = fastrand::Rng::with_seed(seed ^ (u64::from(block) << 32));
        let timetable = Timetable::new(self, &mut random);
        let mut arms = self.start_arms(&timetable, seed)?;
        self.start_load(&timetable, &mut arms);
        let mut outcome = BlockOutcome::default();
        let deadline = Instant::now() + Duration::from_nanos(timetable.end_ns()) + PATIENCE;
        for (index, arm) in arms.into_iter().enumerate() {
            let observed = arm.and_then(|(arm, start_ns)| arm.finish(start_ns, deadline));
            if interrupted() {
                bail!("interrupted");
            }
            let place = Place {
                block,
                arm: index,
                model: &self.scenario.models[index],
            };
            self.add_rows(&mut outcome, &timetable, &place, observed);
        }
        outcome.slices.sort_by_key(|row| row.start_ns);
        Ok(outcome)
    }

    /// Starts the servers, then the clients, until all are connected. The instant is not set yet.
    fn start_arms(
        &self,
        timetable: &Timetable,
        seed: u64,
    ) -> anyhow::Result<Vec<anyhow::Result<(Arm, u64)>>> {
        let (server_cpus, client_cpus) = self.placement.cpus()?;
        let models = &self.scenario.models;
        let spawned: Vec<_> = models
            .iter()
            .map(|model| spawn_pair(model, &server_cpus, &client_cpus))
            .collect();
        let deadline = Instant::now() + PATIENCE;
        let planned: Vec<_> = spawned
            .into_iter()
            .enumerate()
            .map(|(index, pair)| {
                let (supervisor, load) = pair?;
                let (address, memory_before) = server_is_ready(&supervisor, deadline)?;
                let mut arm = Arm {
                    memory_before,
                    supervisor,
                    load,
                };
                arm.load.send(&self.plan(timetable, index, address, seed))?;
                Ok(arm)
            })
            .collect();
        let connected = planned.into_iter().map(|arm: anyhow::Result<Arm>| {
            let arm = arm?;
            match arm.load.receive(deadline)? {
                FromDriver::Ready => Ok((arm, 0)),
                FromDriver::Failed { message } => bail!("{message}"),
                FromDriver::Done { .. } => bail!("load process out of step"),
            }
        });
        Ok(connected.collect())
    }

    fn plan(&self, timetable: &Timetable, arm: usize, target: SocketAddr, seed: u64) -> Plan {
        Plan {
            target,
            driver: self.driver,
            clients: self.clients,
            task_threads: 1,
            workload: self.scenario.workload(seed),
            windows: timetable
                .slots_of(arm)
                .map(|slot| timetable.window(slot))
                .collect(),
            end_ns: Some(timetable.end_ns()),
        }
    }

    /// Tells everybody when it starts: late enough that all have heard it by then.
    fn start_load(&self, timetable: &Timetable, arms: &mut [anyhow::Result<(Arm, u64)>]) {
        let clients = u64::from(self.clients) * arms.len() as u64;
        let start_ns = clock::now() + 20_000_000 + clients * 50_000;
        for (index, arm) in arms.iter_mut().enumerate() {
            let Ok((started, start)) = arm else { continue };
            *start = start_ns;
            let half_gap = self.effort.gap.ns() / 2;
            let first = timetable
                .slots_of(index)
                .next()
                .map(|slot| timetable.window(slot).start_ns);
            let ends = timetable
                .slots_of(index)
                .map(|slot| timetable.window(slot).end_ns + half_gap);
            let watch = ToSupervisor::Watch {
                cpu_at_ns: first
                    .into_iter()
                    .chain(ends)
                    .map(|at| start_ns + at)
                    .collect(),
                memory_at_ns: start_ns + timetable.windows_end_ns(),
                memory_until_ns: start_ns + timetable.end_ns(),
            };
            let told = started
                .supervisor
                .send(&watch)
                .and_then(|()| started.load.send(&Start { start_ns }));
            if let Err(error) = told {
                *arm = Err(error);
            }
        }
    }

    fn add_rows(
        &self,
        outcome: &mut BlockOutcome,
        timetable: &Timetable,
        place: &Place<'_>,
        observed: anyhow::Result<Observed>,
    ) {
        let mut block = self.empty_block(place);
        match observed {
            Ok(observed) => {
                let total = observed.report.total();
                outcome
                    .violations
                    .extend(self.violations(place, &total, &observed));
                for (nth, slot) in timetable.slots_of(place.arm).enumerate() {
                    outcome
                        .slices
                        .push(self.slice_row(timetable, place, &observed, nth, slot));
                }
                let own = outcome.slices.iter().filter(|row| row.model == place.model);
                let throughput: Vec<f64> = own.map(|row| row.throughput_per_second).collect();
                block.throughput_per_second = median(&throughput);
                self.fill_block(&mut block, &total, &observed);
                outcome.latencies.push(total.latency);
            }
            Err(error) => {
                block.status = format!("{error:#}");
                outcome.latencies.push(WindowReport::default().latency);
            }
        }
        outcome.blocks.push(block);
    }

    fn slice_row(
        &self,
        timetable: &Timetable,
        place: &Place<'_>,
        observed: &Observed,
        nth: usize,
        slot: usize,
    ) -> SliceRow {
        let window = timetable.window(slot);
        let seen = &observed.report.windows[nth];
        let measured_ns = window.end_ns - window.measure_ns;
        let (round, position, _) = timetable.slots[slot];
        let number = |index: usize| u32::try_from(index + 1).unwrap_or(u32::MAX);
        let next_slice_ns = observed.start_ns + window.start_ns + timetable.slot_ns();
        let latency = Percentiles::of(&seen.latency, seen.lost);
        let cpu = observed
            .cpu
            .get(nth)
            .copied()
            .flatten()
            .zip(observed.cpu.get(nth + 1).copied().flatten());
        SliceRow {
            schema_version: SCHEMA_VERSION,
            scenario: self.scenario.name.clone(),
            clients: self.clients,
            driver: self.driver,
            placement: self.placement,
            model: place.model.to_owned(),
            block: place.block,
            round: number(round),
            position: number(position),
            start_ns: window.measure_ns,
            measured_ns,
            planned: seen.planned,
            answered: seen.answered,
            failed: seen.failed(),
            errors: errors_column(&seen.errors),
            replies: seen.replies_in_window,
            throughput_per_second: seen.replies_in_window as f64 * 1e9 / measured_ns as f64,
            latency_p50_ns: latency.p50,
            latency_p99_ns: latency.p99,
            connect_p50_ns: quantile(&seen.connect, 0, 0.5),
            cpu_ns: cpu.map(|(before, after)| after.total_ns().saturating_sub(before.total_ns())),
            overrun_ns: seen.last_ns.saturating_sub(next_slice_ns),
        }
    }

    fn empty_block(&self, place: &Place<'_>) -> BlockRow {
        BlockRow {
            schema_version: SCHEMA_VERSION,
            scenario: self.scenario.name.clone(),
            clients: self.clients,
            driver: self.driver,
            placement: self.placement,
            model: place.model.to_owned(),
            block: place.block,
            status: BlockRow::OK.to_owned(),
            ..BlockRow::default()
        }
    }

    fn fill_block(&self, block: &mut BlockRow, total: &WindowReport, observed: &Observed) {
        if let Some(failed) = &observed.server_failed {
            block.status.clone_from(failed);
        }
        block.planned = total.planned;
        block.answered = total.answered;
        block.failed = total.failed();
        block.errors = errors_column(&total.errors);
        block.clients_never_served = observed.report.clients_never_served();
        block.server_requests = observed.server_requests;
        block.server_cpu_ns = Some(observed.server_cpu_ns);
        let latency = Percentiles::of(&total.latency, total.lost);
        block.latency_p50_ns = latency.p50;
        block.latency_p90_ns = latency.p90;
        block.latency_p99_ns = latency.p99;
        block.latency_p999_ns = latency.p999;
        block.latency_max_ns = latency.max;
        block.connect_p50_ns = quantile(&total.connect, 0, 0.5);
        let first = observed.cpu.first().copied().flatten();
        let last = observed.cpu.last().copied().flatten();
        if let (Some(first), Some(last), true) = (first, last, total.answered > 0) {
            let used = last.total_ns().saturating_sub(first.total_ns());
            block.cpu_ns_per_request = Some(used as f64 / total.answered as f64);
        }
        if let Some(memory) = observed.memory {
            block.server_processes = Some(memory.processes);
            block.server_threads = Some(memory.threads);
        }
        if self.scenario.traffic.requests_per_connection.is_none() {
            let anonymous = |memory: Option<Memory>| Some(memory?.pss_anon_bytes? as f64);
            let growth = anonymous(observed.memory).zip(anonymous(observed.memory_before));
            block.memory_bytes_per_connection =
                growth.map(|(with, without)| (with - without) / f64::from(self.clients));
        }
    }

    /// What must never happen, whatever the load.
    fn violations(&self, place: &Place<'_>, total: &WindowReport, seen: &Observed) -> Vec<String> {
        let Place { block, model, .. } = place;
        let name = &self.scenario.name;
        let place = format!(
            "{name}, {} {} clients, {model}, block {block}",
            self.clients, self.driver
        );
        let mut violations = Vec::new();
        for kind in [
            ErrorKind::WrongBytes,
            ErrorKind::ProtocolError,
            ErrorKind::ClientDied,
        ] {
            if let Some(count) = total.errors.get(&kind) {
                let message = seen.report.messages.get(&kind).map_or("", String::as_str);
                violations.push(format!("{place}: {kind}: {count} ({message})"));
            }
        }
        if let Some(counted) = seen.server_requests
            && total.failed() == 0
            && counted != total.answered
        {
            violations.push(format!(
                "{place}: the clients had {} replies, the server counted {counted} requests",
                total.answered
            ));
        }
        violations
    }
}

/// The supervisor with its server, and the load process, of one arm.
fn spawn_pair(
    model: &str,
    server_cpus: &[usize],
    client_cpus: &[usize],
) -> anyhow::Result<(Agent, Agent)> {
    let pinned = |command: &str, cpus: &[usize]| {
        let mut arguments = vec![command.to_owned()];
        if !cpus.is_empty() {
            let list: Vec<_> = cpus.iter().map(usize::to_string).collect();
            arguments.extend(["--cpus".to_owned(), list.join(",")]);
        }
        arguments
    };
    let executable = std::env::current_exe().context("cannot find this executable")?;
    let executable = executable
        .to_str()
        .context("the path of this executable is not UTF-8")?;
    let mut supervise = pinned("supervise", server_cpus);
    supervise.extend(["--", executable, "serve"].map(str::to_owned));
    supervise.extend(model.split_whitespace().map(str::to_owned));
    let supervisor = Agent::spawn(&format!("the server {model}"), &supervise)?;
    let load = Agent::spawn(
        &format!("the clients of {model}"),
        &pinned("drive", client_cpus),
    )?;
    Ok((supervisor, load))
}

fn server_is_ready(
    supervisor: &Agent,
    deadline: Instant,
) -> anyhow::Result<(SocketAddr, Option<Memory>)> {
    match supervisor.receive(deadline)? {
        FromSupervisor::Ready { address, memory } => Ok((address.parse()?, memory)),
        FromSupervisor::Exited { status, .. } => bail!("the server did not start: {status}"),
        FromSupervisor::Watched { .. } => bail!("supervisor out of step"),
    }
}

impl Arm {
    /// Takes in what the processes report and ends them.
    fn finish(mut self, start_ns: u64, deadline: Instant) -> anyhow::Result<Observed> {
        let report = match self.load.receive(deadline)? {
            FromDriver::Done { report } => report,
            FromDriver::Failed { message } => bail!("{message}"),
            FromDriver::Ready => bail!("load process out of step"),
        };
        let mut observed = Observed {
            report,
            start_ns,
            cpu: Vec::new(),
            memory_before: self.memory_before,
            memory: None,
            server_cpu_ns: 0,
            server_requests: None,
            server_failed: None,
        };
        loop {
            match self.supervisor.receive(deadline)? {
                FromSupervisor::Watched {
                    cpu,
                    memory,
                    in_time,
                } => {
                    observed.cpu = cpu;
                    observed.memory = memory.filter(|_| in_time);
                    self.supervisor.send(&ToSupervisor::Stop)?;
                }
                FromSupervisor::Exited {
                    clean,
                    status,
                    cpu_ns,
                    counters,
                } => {
                    observed.server_cpu_ns = cpu_ns;
                    observed.server_requests = counters.as_deref().and_then(requests);
                    observed.server_failed =
                        (!clean).then(|| format!("the server ended: {status}"));
                    return Ok(observed);
                }
                FromSupervisor::Ready { .. } => bail!("supervisor out of step"),
            }
        }
    }
}

/// The requests in a server's line of counters.
fn requests(counters: &str) -> Option<u64> {
    counters
        .split_whitespace()
        .find_map(|field| field.strip_prefix("requests=")?.parse().ok())
}
