//! Conformance of every model, tested against the real executable.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::thread;
use std::time::Duration;

use crate::common::{self, Client, HANG, Server, echo, eventually, executable, frame};
use echobench_protocol::{DEFAULT_MAX_PAYLOAD, Reason, Work, error_reason};
use echobench_servers::{Family, find};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::geteuid;

/// Every model, the options that change how it serves, and a pool without a worker to spare.
fn models() -> Vec<Vec<&'static str>> {
    let mut models = common::models();
    models.push(vec!["pool", "--workers", "1"]);
    models
}

fn family(model: &[&str]) -> Family {
    find(model[0]).unwrap().family
}

/// The number of connections that a model serves at the same time, if it has a limit.
fn capacity(model: &[&str]) -> Option<u64> {
    match family(model) {
        Family::Iterative => Some(1),
        Family::Pool | Family::ProcessPool => {
            let workers = model.windows(2).find(|pair| pair[0] == "--workers");
            Some(workers.map_or(64, |pair| pair[1].parse().unwrap()))
        }
        Family::Threads | Family::Processes | Family::Tasks | Family::EventLoops => None,
    }
}

/// Runs a test against a server of each model.
fn with_each_model(options: &[&str], test: impl Fn(&[&str], Server)) {
    for model in models() {
        // Shown when the test fails.
        println!("model {}", model.join(" "));
        test(&model, Server::start(&[&model, options].concat()));
    }
}

fn largest() -> usize {
    DEFAULT_MAX_PAYLOAD as usize
}

#[test]
fn frames_of_every_size_come_back_as_they_are() {
    with_each_model(&[], |_, server| {
        server.holds("sizes");
        let ended = server.stop();
        assert_eq!(ended.counters.get("requests"), 8);
        assert_eq!(ended.counters.get("errors"), 0);
    });
}

#[test]
fn work_is_done_and_answered() {
    with_each_model(&[], |_, server| server.holds("work"));
}

#[test]
fn an_oversize_frame_is_refused_and_the_server_lives() {
    with_each_model(&[], |_, server| {
        server.holds("oversize");
        // So is one just over the default limit, and the error frame arrives even if the client sends the
        // whole frame before it reads.
        for (sequence, payload) in [(3, largest() + 1), (4, 2 * largest())] {
            let mut client = server.connect();
            client.send(&frame(sequence, payload, Work::None));
            client.finish();
            client.refused(Reason::PayloadTooLarge, sequence);
        }
        let ended = server.stop();
        assert_eq!(ended.counters.get("errors"), 3);
        assert_eq!(ended.counters.get("requests"), 2);
    });
}

#[test]
fn what_is_no_request_is_refused_with_its_reason() {
    with_each_model(&["--max-work", "1s"], |_, server| {
        server.holds("malformed");
        let mut client = server.connect();
        client.send(&frame(9, 0, Work::Block(Duration::from_micros(1_000_001))));
        client.refused(Reason::WorkTooLong, 9);
        drop(client);
        assert_eq!(server.stop().counters.get("errors"), 7);
    });
}

#[test]
fn frames_may_arrive_byte_by_byte() {
    with_each_model(&[], |_, server| server.holds("bytewise"));
}

#[test]
fn frames_may_arrive_all_at_once() {
    with_each_model(&[], |_, server| {
        server.holds("pipelined");
        assert_eq!(server.stop().counters.get("requests"), 100);
    });
}

#[test]
fn a_client_that_sends_no_more_is_still_answered() {
    with_each_model(&[], |_, server| {
        server.holds("half-close");
        // In the middle of a frame there is nothing to answer.
        server.holds("cut-short");
        let ended = server.stop();
        assert_eq!(ended.counters.get("requests"), 2);
        assert_eq!(ended.counters.get("errors"), 1);
    });
}

#[test]
fn a_reset_in_the_middle_of_a_frame_hurts_nobody_else() {
    with_each_model(&[], |_, server| {
        server.holds("reset");
        let counters = server.counters_until(|counters| counters.get("active") == 0);
        assert_eq!(counters.get("errors"), 1);
        assert_eq!(counters.get("requests"), 2);
    });
}

