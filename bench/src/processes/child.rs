//! Child processes: starting one, exchanging messages with it, and ending it with its parent.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use crossbeam::channel::{Receiver, RecvTimeoutError, unbounded};
use echobench_fork::die_with;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::getpid;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::messages::line_of;
use crate::host::signals::interrupted;
use crate::host::threads;

/// Time for a child to end by itself once its standard input is closed.
const EXIT_TIMEOUT: Duration = Duration::from_millis(500);
/// Interval between two looks for an interrupt while a message is awaited.
const INTERRUPT_INTERVAL: Duration = Duration::from_millis(50);

/// Ends this process when its parent ends. Called first of all by every child that belongs to an
/// experiment.
pub fn die_with_parent() -> io::Result<()> {
    set_pdeathsig(Signal::SIGKILL).map_err(Into::into)
}

/// Undoes [`die_with_parent`], for a process that has something else to end first: the end of its
/// standard input shows that the parent is gone.
pub fn outlive_parent() -> io::Result<()> {
    set_pdeathsig(None).map_err(Into::into)
}

/// Binds the life of the child that `command` starts to that of the calling thread: the child is
/// killed when this process ends, however it ends.
///
/// The child leads a process group of its own, so a Ctrl-C at the terminal reaches only this process,
/// which then decides.
#[expect(
    unsafe_code,
    reason = "code between fork and exec must be async-signal-safe"
)]
pub fn bind_lifetime(command: &mut Command) -> &mut Command {
    command.process_group(0);
    let parent = getpid();
    let bound = move || die_with(parent);

    // SAFETY: the closure only makes system calls; it neither allocates nor locks.
    unsafe { command.pre_exec(bound) }
}

/// A child process with a pipe to its standard input; it ends when this is dropped.
pub(super) struct PipedChild {
    name: String,
    child: Child,
    input: Option<ChildStdin>,
    /// Time to end by itself once its standard input is closed.
    pub(super) exit_timeout: Duration,
}

impl PipedChild {
    /// Starts a command; returns its standard output too.
    pub(super) fn spawn(mut command: Command, name: &str) -> anyhow::Result<(Self, ChildStdout)> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = bind_lifetime(&mut command).spawn().map_err(|error| {
            threads::refused(&format!("cannot start a process for {name}"), error)
        })?;
        let output = child.stdout.take();
        let piped = PipedChild {
            name: name.to_owned(),
            input: child.stdin.take(),
            child,
            exit_timeout: EXIT_TIMEOUT,
        };
        Ok((piped, output.context("standard output is piped")?))
    }

    /// Writes one line, which is a whole message.
    pub(super) fn send_line(&mut self, line: &str) -> anyhow::Result<()> {
        let input = self.input.as_mut().context("standard input is piped")?;
        input
            .write_all(line.as_bytes())
            .with_context(|| format!("the process of {} has ended", self.name))
    }
}

impl Drop for PipedChild {
    fn drop(&mut self) {
        // The end of its input tells a child to end what it started, and then itself.
        drop(self.input.take());

        let deadline = Instant::now() + self.exit_timeout;
        while Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(Duration::from_millis(2));
        }

        // Its own children die with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A child process of the experiment that exchanges messages; it ends when this is dropped.
pub struct ChildProcess {
    piped: PipedChild,
    lines: Receiver<String>,
}

impl ChildProcess {
    /// Starts this executable with `arguments`. `name` is for messages to the user. To be called on the
    /// main thread, since the kernel ends the child with the thread that started it.
    pub fn spawn(name: &str, arguments: &[String]) -> anyhow::Result<Self> {
        let executable = std::env::current_exe().context("cannot find this executable")?;
        Self::spawn_executable(&executable, name, arguments)
    }

    /// Starts another executable; otherwise like [`ChildProcess::spawn`].
    pub fn spawn_executable(
        executable: &Path,
        name: &str,
        arguments: &[String],
    ) -> anyhow::Result<Self> {
        let mut command = Command::new(executable);
        command.args(arguments);
        Self::spawn_command(command, name)
    }

    /// Starts any command; otherwise like [`ChildProcess::spawn`].
    pub fn spawn_command(command: Command, name: &str) -> anyhow::Result<Self> {
        // Owns the child from here on, so that it is ended if no thread can be started.
        let (piped, output) = PipedChild::spawn(command, name)?;
        let lines = lines_of(output)?;
        Ok(ChildProcess { piped, lines })
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.piped.child.id()
    }

    /// The lines of its output, for a thread that passes them on.
    pub(super) fn lines(&self) -> Receiver<String> {
        self.lines.clone()
    }

    /// Sends one message.
    pub fn send(&mut self, message: &impl Serialize) -> anyhow::Result<()> {
        self.piped.send_line(&line_of(message)?)
    }

    /// Receives the next message. Fails at `deadline`, when the process ends, and when this process
    /// is interrupted.
    pub fn receive<M: DeserializeOwned>(&self, deadline: Instant) -> anyhow::Result<M> {
        receive_from(&self.piped.name, &self.lines, deadline)
    }
}

/// Receives the next message of a process from the lines of its output; see [`ChildProcess::receive`].
pub(super) fn receive_from<M: DeserializeOwned>(
    name: &str,
    lines: &Receiver<String>,
    deadline: Instant,
) -> anyhow::Result<M> {
    let line = next_of(name, lines, deadline)?;
    serde_json::from_str(&line).with_context(|| {
        let start: String = line.chars().take(100).collect();
        format!("the process of {name} said '{start}'")
    })
}

/// The next item from a process, with the same failures.
pub(super) fn next_of<T>(name: &str, items: &Receiver<T>, deadline: Instant) -> anyhow::Result<T> {
    loop {
        if interrupted() {
            bail!("interrupted");
        }

        match items.recv_timeout(INTERRUPT_INTERVAL) {
            Ok(item) => return Ok(item),
            Err(RecvTimeoutError::Disconnected) => bail!("the process of {name} died"),
            Err(RecvTimeoutError::Timeout) if Instant::now() >= deadline => {
                bail!("the process of {name} did not answer in time")
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

/// Lines of a child's output as they arrive, read by a thread so that an await can have a deadline.
fn lines_of(output: ChildStdout) -> anyhow::Result<Receiver<String>> {
    let (send, lines) = unbounded();
    threads::spawn("read a child's output", move || {
        for line in BufReader::new(output).lines() {
            let Ok(line) = line else { break };
            if send.send(line).is_err() {
                break;
            }
        }
    })?;
    Ok(lines)
}
