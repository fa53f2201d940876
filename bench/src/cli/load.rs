//! `echobench load`: the load generator on its own, against any echo server.

use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use echobench_clients::{
    Arrivals, Driver, ErrorKind, LoadReport, Percentiles, Plan, RequestKind, Spacing, Window,
    WindowReport, WorkMix, Workload, clock, first_reachable, parse_duration,
};
use echobench_protocol::{MAX_PAYLOAD, Service};
use echobench_servers::{Acceptor, Model, Settings, find};
use serde::Serialize;

use crate::host::files::ResultFile;
use crate::render::units::{self, or_unknown};
use crate::results::histogram_log::{interval_line, interval_log_header, percentile_table};
use crate::{out, outln};

/// The options of `load`.
#[derive(Args)]
#[command(
    after_help = "Exit codes: 0 every request was answered; 1 none was, or it could not be done; 2 some were not."
)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is an option of its own"
)]
pub struct LoadArgs {
    /// The server, such as 127.0.0.1:7000; needed unless --serve is given
    #[arg(value_name = "ADDR", required_unless_present = "serve")]
    target: Option<String>,

    /// Also be the server, in other threads of this process: a model that does not fork
    #[arg(long, value_name = "MODEL", conflicts_with_all = ["target", "json", "csv"])]
    serve: Option<String>,

    /// What the server does with the bytes: echo, raw, or time, which speaks first and closes
    #[arg(long, default_value_t)]
    service: Service,

    /// Connections; each has one request under way at a time
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    clients: u32,

    /// How clients are run: threads, processes or tasks
    #[arg(long, default_value_t)]
    driver: Driver,

    /// Threads that share the clients of --driver tasks
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    task_threads: u32,

    /// How long to begin new requests [default: 5s, unless --requests is given]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    duration: Option<Duration>,

    /// Requests in all, shared out among the clients
    #[arg(long, value_name = "N", conflicts_with = "duration", value_parser = clap::value_parser!(u64).range(1..))]
    requests: Option<u64>,

    /// Requests on a connection before it is closed and another opened (1: churn)
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u64).range(1..))]
    requests_per_connection: Option<u64>,

    /// Payload of each request in bytes; the frame has 24 bytes more
    #[arg(long, value_name = "BYTES", default_value_t = 64, value_parser = clap::value_parser!(u32).range(..=i64::from(MAX_PAYLOAD)))]
    payload: u32,

    /// Each client sends its own name, such as "thread 3", as the payload
    #[arg(long, conflicts_with = "payload")]
    say_names: bool,

    /// Print the text of each reply as it arrives; unless told otherwise, each client then asks once
    #[arg(long, conflicts_with_all = ["json", "csv"])]
    print_replies: bool,

    /// What the server does before it replies: none, block:5ms, spin:50us, a mix such as
    /// none=99,block:10ms=1, and block:5s=first for the first request on each connection
    #[arg(long, value_name = "WORK", default_value_t)]
    work: WorkMix,

    /// Pause of a client between a reply and its next request
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = parse_duration)]
    think: Duration,

    /// Open loop: this many requests a second in all, each sent when it is due, whether or not
    /// earlier ones have been answered; latency counts from then
    #[arg(long, value_name = "R", value_parser = rate, conflicts_with = "think")]
    rate: Option<f64>,

    /// How the requests of --rate follow each other: constant or poisson
    #[arg(long, value_name = "SPACING", default_value_t, requires = "rate")]
    arrivals: Spacing,

    /// Keep idle CPUs of this machine out of their sleep states (C-states), so that no wake-up waits
    /// for a CPU to leave one; needs root
    #[arg(long, alias = "awake")]
    no_cpu_idle: bool,

    /// Load before the measurement, in the same connections
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = parse_duration)]
    warmup: Duration,

    /// How long to wait for a connection, and for each reply
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_duration)]
    timeout: Duration,

    /// Decides payload bytes and the order of mixed work
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// Print the result as JSON
    #[arg(long, conflicts_with = "csv")]
    json: bool,

    /// Print the result as CSV, a line of names and a line of values
    #[arg(long)]
    csv: bool,

    /// Also write the latencies as an HdrHistogram interval log
    #[arg(long, value_name = "FILE")]
    hlog: Option<PathBuf>,

    /// Also write the latencies as an HdrHistogram percentile table
    #[arg(long, value_name = "FILE")]
    hgrm: Option<PathBuf>,
}

