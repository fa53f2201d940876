//! Starting the server of a supervisor, and turning everything that happens to it into events.

use std::io::{self, BufRead as _, BufReader, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::RangeInclusive;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use crossbeam::channel::Sender;
use nix::errno::Errno;
use nix::sys::signal::SigSet;
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

use super::Event;
use crate::host::network::local_ports;
use crate::host::threads;
use crate::processes::child::bind_lifetime;
use crate::processes::messages::{self, FromSupervisor};
use crate::scenario::arm::{ADDRESS, PORT};

/// Time for an external server until it accepts connections.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// First of the ports that an external server may get. Those below are more often services of the host.
const FIRST_PORT: u16 = 10_000;
/// Ports that are tried before the system chooses one.
const PORT_ATTEMPTS: u32 = 50;
/// Interval between two attempts to connect to an external server.
const CONNECT_INTERVAL: Duration = Duration::from_millis(2);
/// Time for the last output of an external server to arrive after its end.
const LAST_OUTPUT_TIMEOUT: Duration = Duration::from_millis(200);

/// Starts a server of this project, which prints `ready ADDR` and closes its output at its end.
pub(super) fn start(
    program: &Path,
    arguments: &[String],
    events: &Sender<Event>,
) -> anyhow::Result<Child> {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped());

    let mut child = bind_lifetime(&mut command)
        .spawn()
        .map_err(|error| threads::refused(&cannot_start(&program.to_string_lossy()), error))?;
    let output = child.stdout.take().context("standard output is piped")?;
    let events = events.clone();
    threads::spawn("read the server's output", move || {
        forward_lines(output, &events);
        let _ = events.send(Event::Ended);
    })?;
    Ok(child)
}

/// Starts a server of another kind, which is told where to listen and does not say when it does.
pub(super) fn start_external(
    words: &[String],
    listen: SocketAddr,
    events: &Sender<Event>,
) -> anyhow::Result<Child> {
    let address = match free_address(listen) {
        Ok(address) => address,
        Err(error) => return report_failed_start(&format!("cannot listen on {listen}: {error}")),
    };
    let (ip, port) = (address.ip().to_string(), address.port().to_string());
    let told = |word: &String| word.replace(PORT, &port).replace(ADDRESS, &ip);
    let words: Vec<_> = words.iter().map(told).collect();
    let (program, arguments) = words.split_first().context("no server command")?;

    let (output, input) = io::pipe()?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(input.try_clone()?)
        .stderr(input);

    // A child inherits the signal mask. A server that knows nothing of signals which an experiment
    // blocks for itself could not be ended by them.
    let mask = SigSet::thread_get_mask()?;
    SigSet::empty().thread_set_mask()?;
    let child = bind_lifetime(&mut command).spawn();
    mask.thread_set_mask()?;
    // The command holds the writing end of the pipe, whose end is to show that of the server.
    drop(command);

    let child = match child {
        Ok(child) => child,
        Err(error) => {
            let refused = threads::refused(&cannot_start(program), error);
            return report_failed_start(&format!("{refused:#}"));
        }
    };
    forward_external(output, child.id(), events.clone())?;
    await_connection(address, events.clone())?;
    Ok(child)
}

/// An address on which nothing listens. The server opens it a moment later. By then a port that the system takes for
/// connections and servers may be taken, so a free one is looked for outside that range first.
fn free_address(listen: SocketAddr) -> io::Result<SocketAddr> {
    if listen.port() == 0 {
        let given_to_others = ephemeral_ports();
        for _ in 0..PORT_ATTEMPTS {
            let address = SocketAddr::new(listen.ip(), fastrand::u16(FIRST_PORT..));
            if !given_to_others.contains(&address.port()) && TcpListener::bind(address).is_ok() {
                return Ok(address);
            }
        }
    }
    TcpListener::bind(listen)?.local_addr()
}

/// The ports that the system gives to those who ask for any; its default where they cannot be read.
fn ephemeral_ports() -> RangeInclusive<u16> {
    let (first, last) = local_ports().unwrap_or((32_768, 60_999));
    first..=last
}

/// Reports a failed start as the end of the server, which it is for the experiment, and exits.
fn report_failed_start(status: &str) -> anyhow::Result<Child> {
    messages::send(&FromSupervisor::Exited {
        clean: false,
        status: status.to_owned(),
        cpu_ns: 0,
        counters: None,
    })?;
    std::process::exit(1)
}

fn cannot_start(program: &str) -> String {
    format!("cannot start '{program}'")
}

/// Sends an event once the address accepts connections, or has not for [`CONNECT_TIMEOUT`].
fn await_connection(address: SocketAddr, events: Sender<Event>) -> anyhow::Result<()> {
    let deadline = Instant::now() + CONNECT_TIMEOUT;
    threads::spawn("connect to the server", move || {
        while Instant::now() < deadline {
            // Without a listener, a connection within the ephemeral range can come to be with itself.
            let is_connected = TcpStream::connect(address)
                .is_ok_and(|stream| stream.local_addr().is_ok_and(|own| own != address));
            if is_connected {
                let _ = events.send(Event::Connected(address));
                return;
            }
            thread::sleep(CONNECT_INTERVAL);
        }
        let _ = events.send(Event::Unreachable(address));
    })?;
    Ok(())
}

/// Sends an event for each line. An event is lost only when this process is about to end.
fn forward_lines(output: impl Read, events: &Sender<Event>) {
    for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
        let _ = events.send(Event::Output(String::from_utf8_lossy(&line).into_owned()));
    }
}

/// Sends events for the output and the end of an external server, whose output may end before it does
/// or long after it.
fn forward_external(
    output: impl Read + Send + 'static,
    pid: u32,
    events: Sender<Event>,
) -> anyhow::Result<()> {
    let lines = events.clone();
    let reader = threads::spawn("read the server's output", move || {
        forward_lines(output, &lines);
    })?;

    threads::spawn("wait for the server's end", move || {
        let pid = Pid::from_raw(pid.cast_signed());
        // Leaves it to be reaped by the supervisor.
        let end = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
        while waitid(Id::Pid(pid), end) == Err(Errno::EINTR) {}

        // Its last output may still be in the pipe, which a process it started may hold open for ever.
        let deadline = Instant::now() + LAST_OUTPUT_TIMEOUT;
        while !reader.is_finished() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
        let _ = events.send(Event::Ended);
    })?;
    Ok(())
}

/// Sends an event for each request on standard input, and one for its end.
pub(super) fn forward_requests(events: Sender<Event>) -> anyhow::Result<()> {
    threads::spawn("read requests", move || {
        while let Ok(Some(request)) = messages::receive() {
            let _ = events.send(Event::Request(request));
        }
        let _ = events.send(Event::Orphaned);
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_free_port_is_none_that_the_system_gives_to_others() {
        let given = ephemeral_ports();
        if given.contains(&FIRST_PORT) && given.contains(&u16::MAX) {
            println!("skipped: the system gives away all ports");
            return;
        }
        let any = "127.0.0.1:0".parse().unwrap();
        for _ in 0..20 {
            let address = free_address(any).unwrap();
            assert!(!given.contains(&address.port()), "{address}");
            assert!(address.port() >= FIRST_PORT, "{address}");
        }
    }

    #[test]
    fn a_port_that_is_asked_for_is_not_replaced() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = listener.local_addr().unwrap();
        assert!(free_address(taken).is_err());
    }
}
