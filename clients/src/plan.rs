//! Description of a load: target, driver, traffic and windows of time.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use echobench_protocol::{serde_by_name, textual_enum};
use serde::{Deserialize, Serialize};

use crate::work::WorkMix;

/// Concurrency of the load generator itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Driver {
    /// A thread per client, blocking sockets.
    #[default]
    Threads,
    /// A process per client, blocking sockets; histograms are sent to the parent and merged.
    Processes,
    /// A task per client, in the event loops of few threads.
    Tasks,
}

textual_enum!(Driver, "driver", {
    Threads => "threads",
    Processes => "processes",
    Tasks => "tasks",
});

impl Driver {
    /// Noun for one client: `thread`, `process` or `task`.
    #[must_use]
    pub fn one(self) -> &'static str {
        match self {
            Driver::Threads => "thread",
            Driver::Processes => "process",
            Driver::Tasks => "task",
        }
    }
}

/// Schedule of an open loop: requests are due at times that do not depend on replies.
///
/// A client has one request in flight at a time. A request that becomes due meanwhile is sent late, and
/// its latency counts from the time it was due, which avoids coordinated omission (Gil Tene, "How NOT
/// to Measure Latency").
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Arrivals {
    /// Requests per second, of all clients together.
    pub per_second: f64,
    /// Distribution of the times between requests.
    #[serde(default)]
    pub spacing: Spacing,
}

/// Distribution of the times between the requests of an open loop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Spacing {
    /// Even intervals.
    #[default]
    Constant,
    /// Exponentially distributed intervals: a Poisson process.
    Poisson,
}

textual_enum!(Spacing, "arrivals", {
    Constant => "constant",
    Poisson => "poisson",
});

/// Content of the requests, which also determines the right reply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RequestKind {
    /// Frames with random payload; the reply is the same frame.
    #[default]
    Bytes,
    /// Frames with the name of the client (`thread 3`); the reply is the same frame.
    Name,
    /// No request: the server sends one line of text and closes (RFC 867).
    Time,
}

textual_enum!(RequestKind, "kind of request", {
    Bytes => "bytes",
    Name => "name",
    Time => "time",
});

serde_by_name!(Driver, Spacing, RequestKind);

/// Traffic of each client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Workload {
    /// Content of the requests.
    #[serde(default)]
    pub request_kind: RequestKind,
    /// Print the text of each right reply on standard output as it arrives.
    #[serde(default)]
    pub print_replies: bool,
    /// Payload of each request of [`RequestKind::Bytes`], in bytes; the frame has 24 bytes more.
    pub payload_bytes: u32,
    /// Work of the server before it replies.
    pub work: WorkMix,
    /// Pause between a reply and the next request, in nanoseconds; closed loop only.
    pub think_ns: u64,
    /// Schedule of an open loop; `None` for a closed loop.
    #[serde(default)]
    pub arrivals: Option<Arrivals>,
    /// Number of clients that send requests; the others hold an idle connection. `None`: all of them.
    #[serde(default)]
    pub active_clients: Option<u32>,
    /// Requests on a connection before it is closed and a new one opened (1: churn); `None`: no limit.
    pub requests_per_connection: Option<u64>,
    /// Time before the start over which the clients connect, one after the other at even intervals, in nanoseconds;
    /// 0: all at once. Without effect on clients that connect after the start.
    #[serde(default)]
    pub ramp_up_ns: u64,
    /// Timeout of a connection attempt, and of a reply, in nanoseconds.
    pub timeout_ns: u64,
    /// Seed of payload bytes, order of work and stagger: the same seed makes the same traffic.
    pub seed: u64,
}

impl Default for Workload {
    fn default() -> Self {
        Workload {
            request_kind: RequestKind::default(),
            print_replies: false,
            payload_bytes: 64,
            work: WorkMix::default(),
            think_ns: 0,
            arrivals: None,
            active_clients: None,
            requests_per_connection: None,
            ramp_up_ns: 0,
            timeout_ns: 5_000_000_000,
            seed: 1,
        }
    }
}

/// Interval of time in which clients send requests, in nanoseconds after the start.
///
/// Each client begins at its own seeded moment of the ramp. Requests of the ramp are accounted for but
/// not measured. After the end no request is begun; those in flight are completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Begin of the ramp.
    pub start_ns: u64,
    /// End of the ramp, and begin of the measurement; equal to `start_ns` for no ramp.
    pub measure_ns: u64,
    /// End of the window; `u64::MAX` for no end in time.
    pub end_ns: u64,
    /// Requests of all clients together; `None`: limited by time only.
    pub requests: Option<u64>,
}

impl Window {
    /// Share of [`Window::requests`] of one `client` out of `clients`.
    pub(crate) fn quota(&self, client: u32, clients: u32) -> u64 {
        if client >= clients {
            return 0;
        }
        self.requests.map_or(u64::MAX, |requests| {
            let (client, clients) = (u64::from(client), u64::from(clients));
            requests / clients + u64::from(client < requests % clients)
        })
    }
}

