//! The gate as its users meet it: what it prints in each format, what it refuses, and small gates
//! between builds of this tree. Nothing here depends on how fast anything is.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::common::{Finished, Running, eventually, executable, finish, script};
use echobench::gate::builds::{About, Build};
use echobench::gate::export::Format;
use echobench::gate::rule::{
    Finding, GateMetric, GateVerdict, InconclusiveReason, LOOKS, Sample, judge,
};
use echobench::gate::{GateReport, GateServer};
use echobench::results::SCHEMA_VERSION;
use nix::sys::signal::Signal;
use tempfile::TempDir;

const EXECUTABLE: &str = env!("CARGO_BIN_EXE_echobench");

/// A workload of a few seconds in all. The gaps leave time for replies on a busy machine.
pub(crate) const TINY: &str = r#"question = "Does it work?"
models = ["thread", "async"]
clients = [2]
drivers = ["threads"]
placements = ["none"]

[traffic]
payload_bytes = 64
timeout = "5s"

[quick]
blocks = 24
rounds = 3
slice = "2ms"
ramp = "500us"
gap = "10ms"

[full]
blocks = 26
rounds = 3
slice = "2ms"
ramp = "500us"
gap = "10ms"
"#;

fn gate(folder: &Path, arguments: &[&str]) -> Finished {
    let mut command = executable();
    command.current_dir(folder).arg("gate").args(arguments);
    finish(command)
}

fn build(revision: &str) -> GateServer {
    let mut build = Build::open("candidate", Path::new(EXECUTABLE)).unwrap();
    build.about = About {
        echobench: "1.2.3".to_owned(),
        revision: Some(revision.repeat(40)),
        protocol: 1,
        serve: 1,
        models: vec!["thread".to_owned(), "async".to_owned()],
    };
    build.sha256 = revision.repeat(64);
    GateServer::Build(build)
}

fn sample(subject: &str, metric: GateMetric, slower: f64, spread: f64) -> Sample {
    let around = |middle: f64| -> Vec<f64> {
        let value = |block: i32| middle + spread * f64::from((block * 7) % 20 - 10);
        (0..20).map(value).collect()
    };
    Sample {
        subject: subject.to_owned(),
        metric,
        candidate: around(f64::ln_1p(slower)),
        again: around(0.0),
    }
}

/// `thread` costs 7 % more CPU, the tails are unclear, and the rest is as it was.
fn slower() -> GateReport {
    let samples = [
        sample("thread", GateMetric::Throughput, 0.01, 5e-4),
        sample("thread", GateMetric::Cpu, 0.07, 5e-4),
        sample("thread", GateMetric::P99, 0.02, 0.02),
        sample("thread", GateMetric::SliceP99, 0.01, 0.002),
        sample("async", GateMetric::Throughput, -0.02, 5e-4),
        sample("async", GateMetric::Cpu, 0.0, 5e-4),
        sample("async", GateMetric::P99, 0.0, 0.02),
        sample("async", GateMetric::SliceP99, 0.0, 0.02),
    ];

    GateReport {
        schema_version: SCHEMA_VERSION,
        verdict: GateVerdict::Regression,
        reason: None,
        scenario: "gate".to_owned(),
        baseline: build("a"),
        candidate: build("b"),
        blocks: 20,
        looks: 2,
        comparisons: judge(&samples, LOOKS),
        confirmation_blocks: 20,
        confirmation: judge(&samples[1..2], 1),
    }
}

/// The same blocks without the slow one.
fn equal() -> GateReport {
    let mut report = slower();
    report.verdict = GateVerdict::Pass;
    report.comparisons.remove(1);
    report.confirmation_blocks = 0;
    report.confirmation.clear();
    report
}

fn same(text: &str, golden: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(golden);
    let expected = fs::read_to_string(&path).unwrap();
    assert!(
        text == expected,
        "{golden}: expected:\n{expected}\nbut it is:\n{text}"
    );
}

#[test]
fn each_format_is_as_its_readers_expect() {
    let report = slower();
    for (format, golden) in [
        (Format::Table, "gate.txt"),
        (Format::Markdown, "gate.md"),
        (Format::Json, "gate.json"),
        (Format::Bmf, "gate.bmf.json"),
        (
            Format::GithubActionBenchmark,
            "gate.github-action-benchmark.json",
        ),
        (Format::Junit, "gate.xml"),
    ] {
        same(&format.render(&report).unwrap(), golden);
    }
}

#[test]
fn a_pass_says_what_is_not_resolved() {
    same(&Format::Table.render(&equal()).unwrap(), "gate-pass.txt");
}

