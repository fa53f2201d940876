//! The fault matrix: what becomes of a server of each model, and of its other clients, when something
//! goes wrong. The table in `docs/faults.md` is made from the data here.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::ptr;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{Client, HANG, Server, copy_for_nobody, echo, eventually, frame, models};
use echobench_clients::raise_file_limit;
use echobench_protocol::{DEFAULT_MAX_PAYLOAD, HEADER_LEN, Reason, Work, error_reason};
use echobench_servers::{AcceptMode, Family, Model, find};
use nix::errno::Errno;
use nix::libc;
use nix::sys::resource::Resource;
use nix::sys::signal::{Signal, kill, killpg};
use nix::time::clock_getcpuclockid;
use nix::unistd::{Pid, geteuid};

/// The fate of a client that has done nothing wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It is answered, and notices nothing.
    Served,
    /// It is not answered while the fault lasts, and then it is.
    Waits,
    /// It is told that the server has no resources left for it.
    Refused,
    /// It loses its connection, or gets none.
    CutOff,
}
use Fate::{CutOff, Refused, Served, Waits};

/// The other clients: those connected before the fault, and those that come during it.
#[derive(Clone, Copy, Debug)]
struct Others {
    connected: Fate,
    new: Fate,
}

const fn others(connected: Fate, new: Fate) -> Others {
    Others { connected, new }
}

const NONE_NOTICE: Others = others(Served, Served);
const NEW_WAIT: Others = others(Served, Waits);
const ALL_WAIT: Others = others(Waits, Waits);
const ALL_CUT_OFF: Others = others(CutOff, CutOff);

/// A row of the matrix.
struct Row {
    fault: &'static str,
    does: &'static str,
    /// The fate of the other clients, by the family of the model.
    others: fn(Family) -> Others,
    /// Makes the fault happen to a server of this model, and holds the others to their fate.
    happens: fn(&Arm, Others),
}

/// Others of each kind. An iterative server serves one connection at a time, which is that of the
/// client that goes wrong; there nobody else is connected before.
const OTHERS: usize = 4;

const MATRIX: [&Row; 15] = [
    &DESCRIPTORS,
    &PROCESSES,
    &PANIC,
    &ABORT,
    &KILLED,
    &SLOW_SENDER,
    &NEVER_READS,
    &HALF_CLOSE,
    &RESET,
    &GARBAGE,
    &LARGEST,
    &STOPPED,
    &TERMINATED,
    &TWICE,
    &BACKLOG,
];

/// A model with its options.
struct Arm {
    model: &'static Model,
    arguments: Vec<&'static str>,
}

/// Every model, and the options that change how it serves.
fn arms() -> Vec<Arm> {
    let arm = |arguments: Vec<&'static str>| Arm {
        model: find(arguments[0]).unwrap(),
        arguments,
    };
    models().into_iter().map(arm).collect()
}

impl Arm {
    /// Starts a server, with further options.
    fn start(&self, options: &[&str]) -> Server {
        Server::start(&[&self.arguments, options].concat())
    }

    fn family(&self) -> Family {
        self.model.family
    }

    /// The fate of the other clients. A parent that accepts for its workers must not be stopped.
    fn others(&self, row: &Row) -> Others {
        if self.arguments.contains(&"pass") && row.fault == STOPPED.fault {
            return NEW_WAIT;
        }
        (row.others)(self.family())
    }
}

/// Lets the fault happen to every model, all at the same time.
fn play(row: &Row) {
    thread::scope(|scope| {
        for arm in arms() {
            let name = arm.arguments.join(" ");
            let play = move || (row.happens)(&arm, arm.others(row));
            thread::Builder::new()
                .name(name)
                .spawn_scoped(scope, play)
                .unwrap();
        }
    });
}

/// Clients that have done nothing wrong.
struct Bystanders {
    connected: Vec<Client>,
}

impl Bystanders {
    /// They connect, and are served.
    fn connect(arm: &Arm, server: &Server) -> Self {
        let count = if arm.family().is_iterative() {
            0
        } else {
            OTHERS
        };
        let mut connected: Vec<_> = (0..count).map(|_| server.connect()).collect();
        for client in &mut connected {
            client.exchange(&echo(1));
        }
        Bystanders { connected }
    }