#[test]
fn two_hundred_connections_at_once() {
    const CONNECTIONS: u64 = 200;
    with_each_model(&[], |model, server| {
        let mut clients: Vec<Client> = (0..CONNECTIONS).map(|_| server.connect()).collect();
        let at_once = capacity(model).map_or(CONNECTIONS, |capacity| capacity.min(CONNECTIONS));
        // Whoever is not served waits: in the channel of the pool, where it is counted, or in the
        // kernel.
        let waiting = if family(model) == Family::Pool && find(model[0]).unwrap().accept.is_empty()
        {
            CONNECTIONS - at_once
        } else {
            0
        };
        server.counters_until(|counters| {
            counters.get("active") == at_once && counters.get("waiting") == waiting
        });
        if at_once == CONNECTIONS {
            for (sequence, client) in (0..).zip(&mut clients) {
                client.send(&echo(sequence));
            }
            // Nobody waits for anybody who came before.
            for (sequence, client) in (0..CONNECTIONS).rev().zip(clients.iter_mut().rev()) {
                assert_eq!(client.receive(echo(sequence).len()), echo(sequence));
            }
        }
        drop(clients);
        // Elsewhere they are served in turn, each when one before it has gone.
        server.holds("many");
        let asked = if at_once == CONNECTIONS { 2 } else { 1 };
        let counters = server.counters_until(|counters| {
            counters.get("active") == 0
                && counters.get("accepted") == 2 * CONNECTIONS
                && counters.get("requests") == asked * CONNECTIONS
        });
        assert_eq!(counters.get("errors"), 0);
    });
}

#[test]
fn a_blocked_request_holds_up_no_other_connection() {
    with_each_model(&[], |model, server| {
        if capacity(model) == Some(1) {
            return;
        }
        let mut slow = server.connect();
        slow.send(&frame(1, 0, Work::Block(HANG)));
        server.counters_until(|counters| counters.get("active") == 1);
        server.connect().exchange(&echo(2));
    });
}

#[test]
fn the_raw_service_returns_every_byte() {
    with_each_model(&["--service", "raw"], |_, server| {
        let mut client = server.connect();
        client.exchange(b"\x00no frame\xff");
        client.exchange(&echo(1));
        client.finish();
        assert_eq!(client.rest(), b"");
        assert_eq!(server.stop().counters.get("errors"), 0);
    });
}

#[test]
fn the_time_service_speaks_first_and_closes() {
    with_each_model(&["--service", "time"], |_, server| {
        let text = String::from_utf8(server.connect().rest()).unwrap();
        assert!(text.ends_with(" GMT\r\n"), "{text:?}");
        assert_eq!(text.matches("\r\n").count(), 1, "{text:?}");
        let ended = server.stop();
        assert_eq!(ended.counters.get("requests"), 1);
        assert_eq!(ended.counters.get("errors"), 0);
    });
}

#[test]
fn sigterm_lets_every_request_be_answered() {
    // Longer than a test may hang: an idle connection must not be waited for.
    with_each_model(&["--drain", "1h"], |_, server| {
        let mut idle = server.connect();
        idle.exchange(&echo(1));
        let mut clients: Vec<Client> = (0..5).map(|_| server.connect()).collect();
        let slow = frame(2, 64, Work::Block(Duration::from_millis(200)));
        for client in &mut clients {
            client.send(&slow);
        }
        let ended = server.stop();
        for client in &mut clients {
            assert_eq!(client.rest(), slow);
        }
        assert_eq!(idle.rest(), b"");
        assert_eq!(ended.status.code(), Some(0));
        assert_eq!(ended.stderr, "");
        assert_eq!(ended.counters.get("requests"), 6);
        assert_eq!(ended.counters.get("active"), 0);
        assert_eq!(ended.counters.get("errors"), 0);
    });
}

#[test]
fn sigint_is_as_good() {
    with_each_model(&[], |_, server| {
        server.connect().exchange(&echo(1));
        server.signal(Signal::SIGINT);
        assert_eq!(server.end().status.code(), Some(0));
    });
}

#[test]
fn the_drain_has_a_limit() {
    with_each_model(&["--drain", "100ms"], |_, server| {
        let mut client = server.connect();
        client.send(&frame(1, 0, Work::Block(2 * HANG)));
        server.counters_until(|counters| counters.get("active") == 1);
        let ended = server.stop();
        assert_eq!(ended.status.code(), Some(0));
        assert!(ended.stderr.contains("cut off"), "{:?}", ended.stderr);
        client.closed();
    });
}

