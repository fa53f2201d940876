//! The load generator on its own, held against our servers, against an ordinary echo server, and
//! against servers that do what no server should.

use std::collections::{BTreeMap, HashSet};
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::common::{Client, Finished, Running, Server, executable, finish, read_hlog};
use crate::documents::assert_documented;
use echobench_protocol::{HEADER_LEN, Reason};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, getsockname, socket};
use nix::unistd::geteuid;
use serde_json::Value;
use tempfile::TempDir;

pub(crate) const DRIVERS: [&str; 3] = ["threads", "processes", "tasks"];

/// A load with these options, written as on a command line.
fn load(target: SocketAddr, driver: &str, options: &str) -> Command {
    let mut command = executable();
    command
        .args(["load", &target.to_string(), "--driver", driver])
        .args(options.split_whitespace());
    // Shown when the test fails.
    println!("load, {driver}: {options}");
    command
}

/// Its exit code and its JSON.
fn outcome(target: SocketAddr, driver: &str, options: &str) -> (i32, Value) {
    json(&finish(load(target, driver, &format!("{options} --json"))))
}

fn json(finished: &Finished) -> (i32, Value) {
    println!("{finished:?}");
    let json: Value = serde_json::from_str(&finished.stdout).expect("JSON");
    assert_eq!(
        count(&json["planned"]),
        count(&json["answered"]) + errors(&json["errors"]) + count(&json["unsent"])
    );
    (finished.code.expect("it is not killed"), json)
}

fn count(value: &Value) -> u64 {
    value.as_u64().expect("a count")
}

/// Errors of every kind.
fn errors(errors: &Value) -> u64 {
    errors.as_object().unwrap().values().map(count).sum()
}

/// Everything was answered.
fn all_well((code, json): &(i32, Value), requests: u64) {
    assert_eq!(*code, 0);
    assert_eq!(count(&json["planned"]), requests);
    assert_eq!(count(&json["answered"]), requests);
}

/// A server of the test's own.
pub(crate) struct Own {
    pub(crate) address: SocketAddr,
    /// The peer address of each of its connections.
    peers: Arc<Mutex<Vec<IpAddr>>>,
}

/// Starts a server with a thread for each connection.
pub(crate) fn own(serve: impl Fn(TcpStream) -> io::Result<()> + Send + Sync + 'static) -> Own {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let peers = Arc::new(Mutex::new(Vec::new()));
    let (serve, from) = (Arc::new(serve), Arc::clone(&peers));
    thread::spawn(move || {
        while let Ok((stream, peer)) = listener.accept() {
            from.lock().unwrap().push(peer.ip());
            let serve = Arc::clone(&serve);
            thread::spawn(move || {
                stream.set_nodelay(true)?;
                serve(stream)
            });
        }
    });

    Own { address, peers }
}

/// An echo server as RFC 862 has it, which knows of no frames.
pub(crate) fn rfc_862() -> Own {
    own(|stream| io::copy(&mut &stream, &mut &stream).map(drop))
}

/// A server that serves nobody before `clients` have connected.
fn serves_all_together(clients: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let streams: Vec<TcpStream> = listener.incoming().flatten().take(clients).collect();
        for stream in streams {
            thread::spawn(move || io::copy(&mut &stream, &mut &stream));
        }
    });
    address
}

/// Connections come one after the other; the first request comes after the last connection, and all are accounted
/// for.
#[test]
fn a_ramp_up_ends_before_the_first_request() {
    for driver in DRIVERS {
        let target = serves_all_together(8);
        let options = "--clients 8 --requests 80 --ramp-up 100ms --warmup 10ms";
        let ended = outcome(target, driver, options);
        all_well(&ended, 80);
        assert_eq!(count(&ended.1["connections"]), 8, "{ended:?}");
        assert!(count(&ended.1["warmup"]["answered"]) > 0, "{ended:?}");
    }
}

/// In a ramp-up of a day, the second client is yet to connect when the load is interrupted: nothing was asked, and no
/// further client connects.
#[test]
fn an_interrupted_ramp_up_ends_at_once() {
    for driver in DRIVERS {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = listener.local_addr().unwrap();
        let options = "--clients 3 --requests 30 --ramp-up 24h --json";
        let running = Running::start(load(target, driver, options));
        let (mut first, _) = listener.accept().unwrap();
        running.signal(Signal::SIGINT);
        let (code, json) = json(&running.end());

        assert_eq!(code, 1, "{driver}: {json}");
        assert_eq!(count(&json["answered"]), 0, "{driver}: {json}");
        assert_eq!(first.read(&mut [0]).unwrap(), 0, "{driver}: no request");
        listener.set_nonblocking(true).unwrap();
        let further = listener.accept().map(drop).unwrap_err();
        assert_eq!(further.kind(), io::ErrorKind::WouldBlock, "{driver}");
    }
}

#[test]
fn connections_that_do_not_last_have_no_ramp_up() {
    let own = rfc_862();
    for options in ["--requests-per-connection 1", "--service time"] {
        let options = format!("{options} --ramp-up 1s");
        finish(load(own.address, "tasks", &options)).refused(&["--ramp-up", "leave it out"]);
    }
}