#[test]
fn a_pass_in_which_all_is_resolved_says_so() {
    let mut report = equal();
    report
        .comparisons
        .retain(|line| line.finding == Finding::Within);
    let table = Format::Table.render(&report).unwrap();
    assert!(
        table.starts_with("gate: pass: every line is within its floor\n"),
        "{table}"
    );
}

#[test]
fn inconclusive_is_never_shown_as_a_pass() {
    let noisy = [
        sample("thread", GateMetric::Throughput, 0.0, 0.02),
        sample("thread", GateMetric::Cpu, 0.0, 5e-4),
    ];

    let mut report = equal();
    report.verdict = GateVerdict::Inconclusive;
    report.reason = Some(InconclusiveReason::TooNoisy);
    report.comparisons = judge(&noisy, LOOKS);
    let table = Format::Table.render(&report).unwrap();

    assert!(
        table.starts_with("gate: inconclusive: thread throughput may be"),
        "{table}"
    );
    assert!(!table.contains("pass"), "{table}");

    let junit = Format::Junit.render(&report).unwrap();
    assert!(junit.contains("errors=\"1\""), "{junit}");
}

#[test]
fn a_small_gate_answers_and_keeps_its_rows() {
    let place = TempDir::new().unwrap();
    fs::write(place.path().join("tiny.toml"), TINY).unwrap();
    let run = gate(
        place.path(),
        &[
            "--baseline",
            EXECUTABLE,
            "--candidate",
            EXECUTABLE,
            "--scenario",
            "tiny.toml",
            "--models",
            "thread",
            "--quick",
            "--seed",
            "1",
            "--out",
            "rows",
            "--export",
            "junit=gate.xml",
            "--export",
            "json=gate.json",
        ],
    );

    // On a busy machine it may not know; that equal builds are a regression, hardly ever.
    let json = fs::read_to_string(place.path().join("gate.json"));
    let json = json.unwrap_or_else(|_| panic!("no report: {run:?}"));
    let report: serde_json::Value = serde_json::from_str(&json).unwrap();
    let expected = match report["verdict"].as_str().unwrap() {
        "pass" => 0,
        "inconclusive" => 3,
        other => panic!("{other}: {json}"),
    };

    assert_eq!(run.code, Some(expected), "{}", run.stderr);
    assert!(run.stdout.starts_with("gate: "), "{}", run.stdout);
    assert!(
        fs::read_to_string(place.path().join("gate.xml"))
            .unwrap()
            .contains("</testsuites>")
    );

    let blocks = fs::read_to_string(place.path().join("rows/blocks.csv")).unwrap();
    // At least the blocks up to the first look, three arms in each, and the names.
    assert!(blocks.lines().count() > 3 * 12, "{blocks}");

    for arm in ["thread baseline1", "thread baseline2", "thread candidate"] {
        assert!(blocks.contains(arm), "{blocks}");
    }

    assert!(place.path().join("rows/gate.json").exists());
}

#[test]
fn files_that_cannot_be_written_are_found_before_the_measurement() {
    let place = TempDir::new().unwrap();
    fs::write(place.path().join("tiny.toml"), TINY).unwrap();
    for export in ["junit=missing/gate.xml", "json=."] {
        let run = gate(
            place.path(),
            &[
                "--baseline",
                EXECUTABLE,
                "--candidate",
                EXECUTABLE,
                "--scenario",
                "tiny.toml",
                "--out",
                "rows",
                "--export",
                "json=gate.json",
                "--export",
                export,
            ],
        );
        run.refused(&["cannot write", export.split_once('=').unwrap().1]);
        assert!(!place.path().join("rows").exists(), "{export}");
    }
}

/// Without standard output and with one export on a full device, the others are written.
#[test]
fn a_lost_report_prevents_no_other_and_keeps_the_code_of_the_verdict() {
    let place = TempDir::new().unwrap();
    fs::write(place.path().join("tiny.toml"), TINY).unwrap();
    let mut command = Command::new("sh");
    command.current_dir(place.path()).args([
        "-c",
        "exec \"$0\" gate --baseline \"$0\" --candidate \"$0\" --scenario tiny.toml --models thread --quick \
         --seed 1 --out rows --export bmf=/dev/full --export junit=gate.xml --export json=gate.json >/dev/full",
        EXECUTABLE,
    ]);
    let run = finish(command);

    let full = "error: cannot write /dev/full: No space left";
    assert!(run.stderr.contains(full), "{}", run.stderr);
    let json = fs::read_to_string(place.path().join("gate.json")).unwrap();
    let junit = fs::read_to_string(place.path().join("gate.xml")).unwrap();
    assert!(junit.contains("</testsuites>"), "{junit}");
    assert!(place.path().join("rows/gate.json").exists());

    let report: serde_json::Value = serde_json::from_str(&json).unwrap();
    let expected = match report["verdict"].as_str().unwrap() {
        "pass" => 1,
        "inconclusive" => 3,
        other => panic!("{other}: {json}"),
    };
    assert_eq!(run.code, Some(expected), "{}", run.stderr);
}

