//! Registry of the summary's metrics: for each its name, unit, meaning and source.

use echobench_protocol::{serde_by_name, textual_enum};

use super::rows::{BlockRow, SliceRow};

/// Origin of an arm's value of a metric.
#[derive(Clone, Copy)]
pub(super) enum Source {
    /// One value in each slice of a block; the ratio of the block is the median over its rounds.
    Slice(
        fn(&SliceRow, &BlockRow) -> Option<f64>,
        fn(&BlockRow) -> Option<f64>,
    ),
    /// One value in each slice, from which that of the block follows as the median; the ratio of the block is the
    /// median over its rounds.
    SlicesOnly(fn(&SliceRow, &BlockRow) -> Option<f64>),
    /// One value in each block.
    Block(fn(&BlockRow) -> Option<f64>),
    /// Median over the blocks, which is not compared with the reference.
    Median(fn(&BlockRow) -> Option<f64>),
    /// Sum over the blocks, which is not compared with the reference.
    Sum(fn(&BlockRow) -> f64),
}

/// Builds [`Metric`] from lines of: meaning, variant, name, unit, source.
macro_rules! metrics {
    ($($(#[doc = $meaning:literal])+ $metric:ident = $name:literal, $unit:literal, $source:expr;)+) => {
        /// A metric of `summary.csv`, in the order of its rows.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Metric {
            $($(#[doc = $meaning])+ $metric,)+
        }

        textual_enum!(Metric, "metric", { $($metric => $name),+ });

        impl Metric {
            /// The unit of its values; empty for an index.
            #[must_use]
            pub const fn unit(self) -> &'static str {
                match self {
                    $(Metric::$metric => $unit,)+
                }
            }

            /// Its meaning, in a sentence.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self {
                    $(Metric::$metric => concat!($($meaning),+).trim_ascii(),)+
                }
            }

            /// Its value in a block; none for a metric of slices without a column of the block.
            pub(crate) fn of_block(self, block: &BlockRow) -> Option<f64> {
                match self.source() {
                    Source::Slice(_, value) | Source::Block(value) | Source::Median(value) => {
                        value(block)
                    }
                    Source::SlicesOnly(_) => None,
                    Source::Sum(value) => Some(value(block)),
                }
            }

            pub(super) fn source(self) -> Source {
                match self {
                    $(Metric::$metric => $source,)+
                }
            }
        }
    };
}