    /// During the fault they ask, and as many new ones come and ask.
    fn ask(self, server: &Server, expected: Others) -> Asked {
        self.ask_with(server, OTHERS, expected)
    }

    fn ask_with(self, server: &Server, new: usize, expected: Others) -> Asked {
        let address = server.address();
        let connected = asked(self.connected.into_iter().map(|client| || Ok(client.0)));
        let new = asked((0..new).map(|_| move || TcpStream::connect(address)));
        connected.hold("connected", expected.connected);
        new.hold("new", expected.new);
        Asked { connected, new }
    }
}

/// Others that have asked, and what came of it.
struct Asked {
    connected: Answers,
    new: Answers,
}

impl Asked {
    /// The fault is over: whoever had to wait is served now.
    fn all_served(&self) {
        for answers in [&self.connected, &self.new] {
            let mut rest = answers.fates.iter();
            assert!(rest.all(|fate| fate == Served), "not served afterwards");
        }
    }
}

/// The fates of some clients, which stay connected until all are known.
struct Answers {
    count: usize,
    fates: Receiver<Fate>,
}

fn asked<F>(clients: impl ExactSizeIterator<Item = F>) -> Answers
where
    F: FnOnce() -> io::Result<TcpStream> + Send + 'static,
{
    let (sender, fates) = channel();
    let count = clients.len();
    for client in clients {
        let sender = sender.clone();
        thread::spawn(move || sender.send(fate(client)));
    }
    Answers { count, fates }
}

fn fate(connect: impl FnOnce() -> io::Result<TcpStream>) -> Fate {
    let ask = || -> io::Result<Vec<u8>> {
        let mut stream = connect()?;
        stream.set_read_timeout(Some(HANG))?;
        // A server that refuses may close before it has read.
        let sent = stream.write_all(&echo(7));
        let mut reply = Vec::new();
        let wanted = echo(7).len() as u64;
        (&stream).take(wanted).read_to_end(&mut reply)?;
        if reply.is_empty() {
            sent.map(|()| reply)
        } else {
            Ok(reply)
        }
    };

    match ask() {
        Ok(reply) if reply == echo(7) => Served,
        Ok(reply) if error_reason(&reply) == Some(Reason::Overloaded) => Refused,
        Ok(_) | Err(_) => CutOff,
    }
}

impl Answers {
    /// Every one of them has the expected fate. Nobody is asked to be fast: only those that are to
    /// wait are not waited for.
    fn hold(&self, whose: &str, expected: Fate) {
        let patience = if expected == Waits {
            Duration::from_millis(150)
        } else {
            HANG
        };

        let end = Instant::now() + patience;
        let mut fates = Vec::new();
        while fates.len() < self.count {
            let left = end.saturating_duration_since(Instant::now());
            match self.fates.recv_timeout(left) {
                Ok(fate) => fates.push(fate),
                Err(RecvTimeoutError::Timeout) => {
                    fates.resize(self.count, Waits);
                }
                Err(RecvTimeoutError::Disconnected) => unreachable!("one answer each"),
            }
        }

        assert!(
            fates.iter().all(|fate| *fate == expected),
            "{whose}: {fates:?}"
        );
    }
}

/// The server has come through: it serves, ends as it should, and has said little.
fn is_sound(server: Server) -> crate::common::Counters {
    server.connect().exchange(&echo(99));
    let ended = server.stop();
    assert_eq!(ended.status.code(), Some(0));
    assert!(ended.stderr.lines().count() <= 1, "{}", ended.stderr);
    ended.counters
}

/// Sets the soft limit of another process, to at most its hard one.
fn limit(pid: Pid, resource: Resource, soft: u64) -> io::Result<()> {
    let mut old = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };

    #[expect(unsafe_code, reason = "there is no safe name for it")]
    // SAFETY: each pointer is null or points to a limit.
    unsafe {
        let read = libc::prlimit(pid.as_raw(), resource as _, ptr::null(), &raw mut old);
        Errno::result(read)?;
        let new = libc::rlimit {
            rlim_cur: soft.min(old.rlim_max),
            ..old
        };
        let set = libc::prlimit(pid.as_raw(), resource as _, &raw const new, ptr::null_mut());
        Errno::result(set)?;
    }

    Ok(())
}

const NO_LIMIT: u64 = u64::MAX;