/// Serves frames with this payload: each request, with its number from 1 on, is given to `answer`
/// together with the connection. The connection ends when that fails.
fn framed(
    payload: usize,
    answer: impl Fn(u64, &[u8], &mut TcpStream) -> io::Result<()> + Send + Sync + 'static,
) -> Own {
    let served = AtomicU64::new(0);
    own(move |mut stream| {
        let mut frame = vec![0; HEADER_LEN + payload];
        loop {
            stream.read_exact(&mut frame)?;
            let number = served.fetch_add(1, Ordering::Relaxed) + 1;
            answer(number, &frame, &mut stream)?;
        }
    })
}

/// The misbehaviour of a bad server, in place of a reply.
#[derive(Clone, Copy)]
enum Lie {
    FlipByte,
    CloseEarly,
    CloseAtOnce,
    Reset,
    Silence,
}

/// Echoes frames with the default payload, but lies from the request number `first` to `last`.
fn lying(first: u64, last: u64, lie: Lie) -> Own {
    framed(64, move |number, frame, stream| {
        if !(first..=last).contains(&number) {
            return stream.write_all(frame);
        }
        let over = || io::Error::other("this connection is over");
        match lie {
            Lie::FlipByte => {
                let mut reply = frame.to_vec();
                reply[HEADER_LEN + 40] ^= 1;
                stream.write_all(&reply)
            }
            Lie::CloseEarly => {
                stream.write_all(&frame[..frame.len() / 2])?;
                Err(over())
            }
            Lie::CloseAtOnce => Err(over()),
            Lie::Reset => {
                Client(stream.try_clone()?).reset();
                Err(over())
            }
            Lie::Silence => stream.read(&mut [0]).and_then(|_| Err(over())),
        }
    })
}

#[test]
fn every_request_is_counted_on_both_sides() {
    for driver in DRIVERS {
        let server = Server::start(&["thread"]);
        let folder = TempDir::new().unwrap();
        let hlog = folder.path().join("latency.hlog");
        let options = format!("--clients 5 --requests 500 --hlog {}", hlog.display());
        let outcome = outcome(server.address(), driver, &options);
        all_well(&outcome, 500);
        let (_, json) = outcome;
        assert_eq!(json["connections"], 5);
        assert_eq!(json["clients_never_served"], 0);
        assert_eq!(count(&json["bytes_received"]), 500 * (24 + 64));
        for name in ["min", "p50", "p90", "p99", "max"] {
            assert!(json["latency_ns"][name].is_u64(), "{name}");
        }
        // 500 are too few for this one, and 5 for all but the extremes.
        assert!(json["latency_ns"]["p999"].is_null());
        assert!(json["connect_ns"]["p50"].is_null());
        assert!(json["connect_ns"]["max"].is_u64());
        assert!(json["throughput_per_second"].is_f64());
        let logged = read_hlog(&hlog);
        assert_eq!(logged.len(), 1);
        assert_eq!(logged[0].1.len(), 500);
        server.counters_until(|counters| counters.get("requests") == 500);
        let ended = server.stop();
        assert_eq!(ended.counters.get("requests"), 500);
        assert_eq!(ended.counters.get("accepted"), 5);
        assert_eq!(ended.counters.get("errors"), 0);
    }
}

#[test]
fn a_load_for_a_time_is_counted_on_both_sides() {
    for driver in DRIVERS {
        let server = Server::start(&["thread"]);
        let options = "--clients 3 --warmup 30ms --duration 400ms --work spin:100us --think 1ms";
        let (code, json) = outcome(server.address(), driver, options);
        assert_eq!(code, 0);
        let answered = count(&json["answered"]);
        assert!(answered > 0);
        assert_eq!(count(&json["planned"]), answered);
        assert_eq!(errors(&json["warmup"]["errors"]), 0);
        let all = answered + count(&json["warmup"]["answered"]);
        assert_eq!(server.stop().counters.get("requests"), all);
    }
}

#[test]
fn any_echo_server_will_do() {
    let server = rfc_862();
    all_well(
        &json(&finish({
            let mut command = executable();
            let address = server.address.to_string();
            command.args(["load", &address, "--requests", "50", "--json"]);
            command
        })),
        50,
    );

    for driver in DRIVERS {
        all_well(&outcome(server.address, driver, "--requests 50"), 50);
        let options = "--requests 10 --payload 0";
        all_well(&outcome(server.address, driver, options), 10);
    }

    let finished = finish(load(server.address, "tasks", "--requests 50"));
    assert_eq!(finished.code, Some(0));
    assert!(
        finished
            .stdout
            .contains("50 planned, 50 answered, 0 failed")
    );
}

#[test]
fn large_frames_come_back_while_they_are_sent() {
    let server = rfc_862();
    for driver in DRIVERS {
        let options = "--clients 3 --requests 30 --payload 262144";
        all_well(&outcome(server.address, driver, options), 30);
        // More than the buffers of both ends together can hold.
        let options = "--requests 2 --payload 16777216 --timeout 30s";
        all_well(&outcome(server.address, driver, options), 2);
    }
}