metrics! {
    /// Replies per second, median over the slices of a block.
    Throughput = "throughput_per_second", "1/s", Source::Slice(
        throughput_of_slice,
        |row| row.throughput_per_second,
    );
    /// Median latency.
    LatencyP50 = "latency_p50_ns", "ns", Source::Slice(
        |slice, block| latency_of_slice(slice, block, slice.latency_p50_ns),
        |row| latency_of_block(row, row.latency_p50_ns),
    );
    /// 99th percentile of latency.
    LatencyP99 = "latency_p99_ns", "ns", Source::Block(|row| latency_of_block(row, row.latency_p99_ns));
    /// 99th percentile of latency in a typical slice: median over the slices of a block.
    SliceLatencyP99 = "slice_latency_p99_ns", "ns", Source::SlicesOnly(
        |slice, block| latency_of_slice(slice, block, slice.latency_p99_ns),
    );
    /// 99.9th percentile of latency.
    LatencyP999 = "latency_p999_ns", "ns", Source::Block(|row| latency_of_block(row, row.latency_p999_ns));
    /// 99.99th percentile of latency.
    LatencyP9999 = "latency_p9999_ns", "ns", Source::Block(|row| latency_of_block(row, row.latency_p9999_ns));
    /// Planned request rate of an open loop.
    PlannedRate = "rate_per_second", "1/s", Source::Median(|row| row.rate_per_second);
    /// Median service time of an open loop, from when a request was sent.
    ServiceP50 = "service_p50_ns", "ns", Source::Block(|row| float(row.service_p50_ns));
    /// 99th percentile of service time.
    ServiceP99 = "service_p99_ns", "ns", Source::Block(|row| float(row.service_p99_ns));
    /// Median delay between a request's due time and its sending.
    LagP50 = "lag_p50_ns", "ns", Source::Median(|row| float(row.lag_p50_ns));
    /// 99th percentile of the same delay.
    LagP99 = "lag_p99_ns", "ns", Source::Median(|row| float(row.lag_p99_ns));
    /// Median time to connect.
    ConnectP50 = "connect_p50_ns", "ns", Source::Block(|row| float(row.connect_p50_ns));
    /// Connections opened per second before the first slice, the start of the clients included.
    ConnectRate = "connected_per_second", "1/s", Source::Median(|row| row.connected_per_second);
    /// CPU time of the server for each answered request.
    CpuPerRequest = "cpu_ns_per_request", "ns", Source::Block(|row| row.cpu_ns_per_request);
    /// User part of the same CPU time.
    CpuUserPerRequest = "cpu_user_ns_per_request", "ns",
        Source::Block(|row| row.cpu_user_ns_per_request);
    /// System part of the same CPU time.
    CpuSystemPerRequest = "cpu_system_ns_per_request", "ns",
        Source::Block(|row| row.cpu_system_ns_per_request);
    /// Context switches of the server's threads for each answered request.
    ContextSwitchesPerRequest = "context_switches_per_request", "switches",
        Source::Block(|row| row.context_switches_per_request);
    /// CPUs that the server kept busy during its slices.
    ServerCpus = "server_cpus", "CPUs", Source::Median(|row| row.server_cpus);
    /// CPUs that the clients kept busy during the same slices.
    ClientCpus = "client_cpus", "CPUs", Source::Median(|row| row.client_cpus);
    /// Growth of the server's anonymous memory (PSS) for each connection.
    MemoryPerConnection = "memory_bytes_per_connection", "B",
        Source::Block(|row| row.memory_bytes_per_connection);
    /// Growth of the server's kernel stacks for each connection.
    KernelStackPerConnection = "kernel_stack_bytes_per_connection", "B",
        Source::Median(|row| row.kernel_stack_bytes_per_connection);
    /// Kernel structures of the server's end of a connection.
    SocketPerConnection = "socket_bytes_per_connection", "B",
        Source::Median(|row| row.socket_bytes_per_connection);
    /// Growth of the server's page tables for each connection.
    PageTablePerConnection = "page_table_bytes_per_connection", "B",
        Source::Median(|row| row.page_table_bytes_per_connection);
    /// Requests that failed.
    FailedRequests = "failed_requests", "requests", Source::Sum(|row| row.failed as f64);
    /// Requests that were due and never sent.
    UnsentRequests = "unsent_requests", "requests", Source::Sum(|row| row.unsent as f64);
    /// Clients that asked and were never answered.
    ClientsNeverServed = "clients_never_served", "clients",
        Source::Median(|row| Some(row.clients_never_served as f64));
    /// Jain's fairness index of the clients' answered requests, 1 for equal shares.
    JainIndex = "jain_index", "", Source::Median(|row| row.jain_index);
    /// Answered requests of the client with the fewest.
    ClientLeastRequests = "client_least_requests", "requests",
        Source::Median(|row| float(row.client_least_requests));
    /// Answered requests of the client with the most.
    ClientMostRequests = "client_most_requests", "requests",
        Source::Median(|row| float(row.client_most_requests));
    /// Longest time from a client's first request to its first reply.
    FirstReplyMax = "first_reply_max_ns", "ns", Source::Median(|row| float(row.first_reply_max_ns));
    /// Anonymous memory (PSS) of the server before the first connection.
    MemoryAtRest = "memory_at_rest_bytes", "B", Source::Median(|row| float(row.memory_at_rest_bytes));
    /// Connections accepted by the worker with the fewest.
    WorkerLeastConnections = "worker_least_connections", "connections",
        Source::Median(|row| float(row.worker_least_connections));
    /// Connections accepted by the worker with the most.
    WorkerMostConnections = "worker_most_connections", "connections",
        Source::Median(|row| float(row.worker_most_connections));
    /// Jain's fairness index of the connections of each worker, 1 for equal shares.
    WorkerJainIndex = "worker_jain_index", "", Source::Median(|row| row.worker_jain_index);
}

serde_by_name!(Metric);

fn float(value: Option<u64>) -> Option<f64> {
    value.map(|value| value as f64)
}

/// Throughput in a slice; `None` if an open loop gave it no reply to expect.
fn throughput_of_slice(slice: &SliceRow, block: &BlockRow) -> Option<f64> {
    // Of an open loop at a low rate, all replies may fall into the ramp.
    let is_expected = !is_open_loop(block) || slice.replies > 0 || stood_still(slice, block);
    is_expected.then_some(slice.throughput_per_second)
}

/// A percentile of latency in a slice, without bound if the arm stood still.
fn latency_of_slice(slice: &SliceRow, block: &BlockRow, ns: Option<u64>) -> Option<f64> {
    let unbounded = stood_still(slice, block).then_some(f64::INFINITY);
    unbounded.or(float(ns))
}

/// A percentile of latency in a block, without bound if no request was answered.
fn latency_of_block(block: &BlockRow, ns: Option<u64>) -> Option<f64> {
    let unanswered = block.planned > 0 && block.answered == 0;
    unanswered.then_some(f64::INFINITY).or(float(ns))
}

/// Whether an arm gave no reply in a slice although requests waited for one.
fn stood_still(slice: &SliceRow, block: &BlockRow) -> bool {
    // In a closed loop, clients that wait for a reply from an earlier slice begin no further request.
    let asked = if is_open_loop(block) {
        slice.planned
    } else {
        block.planned
    };
    asked > 0 && slice.replies == 0 && slice.answered == 0
}

fn is_open_loop(block: &BlockRow) -> bool {
    block.rate_per_second.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_has_a_unit_that_its_name_ends_in() {
        for metric in Metric::ALL {
            let name = metric.name();
            assert!(metric.meaning().ends_with('.'), "{name}");
            assert_eq!(name.parse(), Ok(*metric));

            let expected = match () {
                () if name.ends_with("_ns") || name.contains("_ns_per_") => "ns",
                () if name.contains("_bytes_per_") || name.ends_with("_bytes") => "B",
                () if name.ends_with("_per_second") => "1/s",
                () if name.ends_with("_cpus") => "CPUs",
                () if name.ends_with("_requests") => "requests",
                () if name.ends_with("_connections") => "connections",
                () => continue,
            };
            assert_eq!(metric.unit(), expected, "{name}");
        }
    }
}
