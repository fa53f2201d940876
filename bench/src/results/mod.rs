//! The results folder: the only place that knows its files and columns.
//!
//! `run.json` appears whole; `slices.csv`, `blocks.csv` and `latency.hlog` grow by whole blocks, each
//! in one write, `claims.csv` by whole claims; `summary.csv` appears whole. Nothing is ever overwritten by another run.

pub mod histogram_log;
mod resume;
pub mod summary;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use echobench_clients::{Driver, DurationHistogram, ErrorCounts, ErrorKind};
use indexmap::IndexMap;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::host::environment::Environment;
use crate::host::files::write_file;
use crate::results::histogram_log::{interval_log_header, read_interval_line, written_tag};
use crate::scenario::{Placement, Scenario};
use crate::stats::Verdict;

pub use resume::Kept;

/// Rises when a column changes its name or meaning.
pub const SCHEMA_VERSION: u32 = 1;

/// The files of a results folder.
pub const FILES: [&str; 6] = [RECORD, SLICES, BLOCKS, SUMMARY, LATENCY, CLAIMS];
const RECORD: &str = "run.json";
const SLICES: &str = "slices.csv";
const BLOCKS: &str = "blocks.csv";
const SUMMARY: &str = "summary.csv";
const LATENCY: &str = "latency.hlog";
const CLAIMS: &str = "claims.csv";

/// One section of a table: all arms under the same clients.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConditionKey {
    /// Name of the scenario.
    pub scenario: String,
    /// Where servers and clients run.
    pub placement: Placement,
    /// How the clients are run.
    pub driver: Driver,
    /// Number of clients.
    pub clients: u32,
    /// Of a rate sweep, the rate as a percentage of each arm's own peak.
    pub load_percent: Option<u32>,
}

impl ConditionKey {
    /// The name of an arm of the section in the interval log.
    #[must_use]
    pub fn tag(&self, model: &str) -> String {
        let ConditionKey {
            scenario,
            placement,
            driver,
            clients,
            load_percent,
        } = self;
        let load = load_percent
            .map(|percent| format!("/{percent}%"))
            .unwrap_or_default();
        format!("{scenario}/{placement}/{clients}/{driver}{load}/{model}")
    }
}

macro_rules! has_condition {
    ($($row:ty),*) => {$(
        impl $row {
            /// The section it belongs to.
            #[must_use]
            pub fn condition(&self) -> ConditionKey {
                ConditionKey {
                    scenario: self.scenario.clone(),
                    placement: self.placement,
                    driver: self.driver,
                    clients: self.clients,
                    load_percent: self.load_percent,
                }
            }
        }
    )*};
}

has_condition!(SliceRow, BlockRow, SummaryRow);

/// One arm in one slice: the raw observation.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SliceRow {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Name of the scenario.
    pub scenario: String,
    /// Number of clients.
    pub clients: u32,
    /// How they are run.
    pub driver: Driver,
    /// Where servers and clients run.
    pub placement: Placement,
    /// Of a rate sweep, the rate as a percentage of the arm's own peak; empty for a closed loop.
    pub load_percent: Option<u32>,
    /// The arm.
    pub model: String,
    /// The block, from 1.
    pub block: u32,
    /// The round within the block, from 1; each arm has one slice in each.
    pub round: u32,
    /// The position within the round, from 1.
    pub position: u32,
    /// Begin of the measured part after the start of the block.
    pub start_ns: u64,
    /// Length of the measured part.
    pub measured_ns: u64,
    /// Requests begun in the slice, its ramp included.
    pub planned: u64,
    /// Those answered rightly.
    pub answered: u64,
    /// Those that failed.
    pub failed: u64,
    /// Those that were due and never begun.
    pub unsent: u64,
    /// The failures by kind, as in `timed_out=3;reset=1`.
    pub errors: ErrorCounts,
    /// Replies within the measured part.
    pub replies: u64,
    /// Those, per second.
    pub throughput_per_second: f64,
    /// Median latency.
    pub latency_p50_ns: Option<u64>,
    /// 99th percentile of latency.
    pub latency_p99_ns: Option<u64>,
    /// Median time to connect.
    pub connect_p50_ns: Option<u64>,
    /// CPU time of the server's whole tree since the end of the arm's slice before.
    pub cpu_ns: Option<u64>,
    /// How much later than the next arm's slice began the last reply came; 0 for none.
    pub overrun_ns: u64,
}