/// The ways in which a gate ends early. The copies of the executables are its only temporary files.
#[test]
fn a_gate_that_is_killed_leaves_no_copies_behind() {
    for signals in [
        &[Signal::SIGKILL][..],
        &[Signal::SIGHUP],
        &[Signal::SIGINT, Signal::SIGINT],
    ] {
        let place = TempDir::new().unwrap();
        let temporary = TempDir::new().unwrap();
        fs::write(place.path().join("tiny.toml"), TINY).unwrap();
        let mut command = executable();
        command
            .current_dir(place.path())
            .env("TMPDIR", temporary.path())
            .args(["gate", "--baseline", EXECUTABLE, "--candidate", EXECUTABLE])
            .args(["--scenario", "tiny.toml", "--out", "rows"]);
        let run = Running::start(command);

        // As soon as there are rows, there are copies, and servers that run them.
        let blocks = place.path().join("rows/blocks.csv");
        let measured = || fs::metadata(&blocks).ok().filter(|file| file.len() > 0);
        eventually(measured, || run.processes());
        for &signal in signals {
            run.signal(signal);
        }
        run.end();

        let left = fs::read_dir(temporary.path()).unwrap().count();
        assert_eq!(left, 0, "{signals:?}");
    }
}

#[test]
fn what_cannot_be_compared_is_refused_in_one_line() {
    let place = TempDir::new().unwrap();
    let mut about = About::this_build();
    about.protocol += 1;
    about.echobench = "9.9.9".to_owned();
    let newer = format!("echo '{}'", serde_json::to_string(&about).unwrap());
    script(place.path(), "newer", &newer);
    script(place.path(), "stranger", "echo hello; echo what >&2");
    fs::write(place.path().join("text"), "hello").unwrap();
    let own = EXECUTABLE;

    for (baseline, more, words) in [
        ("missing", &[][..], &["no baseline executable missing"][..]),
        ("stranger", &[], &["stranger is not an echobench"]),
        ("text", &[], &["text is not an echobench"]),
        (
            "newer",
            &[],
            &[
                "echobench 9.9.9 with protocol 2",
                "compare builds that share them",
            ],
        ),
        (
            own,
            &["--models", "fibre"],
            &["unknown model 'fibre'", "thread, fork"],
        ),
        (
            own,
            &["--blocks", "2"],
            &["2 blocks cannot decide", "26 blocks or more"],
        ),
        (own, &["--scenario", "nope"], &["unknown scenario 'nope'"]),
        (own, &["--scenario", "rate_sweep"], &["needs a closed one"]),
        (own, &["--models", "thread,thread"], &["named twice"]),
    ] {
        let mut arguments = vec!["--baseline", baseline, "--candidate", own];
        arguments.extend(more);
        let run = gate(place.path(), &arguments);
        run.refused(words);
    }
}

/// The executable under test as if it were of another project.
fn foreign(options: &str) -> String {
    format!("'{EXECUTABLE}' serve thread --listen 127.0.0.1:{{port}} {options}")
}

#[test]
fn servers_of_other_projects_are_compared_by_their_commands() {
    let place = TempDir::new().unwrap();
    fs::write(place.path().join("tiny.toml"), TINY).unwrap();
    let baseline = foreign("");
    for (name, candidate) in [
        ("echobench", foreign("--backlog 100")),
        ("mine", format!("mine={}", foreign("--backlog 100"))),
    ] {
        let run = gate(
            place.path(),
            &[
                "--baseline",
                &baseline,
                "--candidate",
                &candidate,
                "--scenario",
                "tiny.toml",
                "--quick",
                "--out",
                name,
                "--export",
                "bmf=gate.bmf.json",
            ],
        );
        assert!(matches!(run.code, Some(0 | 3)), "{run:?}");

        let command = foreign("--backlog 100");
        let about = format!(
            "candidate `{command}` against baseline `{}`,",
            baseline.trim()
        );
        assert!(run.stdout.contains(&about), "{run:?}");
        let json = fs::read_to_string(place.path().join(name).join("gate.json")).unwrap();
        let report: serde_json::Value = serde_json::from_str(&json).unwrap();
        let candidate = serde_json::json!({ "name": name, "command": command });
        assert_eq!(report["candidate"], candidate);
        let lines = report["comparisons"].as_array().unwrap();
        assert_eq!(lines.len(), GateMetric::ALL.len());
        assert!(lines.iter().all(|line| line["subject"] == name), "{json}");
        let bmf = fs::read_to_string(place.path().join("gate.bmf.json")).unwrap();
        assert!(bmf.contains(&format!("\"tiny/{name}\"")), "{bmf}");

        let blocks = fs::read_to_string(place.path().join(name).join("blocks.csv")).unwrap();
        for arm in ["baseline1", "baseline2", "candidate"] {
            assert!(blocks.contains(&format!(",{name} {arm},")), "{blocks}");
        }
    }
}