#[test]
fn a_second_sigterm_ends_the_server_at_once() {
    with_each_model(&["--drain", "1h"], |_, mut server| {
        let mut client = server.connect();
        client.send(&frame(1, 0, Work::Block(2 * HANG)));
        server.counters_until(|counters| counters.get("active") == 1);
        server.signal(Signal::SIGTERM);
        server.has_seen(Signal::SIGTERM);
        assert!(server.is_running());
        let ended = server.stop();
        assert_eq!(ended.status.code(), Some(0));
        assert!(ended.stderr.contains("second signal"), "{:?}", ended.stderr);
        client.closed();
    });
}

#[test]
fn counters_equal_what_was_sent() {
    with_each_model(&[], |model, server| {
        let connections = capacity(model).unwrap_or(3).min(3);
        let mut clients: Vec<Client> = (0..connections).map(|_| server.connect()).collect();
        for sequence in 0..100 {
            for client in &mut clients {
                client.exchange(&echo(sequence));
            }
        }
        // Asked while the connections are open.
        let requests = 100 * connections;
        let counters = server.counters_until(|counters| counters.get("requests") == requests);
        assert_eq!(counters.get("active"), connections);
        assert_eq!(counters.get("accepted"), connections);
        drop(clients);
        server.counters_until(|counters| counters.get("active") == 0);
        let ended = server.stop();
        assert_eq!(ended.counters.get("requests"), requests);
        assert_eq!(ended.counters.get("errors"), 0);
    });
}

#[test]
fn counters_are_printed_as_often_as_wanted() {
    with_each_model(&["--stats-every", "10ms"], |_, server| {
        for _ in 0..3 {
            let line = server.line().expect("counters");
            assert!(line.starts_with("counters accepted=0 "), "{line}");
        }
    });
}

#[test]
fn a_verbose_server_names_its_clients() {
    with_each_model(&["--verbose"], |_, server| {
        let mut client = server.connect();
        client.exchange(&echo(1));
        let address = client.0.local_addr().unwrap().to_string();
        drop(client);
        let ended = server.stop();
        assert!(ended.stderr.contains(&address), "{:?}", ended.stderr);
    });
}

#[test]
fn descriptors_are_not_leaked() {
    with_each_model(&[], |_, server| {
        // Whatever is opened on first use is open now.
        server.connect().exchange(&echo(0));
        server.counters_until(|counters| counters.get("active") == 0);
        let before = eventually_stable(&server);
        for sequence in 0..200 {
            let mut client = server.connect();
            client.exchange(&echo(sequence));
            match sequence % 4 {
                0 => client.reset(),
                1 => client.send(&echo(sequence)[..30]),
                2 => client.send(b"no frame"),
                _ => {}
            }
        }
        eventually(
            || (server.descriptors() == before).then_some(()),
            || server.descriptors(),
        );
    });
}

/// The number of descriptors when the last connection, which is counted out first, is closed.
fn eventually_stable(server: &Server) -> usize {
    let mut last = server.descriptors();
    loop {
        thread::sleep(Duration::from_millis(20));
        let now = server.descriptors();
        if now == last {
            return now;
        }
        last = now;
    }
}

#[test]
fn children_are_collected_while_the_server_is_idle() {
    let server = Server::start(&["fork"]);
    for sequence in 0..200 {
        server.connect().exchange(&echo(sequence));
    }
    // Nothing is asked of the server here that could wake it up.
    eventually(
        || server.children().is_empty().then_some(()),
        || server.children(),
    );

    let counters = server.counters();
    assert_eq!(counters.get("reaped"), 200);
    assert_eq!(counters.get("requests"), 200);
    assert_eq!(counters.get("active"), 0);
}

#[test]
fn a_killed_child_is_an_error_and_no_more() {
    let server = Server::start(&["fork"]);
    let mut client = server.connect();
    client.exchange(&echo(1));
    server.counters_until(|counters| counters.get("requests") == 1);

    for child in server.children() {
        kill(child, Signal::SIGKILL).unwrap();
    }
    client.closed();
    let counters = server.counters_until(|counters| counters.get("active") == 0);

    assert_eq!(counters.get("errors"), 1);
    assert_eq!(counters.get("requests"), 1);

    server.connect().exchange(&echo(2));
}