/// One arm in one block: the independent unit of the statistics.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct BlockRow {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Name of the scenario.
    pub scenario: String,
    /// Number of clients.
    pub clients: u32,
    /// How they are run.
    pub driver: Driver,
    /// Where servers and clients run.
    pub placement: Placement,
    /// Of a rate sweep, the rate as a percentage of the arm's own peak; empty for a closed loop.
    pub load_percent: Option<u32>,
    /// The arm.
    pub model: String,
    /// The block, from 1.
    pub block: u32,
    /// `ok`, or what went wrong with the arm, or `skipped: ` and why; then nothing of it enters the
    /// statistics.
    pub status: String,
    /// `valid`, or by what the block's figures of this arm were limited or disturbed, as in
    /// `generator;disturbed` (see [`Validity`]).
    pub validity: String,
    /// Of an open loop, the planned requests in a second.
    pub rate_per_second: Option<f64>,
    /// Requests planned: begun, or due and not begun.
    pub planned: u64,
    /// Those answered rightly.
    pub answered: u64,
    /// Those that failed.
    pub failed: u64,
    /// Those that were due and never begun.
    pub unsent: u64,
    /// The failures by kind, as in `timed_out=3;reset=1`.
    pub errors: ErrorCounts,
    /// Clients that asked and were never answered.
    pub clients_never_served: u64,
    /// Jain's fairness index of the clients' answered requests, 1 for equal shares.
    pub jain_index: Option<f64>,
    /// Answered requests of the client with the fewest.
    pub client_least_requests: Option<u64>,
    /// Answered requests of the client with the most.
    pub client_most_requests: Option<u64>,
    /// The longest time from a client's first request to its first reply; none if a client has none.
    pub first_reply_max_ns: Option<u64>,
    /// Requests by the server's own count.
    pub server_requests: Option<u64>,
    /// Median over slices.
    pub throughput_per_second: Option<f64>,
    /// Percentiles of latency over all slices.
    pub latency_p50_ns: Option<u64>,
    /// 90th.
    pub latency_p90_ns: Option<u64>,
    /// 99th.
    pub latency_p99_ns: Option<u64>,
    /// 99.9th.
    pub latency_p999_ns: Option<u64>,
    /// 99.99th.
    pub latency_p9999_ns: Option<u64>,
    /// Largest.
    pub latency_max_ns: Option<u64>,
    /// Of an open loop, median service time: from when a request was sent.
    pub service_p50_ns: Option<u64>,
    /// 99th percentile of service time.
    pub service_p99_ns: Option<u64>,
    /// Median of how much later than due requests were sent.
    pub lag_p50_ns: Option<u64>,
    /// 99th percentile of the same.
    pub lag_p99_ns: Option<u64>,
    /// Median time to connect.
    pub connect_p50_ns: Option<u64>,
    /// Connections opened in a second before the first slice, starting the clients included; none under
    /// churn.
    pub connected_per_second: Option<f64>,
    /// CPU time of the server's tree over all slices for each answered request.
    pub cpu_ns_per_request: Option<f64>,
    /// The user part of it, from ticks of 10 ms.
    pub cpu_user_ns_per_request: Option<f64>,
    /// The system part of it, from ticks of 10 ms.
    pub cpu_system_ns_per_request: Option<f64>,
    /// Context switches of the server's threads for each answered request; none under churn, where
    /// threads and processes come and go.
    pub context_switches_per_request: Option<f64>,
    /// CPUs the server kept busy during its slices.
    pub server_cpus: Option<f64>,
    /// CPUs the clients kept busy during the same.
    pub client_cpus: Option<f64>,
    /// CPUs that nothing kept busy during the whole block, all arms together.
    pub idle_cpus: Option<f64>,
    /// CPUs kept busy during the whole block by what is neither server nor client.
    pub other_cpus: Option<f64>,
    /// Time during the block in which the hypervisor ran something else, over all CPUs.
    pub steal_ns: Option<u64>,
    /// Time during the block in which some task waited for a CPU; most of them are ours.
    pub cpu_pressure_ns: Option<u64>,
    /// How often something else had the CPU while a client watched the clock, in an open loop.
    pub hiccups: u64,
    /// The longest stretch in which the experiment itself, which does nothing but watch the clock,
    /// did not get a CPU.
    pub stall_max_ns: u64,
    /// Growth of the anonymous memory (PSS) of the server's tree by the connections, for each of
    /// them; none under churn.
    pub memory_bytes_per_connection: Option<f64>,
    /// Growth of the kernel stacks of the same, computed from its threads, 16 KiB each.
    pub kernel_stack_bytes_per_connection: Option<f64>,
    /// Growth of the page tables of the same.
    pub page_table_bytes_per_connection: Option<f64>,
    /// The kernel's structures for the server's end of a connection, by the sizes of its slab objects.
    pub socket_bytes_per_connection: Option<f64>,
    /// Processes of the server's tree while the connections are open.
    pub server_processes: Option<u64>,
    /// Threads of the same.
    pub server_threads: Option<u64>,
    /// CPU time of the server's tree over its whole life, as reaped.
    pub server_cpu_ns: Option<u64>,
}