#[test]
fn servers_of_other_projects_are_tried_before_the_measurement() {
    let place = TempDir::new().unwrap();
    fs::write(place.path().join("tiny.toml"), TINY.replace("5s", "500ms")).unwrap();
    let working = TINY.replace("timeout =", "work = \"spin:1us\"\ntimeout =");
    fs::write(place.path().join("working.toml"), working).unwrap();
    fs::write(place.path().join("text"), "hello").unwrap();
    let good = foreign("");
    let time = foreign("--service time");
    let slow = format!("'{EXECUTABLE}' respond --listen 127.0.0.1:{{port}} --delay 30ms");
    let ended = "sh -c 'echo one >&2; echo no licence for {port} >&2; exit 3'";
    let tries = |command: &str| format!("cannot measure the candidate `{command}`: ");

    for (candidate, words) in [
        (
            "./none {port}",
            &["cannot start './none': No such file"][..],
        ),
        (
            "./text {port}",
            &["cannot start './text': Permission denied"],
        ),
        (ended, &["exit code 3 (no licence for "]),
        ("true {port}", &["exit code 0"]),
        (
            &time,
            &[
                "no request was answered",
                "docs/protocol.md",
                "echobench verify --external",
            ],
        ),
        (
            &slow,
            &["its replies take ", "leaves 10.0 ms", "give a --scenario"],
        ),
        ("sleep 100 {port}", &["no connection to 127.0.0.1:"]),
    ] {
        let mut arguments = vec!["--baseline", &good, "--candidate", candidate];
        arguments.extend(["--scenario", "tiny.toml", "--out", "rows"]);
        let run = gate(place.path(), &arguments);
        run.refused(&[&[&tries(candidate)[..]], words].concat());
        assert!(!place.path().join("rows").exists(), "{candidate}");
    }

    for (baseline, candidate, more, words) in [
        (
            "PORT={port} x",
            &good[..],
            &[][..],
            &["the baseline", "env PORT={port}"][..],
        ),
        (
            &good,
            "bin/pool {port}",
            &[],
            &["the candidate", "'pool' has the name of a model", "mine="],
        ),
        (&good, EXECUTABLE, &[], &["two of a kind"]),
        (EXECUTABLE, &good, &[], &["two of a kind"]),
        (
            &good,
            &good,
            &["--models", "thread"],
            &["--models", "without models"],
        ),
        (
            &good,
            &good,
            &["--scenario", "working.toml"],
            &["'working' asks for work", "only echoes"],
        ),
        (
            &good,
            &good,
            &["--blocks", "20"],
            &["20 blocks cannot decide 4", "22 blocks or more"],
        ),
    ] {
        let mut arguments = vec!["--baseline", baseline, "--candidate", candidate];
        arguments.extend(more);
        gate(place.path(), &arguments).refused(words);
    }
}

#[test]
fn a_server_of_another_project_ends_with_a_killed_gate() {
    let place = TempDir::new().unwrap();
    fs::write(place.path().join("tiny.toml"), TINY).unwrap();
    let wrapped = format!("sh -c \"{} & wait\"", foreign(""));
    let mut command = executable();
    command
        .current_dir(place.path())
        .args(["gate", "--baseline", &wrapped, "--candidate", &wrapped])
        .args(["--scenario", "tiny.toml", "--blocks", "1000"]);
    let run = Running::start(command);
    run.processes_until(3, " drive");
    run.signal(Signal::SIGKILL);
    // Nothing is left over, or this fails.
    assert_eq!(run.end().code, None);
}

