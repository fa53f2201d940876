//! The server with the known behaviour, and the command that holds the load generator against it.
//! Speeds depend on the machine: only what must hold on any machine is asserted.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{Finished, HANG, Running, executable, finish};
use crate::documents::assert_documented;
use echobench::processes::{child::bind_lifetime, ready_address};
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

/// A responder that does not outlive its test.
struct Responder {
    child: Child,
    address: SocketAddr,
}

impl Responder {
    fn start(options: &str) -> Responder {
        let mut command = executable();
        command
            .arg("respond")
            .args(options.split_whitespace())
            .stdin(Stdio::null())
            .stdout(Stdio::piped());

        let mut child = bind_lifetime(&mut command)
            .spawn()
            .expect("the executable starts");
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().expect("piped"));
        output.read_line(&mut line).expect("a line");
        Responder {
            child,
            address: ready_address(&line).expect("an address"),
        }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("it can be connected to");
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(HANG)).unwrap();
        stream.set_write_timeout(Some(HANG)).unwrap();
        stream
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn receive(stream: &mut TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    stream.read_exact(&mut bytes).expect("a reply");
    bytes
}

/// Bytes that are like no others.
fn noise(seed: u8, count: usize) -> Vec<u8> {
    let numbers = (0_u8..=250).cycle().take(count);
    numbers
        .map(|number| number.wrapping_mul(31) ^ seed)
        .collect()
}

#[test]
fn it_gives_back_what_it_gets() {
    for options in ["", "--delay 1ms", "--poll", "--poll --delay 1ms"] {
        let responder = Responder::start(options);
        let mut streams: Vec<_> = (0..20).map(|_| responder.connect()).collect();
        // One after the other on each, all of them mixed.
        for round in 0..5 {
            for (seed, stream) in (round..).zip(&mut streams) {
                stream.write_all(&noise(seed, 88)).unwrap();
            }
            for (seed, stream) in (round..).zip(&mut streams) {
                assert_eq!(receive(stream, 88), noise(seed, 88));
            }
        }
        // In pieces, and several at once.
        let stream = &mut streams[7];
        for piece in noise(9, 30).chunks(7) {
            stream.write_all(piece).unwrap();
            thread::sleep(Duration::from_millis(2));
        }
        stream.write_all(&noise(10, 300)).unwrap();
        assert_eq!(receive(stream, 30), noise(9, 30));
        assert_eq!(receive(stream, 300), noise(10, 300));
        // Half of the connections go, and others come in their place.
        streams.truncate(10);
        streams.extend((0..10).map(|_| responder.connect()));
        for (seed, stream) in (100..).zip(&mut streams) {
            stream.write_all(&noise(seed, 50)).unwrap();
            assert_eq!(receive(stream, 50), noise(seed, 50));
        }
    }
}

