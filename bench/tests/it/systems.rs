//! The programs of the textbooks: each has its counterpart in `docs/textbook.md`, and does what the
//! original does.

use std::collections::HashSet;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Barrier, Mutex};
use std::thread;

use crate::common::{
    Client, Running, Server, available_models, echo, eventually, executable, finish,
};
use echobench_protocol::HEADER_LEN;
use nix::sys::signal::Signal;

const DRIVERS: [(&str, &str); 3] = [
    ("threads", "thread"),
    ("processes", "process"),
    ("tasks", "task"),
];

fn load(target: SocketAddr, options: &str) -> Command {
    let mut command = executable();
    command
        .args(["load", &target.to_string()])
        .args(options.split_whitespace());
    // Shown when the test fails.
    println!("load {options}");
    command
}

/// The replies when each of `clients` says its own name.
fn names(one: &str, clients: u32) -> HashSet<String> {
    (1..=clients)
        .map(|number| format!("{one} {number} hears: {one} {number}"))
        .collect()
}

fn heard(stdout: &str) -> Vec<&str> {
    let lines = stdout.lines();
    lines.filter(|line| line.contains(" hears: ")).collect()
}

#[test]
fn s1_clients_hear_their_own_names() {
    for model in available_models() {
        for (driver, one) in DRIVERS {
            let server = Server::start(&[model.name]);
            let options = format!("--clients 5 --say-names --print-replies --driver {driver}");
            let finished = finish(load(server.address(), &options));
            assert_eq!(finished.code, Some(0), "{finished:?}");
            let heard: HashSet<_> = heard(&finished.stdout)
                .into_iter()
                .map(str::to_owned)
                .collect();
            assert_eq!(heard, names(one, 5));
            assert_eq!(server.stop().counters.get("requests"), 5);
        }
    }
}

#[test]
fn s1_server_and_clients_in_one_process() {
    for model in available_models().filter(|model| !model.family.forks()) {
        let mut command = executable();
        command.args(["load", "--serve", model.name]);
        command.args(["--clients", "5", "--say-names", "--print-replies"]);
        let finished = finish(command);
        assert_eq!(finished.code, Some(0), "{finished:?}");
        assert!(finished.stdout.starts_with("ready 127.0.0.1:"));
        let heard: HashSet<_> = heard(&finished.stdout)
            .into_iter()
            .map(str::to_owned)
            .collect();
        assert_eq!(heard, names("thread", 5));
        let counters = "\ncounters accepted=5 active=0 waiting=0 requests=5 errors=0 ";
        assert!(finished.stdout.contains(counters), "{finished:?}");
    }
}

#[test]
fn s1_a_process_with_threads_does_not_fork() {
    for options in ["--serve fork", "--serve thread --driver processes"] {
        let mut command = executable();
        command.arg("load").args(options.split_whitespace());
        finish(command).refused(&["fork", "echobench serve"]);
    }
}

/// The frames of each connection that has ended.
type Seen = Arc<Mutex<Vec<Vec<Vec<u8>>>>>;

/// A server that answers a client called "… 1" after all the others, and remembers every frame of
/// each connection in the order of its arrival.
fn answering_the_first_last(clients: usize) -> (SocketAddr, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let everybody = Arc::new(Barrier::new(clients));
    let record = Arc::clone(&seen);
    let serve = move |mut stream: TcpStream| -> io::Result<()> {
        let mut frames = Vec::new();
        let mut header = [0; HEADER_LEN];
        while stream.read_exact(&mut header).is_ok() {
            let length = u32::from_be_bytes(header[12..16].try_into().unwrap());
            let mut frame = header.to_vec();
            (&mut stream).take(length.into()).read_to_end(&mut frame)?;
            if frames.is_empty() && frame.ends_with(b" 1") {
                everybody.wait();
            }
            stream.write_all(&frame)?;
            frames.push(frame);
        }
        // The others have closed, and so have printed what they heard.
        if !frames.first().is_some_and(|frame| frame.ends_with(b" 1")) {
            everybody.wait();
        }
        record.lock().unwrap().push(frames);
        Ok(())
    };

    let serve = Arc::new(serve);
    thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            let serve = Arc::clone(&serve);
            thread::spawn(move || serve(stream));
        }
    });

    (address, seen)
}

