//! Models under a sandbox that forbids what they need: one clear line, skipped rows, skipped tests.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use crate::common::place::Place;
use crate::common::{executable, finish, succeeds};
use nix::errno::Errno;
use nix::libc;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch, apply_filter};

const WORDS: &str = "the kernel or a sandbox forbids io_uring: ";

/// Errors of a sandbox, and of a kernel without `io_uring`, with their words.
const ERRORS: [(Errno, &str); 2] = [
    (Errno::EPERM, "Operation not permitted"),
    (Errno::ENOSYS, "Function not implemented"),
];

/// Makes `io_uring_setup` fail in the command, and in every process that it starts.
fn forbid_io_uring(mut command: Command, error: Errno) -> Command {
    let filter = SeccompFilter::new(
        BTreeMap::from([(libc::SYS_io_uring_setup, Vec::new())]),
        SeccompAction::Allow,
        SeccompAction::Errno((error as i32).cast_unsigned()),
        TargetArch::try_from(std::env::consts::ARCH).unwrap(),
    );
    let filter: BpfProgram = filter.unwrap().try_into().unwrap();
    let refuse = move || apply_filter(&filter).map_err(io::Error::other);

    #[expect(
        unsafe_code,
        reason = "code between fork and exec must be async-signal-safe"
    )]
    // SAFETY: the closure makes two system calls; it allocates only if they fail, in a process of one
    // thread whose parent then gives up.
    unsafe {
        command.pre_exec(refuse)
    };
    command
}

#[test]
fn a_model_that_is_forbidden_is_one_line() {
    let program = env!("CARGO_BIN_EXE_echobench");
    let builds = format!("gate --baseline {program} --candidate {program} --models thread,uring");
    for (error, words) in ERRORS {
        for arguments in ["serve uring", "verify uring", "load --serve uring", &builds] {
            println!("{arguments}");
            let mut command = executable();
            command.args(arguments.split(' '));
            let finished = finish(forbid_io_uring(command, error));
            finished.refused(&["uring", WORDS, words]);
        }
    }
}

#[test]
fn a_model_that_is_forbidden_is_skipped_and_the_others_are_measured() {
    for (error, words) in ERRORS {
        let place = Place::new();
        let run = place.run(&["--models", "uring --workers 2,thread", "--blocks", "1"]);
        let run = finish(forbid_io_uring(run, error));
        assert_eq!(run.code, Some(0), "{run:?}");
        let note = format!("SKIPPED: uring --workers 2: {WORDS}{words}");
        assert!(run.stdout.contains(&note), "{run:?}");

        let rows = place.rows("blocks.csv");
        assert_eq!(rows.len(), 2 * 2);
        for row in rows {
            if row["model"] == "thread" {
                assert_eq!(row["status"], "ok");
            } else {
                let status = format!("skipped: {WORDS}{words}");
                assert!(row["status"].starts_with(&status), "{row:?}");
            }
        }
    }
}

#[test]
fn a_model_that_is_forbidden_is_listed_with_the_reason() {
    let mut command = executable();
    command.arg("list");
    let list = finish(forbid_io_uring(command, Errno::EPERM));
    assert_eq!(list.code, Some(0), "{list:?}");
    let line = list.stdout.lines().find(|line| line.contains("uring"));
    assert!(line.is_some_and(|line| line.contains(WORDS)), "{list:?}");
}

#[test]
fn tests_leave_out_a_model_that_is_forbidden() {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "conformance::sigint_is_as_good", "--nocapture"]);
    let printed = succeeds(&mut forbid_io_uring(command, Errno::EPERM));
    assert!(printed.contains("1 passed"), "{printed}");
    assert!(printed.contains("skipped: uring: "), "{printed}");
    assert!(!printed.contains("model uring"), "{printed}");
}
