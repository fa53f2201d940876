//! One accepted connection: served by a blocking loop up to its close, or refused.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd as _, AsRawFd, BorrowedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use echobench_protocol::{Reason, Service, Session, Step, Work, error_frame};
use nix::sys::socket::{self, MsgFlags};

use crate::counters::{Place, Tally};
use crate::idle::Activity;
use crate::server::Server;
use crate::settings::Settings;
use crate::work;

/// Time that a client has to finish sending after it was sent an error frame.
pub(crate) const LINGER: Duration = Duration::from_secs(2);

/// An accepted connection that waits to be served.
///
/// Dropping it, because no thread or process could be started for it, refuses it: its client gets an
/// error frame.
#[derive(Debug)]
pub(crate) struct Connection {
    server: Arc<Server>,
    place: Place,
    number: u64,
    activity: Arc<Activity>,
    /// `None` once it is served.
    stream: Option<TcpStream>,
}

impl Connection {
    /// Counts `stream` as accepted in a place of `server`.
    pub(crate) fn new(server: &Arc<Server>, place: Place, stream: TcpStream) -> Self {
        Connection::received(server, place, place.accept(), stream)
    }

    /// A connection that was passed by another process, which has counted it in `place` as `number`.
    pub(crate) fn received(
        server: &Arc<Server>,
        place: Place,
        number: u64,
        stream: TcpStream,
    ) -> Self {
        Connection {
            server: Arc::clone(server),
            place,
            number,
            activity: Arc::new(Activity::new(stream.as_raw_fd())),
            stream: Some(stream),
        }
    }

    /// Passes the connection to another process by `send`, to be counted in `place` from now on. Returns
    /// it if it cannot be sent.
    pub(crate) fn pass(
        mut self,
        place: Place,
        send: impl FnOnce(BorrowedFd<'_>, u64) -> nix::Result<()>,
    ) -> Result<(), Self> {
        let stream = self.stream.as_ref().expect("a waiting connection is open");
        // Counted before, since the other process may begin at once.
        let number = self.place.hand_over(place);

        if send(stream.as_fd(), number).is_ok() {
            self.close_copy();
            Ok(())
        } else {
            self.number = place.hand_over(self.place);
            Err(self)
        }
    }

    /// Serves the connection on the calling thread until it is closed. Its errors, panics included,
    /// are counted and go no further.
    pub(crate) fn serve(self) {
        let Ok((stream, serving)) = self.begin(Ok) else {
            return;
        };

        // A panic is printed by the hook, and counted when `serving` is dropped.
        let _ = catch_unwind(AssertUnwindSafe(move || {
            // Moved in, so that they are dropped while the panic unwinds: see `Serving::drop`.
            let (stream, serving) = (stream, serving);
            let mut session = serving.session();
            let result = run_session(&stream, &mut session, &serving);
            serving.finish(&session, &result);
        }));
    }

    /// Begins to serve: returns the stream, as converted by `convert`, and its registration with the
    /// server, which has to be dropped before the stream is.
    pub(crate) fn begin<S: AsRawFd>(
        mut self,
        convert: impl FnOnce(TcpStream) -> io::Result<S>,
    ) -> io::Result<(S, Serving)> {
        let stream = self.stream.take().expect("a waiting connection is open");
        self.place.begin();
        let tally = self.server.counters.tally(self.number);

        match convert(stream) {
            Ok(stream) => {
                let socket = stream.as_raw_fd();
                self.server.register(socket, Arc::clone(&self.activity));
                let serving = Serving {
                    server: Arc::clone(&self.server),
                    place: self.place,
                    tally,
                    socket,
                    activity: Arc::clone(&self.activity),
                };
                Ok((stream, serving))
            }
            Err(error) => {
                tally.failed();
                self.place.end();
                Err(error)
            }
        }
    }

    /// The activity counter of the connection.
    pub(crate) fn activity(&self) -> &Arc<Activity> {
        &self.activity
    }

    /// Turns a child's copy of a connection into one that only its parent counts, which sees the child
    /// end however it ends.
    pub(crate) fn counted_by_parent(mut self) -> Self {
        self.place = Place::of_parent();
        self
    }

    /// Closes this process's copy of a connection that a child serves.
    pub(crate) fn leave_to_child(self) {
        self.place.begin();
        self.close_copy();
    }

    /// Closes this process's copy of a connection that another process has and counts.
    pub(crate) fn close_copy(mut self) {
        self.stream = None;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(stream) = self.stream.take() {
            refuse(&stream, self.server.settings.service);
            self.server.counters.refuse(self.place);
        }
    }
}

/// The registration of a connection that is being served.
#[derive(Debug)]
pub(crate) struct Serving {
    server: Arc<Server>,
    place: Place,
    tally: &'static Tally,
    socket: RawFd,
    activity: Arc<Activity>,
}

impl Serving {
    /// A session with the settings of the server.
    pub(crate) fn session(&self) -> Session {
        let settings = &self.server.settings;
        Session::new(settings.service, settings.limits, SystemTime::now())
    }