/// What may be wrong with the figures of an arm in a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// The clients had no CPU left while the server had: the figures are those of the generator.
    Generator,
    /// Requests of an open loop were sent late although their connection was free.
    Late,
    /// Replies came only after the next arm's slice had begun.
    Overran,
    /// Something else used the machine, or the machine stood still.
    Disturbed,
    /// No local ports were left.
    Ports,
    /// No open files were left to the clients or to the server.
    Files,
    /// The server refused connections: it had as many as it may, or could start no process or thread.
    Refused,
}

impl Validity {
    /// The word in the column.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Validity::Generator => "generator",
            Validity::Late => "late",
            Validity::Overran => "overran",
            Validity::Disturbed => "disturbed",
            Validity::Ports => "ports",
            Validity::Files => "files",
            Validity::Refused => "refused",
        }
    }

    /// The column; `valid` where nothing is wrong.
    #[must_use]
    pub fn column(troubles: &[Validity]) -> String {
        if troubles.is_empty() {
            return BlockRow::VALID.to_owned();
        }
        troubles
            .iter()
            .map(|trouble| trouble.word())
            .collect::<Vec<_>>()
            .join(";")
    }
}

impl BlockRow {
    /// The validity of an arm whose figures nothing has limited or disturbed.
    pub const VALID: &str = "valid";

    /// The status of an arm with which nothing went wrong.
    pub const OK: &str = "ok";

    /// How the status of an arm begins that was not run because it cannot be, here or in this scenario.
    pub const SKIPPED: &str = "skipped: ";

    /// Why the arm was not run, if it was skipped.
    #[must_use]
    pub fn skipped(&self) -> Option<&str> {
        self.status.strip_prefix(Self::SKIPPED)
    }

    /// Whether its values enter the statistics.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.status == Self::OK
    }
}

