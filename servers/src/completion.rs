//! One accepted connection in a completion loop: the counterpart of [`Connection::serve`] for a kernel that
//! carries out reads and writes itself and reports their results.

use std::io::{self, ErrorKind};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use echobench_protocol::{Session, Step, Work};

use crate::connection::{Connection, LINGER, Serving};
use crate::work;

/// The next operation of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// Read into [`Exchange::space`], until [`Exchange::time_left`] is over.
    Receive,
    /// Write from [`Exchange::output`].
    Send,
    /// Wait this long, which is the work of a request.
    Wait(Duration),
    /// Nothing: the exchange is over, and has to be dropped.
    Over,
}

/// A connection that is served between completions. At most one operation is under way.
#[derive(Debug)]
pub(crate) struct Exchange {
    // Dropped before the stream: see `Connection::begin`.
    serving: Serving,
    stream: TcpStream,
    session: Session,
    /// A client that was sent an error frame is cut off then.
    deadline: Option<Instant>,
}

impl Exchange {
    /// Begins to serve a connection with a blocking socket; `None` if that fails, which is counted.
    pub(crate) fn begin(connection: Connection) -> Option<Self> {
        let (stream, serving) = connection.begin(Ok).ok()?;
        Some(Exchange {
            session: serving.session(),
            serving,
            stream,
            deadline: None,
        })
    }

    /// The buffer of [`Operation::Receive`]; never empty. It stays where it is until the next step.
    pub(crate) fn space(&mut self) -> &mut [u8] {
        self.session.space()
    }

    /// The bytes of [`Operation::Send`]; never empty. They stay where they are until the next step.
    pub(crate) fn output(&self) -> &[u8] {
        self.session.output()
    }

    /// The time that [`Operation::Receive`] may take, if it is limited.
    pub(crate) fn time_left(&self) -> Option<Duration> {
        let deadline = self.deadline?;
        Some(deadline.saturating_duration_since(Instant::now()))
    }

    /// The first operation. Errors, panics included, are counted and end the exchange.
    pub(crate) fn start(&mut self) -> Operation {
        self.step(Exchange::next_operation)
    }

    /// The operation after the one that had this result. Errors, panics included, are counted and end the exchange.
    pub(crate) fn proceed(&mut self, result: io::Result<usize>) -> Operation {
        self.step(|exchange| {
            exchange.complete(result)?;
            exchange.next_operation()
        })
    }

    fn step(&mut self, step: impl FnOnce(&mut Self) -> io::Result<Operation>) -> Operation {
        let stepped = catch_unwind(AssertUnwindSafe(|| step(self)));
        self.serving
            .after_step(&self.session, stepped, Operation::Over)
    }

    /// Records the result of the operation that was under way.
    fn complete(&mut self, result: io::Result<usize>) -> io::Result<()> {
        let is_waiting = matches!(self.session.step(), Step::Work(_));
        match result {
            // A timer ends with an error: that its time is over.
            _ if is_waiting => {
                self.serving.work_ends();
                self.session.worked();
            }
            // The operation is repeated.
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
            Ok(count) if self.session.step() == Step::Send => {
                self.serving.answered(self.session.sent(count));
            }
            Ok(count) => self.session.received(count),
        }
        Ok(())
    }

    /// Carries out the steps of the session up to an operation.
    fn next_operation(&mut self) -> io::Result<Operation> {
        loop {
            match self.session.step() {
                Step::Receive => return Ok(Operation::Receive),

                Step::Work(work) => {
                    self.serving.work_begins(work);
                    if let Work::Block(time) = work {
                        return Ok(Operation::Wait(time));
                    }
                    work::perform(work);
                    self.serving.work_ends();
                    self.session.worked();
                }

                Step::Send => return Ok(Operation::Send),

                Step::Finish => {
                    self.stream.shutdown(Shutdown::Write)?;
                    self.deadline = Some(Instant::now() + LINGER);
                    self.session.finished();
                }

                Step::Close => return Ok(Operation::Over),
            }
        }
    }
}

impl AsRawFd for Exchange {
    fn as_raw_fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }
}
