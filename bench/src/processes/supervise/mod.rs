//! The supervisor of one server process: starts it, measures it from outside, and ends it together with
//! everything it started. It runs on the server's host.

mod start;

use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, ExitCode, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use crossbeam::channel::{Receiver, RecvTimeoutError, unbounded};
use echobench_clients::clock;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use self::start::{CONNECT_TIMEOUT, forward_requests, start, start_external};
use super::child::{die_with_parent, outlive_parent};
use super::messages::{self, FromSupervisor, ToSupervisor};
use super::ready_address;
use crate::host::cpus;
use crate::host::process_tree::{self, CpuTime};
use crate::scenario::arm::{ADDRESS, PORT};

/// Time for a server to drain, beyond its own limit, before it is killed.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(15);
/// Longest time for the threads of a server to start and touch their stacks, before its memory without
/// connections is read.
const START_SETTLE: Duration = Duration::from_millis(20);
/// Longest time for a server to take in its connections: to fork for each, for example.
const CONNECTIONS_SETTLE: Duration = Duration::from_millis(500);
/// Time between two readings that have to agree in a server that has settled.
const SETTLED_FOR: Duration = Duration::from_millis(3);
/// Wait for an event when nothing is due.
const IDLE_WAIT: Duration = Duration::from_secs(3600);

/// The arguments of a supervisor.
#[derive(Args)]
pub struct SuperviseArgs {
    /// CPUs for the server, such as 0,1; all if not given
    #[arg(long, value_delimiter = ',')]
    cpus: Vec<usize>,

    /// The server is not an echobench: it is given a port, is ready when it accepts connections, and
    /// its output is only of interest if it fails
    #[arg(long)]
    external: bool,

    /// Address on which an external server is to listen; port 0 for a free one
    #[arg(long, default_value = "127.0.0.1:0", requires = "external")]
    listen: SocketAddr,

    /// The server is this executable: the command line has only its arguments
    #[arg(long, conflicts_with = "external")]
    own: bool,

    /// The server's command line; its first line of output is `ready ADDR`
    #[arg(required = true, last = true)]
    command: Vec<String>,
}

/// Supervises until the server has ended.
pub fn run(args: &SuperviseArgs) -> anyhow::Result<ExitCode> {
    if args.external {
        // Children of an external server are not bound to it, so its group has to be killed before this
        // process ends.
        outlive_parent()?;
    } else {
        die_with_parent()?;
    }

    let (send, events) = unbounded();
    let start_server = || {
        if args.external {
            return start_external(&args.command, args.listen, &send);
        }
        let (program, arguments) = if args.own {
            let own = std::env::current_exe().context("cannot find this executable")?;
            (own, &args.command[..])
        } else {
            let (program, arguments) = args.command.split_first().context("no server command")?;
            (program.into(), arguments)
        };
        start(&program, arguments, &send)
    };
    // The supervisor itself goes wherever there is room, so that servers that start together have their CPUs for
    // themselves.
    let child = cpus::while_pinned(&args.cpus, start_server)
        .context("cannot pin the server to its CPUs")??;
    let mut supervisor = Supervisor {
        pid: child.id(),
        child,
        external: args.external,
        stopping: false,
        killed: None,
        counters: None,
        last_output: None,
        switches_at_rest: None,
        watch: None,
    };

    let result = forward_requests(send).and_then(|()| supervisor.handle_events(&events));
    if result.is_err() {
        // The experiment may be gone; in any case nothing must be left running.
        supervisor.kill("its supervisor failed");
        supervisor.child.wait()?;
    }
    result.map(|()| ExitCode::SUCCESS)
}

/// Something that a supervisor acts upon.
enum Event {
    /// A request of the experiment.
    Request(ToSupervisor),
    /// The end of standard input: the experiment is gone.
    Orphaned,
    /// A line of the server's output.
    Output(String),
    /// The external server accepts connections at this address.
    Connected(SocketAddr),
    /// The external server did not accept connections in time.
    Unreachable(SocketAddr),
    /// The server has ended, or is about to.
    Ended,
}

/// Readings of a server that were asked for.
struct Watch {
    cpu_at_ns: Vec<u64>,
    memory_at_ns: u64,
    memory_until_ns: u64,
    cpu: Vec<Option<CpuTime>>,
}