pub(super) fn run(args: &LoadArgs) -> anyhow::Result<ExitCode> {
    let ask = ask(args)?;
    let hlog = open_result_file(args.hlog.as_deref())?;
    let hgrm = open_result_file(args.hgrm.as_deref())?;
    let awake = crate::host::cpus::CpuIdleGuard::hold_if(args.no_cpu_idle)?;
    let load = |target| {
        let plan = plan(args, ask, target)?;
        let report = echobench_clients::run(&plan, clock::now)?;
        Ok((plan, report))
    };
    let (plan, report) = match (&args.serve, &args.target) {
        (Some(_), _) if args.driver == Driver::Processes => bail!(
            "clients cannot be forked beside the threads of a server; take --driver threads or tasks, \
             or give the server a process of its own: echobench serve"
        ),
        (Some(model), _) => beside_server(find(model)?, args.service, load)?,
        (None, Some(target)) => load(resolve(target, args.timeout)?)?,
        (None, None) => bail!("no server; give its address, such as 127.0.0.1:7000"),
    };
    let outcome = Outcome::new(&plan, &report, awake.is_some());
    if args.json {
        outln!("{}", serde_json::to_string(&outcome)?);
    } else if args.csv {
        out!("{}", outcome.csv()?);
    } else {
        out!("{}", outcome.for_people(&report));
    }
    let latency = &report
        .windows
        .last()
        .context("a plan has a window")?
        .latency;
    if let Some(file) = hlog {
        let length = Duration::from_nanos(outcome.elapsed_ns);
        let line = interval_line("load", Duration::ZERO, length, latency);
        file.write(interval_log_header() + &line)?;
    }
    if let Some(file) = hgrm {
        file.write(percentile_table(latency))?;
    }
    Ok(outcome.exit_code())
}

/// Carries out a load on a server in other threads of this process, and ends the server.
fn beside_server<T>(
    model: &'static Model,
    service: Service,
    load: impl FnOnce(SocketAddr) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let (ready, is_ready) = mpsc::channel();
    let server = thread::spawn(move || {
        let settings = Settings {
            service,
            ..Settings::default()
        };
        let mut acceptor = Acceptor::bind((Ipv4Addr::LOCALHOST, 0).into(), settings)?;
        let stopper = acceptor.stopper();
        acceptor.when_ready(move |address| {
            outln!("ready {address}");
            let _ = ready.send((address, stopper));
            Ok(())
        });
        model.serve(acceptor).map_err(anyhow::Error::from)
    });
    let loaded = is_ready.recv().map(|(address, stopper)| {
        let loaded = load(address);
        stopper.stop();
        loaded
    });
    let served = server.join().expect("a server does not panic");
    served.with_context(|| format!("server {} failed", model.name))?;
    loaded.context("the server ended before it was ready")?
}

/// What clients say, and whether their replies are printed.
fn ask(args: &LoadArgs) -> anyhow::Result<RequestKind> {
    let ask = match (args.service, args.say_names) {
        (Service::Time, true) => {
            bail!("--service time speaks first and does not listen; leave out --say-names")
        }
        (Service::Time, false) => RequestKind::Time,
        (_, true) => RequestKind::Name,
        (_, false) => RequestKind::Bytes,
    };
    if args.print_replies && ask == RequestKind::Bytes {
        bail!("--print-replies needs replies of text; add --say-names or --service time");
    }
    Ok(ask)
}

