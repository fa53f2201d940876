//! What the clients are to do: targets, traffic and windows of time.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use echobench_protocol::Work;
use serde::{Deserialize, Serialize};

/// How clients are run.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// A thread per client, blocking sockets.
    #[default]
    Threads,
    /// A process per client, blocking sockets; histograms come back serialized and are merged.
    Processes,
    /// A tokio task per client on few threads.
    Tasks,
}

impl Driver {
    /// Every driver.
    pub const ALL: [Driver; 3] = [Driver::Threads, Driver::Processes, Driver::Tasks];
}

impl Driver {
    /// What one client is.
    #[must_use]
    pub fn one(self) -> &'static str {
        match self {
            Driver::Threads => "thread",
            Driver::Processes => "process",
            Driver::Tasks => "task",
        }
    }
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Driver::Threads => "threads",
            Driver::Processes => "processes",
            Driver::Tasks => "tasks",
        })
    }
}

/// A word that does not say what it should.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParseError(String);

impl FromStr for Driver {
    type Err = ParseError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Driver::ALL
            .into_iter()
            .find(|driver| driver.to_string() == name)
            .ok_or_else(|| {
                ParseError(format!(
                    "unknown driver '{name}' (threads, processes, tasks)"
                ))
            })
    }
}

/// A duration as people write it: `5ms`, `1s`, `250us`.
pub fn parse_duration(text: &str) -> Result<Duration, ParseError> {
    humantime::parse_duration(text)
        .map_err(|error| ParseError(format!("'{text}' is not a duration such as 5ms: {error}")))
}

/// The work of the requests: kinds of [`Work`], each with its weight.
///
/// Written as one kind (`none`, `block:5ms`, `spin:50us`) or as several with weights
/// (`none=99,block:10ms=1`). What is marked `first` is the work of the first request on each
/// connection: `block:5s=first` alone, or before the work of the others (`block:5s=first,spin:50us`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct WorkMix {
    first: Option<Work>,
    parts: Vec<(Work, u32)>,
    total: u32,
}

impl WorkMix {
    /// The work of the next request, which may be the first on its connection. A mix of one kind
    /// draws nothing from `random`.
    pub(crate) fn draw(&self, is_first: bool, random: &mut fastrand::Rng) -> Work {
        if let Some(work) = self.first.filter(|_| is_first) {
            return work;
        }
        if let [(work, _)] = self.parts[..] {
            return work;
        }
        let mut at = random.u32(0..self.total);
        for &(work, weight) in &self.parts {
            if at < weight {
                return work;
            }
            at -= weight;
        }
        unreachable!("the weights add up to the total")
    }

    /// The longest work of the mix.
    #[must_use]
    pub fn longest(&self) -> Duration {
        let parts = self.parts.iter().map(|&(work, _)| work);
        let times = parts.chain(self.first).map(Work::duration);
        times.max().unwrap_or_default()
    }
}

impl Default for WorkMix {
    fn default() -> Self {
        WorkMix {
            first: None,
            parts: vec![(Work::None, 1)],
            total: 1,
        }
    }
}

impl FromStr for WorkMix {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (mut first, mut parts) = (None, Vec::new());
        for part in text.split(',') {
            if let Some(work) = part.trim_end().strip_suffix("=first") {
                if first.replace(parse_work(work.trim())?).is_some() {
                    return Err(ParseError(format!("'{text}' has two kinds of first work")));
                }
                continue;
            }
            let (work, weight) = match part.split_once('=') {
                Some((work, weight)) => (work, weight.trim().parse().ok()),
                None => (part, Some(1)),
            };
            let weight = weight.filter(|weight| (1..=1_000_000).contains(weight));
            let weight = weight.ok_or_else(|| {
                ParseError(format!(
                    "the weight in '{part}' is neither a number from 1 to 1000000 nor 'first'"
                ))
            })?;
            parts.push((parse_work(work.trim())?, weight));
        }
        if parts.is_empty() {
            parts.push((Work::None, 1));
        }
        let total = parts.iter().map(|(_, weight)| weight).sum();
        Ok(WorkMix {
            first,
            parts,
            total,
        })
    }
}

