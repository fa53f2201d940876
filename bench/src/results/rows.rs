//! Row types of the CSV files, one field for each column.

use std::collections::BTreeMap;

use echobench_clients::{Driver, ErrorCounts, ErrorKind};
use serde::{Deserialize, Serialize};

use super::column::{BlockStatus, Validity};
use super::metric::Metric;
use crate::scenario::Placement;
use crate::stats::RatioVerdict;

/// Identity of a condition: all arms of one section of a table, under the same clients.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConditionKey {
    /// Name of the scenario.
    pub scenario: String,
    /// CPUs of servers and clients.
    pub placement: Placement,
    /// Form of the clients: threads, processes or tasks.
    pub driver: Driver,
    /// Number of clients.
    pub clients: u32,
    /// Rate of a rate sweep, as a percentage of each arm's own peak.
    pub load_percent: Option<u32>,
    /// Name of the traffic among the scenario's conditions, as in `1 KiB`; empty if all have the same.
    pub traffic: String,
    /// Step of a capacity search, from 1.
    pub step: Option<u32>,
}

impl ConditionKey {
    /// Name of an arm under this condition, of which no two arms have the same.
    #[must_use]
    pub fn tag(&self, model: &str) -> String {
        let ConditionKey {
            scenario,
            placement,
            driver,
            clients,
            load_percent,
            traffic,
            step,
        } = self;
        let load = load_percent
            .map(|percent| format!("/{percent}%"))
            .unwrap_or_default();
        let step = step.map(|step| format!("/step%{step}")).unwrap_or_default();
        let [scenario, traffic, model] = [scenario, traffic, model].map(as_part_of_tag);
        let traffic = match traffic.as_str() {
            "" => traffic,
            _ => format!("/{traffic}"),
        };
        format!("{scenario}/{placement}/{clients}/{driver}{load}{step}{traffic}/{model}")
    }

    /// The same condition without the step of a search.
    #[must_use]
    pub fn without_step(&self) -> Self {
        ConditionKey {
            step: None,
            ..self.clone()
        }
    }

    /// The clients in words, and the traffic and the step where they tell conditions apart: `8 threads`, `8 threads,
    /// 1 KiB, step 3`.
    #[must_use]
    pub fn clients_in_words(&self) -> String {
        let words = self.with_traffic(&format!("{} {}", self.clients, self.driver));
        match self.step {
            Some(step) => format!("{words}, step {step}"),
            None => words,
        }
    }

    /// A text about the condition, followed by the traffic where it tells conditions apart.
    #[must_use]
    pub fn with_traffic(&self, text: &str) -> String {
        match self.traffic.as_str() {
            "" => text.to_owned(),
            traffic => format!("{text}, {traffic}"),
        }
    }
}

/// A name without the signs that a tag consists of.
fn as_part_of_tag(name: &str) -> String {
    name.replace('%', "%25").replace('/', "%2F")
}

macro_rules! has_condition {
    ($($row:ty),*) => {$(
        impl $row {
            /// The condition it belongs to.
            #[must_use]
            pub fn condition(&self) -> ConditionKey {
                ConditionKey {
                    scenario: self.scenario.clone(),
                    placement: self.placement,
                    driver: self.driver,
                    clients: self.clients,
                    load_percent: self.load_percent,
                    traffic: self.traffic.clone(),
                    step: self.step,
                }
            }
        }
    )*};
}

has_condition!(SliceRow, BlockRow, HostRow, SummaryRow);

/// One arm in one slice: the raw observation.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SliceRow {
    /// Version of the columns.
    pub schema_version: u32,
    /// Name of the scenario.
    pub scenario: String,
    /// Number of clients.
    pub clients: u32,
    /// Form of the clients.
    pub driver: Driver,
    /// CPUs of servers and clients.
    pub placement: Placement,
    /// Rate of a rate sweep, as a percentage of the arm's own peak; empty for a closed loop.
    pub load_percent: Option<u32>,
    /// Name of the traffic among the scenario's conditions; empty if all have the same.
    pub traffic: String,
    /// Number of the step of a capacity search, from 1; empty elsewhere.
    pub step: Option<u32>,
    /// Name of the arm.
    pub model: String,
    /// Number of the block, from 1.
    pub block: u32,
    /// Number of the round within the block, from 1; each arm has one slice in each round.
    pub round: u32,
    /// Position within the round, from 1.
    pub position: u32,
    /// Start of the measured part, from the start of the block.
    pub start_ns: u64,
    /// Length of the measured part.
    pub measured_ns: u64,
    /// Requests begun in the slice, its ramp included.
    pub planned: u64,
    /// Requests with a right reply.
    pub answered: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Requests that were due and never begun.
    pub unsent: u64,
    /// Failed requests by kind.
    pub errors: ErrorCounts,
    /// Replies within the measured part.
    pub replies: u64,
    /// The same replies per second.
    pub throughput_per_second: f64,
    /// Median latency.
    pub latency_p50_ns: Option<u64>,
    /// 99th percentile of latency.
    pub latency_p99_ns: Option<u64>,
    /// Median time to connect.
    pub connect_p50_ns: Option<u64>,
    /// CPU time of the server's process tree since the end of the arm's previous slice.
    pub cpu_ns: Option<u64>,
    /// Delay of the last reply after the start of the next arm's slice; 0 for none.
    pub overrun_ns: u64,
}