    /// Counts answered requests. Every model calls it, so it also spends the injected slow-down.
    pub(crate) fn answered(&self, requests: u32) {
        if requests == 0 {
            return;
        }
        let before = self.tally.answered(requests);
        self.activity.answered();

        let settings = &self.server.settings;
        if settings.injects() {
            let all = u64::from(requests) * u64::from(settings.injected_steps);
            let tail = u64::from(Settings::TAIL);
            let slow = (before + u64::from(requests)) / tail - before / tail;
            work::steps(all + slow * u64::from(settings.injected_tail_steps));
        }
    }

    /// Records the start of the work of a request.
    pub(crate) fn work_begins(&self, work: Work) {
        self.activity.work_begins();
        if let (Some(fault), Work::Spin(_)) = (self.server.settings.fault, work) {
            work::fail(fault);
        }
    }

    /// Records the end of the work of a request.
    pub(crate) fn work_ends(&self) {
        self.activity.work_ends();
    }

    /// What follows a step of an event loop: `over` after an error or a panic, which are counted, as is an
    /// end in order.
    pub(crate) fn after_step<T: PartialEq>(
        &self,
        session: &Session,
        stepped: thread::Result<io::Result<T>>,
        over: T,
    ) -> T {
        match stepped {
            Ok(Ok(next)) => {
                if next == over {
                    self.finish(session, &Ok(()));
                }
                next
            }
            Ok(Err(error)) => {
                self.finish(session, &Err(error));
                over
            }
            // Printed by the hook.
            Err(_panic) => {
                self.tally.failed();
                over
            }
        }
    }

    /// Counts the way in which the session ended, once.
    pub(crate) fn finish(&self, session: &Session, result: &io::Result<()>) {
        if self.activity.timed_out() {
            self.tally.timed_out();
        } else if result.is_err() || session.protocol_error() {
            self.tally.failed();
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        if thread::panicking() {
            self.tally.failed();
        }
        self.server.deregister(self.socket);
        self.place.end();
    }
}

/// Carries out the steps of the session up to its close: in the steady state one read and one write
/// per request, and no other system call.
fn run_session(mut stream: &TcpStream, session: &mut Session, serving: &Serving) -> io::Result<()> {
    let mut deadline = None;

    loop {
        match session.step() {
            Step::Receive => {
                if let Some(deadline) = deadline {
                    set_read_deadline(stream, deadline)?;
                }
                let count = retry_interrupted(|| stream.read(session.space()))?;
                session.received(count);
            }

            Step::Work(work) => {
                serving.work_begins(work);
                work::perform(work);
                serving.work_ends();
                session.worked();
            }

            Step::Send => {
                let count = retry_interrupted(|| stream.write(session.output()))?;
                serving.answered(session.sent(count));
            }

            Step::Finish => {
                stream.shutdown(Shutdown::Write)?;
                deadline = Some(Instant::now() + LINGER);
                session.finished();
            }

            Step::Close => return Ok(()),
        }
    }
}

fn retry_interrupted(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

fn set_read_deadline(stream: &TcpStream, deadline: Instant) -> io::Result<()> {
    let left = deadline.saturating_duration_since(Instant::now());
    // A timeout of zero would mean none.
    if left.is_zero() {
        return Err(ErrorKind::TimedOut.into());
    }
    stream.set_read_timeout(Some(left))
}

/// Tells the client that it will not be served. It never blocks: the caller has other connections to
/// accept.
fn refuse(stream: &TcpStream, service: Service) {
    let socket = stream.as_raw_fd();

    if service == Service::Echo {
        // The send buffer of a new connection has room for the frame. If not, the client sees the
        // close only.
        let frame = error_frame(Reason::Overloaded, 0);
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let _ = socket::send(socket, &frame, flags);
    }
    let _ = stream.shutdown(Shutdown::Write);

    // Closing with unread bytes would reset the connection, and the frame could be lost.
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
        let place = server.counters.place(0);
        (client, Connection::new(server, place, stream))
    }

    fn server(service: Service) -> Arc<Server> {
        let settings = Settings {
            service,
            ..Settings::default()
        };
        Arc::new(Server::new(settings).unwrap())
    }

    #[test]
    fn a_dropped_connection_is_refused_with_an_error_frame() {
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
    fn other_services_refuse_by_closing_only() {
        let server = server(Service::Raw);
        let (mut client, connection) = accepted(&server);
        drop(connection);

        let mut reply = Vec::new();
        client.read_to_end(&mut reply).unwrap();
        assert!(reply.is_empty());
    }

    #[test]
    fn a_panic_keeps_the_counters_right() {
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
