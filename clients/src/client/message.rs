//! Requests and replies of one client: frames are built, replies are checked byte for byte.

use echobench_protocol::{HEADER_LEN, Header, Reason, error_reason};

use crate::failure::{ErrorKind, Failure};
use crate::plan::{Plan, RequestKind, Workload};

/// Room for a line of the time service: 31 bytes with the models here, more with other servers.
const LINE_ROOM: usize = 256;

/// Message of one client: the current request, and the rule for its reply.
///
/// Invariant: between two calls of [`Message::next`] the frame does not change.
pub(crate) struct Message<'a> {
    workload: &'a Workload,
    client_name: String,
    random: fastrand::Rng,
    key: u64,
    requests: u64,
    is_first_on_connection: bool,
    frame: Vec<u8>,
}

impl<'a> Message<'a> {
    pub(super) fn new(plan: &'a Plan, client: u32, random: &mut fastrand::Rng) -> Self {
        let workload = &plan.workload;
        let client_name = format!("{} {}", plan.driver.one(), u64::from(client) + 1);

        let frame = match workload.request_kind {
            RequestKind::Bytes => {
                let mut frame = vec![0; HEADER_LEN + workload.payload_bytes as usize];
                random.fill(&mut frame[HEADER_LEN..]);
                frame
            }
            RequestKind::Name => [&[0; HEADER_LEN], client_name.as_bytes()].concat(),
            RequestKind::Time => Vec::new(),
        };

        Message {
            workload,
            client_name,
            random: random.fork(),
            key: scramble(workload.seed) ^ u64::from(client) << 40,
            requests: 0,
            is_first_on_connection: true,
            frame,
        }
    }

    /// Builds the next request.
    pub(super) fn next(&mut self, is_first_on_connection: bool) {
        self.requests += 1;
        self.is_first_on_connection = is_first_on_connection;
        let Some((place, payload)) = self.frame.split_first_chunk_mut::<HEADER_LEN>() else {
            return;
        };

        let header = Header {
            work: self
                .workload
                .work
                .draw(is_first_on_connection, &mut self.random),
            payload_len: u32::try_from(payload.len()).expect("made from a number like this"),
            // Not a number that a server could guess: a reply that it sends before it has read the request is
            // then never the right one.
            sequence: scramble(self.key ^ self.requests),
        };
        *place = header.encode();
    }

    /// Frame of the current request; empty if the client sends nothing.
    pub(crate) fn frame(&self) -> &[u8] {
        &self.frame
    }

    /// Size of a buffer for replies: one byte more than a right one has, so that a longer one is noticed.
    pub(crate) fn reply_capacity(&self) -> usize {
        self.reply_room() + 1
    }

    /// Maximum length of a right reply, and the exact length of an echo.
    pub(crate) fn reply_room(&self) -> usize {
        match self.workload.request_kind {
            RequestKind::Bytes | RequestKind::Name => self.frame.len(),
            RequestKind::Time => LINE_ROOM,
        }
    }

    /// Checks a complete reply.
    pub(crate) fn check(&self, reply: &[u8]) -> Result<(), Failure> {
        if reply == self.frame {
            return Ok(());
        }
        match self.workload.request_kind {
            RequestKind::Bytes | RequestKind::Name => Err(self.difference(reply)),
            RequestKind::Time => check_line(reply),
        }
    }

    /// Checks a connection that ended after `reply`, which is shorter than [`Message::reply_room`].
    /// Returns its length if such a reply ends with the connection.
    #[cold]
    pub(crate) fn end_of_stream(&self, reply: &[u8]) -> Result<usize, Failure> {
        match self.workload.request_kind {
            RequestKind::Bytes | RequestKind::Name => Err(self.truncation(reply)),
            RequestKind::Time if reply.is_empty() => Err(Failure::new(
                ErrorKind::EarlyClose,
                "closed without a line of text",
            )),
            RequestKind::Time => Ok(reply.len()),
        }
    }

    /// Line about a right reply, if replies are to be printed.
    pub(crate) fn printed_line(&self, reply: &[u8]) -> Option<String> {
        self.workload.print_replies.then(|| {
            let text = String::from_utf8_lossy(&reply[self.frame.len().min(HEADER_LEN)..]);
            format!("{} hears: {}\n", self.client_name, text.trim_end())
        })
    }

    #[cold]
    fn difference(&self, reply: &[u8]) -> Failure {
        if let Some(reason) = error_reason(reply) {
            let kind = match reason {
                Reason::Overloaded => ErrorKind::Overloaded,
                _ => ErrorKind::ProtocolError,
            };
            return Failure::new(kind, format!("the server says: {reason}"));
        }

        if reply.starts_with(&self.frame) {
            return surplus(reply.len() - self.frame.len());
        }
        // A server that has echoed a request before knows how to: this time it cannot have read what it replies to.
        if !self.is_first_on_connection && self.lacks_number(reply) {
            return Failure::new(
                ErrorKind::EarlyReply,
                "the server sent a reply before it read the request, whose number it lacks",
            );
        }
        let at = reply
            .iter()
            .zip(&self.frame)
            .position(|(got, sent)| got != sent);
        Failure::new(
            ErrorKind::WrongBytes,
            format!(
                "byte {} of a reply of {} differs from the request",
                at.unwrap_or(reply.len()),
                self.frame.len()
            ),
        )
    }

    /// Whether the number of the request is nowhere in a reply, not even with some bytes changed. Behind bytes too
    /// many after the reply before, it is in another place.
    fn lacks_number(&self, reply: &[u8]) -> bool {
        const LEN: usize = size_of::<u64>();
        let Some(number) = self.frame.get(HEADER_LEN - LEN..HEADER_LEN) else {
            return false;
        };
        let resembles = |bytes: &[u8]| {
            let same = bytes.iter().zip(number).filter(|(got, sent)| got == sent);
            same.count() >= LEN / 2
        };
        !reply.windows(LEN).any(resembles)
    }

    fn truncation(&self, reply: &[u8]) -> Failure {
        if error_reason(reply).is_some() {
            return self.difference(reply);
        }
        Failure::new(
            ErrorKind::EarlyClose,
            format!(
                "closed after {} of {} bytes of a reply",
                reply.len(),
                self.frame.len()
            ),
        )
    }
}

/// One-to-one map of 64 bits that leaves no pattern (`SplitMix64`).
fn scramble(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

/// Failure of a reply with bytes after its end.
#[cold]
pub(super) fn surplus(bytes: usize) -> Failure {
    Failure::new(
        ErrorKind::WrongBytes,
        format!("{bytes} or more bytes after the end of a reply"),
    )
}

/// Checks a reply of the time service: a line of printable text, and nothing else.
fn check_line(reply: &[u8]) -> Result<(), Failure> {
    let line = reply.strip_suffix(b"\n").map(<[u8]>::trim_ascii_end);
    match line {
        Some(line) if !line.is_empty() && line.iter().all(|byte| matches!(byte, b' '..=b'~')) => {
            Ok(())
        }
        _ => Err(Failure::new(
            ErrorKind::WrongBytes,
            format!("{} bytes that are not one line of text", reply.len()),
        )),
    }
}
