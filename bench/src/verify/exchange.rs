//! What the conformance suite does on one connection, and the frames it sends.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsFd as _;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use echobench_protocol::{HEADER_LEN, Header, Reason, Work, error_reason};
use nix::libc::linger;
use nix::sys::socket::{setsockopt, sockopt};

/// Connects; nothing on the connection will be waited for longer than `patience`.
pub fn connect(address: SocketAddr, patience: Duration) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, patience)
        .with_context(|| format!("cannot connect to {address}"))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    Ok(stream)
}

/// What a client does with its connection, with errors that say how far it came.
pub trait Exchange {
    /// Sends these bytes.
    fn send(&self, bytes: &[u8]) -> anyhow::Result<()>;
    /// Reads so many bytes.
    fn receive(&self, count: usize) -> anyhow::Result<Vec<u8>>;
    /// Reads what comes before the server closes.
    fn rest(&self) -> anyhow::Result<Vec<u8>>;
    /// No more requests.
    fn finish(&self) -> anyhow::Result<()>;
    /// Closes with a reset.
    fn reset(self) -> io::Result<()>;

    /// Reads the reply to these bytes: the same.
    fn returned(&self, bytes: &[u8]) -> anyhow::Result<()> {
        let reply = self.receive(bytes.len())?;
        let wrong = reply.iter().zip(bytes).position(|(a, b)| a != b);
        if let Some(at) = wrong {
            bail!("byte {at} of {} came back changed", bytes.len());
        }
        Ok(())
    }

    /// Sends bytes and gets them back as they are.
    fn exchange(&self, bytes: &[u8]) -> anyhow::Result<()> {
        self.send(bytes)?;
        self.returned(bytes)
    }

    /// Gets an error frame for this request, and then the end.
    fn refused(&self, reason: Reason, sequence: u64) -> anyhow::Result<()> {
        let reply = self.rest()?;
        let expected = [&sequence.to_be_bytes()[..], reason.to_string().as_bytes()].concat();
        if error_reason(&reply) != Some(reason) || reply[16..] != expected {
            bail!("no error frame '{reason}' for request {sequence}, but {reply:?}");
        }
        Ok(())
    }
}

impl Exchange for TcpStream {
    fn send(&self, bytes: &[u8]) -> anyhow::Result<()> {
        let mut stream = self;
        let sent = stream.write_all(bytes);
        sent.with_context(|| format!("cannot send {} bytes", bytes.len()))
    }

    fn receive(&self, count: usize) -> anyhow::Result<Vec<u8>> {
        let mut stream = self;
        let mut bytes = vec![0; count];
        let mut received = 0;
        while received < count {
            match stream.read(&mut bytes[received..]) {
                Ok(0) => bail!("closed after {received} of {count} bytes"),
                Ok(more) => received += more,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    bail!("no more than {received} of {count} bytes came back in time")
                }
                Err(error) => bail!("after {received} of {count} bytes: {error}"),
            }
        }
        Ok(bytes)
    }

    fn rest(&self) -> anyhow::Result<Vec<u8>> {
        let mut stream = self;
        let mut bytes = Vec::new();
        match stream.read_to_end(&mut bytes) {
            Ok(_) => Ok(bytes),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Err(anyhow!("it is not closed")),
            Err(error) => Err(anyhow!("no orderly end: {error}")),
        }
    }

    fn finish(&self) -> anyhow::Result<()> {
        let half_closed = self.shutdown(Shutdown::Write);
        half_closed.context("cannot close the sending half")
    }

    fn reset(self) -> io::Result<()> {
        let at_once = linger {
            l_onoff: 1,
            l_linger: 0,
        };
        Ok(setsockopt(&self.as_fd(), sockopt::Linger, &at_once)?)
    }
}

/// A request with a payload that is like no other.
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

/// A request without work.
#[must_use]
pub fn echo(sequence: u64) -> Vec<u8> {
    frame(sequence, 64, Work::None)
}

/// A request without a payload, with one byte of its header changed.
#[must_use]
pub fn changed(sequence: u64, byte: usize, value: u8) -> Vec<u8> {
    let mut frame = frame(sequence, 0, Work::None);
    assert!(byte < HEADER_LEN, "only the header means something");
    frame[byte] = value;
    frame
}