#[test]
fn a_requirement_that_is_missed_fails_the_load() {
    let server = Server::start(&["thread"]);
    for (options, code, words) in [
        ("--requests 2000 --require p99=1h --require p50=1h", 0, ""),
        (
            "--requests 2000 --require p50=1ns",
            2,
            "not kept: p50=1ns (p50 is ",
        ),
        ("--requests 2000 --require p99.99=1h", 3, "too few requests"),
        (
            "--requests 2000 --require p99.99=1h --require p99=1ns",
            2,
            "not kept: p99=1ns",
        ),
    ] {
        let finished = finish(load(server.address(), "threads", options));
        assert_eq!(finished.code, Some(code), "{options}: {finished:?}");
        assert!(finished.stderr.contains(words), "{options}: {finished:?}");
    }
}

#[test]
fn more_threads_for_the_tasks_change_nothing() {
    let server = rfc_862();
    let options = "--clients 20 --requests 1000 --task-threads 3";
    all_well(&outcome(server.address, "tasks", options), 1000);
}

#[test]
fn a_bad_reply_is_counted_by_its_kind() {
    let lies = [
        (Lie::FlipByte, "wrong_bytes", "byte 64 of a reply of 88"),
        (Lie::CloseEarly, "early_close", "closed after 44 of 88"),
        (Lie::CloseAtOnce, "early_close", "closed after 0 of 88"),
        (Lie::Reset, "reset", ""),
    ];

    for (lie, kind, message) in lies {
        for driver in DRIVERS {
            let server = lying(10, 10, lie);
            let options = "--clients 3 --requests 30 --timeout 30s";
            let (code, json) = outcome(server.address, driver, options);
            assert_eq!(code, 2);
            assert_eq!(count(&json["planned"]), 30);
            assert_eq!(count(&json["answered"]), 29);
            assert_eq!(count(&json["errors"][kind]), 1);
            // The one that failed is the slowest of all.
            assert!(json["latency_ns"]["p50"].is_u64());
            assert!(json["latency_ns"]["max"].is_null());

            let server = lying(2, 2, lie);
            let finished = finish(load(server.address, driver, "--requests 3"));
            assert_eq!(finished.code, Some(2));
            assert!(finished.stdout.contains(message), "{finished:?}");
            assert!(finished.stdout.contains("1 failed"), "{finished:?}");
        }
    }
}

#[test]
fn a_large_wrong_reply_is_noticed() {
    for driver in DRIVERS {
        let server = framed(100_000, |number, frame, stream| {
            let mut reply = frame.to_vec();
            if number == 3 {
                *reply.last_mut().unwrap() ^= 0x80;
            }
            stream.write_all(&reply)
        });
        let options = "--requests 5 --payload 100000";
        let (code, json) = outcome(server.address, driver, options);
        assert_eq!(code, 2);
        assert_eq!(count(&json["errors"]["wrong_bytes"]), 1);
        assert_eq!(count(&json["answered"]), 4);
    }
}

#[test]
fn a_byte_too_many_is_noticed() {
    for driver in DRIVERS {
        let server = framed(64, |number, frame, stream| {
            stream.write_all(frame)?;
            stream.write_all(if number == 2 { b"!" } else { b"" })
        });
        let (code, json) = outcome(server.address, driver, "--requests 5");
        assert_eq!(code, 2);
        assert_eq!(count(&json["errors"]["wrong_bytes"]), 1);
        assert_eq!(count(&json["answered"]), 4);
    }
}

#[test]
fn bytes_after_the_only_reply_on_a_connection_are_wrong() {
    for driver in DRIVERS {
        let server = framed(64, |_, frame, stream| {
            stream.write_all(&[frame, b"!"].concat())
        });
        let options = "--requests 3 --requests-per-connection 1";
        let (code, json) = outcome(server.address, driver, options);
        assert_eq!(code, 1);
        assert_eq!(count(&json["errors"]["wrong_bytes"]), 3);
    }
}

/// A server that answers the first request on a connection, and then each before it reads it, in the hope
/// that it differs from the one before by its number only.
fn guessing() -> Own {
    own(|mut stream| {
        let mut frame = [0; HEADER_LEN + 64];
        stream.read_exact(&mut frame)?;
        stream.write_all(&frame)?;
        loop {
            stream.peek(&mut [0])?;
            let (header, _) = frame.split_at_mut(HEADER_LEN);
            let number = header.last_chunk_mut::<8>().expect("a header has 24 bytes");
            *number = (u64::from_be_bytes(*number).wrapping_add(1)).to_be_bytes();
            stream.write_all(&frame)?;
            stream.read_exact(&mut frame)?;
        }
    })
}