/// More than the buffers of both ends hold, to a client that does not read at first, and that closes
/// its own direction before it does.
#[test]
fn what_does_not_fit_leaves_later() {
    const SIZE: usize = 20_000_000;
    for options in ["", "--delay 3ms"] {
        let responder = Responder::start(options);
        let mut stream = responder.connect();
        let mut writer = stream.try_clone().unwrap();
        let sender = thread::spawn(move || {
            writer.write_all(&noise(1, SIZE)).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        // Long enough for both to be full; less would only test less.
        thread::sleep(Duration::from_millis(100));
        let mut reply = Vec::new();
        stream
            .read_to_end(&mut reply)
            .expect("a reply, then the end");
        assert!(reply == noise(1, SIZE), "{} bytes", reply.len());
        sender.join().unwrap();
        // Others are served as before.
        let mut other = responder.connect();
        other.write_all(b"still there").unwrap();
        assert_eq!(receive(&mut other, 11), b"still there");
    }
}

#[test]
fn a_reset_is_not_the_end() {
    let responder = Responder::start("--delay 20ms");
    for _ in 0..5 {
        let mut stream = responder.connect();
        stream.write_all(&noise(1, 64)).unwrap();
        crate::common::Client(stream).reset();
        // Takes the place of the one before, but not its reply.
        let mut next = responder.connect();
        next.write_all(&noise(2, 64)).unwrap();
        assert_eq!(receive(&mut next, 64), noise(2, 64));
    }
}

/// Late it may be on a busy machine, early never.
#[test]
fn no_reply_leaves_early() {
    for (option, delay) in [("5ms", 5_000), ("500us", 500)] {
        let responder = Responder::start(&format!("--delay {option}"));
        let delay = Duration::from_micros(delay);
        let mut streams: Vec<_> = (0..4).map(|_| responder.connect()).collect();
        for _ in 0..25 {
            let mut sent = Vec::new();
            for stream in &mut streams {
                sent.push(Instant::now());
                stream.write_all(&noise(3, 88)).unwrap();
                thread::sleep(delay / 8);
            }
            for (stream, sent) in streams.iter_mut().zip(sent) {
                assert_eq!(receive(stream, 88), noise(3, 88));
                assert!(sent.elapsed() >= delay, "{:?}", sent.elapsed());
            }
        }
        // Each of several on one connection has its own time.
        let stream = &mut streams[0];
        let first = Instant::now();
        stream.write_all(&noise(4, 88)).unwrap();
        thread::sleep(delay / 2);
        let second = Instant::now();
        stream.write_all(&noise(5, 88)).unwrap();
        assert_eq!(receive(stream, 88), noise(4, 88));
        assert!(first.elapsed() >= delay);
        assert_eq!(receive(stream, 88), noise(5, 88));
        assert!(second.elapsed() >= delay);
    }
}

/// Asked all the time for longer than a period, some request meets the stop.
#[test]
fn stops_are_there() {
    let responder = Responder::start("--stall-every 200ms --stall-for 60ms");
    let mut stream = responder.connect();
    let begin = Instant::now();
    let mut longest = Duration::ZERO;
    while begin.elapsed() < Duration::from_millis(600) {
        let sent = Instant::now();
        stream.write_all(&noise(6, 88)).unwrap();
        assert_eq!(receive(&mut stream, 88), noise(6, 88));
        longest = longest.max(sent.elapsed());
    }

    // The request before the stop may have left a moment after its begin.
    assert!(longest >= Duration::from_millis(40), "{longest:?}");
}

fn run(arguments: &str) -> Finished {
    let mut command: Command = executable();
    command.args(arguments.split_whitespace());
    finish(command)
}

#[test]
fn bad_input_is_refused() {
    for (arguments, words) in [
        ("respond --delay 5", vec!["5ms"]),
        ("respond --stall-every 1s", vec!["--stall-for"]),
        ("respond --stall-for 1s", vec!["--stall-every"]),
        (
            "respond --stall-every 1s --stall-for 1s",
            vec!["1s", "--stall-for"],
        ),
        (
            "respond --stall-every 1s --stall-for 0s",
            vec!["0ns", "--stall-for"],
        ),
        ("respond --listen 192.0.2.1:0", vec!["192.0.2.1", "port 0"]),
        ("selfcheck --only everything", vec!["everything"]),
        ("selfcheck --seconds 5", vec!["--aa"]),
        ("selfcheck --out x.csv", vec!["--aa"]),
        ("selfcheck --aa --full", vec!["--full"]),
        ("selfcheck --aa --seconds 0", vec!["0"]),
        ("selfcheck 127.0.0.1:7", vec!["127.0.0.1:7"]),
    ] {
        println!("{arguments}");
        let finished = run(arguments);
        assert_eq!(finished.code, Some(1), "{finished:?}");
        assert_eq!(finished.stdout, "", "{finished:?}");
        for word in words {
            assert!(finished.stderr.contains(word), "no '{word}': {finished:?}");
        }
    }
}

#[test]
fn a_file_is_not_overwritten() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("aa.csv");
    std::fs::write(&path, "precious").unwrap();
    run(&format!(
        "selfcheck --aa --seconds 1 --out {}",
        path.display()
    ))
    .refused(&["aa.csv", "--out"]);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}

/// The exit code and the JSON agree; whether the machine is good enough is not for a test to say.
fn checks(groups: &[&str]) -> Value {
    let finished = run(&format!("selfcheck --only {} --json", groups.join(",")));
    let json: Value = serde_json::from_str(&finished.stdout).expect("JSON");
    println!("{json:#}");
    let checks = json["checks"].as_array().expect("a list");
    let verdicts = |word: &str| {
        checks
            .iter()
            .filter(|check| check["verdict"] == word)
            .count()
    };

    let (code, verdict) = match (verdicts("failed"), verdicts("disturbed")) {
        (0, 0) => (0, "ok"),
        (0, _) => (3, "disturbed"),
        _ => (2, "failed"),
    };

    assert_eq!(finished.code, Some(code));
    assert_eq!(json["verdict"], verdict);

    for group in groups {
        assert!(
            checks.iter().any(|check| check["check"] == *group),
            "{group}"
        );
    }

    for check in checks {
        let (verdict, reason) = (&check["verdict"], &check["disturbance"]);
        if verdict != "figure" {
            assert_eq!(verdict == "disturbed", !reason.is_null(), "{check}");
        }
        assert_eq!(verdict == "figure", check["expected"].is_null(), "{check}");
        assert!(!check["what"].as_str().unwrap().is_empty());
        assert!(check["machine"]["requests"].as_u64().unwrap() > 0);
    }

    json
}

#[test]
fn send_lag_and_ceiling_are_checked() {
    let json = checks(&["lag", "ceiling"]);
    let checks = json["checks"].as_array().unwrap();
    // Each with Little's law.
    let ceilings = checks.iter().filter(|check| check["check"] == "ceiling");
    assert_eq!(ceilings.count(), 8);
    assert!(json["lesson"].as_array().unwrap().is_empty());
}

#[test]
fn a_closed_loop_hides_what_an_open_one_shows() {
    let json = checks(&["omission"]);
    let lesson = json["lesson"].as_array().unwrap();
    assert_eq!(lesson.len(), 3);
    // The arithmetic is the same everywhere: 90 ms at p99.
    assert!((lesson[0]["p99_ns"].as_f64().unwrap() - 9e7).abs() < 1.0);
    // The open loop cannot miss stops that were there; it may see others beside.
    assert!(lesson[1]["p99_ns"].as_f64().unwrap() > 8e7);
}

#[test]
fn an_arm_is_compared_with_itself() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("aa.csv");
    let finished = run(&format!(
        "selfcheck --aa --seconds 1 --json --out {}",
        path.display()
    ));
    let json: Value = serde_json::from_str(&finished.stdout).expect("JSON");
    assert!(matches!(finished.code, Some(0 | 2 | 3)), "{finished:?}");
    let rows = json["rows"].as_array().unwrap();
    // In two scenarios the bare loop, and four models with five metrics each.
    assert_eq!(rows.len(), 42);
    for (first, scenario) in [(0, "steady"), (21, "gate")] {
        assert_eq!(rows[first]["model"], "bare loop");
        let own = rows.iter().filter(|row| row["scenario"] == scenario);
        assert_eq!(own.count(), 21);
    }
    let mut reader = csv::Reader::from_path(&path).unwrap();
    let names = reader.headers().unwrap().clone();
    assert_documented(&["CSV of `selfcheck --aa`"], names.iter());
    let written: Vec<_> = reader.records().map(Result::unwrap).collect();
    assert_eq!(written.len(), rows.len());
    for (record, row) in written.iter().zip(rows) {
        let row = row.as_object().unwrap();
        assert_eq!(
            names.iter().collect::<Vec<_>>(),
            row.keys().collect::<Vec<_>>()
        );
        let metric = names.iter().position(|name| name == "metric").unwrap();
        assert_eq!(record[metric], *row["metric"].as_str().unwrap());
        let (higher, lower) = (
            row["higher"].as_u64().unwrap(),
            row["lower"].as_u64().unwrap(),
        );
        assert!(higher + lower <= row["blocks"].as_u64().unwrap());
    }
    assert!(!folder.path().join("aa.part").exists());
}

