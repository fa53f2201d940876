//! A server, and loads, as processes of this executable, for studies that measure one server at a time.

use std::io::{self, BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use crossbeam::channel::{Receiver, bounded};
use echobench_clients::{LoadReport, Plan, Window, clock};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use super::child::{ChildProcess, bind_lifetime};
use super::messages::{FromDriver, Start};
use super::ready_address;
use crate::host::threads;

/// Time for a process to start, or to answer after the end of its plan.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Time between the start signal and the start, so that every load process has received it.
const LEAD_NS: u64 = 10_000_000;

/// A server process. It ends, with everything it started, when this is dropped.
pub struct Server {
    child: Child,
    address: SocketAddr,
    errors: Option<JoinHandle<String>>,
}

impl Server {
    /// Starts this executable as a server with these arguments, and waits until it is ready. `prepare`
    /// may change the command.
    ///
    /// To be called on the main thread, since the kernel ends the server with the thread that started it.
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

        let child = bind_lifetime(&mut command)
            .spawn()
            .map_err(|error| threads::refused(&format!("cannot start '{name}'"), error))?;
        // Owns the child from here on, so that it ends if one of the next steps fails.
        let mut server = Server {
            child,
            address: SocketAddr::from(([0, 0, 0, 0], 0)),
            errors: None,
        };

        // Piped only if `prepare` has asked for it.
        let errors = server.child.stderr.take();
        server.errors = errors.map(collect).transpose()?;
        let output = server.child.stdout.take();
        let output = output.context("standard output is piped")?;
        let line = first_line(output)?
            .recv_timeout(TIMEOUT)
            .with_context(|| format!("the server '{name}' did not start in time"))?;
        server.address =
            ready_address(&line).with_context(|| format!("the server '{name}' did not start"))?;
        Ok(server)
    }

    /// Address of its listener.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal to the server and everything it started, which are one process group.
    pub fn signal(&self, signal: Signal) -> nix::Result<()> {
        killpg(self.pid(), signal)
    }

    /// Asks the server to drain and exit, so that it reaps its children and their CPU time is known.
    /// Returns its standard error, if that was piped.
    pub fn stop(mut self) -> anyhow::Result<String> {
        kill(self.pid(), Signal::SIGTERM).context("cannot stop a server")?;
        let deadline = Instant::now() + TIMEOUT;
        while self.child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                bail!("a server did not end when it was asked to");
            }
            thread::sleep(Duration::from_millis(1));
        }

        let errors = self.errors.take().map(JoinHandle::join);
        Ok(errors.and_then(Result::ok).unwrap_or_default())
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Fails only when the group is empty.
        let _ = self.signal(Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

/// Reads everything that a server writes to its standard error.
fn collect(mut errors: ChildStderr) -> anyhow::Result<JoinHandle<String>> {
    threads::spawn("read the server's errors", move || {
        let mut text = String::new();
        let _ = errors.read_to_string(&mut text);
        text
    })
}

/// The first line of a server's output; empty if it ends without one. A thread reads the rest too, so that
/// the server never waits for a reader.
fn first_line(output: ChildStdout) -> anyhow::Result<Receiver<String>> {
    let (send, line) = bounded(1);
    threads::spawn("read the server's output", move || {
        let mut output = BufReader::new(output);
        let mut line = String::new();
        let _ = output.read_line(&mut line);
        let _ = send.send(line);
        let _ = io::copy(&mut output, &mut io::sink());
    })?;
    Ok(line)
}

/// Carries out a plan in a load process of its own, started with these arguments of `drive`. `during`
/// is called with the instant at which the windows start, and the id of the load process.
pub fn carry_out<T>(
    plan: &Plan,
    arguments: &[String],
    during: impl FnOnce(u64, u32) -> anyhow::Result<T>,
) -> anyhow::Result<(LoadReport, T)> {
    let mut load = prepare(plan, arguments)?;
    let start_ns = clock::now() + LEAD_NS;
    load.send(&Start { start_ns })?;

    let result = during(start_ns, load.id())?;
    Ok((finish(plan, &load)?, result))
}

/// Carries out plans at the same time, each in a load process of its own, with one start for all.
pub fn carry_out_together<const N: usize>(plans: [&Plan; N]) -> anyhow::Result<[LoadReport; N]> {
    let loads: anyhow::Result<Vec<_>> = plans.iter().map(|plan| prepare(plan, &[])).collect();
    let mut loads = loads?;
    let start_ns = clock::now() + LEAD_NS;
    for load in &mut loads {
        load.send(&Start { start_ns })?;
    }

    let reports: anyhow::Result<Vec<LoadReport>> = plans
        .iter()
        .zip(&loads)
        .map(|(plan, load)| finish(plan, load))
        .collect();
    Ok(reports?.try_into().expect("one for each plan"))
}

/// Starts a load process and waits until its clients are connected, or have failed to connect.
fn prepare(plan: &Plan, arguments: &[String]) -> anyhow::Result<ChildProcess> {
    let arguments: Vec<String> = std::iter::once("drive".to_owned())
        .chain(arguments.iter().cloned())
        .collect();
    let mut load = ChildProcess::spawn("the load", &arguments)?;
    load.send(plan)?;
    match load.receive(Instant::now() + TIMEOUT)? {
        FromDriver::Ready => Ok(load),
        FromDriver::Failed { message } => bail!("{message}"),
        FromDriver::Done { .. } => bail!("the load process reported before its start"),
    }
}

fn finish(plan: &Plan, load: &ChildProcess) -> anyhow::Result<LoadReport> {
    match load.receive(Instant::now() + length(plan) + TIMEOUT)? {
        FromDriver::Done { report, .. } => Ok(report),
        FromDriver::Failed { message } => bail!("{message}"),
        FromDriver::Ready => bail!("the load process was ready twice"),
    }
}

/// The length of a plan; of one without an end, the longest time of its last request.
fn length(plan: &Plan) -> Duration {
    let end_ns = |window: &Window| match window.end_ns {
        u64::MAX => plan.workload.timeout_ns,
        end_ns => end_ns,
    };
    let last = plan.windows.iter().map(end_ns).max();
    Duration::from_nanos(last.unwrap_or(0))
}
