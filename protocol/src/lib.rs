//! The one wire protocol of echobench: bytes in, bytes out.
//!
//! Nothing here opens a socket, reads a clock or starts a thread. A server model reads bytes into
//! [`Session::space`], asks [`Session::step`] what to do next, and sends [`Session::output`]; the
//! same state machine therefore serves blocking, asynchronous and event-loop models alike, and can
//! be tested by joining two ends in memory.
//!
//! The format on the wire is described in `docs/protocol.md`.

mod frame;
mod session;
mod textual;

pub use frame::{
    DEFAULT_MAX_PAYLOAD, FLAG_ERROR, HEADER_LEN, Header, Limits, MAGIC, MAX_PAYLOAD, Reason,
    VERSION, Work, error_frame, error_reason,
};
pub use session::{Service, Session, Step};
pub use textual::UnknownName;
