//! The server side of one connection as a state machine, without input or output.

use std::time::SystemTime;

use crate::frame::{HEADER_LEN, Header, Limits, MAGIC, Reason, Work, error_frame, sequence};
use crate::textual_enum;

/// Initial buffer of a connection, in bytes. It grows by doubling as bytes arrive, never because a
/// header announces them: a header costs a client nothing.
const SMALLEST_BUFFER: usize = 4096;
/// Largest buffer of the raw service, in bytes. It has no frames that would bound it.
const LARGEST_RAW_BUFFER: usize = 256 << 10;
/// Limits on the input that is discarded after an error frame. The client may still be sending, and a
/// close with unread bytes would reset the connection: the error frame could be lost.
const LINGER_READS: u32 = 4096;
const LINGER_BYTES: usize = 32 << 20;
const LINGER_BUFFER: usize = 64 << 10;

/// The service that a server offers on its connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Service {
    /// Frames: do the work the header asks for, then send the same bytes back.
    #[default]
    Echo,
    /// Send every byte back as it is, after RFC 862.
    Raw,
    /// Send the time as one line of text, without a request, and close, after RFC 867.
    Time,
}

textual_enum!(Service, "service", { Echo => "echo", Raw => "raw", Time => "time" });

impl Service {
    /// Its description, in one line.
    #[must_use]
    pub const fn summary(self) -> &'static str {
        match self {
            Service::Echo => "frames: work, then the same bytes back",
            Service::Raw => "every byte back as it is (RFC 862)",
            Service::Time => "the time as a line of text, then close (RFC 867)",
        }
    }
}

/// The next operation on a connection, to be carried out by its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Read into [`Session::space`], then call [`Session::received`].
    Receive,
    /// Do this work, then call [`Session::worked`].
    Work(Work),
    /// Send from [`Session::output`], then call [`Session::sent`].
    Send,
    /// Shut down the sending side, then call [`Session::finished`].
    Finish,
    /// Close the connection.
    Close,
}

/// The server side of one connection.
///
/// A request is received into the one buffer of the session and sent back from there: nothing is
/// copied and, once the buffer has the size of the largest frame seen, nothing is allocated.
#[derive(Debug)]
pub struct Session {
    service: Service,
    limits: Limits,
    step: Step,
    buffer: Vec<u8>,
    /// Bytes received and not yet sent back are `buffer[start..end]`.
    start: usize,
    end: usize,
    /// Bytes to send are `buffer[start..send_end]`, the replies to `answering` requests.
    send_end: usize,
    answering: u32,
    eof: bool,
    protocol_error: bool,
    lingered: Option<(u32, usize)>,
}

impl Session {
    /// The session of a connection that has just been accepted. `now` is the reply of the time
    /// service.
    #[must_use]
    pub fn new(service: Service, limits: Limits, now: SystemTime) -> Self {
        let mut session = Session {
            service,
            limits,
            step: Step::Receive,
            buffer: Vec::new(),
            start: 0,
            end: 0,
            send_end: 0,
            answering: 0,
            eof: false,
            protocol_error: false,
            lingered: None,
        };
        if service == Service::Time {
            let line = format!("{}\r\n", httpdate::fmt_http_date(now));
            session.reply_with(line.into_bytes());
            session.answering = 1;
        }
        session
    }

    /// The next operation.
    #[must_use]
    pub fn step(&self) -> Step {
        self.step
    }

    /// The buffer to read into; never empty while the step is [`Step::Receive`].
    pub fn space(&mut self) -> &mut [u8] {
        // A read that filled the buffer leaves more behind. Echo keeps the bytes until the frame is
        // complete; raw has sent them, and would read a large request in pieces of the same size.
        let filled = self.end == self.buffer.len();
        let sent = self.start == self.end;
        if sent {
            self.start = 0;
            self.end = 0;
        }

        if filled && self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        } else if filled && (!sent || self.may_grow_when_sent()) {
            let size = (self.buffer.len() * 2).max(SMALLEST_BUFFER);
            self.buffer.resize(size, 0);
        }

