//! One block of an experiment: fresh servers and clients for every arm, all alive at once. The load
//! alternates between the arms in slices.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::condition::Condition;
use super::hosts::{Clocks, Hosts};
use super::observation::{Block, BlockOutcome, LoadPart, Observed, Skipped};
use super::schedule::Schedule;
use super::shares::Share;
use crate::host::machine::MachineWatch;
use crate::host::process_tree::Memory;
use crate::host::signals::interrupted;
use crate::processes::clock_match::ClockMatch;
use crate::processes::messages::{FromDriver, FromSupervisor, Start, ToSupervisor};
use crate::processes::site::{HostFailed, Process, RemoteProcess};
use anyhow::bail;
use echobench_clients::{Driver, Part, Plan, Workload, clock};

/// Time for processes to start, or to report after the end of the block.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Time between the start signal and the start of the first slice.
const LEAD_NS: u64 = 6_000_000;
/// Addition for each client that is a thread or process of its own, since many of them delay the processes that are to
/// be told.
const LEAD_PER_CLIENT_NS: u64 = 25_000;

/// The processes of an arm during its block.
struct RunningArm {
    memory_before: Option<Memory>,
    supervisor: Process,
    loads: Vec<LoadProcess>,
}

/// The clients of an arm on one load host.
struct LoadProcess {
    share: Share,
    process: Process,
}

/// An arm that has been measured, whose server was asked to end.
struct EndingArm {
    supervisor: Process,
    _loads: Vec<LoadProcess>,
    /// The end of a server that did not wait to be asked.
    exited: Option<FromSupervisor>,
    observed: Observed,
}

/// A block under way: its condition, its hosts and their clocks.
struct RunningBlock<'a> {
    condition: &'a Condition,
    hosts: &'a Hosts,
    clocks: Clocks,
    schedule: Schedule,
    /// Seed of the traffic, the same for all arms.
    seed: u64,
}

impl Condition {
    /// Runs block number `block` (from 1). Fails only if interrupted, if another host fails, or if this process
    /// itself cannot continue; an arm that fails has a row with the reason.
    pub fn run_block(&self, hosts: &Hosts, block: u32, seed: u64) -> anyhow::Result<BlockOutcome> {
        // The same traffic for all arms of a block, different traffic in each block.
        let mut random = fastrand::Rng::with_seed(seed ^ (u64::from(block) << 32));
        let seed = random.u64(..);
        let clocks = hosts.match_clocks()?;
        let running = RunningBlock {
            condition: self,
            hosts,
            schedule: Schedule::new(self, &mut random, hosts.separation_ns(&clocks)),
            clocks,
            seed,
        };
        running.run(block)
    }
}