#[test]
fn s1_replies_are_printed_in_the_order_of_their_arrival() {
    for (driver, one) in DRIVERS {
        let (address, _) = answering_the_first_last(5);
        let options = format!("--clients 5 --say-names --print-replies --driver {driver}");
        let finished = finish(load(address, &options));
        assert_eq!(finished.code, Some(0), "{finished:?}");
        let heard = heard(&finished.stdout);
        assert_eq!(heard.len(), 5);
        assert_eq!(heard[4], format!("{one} 1 hears: {one} 1"));
    }
}

#[test]
fn s2_threads_and_processes_are_served_at_the_same_time() {
    // One connection at a time, which is its nature: the loads would come one after the other.
    for model in available_models().filter(|model| !model.family.is_iterative()) {
        for (lasting, passing) in [("threads", "processes"), ("processes", "threads")] {
            let server = Server::start(&[model.name]);
            let options = format!("--clients 5 --duration 10m --driver {lasting}");
            let other = Running::start(load(server.address(), &options));
            server.counters_until(|counters| counters.get("active") == 5);
            let options = format!("--clients 5 --requests 100 --driver {passing}");
            let finished = finish(load(server.address(), &options));
            assert_eq!(finished.code, Some(0), "{finished:?}");
            let counters = server.counters_until(|counters| counters.get("active") == 5);
            assert_eq!(counters.get("accepted"), 10);
            assert!(counters.get("requests") > 100, "only one load was served");
            assert_eq!(counters.get("errors"), 0);
            drop(other);
        }
    }
}

#[test]
fn s3_only_the_first_request_of_a_connection_is_slow() {
    for (driver, _) in DRIVERS {
        let (address, seen) = answering_the_first_last(2);
        let options = format!(
            "--clients 2 --requests 6 --say-names --work block:20ms=first --driver {driver}"
        );
        assert_eq!(finish(load(address, &options)).code, Some(0));
        let seen = eventually(
            || Some(seen.lock().unwrap().clone()).filter(|seen| seen.len() == 2),
            || seen.lock().unwrap().len(),
        );
        for frames in seen {
            let works: Vec<_> = frames.iter().map(|frame| &frame[5..12]).collect();
            let block = [1, 0, 0, 0, 0, 0x4e, 0x20];
            assert_eq!(works, [block, [0; 7], [0; 7]]);
        }
    }
}

#[test]
fn s3_a_slow_handler_and_a_line_for_each_connection() {
    for model in available_models() {
        let server = Server::start(&[model.name, "--backlog", "5", "--verbose"]);
        let options = "--clients 5 --requests 15 --work block:20ms=first";
        assert_eq!(finish(load(server.address(), options)).code, Some(0));
        let ended = server.stop();
        assert_eq!(ended.counters.get("requests"), 15);
        let lines = ended.stderr.lines();
        let connections = lines.filter(|line| line.contains(" connection from 127.0.0.1:"));
        assert_eq!(connections.count(), 5, "{}", ended.stderr);
    }
}

#[test]
fn s4_every_child_is_collected() {
    let server = Server::start(&["fork"]);
    let options = "--clients 5 --requests 50 --requests-per-connection 1";
    assert_eq!(finish(load(server.address(), options)).code, Some(0));
    eventually(
        || server.children().is_empty().then_some(()),
        || server.children(),
    );
    assert_eq!(server.stop().counters.get("reaped"), 50);
}