#[test]
fn a_reply_that_was_sent_before_its_request_was_read_is_early() {
    for driver in DRIVERS {
        let (code, json) = outcome(guessing().address, driver, "--requests 6");
        assert_eq!(code, 2);
        // The first on each connection is right, and the second ends it.
        assert_eq!(count(&json["answered"]), 3);
        assert_eq!(count(&json["errors"]["early_reply"]), 3, "{json}");

        // On a new connection the client looks before it sends; if the bytes come later, they are wrong.
        let server = own(|mut stream| {
            stream.write_all(&[7; HEADER_LEN + 64])?;
            io::copy(&mut stream, &mut io::sink()).map(drop)
        });
        let (code, json) = outcome(server.address, driver, "--requests 3");
        assert_eq!(code, 1);
        let errors = |kind: &str| count(&json["errors"][kind]);
        assert_eq!(errors("early_reply") + errors("wrong_bytes"), 3, "{json}");
    }
}

/// A server for one connection at a time, which holds it until the client closes it.
fn one_at_a_time() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            stream.set_nodelay(true)?;
            io::copy(&mut &stream, &mut &stream)?;
        }
        io::Result::Ok(())
    });
    address
}

#[test]
fn clients_that_others_leave_no_room_are_starved() {
    with_each_driver(|driver| {
        let options = "--clients 3 --duration 100ms --timeout 1s";
        let (code, json) = outcome(one_at_a_time(), driver, options);
        assert_eq!(code, 2);
        assert_eq!(count(&json["clients_never_served"]), 2);
        assert_eq!(count(&json["errors"]["timed_out"]), 2);

        // Those that share a number of requests leave when they have made theirs.
        let options = "--clients 3 --requests 30 --timeout 30s";
        let (code, json) = outcome(one_at_a_time(), driver, options);
        assert_eq!((code, count(&json["answered"])), (0, 30));
        assert_eq!(count(&json["clients_never_served"]), 0);
    });
}

#[test]
fn a_connection_that_fails_before_the_start_is_no_request() {
    let (_held, address) = deserted();
    for driver in DRIVERS {
        let options = "--clients 2 --requests 8 --timeout 100ms";
        let (code, json) = outcome(address, driver, options);
        assert_eq!(code, 1);
        assert_eq!(count(&json["failed_before_start"]), 2);
        assert_eq!(count(&json["planned"]), 8);

        let load = finish(load(address, driver, "--duration 20ms"));
        let words = "1 of them before the start (cannot connect";
        assert!(load.stdout.contains(words), "{load:?}");
    }
}

#[test]
fn one_request_has_one_time() {
    let server = rfc_862();
    for driver in DRIVERS {
        let (_, json) = outcome(server.address, driver, "--requests 1");
        let elapsed_ns = count(&json["elapsed_ns"]);
        assert_eq!(count(&json["latency_ns"]["min"]), elapsed_ns);
        assert_eq!(count(&json["latency_ns"]["max"]), elapsed_ns);
        assert_eq!(json["busy_connections"], 1.0);
    }
}

#[test]
fn rates_may_be_far_beyond_reach_or_below_one() {
    let server = rfc_862();
    for driver in DRIVERS {
        let options = "--rate 1000000000 --clients 2 --duration 100ms --timeout 200ms";
        let (code, json) = outcome(server.address, driver, options);
        assert_eq!(code, 2);
        assert_eq!(count(&json["planned"]), 100_000_000);
        assert!(count(&json["answered"]) > 0);
        assert!(json["busy_connections"].as_f64().unwrap() <= 2.0);

        let options = "--rate 0.5 --duration 100ms";
        all_well(&outcome(server.address, driver, options), 1);
        let load = finish(load(server.address, driver, options));
        assert!(load.stdout.contains("open loop at 0.500/s"), "{load:?}");
    }
}

#[test]
fn every_address_of_a_name_is_tried() {
    let server = rfc_862();
    let name = format!("localhost:{}", server.address.port());
    let mut command = executable();
    command.args(["load", &name, "--requests", "5", "--json"]);
    all_well(&json(&finish(command)), 5);
}

#[test]
fn what_is_never_answered_stays_in_the_population() {
    for driver in DRIVERS {
        let server = lying(10, u64::MAX, Lie::Silence);
        let options = "--requests 20 --timeout 1s";
        let (code, json) = outcome(server.address, driver, options);
        assert_eq!(code, 2);
        assert_eq!(count(&json["planned"]), 20);
        assert_eq!(count(&json["answered"]), 9);
        // It tries once more, then gives up.
        assert_eq!(count(&json["errors"]["timed_out"]), 2);
        assert_eq!(count(&json["unsent"]), 9);
        assert!(json["latency_ns"]["p50"].is_u64());
        assert!(json["latency_ns"]["max"].is_null());
    }
}

