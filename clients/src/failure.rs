//! Failed requests and connections: their kinds, and counts by kind.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::str::FromStr;
use std::time::Duration;

use echobench_protocol::{serde_by_name, textual_enum};
use serde::{Deserialize, Serialize};

use crate::text::ParseError;

/// Reason why a planned request has no right reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ErrorKind {
    /// Connection refused: no listener at the address.
    Refused,
    /// No connection within the timeout.
    ConnectTimedOut,
    /// Connected and sent, but no complete reply within the timeout, or before the end of the plan. The
    /// latency is only known to be longer than the wait.
    TimedOut,
    /// Connection reset by the server, or by something between.
    Reset,
    /// Connection closed by the server before the complete reply.
    EarlyClose,
    /// Reply that is not the right one, byte for byte.
    WrongBytes,
    /// Bytes that arrived before the first request on their connection was sent, or a later reply without the number of
    /// its request.
    EarlyReply,
    /// Error frame of a server that has no room for the connection: a refusal, no fault of the protocol.
    Overloaded,
    /// Any other error frame sent by the server.
    ProtocolError,
    /// No local port left for a new connection.
    NoPorts,
    /// No file descriptor left in this process or system.
    NoFiles,
    /// Client process that died, and with it the count of its requests; counted once per process.
    ClientDied,
    /// Anything else; the message in the report has the details.
    Other,
}

textual_enum!(ErrorKind, "kind of error", {
    Refused => "refused",
    ConnectTimedOut => "connect_timed_out",
    TimedOut => "timed_out",
    Reset => "reset",
    EarlyClose => "early_close",
    WrongBytes => "wrong_bytes",
    EarlyReply => "early_reply",
    Overloaded => "overloaded",
    ProtocolError => "protocol_error",
    NoPorts => "no_ports",
    NoFiles => "no_files",
    ClientDied => "client_died",
    Other => "other",
});

serde_by_name!(ErrorKind);

impl ErrorKind {
    /// Words for messages; [`ErrorKind::name`] is the form of columns.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            ErrorKind::ConnectTimedOut => "connect timed out",
            ErrorKind::TimedOut => "timed out",
            ErrorKind::EarlyClose => "early close",
            ErrorKind::WrongBytes => "wrong bytes",
            ErrorKind::EarlyReply => "early reply",
            ErrorKind::Overloaded => "server overloaded",
            ErrorKind::ProtocolError => "protocol error",
            ErrorKind::NoPorts => "no local ports",
            ErrorKind::NoFiles => "no open files left",
            ErrorKind::ClientDied => "client died",
            ErrorKind::Refused | ErrorKind::Reset | ErrorKind::Other => self.name(),
        }
    }

    /// Kind of an error of the system on a socket.
    fn of(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => ErrorKind::Refused,
            io::ErrorKind::TimedOut => ErrorKind::TimedOut,
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe => ErrorKind::Reset,
            io::ErrorKind::AddrNotAvailable => ErrorKind::NoPorts,
            _ => match error.raw_os_error() {
                Some(nix::libc::EMFILE | nix::libc::ENFILE) => ErrorKind::NoFiles,
                _ => ErrorKind::Other,
            },
        }
    }
}

/// Failed requests by kind.
///
/// The textual form, also the serialized one, is `timed_out=2;wrong_bytes=1`, empty for no errors.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ErrorCounts(BTreeMap<ErrorKind, u64>);

impl ErrorCounts {
    /// Adds `count` errors of a kind.
    pub fn add(&mut self, kind: ErrorKind, count: u64) {
        if count > 0 {
            *self.0.entry(kind).or_default() += count;
        }
    }

    /// Number of errors of a kind.
    #[must_use]
    pub fn count(&self, kind: ErrorKind) -> u64 {
        self.0.get(&kind).copied().unwrap_or(0)
    }

    /// Number of errors of all kinds.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// Kinds that occurred, with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (ErrorKind, u64)> {
        self.0.iter().map(|(&kind, &count)| (kind, count))
    }

    /// Adds all counts of another set of requests.
    pub fn merge(&mut self, other: &ErrorCounts) {
        for (kind, count) in other.iter() {
            self.add(kind, count);
        }
    }
}

impl fmt::Display for ErrorCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (kind, count)) in self.iter().enumerate() {
            let separator = if index > 0 { ";" } else { "" };
            write!(f, "{separator}{}={count}", kind.name())?;
        }
        Ok(())
    }
}

impl FromStr for ErrorCounts {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut counts = ErrorCounts::default();

        for part in text.split(';').filter(|part| !part.is_empty()) {
            let (name, count) = part
                .split_once('=')
                .and_then(|(name, count)| Some((name, count.parse().ok()?)))
                .ok_or_else(|| {
                    ParseError(format!("'{part}' is not a count such as timed_out=2"))
                })?;
            let kind = ErrorKind::from_str(name).map_err(|error| ParseError(error.to_string()))?;
            counts.add(kind, count);
        }
        Ok(counts)
    }
}

impl TryFrom<String> for ErrorCounts {
    type Error = ParseError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<ErrorCounts> for String {
    fn from(counts: ErrorCounts) -> Self {
        counts.to_string()
    }
}

/// One failed request or connection: the kind, and a message with its details.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) kind: ErrorKind,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Failure {
            kind,
            message: message.into(),
        }
    }

    /// Error of the system on an open connection.
    pub(crate) fn exchange(error: &io::Error) -> Self {
        Failure::new(ErrorKind::of(error), error.to_string())
    }

    /// Error of the system while connecting to `target`.
    pub(crate) fn connect(target: std::net::SocketAddr, error: &io::Error) -> Self {
        let kind = match error.kind() {
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => ErrorKind::ConnectTimedOut,
            _ => ErrorKind::of(error),
        };
        let advice = match kind {
            ErrorKind::NoPorts => " (no local port is left; more source addresses have more)",
            _ => "",
        };
        Failure::new(kind, format!("cannot connect to {target}: {error}{advice}"))
    }

    /// Connection that was not established within `timeout`.
    pub(crate) fn connect_timed_out(target: std::net::SocketAddr, timeout: Duration) -> Self {
        Failure::new(
            ErrorKind::ConnectTimedOut,
            format!("cannot connect to {target} in {timeout:?}"),
        )
    }

    /// Reply that did not arrive in time.
    pub(crate) fn timed_out() -> Self {
        Failure::new(ErrorKind::TimedOut, "no complete reply in time")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_round_trip_through_text() {
        let mut counts = ErrorCounts::default();
        assert_eq!(counts.to_string(), "");
        counts.add(ErrorKind::WrongBytes, 1);
        counts.add(ErrorKind::ConnectTimedOut, 2);
        counts.add(ErrorKind::Reset, 0);

        assert_eq!(counts.to_string(), "connect_timed_out=2;wrong_bytes=1");
        assert_eq!(counts.to_string().parse(), Ok(counts.clone()));
        assert_eq!("".parse(), Ok(ErrorCounts::default()));
        assert_eq!((counts.total(), counts.count(ErrorKind::Reset)), (3, 0));

        for wrong in ["resets=1", "reset", "reset=x", "reset=1,other=2"] {
            assert!(wrong.parse::<ErrorCounts>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_kind_has_words_and_a_name() {
        for &kind in ErrorKind::ALL {
            assert_eq!(kind.name().parse(), Ok(kind));
            assert!(!kind.words().contains('_'), "{kind}");
        }
    }
}