/// A results folder of one arm and its reference, on a machine of this kind.
fn results(folder: &Path, name: &str, started: &str, cpus: u64, ratio: f64) {
    let folder = folder.join(name);
    fs::create_dir_all(&folder).unwrap();
    let machine = serde_json::json!({
        "cpu_model": "Xeon", "logical_cpus": cpus, "numa_nodes": 1, "virtualisation": "kvm",
    });
    // What does not belong to the key differs from run to run.
    let environment = serde_json::json!({
        "started": started, "machine": machine, "memory_bytes": ratio.to_bits(), "kernel": started,
    });

    let run = serde_json::json!({ "environment": environment });
    fs::write(folder.join("run.json"), run.to_string()).unwrap();
    let names = "schema_version,scenario,clients,driver,placement,load_percent,traffic,model,metric,estimate,low,\
        high,level,method,blocks,reference,ratio,ratio_low,ratio_high,ratio_level,verdict";
    let (low, high) = (ratio - 0.01, ratio + 0.01);
    let rows = format!(
        "{SCHEMA_VERSION},steady,8,threads,none,,,thread,throughput_per_second,1000,990,1010,0.95,m,10,,,,,,\n\
         {SCHEMA_VERSION},steady,8,threads,none,,,fork,throughput_per_second,900,890,910,0.95,m,10,thread,\
         {ratio},{low},{high},0.95,lower\n"
    );

    fs::write(folder.join("summary.csv"), format!("{names}\n{rows}")).unwrap();
}

fn echobench(folder: &Path, arguments: &[&str]) -> Finished {
    let mut command = executable();
    command.current_dir(folder).args(arguments);
    finish(command)
}

#[test]
fn runs_on_unlike_machines_are_compared_by_ratios_only_and_on_demand() {
    let place = TempDir::new().unwrap();
    results(place.path(), "one", "2026-01-01T00:00:00Z", 2, 0.90);
    results(place.path(), "two", "2026-01-02T00:00:00Z", 2, 0.80);
    results(place.path(), "big", "2026-01-03T00:00:00Z", 64, 0.90);
    let alike = echobench(place.path(), &["compare", "one", "two"]);

    assert_eq!(alike.code, Some(0), "{}", alike.stderr);
    assert!(alike.stdout.contains("-11.1 %*"), "{}", alike.stdout);
    assert!(alike.stdout.contains("1,000/s"), "{}", alike.stdout);

    let unlike = echobench(place.path(), &["compare", "one", "big"]);
    assert_eq!(unlike.code, Some(1));
    assert!(
        unlike.stderr.contains("logical CPUs (2 and 64)"),
        "{}",
        unlike.stderr
    );

    let allowed = echobench(place.path(), &["compare", "one", "big", "--allow-unlike"]);
    assert_eq!(allowed.code, Some(0), "{}", allowed.stderr);
    assert!(allowed.stdout.contains("0.900"), "{}", allowed.stdout);
    assert!(!allowed.stdout.contains("1,000/s"), "{}", allowed.stdout);

    // The same machine, but its CPUs were kept from sleeping.
    let record = place.path().join("two/run.json");
    let asleep = fs::read_to_string(&record).unwrap();
    let awake = asleep.replacen("\"environment\":{", "\"environment\":{\"awake\":true,", 1);

    assert_ne!(awake, asleep);

    fs::write(&record, awake).unwrap();
    let unlike = echobench(place.path(), &["compare", "one", "two"]);

    assert_eq!(unlike.code, Some(1));

    let words = "idle CPUs (asleep and awake)";
    assert!(unlike.stderr.contains(words), "{}", unlike.stderr);

    let history = echobench(place.path(), &["history", "."]);
    for title in [
        "xeon-2cpu-kvm, runs: 1",
        "xeon-2cpu-kvm, CPUs awake, runs: 1",
    ] {
        assert!(history.stdout.contains(title), "{}", history.stdout);
    }
}

#[test]
fn a_history_marks_where_a_ratio_changed() {
    let place = TempDir::new().unwrap();
    for run in 1..=16 {
        let ratio = if run < 9 { 0.90 } else { 0.80 } + 0.001 * f64::from(run % 3);
        results(
            place.path(),
            &format!("run{run:02}"),
            &format!("2026-01-{run:02}T00:00:00Z"),
            2,
            ratio,
        );
    }

    results(place.path(), "other", "2026-01-05T00:00:00Z", 4, 0.5);
    let run = echobench(place.path(), &["history", "."]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(run.stdout.contains("from run09 on"), "{}", run.stdout);

    assert!(
        run.stdout.contains("xeon-2cpu-kvm, runs: 16"),
        "{}",
        run.stdout
    );

    assert!(
        run.stdout.contains("xeon-4cpu-kvm, runs: 1"),
        "{}",
        run.stdout
    );
}