/// The share of one CPU that a process uses during a second.
fn cpu_share(pid: Pid) -> f64 {
    let clock = clock_getcpuclockid(pid).unwrap();
    let used = || Duration::from(clock.now().unwrap());
    let (before, start) = (used(), Instant::now());
    thread::sleep(Duration::from_secs(1));
    used().saturating_sub(before).as_secs_f64() / start.elapsed().as_secs_f64()
}

const DESCRIPTORS: Row = Row {
    fault: "descriptors run out (`EMFILE`)",
    does: "backs off instead of retrying at once (CPU below 5 % of a core), and accepts the clients in the \
           backlog as soon as it can",
    others: |_| NEW_WAIT,
    happens: |arm, expected| {
        let server = arm.start(one_listener(arm));
        let bystanders = Bystanders::connect(arm, &server);
        take_descriptors(&server);
        let asked = bystanders.ask(&server, expected);
        server.counters_until(|counters| counters.get("exhausted") > 0);
        let share = cpu_share(server.pid());
        assert!(
            share < 0.05,
            "{share} of a CPU while there was nothing to do"
        );
        limit_descriptors(&server, NO_LIMIT);
        asked.all_served();
        is_sound(server);
    },
};

/// Options with which it does not depend on chance which worker a client comes to.
fn one_listener(arm: &Arm) -> &'static [&'static str] {
    if arm.model.accept.first() == Some(&AcceptMode::Reuseport) {
        &["--workers", "1"]
    } else {
        &[]
    }
}

/// Limits the open files of the server and of its worker processes.
fn limit_descriptors(server: &Server, soft: u64) {
    for pid in server.children().into_iter().chain([server.pid()]) {
        limit(pid, Resource::RLIMIT_NOFILE, soft).unwrap();
    }
}

/// Leaves the server no descriptor for a further connection.
///
/// Linux reserves the descriptor of a connection before accept(2) waits for one, and keeps the limit of then for an
/// accept of `io_uring`, so an accept that was waiting when the limit fell still succeeds: clients come until one has to wait.
fn take_descriptors(server: &Server) {
    limit_descriptors(server, 3);
    let address = server.address();
    for _ in 0..100 {
        let first = asked([move || TcpStream::connect(address)].into_iter());
        // Long: a client that is only served late would leave accepts that still succeed.
        if first.fates.recv_timeout(Duration::from_secs(1)) != Ok(Served) {
            return;
        }
    }
    panic!("the server accepts without descriptors");
}

/// A command of an ordinary user.
fn as_nobody(program: &Path) -> Command {
    let mut command = Command::new(program);
    if geteuid().is_root() {
        command.uid(65_534).gid(65_534);
    }
    command
}

/// Limits a server of that user, which another one may not do.
fn limit_processes(pid: Pid, most: u64) {
    let mut command = as_nobody(Path::new("true"));
    #[expect(unsafe_code, reason = "to be done as that user")]
    // SAFETY: two system calls, which allocate nothing and take no lock.
    unsafe {
        command.pre_exec(move || limit(pid, Resource::RLIMIT_NPROC, most));
    }
    assert!(command.status().unwrap().success());
}

const REFUSED: Others = others(Served, Refused);

const PROCESSES: Row = Row {
    fault: "no further thread or process can be started (`EAGAIN`)",
    does: "threads and processes: answers the new connection with an error frame and closes it; the others \
           start nothing for a connection",
    others: |family| match family {
        Family::Threads | Family::Processes => REFUSED,
        Family::Pool
        | Family::Tasks
        | Family::Iterative
        | Family::ProcessPool
        | Family::EventLoops => NONE_NOTICE,
    },
    happens: |arm, expected| {
        let server = Server::start_by(as_nobody(copy_for_nobody()), &arm.arguments);
        let bystanders = Bystanders::connect(arm, &server);
        limit_processes(server.pid(), 1);
        bystanders.ask(&server, expected);
        limit_processes(server.pid(), NO_LIMIT);
        let refused = if expected.new == Refused { OTHERS } else { 0 };
        assert_eq!(is_sound(server).get("refused"), refused as u64);
    },
};

/// A frame that makes a handler fail under `--fault`.
fn poison() -> Vec<u8> {
    frame(666, 0, Work::Spin(Duration::from_micros(1)))
}