#[test]
fn a_server_that_never_answers_does_not_hold_the_load() {
    let server = lying(1, u64::MAX, Lie::Silence);
    for driver in DRIVERS {
        for options in ["--requests 20", "--duration 10ms"] {
            let options = format!("{options} --clients 2 --timeout 300ms");
            let (code, json) = outcome(server.address, driver, &options);
            assert_eq!(code, 1);
            assert_eq!(count(&json["answered"]), 0);
            assert_eq!(count(&json["errors"]["timed_out"]), errors(&json["errors"]));
            // In so short a time a client may not even come to ask.
            if options.starts_with("--requests") {
                assert_eq!(count(&json["clients_never_served"]), 2);
            }
            for (name, value) in json["latency_ns"].as_object().unwrap() {
                assert!(value.is_null(), "{name}");
            }
        }
    }
}

/// A server that answers a byte at a time.
fn slow() -> Own {
    framed(64, |_, frame, stream| {
        for byte in frame {
            stream.write_all(&[*byte])?;
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    })
}

#[test]
fn a_reply_byte_by_byte_has_the_same_time_as_any() {
    let server = slow();
    for driver in DRIVERS {
        let options = "--requests 3 --timeout 200ms";
        let (code, json) = outcome(server.address, driver, options);
        assert_eq!(code, 1);
        assert_eq!(count(&json["answered"]), 0);
        assert_eq!(count(&json["errors"]["timed_out"]), 2);
        assert_eq!(count(&json["unsent"]), 1);
        all_well(
            &outcome(server.address, driver, "--requests 1 --timeout 30s"),
            1,
        );
    }
}

/// Runs a test that takes its time with all drivers at once.
fn with_each_driver(test: impl Fn(&str) + Sync) {
    thread::scope(|scope| {
        for driver in DRIVERS {
            scope.spawn(|| test(driver));
        }
    });
}

/// A load without end under way, of which all clients have been answered.
fn under_way(server: &Server, driver: &str, options: &str) -> Running {
    let options = format!("--clients 3 --timeout 500ms --json {options}");
    let load = Running::start(load(server.address(), driver, &options));
    server.counters_until(|counters| counters.get("active") == 3 && counters.get("requests") > 30);
    load
}

#[test]
fn a_server_that_is_killed_ends_the_load_soon() {
    for driver in DRIVERS {
        let server = Server::start(&["thread"]);
        let load = under_way(&server, driver, "--requests 100000000");
        server.signal(Signal::SIGKILL);
        let (code, json) = json(&load.end());
        assert_eq!(code, 2);
        let errors = |kind: &str| count(&json["errors"][kind]);
        assert!(errors("reset") + errors("early_close") > 0, "{json}");
        assert!(errors("refused") > 0);
        assert!(count(&json["unsent"]) > 0);
    }
}

#[test]
fn a_server_that_is_stopped_ends_the_load_soon() {
    for driver in DRIVERS {
        let server = Server::start(&["thread", "--backlog", "1"]);
        let load = under_way(&server, driver, "--requests 100000000");
        server.signal(Signal::SIGSTOP);
        // The kernel still takes connections, as many as the backlog holds.
        let (code, json) = json(&load.end());
        server.signal(Signal::SIGCONT);
        assert_eq!(code, 2);
        let errors = |kind: &str| count(&json["errors"][kind]);
        assert!(errors("timed_out") >= 3, "{json}");
        assert!(count(&json["unsent"]) > 0);
    }
}

#[test]
fn a_server_that_goes_on_is_asked_again() {
    with_each_driver(|driver| {
        let server = Server::start(&["thread"]);
        let load = under_way(&server, driver, "--duration 3s");
        server.signal(Signal::SIGSTOP);
        thread::sleep(Duration::from_millis(700));
        server.signal(Signal::SIGCONT);
        let before = server.counters().get("requests");
        server.counters_until(|counters| counters.get("requests") > before + 100);
        let (code, json) = json(&load.end());
        assert_eq!(code, 2);
        assert!(count(&json["errors"]["timed_out"]) > 0, "{json}");
        assert_eq!(json["clients_never_served"], 0);
    });
}

#[test]
fn a_server_that_is_restarted_is_asked_again() {
    with_each_driver(|driver| {
        let server = Server::start(&["thread"]);
        let address = server.address().to_string();
        let load = under_way(&server, driver, "--duration 3s");
        server.signal(Signal::SIGKILL);
        drop(server);
        let server = Server::start(&["thread", "--listen", &address]);
        server.counters_until(|counters| counters.get("requests") > 100);
        let (code, json) = json(&load.end());
        assert_eq!(code, 2);
        let errors = |kind: &str| count(&json["errors"][kind]);
        assert!(errors("reset") + errors("early_close") > 0, "{json}");
        assert_eq!(errors("wrong_bytes"), 0);
    });
}

/// An address at which nobody listens, nor will while the socket is open.
fn deserted() -> (OwnedFd, SocketAddr) {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Inet, SockType::Stream, flags, None).unwrap();
    let any = SockaddrIn::new(127, 0, 0, 1, 0);
    bind(socket.as_raw_fd(), &any).unwrap();
    let address: SockaddrIn = getsockname(socket.as_raw_fd()).unwrap();
    (socket, SocketAddr::V4(address.into()))
}