/// One arm and metric over all blocks.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SummaryRow {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Name of the scenario.
    pub scenario: String,
    /// Number of clients.
    pub clients: u32,
    /// How they are run.
    pub driver: Driver,
    /// Where servers and clients run.
    pub placement: Placement,
    /// Of a rate sweep, the rate as a percentage of the arm's own peak; empty for a closed loop.
    pub load_percent: Option<u32>,
    /// The arm.
    pub model: String,
    /// Name of the metric, its unit last.
    pub metric: String,
    /// Median over the blocks, or their sum, as `method` says.
    pub estimate: Option<f64>,
    /// Lower end of the estimate's interval.
    pub low: Option<f64>,
    /// Upper end of the estimate's interval.
    pub high: Option<f64>,
    /// Coverage of that interval.
    pub level: Option<f64>,
    /// How estimate and interval were found.
    pub method: String,
    /// Blocks with a value.
    pub blocks: usize,
    /// The arm the ratio refers to; empty for that arm itself.
    pub reference: Option<String>,
    /// Median over the blocks of the ratio to the reference.
    pub ratio: Option<f64>,
    /// Lower end of the ratio's interval.
    pub ratio_low: Option<f64>,
    /// Upper end of the ratio's interval.
    pub ratio_high: Option<f64>,
    /// Confidence that the interval needs in its family of comparisons.
    pub ratio_level: Option<f64>,
    /// What the comparison came to.
    pub verdict: Option<Verdict>,
}

/// What a claim came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClaimVerdict {
    /// It holds as far as it was measured.
    Holds,
    /// It does not.
    DoesNotHold,
    /// It holds under a condition that the textbook does not name.
    HoldsOnlyWhen,
    /// What was measured does not decide it.
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
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The claim's id.
    pub claim: String,
    /// What was measured, its unit last; `a_over_b_ratio` for a ratio.
    pub metric: String,
    /// Where on a curve or in a table; empty for a claim's only figure of this metric.
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
    /// Blocks, each with fresh processes.
    pub blocks: usize,
    /// What the claim came to.
    pub verdict: ClaimVerdict,
    /// Under which condition it holds, or why nothing is decided.
    pub condition: String,
    /// `valid`, or `disturbed`.
    pub validity: String,
}

/// The record of a run: `run.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunRecord {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// `quick` or `full`.
    pub effort: String,
    /// Decides the orders of the arms and the clients' traffic.
    pub seed: u64,
    /// `running`, `complete`, or why it ended early.
    pub status: String,
    /// When it was taken up again after it had been cut short, in RFC 3339, UTC.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resumed: Vec<String>,
    /// The machine and the build.
    pub environment: Environment,
    /// The scenarios as they were run, by name, in the order of the tables.
    pub scenarios: IndexMap<String, Scenario>,
}