const PANIC: Row = Row {
    fault: "a handler panics",
    does: "closes its connection and counts an error; nothing else is affected",
    others: |_| NONE_NOTICE,
    happens: |arm, expected| {
        let server = arm.start(&["--fault", "panic"]);
        let bystanders = Bystanders::connect(arm, &server);
        let mut client = server.connect();
        client.send(&poison());
        client.closed();
        bystanders.ask(&server, expected).all_served();
        assert_eq!(is_sound(server).get("errors"), 1);
    },
};

/// The server is gone, and all of its processes.
fn is_gone(mut server: Server, signal: Signal) {
    let status = eventually(|| server.status(), || "running");
    assert_eq!(status.signal(), Some(signal as i32));
    assert!(
        killpg(server.pid(), None).is_err(),
        "a process is left over"
    );
}

/// One process has ended: with it all connections, where they share it.
fn one_process_ended(family: Family) -> Others {
    if family.forks() {
        NONE_NOTICE
    } else {
        ALL_CUT_OFF
    }
}

/// The child that serves the only connection: it has a socket more of its own than the others.
fn serving_child(server: &Server) -> Pid {
    let sockets = |pid: &Pid| -> HashSet<PathBuf> {
        let folder = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        let targets = folder.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
        targets
            .filter(|target| target.to_string_lossy().starts_with("socket:"))
            .collect()
    };

    // A child that was forked a moment ago may still have the server's.
    // The server may not have closed its own copy yet; then no child has more than the others.
    let deadline = Instant::now() + HANG;
    loop {
        let shared = sockets(&server.pid());
        let own = |child: &Pid| sockets(child).difference(&shared).count();
        let mut children: Vec<(usize, Pid)> = server
            .children()
            .into_iter()
            .map(|child| (own(&child), child))
            .collect();
        children.sort_unstable_by_key(|(sockets, _)| std::cmp::Reverse(*sockets));

        match children[..] {
            [(_, only)] => return only,
            [(most, child), (next, _), ..] if most > next => return child,
            _ => assert!(Instant::now() < deadline, "no child serves: {children:?}"),
        }
        thread::sleep(Duration::from_millis(1));
    }
}

const ABORT: Row = Row {
    fault: "a handler aborts its process",
    does: "processes: loses, counts and reaps one child; in all other families the process is shared and \
           ends",
    others: one_process_ended,
    happens: |arm, expected| {
        let server = arm.start(&["--fault", "abort"]);
        let bystanders = Bystanders::connect(arm, &server);
        let mut client = server.connect();
        client.send(&poison());
        client.closed();
        bystanders.ask(&server, expected);
        if arm.family().forks() {
            assert_eq!(is_sound(server).get("errors"), 1);
        } else {
            is_gone(server, Signal::SIGABRT);
        }
    },
};

const KILLED: Row = Row {
    fault: "a handler's process is killed (`SIGKILL`)",
    does: "as with an abort: in all families but processes it is the server's own process",
    others: one_process_ended,
    happens: |arm, expected| {
        let server = arm.start(&[]);
        let mut client = server.connect();
        client.exchange(&echo(1));
        let victim = arm.family().forks().then(|| serving_child(&server));
        let bystanders = Bystanders::connect(arm, &server);
        match victim {
            Some(child) => kill(child, Signal::SIGKILL).unwrap(),
            None => server.signal(Signal::SIGKILL),
        }
        client.closed();
        bystanders.ask(&server, expected);
        if arm.family().forks() {
            assert_eq!(is_sound(server).get("errors"), 1);
        } else {
            is_gone(server, Signal::SIGKILL);
        }
    },
};

/// One connection is held, and with it the whole of an iterative server.
fn one_is_held(family: Family) -> Others {
    if family.is_iterative() {
        NEW_WAIT
    } else {
        NONE_NOTICE
    }
}

/// Sends a frame byte by byte, never the last one, for as long as the server takes it.
fn trickle(mut stream: TcpStream) {
    thread::spawn(move || {
        for byte in frame(1, 1 << 16, Work::None) {
            if stream.write_all(&[byte]).is_err() {
                break;
            }
            thread::sleep(Duration::from_millis(20));
        }
    });
}

