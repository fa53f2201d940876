//! Interrupted loads: their figures and files are those until then.

use std::io::Read as _;
use std::net::TcpListener;
use std::process::Command;
use std::thread;

use crate::common::{Running, Server, executable, read_hlog};
use nix::sys::signal::{Signal, killpg};
use serde_json::Value;
use tempfile::tempdir;

const DRIVERS: [&str; 3] = ["threads", "processes", "tasks"];
const INTERRUPTS: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

fn load(target: &str, driver: &str, options: &str) -> Command {
    let mut command = executable();
    command
        .args(["load", target, "--driver", driver])
        .args(options.split_whitespace());
    command
}

fn parse(json: &str) -> Value {
    let json: Value = serde_json::from_str(json).expect("JSON");
    let errors = json["errors"].as_object().unwrap().values();
    let failed: u64 = errors.map(|count| count.as_u64().unwrap()).sum();
    let count = |name: &str| json[name].as_u64().unwrap();
    assert_eq!(
        count("planned"),
        count("answered") + failed + count("unsent"),
        "{json}"
    );
    json
}

#[test]
fn figures_and_files_are_kept() {
    for driver in DRIVERS {
        for signal in INTERRUPTS {
            let folder = tempdir().unwrap();
            let hlog = folder.path().join("latency.hlog");
            let server = Server::start(&["thread"]);
            let mut command = load(
                &server.address().to_string(),
                driver,
                "--clients 3 --duration 1h --think 1ms --json",
            );
            let load = Running::start({
                command.arg("--hlog").arg(&hlog);
                command
            });
            server.counters_until(|counters| counters.get("requests") > 100);

            load.signal(signal);
            let finished = load.end();

            assert_eq!(finished.code, Some(1), "{driver} {signal}: {finished:?}");
            let json = parse(&finished.stdout);
            assert_eq!(json["interrupted"], true);
            assert_eq!(json["errors"]["timed_out"], 0);
            assert!(json["throughput_per_second"].as_f64().unwrap() > 0.0);
            let answered = json["answered"].as_u64().unwrap();
            let (_, latency) = read_hlog(&hlog).remove(0);
            assert_eq!(latency.len(), answered, "{driver} {signal}");
            assert!(answered > 100);
        }
    }
}

#[test]
fn a_terminal_interrupts_all_processes_of_a_load() {
    let server = Server::start(&["thread"]);
    let options = "--clients 3 --requests 100000000 --warmup 1ms --json";
    let load = Running::start(load(&server.address().to_string(), "processes", options));
    server.counters_until(|counters| counters.get("requests") > 100);

    killpg(load.pid(), Signal::SIGINT).unwrap();
    let finished = load.end();

    assert_eq!(finished.code, Some(1), "{finished:?}");
    let json = parse(&finished.stdout);
    assert_eq!(json["errors"]["client_died"], 0);
    assert!(json["unsent"].as_u64().unwrap() > 0);
}

/// A server that reads and never answers, with the number of its connections.
fn silent() -> (String, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (address, listener)
}

/// Waits until a load has connected and sent its first request.
fn first_request(listener: &TcpListener) -> std::net::TcpStream {
    let (mut stream, _) = listener.accept().unwrap();
    stream.read_exact(&mut [0; 24]).unwrap();
    stream
}

#[test]
fn a_request_without_a_reply_yet_is_not_a_failure() {
    for driver in DRIVERS {
        let (address, listener) = silent();
        let options = "--duration 1h --timeout 1h --json";
        let load = Running::start(load(&address, driver, options));
        let _open = first_request(&listener);

        load.signal(Signal::SIGINT);
        let finished = load.end();

        assert_eq!(finished.code, Some(1), "{driver}: {finished:?}");
        let json = parse(&finished.stdout);
        assert_eq!(
            (&json["planned"], &json["answered"]),
            (&0.into(), &0.into())
        );
    }
}

#[test]
fn a_second_interrupt_ends_at_once() {
    let (address, listener) = silent();
    let options = "--duration 1h --timeout 1h --json";
    let load = Running::start(load(&address, "threads", options));
    let _open = first_request(&listener);

    load.signal(Signal::SIGINT);
    // The load waits a second for the reply.
    thread::sleep(std::time::Duration::from_millis(200));
    load.signal(Signal::SIGINT);
    let finished = load.end();

    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert_eq!(finished.stdout, "");
}

#[test]
fn a_client_that_waits_is_woken() {
    for driver in DRIVERS {
        for waits in ["--rate 0.001 --clients 2", "--think 1h"] {
            let server = Server::start(&["thread"]);
            let options = format!("--duration 10h --json {waits}");
            let load = Running::start(load(&server.address().to_string(), driver, &options));
            server.counters_until(|counters| counters.get("requests") > 0);

            load.signal(Signal::SIGTERM);
            let finished = load.end();

            assert_eq!(finished.code, Some(1), "{driver} {waits}: {finished:?}");
            assert_eq!(parse(&finished.stdout)["answered"], 1);
        }
    }
}

#[test]
fn a_load_beside_its_server_is_interrupted() {
    let mut command = executable();
    command.args(["load", "--serve", "thread", "--duration", "1h"]);
    let load = Running::start(command);
    // Its server has threads for the clients once they have connected.
    while load_threads(&load) < 4 {
        thread::sleep(std::time::Duration::from_millis(5));
    }

    load.signal(Signal::SIGINT);
    let finished = load.end();

    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert!(finished.stdout.contains("interrupted: "), "{finished:?}");
}

/// Number of threads of the command.
fn load_threads(load: &Running) -> usize {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", load.pid()));
    tasks.map_or(0, Iterator::count)
}
