//! The supervisor of one server process: starts it on its host, measures it from outside, and ends
//! it, with everything it started.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use echobench_clients::clock;
use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal, kill, killpg};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

use crate::host::cpus;
use crate::host::process_tree::{self, CpuTime};
use crate::processes::child::{bind_lifetime, die_with_parent, outlive_parent};
use crate::processes::messages::{self, FromSupervisor, ToSupervisor, send};
use crate::processes::ready_address;
use crate::scenario::arm::PORT;

/// How long a server may take to drain, beyond its own limit, before it is killed.
const PATIENCE: Duration = Duration::from_secs(15);

/// How long an external server may take until it can be connected to.
const READY: Duration = Duration::from_secs(10);

/// How long the last output of an external server may take to arrive after its end.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// How long the threads of a server may take to come up and touch their stacks, before its memory
/// without connections is read.
const SETTLE: Duration = Duration::from_millis(20);

/// The arguments of a supervisor.
#[derive(Args)]
pub struct SuperviseArgs {
    /// CPUs for the server, such as 0,1; all if not given
    #[arg(long, value_delimiter = ',')]
    cpus: Vec<usize>,

    /// The server is not an echobench: it is given a port, is ready when it can be connected to, and
    /// what it writes is only of interest if it fails
    #[arg(long)]
    external: bool,

    /// The server's command line; its first line of output is `ready ADDR`
    #[arg(required = true, last = true)]
    command: Vec<String>,
}

enum Event {
    Asked(ToSupervisor),
    /// Nobody will ask any more.
    Orphaned,
    Said(String),
    /// The external server can be connected to.
    Reached(SocketAddr),
    /// It cannot, after [`READY`].
    OutOfReach(SocketAddr),
    /// The server has ended, or soon will have.
    Silent,
}

/// Supervises until the server has ended.
pub fn run(args: &SuperviseArgs) -> anyhow::Result<ExitCode> {
    if args.external {
        // Its children are not bound to it, so its group is ended before this process.
        outlive_parent()?;
    } else {
        die_with_parent()?;
    }
    if !args.cpus.is_empty() {
        cpus::pin_current_process(&args.cpus).context("cannot pin the server to its CPUs")?;
    }
    let (send, events) = unbounded();
    let child = if args.external {
        start_external(&args.command, &send)?
    } else {
        start(&args.command, &send)?
    };
    forward_requests(send);
    let mut supervisor = Supervisor {
        pid: child.id(),
        child,
        external: args.external,
        stopping: false,
        killed: false,
        counters: None,
        last_words: None,
        watch: None,
    };
    let served = supervisor.serve(&events);
    if served.is_err() {
        // Perhaps nobody listens any more. Whatever it is, it must not leave anything behind.
        supervisor.kill();
        supervisor.child.wait()?;
    }
    served.map(|()| ExitCode::SUCCESS)
}

fn start(words: &[String], send: &Sender<Event>) -> anyhow::Result<Child> {
    let (program, arguments) = words.split_first().context("no server command")?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let mut child = bind_lifetime(&mut command)
        .spawn()
        .with_context(|| format!("cannot start '{program}'"))?;
    let output = child.stdout.take().context("standard output is piped")?;
    let send = send.clone();
    thread::spawn(move || {
        forward_lines(output, &send);
        let _ = send.send(Event::Silent);
    });
    Ok(child)
}

/// The same for a server that is told where to listen, and does not say when it does.
fn start_external(words: &[String], send: &Sender<Event>) -> anyhow::Result<Child> {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|free| free.local_addr());
    let address = free.context("no port is free for the server")?;
    let port = address.port().to_string();
    let words: Vec<_> = words.iter().map(|word| word.replace(PORT, &port)).collect();
    let (program, arguments) = words.split_first().context("no server command")?;
    let (output, words) = std::io::pipe()?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(words.try_clone()?)
        .stderr(words);
    // Signals that an experiment blocks for itself would be blocked in a server that knows nothing of it,
    // and could not end it.
    let mask = SigSet::thread_get_mask()?;
    SigSet::empty().thread_set_mask()?;
    let child = bind_lifetime(&mut command).spawn();
    mask.thread_set_mask()?;
    // It holds the writing end of the pipe.
    drop(command);
    let child = child.or_else(|error| -> anyhow::Result<Child> {
        // Said as the end of the server, which it is for whoever wants to measure it.
        messages::send(&FromSupervisor::Exited {
            clean: false,
            status: format!("cannot start '{program}': {error}"),
            cpu_ns: 0,
            counters: None,
        })?;
        std::process::exit(1)
    })?;
    forward_external(output, child.id(), send.clone());
    reach(address, send.clone());
    Ok(child)
}

