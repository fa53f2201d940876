//! Integration tests against the real executable: one test binary for all of them, because each binary
//! links the whole library.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "what helpers of a test print is shown when it fails"
)]

mod common;

mod accounting;
mod action;
mod browser;
mod capacity;
mod claims;
mod compare;
mod completions;
mod conformance;
mod documents;
mod external;
mod faults;
mod figures;
mod gate;
mod hostile;
mod hosts;
mod injected;
mod interrupts;
mod large;
mod layout;
mod limits;
mod load;
mod probe;
mod quota;
mod readers;
mod report;
mod resume;
mod revision;
mod run;
mod sandbox;
mod scripts;
mod selfcheck;
mod slurm;
mod ssh;
mod streams;
mod systems;
mod tables;
mod traffic;
mod verify;
mod workers;
