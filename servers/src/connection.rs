//! One accepted connection: served by a blocking loop to its end, or refused.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use echobench_protocol::{Reason, Service, Session, Step, Work, error_frame};
use nix::sys::socket::{self, MsgFlags};

use crate::counters::Cell;
use crate::idle::Mark;
use crate::server::Server;
use crate::work;

/// How long a client that was sent an error frame may go on sending before it is cut off.
pub(crate) const LINGER: Duration = Duration::from_secs(2);

/// A connection that has been accepted and waits to be served.
///
/// If it is dropped instead, because no thread or process could be started for it, its client is
/// told so.
#[derive(Debug)]
pub(crate) struct Connection {
    server: Arc<Server>,
    number: u64,
    mark: Arc<Mark>,
    /// `None` once it is in somebody's hands.
    stream: Option<TcpStream>,
}

impl Connection {
    /// Counts `stream` as accepted by `server`.
    pub(crate) fn new(server: &Arc<Server>, stream: TcpStream) -> Self {
        Connection {
            server: Arc::clone(server),
            number: server.counters.accept(),
            mark: Arc::new(Mark::new(stream.as_raw_fd())),
            stream: Some(stream),
        }
    }

    /// Serves the connection to its end on the calling thread. Its errors, panics included, are
    /// counted and go no further.
    pub(crate) fn serve(self) {
        let Ok((stream, serving)) = self.begin(Ok) else {
            return;
        };
        // A panic is counted as `serving` goes, and has been printed by then.
        let _ = catch_unwind(AssertUnwindSafe(move || {
            let (stream, serving) = (stream, serving);
            let mut session = serving.session();
            let result = converse(&stream, &mut session, &serving);
            serving.conclude(&session, &result);
        }));
    }

    /// Begins to serve: the stream, as what `convert` makes of it, and its entry in the books of
    /// the server, which has to be dropped before the stream is.
    pub(crate) fn begin<S: AsRawFd>(
        mut self,
        convert: impl FnOnce(TcpStream) -> io::Result<S>,
    ) -> io::Result<(S, Serving)> {
        let stream = self.stream.take().expect("a waiting connection is open");
        self.server.counters.begin();
        let cell = self.server.counters.cell(self.number);
        match convert(stream) {
            Ok(stream) => {
                let socket = stream.as_raw_fd();
                self.server.enter(socket, Arc::clone(&self.mark));
                let server = Arc::clone(&self.server);
                let serving = Serving {
                    server,
                    cell,
                    socket,
                    mark: Arc::clone(&self.mark),
                };
                Ok((stream, serving))
            }
            Err(error) => {
                cell.failed();
                self.server.counters.end();
                Err(error)
            }
        }
    }

    /// What shows whether the client keeps the server waiting.
    pub(crate) fn mark(&self) -> &Arc<Mark> {
        &self.mark
    }

    /// Closes this process's copy: a child serves the connection.
    pub(crate) fn hand_over(mut self) {
        self.server.counters.begin();
        self.stream = None;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(stream) = self.stream.take() {
            refuse(&stream, self.server.settings.service);
            self.server.counters.refuse();
        }
    }
}

/// The entry of a connection that is being served in the books of its server.
#[derive(Debug)]
pub(crate) struct Serving {
    server: Arc<Server>,
    cell: &'static Cell,
    socket: RawFd,
    mark: Arc<Mark>,
}

impl Serving {
    /// A session with the settings of the server.
    pub(crate) fn session(&self) -> Session {
        let settings = &self.server.settings;
        Session::new(settings.service, settings.limits, SystemTime::now())
    }

    /// So many requests were answered; the place of the slow-down that was asked for, since every
    /// model comes by here.
    pub(crate) fn answered(&self, requests: u32) {
        if requests > 0 {
            self.cell.answered(requests);
            self.mark.answered();
        }
        let injected = self.server.settings.injected_steps;
        if injected > 0 {
            work::steps(u64::from(requests) * u64::from(injected));
        }
    }

    /// The work of a request begins.
    pub(crate) fn work_begins(&self, work: Work) {
        self.mark.work_begins();
        if let (Some(fault), Work::Spin(_)) = (self.server.settings.fault, work) {
            work::fail(fault);
        }
    }

    /// The work of a request is done.
    pub(crate) fn work_ends(&self) {
        self.mark.work_ends();
    }

