//! One block of an experiment: fresh servers and clients for every arm, all alive at once, and the
//! load alternating between them in slices.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::agent::{Agent, FromDriver, FromSupervisor, Start, ToSupervisor, interrupted};
use crate::arm::Arm;
use crate::measure::Memory;
use crate::order;
use crate::results::{BlockRow, Section};
use crate::rows::{Block, BlockOutcome, MachineWatch, Observed};
use crate::scenario::{Effort, Placement, Scenario};
use anyhow::bail;
use echobench_clients::{Arrivals, Driver, Plan, Window, Workload, clock};

/// How long processes may take to come up, or to answer beyond what was planned.
const PATIENCE: Duration = Duration::from_secs(30);

/// One section of a table: all arms under the same clients.
#[derive(Clone, Debug)]
pub struct Cell {
    /// The workload.
    pub scenario: Scenario,
    /// The servers that it meets.
    pub arms: Vec<Arm>,
    /// Its effort, quick or full.
    pub effort: Effort,
    /// Number of clients.
    pub clients: u32,
    /// How they are run.
    pub driver: Driver,
    /// Where servers and clients run.
    pub placement: Placement,
    /// Of a rate sweep, the rate as a percentage of each arm's own peak.
    pub load_percent: Option<u32>,
    /// The peaks of the arms, in requests per second, where they are known.
    pub peaks: Vec<f64>,
}

/// When everything happens, in nanoseconds after the start of the block.
pub(crate) struct Timetable {
    /// For each slice in order of time: round, position, and arm.
    slots: Vec<(usize, usize, usize)>,
    effort: Effort,
    /// Between two slices: to drain, and to read the CPU time of a server of that many processes.
    gap_ns: u64,
    /// After the last slice, time to read the servers' memory while connections are open.
    memory_ns: u64,
}

impl Timetable {
    fn new(cell: &Cell, random: &mut fastrand::Rng) -> Self {
        let arms = cell.arms.iter().enumerate();
        let driven: Vec<usize> = arms
            .filter(|(_, arm)| arm.skip.is_none())
            .map(|(index, _)| index)
            .collect();
        let rounds = order::balanced_rounds(driven.len(), cell.effort.rounds);
        let orders = order::rounds(driven.len(), rounds, random);
        let mut slots = Vec::new();
        for (round, order) in orders.into_iter().enumerate() {
            for (position, nth) in order.into_iter().enumerate() {
                slots.push((round, position, driven[nth]));
            }
        }
        let gap_ns = cell.effort.gap.ns() + 15_000 * u64::from(cell.clients);
        let memory_ns = 20_000_000 + 800_000 * u64::from(cell.clients);
        Timetable {
            slots,
            effort: cell.effort,
            gap_ns,
            memory_ns,
        }
    }

    /// From the begin of a slice to that of the next.
    pub(crate) fn slot_ns(&self) -> u64 {
        self.effort.ramp.ns() + self.effort.slice.ns() + self.gap_ns
    }

    pub(crate) fn window(&self, slot: usize) -> Window {
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

    pub(crate) fn slots_of(&self, arm: usize) -> impl Iterator<Item = usize> {
        (0..self.slots.len()).filter(move |&slot| self.slots[slot].2 == arm)
    }

    /// The round of a slot, and the position in it, both from 0.
    pub(crate) fn place(&self, slot: usize) -> (usize, usize) {
        let (round, position, _) = self.slots[slot];
        (round, position)
    }

    fn windows_end_ns(&self) -> u64 {
        self.slots.len() as u64 * self.slot_ns()
    }

    fn end_ns(&self) -> u64 {
        self.windows_end_ns() + self.memory_ns
    }
}

/// One arm while its block runs.
struct Running {
    memory_before: Option<Memory>,
    supervisor: Agent,
    load: Agent,
}

impl Cell {
    /// The section of the table that it fills.
    #[must_use]
    pub fn section(&self) -> Section {
        Section {
            scenario: self.scenario.name.clone(),
            placement: self.placement,
            driver: self.driver,
            clients: self.clients,
            load_percent: self.load_percent,
        }
    }

    /// The schedule of an arm's requests, if they have one.
    pub(crate) fn arrivals(&self, arm: usize) -> Option<Arrivals> {
        let Some(percent) = self.load_percent else {
            return self.scenario.traffic.arrivals;
        };
        let spacing = self.scenario.sweep.as_ref()?.spacing;
        let per_second = self.peaks.get(arm)? * f64::from(percent) / 100.0;
        Some(Arrivals {
            per_second,
            spacing,
        })
    }

    /// How long a block of this cell takes, without starting and ending its processes.
    #[must_use]
    pub fn block_time(&self) -> Duration {
        let timetable = Timetable::new(self, &mut fastrand::Rng::with_seed(0));
        Duration::from_nanos(timetable.end_ns())
    }

    /// Runs block number `block` (from 1). Fails only when interrupted, or when this process itself
    /// cannot go on; an arm that fails has a row that says so.
    pub fn run_block(&self, block: u32, seed: u64) -> anyhow::Result<BlockOutcome> {
        // All arms of a block get the same traffic, each block another.
        let mut random = fastrand::Rng::with_seed(seed ^ (u64::from(block) << 32));
        let seed = random.u64(..);
        let timetable = Timetable::new(self, &mut random);
        let mut arms = self.start_arms(&timetable, seed)?;
        let start_ns = self.start_load(&timetable, &mut arms);
        let machine = MachineWatch::over(start_ns, start_ns + timetable.windows_end_ns());
        let deadline = Instant::now() + PATIENCE;
        let observed: Vec<anyhow::Result<Observed>> = arms
            .into_iter()
            .map(|arm| arm.and_then(|arm| arm.finish(deadline)))
            .collect();
        if interrupted() {
            bail!("interrupted");
        }
        let block = Block {
            cell: self,
            timetable: &timetable,
            number: block,
            machine,
        };
        Ok(block.outcome(&observed))
    }

