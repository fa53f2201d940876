//! One accepted connection in an event loop: the counterpart of [`Connection::serve`] for non-blocking
//! sockets, which does what it can and says what it waits for.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use echobench_protocol::{Session, Step, Work};

use crate::connection::{Connection, LINGER, Serving};
use crate::work;

/// The next event of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Bytes to read, or the end of the stream.
    Readable,
    /// Room to write.
    Writable,
    /// This instant, at which the work of a request is done.
    At(Instant),
    /// Nothing: the conversation is over, and has to be dropped.
    Over,
}

/// Ways to do work that blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blocking {
    /// The calling thread sleeps: it serves nobody else meanwhile.
    Thread,
    /// The event loop sets a timer, and serves others meanwhile.
    Timer,
}

/// A connection that is served between events.
#[derive(Debug)]
pub(crate) struct Conversation {
    // Dropped before the stream: see `Connection::begin`.
    serving: Serving,
    stream: TcpStream,
    session: Session,
    blocking: Blocking,
    /// A client that was sent an error frame is cut off then.
    deadline: Option<Instant>,
}

impl Conversation {
    /// Begins to serve a connection; `None` if that fails, which is counted.
    pub(crate) fn begin(connection: Connection, blocking: Blocking) -> Option<Self> {
        let nonblocking = |stream: TcpStream| stream.set_nonblocking(true).map(|()| stream);
        let (stream, serving) = connection.begin(nonblocking).ok()?;
        Some(Conversation {
            session: serving.session(),
            serving,
            stream,
            blocking,
            deadline: None,
        })
    }

    /// The number of its descriptor, which is its own until it is dropped.
    pub(crate) fn index(&self) -> usize {
        usize::try_from(self.stream.as_raw_fd()).expect("an open descriptor is not negative")
    }

    /// The instant at which [`Conversation::expire`] is due, if there is one.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Continues after the event it waited for. Errors, panics included, are counted and end it.
    pub(crate) fn proceed(&mut self) -> Next {
        let stepped = catch_unwind(AssertUnwindSafe(|| self.take_steps()));
        self.serving.after_step(&self.session, stepped, Next::Over)
    }

    /// Continues after the instant of [`Next::At`].
    pub(crate) fn work_done(&mut self) -> Next {
        self.serving.work_ends();
        self.session.worked();
        self.proceed()
    }

    /// Cuts off a client that has not closed in time after an error frame.
    pub(crate) fn expire(&mut self) -> Next {
        let error = Err(ErrorKind::TimedOut.into());
        self.serving.finish(&self.session, &error);
        Next::Over
    }

    /// Carries out the steps of the session up to one that has to wait.
    fn take_steps(&mut self) -> io::Result<Next> {
        // One read per event: a second one would mostly find nothing, and cost a system call per
        // request. With level-triggered events nothing is lost by it.
        let mut may_read = true;

        loop {
            match self.session.step() {
                Step::Receive => {
                    if !may_read {
                        return Ok(Next::Readable);
                    }
                    may_read = false;
                    let read = (&self.stream).read(self.session.space());
                    match or_would_block(read)? {
                        Some(count) => self.session.received(count),
                        None => return Ok(Next::Readable),
                    }
                }

                Step::Work(work) => {
                    self.serving.work_begins(work);
                    if let (Work::Block(time), Blocking::Timer) = (work, self.blocking) {
                        return Ok(Next::At(Instant::now() + time));
                    }
                    work::perform(work);
                    self.serving.work_ends();
                    self.session.worked();
                }

                Step::Send => {
                    let written = (&self.stream).write(self.session.output());
                    match or_would_block(written)? {
                        Some(count) => self.serving.answered(self.session.sent(count)),
                        None => return Ok(Next::Writable),
                    }
                }

                Step::Finish => {
                    self.stream.shutdown(Shutdown::Write)?;
                    self.deadline = Some(Instant::now() + LINGER);
                    self.session.finished();
                }

                Step::Close => return Ok(Next::Over),
            }
        }
    }
}

impl AsFd for Conversation {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// `None` where the call would block, or was interrupted and may be repeated at the next event.
fn or_would_block(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(count) => Ok(Some(count)),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