/// One arm in one block: the independent unit of the statistics.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct BlockRow {
    /// Version of the columns.
    pub schema_version: u32,
    /// Name of the scenario.
    pub scenario: String,
    /// Number of clients.
    pub clients: u32,
    /// Form of the clients.
    pub driver: Driver,
    /// CPUs of servers and clients.
    pub placement: Placement,
    /// Rate of a rate sweep, as a percentage of the arm's own peak; empty for a closed loop.
    pub load_percent: Option<u32>,
    /// Name of the traffic among the scenario's conditions; empty if all have the same.
    pub traffic: String,
    /// Number of the step of a capacity search, from 1; empty elsewhere.
    pub step: Option<u32>,
    /// Name of the arm.
    pub model: String,
    /// Number of the block, from 1.
    pub block: u32,
    /// `ok`, or the reason why the arm has no values.
    pub status: BlockStatus,
    /// `valid`, or the conditions that limited or disturbed the arm's figures.
    pub validity: Validity,
    /// Planned request rate of an open loop.
    pub rate_per_second: Option<f64>,
    /// Requests planned: begun, or due and not begun.
    pub planned: u64,
    /// Requests with a right reply.
    pub answered: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Requests that were due and never begun.
    pub unsent: u64,
    /// Failed requests by kind.
    pub errors: ErrorCounts,
    /// Clients that asked and were never answered.
    pub clients_never_served: u64,
    /// Jain's fairness index of the clients' answered requests, 1 for equal shares.
    pub jain_index: Option<f64>,
    /// Answered requests of the client with the fewest.
    pub client_least_requests: Option<u64>,
    /// Answered requests of the client with the most.
    pub client_most_requests: Option<u64>,
    /// Longest time from a client's first request to its first reply; empty if a client has none.
    pub first_reply_max_ns: Option<u64>,
    /// Requests by the server's own count.
    pub server_requests: Option<u64>,
    /// Replies per second, median over slices.
    pub throughput_per_second: Option<f64>,
    /// Median latency over all slices.
    pub latency_p50_ns: Option<u64>,
    /// 90th percentile of latency.
    pub latency_p90_ns: Option<u64>,
    /// 99th percentile of latency.
    pub latency_p99_ns: Option<u64>,
    /// 99.9th percentile of latency.
    pub latency_p999_ns: Option<u64>,
    /// 99.99th percentile of latency.
    pub latency_p9999_ns: Option<u64>,
    /// Largest latency.
    pub latency_max_ns: Option<u64>,
    /// Median service time of an open loop, from when a request was sent.
    pub service_p50_ns: Option<u64>,
    /// 99th percentile of service time.
    pub service_p99_ns: Option<u64>,
    /// Median delay between a request's due time and its sending.
    pub lag_p50_ns: Option<u64>,
    /// 99th percentile of the same delay.
    pub lag_p99_ns: Option<u64>,
    /// Median time to connect.
    pub connect_p50_ns: Option<u64>,
    /// Connections opened per second before the first slice, the start of the clients included; empty
    /// under churn, and with a ramp-up.
    pub connected_per_second: Option<f64>,
    /// CPU time of the server's process tree over all slices, for each answered request.
    pub cpu_ns_per_request: Option<f64>,
    /// User part of the same CPU time, from ticks of 10 ms.
    pub cpu_user_ns_per_request: Option<f64>,
    /// System part of the same CPU time, from ticks of 10 ms.
    pub cpu_system_ns_per_request: Option<f64>,
    /// Context switches of the server's threads for each answered request; empty under churn for models
    /// whose threads and processes come and go with the connections.
    pub context_switches_per_request: Option<f64>,
    /// CPUs that the server kept busy during its slices.
    pub server_cpus: Option<f64>,
    /// CPUs that the clients kept busy during the same slices.
    pub client_cpus: Option<f64>,
    /// CPUs that were idle during the whole block, all arms together.
    pub idle_cpus: Option<f64>,
    /// CPUs kept busy during the whole block by processes that are neither server nor client.
    pub other_cpus: Option<f64>,
    /// Time during the block in which the hypervisor ran another guest, over all CPUs.
    pub steal_ns: Option<u64>,
    /// Time during the block in which some task waited for a CPU; most of these tasks are our own.
    pub cpu_pressure_ns: Option<u64>,
    /// Count of times that another task had the CPU while a client watched the clock, in an open loop.
    pub hiccups: u64,
    /// Longest time that the experiment's own process, which does nothing but watch the clock, waited
    /// for a CPU.
    pub stall_max_ns: u64,
    /// Number of hosts of the clients; empty if servers and clients were on one host.
    pub load_hosts: Option<u64>,
    /// Shortest time in which a client connected to the server's host: one round trip of the network and the
    /// work of both kernels; empty on one host.
    pub network_rtt_ns: Option<u64>,
    /// Largest error of the clock of any host during the block; empty on one host.
    pub clock_bound_ns: Option<u64>,
    /// Growth of the anonymous memory (PSS) of the server's process tree by the connections, for each of
    /// them; empty under churn.
    pub memory_bytes_per_connection: Option<f64>,
    /// Growth of the kernel stacks of the same tree, computed from its threads, 16 KiB each.
    pub kernel_stack_bytes_per_connection: Option<f64>,
    /// Growth of the page tables of the same tree.
    pub page_table_bytes_per_connection: Option<f64>,
    /// Kernel structures of the server's end of a connection, by the sizes of its slab objects.
    pub socket_bytes_per_connection: Option<f64>,
    /// Processes of the server's tree while the connections are open.
    pub server_processes: Option<u64>,
    /// Threads of the same processes.
    pub server_threads: Option<u64>,
    /// CPU time of the server's process tree over its whole life, as reaped.
    pub server_cpu_ns: Option<u64>,
    /// Anonymous memory (PSS) of the server's process tree before the first connection.
    pub memory_at_rest_bytes: Option<u64>,
    /// Connections accepted by the worker with the fewest, over the server's life; empty where workers
    /// do not accept.
    pub worker_least_connections: Option<u64>,
    /// Connections accepted by the worker with the most.
    pub worker_most_connections: Option<u64>,
    /// Jain's fairness index of the connections of each worker, 1 for equal shares.
    pub worker_jain_index: Option<f64>,
}

