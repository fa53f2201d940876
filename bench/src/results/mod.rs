//! Results folders: the only place that knows their files and columns.
//!
//! `run.json` and `summary.csv` are written as a whole. `slices.csv`, `blocks.csv`, `hosts.csv` and `latency.hlog` grow by
//! whole blocks, each in one write, `claims.csv` by whole claims. No run overwrites the files of another.

mod column;
pub mod histogram_log;
mod metric;
pub(crate) mod ordered;
mod percentiles;
mod read;
mod record;
mod resume;
mod rows;
pub mod summary;
mod write;

pub use column::{BlockStatus, EffortName, RunStatus, Validity, ValidityFlag};
pub use metric::Metric;
pub use percentiles::{BlockPercentiles, read_percentiles};
pub use read::{
    is_ledger, read, read_blocks, read_claims, read_hosts, read_record, read_slices, read_summary,
};
pub use record::{HostRecord, RunRecord};
pub use resume::{PlannedRows, ResumableRun, check_slices};
pub use rows::{BlockRow, ClaimRow, ClaimVerdict, ConditionKey, HostRow, SliceRow, SummaryRow};
pub use write::{ClaimsWriter, Writer, create_default_folder, csv_text};

/// Version of the columns; rises when one is added, removed or renamed, or changes its meaning.
pub const SCHEMA_VERSION: u32 = 2;

/// The files of a results folder.
pub const FILES: [&str; 7] = [RECORD, SLICES, BLOCKS, HOSTS, SUMMARY, LATENCY, CLAIMS];
const RECORD: &str = "run.json";
const SLICES: &str = "slices.csv";
const BLOCKS: &str = "blocks.csv";
const HOSTS: &str = "hosts.csv";
const SUMMARY: &str = "summary.csv";
const LATENCY: &str = "latency.hlog";
const CLAIMS: &str = "claims.csv";
