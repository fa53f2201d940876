//! The load generator on its own, against any echo server: one load, its figures, and its files.

mod outcome;
mod summary;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use echobench_clients::{
    self as clients, Arrivals, Driver, DurationHistogram, LoadReport, Plan, RequestKind, Window,
    WorkMix, Workload, clock, first_reachable,
};
use echobench_protocol::Service;
use echobench_servers::{Acceptor, Model, Settings};
use nix::libc;

pub use self::outcome::{LoadOutcome, LoadVerdict};
use crate::host::cpus::CpuIdleGuard;
use crate::host::files::ResultFile;
use crate::host::machine::Machine;
use crate::host::signals::handle_interrupts;
use crate::host::threads;
use crate::host::time::nanoseconds;
use crate::outln;
use crate::results::histogram_log::{interval_line, interval_log_header, percentile_table};
use crate::scenario::Percentile;

/// Duration of a load without a number of requests or a duration of its own.
const DEFAULT_DURATION: Duration = Duration::from_secs(5);
/// Longest duration of an option: sums of several stay in the range of the clock.
const MAX_DURATION: Duration = Duration::from_secs(100 * 365 * 86_400);

/// The server of a load.
#[derive(Clone, Debug)]
pub enum LoadServer {
    /// A server that runs already, by its address or name and port.
    At(String),
    /// A server in other threads of this process.
    InProcess(&'static Model),
}

/// The options of a load.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// The server.
    pub server: LoadServer,
    /// The service that it runs.
    pub service: Service,
    /// Number of clients.
    pub clients: u32,
    /// The way the clients are run.
    pub driver: Driver,
    /// Threads that share the clients of the tasks driver.
    pub task_threads: u32,
    /// Addresses of this host that connections come from, in turn; none for those that the system chooses.
    pub source_addresses: Vec<IpAddr>,
    /// Time in which requests begin.
    pub duration: Option<Duration>,
    /// Number of requests of all clients together.
    pub requests: Option<u64>,
    /// Requests on a connection before it is closed.
    pub requests_per_connection: Option<u64>,
    /// Length of each payload.
    pub payload_bytes: u32,
    /// Whether each client sends its own name as the payload.
    pub say_names: bool,
    /// Whether the text of each reply is printed.
    pub print_replies: bool,
    /// Work of the server for each request.
    pub work: WorkMix,
    /// Pause between a reply and the next request of the client.
    pub think: Duration,
    /// Arrivals of an open loop.
    pub arrivals: Option<Arrivals>,
    /// Whether idle CPUs are kept out of their sleep states.
    pub no_cpu_idle: bool,
    /// Time over which the clients connect, before the first request.
    pub ramp_up: Duration,
    /// Time of load before the measurement.
    pub warmup: Duration,
    /// Time to wait for a connection, and for each reply.
    pub timeout: Duration,
    /// Seed of the payloads and of mixed work.
    pub seed: u64,
    /// File for the latencies as an interval log.
    pub hlog: Option<PathBuf>,
    /// File for the latencies as a percentile table.
    pub hgrm: Option<PathBuf>,
}

/// A load that has ended.
pub struct Load {
    /// Its figures.
    pub outcome: LoadOutcome,
    latency: DurationHistogram,
    hlog: Option<ResultFile>,
    hgrm: Option<ResultFile>,
}

impl Load {
    /// Runs a load to its end, or until the process is interrupted.
    ///
    /// Starts no thread for the drivers themselves, and with [`Driver::Processes`] none at all.
    pub fn run(options: &LoadOptions) -> anyhow::Result<Self> {
        let kind = options.request_kind()?;
        let [hlog, hgrm] = [&options.hlog, &options.hgrm]
            .map(|path| path.as_deref().map(ResultFile::open).transpose());
        let (hlog, hgrm) = (hlog?, hgrm?);
        let idle_guard = CpuIdleGuard::hold_if(options.no_cpu_idle)?;
        clients::allow_stop()?;
        handle_interrupts(stop_or_exit)?;

        let execute = |target| execute(options, kind, target);
        let executed = match &options.server {
            LoadServer::InProcess(_) if options.driver == Driver::Processes => bail!(
                "clients cannot be forked beside the threads of a server; take --driver threads or tasks, \
                 or give the server a process of its own: echobench serve"
            ),
            LoadServer::InProcess(model) => beside_server(model, options.service, execute)?,
            LoadServer::At(target) => execute(resolve(target, options.timeout)?)?,
        };

        let outcome = LoadOutcome::new(&executed, idle_guard.is_some());
        let measured = executed.report.windows.into_iter().next_back();
        Ok(Load {
            outcome,
            latency: measured.context("a plan has a window")?.latency,
            hlog,
            hgrm,
        })
    }

