//! The frame: a fixed header of 24 bytes, all numbers big-endian, and a payload.

use std::time::Duration;

/// The first bytes of every frame.
pub const MAGIC: [u8; 3] = *b"ECH";
/// The version of the format, the fourth byte of every frame.
pub const VERSION: u8 = 1;
/// Length of the header in bytes.
pub const HEADER_LEN: usize = 24;
/// The largest payload the format allows, in bytes (16 MiB).
pub const MAX_PAYLOAD: u32 = 16 << 20;
/// The largest payload a server accepts unless told otherwise, in bytes (1 MiB).
pub const DEFAULT_MAX_PAYLOAD: u32 = 1 << 20;
/// Flag of an error frame: the server refused the request.
pub const FLAG_ERROR: u8 = 1;

/// The work a request asks for, done before the reply is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Work {
    /// No work: an echo.
    #[default]
    None,
    /// Wait without using the CPU, as for a disk or another server.
    Block(Duration),
    /// Use this much CPU time.
    Spin(Duration),
}

impl Work {
    fn parts(self) -> (u8, Duration) {
        match self {
            Work::None => (0, Duration::ZERO),
            Work::Block(time) => (1, time),
            Work::Spin(time) => (2, time),
        }
    }

    /// The time the work takes; zero for [`Work::None`].
    #[must_use]
    pub fn duration(self) -> Duration {
        self.parts().1
    }
}

/// Limits of a server; a request beyond them is answered by an error frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest payload in bytes, at most [`MAX_PAYLOAD`].
    pub max_payload: u32,
    /// Longest work of one request.
    pub max_work: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_payload: DEFAULT_MAX_PAYLOAD,
            max_work: Duration::from_secs(60),
        }
    }
}

/// The reason for which a server refuses a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[repr(u16)]
pub enum Reason {
    /// The bytes are not a frame.
    #[error("not an echobench frame (bad magic)")]
    BadMagic = 1,
    /// A version this server does not know.
    #[error("unknown version")]
    UnknownVersion = 2,
    /// A flag or a reserved byte that a request must not carry.
    #[error("unknown flags")]
    UnknownFlags = 3,
    /// A kind of work this server does not know.
    #[error("unknown kind of work")]
    UnknownWork = 4,
    /// The payload is longer than the server accepts.
    #[error("payload over the limit")]
    PayloadTooLarge = 5,
    /// The work takes longer than the server accepts.
    #[error("work over the limit")]
    WorkTooLong = 6,
    /// The server has no thread, process or memory left for this connection.
    #[error("server out of resources")]
    Overloaded = 7,
}

impl Reason {
    /// Every reason, in the order of its code.
    pub const ALL: [Reason; 7] = [
        Reason::BadMagic,
        Reason::UnknownVersion,
        Reason::UnknownFlags,
        Reason::UnknownWork,
        Reason::PayloadTooLarge,
        Reason::WorkTooLong,
        Reason::Overloaded,
    ];

    /// The code on the wire.
    #[must_use]
    pub fn code(self) -> u16 {
        self as u16
    }
}

/// The header of a request, which is also the header of its reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The work to do before the reply. On the wire in whole microseconds.
    pub work: Work,
    /// Number of payload bytes that follow the header.
    pub payload_len: u32,
    /// A number chosen by the client, which makes every frame of a run unique.
    pub sequence: u64,
}

impl Header {
    /// Encodes the header.
    ///
    /// Work longer than [`u32::MAX`] microseconds (71 minutes) is cut to that.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let (kind, time) = self.work.parts();
        let micros = u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
        bytes(0, kind, 0, micros, self.payload_len, self.sequence)
    }

    /// Decodes the header of a request and checks it against `limits`.
    pub fn decode(bytes: &[u8; HEADER_LEN], limits: &Limits) -> Result<Header, Reason> {
        let [m0, m1, m2, version, flags, kind, r0, r1, rest @ ..] = bytes;

        if [*m0, *m1, *m2] != MAGIC {
            return Err(Reason::BadMagic);
        }
        if *version != VERSION {
            return Err(Reason::UnknownVersion);
        }
        if *flags != 0 || [*r0, *r1] != [0, 0] {
            return Err(Reason::UnknownFlags);
        }

        let time = Duration::from_micros(u64::from(word(rest, 0)));
        let work = match kind {
            0 => Work::None,
            1 => Work::Block(time),
            2 => Work::Spin(time),
            _ => return Err(Reason::UnknownWork),
        };

        let payload_len = word(rest, 4);
        if payload_len > limits.max_payload.min(MAX_PAYLOAD) {
            return Err(Reason::PayloadTooLarge);
        }
        if work.duration() > limits.max_work {
            return Err(Reason::WorkTooLong);
        }

        Ok(Header {
            work,
            payload_len,
            sequence: sequence(bytes),
        })
    }

    /// Length of the whole frame in bytes.
    #[must_use]
    pub fn frame_len(&self) -> usize {
        HEADER_LEN + self.payload_len as usize
    }
}

/// Encodes the error frame for `reason`, in reply to the request with this `sequence` (0 where it could
/// not be read). Its payload is the reason as text.
#[must_use]
pub fn error_frame(reason: Reason, sequence: u64) -> Vec<u8> {
    let text = reason.to_string();
    let length = u32::try_from(text.len()).expect("reasons are short");
    let mut frame = Vec::with_capacity(HEADER_LEN + text.len());
    frame.extend_from_slice(&bytes(FLAG_ERROR, 0, reason.code(), 0, length, sequence));
    frame.extend_from_slice(text.as_bytes());
    frame
}

/// Decodes the reason of a refusal, if `reply` begins with the header of an error frame.
#[must_use]
pub fn error_reason(reply: &[u8]) -> Option<Reason> {
    let header = reply.first_chunk::<HEADER_LEN>()?;
    if header[..3] != MAGIC || header[3] != VERSION || header[4] != FLAG_ERROR {
        return None;
    }
    let code = u16::from_be_bytes([header[6], header[7]]);
    Reason::ALL.into_iter().find(|reason| reason.code() == code)
}

/// Decodes the sequence number of a header, even of an invalid one.
pub(crate) fn sequence(header: &[u8; HEADER_LEN]) -> u64 {
    u64::from_be_bytes(*header.last_chunk().expect("a header has 24 bytes"))
}

fn bytes(flags: u8, kind: u8, code: u16, micros: u32, length: u32, seq: u64) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    header[..3].copy_from_slice(&MAGIC);
    header[3] = VERSION;
    header[4] = flags;
    header[5] = kind;
    header[6..8].copy_from_slice(&code.to_be_bytes());
    header[8..12].copy_from_slice(&micros.to_be_bytes());
    header[12..16].copy_from_slice(&length.to_be_bytes());
    header[16..].copy_from_slice(&seq.to_be_bytes());
    header
}

fn word(bytes: &[u8; 16], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
