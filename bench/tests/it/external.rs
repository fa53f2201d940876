//! Servers of other projects as arms of a run.

use crate::common::place::{Place, TINY, number};
use crate::common::{Running, executable, finish, is_installed};
use nix::sys::signal::Signal;

/// The executable under test as if it were of another project.
fn own(arguments: &str) -> String {
    let program = env!("CARGO_BIN_EXE_echobench");
    format!("'{program}' serve {arguments} --listen 127.0.0.1:{{port}}")
}

/// A shell around it, which does not pass signals on.
fn wrapped() -> String {
    format!("mine=sh -c \"{} & wait\"", own("async"))
}

#[test]
fn an_external_server_stands_in_the_same_table() {
    let place = Place::new();
    let raw = format!("raw={}", own("thread --service raw"));
    let wrapped = wrapped();
    let options = [
        "--models",
        "thread",
        "--external",
        &raw,
        "--external",
        &wrapped,
    ];

    let run = finish(place.run(&options));
    assert_eq!(run.code, Some(0), "{run:?}");

    let blocks = place.rows("blocks.csv");
    assert_eq!(blocks.len(), 2 * 2 * 3);

    for row in &blocks {
        assert_eq!(row["status"], "ok", "{row:?}");
        // Whoever gets no CPU for seconds gets no reply in time; none is ever wrong or lost otherwise.
        let errors = &row["errors"];
        assert!(
            errors.is_empty() || errors.starts_with("timed_out="),
            "{row:?}"
        );
        // Only our own servers count for themselves; all are measured from outside.
        assert_eq!(row["server_requests"].is_empty(), row["model"] != "thread");
        assert!(!row["cpu_ns_per_request"].is_empty(), "{row:?}");
        // Memory is read in good time or not at all.
        if !row["server_processes"].is_empty() {
            let processes = if row["model"] == "mine" { 2 } else { 1 };
            assert_eq!(number(row, "server_processes"), processes, "{row:?}");
        }
    }

    for name in ["thread", "raw", "mine"] {
        assert!(run.stdout.contains(name), "{}", run.stdout);
    }
}

#[test]
fn an_external_server_is_asked_to_end() {
    let place = Place::with(&TINY.replace(", \"processes\"", ""));
    let ended = place.path("ended");
    // A shell that says goodbye, if the signal reaches it, and nothing else.
    let command = format!(
        "mine=sh -c 'trap \"echo goodbye >{}\" TERM; exec >/dev/null 2>&1; {} & wait'",
        ended.display(),
        own("async").replace('\'', "")
    );
    let run = finish(place.run(&["--models", "thread", "--external", &command]));
    assert_eq!(run.code, Some(0), "{run:?}");
    assert_eq!(std::fs::read_to_string(ended).unwrap(), "goodbye\n");
}

#[test]
fn an_external_server_ends_with_a_killed_run() {
    let place = Place::new();
    let wrapped = wrapped();
    let options = [
        "--models",
        "thread",
        "--external",
        &wrapped,
        "--blocks",
        "1000",
    ];

    let run = Running::start(place.run(&options));
    run.processes_until(2, " drive");
    run.signal(Signal::SIGKILL);
    // Nothing is left over, or this fails.
    assert_eq!(run.end().code, None);
}

#[test]
fn an_external_server_that_does_not_start_has_a_row_that_says_so() {
    let place = Place::with(&TINY.replace(", \"processes\"", ""));
    let options = [
        "--models",
        "thread",
        "--external",
        "missing=no-such-program {port}",
        "--external",
        "wordy=sh -c 'echo no licence for {port} >&2; exit 3'",
        "--blocks",
        "1",
    ];
    let run = finish(place.run(&options));
    assert_eq!(run.code, Some(1), "{run:?}");
    for row in place.rows("blocks.csv") {
        let words: &[&str] = match row["model"].as_str() {
            "missing" => &["did not start", "cannot start 'no-such-program'"],
            "wordy" => &["did not start", "exit code 3", "no licence for"],
            _ => &["ok"],
        };
        for word in words {
            assert!(row["status"].contains(word), "{row:?}");
        }
    }
    for name in ["missing", "wordy"] {
        let line = format!("FAILED: {name}, 2 threads");
        assert!(run.stdout.contains(&line), "{}", run.stdout);
    }
}