#[test]
fn nobody_listens() {
    let (_held, address) = deserted();
    for driver in DRIVERS {
        for churn in ["", "--requests-per-connection 1"] {
            let options = format!("--clients 2 --requests 40 --timeout 100ms {churn}");
            let (code, json) = outcome(address, driver, &options);
            assert_eq!(code, 1);
            assert_eq!(count(&json["planned"]), 40);
            assert_eq!(count(&json["connections"]), 0);
            assert_eq!(count(&json["errors"]["refused"]), errors(&json["errors"]));
            assert!(count(&json["errors"]["refused"]) >= 2);
        }
        // Most of these clients have nothing to ask.
        let options = "--clients 5 --requests 2 --timeout 100ms";
        let (code, json) = outcome(address, driver, options);
        assert_eq!(code, 1);
        assert_eq!(count(&json["planned"]), 2);
        assert_eq!(count(&json["errors"]["refused"]), 2);
        let finished = finish(load(address, driver, "--duration 20ms"));
        assert_eq!(finished.code, Some(1));
        assert!(
            finished
                .stdout
                .contains(&format!("cannot connect to {address}"))
        );
    }
}

#[test]
fn an_error_frame_gives_its_reason() {
    let server = Server::start(&["thread", "--max-payload", "100"]);
    for driver in DRIVERS {
        for payload in [101, 100_000] {
            let options = format!("--requests 3 --payload {payload}");
            let (code, json) = outcome(server.address(), driver, &options);
            assert_eq!(code, 1);
            assert_eq!(count(&json["errors"]["protocol_error"]), 3);
            let finished = finish(load(server.address(), driver, &options));
            assert_eq!(finished.code, Some(1));
            let words = format!(
                "protocol error: 3 (the server says: {})",
                Reason::PayloadTooLarge
            );
            assert!(finished.stdout.contains(&words), "{finished:?}");
        }
        let options = "--requests 3 --payload 100";
        all_well(&outcome(server.address(), driver, options), 3);
    }
}

#[test]
fn churn_connects_from_many_addresses() {
    for driver in DRIVERS {
        let server = rfc_862();
        let options = "--clients 3 --requests 60 --requests-per-connection 1";
        let outcome = outcome(server.address, driver, options);
        all_well(&outcome, 60);
        assert_eq!(count(&outcome.1["connections"]), 60);
        assert!(outcome.1["connect_ns"]["p50"].is_u64());
        let peers = server.peers.lock().unwrap();
        assert_eq!(peers.len(), 60);
        assert!(peers.iter().all(IpAddr::is_loopback));
        assert_eq!(peers.iter().collect::<HashSet<_>>().len(), 60);
    }
}

#[test]
fn connections_last_as_long_as_they_should() {
    for driver in DRIVERS {
        let server = rfc_862();
        let options = "--clients 2 --requests 50 --requests-per-connection 10";
        let outcome = outcome(server.address, driver, options);
        all_well(&outcome, 50);
        // 25 requests each: 10, 10 and 5.
        assert_eq!(count(&outcome.1["connections"]), 6);
        assert_eq!(server.peers.lock().unwrap().len(), 6);
    }
}

/// The headers and payloads that a server sees.
fn traffic(driver: &str, seed: u32) -> Vec<Vec<u8>> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let record = Arc::clone(&seen);
    let server = framed(8, move |_, frame, stream| {
        record.lock().unwrap().push(frame.to_vec());
        stream.write_all(frame)
    });
    let options =
        format!("--requests 100 --payload 8 --seed {seed} --work none=3,block:1ms=1,spin:10us=1");
    all_well(&outcome(server.address, driver, &options), 100);
    let seen = seen.lock().unwrap();
    seen.clone()
}

#[test]
fn the_same_seed_asks_the_same() {
    let expected = traffic("threads", 7);
    let kinds: HashSet<_> = expected.iter().map(|frame| frame[5]).collect();
    assert_eq!(kinds, HashSet::from([0, 1, 2]));
    for driver in DRIVERS {
        assert!(traffic(driver, 7) == expected, "{driver}");
        let work = |frames: &[Vec<u8>]| -> Vec<_> {
            frames.iter().map(|frame| frame[5..12].to_vec()).collect()
        };
        assert_ne!(work(&traffic(driver, 8)), work(&expected));
    }
}

#[test]
fn there_may_be_more_clients_than_requests() {
    let server = rfc_862();
    for driver in DRIVERS {
        let options = "--clients 7 --requests 3";
        let outcome = outcome(server.address, driver, options);
        all_well(&outcome, 3);
        assert_eq!(outcome.1["clients_never_served"], 0);
    }
}

