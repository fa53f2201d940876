//! Servers and loads at the limits of the system: threads that cannot be started, outputs that take nothing,
//! signals that a parent has ignored, and a great number of connections.

use std::fs::{self, File};
use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::common::control_group::ControlGroup;
use crate::common::place::Place;
use crate::common::{
    Client, Server, available_models, copy_for_nobody, echo, eventually, executable, finish,
};
use echobench::processes::child::bind_lifetime;
use echobench::verify;
use echobench_protocol::{Reason, error_reason};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigHandler, Signal, kill, signal};
use nix::unistd::{Pid, close, geteuid, pipe};

/// Runs `setup` in the child process before it executes `command`.
fn before_exec(
    command: &mut Command,
    setup: impl FnMut() -> io::Result<()> + Send + Sync + 'static,
) -> &mut Command {
    #[expect(
        unsafe_code,
        reason = "code between fork and exec must be async-signal-safe"
    )]
    // SAFETY: every `setup` of this module makes system calls only.
    unsafe {
        command.pre_exec(setup)
    }
}

/// Models that start threads before they serve, with the number of threads.
const WITH_WORKERS: [(&str, u32); 5] = [
    ("iterative", 1),
    ("pool --workers 8", 8),
    ("pool --workers 8 --queue rayon", 8),
    ("async --workers 8", 8),
    ("async --workers 8 --runtime per-core", 8),
];

#[test]
fn a_thread_refused_at_start_is_one_line() {
    if !geteuid().is_root() {
        eprintln!("skipped: only root can run a server as a user without other processes");
        return;
    }

    for (number, (model, workers)) in (0..).zip(WITH_WORKERS) {
        for limit in [1, workers.div_ceil(2), workers] {
            let mut command = Command::new(copy_for_nobody());
            // A user of its own for each server: the limit is on all the processes of a user.
            let user = 60_000 + std::process::id() % 700 * 50 + number * 10 + limit;
            command.arg("serve").args(model.split(' ')).uid(user);
            before_exec(&mut command, move || {
                setrlimit(Resource::RLIMIT_NPROC, limit.into(), limit.into()).map_err(Into::into)
            });

            // The first thread of the process counts too.
            let failed = format!("cannot start worker {limit} of {workers}");
            finish(command).refused(&[&failed]);
        }
    }
}

/// The limit is on the threads of the command: for each number the server itself is faultless.
#[test]
fn threads_refused_to_the_suite_are_not_blamed_on_the_server() {
    if !geteuid().is_root() {
        eprintln!("skipped: only root can run a command as a user without other processes");
        return;
    }

    let server = Server::start(&["thread"]);
    for limit in 1..=3 {
        let mut command = Command::new(copy_for_nobody());
        let user = 59_000 + std::process::id() % 200 * 4 + u32::try_from(limit).unwrap();
        let address = server.address().to_string();
        command.args(["verify", &address]).uid(user);
        before_exec(&mut command, move || {
            setrlimit(Resource::RLIMIT_NPROC, limit, limit).map_err(Into::into)
        });

        let finished = finish(command);
        assert_eq!(finished.code, Some(1), "{limit}: {finished:?}");
        let all = [finished.stdout.as_str(), finished.stderr.as_str()].concat();
        assert!(!all.contains("panicked") && !all.contains("FAIL"), "{all}");
        // The kernel may still count a thread that has just ended, so which one is refused is not fixed.
        let says_why = ["catch interrupts", "start a thread"];
        assert!(says_why.iter().any(|words| all.contains(words)), "{all}");
    }
}

#[test]
fn a_client_refused_at_start_is_one_line() {
    if !geteuid().is_root() {
        eprintln!("skipped: only root can run a load as a user without other processes");
        return;
    }

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = listener.local_addr().unwrap().to_string();
    for (number, (options, what)) in (0..).zip([
        ("--driver threads", "client"),
        ("--driver processes", "client"),
        ("--driver tasks --task-threads 8", "thread"),
    ]) {
        for limit in [1, 4, 8] {
            let mut command = Command::new(copy_for_nobody());
            // A user of its own for each load: the limit is on all the processes of a user.
            let user = 100_000 + std::process::id() % 1000 * 30 + number * 10 + limit;
            command
                .args(["load", &target, "--clients", "8"])
                .args(options.split(' '))
                .uid(user);
            before_exec(&mut command, move || {
                setrlimit(Resource::RLIMIT_NPROC, limit.into(), limit.into()).map_err(Into::into)
            });

            // The first thread of the process counts too.
            let failed = format!("cannot start {what} {limit} of 8");
            let load = finish(command);
            load.refused(&[&failed]);
            assert_eq!(load.stderr.matches("os error 11").count(), 1, "{load:?}");
        }
    }
}

