//! The experiment of echobench: servers and clients as processes, slices and blocks, statistics,
//! results and tables.
//!
//! `ARCHITECTURE.md` shows how the parts fit together.
//!
//! # Layout
//!
//! | folder | duty |
//! | --- | --- |
//! | [`cli`] | command-line arguments → a study's options → an exit code |
//! | **studies** | **a question that is asked, measured, judged and shown; no study imports another** |
//! | [`run`] | server models under scenarios: engine, tables, verdict sentences, page, history |
//! | [`claims`] | the textbook's claims: registry, experiments, rules, ledger |
//! | [`gate`] | a candidate build against a baseline build |
//! | [`selfcheck`] | the accuracy of this tool on this machine |
//! | [`verify`] | the conformance suite |
//! | [`load`] | the load generator on its own, against any server |
//! | **foundations** | **usable by every study; none imports a study or the command line** |
//! | [`experiment`] | a condition → one block's rows: schedule, order, block, observation |
//! | [`render`] | numbers → text, SVG and HTML |
//! | [`processes`] | the processes that this executable re-executes as, and starting them |
//! | [`results`] | the results folder: the only place that knows files and columns |
//! | [`scenario`] | workloads and arms |
//! | [`host`] | process trees, the machine, CPUs, signals, the environment record |
//! | [`stats`] | sign tests and intervals, families of comparisons, line fit |

pub mod claims;
pub mod cli;
pub mod experiment;
pub mod gate;
pub mod host;
pub mod load;
pub mod processes;
pub mod render;
pub mod results;
pub mod run;
pub mod scenario;
pub mod selfcheck;
pub mod stats;
pub mod verify;