#[test]
fn what_cannot_be_done_is_said_in_a_line() {
    let server = rfc_862();
    let address = server.address.to_string();
    for (target, options, words) in [
        (address.as_str(), "--clients 0", ["0", "--clients"]),
        (&address, "--duration 0s", ["0s", "--duration"]),
        (&address, "--timeout 0s", ["0s", "--timeout"]),
        (&address, "--requests 0", ["0", "--requests"]),
        (
            &address,
            "--requests-per-connection 0",
            ["0", "--requests-per-connection"],
        ),
        (
            &address,
            "--driver fibres",
            ["fibres", "threads, processes, tasks"],
        ),
        (&address, "--work sleep:1ms", ["sleep:1ms", "block"]),
        (&address, "--work block:5", ["5", "duration"]),
        (
            &address,
            "--work block:5s --timeout 1s",
            ["5s", "--timeout 1s"],
        ),
        (&address, "--payload 16777217", ["16777217", "--payload"]),
        (
            &address,
            "--requests 5 --duration 1s",
            ["--requests", "--duration"],
        ),
        (&address, "--json --csv", ["--json", "--csv"]),
        (&address, "--colour red", ["--colour", "unexpected"]),
        ("nowhere", "", ["nowhere", "127.0.0.1:7000"]),
        ("127.0.0.1:70000", "", ["127.0.0.1:70000", "not an address"]),
    ] {
        println!("{target} {options}");
        let mut command = executable();
        command
            .args(["load", target])
            .args(options.split_whitespace());
        finish(command).refused(&words);
    }
    assert!(server.peers.lock().unwrap().is_empty());
}

#[test]
fn too_many_clients_for_the_limit_on_files() {
    let server = rfc_862();
    let address = server.address.to_string();
    for driver in DRIVERS {
        let mut command = Command::new("sh");
        command
            .args(["-c", "ulimit -n 64; exec \"$0\" \"$@\""])
            .arg(executable().get_program())
            .args(["load", &address, "--clients", "200", "--requests", "200"])
            .args(["--driver", driver]);
        finish(command).refused(&["200 clients", "limit is 64", "ulimit -n"]);
    }
    assert!(server.peers.lock().unwrap().is_empty());
}

#[test]
fn an_unwritable_file_is_named() {
    let server = rfc_862();
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("no/such/folder");
    for option in ["--hlog", "--hgrm"] {
        let options = format!("--requests 2 {option} {}", path.display());
        let finished = finish(load(server.address, "threads", &options));
        assert_eq!(finished.code, Some(1));
        assert!(
            finished.stderr.contains(path.to_str().unwrap()),
            "{finished:?}"
        );
    }
}

#[test]
fn a_killed_load_leaves_no_client() {
    let server = rfc_862();
    for (signal, code) in [(Signal::SIGKILL, None), (Signal::SIGTERM, Some(1))] {
        let options = "--clients 4 --duration 10m";
        let load = Running::start(load(server.address, "processes", options));
        load.processes_until(5, "load");
        load.signal(signal);
        assert_eq!(load.end().code, code);
    }
}

#[test]
fn a_killed_client_is_counted() {
    let open = Arc::new(AtomicBool::new(false));
    let gate = Arc::clone(&open);
    let server = framed(64, move |_, frame, stream| {
        while !gate.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(1));
        }
        stream.write_all(frame)
    });

    let options = "--clients 3 --requests 30 --timeout 30s --json";
    let load = Running::start(load(server.address, "processes", options));
    let mut pids = load.processes_until(4, "load").into_iter();
    let victim = pids.find(|pid| *pid != load.pid()).unwrap();
    kill(victim, Signal::SIGKILL).unwrap();
    open.store(true, Ordering::Relaxed);
    let (code, json) = json(&load.end());

    assert_eq!(code, 2);
    assert_eq!(count(&json["errors"]["client_died"]), 1);
    assert_eq!(count(&json["answered"]), 20);
}

/// The columns that scripts rely on.
const COLUMNS: [&str; 22] = [
    "schema_version",
    "target",
    "driver",
    "clients",
    "payload_bytes",
    "planned",
    "answered",
    "unsent",
    "errors_refused",
    "errors_timed_out",
    "errors_reset",
    "errors_early_close",
    "errors_wrong_bytes",
    "errors_protocol_error",
    "throughput_per_second",
    "connections",
    "latency_min_ns",
    "latency_p50_ns",
    "latency_p99_ns",
    "latency_p999_ns",
    "latency_max_ns",
    "connect_p50_ns",
];

#[test]
fn csv_has_names_and_values() {
    let server = rfc_862();
    let (_held, deserted) = deserted();
    for driver in DRIVERS {
        let options = "--clients 2 --requests 10 --csv";
        let finished = finish(load(server.address, driver, options));
        assert_eq!(finished.code, Some(0));
        let values = csv(&finished);
        for name in COLUMNS {
            let same = values.iter().filter(|(known, _)| known == name);
            assert_eq!(same.count(), 1, "{name}");
        }
        let written = values.iter().map(|(name, _)| name.as_str());
        assert_documented(&["`load --csv` and `load --json`"], written);
        let value = |name: &str| {
            let mut pairs = values.iter();
            pairs.find(|(known, _)| known == name).unwrap().1.as_str()
        };
        assert_eq!(value("planned"), "10");
        assert_eq!(value("answered"), "10");
        assert_eq!(value("errors_wrong_bytes"), "0");
        assert_eq!(value("driver"), driver);
        assert_eq!(value("latency_p99_ns"), "");
        assert_ne!(value("latency_p50_ns"), "");

        let options = "--requests 1 --timeout 100ms --csv";
        let finished = finish(load(deserted, driver, options));
        assert_eq!(finished.code, Some(1));
        let names = |values: &[(String, String)]| -> Vec<String> {
            values.iter().map(|(name, _)| name.clone()).collect()
        };
        assert_eq!(names(&csv(&finished)), names(&values));
    }
}

