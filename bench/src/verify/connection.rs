//! Connections of the conformance suite, and the frames that it sends.

use std::borrow::Borrow;
use std::fmt;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use echobench_protocol::{HEADER_LEN, Header, Reason, Work, error_reason};
use nix::errno::Errno;
use nix::libc::linger;
use nix::sys::socket::{setsockopt, sockopt};

use crate::host::threads::refused;

/// Bytes that are read at most of what a server sends before it closes.
const REST_LIMIT: usize = 64 * 1024;

/// Time limits of everything that happens on connections.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longest wait for the next byte.
    silence: Duration,
    /// Total time, and the instant at which it is over.
    total: Duration,
    deadline: Instant,
}

impl Limits {
    /// Limits that start now.
    #[must_use]
    pub fn new(silence: Duration, total: Duration) -> Self {
        Limits {
            silence: silence.min(total),
            total,
            deadline: Instant::now() + total,
        }
    }

    /// Time for the next wait. A server that sends a byte now and then never falls silent, so the total is
    /// limited too.
    fn next_wait(&self) -> anyhow::Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            bail!("not finished within {:?}", self.total);
        }
        Ok(left.min(self.silence))
    }
}

/// Limit of this process or its machine, which says nothing about the server.
#[derive(Debug)]
pub(super) struct OwnLimit(String);

impl fmt::Display for OwnLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for OwnLimit {}

impl OwnLimit {
    /// The limit behind a failed connect, if there is one.
    fn of_connect(error: &io::Error) -> Option<Self> {
        let advice = match Errno::from_raw(error.raw_os_error()?) {
            Errno::EMFILE => "this process may open no more files: raise ulimit -n",
            Errno::ENFILE => "this machine may open no more files: raise fs.file-max",
            Errno::EADDRNOTAVAIL | Errno::EAGAIN => {
                "this machine has no such address or no free port"
            }
            Errno::ENOBUFS | Errno::ENOMEM => "this machine has no memory for a socket",
            _ => return None,
        };
        Some(OwnLimit(format!("{error} ({advice})")))
    }

    /// The limit behind a thread that could not be started.
    pub(super) fn of_thread(error: io::Error) -> Self {
        OwnLimit(format!(
            "{:#}",
            refused("cannot start a thread to send", error)
        ))
    }
}

/// A connection to the server under test. Errors state how far an exchange came.
#[derive(Debug)]
pub struct Connection<S = TcpStream> {
    stream: S,
    limits: Limits,
}

impl Connection {
    /// Connects to a server.
    pub fn open(address: SocketAddr, limits: Limits) -> anyhow::Result<Self> {
        let wait = limits.next_wait()?;
        let stream = match TcpStream::connect_timeout(&address, wait) {
            Ok(stream) => stream,
            Err(error) => {
                let cause =
                    OwnLimit::of_connect(&error).map_or_else(|| error.into(), anyhow::Error::from);
                return Err(cause.context(format!("cannot connect to {address}")));
            }
        };
        // Nagle's algorithm would join what a check sends in pieces.
        stream.set_nodelay(true)?;
        Ok(Connection { stream, limits })
    }

    /// Closes with a reset.
    pub fn reset(self) -> io::Result<()> {
        // With a linger time of 0 close sends a reset in place of an orderly end.
        let at_once = linger {
            l_onoff: 1,
            l_linger: 0,
        };
        Ok(setsockopt(&self.stream.as_fd(), sockopt::Linger, &at_once)?)
    }
}

impl<S: Borrow<TcpStream>> Connection<S> {
    /// Uses an open stream.
    pub fn over(stream: S, limits: Limits) -> Self {
        Connection { stream, limits }
    }