impl Watch {
    /// Instant of the next reading.
    fn due_ns(&self) -> u64 {
        self.cpu_at_ns
            .get(self.cpu.len())
            .copied()
            .unwrap_or(self.memory_at_ns)
    }
}

struct Supervisor {
    child: Child,
    pid: u32,
    external: bool,
    /// Whether the server has been asked to end.
    stopping: bool,
    /// The reason for which it has been killed, if it has.
    killed: Option<String>,
    counters: Option<String>,
    /// The last line that an external server printed.
    last_output: Option<String>,
    /// Context switches up to the time at which the server had taken in its connections.
    switches_at_rest: Option<u64>,
    watch: Option<Watch>,
}

impl Supervisor {
    fn handle_events(&mut self, events: &Receiver<Event>) -> anyhow::Result<()> {
        let mut kill_at: Option<Instant> = None;
        loop {
            match events.recv_timeout(self.wait(kill_at)) {
                Ok(Event::Output(line)) => self.handle_output(&line)?,
                Ok(Event::Connected(address)) => self.report_ready(address)?,
                Ok(Event::Unreachable(address)) => {
                    self.kill(&format!(
                        "no connection to {address} within {CONNECT_TIMEOUT:?}: its command has to make it listen \
                         there, by {ADDRESS} and {PORT}"
                    ));
                }

                Ok(Event::Request(ToSupervisor::Settle)) => {
                    let cpu_ns = || process_tree::cpu(self.pid).ok().map(|cpu| cpu.total_ns());
                    settled(CONNECTIONS_SETTLE, cpu_ns);
                    self.switches_at_rest = context_switches(self.pid);
                    messages::send(&FromSupervisor::Settled)?;
                }
                Ok(Event::Request(ToSupervisor::Watch {
                    cpu_at_ns,
                    memory_at_ns,
                    memory_until_ns,
                })) => {
                    self.watch = Some(Watch {
                        cpu_at_ns,
                        memory_at_ns,
                        memory_until_ns,
                        cpu: Vec::new(),
                    });
                }
                Ok(Event::Request(ToSupervisor::Stop)) => {
                    self.stopping = true;
                    kill_at = Some(Instant::now() + DRAIN_TIMEOUT);
                    self.request_end()?;
                }

                Ok(Event::Ended) => return self.report_end(),
                Ok(Event::Orphaned) | Err(RecvTimeoutError::Disconnected) => {
                    self.kill("the experiment is gone");
                    self.child.wait()?;
                    return Ok(());
                }

                Err(RecvTimeoutError::Timeout) => {
                    if kill_at.is_some_and(|at| Instant::now() >= at) {
                        self.kill(&format!(
                            "it did not end within {DRAIN_TIMEOUT:?} of SIGTERM"
                        ));
                        kill_at = None;
                    }
                    self.take_due_reading()?;
                }
            }
        }
    }

    /// Time until the next reading is due, or the server is to be killed.
    fn wait(&self, kill_at: Option<Instant>) -> Duration {
        let due = self
            .watch
            .as_ref()
            .map(|watch| Duration::from_nanos(watch.due_ns().saturating_sub(clock::now())));
        let kill = kill_at.map(|at| at.saturating_duration_since(Instant::now()));
        due.into_iter().chain(kill).min().unwrap_or(IDLE_WAIT)
    }

    fn server(&self) -> Pid {
        Pid::from_raw(self.pid.cast_signed())
    }

    /// Asks the server to end: an external one as a whole group, since it may be a shell around the
    /// server, or leave its children to themselves.
    fn request_end(&self) -> nix::Result<()> {
        if self.external {
            killpg(self.server(), Signal::SIGTERM)
        } else {
            kill(self.server(), Signal::SIGTERM)
        }
    }

    /// Kills the server and everything it started, which are one process group.
    fn kill(&mut self, reason: &str) {
        self.killed.get_or_insert_with(|| reason.to_owned());
        // Fails only when the group is empty.
        let _ = killpg(self.server(), Signal::SIGKILL);
    }