#[test]
fn what_cannot_be_measured_is_skipped_with_a_reason() {
    let external = |command: &str| {
        format!("[[external]]\nname = \"mine\"\ncommand = \"x {{port}}\"\n{command}\n[traffic]")
    };
    let needing = TINY.replace("[traffic]", &external("needs = \"no-such-program\""));
    let working = TINY.replace("[traffic]", &external(""));
    let working = working.replace("timeout =", "work = \"block:1ms\"\ntimeout =");

    for (scenario, reason) in [
        (needing, "no-such-program is not installed"),
        (working, "does no work"),
    ] {
        let place = Place::with(&scenario);
        let run = finish(place.run(&["--blocks", "1"]));
        assert_eq!(run.code, Some(0), "{run:?}");
        let note = "SKIPPED: mine: ";
        let line = run.stdout.lines().find(|line| line.starts_with(note));
        assert!(line.is_some_and(|line| line.contains(reason)), "{run:?}");
        let skipped = place.rows("blocks.csv").into_iter();
        let skipped: Vec<_> = skipped.filter(|row| row["model"] == "mine").collect();
        assert_eq!(skipped.len(), 2);
        assert!(skipped.iter().all(|row| row["status"].contains(reason)));
        // No time is spent on it.
        assert_eq!(place.rows("slices.csv").len(), 2 * 3 * 3);
    }
}

#[test]
fn arms_that_cannot_live_together_follow_each_other() {
    let scenario = format!("alternate = false\n{TINY}");
    let place = Place::with(&scenario);
    let run = finish(place.run(&["--blocks", "2"]));

    assert_eq!(run.code, Some(0), "{run:?}");
    assert_eq!(place.rows("blocks.csv").len(), 2 * 2 * 3);

    // Each has rounds of its own, with nobody before or after it.
    let slices = place.rows("slices.csv");

    assert_eq!(slices.len(), 2 * 2 * 3 * 2);
    assert!(slices.iter().all(|row| row["position"] == "1"));

    // Their ratios still compare equal blocks.
    let summary = place.rows("summary.csv");
    let throughput = |row: &&crate::common::place::Row| row["metric"] == "throughput_per_second";
    let compared = summary.iter().filter(throughput);

    assert!(compared.clone().count() == 2 * 3, "{summary:?}");

    // On a busy machine an arm may have no reply in a slice of some milliseconds, and then no ratio.
    let with_ratio: Vec<_> = compared.filter(|row| !row["ratio"].is_empty()).collect();

    assert!(!with_ratio.is_empty(), "{summary:?}");
    assert!(
        with_ratio.iter().all(|row| row["model"] != "thread"),
        "{with_ratio:?}"
    );
}

#[test]
fn what_is_no_external_server_is_said_in_a_line() {
    let place = Place::new();
    for (external, words) in [
        ("server", ["server", "{port}"]),
        ("mine=server", ["mine", "{port}"]),
        ("pool=server {port}", ["pool", "name of a model"]),
    ] {
        finish(place.run(&["--external", external])).refused(&words);
    }
    let twice = ["--external", "a=x {port}", "--external", "a=y {port}"];
    finish(place.run(&twice)).refused(&["'a'", "twice"]);
    assert!(!place.results().exists());
}

#[test]
fn servers_in_python_are_compared_where_there_is_python() {
    let there = is_installed("python3");
    let place = Place::new();
    let mut command = executable();
    command
        .args(["run", "languages", "--blocks", "1", "--out"])
        .arg(place.results());
    let run = finish(command);

    assert_eq!(run.code, Some(0), "{run:?}");

    let blocks = place.rows("blocks.csv");
    assert_eq!(blocks.len(), 2 * 7);

    for row in blocks {
        let python = row["model"].starts_with("python-");
        let status = if python && !there {
            "skipped: python3 is not installed"
        } else {
            "ok"
        };
        assert_eq!(row["status"], status, "{row:?}");
        // Whoever gets no CPU for seconds gets no reply in time; none is ever wrong or lost otherwise.
        let errors = &row["errors"];
        assert!(
            errors.is_empty() || errors.starts_with("timed_out="),
            "{row:?}"
        );
    }
}