    /// The conversation is over; an error is counted, once.
    pub(crate) fn conclude(&self, session: &Session, result: &io::Result<()>) {
        if self.mark.is_cut_off() {
            self.cell.timed_out();
        } else if result.is_err() || session.fault() {
            self.cell.failed();
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        if thread::panicking() {
            self.cell.failed();
        }
        self.server.leave(self.socket);
        self.server.counters.end();
    }
}

/// Does what the session says until it says close. In the steady state that is one read and one
/// write for each request, and nothing else.
fn converse(mut stream: &TcpStream, session: &mut Session, serving: &Serving) -> io::Result<()> {
    let mut cut_off = None;
    loop {
        match session.step() {
            Step::Receive => {
                if let Some(cut_off) = cut_off {
                    set_read_deadline(stream, cut_off)?;
                }
                let count = uninterrupted(|| stream.read(session.space()))?;
                session.received(count);
            }
            Step::Work(work) => {
                serving.work_begins(work);
                work::perform(work);
                serving.work_ends();
                session.worked();
            }
            Step::Send => {
                let count = uninterrupted(|| stream.write(session.output()))?;
                serving.answered(session.sent(count));
            }
            Step::Finish => {
                stream.shutdown(Shutdown::Write)?;
                cut_off = Some(Instant::now() + LINGER);
                session.finished();
            }
            Step::Close => return Ok(()),
        }
    }
}

fn uninterrupted(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

fn set_read_deadline(stream: &TcpStream, deadline: Instant) -> io::Result<()> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(ErrorKind::TimedOut.into());
    }
    stream.set_read_timeout(Some(left))
}

/// Tells the client that it will not be served, without waiting for anything: this is called by
/// those who have other connections to see to.
fn refuse(stream: &TcpStream, service: Service) {
    let socket = stream.as_raw_fd();
    if service == Service::Echo {
        // A new connection has room for so little. If not, the close has to say it.
        let frame = error_frame(Reason::Overloaded, 0);
        let _ = socket::send(
            socket,
            &frame,
            MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL,
        );
    }
    let _ = stream.shutdown(Shutdown::Write);
    // To close with bytes unread would reset the connection.
    let mut unread = [0; 4096];
    for _ in 0..16 {
        match socket::recv(socket, &mut unread, MsgFlags::MSG_DONTWAIT) {
            Ok(1..) => {}
            _ => break,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use echobench_protocol::error_reason;

    use super::*;
    use crate::settings::Settings;

    fn accepted(server: &Arc<Server>) -> (TcpStream, Connection) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().unwrap();
        (client, Connection::new(server, stream))
    }

    fn server(service: Service) -> Arc<Server> {
        let settings = Settings {
            service,
            ..Settings::default()
        };
        Arc::new(Server::new(settings).unwrap())
    }

    #[test]
    fn a_connection_that_nobody_serves_is_told_so() {
        let server = server(Service::Echo);
        let (mut client, connection) = accepted(&server);
        client.write_all(&[0; 10_000]).unwrap();
        drop(connection);
        let mut reply = Vec::new();
        client.read_to_end(&mut reply).unwrap();
        assert_eq!(error_reason(&reply), Some(Reason::Overloaded));
        assert_eq!(server.counters.open(), 0);
        assert!(server.counters.to_string().contains("refused=1"));
    }

    #[test]
    fn other_services_have_no_words_for_a_refusal() {
        let server = server(Service::Raw);
        let (mut client, connection) = accepted(&server);
        drop(connection);
        let mut reply = Vec::new();
        client.read_to_end(&mut reply).unwrap();
        assert!(reply.is_empty());
    }

    #[test]
    fn a_panic_leaves_the_books_right() {
        let server = server(Service::Echo);
        let (_client, connection) = accepted(&server);
        let result = catch_unwind(AssertUnwindSafe(|| {
            let (_stream, _serving) = connection.begin(Ok).unwrap();
            assert_eq!(server.counters.open(), 1);
            panic!("as a handler might");
        }));
        assert!(result.is_err());
        assert_eq!(server.counters.open(), 0);
        assert!(server.counters.to_string().contains("errors=1"));
    }

    #[test]
    fn a_stream_that_cannot_be_converted_is_an_error_and_no_longer_open() {
        let server = server(Service::Echo);
        let (_client, connection) = accepted(&server);
        let result = connection.begin::<TcpStream>(|_| Err(ErrorKind::OutOfMemory.into()));
        assert!(result.is_err());
        assert_eq!(server.counters.open(), 0);
        assert!(server.counters.to_string().contains("errors=1"));
    }

    #[test]
    fn a_connection_begun_during_the_drain_answers_what_it_has_and_ends() {
        let server = server(Service::Raw);
        let (mut client, connection) = accepted(&server);
        client.write_all(b"in time").unwrap();
        server.drain();
        connection.serve();
        let mut reply = Vec::new();
        client.read_to_end(&mut reply).unwrap();
        assert_eq!(reply, b"in time");
    }

    #[test]
    fn a_client_that_goes_on_sending_after_an_error_is_cut_off() {
        let deadline = Instant::now();
        let server = server(Service::Echo);
        let (_client, connection) = accepted(&server);
        let (stream, _serving) = connection.begin(Ok).unwrap();
        let error = set_read_deadline(&stream, deadline).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    }
}
