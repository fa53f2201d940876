//! Sites of an experiment's processes: this host, or another one that a launcher reaches.
//!
//! A launcher is a list of words, such as `ssh hostA` or `srun --nodelist n2`, put before the command that starts
//! the agent of that host. It is started once for a whole run.

use std::collections::HashMap;
use std::fmt;
use std::io::{BufRead as _, BufReader};
use std::net::IpAddr;
use std::process::{ChildStdout, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use crossbeam::channel::{Receiver, Sender, unbounded};
use echobench_clients::clock;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::to_raw_value;

use super::agent::messages::{Description, FromAgent, Hello, ToAgent};
use super::child::{ChildProcess, PipedChild, next_of, receive_from};
use super::clock_match::ClockMatch;
use super::messages::line_of;
use crate::host::machine::MachineWatch;
use crate::host::signals::interrupted;
use crate::host::threads;

/// Time for a launcher to start the agent.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// Time for an answer of an agent, whose threads for it do nothing else.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for an agent and its launcher to end.
const END_TIMEOUT: Duration = Duration::from_secs(5);
/// Lines of login shells before the hello, at most.
const NOISE_LINES: usize = 10_000;
/// Exchanges for one match of clocks.
const EXCHANGES: u32 = 30;
/// Time for them, on a slow connection; a few are made in any case.
const EXCHANGES_TIME: Duration = Duration::from_secs(1);
const LEAST_EXCHANGES: u32 = 4;

/// Reason of the failure of a host whose agent, launcher or network connection ended.
const AGENT_ENDED: &str = "the connection to its agent ended";

/// A place to start processes.
#[derive(Clone)]
pub(crate) enum Site {
    /// This host.
    Here,
    /// The host of an agent.
    Remote(Arc<RemoteHost>),
}

impl Site {
    /// Starts this executable with `arguments` there. To be called on the main thread.
    pub(crate) fn start(&self, name: &str, arguments: &[String]) -> anyhow::Result<Process> {
        Ok(match self {
            Site::Here => Process::Here(ChildProcess::spawn(name, arguments)?),
            Site::Remote(host) => Process::Remote(RemoteHost::start(host, name, arguments)?),
        })
    }

    /// The agent of the host; `None` for this host.
    pub(crate) fn remote(&self) -> Option<&Arc<RemoteHost>> {
        match self {
            Site::Here => None,
            Site::Remote(host) => Some(host),
        }
    }
}

/// A process at a site that exchanges messages; it ends when this is dropped.
pub(crate) enum Process {
    Here(ChildProcess),
    Remote(RemoteProcess),
}

impl Process {
    /// Sends one message.
    pub(crate) fn send(&mut self, message: &impl Serialize) -> anyhow::Result<()> {
        match self {
            Process::Here(process) => process.send(message),
            Process::Remote(process) => process.send(message),
        }
    }

    /// Receives the next message; see [`ChildProcess::receive`].
    pub(crate) fn receive<M: DeserializeOwned>(&self, deadline: Instant) -> anyhow::Result<M> {
        match self {
            Process::Here(process) => process.receive(deadline),
            Process::Remote(process) => process.receive(deadline),
        }
    }

    /// The process, if it is on another host.
    pub(crate) fn remote(&self) -> Option<&RemoteProcess> {
        match self {
            Process::Here(_) => None,
            Process::Remote(process) => Some(process),
        }
    }
}

/// A host that failed: it, or its connection, or a process of the experiment on it. It ends the run, since the
/// figures without it would be those of another experiment.
#[derive(Clone, Debug)]
pub(crate) struct HostFailed {
    /// The duty of the host, as in `load host 2`: records name no hosts.
    pub(crate) role: String,
    /// The launcher, by which the user knows the host.
    launcher: String,
    pub(crate) reason: String,
}

impl HostFailed {
    /// An error as a record keeps it, which names no hosts.
    pub(crate) fn nameless(error: &anyhow::Error) -> String {
        match error.downcast_ref::<HostFailed>() {
            Some(failed) => format!("{}: {}", failed.role, failed.reason),
            None => format!("{error:#}"),
        }
    }
}

impl fmt::Display for HostFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.role, self.launcher, self.reason)
    }
}

impl std::error::Error for HostFailed {}

