//! Workers that accept for themselves or have connections passed to them, in every way in which they can.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use crate::common::{Client, HANG, Server, available_models, echo, eventually};
use echobench::verify;
use echobench_servers::{Family, Model};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const WORKERS: usize = 8;

/// The models of a family, or all of them, with each of their ways.
fn ways(of: impl Fn(&Model) -> bool) -> Vec<Vec<&'static str>> {
    let models = available_models().filter(|model| of(model));
    let ways = models.flat_map(|model| {
        let ways = model.accept.iter();
        ways.map(|way| vec![model.name, "--workers", "8", "--accept", way.name()])
    });
    ways.collect()
}

fn every_way() -> Vec<Vec<&'static str>> {
    let mut ways = ways(|_| true);
    ways.push(vec!["async", "--workers", "8", "--runtime", "per-core"]);
    ways
}

/// Starts a server of processes in each of their ways.
fn with_each_way_of_processes(test: impl Fn(&str, Server)) {
    for arguments in ways(|model| model.family == Family::ProcessPool) {
        // Shown when the test fails.
        println!("{}", arguments.join(" "));
        test(arguments[4], Server::start(&arguments));
    }
}

#[test]
fn every_way_conforms() {
    for arguments in every_way() {
        println!("{}", arguments.join(" "));
        let server = Server::start(&arguments);
        for check in verify::CHECKS {
            server.holds(check.name);
        }
        assert_eq!(server.stop().status.code(), Some(0));
    }
}

#[test]
fn the_counts_of_the_workers_add_up() {
    for arguments in every_way() {
        println!("{}", arguments.join(" "));
        let server = Server::start(&arguments);
        for sequence in 0..40 {
            server.connect().exchange(&echo(sequence));
        }

        let ended = server.stop();
        assert_eq!(ended.counters.get("requests"), 40);
        assert_eq!(ended.counters.get("accepted"), 40);
        assert_eq!(ended.counters.get("workers"), 40);
        assert_eq!(ended.counters.get("active"), 0);
        assert_eq!(ended.counters.get("waiting"), 0);
    }
}

#[test]
fn a_drain_answers_those_who_wait_for_a_worker() {
    for arguments in every_way() {
        println!("{}", arguments.join(" "));
        let server = Server::start(&[&arguments[..], &["--drain", "1h"]].concat());
        let mut clients: Vec<Client> = (0..5 * WORKERS).map(|_| server.connect()).collect();
        for client in &mut clients {
            client.send(&echo(1));
        }

        let ending = thread::spawn(move || server.stop());
        for client in &mut clients {
            assert_eq!(client.rest(), echo(1));
        }
        let ended = ending.join().unwrap();
        assert_eq!(ended.status.code(), Some(0));
        assert_eq!(ended.stderr, "");
        assert_eq!(ended.counters.get("requests"), clients.len() as u64);
        assert_eq!(ended.counters.get("errors"), 0);
    }
}

#[test]
fn every_worker_that_is_killed_is_replaced() {
    with_each_way_of_processes(|way, server| {
        // Where each worker has a backlog of its own, a client may wait for a worker that another one holds.
        let count = if way == "reuseport" { 0 } else { WORKERS / 2 };
        let mut connected: Vec<Client> = (0..count).map(|_| server.connect()).collect();
        for client in &mut connected {
            client.exchange(&echo(1));
        }

        for worker in server.children() {
            kill(worker, Signal::SIGKILL).unwrap();
            await_death(worker);
            let before = connected.len();
            connected.retain_mut(is_served);
            assert!(before - connected.len() <= 1, "more than its own client");
            server.connect().exchange(&echo(2));
            all_workers_run(&server);
        }

        // Each of the clients had a worker to itself.
        assert_eq!(connected.len(), 0);
        server.counters_until(|counters| counters.get("active") == 0);
        let ended = server.stop();
        assert_eq!(ended.counters.get("errors"), WORKERS as u64);
        assert_eq!(ended.counters.get("reaped"), 2 * WORKERS as u64);
    });
}

#[test]
fn clients_wait_while_all_workers_are_replaced() {
    with_each_way_of_processes(|_, server| {
        server.signal(Signal::SIGSTOP);
        eventually(|| server.is_stopped().then_some(()), || "not stopped");
        for worker in server.children() {
            kill(worker, Signal::SIGKILL).unwrap();
            await_death(worker);
        }

        let clients: Vec<Client> = (0..WORKERS).map(|_| server.connect()).collect();
        server.signal(Signal::SIGCONT);
        for mut client in clients {
            client.exchange(&echo(1));
        }
        all_workers_run(&server);
        assert_eq!(server.stop().counters.get("requests"), WORKERS as u64);
    });
}

#[test]
fn a_worker_takes_one_connection_with_it_at_most() {
    with_each_way_of_processes(|_, server| {
        const KILLED: usize = 16;
        let (address, done) = (server.address(), AtomicBool::new(false));

        let failed: usize = thread::scope(|scope| {
            let come_and_go = || {
                let ask = || is_served(&mut Client::connect(address).unwrap());
                let start = Instant::now();
                let goes_on = |_: &u32| !done.load(Ordering::Relaxed) && start.elapsed() < HANG;
                let asked = (0..).take_while(goes_on);
                asked.filter(|_| !ask()).count()
            };
            let clients = [(); 4].map(|()| scope.spawn(come_and_go));

            for number in 0..KILLED {
                let workers = all_workers_run(&server);
                kill(workers[number % WORKERS], Signal::SIGKILL).unwrap();
                await_death(workers[number % WORKERS]);
            }
            all_workers_run(&server);
            done.store(true, Ordering::Relaxed);
            clients.map(|client| client.join().unwrap()).iter().sum()
        });

        assert!(failed <= KILLED, "{failed} failed");
        server
            .counters_until(|counters| counters.get("active") == 0 && counters.get("waiting") == 0);
        assert_eq!(server.stop().status.code(), Some(0));
    });
}

#[test]
fn workers_die_with_a_killed_server() {
    with_each_way_of_processes(|_, server| {
        let mut client = server.connect();
        client.exchange(&echo(1));
        let workers = server.children();
        server.signal(Signal::SIGKILL);
        client.closed();
        workers.into_iter().for_each(await_death);
    });
}

/// Whether a request is answered; if not, the connection is closed.
fn is_served(client: &mut Client) -> bool {
    use std::io::{Read as _, Write as _};

    let mut reply = vec![0; echo(3).len()];
    let stream = &mut client.0;
    let asked = stream.write_all(&echo(3));
    asked.and_then(|()| stream.read_exact(&mut reply)).is_ok()
}

/// The state of a process, as one letter; none once it is gone.
fn state(pid: Pid) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(") ")?;
    fields.chars().next()
}

/// Waits until a killed process has closed its files, whether or not it is reaped.
fn await_death(pid: Pid) {
    let is_dead = || state(pid).is_none_or(|state| state == 'Z');
    eventually(|| is_dead().then_some(()), || state(pid));
}

/// Waits until the server has all of its workers, without a zombie among them, and returns them.
fn all_workers_run(server: &Server) -> Vec<Pid> {
    let run = |workers: &Vec<Pid>| {
        workers.len() == WORKERS && workers.iter().all(|pid| state(*pid) != Some('Z'))
    };
    eventually(|| Some(server.children()).filter(run), || server.children())
}
