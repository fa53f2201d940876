//! Talking to the processes of an experiment: one JSON message a line, over standard input and output,
//! so that an agent may as well run on another host.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use crossbeam::channel::{Receiver, RecvTimeoutError, unbounded};
use echobench_fork::die_with;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::getpid;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::host::process_tree::{CpuTime, Memory};
use crate::host::signals::interrupted;

/// How long an agent has to end by itself.
const FAREWELL: Duration = Duration::from_millis(500);

/// What an experiment asks of a supervisor.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToSupervisor {
    /// Read the CPU time of the server's tree at each of these instants, then its memory at the last,
    /// all on the monotonic clock of the host, in nanoseconds.
    Watch {
        /// When to read CPU times.
        cpu_at_ns: Vec<u64>,
        /// When to read memory.
        memory_at_ns: u64,
        /// When the connections close, and memory is no longer what was meant.
        memory_until_ns: u64,
    },
    /// Ask the server to drain and exit.
    Stop,
}

/// What a supervisor says.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromSupervisor {
    /// The server can be connected to.
    Ready {
        /// Where.
        address: String,
        /// Its memory before the first connection.
        memory: Option<Memory>,
    },
    /// All readings of a [`ToSupervisor::Watch`].
    Watched {
        /// One for each instant; `None` where the server was not there to be read.
        cpu: Vec<Option<CpuTime>>,
        /// The memory.
        memory: Option<Memory>,
        /// How often the server's threads left a CPU between the request and the last reading of
        /// CPU times; of threads and processes that were there all the time.
        context_switches: Option<u64>,
        /// Whether it had been read before it was too late.
        in_time: bool,
    },
    /// The server is gone.
    Exited {
        /// Whether it was asked to go, and went with exit code 0.
        clean: bool,
        /// How it ended, for people.
        status: String,
        /// CPU time of the server and all its reaped descendants over their whole life.
        cpu_ns: u64,
        /// The server's last line of counters.
        counters: Option<String>,
    },
}

/// What a load process says.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromDriver {
    /// All clients are connected, or have failed to be.
    Ready,
    /// The end.
    Done {
        /// What came of the plan.
        report: echobench_clients::LoadReport,
    },
    /// It could not be done.
    Failed {
        /// Why.
        message: String,
    },
}

/// The start that a load process waits for.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Start {
    /// On the monotonic clock of the host.
    pub start_ns: u64,
}

/// Called by an agent first of all: it must not outlive the experiment.
pub fn die_with_parent() -> io::Result<()> {
    set_pdeathsig(Signal::SIGKILL).map_err(Into::into)
}

/// Takes that back: the end of standard input will tell, and there is something to be ended first.
pub fn outlive_parent() -> io::Result<()> {
    set_pdeathsig(None).map_err(Into::into)
}

/// Makes the child that `command` starts end with this process, however this process ends, and
/// keeps the terminal's Ctrl-C from it: its owner decides.
#[expect(
    unsafe_code,
    reason = "code between fork and exec must be async-signal-safe"
)]
pub fn bind(command: &mut Command) -> &mut Command {
    command.process_group(0);
    let parent = getpid();
    let bound = move || die_with(parent);
    // SAFETY: the closure only makes system calls; it neither allocates nor locks.
    unsafe { command.pre_exec(bound) }
}

/// Called by an agent: one message to the experiment.
pub fn say(message: &impl Serialize) -> anyhow::Result<()> {
    let mut line = serde_json::to_string(message)?;
    line.push('\n');
    let mut output = io::stdout().lock();
    output.write_all(line.as_bytes())?;
    output.flush().context("nobody listens")
}

/// A child process of the experiment; it ends when this is dropped.
pub struct Agent {
    name: String,
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Agent {
    /// Starts this executable with `arguments`; `name` is for messages. To be called on the main
    /// thread, since the child lives as long as the thread that starts it.
    pub fn spawn(name: &str, arguments: &[String]) -> anyhow::Result<Self> {
        let executable = std::env::current_exe().context("cannot find this executable")?;
        Self::spawn_from(&executable, name, arguments)
    }

    /// The same with another executable.
    pub fn spawn_from(executable: &Path, name: &str, arguments: &[String]) -> anyhow::Result<Self> {
        let mut command = Command::new(executable);
        command.args(arguments);
        Self::from_command(command, name)
    }

    /// The same with any command.
    pub fn from_command(mut command: Command, name: &str) -> anyhow::Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = bind(&mut command)
            .spawn()
            .with_context(|| format!("cannot start a process for {name}"))?;
        let output = child.stdout.take().context("standard output is piped")?;
        let (send, lines) = unbounded();
        thread::spawn(move || {
            for line in BufReader::new(output).lines() {
                let Ok(line) = line else { break };
                if send.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Agent {
            name: name.to_owned(),
            input: child.stdin.take(),
            child,
            lines,
        })
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends one message.
    pub fn send(&mut self, message: &impl Serialize) -> anyhow::Result<()> {
        let mut line = serde_json::to_string(message)?;
        line.push('\n');
        let input = self.input.as_mut().context("standard input is piped")?;
        input
            .write_all(line.as_bytes())
            .with_context(|| format!("the process of {} is gone", self.name))
    }

    /// The next message, if it comes before `deadline`.
    pub fn receive<M: DeserializeOwned>(&self, deadline: Instant) -> anyhow::Result<M> {
        loop {
            if interrupted() {
                bail!("interrupted");
            }
            // Short, to notice an interrupt.
            match self.lines.recv_timeout(Duration::from_millis(50)) {
                Ok(line) => {
                    return serde_json::from_str(&line).with_context(|| {
                        let begin: String = line.chars().take(100).collect();
                        format!("the process of {} said '{begin}'", self.name)
                    });
                }
                Err(RecvTimeoutError::Disconnected) => bail!("the process of {} died", self.name),
                Err(RecvTimeoutError::Timeout) if Instant::now() >= deadline => {
                    bail!("the process of {} did not answer in time", self.name)
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // An agent that nobody talks to any more ends what it started, and then itself.
        drop(self.input.take());
        let patience = Instant::now() + FAREWELL;
        while Instant::now() < patience {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(Duration::from_millis(2));
        }
        // Its children die with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
