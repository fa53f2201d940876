//! The agent of a host: starts the processes of an experiment there and relays their messages, so that a host
//! needs one launcher for a whole run.
//!
//! It ends, with every process that it started, when its standard input ends, and when its lease runs out: a
//! cut connection leaves nothing behind. No message is exchanged while slices are measured.

pub(crate) mod messages;

use std::collections::HashMap;
use std::io::{self, BufRead as _};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use crossbeam::channel::{Sender, unbounded};
use echobench_clients::clock;
use serde_json::value::RawValue;

use self::messages::{Description, FromAgent, Hello, ToAgent};
use super::child::ChildProcess;
use super::messages::{line_of, send};
use crate::host::machine::MachineWatch;
use crate::host::threads;
use crate::scenario::arm::missing;

/// Lease of an agent that has been granted none yet: time for the other hosts to start.
const FIRST_LEASE: Duration = Duration::from_secs(600);
/// Time to end in order once the input has ended.
const END_TIMEOUT: Duration = Duration::from_secs(3);

/// The arguments of an agent.
#[derive(Args)]
pub struct AgentArgs {}

/// Serves one run, until it is gone.
pub fn run(_: &AgentArgs) -> anyhow::Result<ExitCode> {
    // A login shell may have left the beginning of a line.
    let hello = line_of(&FromAgent::Hello(Hello::of_this_executable()))?;
    write_line(&format!("\n{hello}"))?;

    let lease = Lease::watched()?;
    let (requests, received) = unbounded();
    threads::spawn("read requests", move || read_requests(&requests, &lease))?;

    // Processes end with the thread that started them, so it is this one.
    let mut children: HashMap<u32, ChildProcess> = HashMap::new();
    for request in received {
        match request {
            ToAgent::Start { id, arguments } => match start(id, &arguments) {
                Ok(child) => drop(children.insert(id, child)),
                Err(error) => send(&FromAgent::Refused {
                    id,
                    reason: format!("{error:#}"),
                })?,
            },
            // One that has ended is reported by the end of its output.
            ToAgent::Pass { id, message } => {
                let _ = children.get_mut(&id).map(|child| child.send(&message));
            }
            ToAgent::End { id } => drop(children.remove(&id)),
            ToAgent::Watch { start_ns, end_ns } => watch(start_ns, end_ns)?,
            ToAgent::Describe { server } => {
                let description = Description::capture(server);
                send(&FromAgent::Description(Box::new(description)))?;
            }
            ToAgent::Find { program } => send(&FromAgent::Missing(missing(&program)))?,
            ToAgent::Clock | ToAgent::Lease { .. } => {}
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Reads requests until the input ends. The clock is answered here, where nothing delays it.
fn read_requests(requests: &Sender<ToAgent>, lease: &Lease) {
    for line in io::stdin().lock().lines() {
        let received_ns = clock::now();
        let Some(request) = line.ok().and_then(|line| serde_json::from_str(&line).ok()) else {
            break;
        };

        let handled = match request {
            ToAgent::Clock => send(&FromAgent::Clock {
                received_ns,
                sent_ns: clock::now(),
            })
            .is_ok(),
            ToAgent::Lease { seconds } => {
                lease.grant(Duration::from_secs(seconds));
                true
            }
            request => requests.send(request).is_ok(),
        };
        if !handled {
            break;
        }
    }

    // The main thread ends the processes once it has seen the end of the requests, unless it waits for a
    // reader of its output that is gone too.
    lease.grant(END_TIMEOUT);
}

/// Starts a process of this executable, and relays its messages until it ends.
fn start(id: u32, arguments: &[String]) -> anyhow::Result<ChildProcess> {
    let name = arguments.first().map_or("", String::as_str);
    let child = ChildProcess::spawn(name, arguments)?;
    let lines = child.lines();

    threads::spawn("relay messages", move || {
        for line in lines {
            // What is no message would break the stream of those that are.
            let Ok(message) = RawValue::from_string(line) else {
                break;
            };
            if send(&FromAgent::Said { id, message }).is_err() {
                return;
            }
        }
        let _ = send(&FromAgent::Ended { id });
    })?;
    Ok(child)
}

/// Watches this machine over a block, in a thread that does nothing else.
fn watch(start_ns: u64, end_ns: u64) -> anyhow::Result<()> {
    threads::spawn("watch the machine", move || {
        let watch = MachineWatch::between(start_ns, end_ns, || false);
        let _ = send(&FromAgent::Watched(Box::new(watch)));
    })?;
    Ok(())
}

fn write_line(line: &str) -> io::Result<()> {
    use std::io::Write as _;
    let mut output = io::stdout().lock();
    output.write_all(line.as_bytes())?;
    output.flush()
}

/// The right to go on, which the run renews before each block.
#[derive(Clone)]
struct Lease(Arc<Mutex<Instant>>);

impl Lease {
    /// The first lease, and a thread that ends this process when it, or a later one, has run out: also while
    /// another thread waits for a connection that was cut. Every process started here ends with this one.
    fn watched() -> anyhow::Result<Self> {
        let lease = Lease(Arc::new(Mutex::new(Instant::now() + FIRST_LEASE)));
        let watched = lease.clone();

        threads::spawn("watch the lease", move || {
            loop {
                let left = watched.end().saturating_duration_since(Instant::now());
                if left.is_zero() {
                    echobench_fork::exit(1);
                }
                // A shorter lease may be granted meanwhile.
                thread::sleep(left.min(Duration::from_millis(500)));
            }
        })?;
        Ok(lease)
    }

    fn grant(&self, time: Duration) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now() + time;
    }

    fn end(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