/// Tells when the address can be connected to.
fn reach(address: SocketAddr, send: Sender<Event>) {
    let deadline = Instant::now() + READY;
    thread::spawn(move || {
        while Instant::now() < deadline {
            // Where nobody listens, a connection can by chance come to be with itself.
            let reached = TcpStream::connect(address)
                .is_ok_and(|stream| stream.local_addr().is_ok_and(|own| own != address));
            if reached {
                let _ = send.send(Event::Reached(address));
                return;
            }
            thread::sleep(Duration::from_millis(2));
        }
        let _ = send.send(Event::OutOfReach(address));
    });
}

fn forward_lines(output: impl std::io::Read, send: &Sender<Event>) {
    for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
        // Fails only when this process is about to end.
        let _ = send.send(Event::Said(String::from_utf8_lossy(&line).into_owned()));
    }
}

/// Whether a server closes its output says nothing about its end, if it is not ours: only the end does.
fn forward_external(output: impl std::io::Read + Send + 'static, pid: u32, send: Sender<Event>) {
    let lines = send.clone();
    let reader = thread::spawn(move || forward_lines(output, &lines));
    thread::spawn(move || {
        let pid = Pid::from_raw(pid.cast_signed());
        // It stays to be reaped.
        let end = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
        while waitid(Id::Pid(pid), end) == Err(Errno::EINTR) {}
        // Its last words may be under way; somebody it started may hold the pipe for ever.
        let patience = Instant::now() + LAST_WORDS;
        while !reader.is_finished() && Instant::now() < patience {
            thread::sleep(Duration::from_millis(1));
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
    external: bool,
    /// It has been asked to go.
    stopping: bool,
    /// It did not go by itself.
    killed: bool,
    counters: Option<String>,
    /// The last line an external server wrote.
    last_words: Option<String>,
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
                Ok(Event::Said(line)) if self.external => {
                    let line = line.trim();
                    if !line.is_empty() {
                        self.last_words = Some(line.to_owned());
                    }
                }
                Ok(Event::Said(line)) => self.hear(&line)?,
                Ok(Event::Reached(address)) => self.ready(address)?,
                Ok(Event::OutOfReach(address)) => {
                    self.last_words = Some(format!("no connection to {address} within {READY:?}"));
                    self.kill();
                }
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
                    self.ask_to_end()?;
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

    /// An external server may be a shell around it, or leave its children to themselves.
    fn ask_to_end(&self) -> nix::Result<()> {
        if self.external {
            killpg(self.server(), Signal::SIGTERM)
        } else {
            kill(self.server(), Signal::SIGTERM)
        }
    }

    /// The server, and whatever it started, is a process group of its own.
    fn kill(&mut self) {
        self.killed = true;
        // Fails only when nobody is left.
        let _ = killpg(self.server(), Signal::SIGKILL);
    }

    fn hear(&mut self, line: &str) -> anyhow::Result<()> {
        if let Some(address) = ready_address(line) {
            self.ready(address)?;
        } else if let Some(counters) = line.strip_prefix("counters ") {
            self.counters = Some(counters.to_owned());
        }
        Ok(())
    }

    fn ready(&self, address: SocketAddr) -> anyhow::Result<()> {
        thread::sleep(SETTLE);
        let memory = process_tree::memory(self.pid).ok();
        send(&FromSupervisor::Ready {
            address: address.to_string(),
            memory,
        })
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
            let reading = process_tree::cpu(self.pid).ok();
            watch.cpu.push(reading.filter(|cpu| cpu.complete));
            return Ok(());
        }
        let memory = process_tree::memory(self.pid).ok();
        let cpu = std::mem::take(&mut watch.cpu);
        let context_switches = switches(self.pid)
            .zip(watch.switches_before)
            .and_then(|(after, before)| after.checked_sub(before));
        let in_time = clock::now() < watch.memory_until_ns;
        self.watch = None;
        send(&FromSupervisor::Watched {
            cpu,
            memory,
            context_switches,
            in_time,
        })
    }

    fn farewell(&mut self) -> anyhow::Result<()> {
        let status = self.child.wait()?;
        // The server was this process's only child: what it and its children used is all there is.
        // Many a server has no other way to end than the signal itself.
        let as_asked = status.success() || self.external && !self.killed;
        let last_words = self.last_words.take();
        let last_words = last_words.map_or_else(String::new, |words| format!(" ({words})"));
        send(&FromSupervisor::Exited {
            clean: self.stopping && as_asked,
            status: describe(status) + &last_words,
            cpu_ns: process_tree::reaped_cpu_ns(),
            counters: self.counters.take(),
        })
    }
}

/// Context switches of the server's tree so far, of both kinds.
fn switches(pid: u32) -> Option<u64> {
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
