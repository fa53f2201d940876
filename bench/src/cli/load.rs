//! `echobench load`: the load generator on its own, against any echo server.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use echobench_clients::{Arrivals, Driver, Spacing, WorkMix, parse_duration};
use echobench_protocol::{MAX_PAYLOAD, Service};
use echobench_servers::find;

use super::values::bytes_up_to;
use crate::host::time::nanoseconds;
use crate::load::{Load, LoadOptions, LoadServer, LoadVerdict};
use crate::render::units::duration;
use crate::scenario::{Slo, parse_rate};
use crate::{noteln, out};

/// The options of `load`.
#[derive(Args)]
#[command(
    after_help = "Exit codes: 0 every request was answered; 1 none was, connections failed, the load was interrupted \
                  or could not be made; 2 replies were wrong or missing, requests were not sent, or a requirement is missed; 3 too few \
                  requests to judge a requirement."
)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is an option of its own"
)]
pub struct LoadArgs {
    /// The server, such as 127.0.0.1:7000 or localhost:7000; needed unless --serve is given
    #[arg(value_name = "ADDR", required_unless_present = "serve")]
    target: Option<String>,

    /// Also run the server, in other threads of this process: a model that does not fork
    #[arg(long, value_name = "MODEL", conflicts_with_all = ["target", "json", "csv"])]
    serve: Option<String>,

    /// The server's service: echo, raw, or time, which speaks first and closes
    #[arg(long, default_value_t)]
    service: Service,

    /// Connections; each has one request in flight at a time
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    clients: u32,

    /// The way clients are run: threads, processes or tasks
    #[arg(long, default_value_t)]
    driver: Driver,

    /// Threads that share the clients of --driver tasks
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    task_threads: u32,

    /// Addresses of this host that connections come from, in turn; each has some 28,000 ports to a server. Can be
    /// given several times, or as a list
    #[arg(long, value_name = "IP", value_delimiter = ',')]
    source_address: Vec<IpAddr>,

    /// Time in which requests begin [default: 5s, unless --requests is given]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    duration: Option<Duration>,

    /// Total number of requests, shared among the clients
    #[arg(long, value_name = "N", conflicts_with = "duration", value_parser = clap::value_parser!(u64).range(1..))]
    requests: Option<u64>,

    /// Requests on a connection before it is closed and another one opened (1: churn)
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u64).range(1..))]
    requests_per_connection: Option<u64>,

    /// Payload of each request in bytes, such as 64 or 1KiB; the frame has 24 bytes more
    #[arg(long, value_name = "BYTES", default_value = "64", value_parser = payload)]
    payload: u32,

    /// Send the name of each client, such as "thread 3", as its payload
    #[arg(long, conflicts_with = "payload")]
    say_names: bool,

    /// Print the text of each reply as it arrives; by default each client then sends one request
    #[arg(long, conflicts_with_all = ["json", "csv"])]
    print_replies: bool,

    /// Work of the server before it replies: none, block:5ms, spin:50us, a mix such as
    /// none=99,block:10ms=1, and block:5s=first for the first request on each connection
    #[arg(long, value_name = "WORK", default_value_t)]
    work: WorkMix,

    /// Pause of a client between a reply and its next request
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = parse_duration)]
    think: Duration,

    /// Open loop: total number of requests per second, each sent when it is due, whether or not
    /// earlier ones have been answered; latency counts from then
    #[arg(long, value_name = "R", value_parser = parse_rate, conflicts_with = "think")]
    rate: Option<f64>,

    /// Spacing of the requests of --rate: constant or poisson
    #[arg(long, value_name = "SPACING", default_value_t, requires = "rate")]
    arrivals: Spacing,

    /// Keep idle CPUs of this machine out of their sleep states (C-states), so that no wake-up waits
    /// for one to come back; needs root
    #[arg(long, alias = "awake")]
    no_cpu_idle: bool,

    /// Time over which the clients connect, at even intervals, before the first request; all at once by default
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = parse_duration)]
    ramp_up: Duration,

    /// Load before the measurement, on the same connections
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = parse_duration)]
    warmup: Duration,

    /// Time to wait for a connection, and for each reply
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_duration)]
    timeout: Duration,

    /// Fail unless a percentile of latency is within its limit, such as p99=2ms. Can be given several times
    #[arg(long, value_name = "pNN=TIME")]
    require: Vec<Slo>,

    /// Seed of the payloads and of the order of mixed work
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
    let load = Load::run(&options(args)?)?;
    let outcome = &load.outcome;
    if args.json {
        out!("{}", outcome.json()?);
    } else if args.csv {
        out!("{}", outcome.csv()?);
    } else {
        out!("{}", outcome.summary());
    }

    load.write_files()?;
    Ok(match outcome.verdict() {
        LoadVerdict::Answered => check(&load, &args.require),
        LoadVerdict::NotMeasured => ExitCode::FAILURE,
        LoadVerdict::BadReplies => ExitCode::from(2),
    })
}

/// Says which requirements are not kept.
fn check(load: &Load, required: &[Slo]) -> ExitCode {
    let (mut is_missed, mut is_unknown) = (false, false);
    for slo in required {
        let limit_ns = nanoseconds(slo.limit);
        let line = match load.percentile_ns(slo.percentile) {
            Some(ns) if ns <= limit_ns => continue,
            Some(ns) => {
                is_missed = true;
                format!("{} is {}", slo.percentile, duration(ns as f64))
            }
            None => {
                is_unknown = true;
                "too few requests for this percentile".to_owned()
            }
        };
        noteln!("not kept: {slo} ({line})");
    }

    match (is_missed, is_unknown) {
        (true, _) => ExitCode::from(2),
        (false, true) => ExitCode::from(3),
        (false, false) => ExitCode::SUCCESS,
    }
}

fn options(args: &LoadArgs) -> anyhow::Result<LoadOptions> {
    let server = match (&args.serve, &args.target) {
        (Some(model), _) => LoadServer::InProcess(find(model)?),
        (None, Some(target)) => LoadServer::At(target.clone()),
        (None, None) => bail!("no server; give its address, such as 127.0.0.1:7000 or [::1]:7000"),
    };
    Ok(LoadOptions {
        server,
        service: args.service,
        clients: args.clients,
        driver: args.driver,
        task_threads: args.task_threads,
        source_addresses: args.source_address.clone(),
        duration: args.duration,
        requests: args.requests,
        requests_per_connection: args.requests_per_connection,
        payload_bytes: args.payload,
        say_names: args.say_names,
        print_replies: args.print_replies,
        work: args.work.clone(),
        think: args.think,
        arrivals: args.rate.map(|per_second| Arrivals {
            per_second,
            spacing: args.arrivals,
        }),
        no_cpu_idle: args.no_cpu_idle,
        ramp_up: args.ramp_up,
        warmup: args.warmup,
        timeout: args.timeout,
        seed: args.seed,
        hlog: args.hlog.clone(),
        hgrm: args.hgrm.clone(),
    })
}

fn payload(text: &str) -> Result<u32, String> {
    bytes_up_to(text, MAX_PAYLOAD)
}