/// A client that holds its connection: first without a limit that would free the server, then with
/// one that does.
fn holds(arm: &Arm, expected: Others, hold: impl Fn(&Server) -> Client) {
    let server = arm.start(&[]);
    let bystanders = Bystanders::connect(arm, &server);
    let client = hold(&server);
    let asked = bystanders.ask(&server, expected);
    let _ = client.0.shutdown(std::net::Shutdown::Both);
    drop(client);
    asked.all_served();
    is_sound(server);

    let server = arm.start(&["--idle-timeout", "200ms"]);
    let held = hold(&server);
    let counters = server.counters_until(|counters| counters.get("timed_out") == 1);

    assert_eq!(counters.get("errors"), 0);

    server.counters_until(|counters| counters.get("active") == 0);
    is_sound(server);
    drop(held);
}

const SLOW_SENDER: Row = Row {
    fault: "a client sends byte by byte and never a whole frame",
    does: "closes the connection after `--idle-timeout`; until then it holds one thread, child, worker or \
           task",
    others: one_is_held,
    happens: |arm, expected| {
        holds(arm, expected, |server| {
            let client = server.connect();
            trickle(client.0.try_clone().unwrap());
            server.counters_until(|counters| counters.get("active") > 0);
            client
        });
    },
};

const NEVER_READS: Row = Row {
    fault: "a client sends and never reads",
    does: "closes the connection after `--idle-timeout`; until then it holds one thread, child, worker or \
           task",
    others: one_is_held,
    happens: |arm, expected| {
        holds(arm, expected, |server| {
            let mut client = server.connect();
            client
                .0
                .set_write_timeout(Some(Duration::from_millis(50)))
                .unwrap();
            let frames = echo(1).repeat(1000);
            // Until both ends' buffers are full.
            while client.0.write_all(&frames).is_ok() {}
            client
        });
    },
};

/// A client goes wrong in its own way and is done with it; then the others ask.
fn passes(arm: &Arm, expected: Others, errors: u64, wrong: impl Fn(&Server)) {
    let server = arm.start(&[]);
    let bystanders = Bystanders::connect(arm, &server);
    wrong(&server);
    bystanders.ask(&server, expected).all_served();
    assert_eq!(is_sound(server).get("errors"), errors);
}

const HALF_CLOSE: Row = Row {
    fault: "a client shuts down its sending side and still reads",
    does: "answers it, then closes too",
    others: |_| NONE_NOTICE,
    happens: |arm, expected| {
        passes(arm, expected, 0, |server| {
            let mut client = server.connect();
            client.send(&echo(1));
            client.finish();
            assert_eq!(client.rest(), echo(1));
        });
    },
};

const RESET: Row = Row {
    fault: "a client resets its connection in the middle of a frame",
    does: "counts an error",
    others: |_| NONE_NOTICE,
    happens: |arm, expected| {
        passes(arm, expected, 1, |server| {
            let mut client = server.connect();
            client.exchange(&echo(1));
            client.send(&echo(2)[..50]);
            client.reset();
        });
    },
};

const GARBAGE: Row = Row {
    fault: "a client sends bytes that are no frame",
    does: "answers with an error frame that gives the reason, and closes",
    others: |_| NONE_NOTICE,
    happens: |arm, expected| {
        passes(arm, expected, 1, |server| {
            let mut client = server.connect();
            client.send(b"GET / HTTP/1.1\r\n\r\n");
            client.refused(Reason::BadMagic, 0);
        });
    },
};

const LARGEST: Row = Row {
    fault: "a client sends the largest frame, and one that is larger",
    does: "echoes the first, and answers the header of the second with an error frame",
    others: |_| NONE_NOTICE,
    happens: |arm, expected| {
        passes(arm, expected, 1, |server| {
            let largest = DEFAULT_MAX_PAYLOAD as usize;
            let mut client = server.connect();
            client.exchange(&frame(1, largest, Work::None));
            client.send(&frame(2, largest + 1, Work::None)[..HEADER_LEN]);
            client.refused(Reason::PayloadTooLarge, 2);
        });
    },
};

const STOPPED: Row = Row {
    fault: "the server is stopped for a while (`SIGSTOP`, `SIGCONT`)",
    does: "continues; the children of the family processes were not stopped",
    others: |family| match family {
        Family::Processes => NEW_WAIT,
        Family::ProcessPool => NONE_NOTICE,
        _ => ALL_WAIT,
    },
    happens: |arm, expected| {
        let server = arm.start(&[]);
        let bystanders = Bystanders::connect(arm, &server);
        server.signal(Signal::SIGSTOP);
        eventually(|| server.is_stopped().then_some(()), || "not stopped");
        let asked = bystanders.ask(&server, expected);
        server.signal(Signal::SIGCONT);
        asked.all_served();
        is_sound(server);
    },
};