/// A check that is done before the signal is in the report.
#[test]
fn an_interrupt_keeps_the_checks_that_are_done() {
    let mut command = executable();
    command.args(["selfcheck", "--only", "stall", "--json"]);
    let running = Running::start(command);
    // The stops of the models before it are over.
    running.processes_until(1, " serve pool");
    running.signal(Signal::SIGHUP);
    let finished = running.end();

    assert_eq!(finished.code, Some(1), "{finished:?}");
    let json: Value = serde_json::from_str(&finished.stdout).expect("JSON");
    assert_eq!(json["verdict"], "interrupted", "{json}");
    let checks = json["checks"].as_array().unwrap();
    assert_eq!(checks.len(), 6, "{json}");
    let of_last = |check: &Value| check["what"].as_str().unwrap().starts_with("fork ");
    assert!(checks[3..].iter().all(of_last), "{json}");
}

#[test]
fn an_interrupted_comparison_writes_its_file() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("aa.csv");
        let mut command = executable();
        command.args(["selfcheck", "--aa", "--seconds", "8", "--json", "--out"]);
        command.arg(&path);
        let running = Running::start(command);
        // The bare loop comes first, for a quarter of the time.
        running.processes_until(2, " supervise ");
        running.signal(signal);
        let finished = running.end();

        assert_eq!(finished.code, Some(1), "{finished:?}");
        let json: Value = serde_json::from_str(&finished.stdout).expect("JSON");
        assert_eq!(json["interrupted"], true, "{json}");
        let rows = json["rows"].as_array().unwrap().len();
        assert_eq!(
            (rows, json["rows"][0]["model"].as_str()),
            (6, Some("bare loop"))
        );
        let written = csv::Reader::from_path(&path).unwrap().records().count();
        assert_eq!(written, rows);
    }
}

#[test]
fn a_file_is_written_although_nobody_reads_the_table() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("aa.csv");
    let full = std::fs::File::options().write(true).open("/dev/full");
    let mut command = executable();
    command
        .args(["selfcheck", "--aa", "--seconds", "1", "--out"])
        .arg(&path)
        .stdin(Stdio::null())
        .stdout(full.unwrap())
        .stderr(Stdio::piped());
    let output = bind_lifetime(&mut command).output().unwrap();
    assert!(matches!(output.status.code(), Some(1..=3)), "{output:?}");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        stderr.contains("cannot write to standard output"),
        "{stderr}"
    );
    assert_eq!(csv::Reader::from_path(&path).unwrap().records().count(), 42);
}

#[test]
fn a_file_that_cannot_be_written_is_found_at_once() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().display().to_string();
    for (out, word) in [
        (path.clone(), "directory"),
        (format!("{path}/no/aa.csv"), "No such file"),
    ] {
        let finished = run(&format!("selfcheck --aa --seconds 3600 --out {out}"));
        finished.refused(&[&out, word]);
    }
}