impl RunningBlock<'_> {
    fn run(self, block: u32) -> anyhow::Result<BlockOutcome> {
        let length = Duration::from_nanos(self.schedule.end_ns());
        self.hosts.lease(self.ramp_up())?;
        let mut arms = self.start_arms();
        fail_with_host(&arms)?;

        self.hosts.lease(length)?;
        let start_ns = self.start_load(&mut arms);
        let end_ns = start_ns + self.schedule.windows_end_ns();
        self.hosts.watch_machines(&self.clocks, start_ns, end_ns)?;
        let here = MachineWatch::between(start_ns, end_ns, || ended_early(&arms).is_some());
        if let Some(process) = ended_early(&arms) {
            return Err(early_end(process).into());
        }

        // First of all answers after a block that are awaited: each is a line that its host sends at once, so a link
        // that was cut meanwhile shows here, long before the reports would be late.
        let machines = self.hosts.machines_watched(here)?;
        let deadline = Instant::now() + TIMEOUT;
        // All servers are asked to end before the first is awaited, so that they end side by side.
        let ending: Vec<_> = arms
            .into_iter()
            .map(|arm| arm.and_then(|arm| arm.end(&self.clocks, deadline)))
            .collect();
        fail_with_host(&ending)?;
        let observed: Vec<_> = ending
            .into_iter()
            .map(|arm| arm.and_then(|arm| arm.finish(deadline)))
            .collect();
        fail_with_host(&observed)?;
        self.hosts.lease(Duration::ZERO)?;
        let clocks_after = self.hosts.match_clocks()?;
        if interrupted() {
            bail!("interrupted");
        }

        let block = Block {
            condition: self.condition,
            schedule: &self.schedule,
            number: block,
            start_ns,
            hosts: self.hosts,
            machines,
            clock_bound_ns: self.clocks.bound_until_ns(&clocks_after),
            clocks: [&self.clocks, &clocks_after],
        };
        Ok(block.outcome(&observed))
    }

    /// Time over which the clients connect.
    fn ramp_up(&self) -> Duration {
        self.condition.scenario.traffic.ramp_up.0
    }

    /// Starts all servers and load processes, and waits until all clients are connected, and the servers at rest: one
    /// that still forks for its clients would take the CPU of another that is measured.
    fn start_arms(&self) -> Vec<anyhow::Result<RunningArm>> {
        let spawned: Vec<_> = (0..self.condition.arms.len())
            .map(|arm| self.spawn(arm))
            .collect();

        let deadline = Instant::now() + TIMEOUT;
        let planned: Vec<_> = spawned
            .into_iter()
            .enumerate()
            .map(|(index, spawned)| {
                let (supervisor, loads) = spawned?;
                let (address, memory_before) = server_is_ready(&supervisor, deadline)?;
                let mut arm = RunningArm {
                    memory_before,
                    supervisor,
                    loads,
                };
                for (load, plan) in arm.loads.iter_mut().zip(self.plans(index, address)) {
                    load.process.send(&plan)?;
                }
                Ok(arm)
            })
            .collect();

        let deadline = Instant::now() + self.ramp_up() + TIMEOUT;
        let connected = planned.into_iter().map(|arm: anyhow::Result<RunningArm>| {
            let mut arm = arm?;
            for load in &arm.loads {
                match load.process.receive(deadline)? {
                    FromDriver::Ready => {}
                    FromDriver::Failed { message } => bail!("{message}"),
                    FromDriver::Done { .. } => {
                        bail!("the load process reported before its start")
                    }
                }
            }
            // One that has ended takes no request, but has said how its server ended.
            let _ = arm.supervisor.send(&ToSupervisor::Settle);
            Ok(arm)
        });
        let connected: Vec<_> = connected.collect();

        let settled = connected.into_iter().map(|arm| {
            let arm = arm?;
            match arm.supervisor.receive(deadline)? {
                FromSupervisor::Settled => Ok(arm),
                FromSupervisor::Exited { status, .. } => bail!("the server ended: {status}"),
                _ => bail!("the supervisor reported before the start"),
            }
        });
        settled.collect()
    }

    /// Starts the supervisor, with its server, and the load processes of one arm.
    fn spawn(&self, index: usize) -> anyhow::Result<(Process, Vec<LoadProcess>)> {
        let arm = &self.condition.arms[index];
        if let Some(reason) = &arm.skip {
            return Err(Skipped(reason.clone()).into());
        }

        let pinned = |command: &str, cpus: &[usize]| {
            let mut arguments = vec![command.to_owned()];
            if !cpus.is_empty() {
                let list: Vec<_> = cpus.iter().map(usize::to_string).collect();
                arguments.extend(["--cpus".to_owned(), list.join(",")]);
            }
            arguments
        };

        let placement = self.condition.placement;
        let [server_cpus, _] = self.hosts.cpus(placement, 0)?;
        let mut supervise = pinned("supervise", &server_cpus);
        supervise.extend(arm.supervised(self.hosts.listen(index)?)?);
        let server = self.hosts.server();
        let supervisor = server.start(&format!("the server {}", arm.name), &supervise)?;

        let name = format!("the clients of {}", arm.name);
        let sites = self.hosts.loads();
        let mut loads = Vec::new();
        for share in self.hosts.shares(self.condition.clients) {
            let [_, client_cpus] = self.hosts.cpus(placement, share.host)?;
            let process = sites[share.host].start(&name, &pinned("drive", &client_cpus))?;
            loads.push(LoadProcess { share, process });
        }
        Ok((supervisor, loads))
    }

    /// The plans of the load processes of an arm, one for each load host.
    fn plans(&self, arm: usize, target: SocketAddr) -> Vec<Plan> {
        let condition = self.condition;
        let plan = Plan {
            target,
            driver: condition.driver,
            clients: condition.clients,
            part: None,
            source_addresses: Vec::new(),
            task_threads: 1,
            workload: Workload {
                arrivals: condition.arrivals(arm),
                ..condition.scenario.workload(self.seed)
            },
            windows: self
                .schedule
                .slots_of(arm)
                .map(|slot| self.schedule.window(slot))
                .collect(),
            end_ns: Some(self.schedule.end_ns()),
        };

        let of = condition.clients;
        let plan_of = |share: Share| Plan {
            clients: share.clients,
            part: Some(Part {
                first: share.first,
                of,
            }),
            source_addresses: self.hosts.source_addresses(share.host),
            ..plan.clone()
        };
        self.hosts.shares(of).into_iter().map(plan_of).collect()
    }

    /// Clients of all arms that are to be told the start one by one, being threads or processes of their own.
    fn clients_to_wake(&self, arms: usize) -> u64 {
        match self.condition.driver {
            Driver::Tasks => 0,
            Driver::Threads | Driver::Processes => u64::from(self.condition.clients) * arms as u64,
        }
    }

    /// Sends every process the instant of the start, which is late enough for all to be told by then.
    /// An arm that cannot be told has failed.
    fn start_load(&self, arms: &mut [anyhow::Result<RunningArm>]) -> u64 {
        let lead_ns = LEAD_NS
            + self.clients_to_wake(arms.len()) * LEAD_PER_CLIENT_NS
            + 2 * self.hosts.separation_ns(&self.clocks);
        let start_ns = clock::now() + lead_ns;

        for (index, arm) in arms.iter_mut().enumerate() {
            let Ok(started) = arm else { continue };
            let watch = self.watch(index, self.clocks.server().there(start_ns));
            let mut sent = started.supervisor.send(&watch);
            for load in &mut started.loads {
                let start_ns = self.clocks.load(load.share.host).there(start_ns);
                sent = sent.and_then(|()| load.process.send(&Start { start_ns }));
            }
            if let Err(error) = sent {
                *arm = Err(error);
            }
        }

        start_ns
    }

    /// The readings of an arm's server, in a block that starts at this instant of its host's clock.
    fn watch(&self, arm: usize, start_ns: u64) -> ToSupervisor {
        let schedule = &self.schedule;
        let slots = || schedule.slots_of(arm);
        let first = slots().next().map(|slot| schedule.window(slot).start_ns);
        let ends = slots().map(|slot| schedule.reading_ns(slot));

        ToSupervisor::Watch {
            cpu_at_ns: first
                .into_iter()
                .chain(ends)
                .map(|at| start_ns + at)
                .collect(),
            memory_at_ns: start_ns + schedule.windows_end_ns(),
            memory_until_ns: start_ns + schedule.end_ns(),
        }
    }
}