impl BlockRow {
    /// Reason why the arm was not run, if it was skipped.
    #[must_use]
    pub fn skipped(&self) -> Option<&str> {
        match &self.status {
            BlockStatus::Skipped(reason) => Some(reason),
            BlockStatus::Ok | BlockStatus::Failed(_) => None,
        }
    }

    /// Whether its values enter the statistics.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.status == BlockStatus::Ok
    }

    /// Violations of correctness, which no load excuses: wrong replies, dead clients, and counts that
    /// differ between clients and server. `messages` may explain the kinds of errors.
    #[must_use]
    pub fn violations(&self, messages: &BTreeMap<ErrorKind, String>) -> Vec<String> {
        let place = format!(
            "{}, {}, {}, block {}",
            self.scenario,
            self.condition().clients_in_words(),
            self.model,
            self.block
        );

        let mut violations = Vec::new();

        for kind in [
            ErrorKind::WrongBytes,
            ErrorKind::EarlyReply,
            ErrorKind::ProtocolError,
            ErrorKind::ClientDied,
        ] {
            let count = self.errors.count(kind);
            if count > 0 {
                let why = messages.get(&kind);
                let why = why.map_or_else(String::new, |message| format!(" ({message})"));
                violations.push(format!("{place}: {}: {count}{why}", kind.words()));
            }
        }

        if let Some(counted) = self.server_requests
            && self.failed == 0
            && counted != self.answered
        {
            violations.push(format!(
                "{place}: the clients had {} replies, the server counted {counted} requests",
                self.answered
            ));
        }

        violations
    }
}

/// One arm and metric over all blocks.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SummaryRow {
    /// Version of the columns.
    pub schema_version: u32,
    /// Name of the scenario.
    pub scenario: String,
    /// Number of clients.
    pub clients: u32,
    /// Form of the clients.
    pub driver: Driver,
    /// CPUs of servers and clients.
    pub placement: Placement,
    /// Rate of a rate sweep, as a percentage of the arm's own peak; empty for a closed loop.
    pub load_percent: Option<u32>,
    /// Name of the traffic among the scenario's conditions; empty if all have the same.
    pub traffic: String,
    /// Number of the step of a capacity search, from 1; empty elsewhere.
    pub step: Option<u32>,
    /// Name of the arm.
    pub model: String,
    /// Name of the metric, its unit last.
    pub metric: Metric,
    /// Median over the blocks, or their sum, as `method` says.
    pub estimate: Option<f64>,
    /// Lower end of the estimate's interval.
    pub low: Option<f64>,
    /// Upper end of the estimate's interval.
    pub high: Option<f64>,
    /// Coverage of that interval.
    pub level: Option<f64>,
    /// Method by which estimate and interval were found.
    pub method: String,
    /// Blocks with a value.
    pub blocks: usize,
    /// Arm that the ratio refers to; empty for that arm itself.
    pub reference: Option<String>,
    /// Ratio to the reference, median over the blocks.
    pub ratio: Option<f64>,
    /// Lower end of the ratio's interval.
    pub ratio_low: Option<f64>,
    /// Upper end of the ratio's interval.
    pub ratio_high: Option<f64>,
    /// Confidence that the interval needs in its family of comparisons.
    pub ratio_level: Option<f64>,
    /// Result of the comparison with the reference.
    pub verdict: Option<RatioVerdict>,
}