    fn handle_output(&mut self, line: &str) -> anyhow::Result<()> {
        if self.external {
            let line = line.trim();
            if !line.is_empty() {
                self.last_output = Some(line.to_owned());
            }
            return Ok(());
        }

        if let Some(address) = ready_address(line) {
            self.report_ready(address)?;
        } else if let Some(counters) = line.strip_prefix("counters ") {
            self.counters = Some(counters.to_owned());
        }
        Ok(())
    }

    fn report_ready(&self, address: SocketAddr) -> anyhow::Result<()> {
        let memory = settled(START_SETTLE, || process_tree::memory(self.pid).ok());
        messages::send(&FromSupervisor::Ready {
            address: address.to_string(),
            memory,
        })
    }

    /// Takes the reading that is due, if one is, and reports them all after the last.
    fn take_due_reading(&mut self) -> anyhow::Result<()> {
        let Some(watch) = &mut self.watch else {
            return Ok(());
        };
        if clock::now() < watch.due_ns() {
            return Ok(());
        }
        if watch.cpu.len() < watch.cpu_at_ns.len() {
            let reading = process_tree::cpu(self.pid).ok();
            watch.cpu.push(reading.filter(|cpu| cpu.complete));
            return Ok(());
        }

        let memory = process_tree::memory(self.pid).ok();
        let cpu = std::mem::take(&mut watch.cpu);
        let context_switches = context_switches(self.pid)
            .zip(self.switches_at_rest)
            .and_then(|(after, before)| after.checked_sub(before));
        let in_time = clock::now() < watch.memory_until_ns;
        self.watch = None;

        messages::send(&FromSupervisor::Watched {
            cpu,
            memory,
            context_switches,
            in_time,
        })
    }

    fn report_end(&mut self) -> anyhow::Result<()> {
        let status = self.child.wait()?;
        // Many an external server has no other way to end than the signal itself.
        let ended_well = status.success() || self.external && self.killed.is_none();
        let reason = self.killed.take().unwrap_or_else(|| describe(status));
        let last_output = self.last_output.take();
        let last_output = last_output.map_or_else(String::new, |line| format!(" ({line})"));

        messages::send(&FromSupervisor::Exited {
            clean: self.stopping && ended_well,
            status: reason + &last_output,
            // The server was this process's only child.
            cpu_ns: process_tree::reaped_cpu_ns(),
            counters: self.counters.take(),
        })
    }
}

/// A reading once it stays the same, or the last one after the longest time that is waited for.
fn settled<T: PartialEq>(longest: Duration, read: impl Fn() -> Option<T>) -> Option<T> {
    let began = Instant::now();
    let mut reading = None;

    while began.elapsed() < longest {
        let before = reading;
        thread::sleep(SETTLED_FOR);
        reading = read();
        if reading.is_none() || reading == before {
            break;
        }
    }
    reading
}

/// Context switches of the server's process tree so far, of both kinds.
fn context_switches(pid: u32) -> Option<u64> {
    let switches = process_tree::context_switches(pid).ok()?;
    Some(switches.voluntary + switches.involuntary)
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => match Signal::try_from(signal) {
            Ok(signal) => format!("killed by {signal}"),
            Err(_) => format!("killed by signal {signal}"),
        },
        (None, None) => "ended".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// The n-th reading is that of a server that takes in its last connection after `busy` of them.
    fn readings_of_a_server(busy: u32, longest: Duration) -> u32 {
        let readings = Cell::new(0);
        let last = settled(longest, || {
            readings.set(readings.get() + 1);
            Some(readings.get().min(busy))
        });
        assert_eq!(last, Some(readings.get().min(busy)));
        readings.get()
    }

    #[test]
    fn a_server_at_rest_is_read_until_two_readings_agree() {
        let minute = Duration::from_secs(60);
        assert_eq!(readings_of_a_server(1, minute), 2);
        assert_eq!(readings_of_a_server(5, minute), 6);
    }

    #[test]
    fn a_server_that_never_rests_is_not_awaited_for_ever() {
        assert!(readings_of_a_server(u32::MAX, 4 * SETTLED_FOR) <= 4);
    }

    #[test]
    fn a_server_that_cannot_be_read_is_not_awaited() {
        assert_eq!(settled(Duration::from_secs(60), || None::<u32>), None);
    }
}