    /// A percentile of the latency of answered requests, in nanoseconds; `None` if there are too few for it.
    #[must_use]
    pub fn percentile_ns(&self, percentile: Percentile) -> Option<u64> {
        self.latency.quantile(0, percentile.fraction())
    }

    /// Writes the files that were asked for.
    pub fn write_files(&self) -> anyhow::Result<()> {
        if let Some(file) = &self.hlog {
            let length = Duration::from_nanos(self.outcome.elapsed_ns);
            let line = interval_line("load", Duration::ZERO, length, &self.latency);
            file.write(interval_log_header() + &line)?;
        }
        if let Some(file) = &self.hgrm {
            file.write(percentile_table(&self.latency))?;
        }
        Ok(())
    }
}

/// A plan that has been executed, with its windows cut at an interrupt.
pub(crate) struct Executed {
    pub(crate) plan: Plan,
    pub(crate) report: LoadReport,
    /// Time for which a CPU quota kept this process from CPUs.
    pub(crate) throttled_ns: Option<u64>,
    pub(crate) interrupted: bool,
}

fn execute(
    options: &LoadOptions,
    kind: RequestKind,
    target: SocketAddr,
) -> anyhow::Result<Executed> {
    let mut plan = options.plan(kind, target)?;
    let before = Machine::read();
    let mut start_ns = 0;
    let report = clients::run(&plan, || {
        start_ns = clock::now();
        start_ns
    })?;
    let throttled_ns = Machine::read()
        .throttled_ns
        .zip(before.throttled_ns)
        .map(|(after, before)| after.saturating_sub(before));

    let stopped_ns = clients::stopped_ns();
    if let Some(stopped_ns) = stopped_ns {
        let end_ns = stopped_ns.saturating_sub(start_ns);
        for window in plan.windows.iter_mut().filter(|w| w.requests.is_none()) {
            window.end_ns = window.end_ns.min(end_ns);
            window.measure_ns = window.measure_ns.min(window.end_ns);
        }
    }
    Ok(Executed {
        plan,
        report,
        throttled_ns,
        interrupted: stopped_ns.is_some(),
    })
}

/// Ends the load early at the first interrupt, and the process at the second.
extern "C" fn stop_or_exit(_: libc::c_int) {
    static INTERRUPTED: AtomicBool = AtomicBool::new(false);
    if INTERRUPTED.swap(true, Ordering::Relaxed) {
        echobench_fork::exit(1);
    }
    clients::stop();
}

impl LoadOptions {
    /// The kind of requests that suits the service and the options.
    fn request_kind(&self) -> anyhow::Result<RequestKind> {
        let kind = match (self.service, self.say_names) {
            (Service::Time, true) => {
                bail!("--service time speaks first and does not listen; leave out --say-names")
            }
            (Service::Time, false) => RequestKind::Time,
            (_, true) => RequestKind::Name,
            (_, false) => RequestKind::Bytes,
        };
        if self.print_replies && kind == RequestKind::Bytes {
            bail!("--print-replies needs replies of text; add --say-names or --service time");
        }
        Ok(kind)
    }

    /// Number of requests and duration, of which a load has one.
    fn limits(&self) -> (Option<u64>, Option<Duration>) {
        let one_per_client = self.print_replies && self.duration.is_none();
        let requests = self
            .requests
            .or(one_per_client.then_some(self.clients.into()));
        match requests {
            Some(_) => (requests, None),
            None => (None, Some(self.duration.unwrap_or(DEFAULT_DURATION))),
        }
    }

