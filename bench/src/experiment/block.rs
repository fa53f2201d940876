//! One block of an experiment: fresh servers and clients for every arm, all alive at once. The load
//! alternates between the arms in slices.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::condition::Condition;
use super::schedule::Schedule;
use crate::experiment::observation::{Block, BlockOutcome, Observed, Skipped};
use crate::host::machine::MachineWatch;
use crate::host::process_tree::Memory;
use crate::host::signals::interrupted;
use crate::processes::child::ChildProcess;
use crate::processes::messages::{FromDriver, FromSupervisor, Start, ToSupervisor};
use crate::scenario::arm::Arm;
use anyhow::bail;
use echobench_clients::{Plan, Workload, clock};

/// Time for processes to start, or to report after the end of the block.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Time between the start signal and the start of the first slice.
const LEAD_NS: u64 = 6_000_000;
/// The part of it that each client adds, since many clients delay the processes that are to be told.
const LEAD_PER_CLIENT_NS: u64 = 25_000;

/// The processes of an arm during its block.
struct RunningArm {
    memory_before: Option<Memory>,
    supervisor: ChildProcess,
    load: ChildProcess,
}

/// An arm that has been measured, whose server was asked to end.
struct EndingArm {
    supervisor: ChildProcess,
    _load: ChildProcess,
    /// The end of a server that did not wait to be asked.
    exited: Option<FromSupervisor>,
    observed: Observed,
}

impl Condition {
    /// Runs block number `block` (from 1). Fails only if interrupted, or if this process itself cannot
    /// continue; an arm that fails has a row with the reason.
    pub fn run_block(&self, block: u32, seed: u64) -> anyhow::Result<BlockOutcome> {
        // The same traffic for all arms of a block, different traffic in each block.
        let mut random = fastrand::Rng::with_seed(seed ^ (u64::from(block) << 32));
        let seed = random.u64(..);
        let schedule = Schedule::new(self, &mut random);

        let mut arms = self.start_arms(&schedule, seed)?;
        let start_ns = self.start_load(&schedule, &mut arms);
        let machine = MachineWatch::between(start_ns, start_ns + schedule.windows_end_ns());

        let deadline = Instant::now() + TIMEOUT;
        // All servers are asked to end before the first is awaited, so that they end side by side.
        let ending: Vec<_> = arms
            .into_iter()
            .map(|arm| arm.and_then(|arm| arm.end(deadline)))
            .collect();
        let observed: Vec<_> = ending
            .into_iter()
            .map(|arm| arm.and_then(|arm| arm.finish(deadline)))
            .collect();
        if interrupted() {
            bail!("interrupted");
        }

        let block = Block {
            condition: self,
            schedule: &schedule,
            number: block,
            machine,
        };

        Ok(block.outcome(&observed))
    }

    /// Starts all servers and load processes, and waits until all clients are connected.
    fn start_arms(
        &self,
        schedule: &Schedule,
        seed: u64,
    ) -> anyhow::Result<Vec<anyhow::Result<RunningArm>>> {
        let (server_cpus, client_cpus) = self.placement.cpus()?;
        let spawned: Vec<_> = self
            .arms
            .iter()
            .map(|arm| spawn_pair(arm, &server_cpus, &client_cpus))
            .collect();

        let deadline = Instant::now() + TIMEOUT;
        let planned: Vec<_> = spawned
            .into_iter()
            .enumerate()
            .map(|(index, pair)| {
                let (supervisor, load) = pair?;
                let (address, memory_before) = server_is_ready(&supervisor, deadline)?;
                let mut arm = RunningArm {
                    memory_before,
                    supervisor,
                    load,
                };
                arm.load.send(&self.plan(schedule, index, address, seed))?;
                Ok(arm)
            })
            .collect();

        let connected = planned.into_iter().map(|arm: anyhow::Result<RunningArm>| {
            let arm = arm?;
            match arm.load.receive(deadline)? {
                FromDriver::Ready => Ok(arm),
                FromDriver::Failed { message } => bail!("{message}"),
                FromDriver::Done { .. } => bail!("the load process reported before its start"),
            }
        });
        Ok(connected.collect())
    }