fn plan(args: &LoadArgs, ask: RequestKind, target: SocketAddr) -> anyhow::Result<Plan> {
    let once_each = (args.print_replies && args.duration.is_none()).then_some(args.clients.into());
    let requests = args.requests.or(once_each);
    let duration = match (requests, args.duration) {
        (Some(_), _) => None,
        (None, duration) => Some(duration.unwrap_or(Duration::from_secs(5))),
    };
    for (option, time) in [("--duration", duration), ("--timeout", Some(args.timeout))] {
        if time.is_some_and(|time| time.is_zero()) {
            bail!("{option} 0s leaves no time; give more, such as {option} 5s");
        }
    }
    if args.work.longest() >= args.timeout {
        bail!(
            "work of {:?} cannot be answered within --timeout {:?}; give a longer timeout",
            args.work.longest(),
            args.timeout
        );
    }
    let warmup_ns = nanoseconds(args.warmup)?;
    let mut windows = Vec::new();
    if warmup_ns > 0 {
        windows.push(Window {
            start_ns: 0,
            measure_ns: 0,
            end_ns: warmup_ns,
            requests: None,
        });
    }
    let end_ns = match duration {
        Some(duration) => warmup_ns + nanoseconds(duration)?,
        None => u64::MAX,
    };
    windows.push(Window {
        start_ns: warmup_ns,
        measure_ns: warmup_ns,
        end_ns,
        requests,
    });
    Ok(Plan {
        target,
        driver: args.driver,
        clients: args.clients,
        task_threads: args.task_threads,
        workload: Workload {
            request_kind: ask,
            print_replies: args.print_replies,
            payload_bytes: args.payload,
            work: args.work.clone(),
            think_ns: nanoseconds(args.think)?,
            arrivals: args.rate.map(|per_second| Arrivals {
                per_second,
                spacing: args.arrivals,
            }),
            active_clients: None,
            requests_per_connection: match ask {
                // The server closes.
                RequestKind::Time => Some(1),
                RequestKind::Bytes | RequestKind::Name => args.requests_per_connection,
            },
            timeout_ns: nanoseconds(args.timeout)?,
            seed: args.seed,
        },
        windows,
        end_ns: None,
    })
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if (0.001..=1e9).contains(&rate) => Ok(rate),
        _ => Err("not a number of requests a second, such as 1000".to_owned()),
    }
}

/// At most a century, so that sums stay in range.
fn nanoseconds(time: Duration) -> anyhow::Result<u64> {
    let longest = Duration::from_secs(100 * 365 * 86_400);
    if time > longest {
        bail!("{time:?} is too long");
    }
    Ok(u64::try_from(time.as_nanos())?)
}

/// Resolves a name to the first of its addresses that takes connections.
fn resolve(target: &str, timeout: Duration) -> anyhow::Result<SocketAddr> {
    let addresses: Vec<SocketAddr> = target
        .to_socket_addrs()
        .with_context(|| format!("'{target}' is not an address such as 127.0.0.1:7000"))?
        .collect();
    first_reachable(&addresses, timeout).with_context(|| format!("'{target}' has no address"))
}

/// Finds out before the measurement whether a file for its result can be written.
fn open_result_file(path: Option<&Path>) -> anyhow::Result<Option<ResultFile>> {
    path.map(ResultFile::open).transpose()
}

/// The result of one load, as programs read it. Times in nanoseconds.
#[derive(Serialize)]
struct Outcome {
    schema_version: u32,
    target: SocketAddr,
    driver: Driver,
    clients: u32,
    /// `None`: the clients say their names, or nothing.
    payload_bytes: Option<u32>,
    planned: u64,
    answered: u64,
    unsent: u64,
    errors: Errors,
    clients_never_served: u64,
    /// Connections that failed before any request was due.
    failed_before_start: u64,
    elapsed_ns: u64,
    throughput_per_second: Option<f64>,
    bytes_sent: u64,
    /// `None` for the time service, whose lines have no fixed length.
    bytes_received: Option<u64>,
    connections: u64,
    rate_per_second: Option<f64>,
    /// Requests in flight, averaged over the measurement.
    busy_connections: Option<f64>,
    hiccups: u64,
    /// Whether idle CPUs were kept from sleeping.
    awake: bool,
    latency_ns: Percentiles,
    service_ns: Percentiles,
    lag_ns: Percentiles,
    /// The lag without hiccups, and without waiting for an earlier reply or a connection.
    calm_lag_ns: Percentiles,
    connect_ns: Percentiles,
    warmup: Option<Warmup>,
}

/// Errors by kind, every kind named.
struct Errors(Vec<(ErrorKind, u64)>);

