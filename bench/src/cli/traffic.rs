//! Options of `run` that describe the traffic: they replace fields of the scenarios, or make one.

use std::time::Duration;

use clap::Args;
use echobench_clients::{Driver, Spacing, WorkMix, parse_duration};

use crate::run::traffic::TrafficOptions;
use crate::scenario::{Payload, Placement, Span, View, parse_rate};

/// Traffic in place of the scenarios'. Without a scenario, what is not given is as `list FILE` shows it for a file
/// with nothing but a question.
#[derive(Args)]
pub(super) struct TrafficArgs {
    /// Numbers of clients, such as 1,64; a section of the table for each
    #[arg(long, value_name = "N,…", value_delimiter = ',', help_heading = TRAFFIC,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    clients: Vec<u32>,

    /// Ways in which clients are run: threads, processes or tasks; several with commas
    #[arg(long, alias = "driver", value_name = "DRIVER,…", value_delimiter = ',', help_heading = TRAFFIC)]
    drivers: Vec<Driver>,

    /// Placements: none, split (servers and clients on CPUs of their own) or same (all on one CPU); several with
    /// commas
    #[arg(long, alias = "placements", value_name = "PLACEMENT,…", value_delimiter = ',', help_heading = TRAFFIC)]
    placement: Vec<Placement>,

    /// Payloads, such as 64,1KiB
    #[arg(long, value_name = "SIZE,…", value_delimiter = ',', help_heading = TRAFFIC)]
    payload: Vec<Payload>,

    /// Work of the server before it replies: none, block:5ms, spin:50us, or a mix such as
    /// none=70,block:5ms=30. Can be given several times, for a section each
    #[arg(long, value_name = "WORK", help_heading = TRAFFIC)]
    work: Vec<WorkMix>,

    /// Pauses of a client between a reply and its next request, such as 0s,10ms
    #[arg(long, value_name = "TIME,…", value_delimiter = ',', help_heading = TRAFFIC)]
    think: Vec<Span>,

    /// Open loop: requests per second of all clients together, each sent when it is due; arms are then compared
    /// by latency and CPU time
    #[arg(long, value_name = "R", value_parser = parse_rate, conflicts_with = "think", group = "open",
          help_heading = TRAFFIC)]
    rate: Option<f64>,

    /// Spacing of the requests of --rate or --capacity: constant or poisson [default: constant for --rate, poisson
    /// for --capacity]
    #[arg(long, value_name = "SPACING", requires = "open", help_heading = TRAFFIC)]
    arrivals: Option<Spacing>,

    /// Search for the highest rate at which each arm keeps the objective of --slo: doubling, then halving, each step an
    /// open loop with a rate for each arm
    #[arg(long, conflicts_with_all = ["rate", "think"], requires = "slo", group = "open", help_heading = CAPACITY)]
    capacity: bool,

    /// Width at which the search ends, as a share of the rate, such as 5% or 0.05
    #[arg(long, value_name = "SHARE", value_parser = share, requires = "capacity", help_heading = CAPACITY)]
    precision: Option<f64>,

    /// Longest time of the run, such as 10min: the search ends before a step that would take longer [default: 12
    /// steps, whatever they take]
    #[arg(long, value_name = "TIME", value_parser = parse_duration, requires = "capacity", help_heading = CAPACITY)]
    max_time: Option<Duration>,

    /// Requests on a connection before it is closed and another one opened (1: churn)
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u64).range(1..), help_heading = TRAFFIC)]
    requests_per_connection: Option<u64>,

    /// Time over which the clients of each arm connect, at even intervals, before the first slice; all at once by
    /// default
    #[arg(long, value_name = "TIME", help_heading = TRAFFIC)]
    ramp_up: Option<Span>,
}

const TRAFFIC: &str = "Traffic, in place of the scenario's";
const CAPACITY: &str = "Capacity";

/// Parses a share such as `5%` or `0.05`.
fn share(text: &str) -> Result<f64, String> {
    let share = match text.strip_suffix('%') {
        Some(percent) => percent.trim().parse().map(|percent: f64| percent / 100.0),
        None => text.trim().parse(),
    };
    let share = share.ok().filter(|share| (0.001..=1.0).contains(share));
    share.ok_or_else(|| format!("'{text}' is not a share of a rate from 0.1% to 100%, such as 5%"))
}

impl TrafficArgs {
    /// The longest time of a search.
    pub(super) fn max_time(&self) -> Option<Duration> {
        self.max_time
    }

    pub(super) fn options(&self, view: View) -> TrafficOptions {
        TrafficOptions {
            clients: self.clients.clone(),
            drivers: self.drivers.clone(),
            placements: self.placement.clone(),
            payloads: self.payload.clone(),
            works: self.work.clone(),
            thinks: self.think.clone(),
            rate: self.rate,
            spacing: self.arrivals,
            capacity: self.capacity,
            precision: self.precision,
            requests_per_connection: self.requests_per_connection,
            ramp_up: self.ramp_up,
            slo: view.slo,
            reference: view.reference,
        }
    }
}