impl BlockRow {
    /// What must never happen, whatever the load: wrong replies, dead clients, and counts that differ
    /// between clients and server. `messages` may explain the kinds of errors.
    #[must_use]
    pub fn violations(&self, messages: &BTreeMap<ErrorKind, String>) -> Vec<String> {
        let place = format!(
            "{}, {} {}, {}, block {}",
            self.scenario, self.clients, self.driver, self.model, self.block
        );
        let mut violations = Vec::new();
        for kind in [
            ErrorKind::WrongBytes,
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

/// A results folder that is being written.
pub struct Writer {
    folder: PathBuf,
    slices: File,
    /// Locked, so that no two runs write to the same folder.
    blocks: Flock<File>,
    latency: File,
    /// The first rows bring the line of names with them.
    named: bool,
}

impl Writer {
    /// Makes the folder, which must not exist yet or be empty.
    pub fn create(folder: &Path, record: &RunRecord) -> anyhow::Result<Self> {
        let place = || format!("cannot write results to {}", folder.display());
        make_empty(folder)?;
        let mut writer = Self::open(folder)?;
        writer
            .latency
            .write_all(interval_log_header().as_bytes())
            .with_context(place)?;
        writer.record(record)?;
        Ok(writer)
    }

    /// Opens the files that grow.
    fn open(folder: &Path) -> anyhow::Result<Self> {
        let append = |name: &str| append_to(folder, name);
        let blocks = Flock::lock(append(BLOCKS)?, FlockArg::LockExclusiveNonblock);
        let blocks = match blocks {
            Ok(blocks) => blocks,
            Err((_, Errno::EWOULDBLOCK)) => {
                bail!(
                    "another run is writing to {}; wait for it",
                    folder.display()
                )
            }
            Err((_, error)) => bail!("cannot lock {}/blocks.csv: {error}", folder.display()),
        };
        Ok(Writer {
            slices: append(SLICES)?,
            blocks,
            latency: append(LATENCY)?,
            named: false,
            folder: folder.to_owned(),
        })
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Adds the rows of one block, all or none.
    pub fn block(
        &mut self,
        slices: &[SliceRow],
        blocks: &[BlockRow],
        latency: &str,
    ) -> anyhow::Result<()> {
        let place = || format!("cannot write results to {}", self.folder.display());
        let names = !std::mem::replace(&mut self.named, true);
        self.slices
            .write_all(csv_text(slices, names)?.as_bytes())
            .with_context(place)?;
        self.latency
            .write_all(latency.as_bytes())
            .with_context(place)?;
        // Last, since a block counts as finished when it has its row here.
        self.blocks
            .write_all(csv_text(blocks, names)?.as_bytes())
            .with_context(place)
    }

    /// Writes or replaces `run.json`.
    pub fn record(&self, record: &RunRecord) -> anyhow::Result<()> {
        write_record(&self.folder, record)
    }

    /// Writes or replaces `summary.csv`.
    pub fn summary(&self, summary: &[SummaryRow]) -> anyhow::Result<()> {
        write_file(&self.folder.join(SUMMARY), &csv_text(summary, true)?)
    }
}

/// The results folder of the ledger of claims that is being written.
pub struct ClaimsWriter {
    folder: PathBuf,
    claims: File,
    /// The first rows bring the line of names with them.
    named: bool,
}

impl ClaimsWriter {
    /// Makes the folder, which must not exist yet or be empty.
    pub fn create(folder: &Path, record: &RunRecord) -> anyhow::Result<Self> {
        make_empty(folder)?;
        write_record(folder, record)?;
        Ok(ClaimsWriter {
            claims: append_to(folder, CLAIMS)?,
            named: false,
            folder: folder.to_owned(),
        })
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Adds the rows of one claim, all or none.
    pub fn claim(&mut self, rows: &[ClaimRow]) -> anyhow::Result<()> {
        let names = !std::mem::replace(&mut self.named, true);
        self.claims
            .write_all(csv_text(rows, names)?.as_bytes())
            .with_context(|| format!("cannot write results to {}", self.folder.display()))
    }

    /// Writes or replaces `run.json`.
    pub fn record(&self, record: &RunRecord) -> anyhow::Result<()> {
        write_record(&self.folder, record)
    }
}

/// A folder of which nothing can be overwritten.
fn make_empty(folder: &Path) -> anyhow::Result<()> {
    let place = || format!("cannot write results to {}", folder.display());
    fs::create_dir_all(folder).with_context(place)?;
    if fs::read_dir(folder).with_context(place)?.next().is_some() {
        bail!(
            "{} is not empty; results are never overwritten: give another --out",
            folder.display()
        );
    }
    Ok(())
}

fn append_to(folder: &Path, name: &str) -> anyhow::Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(folder.join(name))
        .with_context(|| format!("cannot write results to {}", folder.display()))
}

fn write_record(folder: &Path, record: &RunRecord) -> anyhow::Result<()> {
    write_file(
        &folder.join(RECORD),
        &(serde_json::to_string_pretty(record)? + "\n"),
    )
}

/// Where results go if nobody says otherwise. Short forms are not for keeping: they have a place of
/// their own, which git ignores. `suffix` tells what is in it, if not a run.
#[must_use]
pub fn default_folder(full: bool, environment: &Environment, suffix: &str) -> PathBuf {
    let revision = environment.short_revision().unwrap_or("unknown");
    let now = jiff::Timestamp::now();
    let base = if full {
        let date = now.strftime("%Y-%m-%d");
        let machine = environment.machine.slug();
        Path::new("results").join(format!("{date}-{revision}-{machine}{suffix}"))
    } else {
        let time = now.strftime("%Y-%m-%dT%H%M%SZ");
        Path::new("results/quick").join(format!("{time}-{revision}{suffix}"))
    };
    let next = (2..).map(|n| PathBuf::from(format!("{}-{n}", base.display())));
    std::iter::once(base.clone())
        .chain(next)
        .find(|folder| !folder.exists())
        .unwrap_or(base)
}

/// Rows as CSV, with or without the line of names.
pub(crate) fn csv_text<R: Serialize>(rows: &[R], names: bool) -> anyhow::Result<String> {
    let mut writer = csv::WriterBuilder::new()
        .has_headers(names)
        .from_writer(Vec::new());
    for row in rows {
        writer.serialize(row)?;
    }
    Ok(String::from_utf8(writer.into_inner()?)?)
}

/// The slices of a results folder.
pub fn read_slices(folder: &Path) -> anyhow::Result<Vec<SliceRow>> {
    read(folder, SLICES)
}

/// The blocks of a results folder.
pub fn read_blocks(folder: &Path) -> anyhow::Result<Vec<BlockRow>> {
    read(folder, BLOCKS)
}

/// Whether a results folder is that of a ledger of claims, not that of a run.
#[must_use]
pub fn is_ledger(folder: &Path) -> bool {
    folder.join(CLAIMS).exists() && !folder.join(BLOCKS).exists()
}

/// The claims of a results folder.
pub fn read_claims(folder: &Path) -> anyhow::Result<Vec<ClaimRow>> {
    read(folder, CLAIMS)
}

/// The summary of a results folder; `None` if the run was killed before there was one.
pub fn read_summary(folder: &Path) -> anyhow::Result<Option<Vec<SummaryRow>>> {
    let killed = !folder.join(SUMMARY).exists() && folder.join(BLOCKS).exists();
    if killed {
        Ok(None)
    } else {
        read(folder, SUMMARY).map(Some)
    }
}

/// The record of a run.
pub fn read_record(folder: &Path) -> anyhow::Result<RunRecord> {
    let (path, text) = open(folder, RECORD)?;
    let fault = |error: serde_json::Error| {
        let text = error.to_string();
        // It says the line itself, and last.
        let what = text.split(" at line ").next().unwrap_or(&text);
        anyhow!("{}, line {}: {what}", path.display(), error.line())
    };
    let known: serde_json::Value = serde_json::from_str(&text).map_err(fault)?;
    let version = &known["schema_version"];
    if *version != SCHEMA_VERSION {
        let place = path.display().to_string();
        bail!("{}", other_version(&place, &version.to_string()));
    }
    let mut record: RunRecord = serde_json::from_str(&text).map_err(fault)?;
    for (name, scenario) in &mut record.scenarios {
        scenario.name.clone_from(name);
    }
    Ok(record)
}

/// The latencies of one arm in one block.
pub struct BlockLatency {
    /// Those of answered requests.
    pub histogram: DurationHistogram,
    /// Requests without one, which are slower than all of them.
    pub lost: u64,
}

/// The latencies of a run: for each arm a histogram for each block that counts.
#[derive(Default)]
pub struct Latencies(BTreeMap<String, Vec<BlockLatency>>);

impl Latencies {
    /// Those of an arm, by its [`ConditionKey::tag`].
    #[must_use]
    pub fn of(&self, tag: &str) -> &[BlockLatency] {
        self.0.get(&written_tag(tag)).map_or(&[], Vec::as_slice)
    }
}

/// The latencies of a results folder; none if the folder is without them.
pub fn read_latencies(folder: &Path, blocks: &[BlockRow]) -> anyhow::Result<Latencies> {
    if !folder.join(LATENCY).exists() {
        return Ok(Latencies::default());
    }
    let (path, mut text) = open(folder, LATENCY)?;
    whole_lines(folder, &path, &mut text)?;
    let mut lost: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for row in blocks.iter().filter(|row| row.is_ok()) {
        let tag = written_tag(&row.condition().tag(&row.model));
        lost.entry(tag).or_default().push(row.failed + row.unsent);
    }
    let mut latencies = Latencies::default();
    for (index, line) in text.lines().enumerate() {
        let read = read_interval_line(line)
            .map_err(|error| anyhow!("{}, line {}: {error}", path.display(), index + 1))?;
        let Some((tag, histogram)) = read else {
            continue;
        };
        let known = latencies.0.entry(tag.to_owned()).or_default();
        // A block is written here first: the last one may have no row yet.
        if let Some(&lost) = lost.get(tag).and_then(|lost| lost.get(known.len())) {
            known.push(BlockLatency { histogram, lost });
        }
    }
    Ok(latencies)
}

fn open(folder: &Path, name: &str) -> anyhow::Result<(PathBuf, String)> {
    if !folder.is_dir() {
        bail!(
            "{} is not a folder; give a results folder, such as one under results/",
            folder.display()
        );
    }
    let path = folder.join(name);
    match fs::read_to_string(&path) {
        Ok(text) => Ok((path, text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => bail!(
            "{} is not a results folder: it has no {name}; give one such as those under results/",
            folder.display()
        ),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

fn other_version(place: &str, version: &str) -> String {
    format!(
        "{place}: schema version '{version}', this echobench reads {SCHEMA_VERSION}; take the one that \
         wrote the folder"
    )
}

/// Takes away a line that a run which was killed has left unfinished. Where that cannot have
/// happened, the file is damaged.
fn whole_lines(folder: &Path, path: &Path, text: &mut String) -> anyhow::Result<()> {
    let end = text.rfind('\n').map_or(0, |end| end + 1);
    if end < text.len() {
        let appended = path.file_name().is_some_and(|name| name != SUMMARY);
        let complete = read_record(folder).is_ok_and(|record| record.status == "complete");
        if !appended || complete {
            bail!(
                "{}, line {}: the line breaks off; the file is damaged",
                path.display(),
                text.lines().count()
            );
        }
        text.truncate(end);
    }
    Ok(())
}

/// The rows of a CSV file in a folder.
pub(crate) fn read<R: DeserializeOwned>(folder: &Path, name: &str) -> anyhow::Result<Vec<R>> {
    let lines = read_lines(folder, name)?;
    Ok(lines.into_iter().map(|(row, _)| row).collect())
}

/// The rows of a CSV, each with the position of its end in the file.
fn read_lines<R: DeserializeOwned>(folder: &Path, name: &str) -> anyhow::Result<Vec<(R, u64)>> {
    let (path, mut text) = open(folder, name)?;
    whole_lines(folder, &path, &mut text)?;
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let names = reader.headers()?.clone();
    let mut rows = Vec::new();
    let mut record = csv::StringRecord::new();
    let at = |line: u64| format!("{}, line {line}", path.display());
    loop {
        match reader.read_record(&mut record) {
            Ok(true) => {}
            Ok(false) => return Ok(rows),
            Err(error) => {
                let place = at(error.position().map_or(0, csv::Position::line));
                bail!("{place}: {}", csv_fault(&error, &names));
            }
        }
        let place = at(record.position().map_or(0, csv::Position::line));
        let version = record.get(0).unwrap_or_default();
        if version != SCHEMA_VERSION.to_string() {
            bail!("{}", other_version(&place, version));
        }
        let row = record
            .deserialize(Some(&names))
            .map_err(|error| anyhow!("{place}: {}", csv_fault(&error, &names)))?;
        rows.push((row, reader.position().byte()));
    }
}

/// What is wrong with a line, without the line.
fn csv_fault(error: &csv::Error, names: &csv::StringRecord) -> String {
    match error.kind() {
        csv::ErrorKind::UnequalLengths {
            expected_len, len, ..
        } => format!("{len} fields instead of {expected_len}"),
        csv::ErrorKind::Deserialize { err, .. } => {
            let column = |field: u64| names.get(usize::try_from(field).ok()?);
            match err.field().and_then(column) {
                Some(column) => format!("{column}: {}", err.kind()),
                None => err.kind().to_string(),
            }
        }
        _ => error.to_string(),
    }
}