        &mut self.buffer[self.end..]
    }

    /// Records that `count` bytes were read into [`Session::space`]; 0 is the end of the stream.
    pub fn received(&mut self, count: usize) {
        debug_assert_eq!(self.step, Step::Receive);
        self.end += count;
        self.eof |= count == 0;

        if let Some((reads, bytes)) = &mut self.lingered {
            self.end = self.start;
            *reads += 1;
            *bytes += count;
            if self.eof || *reads >= LINGER_READS || *bytes >= LINGER_BYTES {
                self.step = Step::Close;
            }
            return;
        }
        self.advance();
    }

    /// Records that the work of [`Step::Work`] is done.
    pub fn worked(&mut self) {
        debug_assert!(matches!(self.step, Step::Work(_)));
        self.step = Step::Send;
    }

    /// The bytes to send; not empty while the step is [`Step::Send`].
    #[must_use]
    pub fn output(&self) -> &[u8] {
        &self.buffer[self.start..self.send_end]
    }

    /// Records that the first `count` bytes of [`Session::output`] were sent. Returns the number of
    /// requests whose replies are thereby complete.
    pub fn sent(&mut self, count: usize) -> u32 {
        debug_assert_eq!(self.step, Step::Send);
        self.start += count;
        assert!(
            self.start <= self.send_end,
            "sent more than there was to send"
        );
        if self.start < self.send_end {
            return 0;
        }

        let answered = std::mem::take(&mut self.answering);
        if self.protocol_error {
            self.step = Step::Finish;
        } else if self.service == Service::Time {
            self.step = Step::Close;
        } else {
            self.advance();
        }

        answered
    }

    /// Records that the sending side was shut down, after [`Step::Finish`].
    pub fn finished(&mut self) {
        debug_assert_eq!(self.step, Step::Finish);
        self.start = 0;
        self.end = 0;
        // It has the size of the error frame, too small to discard a large frame in time.
        self.buffer.resize(LINGER_BUFFER, 0);
        self.lingered = Some((0, 0));
        self.step = if self.eof { Step::Close } else { Step::Receive };
    }

    /// Whether the client broke the protocol: it sent a frame that was refused, or one cut short.
    #[must_use]
    pub fn protocol_error(&self) -> bool {
        self.protocol_error
    }

    /// Whether the buffer grows although all of its bytes were sent.
    fn may_grow_when_sent(&self) -> bool {
        let size = self.buffer.len();
        size == 0 || (self.service == Service::Raw && size < LARGEST_RAW_BUFFER)
    }

    /// Finds the next step for `buffer[start..end]`.
    fn advance(&mut self) {
        match self.service {
            Service::Echo => self.advance_echo(),
            Service::Raw if self.start < self.end => self.reply(self.end, 1),
            Service::Raw | Service::Time => self.wait_for_input(),
        }
    }

    fn advance_echo(&mut self) {
        // Frames without work that have arrived together are answered together.
        let mut end = self.start;
        let mut requests = 0;

        loop {
            match next_frame(&self.buffer[end..self.end], &self.limits) {
                Ok(Some(header)) if header.work == Work::None => {
                    end += header.frame_len();
                    requests += 1;
                }
                _ if requests > 0 => return self.reply(end, requests),
                Ok(Some(header)) => {
                    self.reply(end + header.frame_len(), 1);
                    self.step = Step::Work(header.work);
                    return;
                }
                Ok(None) => return self.wait_for_input(),
                Err((reason, sequence)) => {
                    self.protocol_error = true;
                    return self.reply_with(error_frame(reason, sequence));
                }
            }
        }
    }

    /// Sends `buffer[start..end]`, the replies to this number of requests.
    fn reply(&mut self, end: usize, requests: u32) {
        self.send_end = end;
        self.answering = requests;
        self.step = Step::Send;
    }

    /// Sends `bytes` instead of the content of the buffer.
    fn reply_with(&mut self, bytes: Vec<u8>) {
        self.buffer = bytes;
        self.start = 0;
        self.end = self.buffer.len();
        self.send_end = self.end;
        self.step = Step::Send;
    }

    fn wait_for_input(&mut self) {
        self.step = if self.eof { Step::Close } else { Step::Receive };
        self.protocol_error |= self.eof && self.start < self.end;
    }
}

/// Decodes the header of the frame at the start of `bytes`: `None` if the frame is incomplete; on a
/// refusal, its reason and the sequence number of the frame.
fn next_frame(bytes: &[u8], limits: &Limits) -> Result<Option<Header>, (Reason, u64)> {
    let Some(first) = bytes.first_chunk::<HEADER_LEN>() else {
        // Refused at once: the rest of the 24 bytes may never come.
        let known = bytes.len().min(MAGIC.len());
        return if bytes[..known] == MAGIC[..known] {
            Ok(None)
        } else {
            Err((Reason::BadMagic, 0))
        };
    };

    let header = Header::decode(first, limits).map_err(|reason| match reason {
        Reason::BadMagic | Reason::UnknownVersion => (reason, 0),
        _ => (reason, sequence(first)),
    })?;
    Ok((bytes.len() >= header.frame_len()).then_some(header))
}