    fn check_times(&self, duration: Option<Duration>) -> anyhow::Result<()> {
        for (option, time) in [("--duration", duration), ("--timeout", Some(self.timeout))] {
            if time.is_some_and(|time| time.is_zero()) {
                bail!("{option} 0s leaves no time; give more, such as {option} 5s");
            }
        }
        let times = [
            duration.unwrap_or_default(),
            self.timeout,
            self.ramp_up,
            self.warmup,
            self.think,
        ];
        if let Some(time) = times.into_iter().find(|time| *time > MAX_DURATION) {
            bail!("{time:?} is too long");
        }

        let is_churn = self.requests_per_connection.is_some() || self.service == Service::Time;
        if is_churn && !self.ramp_up.is_zero() {
            bail!(
                "--ramp-up spreads connections that last; leave it out where each is closed after some requests"
            );
        }
        if self.work.longest() >= self.timeout {
            bail!(
                "work of {:?} cannot be answered within --timeout {:?}; give a longer timeout",
                self.work.longest(),
                self.timeout
            );
        }
        Ok(())
    }

    fn windows(&self, requests: Option<u64>, duration: Option<Duration>) -> Vec<Window> {
        let warmup_ns = nanoseconds(self.warmup);
        let warmup = Window {
            start_ns: 0,
            measure_ns: 0,
            end_ns: warmup_ns,
            requests: None,
        };
        let measured = Window {
            start_ns: warmup_ns,
            measure_ns: warmup_ns,
            end_ns: duration.map_or(u64::MAX, |duration| warmup_ns + nanoseconds(duration)),
            requests,
        };
        if warmup_ns > 0 {
            vec![warmup, measured]
        } else {
            vec![measured]
        }
    }

    fn plan(&self, kind: RequestKind, target: SocketAddr) -> anyhow::Result<Plan> {
        let (requests, duration) = self.limits();
        self.check_times(duration)?;
        Ok(Plan {
            target,
            driver: self.driver,
            clients: self.clients,
            part: None,
            source_addresses: self.source_addresses.clone(),
            task_threads: self.task_threads,
            workload: Workload {
                request_kind: kind,
                print_replies: self.print_replies,
                payload_bytes: self.payload_bytes,
                work: self.work.clone(),
                think_ns: nanoseconds(self.think),
                arrivals: self.arrivals,
                active_clients: None,
                requests_per_connection: match kind {
                    // The server closes after its line.
                    RequestKind::Time => Some(1),
                    RequestKind::Bytes | RequestKind::Name => self.requests_per_connection,
                },
                ramp_up_ns: nanoseconds(self.ramp_up),
                timeout_ns: nanoseconds(self.timeout),
                seed: self.seed,
            },
            windows: self.windows(requests, duration),
            end_ns: None,
        })
    }
}

/// Executes a load on a server in other threads of this process, and ends the server.
fn beside_server<T>(
    model: &'static Model,
    service: Service,
    load: impl FnOnce(SocketAddr) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let (ready, is_ready) = mpsc::channel();
    let server = threads::spawn("run the server", move || {
        let settings = Settings {
            service,
            ..Settings::default()
        };
        let mut acceptor = Acceptor::bind((Ipv4Addr::LOCALHOST, 0).into(), settings.clone())
            .or_else(|_| Acceptor::bind((Ipv6Addr::LOCALHOST, 0).into(), settings))?;
        acceptor.leave_interrupts()?;
        let stopper = acceptor.stopper();
        acceptor.when_ready(move |address| {
            outln!("ready {address}");
            let _ = ready.send((address, stopper));
            Ok(())
        });
        model.serve(acceptor).map_err(anyhow::Error::from)
    })?;

    let loaded = is_ready.recv().map(|(address, stopper)| {
        let loaded = load(address);
        stopper.stop();
        loaded
    });
    let served = server.join().expect("a server does not panic");
    served.with_context(|| format!("server {} failed", model.name))?;
    loaded.context("the server ended before it was ready")?
}

/// Resolves a name to the first of its addresses that accepts connections.
fn resolve(target: &str, timeout: Duration) -> anyhow::Result<SocketAddr> {
    let addresses: Vec<SocketAddr> = target
        .to_socket_addrs()
        .with_context(|| {
            format!("'{target}' is not an address such as 127.0.0.1:7000 or [::1]:7000")
        })?
        .collect();
    first_reachable(&addresses, timeout).with_context(|| format!("'{target}' has no address"))
}