/// One host in one block.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct HostRow {
    /// Version of the columns.
    pub schema_version: u32,
    /// Name of the scenario.
    pub scenario: String,
    /// Number of clients, on all load hosts together.
    pub clients: u32,
    /// Form of the clients.
    pub driver: Driver,
    /// CPUs of servers and clients.
    pub placement: Placement,
    /// Rate of a rate sweep, as a percentage of each arm's own peak; empty for a closed loop.
    pub load_percent: Option<u32>,
    /// Name of the traffic among the scenario's conditions; empty if all have the same.
    pub traffic: String,
    /// Number of the step of a capacity search, from 1; empty elsewhere.
    pub step: Option<u32>,
    /// Name of the block's first arm: arms that do not alternate have blocks of their own.
    pub model: String,
    /// Number of the block, from 1.
    pub block: u32,
    /// Number of the host: 0 for that of the servers, then the load hosts.
    pub host: u32,
    /// `valid`, or the conditions that limited or disturbed the host.
    pub validity: Validity,
    /// Number of clients on a load host.
    pub host_clients: Option<u32>,
    /// Replies per client of a load host, divided by those of the others; median over the arms.
    pub throughput_ratio: Option<f64>,
    /// 99th percentile of latency on a load host, divided by that of the others; median over the arms.
    pub latency_p99_ratio: Option<f64>,
    /// Shortest time in which a client of a load host connected.
    pub network_rtt_ns: Option<u64>,
    /// Shortest round trip to the agent, before the block; empty for this host.
    pub agent_rtt_ns: Option<u64>,
    /// Largest error of the host's clock before the block; empty for this host.
    pub clock_bound_before_ns: Option<u64>,
    /// Largest error of the host's clock after the block; empty for this host.
    pub clock_bound_after_ns: Option<u64>,
    /// Longest time by which a load process was told the start too late.
    pub start_late_ns: Option<u64>,
    /// CPUs that the servers, or the clients, kept busy during the whole block.
    pub own_cpus: f64,
    /// CPUs that were idle during the whole block.
    pub idle_cpus: Option<f64>,
    /// CPUs kept busy by processes that are neither server nor client.
    pub other_cpus: Option<f64>,
    /// Time during the block in which the hypervisor ran another guest, over all CPUs.
    pub steal_ns: Option<u64>,
    /// Time during the block in which some task waited for a CPU.
    pub cpu_pressure_ns: Option<u64>,
    /// Longest time that a process which does nothing but watch the clock waited for a CPU.
    pub stall_max_ns: u64,
}

/// Verdict on a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClaimVerdict {
    /// It holds as far as it was measured.
    Holds,
    /// It does not.
    DoesNotHold,
    /// It holds under a condition that the textbook does not name.
    HoldsOnlyWhen,
    /// The measurement does not decide it.
    Inconclusive,
}

impl ClaimVerdict {
    /// The words in every table.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            ClaimVerdict::Holds => "holds",
            ClaimVerdict::DoesNotHold => "does not hold",
            ClaimVerdict::HoldsOnlyWhen => "holds only when",
            ClaimVerdict::Inconclusive => "inconclusive",
        }
    }
}

/// One figure of a claim, with the verdict of the claim that it belongs to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ClaimRow {
    /// Version of the columns.
    pub schema_version: u32,
    /// Id of the claim.
    pub claim: String,
    /// Name of the figure, its unit last; `a_over_b_ratio` for a ratio.
    pub metric: String,
    /// Place on a curve or in a table; empty for a claim's only figure of this metric.
    pub at: String,
    /// Whether it stands in the table of verdicts, not only in the curves.
    pub headline: bool,
    /// Median over blocks, or a count.
    pub value: Option<f64>,
    /// Lower end of its interval; empty for a count.
    pub low: Option<f64>,
    /// Upper end of its interval; empty for a count.
    pub high: Option<f64>,
    /// Coverage of that interval.
    pub level: Option<f64>,
    /// Number of blocks, each with fresh processes.
    pub blocks: usize,
    /// Verdict on the claim.
    pub verdict: ClaimVerdict,
    /// Condition under which it holds, or the reason why nothing is decided.
    pub condition: String,
    /// `valid`, or `disturbed`.
    pub validity: Validity,
}