    /// Sends these bytes.
    pub fn send(&self, bytes: &[u8]) -> anyhow::Result<()> {
        let mut stream = self.stream.borrow();
        let mut sent = 0;
        let place = |sent: usize| format!("cannot send: after {sent} of {} bytes", bytes.len());

        while sent < bytes.len() {
            let wait = self.limits.next_wait().with_context(|| place(sent))?;
            stream.set_write_timeout(Some(wait))?;
            match stream.write(&bytes[sent..]) {
                Ok(more) => sent += more,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.limits.next_wait().with_context(|| place(sent))?;
                    bail!("{}: no more is read in time", place(sent));
                }
                Err(error) => return Err(error).context(place(sent)),
            }
        }
        Ok(())
    }

    /// Reads so many bytes.
    pub fn receive(&self, count: usize) -> anyhow::Result<Vec<u8>> {
        let (bytes, end) = self.read_up_to(count);
        match end {
            ReadEnd::Enough => Ok(bytes),
            end => Err(end.error(bytes.len(), count)),
        }
    }

    /// Reads the reply to these bytes: the same bytes.
    pub fn returned(&self, sent: &[u8]) -> anyhow::Result<()> {
        let (reply, end) = self.read_up_to(sent.len());
        let wrong = reply.iter().zip(sent).position(|(a, b)| a != b);
        if let Some(at) = wrong {
            if let Some(reason) = refusal(&reply, sent, at) {
                bail!("the server refuses: {reason}");
            }
            bail!("byte {at} of {} came back changed", sent.len());
        }

        match end {
            ReadEnd::Enough => Ok(()),
            end => Err(end.error(reply.len(), sent.len())),
        }
    }

    /// Sends bytes and reads them back.
    pub fn exchange(&self, bytes: &[u8]) -> anyhow::Result<()> {
        self.send(bytes)?;
        self.returned(bytes)
    }

    /// Reads what the server sends before it closes.
    pub fn rest(&self) -> anyhow::Result<Vec<u8>> {
        let (bytes, end) = self.read_up_to(REST_LIMIT);
        match end {
            ReadEnd::Closed => Ok(bytes),
            ReadEnd::Enough => bail!("not closed after {REST_LIMIT} more bytes"),
            ReadEnd::Silent => bail!("not closed"),
            ReadEnd::OutOfTime(error) => Err(error.context("not closed")),
            ReadEnd::Failed(error) => bail!("no orderly end: {error}"),
        }
    }

    /// Reads an error frame for this request, and then the end.
    pub fn refused(&self, reason: Reason, sequence: u64) -> anyhow::Result<()> {
        let reply = self.rest()?;
        let expected = [&sequence.to_be_bytes()[..], reason.to_string().as_bytes()].concat();
        if error_reason(&reply) == Some(reason) && reply[16..] == expected {
            return Ok(());
        }

        let got = match error_reason(&reply) {
            Some(other) if other != reason => format!("one that says '{other}'"),
            Some(_) => "one with another text or request".to_owned(),
            None => format!("{} other bytes", reply.len()),
        };
        bail!("no error frame '{reason}' for request {sequence}, but {got}");
    }

    /// Closes the sending half.
    pub fn finish(&self) -> anyhow::Result<()> {
        let half_closed = self.stream.borrow().shutdown(Shutdown::Write);
        half_closed.context("cannot close the sending half")
    }

    /// Reads until there are so many bytes, or no more come.
    fn read_up_to(&self, count: usize) -> (Vec<u8>, ReadEnd) {
        let mut stream = self.stream.borrow();
        let mut bytes = vec![0; count];
        let mut received = 0;

        let end = loop {
            if received == count {
                break ReadEnd::Enough;
            }
            let wait = match self.limits.next_wait() {
                Ok(wait) => wait,
                Err(error) => break ReadEnd::OutOfTime(error),
            };
            if let Err(error) = stream.set_read_timeout(Some(wait)) {
                break ReadEnd::Failed(error);
            }
            match stream.read(&mut bytes[received..]) {
                Ok(0) => break ReadEnd::Closed,
                Ok(more) => received += more,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    break match self.limits.next_wait() {
                        Ok(_) => ReadEnd::Silent,
                        Err(error) => ReadEnd::OutOfTime(error),
                    };
                }
                Err(error) => break ReadEnd::Failed(error),
            }
        };
        bytes.truncate(received);
        (bytes, end)
    }
}

/// Reason why no more is read.
enum ReadEnd {
    Enough,
    Closed,
    /// No byte came for a while.
    Silent,
    OutOfTime(anyhow::Error),
    Failed(io::Error),
}

impl ReadEnd {
    fn error(self, received: usize, count: usize) -> anyhow::Error {
        let message = match self {
            ReadEnd::Closed => format!("closed after {received} of {count} bytes"),
            ReadEnd::Silent | ReadEnd::Enough => {
                format!("no more than {received} of {count} bytes came back in time")
            }
            ReadEnd::OutOfTime(error) => format!("after {received} of {count} bytes: {error}"),
            ReadEnd::Failed(error) => format!("after {received} of {count} bytes: {error}"),
        };
        anyhow::Error::msg(message)
    }
}

/// The reason in an error frame that replaces the frame of `sent` in which byte `at` lies.
fn refusal(reply: &[u8], sent: &[u8], at: usize) -> Option<Reason> {
    let mut start = 0;
    loop {
        let header = sent.get(start..)?.first_chunk::<HEADER_LEN>()?;
        let payload = Header::decode(header, &UNLIMITED).map_or(0, |header| header.payload_len);
        let next = start + HEADER_LEN + payload as usize;
        if at < next {
            return error_reason(&reply[start..]);
        }
        start = next;
    }
}

const UNLIMITED: echobench_protocol::Limits = echobench_protocol::Limits {
    max_payload: u32::MAX,
    max_work: Duration::MAX,
};

/// Builds a request whose payload differs from that of every other.
#[must_use]
pub fn frame(sequence: u64, payload: usize, work: Work) -> Vec<u8> {
    let header = Header {
        work,
        payload_len: u32::try_from(payload).expect("a payload is at most 16 MiB"),
        sequence,
    };

    let bytes = sequence.to_le_bytes().into_iter().cycle();
    let payload = bytes.zip(0_u8..=250).cycle().take(payload);
    header
        .encode()
        .into_iter()
        .chain(payload.map(|(a, b)| a.wrapping_mul(31) ^ b))
        .collect()
}

/// Builds a request without work.
#[must_use]
pub fn echo(sequence: u64) -> Vec<u8> {
    frame(sequence, 64, Work::None)
}

/// Builds a request without a payload and with one byte of its header changed.
#[must_use]
pub fn changed(sequence: u64, byte: usize, value: u8) -> Vec<u8> {
    let mut frame = frame(sequence, 0, Work::None);
    assert!(byte < HEADER_LEN, "only the header means something");
    frame[byte] = value;
    frame
}