const TERMINATED: Row = Row {
    fault: "`SIGTERM` with 1,000 connections",
    does: "answers everything that was sent, closes, reaps every child and exits with 0",
    others: |_| others(Served, CutOff),
    happens: |arm, _| terminate(arm, 1000),
};

fn terminate(arm: &Arm, connections: u64) {
    raise_file_limit(u32::try_from(connections).unwrap() * 6).unwrap();
    let server = arm.start(&["--drain", "1h", "--backlog", "65535"]);
    let address = server.address();
    let mut clients: Vec<Client> = (0..connections).map(|_| server.connect()).collect();
    for (sequence, client) in (0..).zip(&mut clients) {
        client.send(&echo(sequence));
    }
    let ending = thread::spawn(move || server.stop());

    for (sequence, client) in (0..).zip(&mut clients) {
        assert_eq!(client.rest(), echo(sequence));
    }
    let ended = ending.join().unwrap();

    assert_eq!(ended.status.code(), Some(0));
    assert_eq!(ended.stderr, "");
    assert_eq!(ended.counters.get("requests"), connections);
    assert_eq!(ended.counters.get("active"), 0);
    assert_eq!(fate(|| TcpStream::connect(address)), CutOff);
}

const TWICE: Row = Row {
    fault: "a second `SIGTERM`",
    does: "closes all connections at once, prints their number, and exits with 0",
    others: |_| ALL_CUT_OFF,
    happens: |arm, expected| {
        let server = arm.start(&["--drain", "1h"]);
        let bystanders = Bystanders::connect(arm, &server);
        let mut busy = server.connect();
        busy.send(&frame(1, 0, Work::Block(2 * HANG)));
        let all = bystanders.connected.len() as u64 + 1;
        server.counters_until(|counters| counters.get("active") == all);
        server.signal(Signal::SIGTERM);
        server.has_seen(Signal::SIGTERM);
        let address = server.address();
        let ended = server.stop();
        assert_eq!(ended.status.code(), Some(0));
        assert!(
            ended.stderr.contains("cut off at the second"),
            "{}",
            ended.stderr
        );
        busy.closed();
        let connected = asked(
            bystanders
                .connected
                .into_iter()
                .map(|client| || Ok(client.0)),
        );
        connected.hold("connected", expected.connected);
        assert_eq!(fate(|| TcpStream::connect(address)), expected.new);
    },
};

const BACKLOG: Row = Row {
    fault: "more clients at once than the backlog holds",
    does: "nothing: the kernel drops the excess connection attempts, and clients repeat them after a second \
           and more",
    others: |_| NEW_WAIT,
    happens: |arm, expected| {
        let server = arm.start(&[one_listener(arm), &["--backlog", "5"]].concat());
        let bystanders = Bystanders::connect(arm, &server);
        take_descriptors(&server);
        let asked = bystanders.ask_with(&server, 12, expected);
        limit_descriptors(&server, NO_LIMIT);
        asked.all_served();
        is_sound(server);
    },
};

#[test]
fn descriptors_run_out() {
    play(&DESCRIPTORS);
}

#[test]
fn no_further_thread_or_process() {
    play(&PROCESSES);
}

#[test]
fn a_handler_panics() {
    play(&PANIC);
}

#[test]
fn a_handler_aborts() {
    play(&ABORT);
}

#[test]
fn a_handler_is_killed() {
    play(&KILLED);
}

#[test]
fn a_client_sends_byte_by_byte() {
    play(&SLOW_SENDER);
}

#[test]
fn a_client_never_reads() {
    play(&NEVER_READS);
}

#[test]
fn a_client_closes_half() {
    play(&HALF_CLOSE);
}

#[test]
fn a_client_resets() {
    play(&RESET);
}

#[test]
fn a_client_sends_garbage() {
    play(&GARBAGE);
}

#[test]
fn a_client_sends_the_largest_frame() {
    play(&LARGEST);
}

#[test]
fn the_server_is_stopped() {
    play(&STOPPED);
}