impl fmt::Display for WorkMix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = self.first.map(|work| written(work) + "=first");
        let parts = self
            .parts
            .iter()
            .map(|&(work, weight)| match self.parts.len() {
                1 => written(work),
                _ => format!("{}={weight}", written(work)),
            });
        let only_first = first.is_some() && matches!(self.parts[..], [(Work::None, _)]);
        let parts = parts.filter(|_| !only_first);
        f.write_str(&first.into_iter().chain(parts).collect::<Vec<_>>().join(","))
    }
}

impl TryFrom<String> for WorkMix {
    type Error = ParseError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<WorkMix> for String {
    fn from(mix: WorkMix) -> Self {
        mix.to_string()
    }
}

fn written(work: Work) -> String {
    match work {
        Work::None => "none".to_owned(),
        Work::Block(time) => format!("block:{}", humantime::format_duration(time)),
        Work::Spin(time) => format!("spin:{}", humantime::format_duration(time)),
    }
}

fn parse_work(text: &str) -> Result<Work, ParseError> {
    let work = match text.split_once(':') {
        None if text == "none" => return Ok(Work::None),
        Some(("block", time)) => Work::Block(parse_duration(time)?),
        Some(("spin", time)) => Work::Spin(parse_duration(time)?),
        _ => {
            return Err(ParseError(format!(
                "unknown work '{text}' (none, block:5ms, spin:50us, or a mix: none=99,block:10ms=1)"
            )));
        }
    };
    let micros = work.duration().as_nanos();
    if micros % 1000 != 0 || micros / 1000 > u128::from(u32::MAX) {
        return Err(ParseError(format!(
            "the time in '{text}' must be whole microseconds, at most an hour"
        )));
    }
    Ok(work)
}

/// When the requests of an open loop are due, whether or not earlier ones have been answered.
///
/// A client has one request under way at a time: one that is due meanwhile is sent late, and its
/// latency counts from when it was due. (Coordinated omission is what happens otherwise; Gil Tene,
/// "How NOT to Measure Latency".)
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Arrivals {
    /// Requests in a second, of all clients together.
    pub per_second: f64,
    /// How they follow each other.
    pub spacing: Spacing,
}

/// How the requests of an open loop follow each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Spacing {
    /// At even intervals.
    #[default]
    Constant,
    /// At random, independently of each other: a Poisson process.
    Poisson,
}

impl fmt::Display for Spacing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Spacing::Constant => "constant",
            Spacing::Poisson => "poisson",
        })
    }
}

impl FromStr for Spacing {
    type Err = ParseError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        [Spacing::Constant, Spacing::Poisson]
            .into_iter()
            .find(|spacing| spacing.to_string() == name)
            .ok_or_else(|| ParseError(format!("unknown arrivals '{name}' (constant, poisson)")))
    }
}

/// What a client says to its server, and what it takes for a right reply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ask {
    /// Frames with random payload, which come back as they are.
    #[default]
    Bytes,
    /// Frames with the name of the client (`thread 3`), which come back as they are.
    Name,
    /// Nothing: the server speaks first, one line, and closes (RFC 867).
    Time,
}

/// What each client asks of the server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Workload {
    /// What clients say.
    #[serde(default)]
    pub ask: Ask,
    /// Whether to print the text of each right reply on standard output as it arrives.
    #[serde(default)]
    pub print_replies: bool,
    /// Payload of each request in bytes, of [`Ask::Bytes`]; the frame has 24 bytes more.
    pub payload_bytes: u32,
    /// What the server does before it replies.
    pub work: WorkMix,
    /// Pause between a reply and the next request, in nanoseconds. Not for an open loop.
    pub think_ns: u64,
    /// The schedule of an open loop, which does not wait for replies; `None` for a closed loop.
    #[serde(default)]
    pub arrivals: Option<Arrivals>,
    /// Only so many of the clients ask; the others hold an idle connection. `None`: all ask.
    #[serde(default)]
    pub active_clients: Option<u32>,
    /// Requests on a connection before it is closed and a new one opened (1 = churn); `None`: never.
    pub requests_per_connection: Option<u64>,
    /// How long to wait for a connection or a reply, in nanoseconds.
    pub timeout_ns: u64,
    /// Decides payload bytes, the sequence of work and the stagger: the same seed, the same traffic.
    pub seed: u64,
}

