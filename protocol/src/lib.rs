//! The wire protocol of echobench, sans-IO: bytes in, bytes out.
//!
//! Nothing here opens a socket, reads a clock or starts a thread. The format on the wire is described
//! in `docs/protocol.md`.
//!
//! # Layout
//!
//! - [`Session`] is the server side of one connection as a state machine, for blocking, asynchronous
//!   and event-loop servers alike. Its owner reads into [`Session::space`], asks [`Session::step`] for
//!   the next operation, and sends [`Session::output`].
//! - [`Header`], [`Work`], [`Limits`] and [`error_frame`] are the frames of the service `echo`.
//! - [`textual_enum!`] gives an enum its one textual form, here and in the crates that build on this.
//!
//! # A session in memory
//!
//! Two endpoints, joined by slices instead of sockets:
//!
//! ```
//! use std::time::SystemTime;
//!
//! use echobench_protocol::{Header, Limits, Service, Session, Step, Work};
//!
//! // The client: one request of 5 bytes.
//! let header = Header {
//!     work: Work::None,
//!     payload_len: 5,
//!     sequence: 1,
//! };
//! let request = [header.encode().as_slice(), b"hello"].concat();
//! let mut reply = Vec::new();
//!
//! // The server: carries out steps until the session closes.
//! let mut session = Session::new(Service::Echo, Limits::default(), SystemTime::now());
//! let mut input = request.as_slice();
//! loop {
//!     match session.step() {
//!         Step::Receive => {
//!             // As a slow network would deliver it: 10 bytes at a time.
//!             let count = input.len().min(10);
//!             session.space()[..count].copy_from_slice(&input[..count]);
//!             input = &input[count..];
//!             session.received(count);
//!         }
//!         Step::Send => {
//!             reply.extend_from_slice(session.output());
//!             session.sent(session.output().len());
//!         }
//!         Step::Work(_) => session.worked(),
//!         Step::Finish => session.finished(),
//!         Step::Close => break,
//!     }
//! }
//!
//! assert_eq!(reply, request);
//! ```

mod frame;
mod session;
mod textual;

pub use frame::{
    DEFAULT_MAX_PAYLOAD, FLAG_ERROR, HEADER_LEN, Header, Limits, MAGIC, MAX_PAYLOAD, Reason,
    VERSION, Work, error_frame, error_reason,
};
pub use session::{Service, Session, Step};
pub use textual::UnknownName;
