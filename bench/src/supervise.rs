//! The supervisor of one server process: starts it on its host, measures it from outside, and ends
//! it, with everything it started.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use echobench_clients::clock;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::time::TimeValLike;
use nix::unistd::Pid;

use crate::agent::{FromSupervisor, ToSupervisor, bind, die_with_parent, say};
use crate::measure::{self, CpuTime};

/// How long a server may take to drain, beyond its own limit, before it is killed.
const PATIENCE: Duration = Duration::from_secs(15);

/// How long the threads of a server may take to come up and touch their stacks, before its memory
/// without connections is read.
const SETTLE: Duration = Duration::from_millis(20);

/// The arguments of a supervisor.
#[derive(Args)]
pub struct SuperviseArgs {
    /// CPUs for the server, such as 0,1; all if not given
    #[arg(long, value_delimiter = ',')]
    cpus: Vec<usize>,

    /// The server's command line; its first line of output is `ready ADDR`
    #[arg(required = true, last = true)]
    command: Vec<String>,
}

enum Event {
    Asked(ToSupervisor),
    /// Nobody will ask any more.
    Orphaned,
    Said(String),
    /// The server's output has ended, and so has the server or soon will.
    Silent,
}

/// Supervises until the server has ended.
pub fn run(args: &SuperviseArgs) -> anyhow::Result<ExitCode> {
    die_with_parent()?;
    if !args.cpus.is_empty() {
        measure::pin_current_process(&args.cpus).context("cannot pin the server to its CPUs")?;
    }
    let (program, arguments) = args.command.split_first().context("no server command")?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let mut child = bind(&mut command)
        .spawn()
        .with_context(|| format!("cannot start '{program}'"))?;
    let output = child.stdout.take().context("standard output is piped")?;
    let (send, events) = unbounded();
    forward_server(output, send.clone());
    forward_requests(send);
    let mut supervisor = Supervisor {
        pid: child.id(),
        child,
        stopping: false,
        counters: None,
        watch: None,
    };
    supervisor.serve(&events)?;
    Ok(ExitCode::SUCCESS)
}

fn forward_server(output: impl std::io::Read + Send + 'static, send: Sender<Event>) {
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            // Fails only when this process is about to end.
            let _ = send.send(Event::Said(line));
        }
        let _ = send.send(Event::Silent);
    });
}

fn forward_requests(send: Sender<Event>) {
    thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            match serde_json::from_str(&line) {
                Ok(request) => {
                    let _ = send.send(Event::Asked(request));
                }
                Err(_) => break,
            }
        }
        let _ = send.send(Event::Orphaned);
    });
}

struct Watch {
    cpu_at_ns: Vec<u64>,
    memory_at_ns: u64,
    memory_until_ns: u64,
    switches_before: Option<u64>,
    cpu: Vec<Option<CpuTime>>,
}

impl Watch {
    /// When the next reading is due.
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
    stopping: bool,
    counters: Option<String>,
    watch: Option<Watch>,
}

impl Supervisor {
    fn serve(&mut self, events: &Receiver<Event>) -> anyhow::Result<()> {
        let mut give_up: Option<Instant> = None;
        loop {
            let due = self
                .watch
                .as_ref()
                .map(|watch| Duration::from_nanos(watch.due_ns().saturating_sub(clock::now())));
            let patience = give_up.map(|at| at.saturating_duration_since(Instant::now()));
            let wait = due
                .into_iter()
                .chain(patience)
                .min()
                .unwrap_or(Duration::from_secs(3600));
            match events.recv_timeout(wait) {
                Ok(Event::Said(line)) => self.hear(&line)?,
                Ok(Event::Asked(ToSupervisor::Watch {
                    cpu_at_ns,
                    memory_at_ns,
                    memory_until_ns,
                })) => {
                    self.watch = Some(Watch {
                        cpu_at_ns,
                        memory_at_ns,
                        memory_until_ns,
                        switches_before: switches(self.pid),
                        cpu: Vec::new(),
                    });
                }
                Ok(Event::Asked(ToSupervisor::Stop)) => {
                    self.stopping = true;
                    give_up = Some(Instant::now() + PATIENCE);
                    kill(self.server(), Signal::SIGTERM)?;
                }
                Ok(Event::Silent) => return self.farewell(),
                Ok(Event::Orphaned) | Err(RecvTimeoutError::Disconnected) => {
                    self.kill();
                    self.child.wait()?;
                    return Ok(());
                }
                Err(RecvTimeoutError::Timeout) => {
                    if give_up.is_some_and(|at| Instant::now() >= at) {
                        self.kill();
                        give_up = None;
                    }
                    self.look()?;
                }
            }
        }
    }

    fn server(&self) -> Pid {
        Pid::from_raw(self.pid.cast_signed())
    }

    /// The server, and whatever it started, is a process group of its own.
    fn kill(&self) {
        // Fails only when nobody is left.
        let _ = killpg(self.server(), Signal::SIGKILL);
    }

    fn hear(&mut self, line: &str) -> anyhow::Result<()> {
        if let Some(address) = line.strip_prefix("ready ") {
            let address: SocketAddr = address
                .parse()
                .with_context(|| format!("the server said '{line}', which has no address"))?;
            thread::sleep(SETTLE);
            let memory = measure::memory(self.pid).ok();
            say(&FromSupervisor::Ready {
                address: address.to_string(),
                memory,
            })?;
        } else if let Some(counters) = line.strip_prefix("counters ") {
            self.counters = Some(counters.to_owned());
        }
        Ok(())
    }

    /// Takes the reading that is due, if one is.
    fn look(&mut self) -> anyhow::Result<()> {
        let Some(watch) = &mut self.watch else {
            return Ok(());
        };
        if clock::now() < watch.due_ns() {
            return Ok(());
        }
        if watch.cpu.len() < watch.cpu_at_ns.len() {
            let reading = measure::cpu(self.pid).ok();
            watch.cpu.push(reading.filter(|cpu| cpu.complete));
            return Ok(());
        }
        let memory = measure::memory(self.pid).ok();
        let cpu = std::mem::take(&mut watch.cpu);
        let context_switches = switches(self.pid)
            .zip(watch.switches_before)
            .and_then(|(after, before)| after.checked_sub(before));
        let in_time = clock::now() < watch.memory_until_ns;
        self.watch = None;
        say(&FromSupervisor::Watched {
            cpu,
            memory,
            context_switches,
            in_time,
        })
    }

    fn farewell(&mut self) -> anyhow::Result<()> {
        let status = self.child.wait()?;
        // The server was this process's only child: what it and its children used is all there is.
        let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
        let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
        say(&FromSupervisor::Exited {
            clean: self.stopping && status.success(),
            status: describe(status),
            cpu_ns: micros.unsigned_abs() * 1000,
            counters: self.counters.take(),
        })
    }
}

/// Context switches of the server's tree so far, of both kinds.
fn switches(pid: u32) -> Option<u64> {
    let switches = measure::context_switches(pid).ok()?;
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
