//! Loads against hostile servers: none of them makes a load hang, grow, or print an escape sequence.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsFd as _;
use std::process::Command;
use std::thread;
use std::time::Duration;

use crate::common::{Client, Finished, executable, finish};
use crate::load::{DRIVERS, own, rfc_862};
use echobench_protocol::{FLAG_ERROR, HEADER_LEN, Header, Work};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Memory that a load may take, for each of its processes. It is a limit on its data, beyond which it dies.
const MEMORY_KIB: u32 = 64 * 1024;

/// Runs a load whose processes have limited memory.
fn limited(target: SocketAddr, driver: &str, options: &str) -> Finished {
    let mut command = Command::new("sh");
    command
        .arg("-c")
        .arg(format!("ulimit -d {MEMORY_KIB}; exec \"$0\" \"$@\""))
        .arg(executable().get_program())
        .args(["load", &target.to_string(), "--driver", driver])
        .args(options.split_whitespace());
    // Shown when the test fails.
    println!("load, {driver}: {options}");
    finish(command)
}

/// Behaviour of a hostile server on each of its connections.
type Behaviour = fn(TcpStream) -> io::Result<()>;

const BEHAVIOURS: [(&str, Behaviour); 12] = [
    ("drips a byte per second", drip),
    ("sends without end", send_without_end),
    ("echoes, then sends without end", echo_without_end),
    ("closes at once", |_| Ok(())),
    ("closes after a byte", |mut stream| stream.write_all(b"E")),
    ("resets at once", |stream| {
        Client(stream).reset();
        Ok(())
    }),
    ("resets after a request", |mut stream| {
        let _ = stream.read(&mut [0; 16])?;
        Client(stream).reset();
        Ok(())
    }),
    ("sends garbage", send_garbage),
    ("sends escape sequences", send_escapes),
    ("sends an error frame of escape sequences", send_error_frame),
    ("never reads", never_read),
    ("ends its side and never reads", |stream| {
        stream.shutdown(Shutdown::Write)?;
        never_read(stream)
    }),
];

fn drip(mut stream: TcpStream) -> io::Result<()> {
    loop {
        stream.write_all(b"E")?;
        thread::sleep(Duration::from_secs(1));
    }
}

fn send_without_end(mut stream: TcpStream) -> io::Result<()> {
    loop {
        stream.write_all(&[b'A'; 16 * 1024])?;
    }
}

fn echo_without_end(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = [b'A'; 16 * 1024];
    let _ = stream.read(&mut buffer[..4096])?;
    // In one piece, so that the client sees at once that more follows.
    stream.write_all(&buffer)?;
    send_without_end(stream)
}

fn send_garbage(mut stream: TcpStream) -> io::Result<()> {
    let garbage: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    stream.write_all(&garbage)?;
    never_read(stream)
}

const ESCAPES: &[u8] = b"\x1b[2J\x1b]0;owned\x07\x1b[31mred\x9b1m\r\n";

fn send_escapes(mut stream: TcpStream) -> io::Result<()> {
    for _ in 0..20 {
        stream.write_all(ESCAPES)?;
    }
    never_read(stream)
}

/// Sends an error frame whose reason nobody knows and whose text is hostile.
fn send_error_frame(mut stream: TcpStream) -> io::Result<()> {
    let header = Header {
        work: Work::None,
        payload_len: u32::try_from(ESCAPES.len()).expect("a short text"),
        sequence: 1,
    };
    let mut frame = header.encode();
    frame[4] = FLAG_ERROR;
    frame[6..8].fill(0xff);
    stream.write_all(&frame)?;
    stream.write_all(ESCAPES)?;
    never_read(stream)
}

/// Holds the connection, unread, until its client gives up; the error ends it. Clients come again at
/// once, so a thread that outlasted its client would be one of thousands.
fn never_read(stream: TcpStream) -> io::Result<()> {
    let mut events = [PollFd::new(
        stream.as_fd(),
        PollFlags::from_bits_retain(libc::POLLRDHUP),
    )];
    poll(&mut events, PollTimeout::from(20_000_u16))?;
    drop(stream);
    Err(io::ErrorKind::TimedOut.into())
}

/// Runs a load against every hostile server, with each driver.
fn withstands(options: &str) {
    for driver in DRIVERS {
        thread::scope(|scope| {
            for (name, behaviour) in BEHAVIOURS {
                let server = own(behaviour);
                scope.spawn(move || {
                    let options = format!("--clients 3 --timeout 200ms {options}");
                    let load = limited(server.address, driver, &options);
                    println!("a server that {name}: {load:?}");
                    assert_eq!(load.code, Some(1), "{name}, {driver}");
                    assert!(load.stdout.contains(" 0 answered"), "{name}, {driver}");
                    assert!(load.stdout.contains("\nerror "), "{name}, {driver}");
                    let is_text = |char: char| char == '\n' || !char.is_control();
                    let said = load.stdout + &load.stderr;
                    assert!(said.chars().all(is_text), "{name}, {driver}");
                });
            }
        });
    }
}

#[test]
fn a_load_of_small_frames_withstands_hostile_servers() {
    withstands("--duration 200ms");
    withstands("--requests 12 --requests-per-connection 1");
}

#[test]
fn a_load_of_large_frames_withstands_hostile_servers() {
    withstands("--duration 200ms --payload 1000000");
}

#[test]
fn a_load_that_prints_replies_withstands_hostile_servers() {
    withstands("--duration 200ms --print-replies --say-names");
    withstands("--duration 200ms --print-replies --service time");
}

#[test]
fn an_open_loop_withstands_hostile_servers() {
    withstands("--duration 200ms --rate 1000000000");
}

#[test]
fn memory_is_really_limited() {
    let server = rfc_862();
    let load = limited(server.address, "threads", "--clients 3 --requests 3");
    assert_eq!(load.code, Some(0), "{load:?}");

    // The frames of these clients alone take more.
    let options = "--clients 8 --requests 8 --payload 16777216";
    let load = limited(server.address, "threads", options);
    assert_ne!(load.code, Some(0), "{load:?}");
    assert!(HEADER_LEN + 16_777_216 > MEMORY_KIB as usize * 1024 / 8);
}
