//! The processes that time primitive operations: each operation is performed, and nothing is left of it.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::common::{Finished, Running, eventually, executable, finish};
use echobench::processes::probe::{Between, OPERATIONS, Probe, ProbeArgs, find};
use echobench::scenario::Placement;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

fn probe(arguments: &str) -> Command {
    let mut command = executable();
    command.arg("probe").args(arguments.split_whitespace());
    command
}

/// Runs a probe to the end of its input.
fn answers(arguments: &str, input: &str) -> Finished {
    let (running, mut stdin) = Running::start_with_input(probe(arguments));
    // One that has refused its arguments does not read.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    running.end()
}

fn resident_bytes(pid: Pid) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    // A process between fork and exec has its memory, one at its end has none.
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

#[test]
fn every_operation_takes_time_and_ends_with_its_input() {
    for operation in OPERATIONS {
        let between = match operation.between() {
            [] => &[Between::Threads],
            some => some,
        };
        for between in between {
            for placement in [Placement::None, Placement::Same] {
                let name = operation.name;
                let arguments = format!("{name} --between {between} --placement {placement}");
                let finished = answers(&arguments, "10\n10\n1\n");
                println!("{arguments}: {finished:?}");
                assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""));
                let mut lines = finished.stdout.lines();
                assert_eq!(lines.next(), Some("\"ready\""));
                let times: Vec<u64> = lines.map(|line| line.parse().expect("a number")).collect();
                assert_eq!(times.len(), 3);
                assert!(times.iter().all(|&ns| ns > 0));
            }
        }
    }
}

/// With its standard input still open: by the signal alone.
#[test]
fn it_ends_with_its_parent_and_so_does_the_other_end() {
    for name in ["pipe", "tcp"] {
        let mut shell = Command::new("sh");
        shell
            .args(["-c", r#"exec 3<&0; "$0" "$@" <&3 & wait"#])
            .arg(executable().get_program())
            .args(["probe", name, "--between=processes"]);
        let (running, _stdin) = Running::start_with_input(shell);
        // The shell, the probe and its other end.
        running.processes_until(3, &format!("probe {name}"));
        running.signal(Signal::SIGKILL);
        // Fails if anything is left.
        running.end();
    }
}

#[test]
fn the_memory_is_really_there() {
    const MIB: u64 = 1 << 20;
    let (running, mut stdin) = Running::start_with_input(probe("fork --resident-mib 96"));
    eventually(
        || (resident_bytes(running.pid()) >= 96 * MIB).then_some(()),
        || resident_bytes(running.pid()),
    );
    stdin.write_all(b"3\n").unwrap();
    drop(stdin);
    assert_eq!(running.end().code, Some(0));
}

#[test]
fn what_cannot_be_measured_is_refused() {
    for (arguments, words) in [
        ("sponn", vec!["sponn", "spawn", "tcp"]),
        ("mpsc --between processes", vec!["mpsc", "pipe", "unix"]),
        ("thread --between processes", vec!["thread", "pipe"]),
        ("pipe --between friends", vec!["friends", "processes"]),
        ("thread --placement split", vec!["thread", "same"]),
        ("fork --resident-mib much", vec!["much"]),
    ] {
        println!("{arguments}");
        finish(probe(arguments)).refused(&words);
    }

    let finished = answers("pool", "many\n");
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert!(finished.stderr.contains("'many'"), "{finished:?}");
}

#[test]
fn a_probe_is_asked_again_and_again() {
    let args = ProbeArgs {
        between: Between::Processes,
        ..ProbeArgs::new(find("unix").unwrap())
    };
    let path = executable();
    let mut probe = Probe::start_from(Path::new(path.get_program()), &args).unwrap();
    for operations in [1, 10, 100] {
        assert!(probe.time(operations).unwrap() > Duration::ZERO);
    }
}