#[test]
fn the_server_is_terminated() {
    play(&TERMINATED);
}

#[test]
#[ignore = "a longer form: cargo test --test it faults:: -- --ignored"]
fn the_server_is_terminated_with_a_great_many_connections() {
    for arm in &arms() {
        terminate(arm, 3000);
    }
}

#[test]
fn the_server_is_terminated_twice() {
    play(&TWICE);
}

#[test]
fn more_clients_than_the_backlog_holds() {
    play(&BACKLOG);
}

#[test]
fn an_idle_client_is_cut_off_and_a_busy_one_is_not() {
    for arm in &arms() {
        let server = arm.start(&["--idle-timeout", "100ms"]);
        // Work is the server's own time.
        let mut busy = server.connect();
        busy.exchange(&frame(1, 0, Work::Block(Duration::from_millis(450))));
        drop(busy);
        let mut idle = server.connect();
        idle.exchange(&echo(1));
        assert_eq!(idle.rest(), b"");
        let counters = server.counters_until(|counters| counters.get("timed_out") == 1);
        assert_eq!(counters.get("errors"), 0);
        is_sound(server);
    }
}

#[test]
fn connections_over_the_limit_are_refused() {
    for arm in arms().iter().filter(|arm| !arm.family().is_iterative()) {
        let server = arm.start(&["--max-connections", "4"]);
        let bystanders = Bystanders::connect(arm, &server);
        let address = server.address();
        let new = asked((0..OTHERS).map(|_| move || TcpStream::connect(address)));
        new.hold("new", Refused);
        drop(bystanders);
        server.counters_until(|counters| counters.get("active") == 0);
        assert_eq!(is_sound(server).get("refused"), OTHERS as u64);
    }
}

#[test]
fn hundreds_of_errors_make_one_line() {
    for arm in &arms() {
        let server = arm.start(&["--fault", "panic"]);
        for number in 0..200_u64 {
            let mut client = server.connect();
            client.send(&poison());
            client.closed();
            // One that resets, and one that sends garbage, make no line at all.
            let mut client = server.connect();
            if number % 2 == 0 {
                client.send(b"garbage");
            } else {
                client.exchange(&echo(number));
                client.send(&echo(number)[..9]);
            }
            client.reset();
        }
        let counters = server.counters_until(|counters| counters.get("errors") == 400);
        assert_eq!(counters.get("accepted"), 400);
        let ended = server.stop();
        let lines: Vec<_> = ended.stderr.lines().collect();
        assert_eq!(lines.len(), 1, "{}", ended.stderr);
        assert!(lines[0].contains("panicked at"), "{}", lines[0]);
    }
}

/// The text of a cell.
fn cell(others: Others) -> String {
    let said = |fate| match fate {
        Served => "0",
        Waits => "wait",
        Refused => "refused",
        CutOff => "cut off",
    };

    match (others.connected, others.new) {
        (connected, new) if connected == new && new == Served => "0".to_owned(),
        (connected, new) if connected == new => format!("all: {}", said(new)),
        (Served, new) => format!("new: {}", said(new)),
        (connected, new) => format!("connected: {}, new: {}", said(connected), said(new)),
    }
}

#[test]
fn the_table_in_the_documents_is_this_one() {
    let names = Family::ALL.map(Family::name).join(" | ");
    let mut table = format!("| fault | what the server does | {names} |\n");
    table += &"| --- ".repeat(Family::ALL.len() + 2);
    table += "|\n";

    for row in MATRIX {
        let cells = Family::ALL.map(|family| cell((row.others)(family)));
        let cells = cells.join(" | ");
        writeln!(table, "| {} | {} | {cells} |", row.fault, row.does).unwrap();
    }

    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/faults.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once("<!-- matrix -->\n").unwrap();
    let (inside, after) = rest.split_once("<!-- /matrix -->").unwrap();

    if std::env::var_os("ECHOBENCH_WRITE_DOCS").is_some() {
        let whole = format!("{before}<!-- matrix -->\n{table}<!-- /matrix -->{after}");
        std::fs::write(path, whole).unwrap();
    } else {
        let hint = "ECHOBENCH_WRITE_DOCS=1 cargo test --test it the_table_in writes it";
        assert!(inside == table, "docs/faults.md is out of date; {hint}");
    }
}