/// Fails if an arm has failed with its host: the block then is no block.
fn fail_with_host<T>(arms: &[anyhow::Result<T>]) -> anyhow::Result<()> {
    let mut errors = arms.iter().filter_map(|arm| arm.as_ref().err());
    match errors.find_map(|error| error.downcast_ref::<HostFailed>()) {
        Some(failed) => Err(failed.clone().into()),
        None => Ok(()),
    }
}

/// A process on another host that ended before its block did: a supervisor ends when it is asked to, a load
/// process after its report, for which the watch of the machine may be late.
fn ended_early(arms: &[anyhow::Result<RunningArm>]) -> Option<&RemoteProcess> {
    let mut arms = arms.iter().flatten();
    arms.find_map(|arm| {
        let supervisor = arm
            .supervisor
            .remote()
            .filter(|process| process.has_ended());
        let mut loads = arm.loads.iter().filter_map(|load| load.process.remote());
        supervisor.or_else(|| loads.find(|load| load.has_ended() && load.has_said_nothing()))
    })
}

/// The failure of its host. A supervisor that ends early says how its server did.
fn early_end(process: &RemoteProcess) -> HostFailed {
    match process.receive(Instant::now()) {
        Ok(FromSupervisor::Exited { status, .. }) => process.ended_early(&status),
        _ => process.ended_early("its process died"),
    }
}