#[test]
fn children_die_with_the_server() {
    let server = Server::start(&["fork"]);
    let mut client = server.connect();
    client.exchange(&echo(1));
    server.signal(Signal::SIGKILL);
    client.closed();
}

#[test]
fn a_server_out_of_descriptors_waits_and_serves_again() {
    for model in models() {
        println!("model {}", model.join(" "));
        let mut limited = Command::new("sh");
        limited.args(["-c", "ulimit -n 32; exec \"$0\" \"$@\""]);
        limited.arg(env!("CARGO_BIN_EXE_echobench"));
        let mut server = Server::start_by(limited, &model);
        let clients: Vec<Client> = (0..60).map(|_| server.connect()).collect();
        // A server with processes for its connections keeps none itself, and an iterative server has one at a time.
        if !family(&model).forks() && !family(&model).is_iterative() {
            server.counters_until(|counters| counters.get("exhausted") > 0);
        }
        let before = server.cpu_ticks();
        thread::sleep(Duration::from_millis(300));
        let used = server.cpu_ticks() - before;
        // To ask again and again would take all 30.
        assert!(
            used <= 10,
            "{used} ticks of CPU time while there was nothing to do"
        );
        assert!(server.is_running());
        drop(clients);
        server.connect().exchange(&echo(1));
        let ended = server.stop();
        assert_eq!(ended.status.code(), Some(0));
        // Once, however often.
        assert!(ended.stderr.lines().count() <= 1, "{}", ended.stderr);
    }
}

#[test]
fn a_connection_without_a_thread_is_refused_in_words() {
    // No address space holds such a stack.
    let server = Server::start(&["thread", "--stack-size", &(1_u64 << 50).to_string()]);
    assert_refused(server);
}

#[test]
fn a_connection_without_a_process_is_refused_in_words() {
    // The limit binds no privileged user: the server runs as nobody, who has to be able to read it.
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let copy = folder.path().join("echobench");
    // By another process: a child forked for another test in the meantime would inherit the copy
    // open for writing, and then it could not be executed.
    let copied = Command::new("cp")
        .arg(env!("CARGO_BIN_EXE_echobench"))
        .arg(&copy)
        .status();

    assert!(copied.unwrap().success());

    let mut limited = Command::new(copy);
    if geteuid().is_root() {
        limited.uid(65_534).gid(65_534);
    }
    #[expect(unsafe_code, reason = "the limit is the child's own")]
    // SAFETY: one system call, which allocates nothing and takes no lock.
    unsafe {
        limited.pre_exec(|| Ok(setrlimit(Resource::RLIMIT_NPROC, 1, 1)?));
    }

    assert_refused(Server::start_by(limited, &["fork"]));
}

fn assert_refused(server: Server) {
    for _ in 0..3 {
        let mut client = server.connect();
        assert_eq!(error_reason(&client.rest()), Some(Reason::Overloaded));
    }
    let ended = server.stop();
    assert_eq!(ended.status.code(), Some(0));
    assert_eq!(ended.counters.get("refused"), 3);
    assert_eq!(ended.counters.get("active"), 0);
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
}

#[test]
fn what_cannot_be_served_is_said_in_one_line() {
    let server = Server::start(&["iterative"]);
    let taken = server.address().to_string();
    for (arguments, words) in [
        (vec!["threads"], "unknown model 'threads' (thread, fork,"),
        (vec!["thread", "--listen", &taken], "port is in use"),
        (
            vec!["thread", "--listen", "192.0.2.1:0"],
            "not an address of this machine",
        ),
    ] {
        let output = executable().arg("serve").args(arguments).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(stderr.contains(words), "{stderr}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn options_out_of_range_are_refused() {
    for arguments in [
        ["--workers", "0"],
        ["--backlog", "0"],
        ["--stats-every", "0s"],
        ["--max-payload", "16777217"],
        ["--service", "chargen"],
        ["--runtime", "green"],
        ["--listen", "nowhere"],
    ] {
        let output = executable()
            .args(["serve", "thread"])
            .args(arguments)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(!output.stderr.is_empty());
        assert!(output.stdout.is_empty());
    }
}