/// A control group in which there may be so many threads and processes.
fn with_threads(limit: u32) -> Option<ControlGroup> {
    let setting = |root| (root, "pids.max", limit.to_string());
    ControlGroup::create(&[setting("/sys/fs/cgroup/pids"), setting("/sys/fs/cgroup")])
}

#[test]
fn a_container_that_is_full_at_start_is_one_line() {
    // Of a single thread, the parser of the arguments would be the one that is refused.
    let pools = WITH_WORKERS.iter().filter(|(_, workers)| *workers > 1);
    for &(model, workers) in pools {
        for limit in [workers / 2, workers] {
            let Some(group) = with_threads(limit) else {
                return;
            };
            let mut command = executable();
            command.arg("serve").args(model.split(' '));
            let failed = format!("cannot start worker {limit} of {workers}");
            finish(group.run(&command)).refused(&[&failed]);
        }
    }

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = listener.local_addr().unwrap().to_string();
    for (options, what) in [
        ("--driver threads", "client"),
        ("--driver processes", "client"),
        ("--driver tasks --task-threads 8", "thread"),
    ] {
        let Some(group) = with_threads(4) else {
            return;
        };
        let mut command = executable();
        command
            .args(["load", &target, "--clients", "8"])
            .args(options.split(' '));
        finish(group.run(&command)).refused(&[&format!("cannot start {what} 4 of 8")]);
    }
}

/// Connections for which no thread or process can be had are closed; the server goes on.
#[test]
fn a_container_that_is_full_costs_connections_and_no_server() {
    for model in ["thread", "fork"] {
        let Some(group) = with_threads(4) else {
            return;
        };
        let server = Server::start_by(group.run(&executable()), &[model]);

        let mut served: Vec<Client> = (0..3).map(|_| server.connect()).collect();
        for client in &mut served {
            client.exchange(&echo(1));
        }
        let refused = server.connect().rest();
        assert_eq!(error_reason(&refused), Some(Reason::Overloaded), "{model}");

        drop(served.pop());
        server.counters_until(|counters| counters.get("active") == 2);
        let mut next = server.connect();
        next.exchange(&echo(2));
        drop((served, next));
        assert_eq!(server.stop().status.code(), Some(0), "{model}");
    }
}

#[test]
fn address_space_refused_at_start_ends_the_load() {
    let server = Server::start(&["thread"]);
    let address = server.address().to_string();
    for (options, what) in [
        (
            "--driver tasks --clients 512 --task-threads 512",
            "cannot start thread",
        ),
        ("--driver threads --clients 4096", "cannot start client"),
    ] {
        let mut command = executable();
        command.args(["load", &address, "--requests", "4096"]);
        command.args(options.split(' '));
        before_exec(&mut command, || {
            // As by ulimit -v 400000.
            setrlimit(Resource::RLIMIT_AS, 400_000 << 10, 400_000 << 10).map_err(Into::into)
        });
        finish(command).refused(&[what, "out of memory", "fewer --"]);
    }
}

#[test]
fn address_space_refused_at_start_ends_the_server() {
    // Stacks of 1 GiB in all.
    for model in ["pool --workers 4096", "async --workers 512"] {
        let mut command = executable();
        command.arg("serve").args(model.split(' '));
        before_exec(&mut command, || {
            setrlimit(Resource::RLIMIT_AS, 700 << 20, 700 << 20).map_err(Into::into)
        });

        // A thread that was started may be the first to find no memory, and then glibc or the standard
        // library aborts the process.
        let server = finish(command);
        if server.code.is_some() {
            server.refused(&["cannot start worker"]);
        }
        assert_eq!(server.stdout, "", "{server:?}");
    }
}

/// Standard output and standard error of a server.
#[derive(Clone, Copy, Debug)]
enum Outputs {
    /// A full disk.
    Full,
    /// No descriptors at all.
    Closed,
    /// A pipe without a reader.
    Broken,
}

impl Outputs {
    fn attach(self, command: &mut Command) {
        match self {
            Outputs::Full => {
                let full = || File::options().write(true).open("/dev/full").unwrap();
                command.stdout(full()).stderr(full());
            }
            Outputs::Closed => {
                let close_both = || close(1).and_then(|()| close(2)).map_err(Into::into);
                before_exec(command, close_both);
            }
            Outputs::Broken => {
                let writer = || -> OwnedFd { pipe().unwrap().1 };
                command.stdout(writer()).stderr(writer());
            }
        }
    }
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// A server that is killed at the end of its test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_server_does_not_need_its_outputs() {
    for outputs in [Outputs::Full, Outputs::Closed, Outputs::Broken] {
        for model in available_models() {
            serves_without(outputs, model.name);
        }
    }
}

