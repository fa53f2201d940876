//! The command `verify`: what it says about servers of all kinds.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use crate::common::{
    Finished, HANG, Running, Server, available_models, executable, finish, is_installed,
};
use echobench::verify::CHECKS;
use echobench_protocol::{Reason, error_frame};
use nix::sys::signal::Signal;
use nix::unistd::geteuid;

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

/// The line for a check that a plain echo server cannot be asked.
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

/// A server that treats each connection in its own way; the number of the connection is given too. It
/// lasts as long as the test.
fn serving(serve: impl Fn(TcpStream, usize) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let (stream, serve) = (stream.unwrap(), Arc::clone(&serve));
            thread::spawn(move || serve(stream, number));
        }
    });
    address
}

/// A server that changes the bytes of each connection in its own way.
fn treating(treat: fn(&mut Vec<u8>)) -> SocketAddr {
    serving(move |stream, _| echo_treated(stream, treat))
}

fn echo_treated(mut stream: TcpStream, treat: fn(&mut Vec<u8>)) {
    let mut bytes = vec![0; 1 << 16];
    while let Ok(count @ 1..) = stream.read(&mut bytes) {
        let mut reply = bytes[..count].to_vec();
        treat(&mut reply);
        if reply.is_empty() || stream.write_all(&reply).is_err() {
            break;
        }
    }
}

/// Reads and drops whatever comes, in a thread.
fn drain(stream: &TcpStream) {
    let mut reader = stream.try_clone().unwrap();
    thread::spawn(move || while matches!(reader.read(&mut [0; 4096]), Ok(1..)) {});
}