    /// Starts the servers, then the clients, until all are connected.
    fn start_arms(
        &self,
        timetable: &Timetable,
        seed: u64,
    ) -> anyhow::Result<Vec<anyhow::Result<Running>>> {
        let (server_cpus, client_cpus) = self.placement.cpus()?;
        let spawned: Vec<_> = self
            .arms
            .iter()
            .map(|arm| spawn_pair(arm, &server_cpus, &client_cpus))
            .collect();
        let deadline = Instant::now() + PATIENCE;
        let planned: Vec<_> = spawned
            .into_iter()
            .enumerate()
            .map(|(index, pair)| {
                let (supervisor, load) = pair?;
                let (address, memory_before) = server_is_ready(&supervisor, deadline)?;
                let mut arm = Running {
                    memory_before,
                    supervisor,
                    load,
                };
                arm.load.send(&self.plan(timetable, index, address, seed))?;
                Ok(arm)
            })
            .collect();
        let connected = planned.into_iter().map(|arm: anyhow::Result<Running>| {
            let arm = arm?;
            match arm.load.receive(deadline)? {
                FromDriver::Ready => Ok(arm),
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
            workload: Workload {
                arrivals: self.arrivals(arm),
                ..self.scenario.workload(seed)
            },
            windows: timetable
                .slots_of(arm)
                .map(|slot| timetable.window(slot))
                .collect(),
            end_ns: Some(timetable.end_ns()),
        }
    }

    /// Tells everybody when it starts: late enough that all have heard it by then.
    fn start_load(&self, timetable: &Timetable, arms: &mut [anyhow::Result<Running>]) -> u64 {
        let clients = u64::from(self.clients) * arms.len() as u64;
        let start_ns = clock::now() + 20_000_000 + clients * 50_000;
        for (index, arm) in arms.iter_mut().enumerate() {
            let Ok(started) = arm else { continue };
            let half_gap = timetable.gap_ns / 2;
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
        start_ns
    }
}

/// The supervisor with its server, and the load process, of one arm.
fn spawn_pair(
    arm: &Arm,
    server_cpus: &[usize],
    client_cpus: &[usize],
) -> anyhow::Result<(Agent, Agent)> {
    if let Some(reason) = &arm.skip {
        bail!("{}{reason}", BlockRow::SKIPPED);
    }
    let pinned = |command: &str, cpus: &[usize]| {
        let mut arguments = vec![command.to_owned()];
        if !cpus.is_empty() {
            let list: Vec<_> = cpus.iter().map(usize::to_string).collect();
            arguments.extend(["--cpus".to_owned(), list.join(",")]);
        }
        arguments
    };
    let mut supervise = pinned("supervise", server_cpus);
    supervise.extend(arm.supervised()?);
    let supervisor = Agent::spawn(&format!("the server {}", arm.name), &supervise)?;
    let load = Agent::spawn(
        &format!("the clients of {}", arm.name),
        &pinned("drive", client_cpus),
    )?;
    Ok((supervisor, load))
}

pub(crate) fn server_is_ready(
    supervisor: &Agent,
    deadline: Instant,
) -> anyhow::Result<(SocketAddr, Option<Memory>)> {
    match supervisor.receive(deadline)? {
        FromSupervisor::Ready { address, memory } => Ok((address.parse()?, memory)),
        FromSupervisor::Exited { status, .. } => bail!("the server did not start: {status}"),
        FromSupervisor::Watched { .. } => bail!("supervisor out of step"),
    }
}

impl Running {
    /// Takes in what the processes report and ends them.
    fn finish(mut self, deadline: Instant) -> anyhow::Result<Observed> {
        let report = match self.load.receive(deadline)? {
            FromDriver::Done { report } => report,
            FromDriver::Failed { message } => bail!("{message}"),
            FromDriver::Ready => bail!("load process out of step"),
        };
        let mut observed = Observed {
            report,
            cpu: Vec::new(),
            memory_before: self.memory_before,
            memory: None,
            context_switches: None,
            server_cpu_ns: 0,
            server_requests: None,
            server_refused: None,
            server_exhausted: None,
            server_failed: None,
        };
        loop {
            match self.supervisor.receive(deadline)? {
                FromSupervisor::Watched {
                    cpu,
                    memory,
                    context_switches,
                    in_time,
                } => {
                    observed.cpu = cpu;
                    observed.memory = memory.filter(|_| in_time);
                    observed.context_switches = context_switches;
                    self.supervisor.send(&ToSupervisor::Stop)?;
                }
                FromSupervisor::Exited {
                    clean,
                    status,
                    cpu_ns,
                    counters,
                } => {
                    observed.server_cpu_ns = cpu_ns;
                    let count = |name| counter(counters.as_deref()?, name);
                    observed.server_requests = count("requests");
                    observed.server_refused = count("refused");
                    observed.server_exhausted = count("exhausted");
                    observed.server_failed =
                        (!clean).then(|| format!("the server ended: {status}"));
                    return Ok(observed);
                }
                FromSupervisor::Ready { .. } => bail!("supervisor out of step"),
            }
        }
    }
}

/// One of the numbers in a server's line of counters.
fn counter(counters: &str, name: &str) -> Option<u64> {
    let mut fields = counters.split_whitespace();
    fields.find_map(|field| field.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
}