/// Waits until the server of a supervisor is ready; returns its address, and its memory before the first
/// connection.
pub(crate) fn server_is_ready(
    supervisor: &Process,
    deadline: Instant,
) -> anyhow::Result<(SocketAddr, Option<Memory>)> {
    match supervisor.receive(deadline)? {
        FromSupervisor::Ready { address, memory } => Ok((address.parse()?, memory)),
        FromSupervisor::Exited { status, .. } => bail!("the server did not start: {status}"),
        _ => bail!("the supervisor reported before its server was ready"),
    }
}

impl RunningArm {
    /// Receives the readings of the server and the reports of the clients, and asks the server to end.
    fn end(mut self, clocks: &Clocks, deadline: Instant) -> anyhow::Result<EndingArm> {
        let watched = self.supervisor.receive(deadline)?;
        let loads = self.loads.iter();
        let loads: anyhow::Result<Vec<LoadPart>> = loads
            .map(|load| load_part(load, &clocks.load(load.share.host), deadline))
            .collect();

        let mut observed = Observed::of_loads(loads?, self.memory_before);
        let exited = match watched {
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
                None
            }
            early @ FromSupervisor::Exited { .. } => Some(early),
            _ => bail!("the supervisor did not report its readings"),
        };

        Ok(EndingArm {
            supervisor: self.supervisor,
            _loads: self.loads,
            exited,
            observed,
        })
    }
}

/// Receives the report of a load process, on the clock of this host.
fn load_part(
    load: &LoadProcess,
    clock: &ClockMatch,
    deadline: Instant,
) -> anyhow::Result<LoadPart> {
    match load.process.receive(deadline)? {
        FromDriver::Done {
            mut report,
            late_ns,
        } => {
            report.shift_instants(-clock.offset_ns());
            Ok(LoadPart {
                share: load.share,
                report,
                late_ns,
            })
        }
        FromDriver::Failed { message } => bail!("{message}"),
        FromDriver::Ready => bail!("the load process was ready twice"),
    }
}

impl EndingArm {
    /// Receives the end of the server.
    fn finish(mut self, deadline: Instant) -> anyhow::Result<Observed> {
        let end = match self.exited {
            Some(end) => end,
            None => self.supervisor.receive(deadline)?,
        };
        let FromSupervisor::Exited {
            clean,
            status,
            cpu_ns,
            counters,
        } = end
        else {
            bail!("the supervisor reported twice");
        };

        let count = |name| counter(counters.as_deref()?, name);
        self.observed.server_cpu_ns = cpu_ns;
        self.observed.server_requests = count("requests");
        self.observed.server_refused = count("refused");
        self.observed.server_exhausted = count("exhausted");
        self.observed.worker_connections = counters.as_deref().map_or_else(Vec::new, worker_counts);
        self.observed.server_failed = (!clean).then(|| format!("the server ended: {status}"));
        Ok(self.observed)
    }
}

/// A number in a server's line of counters.
fn counter(counters: &str, name: &str) -> Option<u64> {
    field(counters, name)?.parse().ok()
}

/// The connections accepted by each worker, in a server's line of counters.
fn worker_counts(counters: &str) -> Vec<u64> {
    let counts = field(counters, "workers").unwrap_or_default().split(',');
    counts.map_while(|count| count.parse().ok()).collect()
}

/// The text of a field of a server's line of counters.
fn field<'a>(counters: &'a str, name: &str) -> Option<&'a str> {
    let mut fields = counters.split_whitespace();
    fields.find_map(|field| field.strip_prefix(name)?.strip_prefix('='))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_by_name() {
        let line = "accepted=6 active=0 requests=9 workers=3,1,2";
        assert_eq!(counter(line, "requests"), Some(9));
        assert_eq!(counter(line, "request"), None);
        assert_eq!(worker_counts(line), [3, 1, 2]);
        assert!(worker_counts("accepted=6").is_empty());
    }
}