    fn plan(&self, schedule: &Schedule, arm: usize, target: SocketAddr, seed: u64) -> Plan {
        Plan {
            target,
            driver: self.driver,
            clients: self.clients,
            task_threads: 1,
            workload: Workload {
                arrivals: self.arrivals(arm),
                ..self.scenario.workload(seed)
            },
            windows: schedule
                .slots_of(arm)
                .map(|slot| schedule.window(slot))
                .collect(),
            end_ns: Some(schedule.end_ns()),
        }
    }

    /// Sends every process the instant of the start, which is late enough for all to be told by then.
    /// An arm that cannot be told has failed.
    fn start_load(&self, schedule: &Schedule, arms: &mut [anyhow::Result<RunningArm>]) -> u64 {
        let clients = u64::from(self.clients) * arms.len() as u64;
        let start_ns = clock::now() + LEAD_NS + clients * LEAD_PER_CLIENT_NS;

        for (index, arm) in arms.iter_mut().enumerate() {
            let Ok(started) = arm else { continue };
            let first = schedule
                .slots_of(index)
                .next()
                .map(|slot| schedule.window(slot).start_ns);
            let ends = schedule
                .slots_of(index)
                .map(|slot| schedule.reading_ns(slot));
            let watch = ToSupervisor::Watch {
                cpu_at_ns: first
                    .into_iter()
                    .chain(ends)
                    .map(|at| start_ns + at)
                    .collect(),
                memory_at_ns: start_ns + schedule.windows_end_ns(),
                memory_until_ns: start_ns + schedule.end_ns(),
            };

            let sent = started
                .supervisor
                .send(&watch)
                .and_then(|()| started.load.send(&Start { start_ns }));
            if let Err(error) = sent {
                *arm = Err(error);
            }
        }

        start_ns
    }
}

/// Starts the supervisor, with its server, and the load process of one arm.
fn spawn_pair(
    arm: &Arm,
    server_cpus: &[usize],
    client_cpus: &[usize],
) -> anyhow::Result<(ChildProcess, ChildProcess)> {
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

    let mut supervise = pinned("supervise", server_cpus);
    supervise.extend(arm.supervised()?);
    let supervisor = ChildProcess::spawn(&format!("the server {}", arm.name), &supervise)?;
    let load = ChildProcess::spawn(
        &format!("the clients of {}", arm.name),
        &pinned("drive", client_cpus),
    )?;
    Ok((supervisor, load))
}

/// Waits until the server of a supervisor is ready; returns its address, and its memory before the first
/// connection.
pub(crate) fn server_is_ready(
    supervisor: &ChildProcess,
    deadline: Instant,
) -> anyhow::Result<(SocketAddr, Option<Memory>)> {
    match supervisor.receive(deadline)? {
        FromSupervisor::Ready { address, memory } => Ok((address.parse()?, memory)),
        FromSupervisor::Exited { status, .. } => bail!("the server did not start: {status}"),
        FromSupervisor::Watched { .. } => {
            bail!("the supervisor reported before its server was ready")
        }
    }
}

impl RunningArm {
    /// Receives the readings of the server and the report of the clients, and asks the server to end.
    fn end(mut self, deadline: Instant) -> anyhow::Result<EndingArm> {
        let watched = self.supervisor.receive(deadline)?;
        let report = match self.load.receive(deadline)? {
            FromDriver::Done { report } => report,
            FromDriver::Failed { message } => bail!("{message}"),
            FromDriver::Ready => bail!("the load process was ready twice"),
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
            worker_connections: Vec::new(),
            server_failed: None,
        };
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
            FromSupervisor::Ready { .. } => bail!("the supervisor was ready twice"),
        };

        Ok(EndingArm {
            supervisor: self.supervisor,
            _load: self.load,
            exited,
            observed,
        })
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