/// A complete load: all that [`run`](crate::run) needs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Address of the server.
    pub target: SocketAddr,
    /// Concurrency of the clients.
    pub driver: Driver,
    /// Number of clients; each has at most one connection and one request in flight.
    pub clients: u32,
    /// Place of these clients among those of several load processes; `None` if they are all.
    #[serde(default)]
    pub part: Option<Part>,
    /// Addresses of this host that the connections come from, in turn; none for those that the system chooses.
    #[serde(default)]
    pub source_addresses: Vec<IpAddr>,
    /// Threads that share the clients of [`Driver::Tasks`].
    pub task_threads: u32,
    /// Traffic of each client.
    pub workload: Workload,
    /// Windows in which requests are sent, in order of time.
    pub windows: Vec<Window>,
    /// End of the load, in nanoseconds after the start: until then connections are kept open.
    /// `None`: each client disconnects as soon as it has finished, after at most one timeout.
    pub end_ns: Option<u64>,
}

/// Place of the clients of one load process among those of a load that several hosts share.
///
/// Every client keeps the number that it would have on one host, and with it its traffic and its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Number of the first client, from 0.
    pub first: u32,
    /// Number of clients of all load processes together.
    pub of: u32,
}

impl Plan {
    /// Numbers of the clients of this process.
    pub(crate) fn numbers(&self) -> Range<u32> {
        let first = self.part.map_or(0, |part| part.first);
        first..first + self.clients
    }

    /// Number of clients of all load processes together.
    pub(crate) fn all_clients(&self) -> u32 {
        self.part.map_or(self.clients, |part| part.of)
    }

    /// Time at which a client connects, in nanoseconds after the first one.
    pub(crate) fn ramp_up_of(&self, client: u32) -> u64 {
        let (client, clients) = (u128::from(client), u128::from(self.all_clients()));
        let delay = u128::from(self.workload.ramp_up_ns) * client / clients.max(1);
        u64::try_from(delay).unwrap_or(u64::MAX)
    }

    /// Latest time to wait for a reply, in nanoseconds after the start.
    ///
    /// It is a little before the end, and earlier with more clients: otherwise a client that is still
    /// waiting could be served by a slot that another client frees by disconnecting at the end.
    pub(crate) fn last_wait_ns(&self) -> Option<u64> {
        let early_ns = 5_000_000 + 100_000 * u64::from(self.all_clients());
        self.end_ns.map(|end| end.saturating_sub(early_ns))
    }

    /// Number of clients of all load processes that send requests; the others are idle.
    #[must_use]
    pub fn active_clients(&self) -> u32 {
        let all = self.all_clients();
        self.workload
            .active_clients
            .map_or(all, |active| active.min(all))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotas_add_up() {
        for (requests, clients) in [(10, 3), (2, 5), (1000, 7), (0, 2)] {
            let window = Window {
                start_ns: 0,
                measure_ns: 0,
                end_ns: 1,
                requests: Some(requests),
            };
            let sum: u64 = (0..clients)
                .map(|client| window.quota(client, clients))
                .sum();
            assert_eq!(sum, requests);
        }
    }

    #[test]
    fn clients_connect_at_even_intervals() {
        let mut plan = Plan {
            target: "127.0.0.1:7".parse().unwrap(),
            driver: Driver::Tasks,
            clients: 4,
            part: None,
            source_addresses: Vec::new(),
            task_threads: 1,
            workload: Workload {
                ramp_up_ns: 1000,
                ..Workload::default()
            },
            windows: Vec::new(),
            end_ns: None,
        };
        let delays = |plan: &Plan| -> Vec<u64> {
            plan.numbers()
                .map(|client| plan.ramp_up_of(client))
                .collect()
        };
        assert_eq!(delays(&plan), [0, 250, 500, 750]);

        // Several hosts share one ramp.
        plan.part = Some(Part { first: 4, of: 8 });
        assert_eq!(delays(&plan), [500, 625, 750, 875]);

        plan.workload.ramp_up_ns = u64::MAX;
        assert_eq!(delays(&plan)[0], u64::MAX / 2);
        plan.workload.ramp_up_ns = 0;
        assert_eq!(delays(&plan), [0; 4]);
    }

    #[test]
    fn names_round_trip_and_errors_list_them() {
        for &driver in Driver::ALL {
            assert_eq!(driver.name().parse(), Ok(driver));
            let json = serde_json::to_string(&driver).unwrap();
            assert_eq!(json, format!("\"{driver}\""));
            assert_eq!(serde_json::from_str::<Driver>(&json).unwrap(), driver);
        }

        let error = "fibres".parse::<Driver>().unwrap_err().to_string();
        assert_eq!(error, "unknown driver 'fibres' (threads, processes, tasks)");
    }
}