/// A host with an agent, which ends with all its processes when this is dropped.
pub(crate) struct RemoteHost {
    role: String,
    launcher: String,
    input: Mutex<PipedChild>,
    answers: Receiver<Answer>,
    routes: Routes,
    next_id: AtomicU32,
    pub(crate) description: Description,
}

/// The host by its duty and its launcher, by which the user knows it.
impl fmt::Display for RemoteHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.role, self.launcher)
    }
}

/// An answer of the agent itself.
enum Answer {
    /// A reading of the clock there, and the instant of its arrival here.
    Clock {
        received_ns: u64,
        sent_ns: u64,
        arrived_ns: u64,
    },
    Description(Box<Description>),
    Missing(Option<String>),
    Watched(Box<MachineWatch>),
}

/// The processes on a host, as far as its agent has reported; `None` once the agent has ended.
type Routes = Arc<Mutex<Option<Reported>>>;

#[derive(Default)]
struct Reported {
    /// The receivers of messages of the processes that run.
    running: HashMap<u32, Sender<String>>,
    /// Reasons for not starting the others.
    refused: HashMap<u32, String>,
}

impl RemoteHost {
    /// Starts the agent of a host by a launcher. `executable` is the path of this executable there, `server` the
    /// address of the servers.
    pub(crate) fn connect(
        role: &str,
        launcher: &[String],
        executable: &str,
        server: IpAddr,
    ) -> anyhow::Result<Arc<Self>> {
        let failed = |reason: String| HostFailed {
            role: role.to_owned(),
            launcher: launcher.join(" "),
            reason,
        };
        let words: Vec<&str> = launcher.iter().map(String::as_str).collect();
        let words = [&words[..], &[executable, "agent"]].concat();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]);

        let spawned = PipedChild::spawn(command, role);
        let (mut input, output) = spawned.map_err(|error| failed(format!("{error:#}")))?;
        input.exit_timeout = END_TIMEOUT;

        let (hello, answers, routes) = read_answers(output)?;
        let greeted = next_of(role, &hello, Instant::now() + START_TIMEOUT);
        if interrupted() {
            bail!("interrupted");
        }
        let hello = greeted.map_err(|_| failed(no_hello(executable)))?;
        check_build(&hello, executable).map_err(|error| failed(error.to_string()))?;

        input.send_line(&line_of(&ToAgent::Describe { server })?)?;
        let described = next_of(role, &answers, Instant::now() + START_TIMEOUT);
        let Ok(Answer::Description(description)) = described else {
            return Err(failed("it did not describe its host".to_owned()).into());
        };
        Ok(Arc::new(RemoteHost {
            role: role.to_owned(),
            launcher: launcher.join(" "),
            input: Mutex::new(input),
            answers,
            routes,
            next_id: AtomicU32::new(0),
            description: *description,
        }))
    }

    /// The launcher, by which the user knows the host.
    pub(crate) fn launcher(&self) -> &str {
        &self.launcher
    }

    /// The failure of this host for a reason.
    pub(crate) fn failed(&self, reason: impl Into<String>) -> HostFailed {
        HostFailed {
            role: self.role.clone(),
            launcher: self.launcher.clone(),
            reason: reason.into(),
        }
    }

    /// Fails if the agent has ended.
    pub(crate) fn check(&self) -> Result<(), HostFailed> {
        match *lock(&self.routes) {
            Some(_) => Ok(()),
            None => Err(self.failed(AGENT_ENDED)),
        }
    }

    fn send(&self, request: &ToAgent) -> anyhow::Result<()> {
        let line = line_of(request)?;
        let sent = lock(&self.input).send_line(&line);
        sent.map_err(|_| self.failed(AGENT_ENDED).into())
    }

    fn answer(&self) -> anyhow::Result<Answer> {
        let answer = next_of(&self.role, &self.answers, Instant::now() + ANSWER_TIMEOUT);
        answer.map_err(|error| {
            if interrupted() {
                return error;
            }
            let gone = self.check().err();
            gone.unwrap_or_else(|| self.failed("its agent did not answer in time"))
                .into()
        })
    }

    /// Lets the agent go on for so long without this run.
    pub(crate) fn lease(&self, time: Duration) -> anyhow::Result<()> {
        let seconds = time.as_secs() + 1;
        self.send(&ToAgent::Lease { seconds })
    }

    /// Matches the clock of the host with the one here.
    pub(crate) fn match_clock(&self) -> anyhow::Result<ClockMatch> {
        let began = Instant::now();
        let mut matched = ClockMatch::UNKNOWN;

        for nth in 0..EXCHANGES {
            if nth >= LEAST_EXCHANGES && began.elapsed() > EXCHANGES_TIME {
                break;
            }

            let asked_ns = clock::now();
            self.send(&ToAgent::Clock)?;
            let Answer::Clock {
                received_ns,
                sent_ns,
                arrived_ns,
            } = self.answer()?
            else {
                bail!(self.failed("its agent answered something else than the clock"));
            };
            matched.exchange(asked_ns, received_ns, sent_ns, arrived_ns);
        }
        Ok(matched)
    }

    /// Asks for the figures of the machine between two instants of its clock.
    pub(crate) fn watch_machine(&self, start_ns: u64, end_ns: u64) -> anyhow::Result<()> {
        self.send(&ToAgent::Watch { start_ns, end_ns })
    }

    /// The figures that [`RemoteHost::watch_machine`] asked for.
    pub(crate) fn machine_watched(&self) -> anyhow::Result<MachineWatch> {
        match self.answer()? {
            Answer::Watched(watch) => Ok(*watch),
            _ => bail!(self.failed("its agent answered something else than the machine")),
        }
    }

    /// The reason for skipping what needs a program, if the host does not have it.
    pub(crate) fn missing(&self, program: &str) -> anyhow::Result<Option<String>> {
        let program = program.to_owned();
        self.send(&ToAgent::Find { program })?;
        match self.answer()? {
            Answer::Missing(reason) => Ok(reason),
            _ => bail!(self.failed("its agent answered something else than a program")),
        }
    }

    fn start(host: &Arc<Self>, name: &str, arguments: &[String]) -> anyhow::Result<RemoteProcess> {
        host.check()?;
        let id = host.next_id.fetch_add(1, Ordering::Relaxed);
        let (send, lines) = unbounded();
        if let Some(reported) = lock(&host.routes).as_mut() {
            reported.running.insert(id, send);
        }

        let process = RemoteProcess {
            name: name.to_owned(),
            host: Arc::clone(host),
            id,
            lines,
        };
        host.send(&ToAgent::Start {
            id,
            arguments: arguments.to_vec(),
        })?;
        Ok(process)
    }
}