impl Default for Workload {
    fn default() -> Self {
        Workload {
            ask: Ask::default(),
            print_replies: false,
            payload_bytes: 64,
            work: WorkMix::default(),
            think_ns: 0,
            arrivals: None,
            active_clients: None,
            requests_per_connection: None,
            timeout_ns: 5_000_000_000,
            seed: 1,
        }
    }
}

/// A stretch of time in which clients send requests, in nanoseconds after the start.
///
/// Each client begins at its own, seeded, moment of the ramp. Requests of the ramp are accounted
/// for but not measured. After the end no request is begun; those under way are completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// When the first client begins.
    pub start_ns: u64,
    /// When the last client has begun and measuring starts; equal to `start_ns` for no ramp.
    pub measure_ns: u64,
    /// When no further request is begun; `u64::MAX` for no end in time.
    pub end_ns: u64,
    /// Requests of all clients together in this window; `None`: as many as there is time for.
    pub requests: Option<u64>,
}

impl Window {
    /// The share of [`Window::requests`] that falls to `client` of `clients`.
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

/// The whole plan of a load process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The server.
    pub target: SocketAddr,
    /// How the clients are run.
    pub driver: Driver,
    /// Number of clients; each has at most one connection and one request under way.
    pub clients: u32,
    /// Threads that share the clients of [`Driver::Tasks`].
    pub task_threads: u32,
    /// What each client asks.
    pub workload: Workload,
    /// When they ask, in order of time.
    pub windows: Vec<Window>,
    /// When everything ends, in nanoseconds after the start: until then connections are kept open.
    /// `None`: each client leaves when it is done, and waits for the timeout of its last request.
    pub end_ns: Option<u64>,
}

impl Plan {
    /// When replies are awaited no longer, in nanoseconds after the start: a little before the end, the
    /// more clients the earlier, so that no place at the server falls to one that waits because the
    /// others close their connections.
    pub(crate) fn last_wait_ns(&self) -> Option<u64> {
        let early_ns = 5_000_000 + 100_000 * u64::from(self.clients);
        self.end_ns.map(|end| end.saturating_sub(early_ns))
    }

    /// How many of the clients ask; the others are idle.
    #[must_use]
    pub fn active_clients(&self) -> u32 {
        self.workload
            .active_clients
            .map_or(self.clients, |active| active.min(self.clients))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_mixes_read_back_as_written() {
        for text in [
            "none",
            "block:5ms",
            "spin:50us",
            "none=99,block:10ms=1",
            "block:5s=first",
            "block:5s=first,spin:50us",
            "block:5s=first,none=99,block:10ms=1",
        ] {
            let mix: WorkMix = text.parse().unwrap();
            assert_eq!(mix.to_string(), text);
        }
    }

    #[test]
    fn bad_work_says_what_is_wrong() {
        for (text, word) in [
            ("sleep:5ms", "unknown work"),
            ("block:5", "duration"),
            ("block:5ns", "microseconds"),
            ("none=0,block:1ms=1", "weight"),
            ("none=x", "weight"),
            ("none=first,block:1s=first", "two kinds"),
        ] {
            let error = text.parse::<WorkMix>().unwrap_err().to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn a_mix_keeps_its_weights() {
        let mix: WorkMix = "none=90,block:1ms=10".parse().unwrap();
        let mut random = fastrand::Rng::with_seed(7);
        let blocked = (0..10_000)
            .filter(|_| mix.draw(false, &mut random) != Work::None)
            .count();
        assert!((850..1150).contains(&blocked), "{blocked}");
    }

    #[test]
    fn the_first_request_may_have_work_of_its_own() {
        let mix: WorkMix = "block:5s=first,spin:50us".parse().unwrap();
        let mut random = fastrand::Rng::with_seed(7);
        let block = Work::Block(Duration::from_secs(5));
        assert_eq!(mix.draw(true, &mut random), block);
        let spin = Work::Spin(Duration::from_micros(50));
        assert_eq!(mix.draw(false, &mut random), spin);
        assert_eq!(mix.longest(), Duration::from_secs(5));
    }

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
}
