//! A server and loads as processes of this executable, for those that measure one server at a time.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use crossbeam::channel::bounded;
use echobench_clients::{LoadReport, Plan, Window, clock};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::processes::child::{ChildProcess, bind_lifetime};
use crate::processes::messages::{FromDriver, Start};
use crate::processes::ready_address;

/// How long a process may take to come up, or to answer beyond what was planned.
const PATIENCE: Duration = Duration::from_secs(15);
/// From telling the clients when to start to the start.
const LEAD_NS: u64 = 10_000_000;

/// A server process; it and all it started end when this is dropped.
pub struct Server {
    child: Child,
    address: SocketAddr,
    errors: Option<JoinHandle<String>>,
}

impl Server {
    /// Starts this executable as a server with these arguments, and waits until it is ready. To be
    /// called on the main thread, since the server lives as long as the thread that starts it.
    /// `prepare` may change the command.
    pub fn start(
        arguments: &[&str],
        prepare: impl FnOnce(&mut Command) -> anyhow::Result<()>,
    ) -> anyhow::Result<Self> {
        let name = arguments.join(" ");
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        prepare(&mut command)?;
        let child = bind_lifetime(&mut command).spawn();
        let mut server = Server {
            child: child.with_context(|| format!("cannot start '{name}'"))?,
            address: SocketAddr::from(([0, 0, 0, 0], 0)),
            errors: None,
        };
        // Only what `prepare` has asked for.
        server.errors = server.child.stderr.take().map(|mut errors| {
            thread::spawn(move || {
                let mut text = String::new();
                let _ = errors.read_to_string(&mut text);
                text
            })
        });
        let output = server.child.stdout.take();
        let mut output = BufReader::new(output.context("standard output is piped")?);
        let (send, line) = bounded(1);
        thread::spawn(move || {
            let mut line = String::new();
            // A server that says nothing has ended or is given up.
            let _ = output.read_line(&mut line);
            let _ = send.send(line);
            // The rest is read so that it never waits for a reader.
            let _ = std::io::copy(&mut output, &mut std::io::sink());
        });
        let line = line
            .recv_timeout(PATIENCE)
            .with_context(|| format!("the server '{name}' did not start in time"))?;
        server.address =
            ready_address(&line).with_context(|| format!("the server '{name}' did not start"))?;
        Ok(server)
    }

    /// Where it can be connected to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal to the server and everything it started: they are one process group.
    pub fn signal(&self, signal: Signal) -> nix::Result<()> {
        killpg(Pid::from_raw(self.child.id().cast_signed()), signal)
    }

    /// Asks the server to drain and exit, so that it reaps its children and their CPU time is known.
    /// Returns what it wrote to its standard error, if that was piped.
    pub fn stop(mut self) -> anyhow::Result<String> {
        let pid = Pid::from_raw(self.child.id().cast_signed());
        nix::sys::signal::kill(pid, Signal::SIGTERM).context("cannot stop a server")?;
        let patience = Instant::now() + PATIENCE;
        while self.child.try_wait()?.is_none() {
            if Instant::now() > patience {
                bail!("a server did not end when it was asked to");
            }
            thread::sleep(Duration::from_millis(1));
        }
        let errors = self.errors.take().map(JoinHandle::join);
        Ok(errors.and_then(Result::ok).unwrap_or_default())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Fails only when nobody is left.
        let _ = self.signal(Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

/// Carries out a plan in a load process of its own, started with these arguments of `drive`. `during`
/// is called with the instant at which the windows start, and the id of the load process.
pub fn carry_out<T>(
    plan: &Plan,
    arguments: &[String],
    during: impl FnOnce(u64, u32) -> anyhow::Result<T>,
) -> anyhow::Result<(LoadReport, T)> {
    let mut agent = prepare(plan, arguments)?;
    let start_ns = clock::now() + LEAD_NS;
    agent.send(&Start { start_ns })?;
    let done = during(start_ns, agent.id())?;
    Ok((finish(plan, &agent)?, done))
}

/// Carries out plans at the same time, each in a load process of its own, with one start for all.
pub fn carry_out_together<const N: usize>(plans: [&Plan; N]) -> anyhow::Result<[LoadReport; N]> {
    let agents: anyhow::Result<Vec<ChildProcess>> =
        plans.iter().map(|plan| prepare(plan, &[])).collect();
    let mut agents = agents?;
    let start_ns = clock::now() + LEAD_NS;
    for agent in &mut agents {
        agent.send(&Start { start_ns })?;
    }
    let reports: anyhow::Result<Vec<LoadReport>> = plans
        .iter()
        .zip(&agents)
        .map(|(plan, agent)| finish(plan, agent))
        .collect();
    Ok(reports?.try_into().expect("one for each plan"))
}

/// A load process whose clients are connected, or have failed to be.
fn prepare(plan: &Plan, arguments: &[String]) -> anyhow::Result<ChildProcess> {
    let arguments: Vec<String> = std::iter::once("drive".to_owned())
        .chain(arguments.iter().cloned())
        .collect();
    let mut agent = ChildProcess::spawn("the load", &arguments)?;
    agent.send(plan)?;
    match agent.receive(Instant::now() + PATIENCE)? {
        FromDriver::Ready => Ok(agent),
        FromDriver::Failed { message } => bail!("{message}"),
        FromDriver::Done { .. } => bail!("load process out of step"),
    }
}

fn finish(plan: &Plan, agent: &ChildProcess) -> anyhow::Result<LoadReport> {
    match agent.receive(Instant::now() + length(plan) + PATIENCE)? {
        FromDriver::Done { report } => Ok(report),
        FromDriver::Failed { message } => bail!("{message}"),
        FromDriver::Ready => bail!("load process out of step"),
    }
}

/// How long the plan lasts, or the last request of one without an end may.
fn length(plan: &Plan) -> Duration {
    let end_ns = |window: &Window| match window.end_ns {
        u64::MAX => plan.workload.timeout_ns,
        end_ns => end_ns,
    };
    let last = plan.windows.iter().map(end_ns).max();
    Duration::from_nanos(last.unwrap_or(0))
}