/// A process on another host; it ends when this is dropped.
pub(crate) struct RemoteProcess {
    name: String,
    host: Arc<RemoteHost>,
    id: u32,
    lines: Receiver<String>,
}

impl RemoteProcess {
    fn send(&self, message: &impl Serialize) -> anyhow::Result<()> {
        self.host.send(&ToAgent::Pass {
            id: self.id,
            message: to_raw_value(message)?,
        })
    }

    pub(crate) fn receive<M: DeserializeOwned>(&self, deadline: Instant) -> anyhow::Result<M> {
        let name = &self.name;
        // What it says is the affair of the experiment; that it says nothing is one of its host.
        receive_from(name, &self.lines, deadline).map_err(|error| {
            if error.is::<serde_json::Error>() {
                return error;
            }
            if interrupted() {
                return error;
            }
            self.failure(&format!("{error:#}")).into()
        })
    }

    /// The failure of its host: that of its agent, of its start, or for a reason.
    fn failure(&self, reason: &str) -> HostFailed {
        let refused = match lock(&self.host.routes).as_mut() {
            Some(reported) => reported.refused.remove(&self.id),
            None => Some(AGENT_ENDED.to_owned()),
        };
        self.host
            .failed(refused.unwrap_or_else(|| reason.to_owned()))
    }

    /// Whether it has ended, or its agent has.
    pub(crate) fn has_ended(&self) -> bool {
        let routes = lock(&self.host.routes);
        let running = routes.as_ref().map(|reported| &reported.running);
        !running.is_some_and(|running| running.contains_key(&self.id))
    }

    /// Whether no message of it waits to be received.
    pub(crate) fn has_said_nothing(&self) -> bool {
        self.lines.is_empty()
    }

    /// The failure of its host by its early end.
    pub(crate) fn ended_early(&self, status: &str) -> HostFailed {
        self.failure(&format!(
            "{} ended before the block did: {status}",
            self.name
        ))
    }
}