/// The names and values of a CSV of one record.
fn csv(finished: &Finished) -> Vec<(String, String)> {
    let mut reader = csv::Reader::from_reader(finished.stdout.as_bytes());
    let names = reader.headers().unwrap().clone();
    let records: Vec<_> = reader.records().map(Result::unwrap).collect();
    assert_eq!(records.len(), 1);
    let pairs = names.iter().zip(&records[0]);
    pairs.map(|(a, b)| (a.to_owned(), b.to_owned())).collect()
}

#[test]
fn a_percentile_table_ends_with_all_requests() {
    let server = rfc_862();
    let folder = TempDir::new().unwrap();
    for driver in DRIVERS {
        let path: PathBuf = folder.path().join(driver);
        let options = format!("--clients 3 --requests 200 --hgrm {}", path.display());
        let finished = finish(load(server.address, driver, &options));
        assert_eq!(finished.code, Some(0));
        let table = std::fs::read_to_string(path).unwrap();
        let last = table.lines().rfind(|line| !line.starts_with('#')).unwrap();
        assert_eq!(last.split_whitespace().nth(2), Some("200"), "{table}");
        assert!(table.contains("Total count    =          200"), "{table}");
    }
}

/// An echo server that takes note of the addresses of its clients.
fn echo_with_peers() -> (SocketAddr, Arc<Mutex<BTreeMap<IpAddr, u32>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let peers = Arc::new(Mutex::new(BTreeMap::new()));
    let seen = Arc::clone(&peers);
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let peer = stream.peer_addr().unwrap().ip();
            *seen.lock().unwrap().entry(peer).or_default() += 1;
            thread::spawn(move || {
                let mut buffer = [0; 1024];
                while let Ok(count @ 1..) = stream.read(&mut buffer) {
                    if stream.write_all(&buffer[..count]).is_err() {
                        break;
                    }
                }
            });
        }
    });
    (address, peers)
}

#[test]
fn connections_come_from_the_source_addresses_in_turn() {
    for driver in ["threads", "processes", "tasks"] {
        for churn in [None, Some("--requests-per-connection=1")] {
            let (address, peers) = echo_with_peers();
            let mut command = executable();
            command.args(["load", &address.to_string(), "--driver", driver]);
            command.args(["--source-address", "127.0.0.2,127.0.0.3"]);
            command
                .args(["--clients", "4", "--requests", "40"])
                .args(churn);
            let finished = finish(command);
            assert_eq!(finished.code, Some(0), "{driver}: {finished:?}");

            let counts = peers.lock().unwrap().clone();
            let each = if churn.is_some() { 20 } else { 2 };
            let expected = ["127.0.0.2", "127.0.0.3"].map(|source| (source.parse().unwrap(), each));
            assert_eq!(counts, BTreeMap::from(expected), "{driver} {churn:?}");
        }
    }
}

#[test]
fn a_source_address_of_another_host_is_refused() {
    for (source, words) in [
        ("192.0.2.1", "(os error 99)"),
        ("::1", "different versions of IP"),
        ("here", "invalid IP address"),
    ] {
        let mut command = executable();
        command.args(["load", "127.0.0.1:9", "--source-address", source]);
        let finished = finish(command);
        assert!(matches!(finished.code, Some(1 | 2)), "{finished:?}");
        assert!(finished.stderr.contains(words), "{source}: {finished:?}");
    }
}

/// Ten ports, in a network namespace of its own, for twenty connections that last.
#[test]
fn more_source_addresses_have_more_ports() {
    if !geteuid().is_root() {
        println!("skipped: a network namespace needs root");
        return;
    }
    let from = |sources: &str| {
        let program = executable().get_program().to_str().unwrap().to_owned();
        let script = format!(
            "ip link set lo up && echo 40000 40009 > /proc/sys/net/ipv4/ip_local_port_range || exit 77; \
             exec '{program}' load --serve thread --clients 20 --requests 20 --source-address {sources}"
        );
        let mut command = Command::new("unshare");
        command.args(["-n", "sh", "-c", &script]);
        finish(command)
    };

    let one = from("127.0.0.2");
    if one.code == Some(77) || one.stderr.starts_with("unshare: ") {
        println!("skipped: no network namespace with ports of its own");
        return;
    }
    assert_eq!(one.code, Some(1), "{one:?}");
    let text = format!("{}{}", one.stdout, one.stderr);
    assert!(text.contains("more source addresses"), "{one:?}");
    let three = from("127.0.0.2,127.0.0.3,127.0.0.4");
    assert_eq!(three.code, Some(0), "{three:?}");
}