impl Serialize for Errors {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(kind, count)| (kind, count)))
    }
}

impl Errors {
    fn of(window: &WindowReport) -> Self {
        let count = |kind| (kind, window.errors.count(kind));
        Errors(ErrorKind::ALL.iter().copied().map(count).collect())
    }

    fn total(&self) -> u64 {
        self.0.iter().map(|(_, count)| count).sum()
    }
}

/// Requests before the measurement; the server has counted them too.
#[derive(Serialize)]
struct Warmup {
    planned: u64,
    answered: u64,
    errors: Errors,
}

impl Outcome {
    fn new(plan: &Plan, report: &LoadReport, awake: bool) -> Self {
        let (measured, before) = report.windows.split_last().expect("a plan has a window");
        let window = plan.windows.last().expect("a plan has a window");
        let ask = plan.workload.request_kind;
        // Connections that were there before the first window belong to it, or to the warm-up.
        let mut connect = measured.connect.clone();
        let mut connections = measured.connections;
        for window in before {
            connect += &window.connect;
            connections += window.connections;
        }
        Outcome {
            schema_version: 1,
            target: plan.target,
            driver: plan.driver,
            clients: plan.clients,
            payload_bytes: (ask == RequestKind::Bytes).then_some(plan.workload.payload_bytes),
            planned: measured.planned,
            answered: measured.answered,
            unsent: measured.unsent,
            errors: Errors::of(measured),
            clients_never_served: report.clients_never_served(),
            failed_before_start: report.errors_before_start.total(),
            elapsed_ns: measured.elapsed_ns(window),
            throughput_per_second: measured.throughput_per_second(window),
            bytes_sent: measured.bytes,
            bytes_received: (ask != RequestKind::Time).then_some(measured.bytes),
            connections,
            rate_per_second: plan.workload.arrivals.map(|arrivals| arrivals.per_second),
            busy_connections: measured
                .busy_connections(window)
                .filter(|_| measured.answered > 0),
            hiccups: measured.hiccups,
            awake,
            latency_ns: Percentiles::of(&measured.latency, measured.lost),
            service_ns: Percentiles::of(&measured.service, measured.lost - measured.lost_unsent),
            lag_ns: Percentiles::of(&measured.lag, 0),
            calm_lag_ns: Percentiles::of(&measured.calm_lag, 0),
            connect_ns: Percentiles::of(&connect, 0),
            warmup: before.first().map(|window| Warmup {
                planned: window.planned,
                answered: window.answered,
                errors: Errors::of(window),
            }),
        }
    }

    fn failed(&self) -> u64 {
        self.failed_before_start
            + self.errors.total()
            + self
                .warmup
                .as_ref()
                .map_or(0, |warmup| warmup.errors.total())
    }

    /// 1 when nothing was answered, 2 when something failed: then the server is not what it should be.
    fn exit_code(&self) -> ExitCode {
        if self.answered == 0 {
            ExitCode::FAILURE
        } else if self.failed() > 0 || self.unsent > 0 {
            ExitCode::from(2)
        } else {
            ExitCode::SUCCESS
        }
    }

    /// Flattens the JSON: `latency_ns.p50` becomes `latency_p50_ns`.
    fn csv(&self) -> anyhow::Result<String> {
        let serde_json::Value::Object(fields) = serde_json::to_value(self)? else {
            bail!("an outcome is an object");
        };
        let (mut names, mut values) = (Vec::new(), Vec::new());
        for (name, value) in fields {
            match value {
                serde_json::Value::Object(inner) if name != "warmup" => {
                    for (key, value) in inner {
                        names.push(match name.strip_suffix("_ns") {
                            Some(stem) => format!("{stem}_{key}_ns"),
                            None => format!("{name}_{key}"),
                        });
                        values.push(plain(&value));
                    }
                }
                _ if name == "warmup" => {
                    names.push("warmup_answered".to_owned());
                    values.push(plain(&value["answered"]));
                }
                value => {
                    names.push(name);
                    values.push(plain(&value));
                }
            }
        }
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record(&names)?;
        writer.write_record(&values)?;
        Ok(String::from_utf8(writer.into_inner()?)?)
    }