impl Drop for RemoteProcess {
    fn drop(&mut self) {
        // Without an agent the process is gone too.
        let _ = self.host.send(&ToAgent::End { id: self.id });
    }
}

/// Reads what an agent says in a thread, which takes the time of each clock reading at once. Returns the
/// receivers of the hello and of the other answers.
fn read_answers(
    output: ChildStdout,
) -> anyhow::Result<(Receiver<Hello>, Receiver<Answer>, Routes)> {
    let (send_hello, hello) = unbounded();
    let (send_answer, answers) = unbounded();
    let routes: Routes = Arc::new(Mutex::new(Some(Reported::default())));
    let routed = Arc::clone(&routes);

    threads::spawn("read an agent's answers", move || {
        let mut lines = BufReader::new(output).split(b'\n').map_while(Result::ok);
        let first = lines
            .by_ref()
            .take(NOISE_LINES)
            .find_map(|line| match serde_json::from_slice(&line) {
                Ok(FromAgent::Hello(hello)) => Some(hello),
                _ => None,
            });
        // Without a hello, the end of the channel says so.
        if let Some(hello) = first
            && send_hello.send(hello).is_ok()
        {
            for line in lines {
                if !handle(&line, &send_answer, &routed) {
                    break;
                }
            }
        }
        *lock(&routed) = None;
    })?;
    Ok((hello, answers, routes))
}

/// Handles one line of an agent; returns false for one that no agent says.
fn handle(line: &[u8], answers: &Sender<Answer>, routes: &Routes) -> bool {
    let arrived_ns = clock::now();
    let Ok(message) = serde_json::from_slice(line) else {
        return false;
    };

    let answer = match message {
        FromAgent::Said { id, message } => {
            if let Some(reported) = lock(routes).as_ref()
                && let Some(process) = reported.running.get(&id)
            {
                let _ = process.send(message.get().to_owned());
            }
            return true;
        }
        FromAgent::Ended { id } => {
            if let Some(reported) = lock(routes).as_mut() {
                reported.running.remove(&id);
            }
            return true;
        }
        FromAgent::Refused { id, reason } => {
            if let Some(reported) = lock(routes).as_mut() {
                reported.refused.insert(id, reason);
                reported.running.remove(&id);
            }
            return true;
        }
        FromAgent::Hello(_) => return false,
        FromAgent::Clock {
            received_ns,
            sent_ns,
        } => Answer::Clock {
            received_ns,
            sent_ns,
            arrived_ns,
        },
        FromAgent::Description(description) => Answer::Description(description),
        FromAgent::Missing(reason) => Answer::Missing(reason),
        FromAgent::Watched(watch) => Answer::Watched(watch),
    };
    answers.send(answer).is_ok()
}

/// Fails unless the agent is this build: rows of different builds must not be mixed.
fn check_build(hello: &Hello, executable: &str) -> anyhow::Result<()> {
    let own = Hello::of_this_executable();
    if hello.architecture != own.architecture {
        bail!(
            "its processor is {}, this one is {}; all hosts of a run need the same",
            hello.architecture,
            own.architecture
        );
    }
    if *hello != own {
        let short = |hello: &Hello| {
            let hash = hello.executable_sha256.as_deref();
            let hash = hash.and_then(|hash| hash.get(..7)).unwrap_or("unknown");
            format!("{}, SHA-256 {hash}", hello.version)
        };
        bail!(
            "{executable} there is another build ({}; this one is {}); copy this executable there, as \
             with scp, or name the place of the copy with --remote-executable",
            short(hello),
            short(&own)
        );
    }
    Ok(())
}

fn no_hello(executable: &str) -> String {
    format!(
        "its launcher did not start '{executable} agent' there; try it by hand: it must ask for nothing \
         (ssh: -o BatchMode=yes), pass on its input and output, and find this executable there, or give its \
         place with --remote-executable"
    )
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The words of a launcher, as a shell would read them.
pub(crate) fn launcher_words(text: &str) -> anyhow::Result<Vec<String>> {
    let words = shlex::split(text).filter(|words| !words.is_empty());
    words.with_context(|| {
        format!("cannot read the launcher '{text}'; it is a command, as in: ssh hostA")
    })
}