#[test]
fn our_models_conform() {
    let models = available_models().map(|model| model.name);
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
    if !is_installed("python3") {
        return;
    }
    for name in ["threading", "forking", "asyncio"] {
        let command = format!("{name}=python3 -c {{{name}_echo.py}} {{port}} {{address}}");
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

/// A way to be hostile, and words of its verdict.
type Hostility = (&'static str, fn(TcpStream), &'static [&'static str]);

const HOSTILITIES: &[Hostility] = &[
    (
        "drips a byte now and then, and so is never silent",
        |mut stream| {
            drain(&stream);
            while stream.write_all(&[0xEB]).is_ok() {
                thread::sleep(Duration::from_millis(20));
            }
        },
        &["FAIL: "],
    ),
    (
        "sends nothing, but reads",
        |stream| {
            drain(&stream);
            thread::sleep(HANG);
        },
        &["FAIL: ", "not finished within 300ms"],
    ),
    (
        "neither reads nor sends",
        |_stream| thread::sleep(HANG),
        &["FAIL: ", "after 0 of "],
    ),
    (
        "sends without end",
        |mut stream| {
            drain(&stream);
            while stream.write_all(&[7; 4096]).is_ok() {}
        },
        &[
            "FAIL: ",
            "came back changed",
            "not closed after 65536 more bytes",
        ],
    ),
    ("closes at once", |_| {}, &["FAIL: "]),
    (
        "sends escape sequences",
        |mut stream| {
            drain(&stream);
            let _ = stream.write_all("\x1b]0;title\x07\x1b[2J".repeat(40).as_bytes());
        },
        &["FAIL: ", "560 bytes of reply"],
    ),
    (
        "refuses everything by an error frame",
        |mut stream| {
            drain(&stream);
            let _ = stream.write_all(&error_frame(Reason::Overloaded, 0));
        },
        &["FAIL: ", "the server refuses: server out of resources"],
    ),
    (
        "returns what it gets, a byte at a time and ever more slowly",
        |mut stream| {
            let mut byte = [0];
            let mut pause = Duration::from_micros(1);
            while let Ok(1) = stream.read(&mut byte) {
                if stream.write_all(&byte).is_err() {
                    return;
                }
                thread::sleep(pause);
                pause = pause.mul_f64(1.1).min(Duration::from_millis(50));
            }
        },
        &["FAIL: ", "not finished within 300ms"],
    ),
];

#[test]
fn no_hostile_server_keeps_it_or_writes_on_the_terminal() {
    for &(name, behaviour, words) in HOSTILITIES {
        println!("a server that {name}");
        let address = serving(move |stream, _| behaviour(stream));
        let finished = verify(&[&address.to_string(), "--limit", "300ms"]);
        assert_eq!(finished.code, Some(2), "{finished:?}");
        for word in words {
            assert!(finished.stdout.contains(word), "no '{word}': {finished:?}");
        }
        let all = [finished.stdout.as_str(), finished.stderr.as_str()].concat();
        assert!(!all.contains(['\x1b', '\x07']), "{finished:?}");
        outcomes(&finished);
    }
}

#[test]
fn progress_is_on_standard_error() {
    let finished = verify(&[&treating(|_| {}).to_string()]);
    let lines: Vec<_> = finished.stderr.lines().collect();
    assert_eq!(lines.len(), CHECKS.len(), "{finished:?}");
    for (line, check) in lines.iter().zip(CHECKS) {
        assert_eq!(*line, format!("{}: {}", check.name, check.what));
    }
}

#[test]
fn its_own_limit_on_files_is_not_blamed_on_the_server() {
    let server = Server::start(&["async"]);
    let mut command = Command::new("sh");
    let script = "ulimit -n 100 && exec \"$0\" verify \"$1\"";
    command
        .args(["-c", script])
        .arg(executable().get_program())
        .arg(server.address().to_string());

    let finished = finish(command);
    assert_eq!(finished.code, Some(1), "{finished:?}");

    for (name, outcome) in outcomes(&finished) {
        if name == "many" {
            assert!(outcome.starts_with("not done: connection "), "{outcome}");
            assert!(outcome.contains("ulimit -n"), "{outcome}");
        } else {
            assert_eq!(outcome, "pass", "{name}");
        }
    }
}

/// Its supervisor is gone when the end of the server is asked for.
#[test]
fn a_server_that_cannot_be_awaited_is_no_pass() {
    let place = tempfile::tempdir().unwrap();
    let script = place.path().join("server.sh");
    let program = executable().get_program().to_str().unwrap().to_owned();
    let text = format!(
        "trap 'kill -9 $PPID; exit' TERM\n\
         '{program}' serve thread --service raw --listen 127.0.0.1:$1 &\n\
         wait\n"
    );

    std::fs::write(&script, text).unwrap();
    let command = format!("mine=sh {} {{port}}", script.display());
    let finished = verify(&["--external", &command]);

    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert!(
        finished.stderr.contains("error: the server's end: "),
        "{finished:?}"
    );

    let passed = outcomes(&finished)
        .iter()
        .filter(|(_, outcome)| *outcome == "pass")
        .count();

    assert_eq!(passed, 6, "{finished:?}");
}

#[test]
fn an_interrupt_keeps_what_is_done() {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // It echoes on three connections: the meeting, `sizes` and `bytewise`.
        let (reached, is_reached) = channel();
        let address = serving(move |stream, number| {
            if number < 3 {
                echo_treated(stream, |_| {});
            } else {
                let _ = reached.send(());
                thread::sleep(HANG);
            }
        });
        let mut command = executable();
        command.args(["verify", &address.to_string()]);
        let running = Running::start(command);
        is_reached
            .recv_timeout(HANG)
            .expect("the fourth connection");
        running.signal(signal);
        let finished = running.end();

        assert_eq!(finished.code, Some(1), "{signal}: {finished:?}");
        let lines: Vec<_> = finished.stdout.lines().map(str::trim).collect();
        assert_eq!(lines.len(), 3, "{finished:?}");
        assert!(lines[1].starts_with("sizes ") && lines[1].ends_with(" pass"));
        assert!(lines[2].starts_with("bytewise ") && lines[2].ends_with(" pass"));
        assert!(
            finished.stderr.ends_with("\nerror: interrupted\n"),
            "{finished:?}"
        );
    }
}

/// The server that was started for the suite ends with it.
#[test]
fn an_interrupt_ends_the_server_too() {
    let program = executable().get_program().to_str().unwrap().to_owned();
    let server = format!("mine='{program}' respond --listen 127.0.0.1:{{port}} --delay 1h");
    let mut command = executable();
    command.args(["verify", "--external", &server]);
    let running = Running::start(command);
    // The supervisor names it too.
    running.processes_until(2, "echobench respond");
    running.signal(Signal::SIGTERM);
    let finished = running.end();

    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert!(
        finished.stderr.contains("error: interrupted"),
        "{finished:?}"
    );
}

/// A machine that has only `[::1]`, made by a network namespace of its own.
#[test]
fn without_ipv4_the_advice_can_be_followed() {
    let only_ipv6 = |words: &str| {
        let program = executable().get_program().to_str().unwrap().to_owned();
        let mut command = Command::new("unshare");
        let script = format!(
            "ip link set lo up && ip address del 127.0.0.1/8 dev lo && exec '{program}' verify {words}"
        );
        command.args(["-n", "sh", "-c", &script]);
        command
    };

    if !geteuid().is_root() {
        println!("skipped: a network namespace needs root");
        return;
    }

    let possible = Command::new("unshare")
        .args(["-n", "ip", "address"])
        .output();

    if !possible.is_ok_and(|output| output.status.success()) {
        println!("skipped: no network namespace can be made, or ip is not installed");
        return;
    }

    let refused = finish(only_ipv6("thread"));
    assert_eq!(refused.code, Some(1), "{refused:?}");

    let advice = "'thread --listen [::1]:0'";
    assert!(refused.stderr.contains(advice), "{refused:?}");

    let followed = finish(only_ipv6(advice));
    assert_eq!(followed.code, Some(0), "{followed:?}");
}