    fn for_people(&self, report: &LoadReport) -> String {
        let mut lines = vec![format!(
            "{} {} ({}) against {}{}",
            units::count(u64::from(self.clients)),
            if self.clients == 1 {
                "client"
            } else {
                "clients"
            },
            self.driver,
            self.target,
            self.payload_bytes
                .map_or_else(String::new, |bytes| format!(", {bytes} B payload"))
        )];
        if let Some(rate) = self.rate_per_second {
            lines.push(format!("open loop at {}", units::rate(rate)));
        }
        lines.push(String::new());
        lines.push(format!(
            "requests    {} planned, {} answered, {} failed, {} unsent",
            units::count(self.planned),
            units::count(self.answered),
            units::count(self.errors.total()),
            units::count(self.unsent)
        ));
        lines.push(format!(
            "throughput  {} over {}",
            or_unknown(self.throughput_per_second, units::rate),
            units::duration(self.elapsed_ns as f64)
        ));
        let each_way = self.bytes_received.map_or_else(String::new, |bytes| {
            format!("bytes       {} each way; ", units::bytes(bytes as f64))
        });
        let connections = units::count(self.connections);
        lines.push(format!("{each_way}connections: {connections}"));
        if let Some(busy) = self.busy_connections {
            lines.push(format!(
                "busy        {busy:.1} of {} connections (requests in flight, on average)",
                units::count(u64::from(self.clients))
            ));
        }
        lines.push(String::new());
        lines.push(format!(
            "{:<10}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}",
            "", "min", "p50", "p90", "p99", "p99.9", "max"
        ));
        let rows = [
            ("latency", &self.latency_ns),
            ("service", &self.service_ns),
            ("send lag", &self.lag_ns),
            ("calm lag", &self.calm_lag_ns),
            ("connect", &self.connect_ns),
        ];
        // Service time and lag are there where requests were due at a time of their own.
        for (name, at) in rows
            .into_iter()
            .filter(|(name, at)| at.min.is_some() || ["latency", "connect"].contains(name))
        {
            let condition = |value: Option<u64>| or_unknown(value, |ns| units::duration(ns as f64));
            let [min, p50, p90, p99, p999, max] =
                [at.min, at.p50, at.p90, at.p99, at.p999, at.max].map(condition);
            lines.push(format!(
                "{name:<10}{min:>10}{p50:>10}{p90:>10}{p99:>10}{p999:>10}{max:>10}"
            ));
        }
        if self.rate_per_second.is_some() {
            lines.push(String::new());
            lines.push(
                "latency counts from when a request was due, service from when it was sent"
                    .to_owned(),
            );
        }
        if self.calm_lag_ns.min.is_some() {
            lines.push(
                "calm lag is without hiccups, and without waiting for an earlier reply or a connection"
                    .to_owned(),
            );
        }
        if self.hiccups > 0 {
            lines.push(format!(
                "hiccups     {}: something else had the CPU when a request was due, or it slept (see --no-cpu-idle)",
                units::count(self.hiccups)
            ));
        }
        lines.extend(self.troubles(report));
        lines.join("\n") + "\n"
    }

    /// What went wrong, with the first message of each kind.
    fn troubles(&self, report: &LoadReport) -> Vec<String> {
        let mut lines = Vec::new();
        if self.failed() > 0 {
            lines.push(String::new());
            for (kind, message) in &report.messages {
                let count: u64 = report
                    .windows
                    .iter()
                    .map(|window| window.errors.count(*kind))
                    .sum();
                let before = report.errors_before_start.count(*kind);
                let before_start = match before {
                    0 => String::new(),
                    _ => format!(", {} of them before the start", units::count(before)),
                };
                lines.push(format!(
                    "error       {}: {}{before_start} ({message})",
                    kind.words(),
                    units::count(count + before)
                ));
            }
        }
        if self.answered > 0 && self.clients_never_served > 0 {
            lines.push(format!(
                "starved     {} of {} clients were never served",
                units::count(self.clients_never_served),
                units::count(u64::from(self.clients))
            ));
        }
        lines
    }
}

/// A JSON value as a CSV field: empty where unknown.
fn plain(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::Null => String::new(),
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