#[test]
fn s5_the_time_is_asked_and_printed() {
    for model in available_models() {
        let server = Server::start(&[model.name, "--service", "time"]);
        for (driver, one) in DRIVERS {
            let options = format!("--service time --print-replies --driver {driver}");
            let finished = finish(load(server.address(), &options));
            assert_eq!(finished.code, Some(0), "{finished:?}");
            let heard = heard(&finished.stdout);
            assert_eq!(heard.len(), 1, "{finished:?}");
            assert!(heard[0].starts_with(&format!("{one} 1 hears: ")));
            assert!(heard[0].ends_with(" GMT"), "{}", heard[0]);
        }
        let options = "--service time --clients 3 --requests 30 --json";
        let finished = finish(load(server.address(), options));
        assert_eq!(finished.code, Some(0), "{finished:?}");
        assert!(finished.stdout.contains("\"answered\":30"), "{finished:?}");
        assert_eq!(server.stop().counters.get("requests"), 33);
    }
}

#[test]
fn s5_what_is_not_the_time_is_noticed() {
    let server = Server::start(&["thread"]);
    for (driver, _) in DRIVERS {
        let options = format!("--service time --requests 1 --timeout 100ms --driver {driver}");
        let finished = finish(load(server.address(), &options));
        assert_eq!(finished.code, Some(1), "{finished:?}");
        assert!(finished.stdout.contains("timed out: 1"), "{finished:?}");
    }

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let _ = stream.write_all(b"half a li");
        }
    });

    for (driver, _) in DRIVERS {
        let options = format!("--service time --requests 1 --driver {driver}");
        let finished = finish(load(address, &options));
        assert_eq!(finished.code, Some(1), "{finished:?}");
        assert!(finished.stdout.contains("wrong bytes: 1"), "{finished:?}");
    }
}

#[test]
fn s6_signals_are_caught_and_said_with_the_time() {
    for model in available_models() {
        let server = Server::start(&[model.name, "--verbose"]);
        server.connect().exchange(&echo(1));
        let counters = server.counters_until(|counters| counters.get("active") == 0);
        assert_eq!(counters.get("requests"), 1);
        let ended = server.stop();
        assert_eq!(ended.status.code(), Some(0));
        let said = |signal: &str| ended.stderr.lines().any(|line| line.ends_with(signal));
        assert!(said("Z SIGUSR1") && said("Z SIGTERM"), "{}", ended.stderr);
        assert_eq!(said("Z SIGCHLD"), model.family.forks(), "{}", ended.stderr);
    }
}

#[test]
fn s6_a_server_that_pauses_uses_no_cpu() {
    for model in available_models() {
        let server = Server::start(&[model.name, "--stats-every", "50ms"]);
        let mut client = Client(TcpStream::connect(server.address()).unwrap());
        client.exchange(&echo(1));
        let before = server.cpu_ticks();
        for _ in 0..10 {
            assert!(server.line().expect("a line").starts_with("counters "));
        }
        // A loop that looks again and again would take all 50.
        let used = server.cpu_ticks() - before;
        assert!(used <= 5, "{}: {used} ticks while pausing", model.name);
    }
}

#[test]
fn s6_sigkill_cannot_be_caught() {
    for model in available_models() {
        let mut server = Server::start(&[model.name, "--verbose"]);
        let mut client = server.connect();
        client.exchange(&echo(1));
        server.signal(Signal::SIGKILL);
        client.closed();
        eventually(|| (!server.is_running()).then_some(()), || "running");
        // Not a word of counters.
        assert_eq!(server.line(), None);
    }
}

#[test]
fn options_that_do_not_go_together_are_refused() {
    let server = Server::start(&["thread"]);
    for (options, words) in [
        ("--print-replies", ["--print-replies", "--say-names"]),
        (
            "--say-names --service time",
            ["--service time", "--say-names"],
        ),
        ("--serve thread", ["--serve", "ADDR"]),
        ("--say-names --payload 5", ["--say-names", "--payload"]),
        ("--work block:1s=last", ["block:1s=last", "first"]),
    ] {
        finish(load(server.address(), options)).refused(&words);
    }

    assert_eq!(server.stop().counters.get("accepted"), 0);
}
