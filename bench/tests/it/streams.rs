//! Standard streams that take nothing: no command panics, files are written, and lost data is not a success.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::common::{Server, executable};
use crate::documents::root;
use tempfile::{TempDir, tempdir};

const RUN: &str = "results/2026-11-21-eddd0ca-xeon-2cpu-kvm";
const CLAIMS: &str = "results/2026-11-21-75b2800-xeon-2cpu-kvm-claims";

/// A command that prints data and succeeds, with its arguments as on a command line.
///
/// `{folder}` is a temporary folder, `{run}` a committed run, `{server}` the address of a server.
const COMMANDS: [&str; 18] = [
    "list",
    "about",
    "--help",
    "--version",
    "run --help",
    "completions bash",
    "table {run}",
    "compare {run} {run}",
    "history {results}",
    "claims --list",
    "claims --from {claims}",
    "report {run} --out {folder}/page.html",
    "load {server} --requests 10 --hlog {folder}/latency.hlog",
    "load {server} --requests 10 --json",
    "load {server} --requests 10 --csv",
    "load --serve thread --requests 10",
    "verify {server}",
    "run steady --models thread --blocks 1 --out {folder}/run",
];

struct Fixture {
    folder: TempDir,
    server: Server,
}

impl Fixture {
    fn new() -> Self {
        Fixture {
            folder: tempdir().unwrap(),
            server: Server::start(&["thread"]),
        }
    }

    fn command(&self, arguments: &str) -> Command {
        let own = |name: &str| root().join(name).display().to_string();
        let mut command = executable();
        for argument in arguments.split_whitespace() {
            command.arg(
                argument
                    .replace("{folder}", self.folder.path().to_str().unwrap())
                    .replace("{server}", &self.server.address().to_string())
                    .replace("{run}", &own(RUN))
                    .replace("{claims}", &own(CLAIMS))
                    .replace("{results}", &own("results")),
            );
        }
        command
    }

    fn has(&self, name: &str) -> bool {
        self.folder.path().join(name).exists()
    }
}

fn full() -> Stdio {
    File::options()
        .write(true)
        .open("/dev/full")
        .expect("every Linux has it")
        .into()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_full_output_is_a_failure_that_is_said() {
    for arguments in COMMANDS {
        let fixture = Fixture::new();
        let mut command = fixture.command(arguments);
        let output = command.stdout(full()).stderr(Stdio::piped()).output();
        let output = output.unwrap();

        let errors = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{arguments}: {errors}");
        let last = errors.lines().last().unwrap_or_default();
        let said = "error: cannot write to standard output: No space left on device";
        assert!(last.starts_with(said), "{arguments}: {errors}");
        for file in ["page.html", "latency.hlog", "run"] {
            let wanted = arguments.contains(&format!("{{folder}}/{file}"));
            assert_eq!(fixture.has(file), wanted, "{arguments}: {file}");
        }
    }
}

#[test]
fn an_output_that_nobody_reads_is_a_failure_without_a_word() {
    for arguments in COMMANDS {
        let fixture = Fixture::new();
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = fixture.command(arguments);
        let output = command.stdout(writer).stderr(Stdio::piped()).output();
        let output = output.unwrap();

        let errors = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{arguments}: {errors}");
        assert!(!errors.contains("error"), "{arguments}: {errors}");
    }
}

#[test]
fn messages_that_nobody_takes_change_nothing() {
    for arguments in COMMANDS {
        let fixture = Fixture::new();
        let output = fixture.command(arguments).stderr(full()).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{arguments}");
        assert!(!output.stdout.is_empty(), "{arguments}");
    }
}

#[test]
fn an_error_that_cannot_be_said_keeps_its_code() {
    for arguments in [
        "table {folder}",
        "nonsense",
        "load {folder}",
        "verify nothing",
    ] {
        let fixture = Fixture::new();
        let mut command = fixture.command(arguments);
        let status = command.stdout(full()).stderr(full()).status().unwrap();
        assert_eq!(status.code(), Some(1), "{arguments}");
    }
}

/// The command, with closed descriptors in place of standard streams.
fn closed(command: &Command, redirections: &str) -> Command {
    let mut shell = Command::new("sh");
    shell
        .args(["-c", &format!("exec \"$0\" \"$@\" {redirections}")])
        .arg(command.get_program())
        .args(command.get_args());
    shell
}

#[test]
fn closed_streams_are_like_dev_null() {
    for arguments in COMMANDS {
        for redirections in [">&-", "2>&-", "<&- >&- 2>&-"] {
            let fixture = Fixture::new();
            let command = fixture.command(arguments);
            let status = closed(&command, redirections)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .unwrap();
            assert_eq!(status.code(), Some(0), "{arguments} {redirections}");
        }
    }
}

/// A gate of this build against itself, as short as it may be.
fn small_gate(folder: &Path) -> Command {
    let build = executable();
    let build = build.get_program().to_str().unwrap().to_owned();
    let mut command = executable();
    command.current_dir(folder).args(["gate", "--quick"]).args([
        "--baseline",
        &build,
        "--candidate",
        &build,
        "--models",
        "thread",
        "--export",
        "json=gate.json",
    ]);
    command
}

#[test]
fn a_gate_whose_output_is_full_still_exports_and_keeps_its_verdict() {
    let folder = tempdir().unwrap();
    let measure = || {
        let mut command = small_gate(folder.path());
        let output = command.stdout(full()).stderr(Stdio::piped()).output();
        output.unwrap()
    };

    // On a machine busy with other tests, a request may time out, and then there is no verdict.
    let mut output = measure();
    for _ in 0..4 {
        if stderr(&output).contains("requests failed") {
            output = measure();
        }
    }

    let report = fs::read_to_string(folder.path().join("gate.json"));
    let report = report.unwrap_or_else(|_| panic!("no report: {}", stderr(&output)));
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    let expected = match report["verdict"].as_str().unwrap() {
        "pass" => 1,
        "inconclusive" => 3,
        "regression" => 2,
        other => panic!("{other}"),
    };
    assert_eq!(output.status.code(), Some(expected), "{}", stderr(&output));
}