fn serves_without(outputs: Outputs, model: &str) {
    let port = free_port();
    let mut command = executable();
    command
        .args(["serve", model, "--verbose", "--stats-every", "1ms"])
        .args(["--fault", "panic", "--listen", &format!("127.0.0.1:{port}")])
        .stdin(Stdio::null());
    outputs.attach(&mut command);
    let mut server = Killed(bind_lifetime(&mut command).spawn().unwrap());

    // A panic and the counters are written too, or would be.
    let address = ([127, 0, 0, 1], port).into();
    let connect = || Client::connect(address).ok();
    let mut client = eventually(connect, || (model, outputs));
    client.send(&verify::frame(
        1,
        0,
        echobench_protocol::Work::Spin(Duration::from_millis(1)),
    ));
    client.closed();
    let pid = Pid::from_raw(i32::try_from(server.0.id()).unwrap());
    kill(pid, Signal::SIGUSR1).unwrap();

    let mut client = connect().expect("the server is still there");
    client.exchange(&echo(2));
    drop(client);
    kill(pid, Signal::SIGTERM).unwrap();
    let status = eventually(|| server.0.try_wait().unwrap(), || (model, outputs));

    // A closed descriptor becomes /dev/null; otherwise the counters at the end are lost.
    let lost = !matches!(outputs, Outputs::Closed);
    assert_eq!(status.code(), Some(lost.into()), "{model} {outputs:?}");
}

#[test]
fn an_ignored_sigchld_is_reset() {
    let place = Place::new();
    let mut command = place.run(&[]);
    before_exec(&mut command, || {
        #[expect(unsafe_code, reason = "a disposition can only be set this way")]
        // SAFETY: to ignore a signal takes no handler.
        unsafe { signal(Signal::SIGCHLD, SigHandler::SigIgn) }?;
        Ok(())
    });

    let run = finish(command);
    assert_eq!(run.code, Some(0), "{run:?}");
    assert_eq!(place.status(), "complete");
}

/// A line of `/proc/PID/status`.
fn status_line(server: &Server, name: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap().trim_matches([':', '\t', ' ']).to_owned()
}

/// The resident memory of a server, in KiB.
fn resident_kib(server: &Server) -> u64 {
    let size = status_line(server, "VmRSS");
    size.trim_end_matches(" kB").parse().unwrap()
}

/// Whether a set of signals in `/proc/PID/status` holds SIGSEGV and SIGBUS.
fn has_fault_signals(server: &Server, set: &str) -> bool {
    let mask = u64::from_str_radix(&status_line(server, set), 16).unwrap();
    [Signal::SIGSEGV, Signal::SIGBUS]
        .iter()
        .all(|&signal| mask & 1 << (signal as i32 - 1) != 0)
}

#[test]
fn threads_go_without_signal_stacks_unless_told_otherwise() {
    // The standard library gives them to threads if it handles these signals.
    let server = Server::start(&["thread"]);
    assert!(!has_fault_signals(&server, "SigCgt"));
    // Child processes would inherit it.
    assert!(!has_fault_signals(&server, "SigIgn"));

    let server = Server::start(&["thread", "--signal-stack"]);
    assert!(has_fault_signals(&server, "SigCgt"));
}

/// Makes `count` connections of one request each, none of which may fail.
fn churn(server: &Server, count: u32) {
    // Worker processes stay.
    let children = server.children().len();
    let mut command = executable();
    command
        .args(["load", &server.address().to_string()])
        .args(["--driver", "tasks", "--clients", "8"])
        .args(["--requests-per-connection", "1", "--requests"])
        .arg(count.to_string());
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    assert!(status.unwrap().success());

    // The last threads and children may still be ending.
    let accepted = |counters: &crate::common::Counters| {
        counters.get("active") == 0 && counters.get("waiting") == 0
    };
    server.counters_until(accepted);
    eventually(
        || (server.children().len() == children).then_some(()),
        || server.children(),
    );
}

/// Holds every model to flat descriptors and memory over `count` connections.
fn leaks_nothing(warmup: u32, count: u32, growth_kib: u64) {
    for model in available_models() {
        let server = Server::start(&[model.name]);
        churn(&server, warmup);
        let before = (server.descriptors(), resident_kib(&server));

        churn(&server, count);
        let after = (server.descriptors(), resident_kib(&server));
        eprintln!(
            "{}: {} descriptors and {} KiB, after {count} connections more {} and {} KiB",
            model.name, before.0, before.1, after.0, after.1
        );
        assert_eq!(after.0, before.0, "descriptors of {}", model.name);
        assert!(
            after.1 <= before.1 + growth_kib,
            "memory of {}: {} KiB, then {} KiB",
            model.name,
            before.1,
            after.1
        );
        server.stop();
    }
}

#[test]
fn churn_leaks_nothing() {
    // 52 bytes per connection.
    leaks_nothing(2000, 10_000, 512);
}

#[test]
#[ignore = "a longer form: cargo test -p echobench --test it limits:: -- --ignored"]
fn a_great_deal_of_churn_leaks_nothing() {
    // 5 bytes per connection.
    leaks_nothing(20_000, 200_000, 1024);
}
