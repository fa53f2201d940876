//! The command `verify`: what it says about servers of all kinds.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::thread;

use crate::common::{Finished, Server, executable, finish};
use echobench::verify::CHECKS;
use echobench_servers::MODELS;

fn verify(arguments: &[&str]) -> Finished {
    let mut command = executable();
    command.arg("verify").args(arguments);
    finish(command)
}

/// The outcomes in their order, each with the name of its check in front.
fn outcomes(finished: &Finished) -> Vec<(&str, &str)> {
    let lines = finished.stdout.lines();
    let pairs = lines.map(|line| line.split_once("  ").expect("two columns"));
    let pairs = pairs.map(|(name, outcome)| (name.trim(), outcome.trim()));
    let mut pairs: Vec<_> = pairs.collect();
    assert_eq!(pairs.remove(0), ("check", "outcome"));
    let names: Vec<_> = pairs.iter().map(|(name, _)| *name).collect();
    let known: Vec<_> = CHECKS.iter().map(|check| check.name).collect();
    assert_eq!(names, known);
    pairs
}

/// What a server is told that only returns bytes.
fn echoes_only(finished: &Finished) {
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let outcomes = outcomes(finished);
    let passed = outcomes.iter().filter(|(_, outcome)| *outcome == "pass");
    assert_eq!(passed.count(), 6, "{outcomes:?}");
    for (name, outcome) in outcomes {
        let expected = match name {
            "work" | "cut-short" | "oversize" | "malformed" => "skipped: not an echobench server",
            _ => "pass",
        };
        assert_eq!(outcome, expected, "{name}");
    }
}

/// A server that treats the bytes of each connection in its own way. It lasts as long as the test.
fn treating(treat: fn(&mut Vec<u8>)) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                let mut bytes = vec![0; 1 << 16];
                while let Ok(count @ 1..) = stream.read(&mut bytes) {
                    let mut reply = bytes[..count].to_vec();
                    treat(&mut reply);
                    if reply.is_empty() || stream.write_all(&reply).is_err() {
                        break;
                    }
                }
            });
        }
    });
    address
}

#[test]
fn our_models_conform() {
    let models = MODELS.iter().map(|model| model.name);
    for model in models.chain(["pool --workers 2"]) {
        let finished = verify(&[model]);
        assert_eq!(finished.code, Some(0), "{model}: {finished:?}");
        for (name, outcome) in outcomes(&finished) {
            assert_eq!(outcome, "pass", "{model}: {name}");
        }
    }
}

#[test]
fn an_address_is_verified_where_it_is() {
    let server = Server::start(&["thread"]);
    let finished = verify(&[&server.address().to_string()]);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let raw = Server::start(&["async", "--service", "raw"]);
    echoes_only(&verify(&[&raw.address().to_string()]));
    echoes_only(&verify(&[&treating(|_| {}).to_string()]));
}

#[test]
fn a_command_is_started_and_ended() {
    let program = env!("CARGO_BIN_EXE_echobench");
    let command =
        format!("mine='{program}' serve thread --service raw --listen 127.0.0.1:{{port}}");
    echoes_only(&verify(&["--external", &command]));
}

#[test]
fn servers_in_python_conform() {
    let python = std::process::Command::new("python3")
        .arg("--version")
        .output();
    if !python.is_ok_and(|python| python.status.success()) {
        println!("skipped: python3 is not installed");
        return;
    }
    for name in ["threading", "forking", "asyncio"] {
        let command = format!("{name}=python3 -c {{{name}_echo.py}} {{port}}");
        echoes_only(&verify(&["--external", &command]));
    }
}

#[test]
fn a_server_that_does_wrong_is_found_out() {
    let lies = treating(|bytes| bytes[0] ^= 1);
    let finished = verify(&[&lies.to_string()]);
    assert_eq!(finished.code, Some(2), "{finished:?}");
    for (name, outcome) in &outcomes(&finished)[..6] {
        assert!(outcome.starts_with("FAIL: "), "{name}: {outcome}");
    }
    assert!(
        finished.stdout.contains("came back changed"),
        "{finished:?}"
    );
    let closes = treating(Vec::clear);
    let finished = verify(&[&closes.to_string()]);
    assert_eq!(finished.code, Some(2), "{finished:?}");
    assert!(finished.stdout.contains("FAIL: "), "{finished:?}");
}

#[test]
fn what_cannot_be_verified_is_said_in_a_line() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr();
    let nobody = nobody.unwrap().to_string();
    for (arguments, words) in [
        (vec![nobody.as_str()], ["cannot connect", "refused"]),
        (vec!["fibre"], ["neither an address", "fibre"]),
        (vec!["nowhere:port"], ["nowhere:port", "not an address"]),
        (vec!["pool --workers 0"], ["did not start", "exit code"]),
        (
            vec!["--external", "x=false {port}"],
            ["did not start", "exit code 1"],
        ),
        (vec!["--external", "x=false"], ["--external", "{port}"]),
        (
            vec!["thread", "--external", "x=y {port}"],
            ["--external", "TARGET"],
        ),
    ] {
        println!("verify {arguments:?}");
        let mut finished = verify(&arguments);
        // What the server itself had to say comes first.
        if arguments[0].starts_with("pool") {
            let last = finished.stderr.lines().last().unwrap_or_default();
            finished.stderr = last.to_owned();
        }
        finished.refused(&words);
    }
}
