//! Integration tests against the real executable: one test binary for all of them, because each binary
//! links the whole library.

mod common;

mod accounting;
mod browser;
mod claims;
mod conformance;
mod external;
mod faults;
mod gate;
mod injected;
mod load;
mod probe;
mod report;
mod resume;
mod run;
mod selfcheck;
mod systems;
mod tables;
mod verify;
