//! A completion loop per worker, on `io_uring`.
//!
//! Each thread hands the kernel what is to be done next for all its connections (accept, receive, send,
//! wait) and takes the results of what is done, both in one system call: the kernel reads and writes,
//! where an event loop is told that it may. Every loop has a listener of its own (`SO_REUSEPORT`).
//! Blocking work becomes a timeout of the kernel; spinning work holds up its loop, as any computation
//! would.

use std::collections::VecDeque;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::ptr::null_mut;

use io_uring::squeue::{Entry, Flags};
use io_uring::types::{Fd, Timespec};
use io_uring::{IoUring, opcode};
use nix::errno::Errno;
use nix::libc::{MSG_NOSIGNAL, POLLIN, SOCK_CLOEXEC};

use crate::acceptor::Acceptor;
use crate::completion::{Exchange, Operation};
use crate::connection::Connection;
use crate::incoming::{Incoming, Offer};
use crate::listener::BACK_OFF;
use crate::settings::{AcceptMode, ModelOption, Settings};
use crate::{Family, Model};

/// Entries of the queue to the kernel; a full one costs a system call more.
const SUBMISSIONS: u32 = 256;
/// Entries of the queue from the kernel, which keeps more than that elsewhere.
const COMPLETIONS: u32 = 2048;

/// Keys of operations that are not a connection's: no descriptor has such a number.
const ACCEPT: u64 = u64::MAX;
const STOP: u64 = u64::MAX - 1;
const PAUSE: u64 = u64::MAX - 2;
const CANCEL: u64 = u64::MAX - 3;
/// Added to the key of a connection's operation: the timeout that limits it.
const LIMIT: u64 = 1 << 32;

static PAUSE_TIME: Timespec = Timespec::new().nsec(BACK_OFF.subsec_nanos());

pub(crate) const MODEL: Model = Model {
    name: "uring",
    summary: "a completion loop per worker, on io_uring",
    family: Family::EventLoops,
    options: &[
        ModelOption::Workers,
        ModelOption::Accept,
        ModelOption::StackSize,
    ],
    accept: &[AcceptMode::Reuseport, AcceptMode::Block],
    probe: Some(probe),
    serve,
};

/// Fails where the kernel, or a sandbox around this process, has no `io_uring` for it.
fn probe() -> Result<(), String> {
    let reason = match IoUring::new(1) {
        Ok(ring) if ring.params().is_feature_fast_poll() => return Ok(()),
        Ok(_) => "io_uring of this kernel is too old: Linux 5.7 is needed".to_owned(),
        Err(error) => match Errno::from_raw(error.raw_os_error().unwrap_or(0)) {
            Errno::EPERM | Errno::EACCES | Errno::ENOSYS => {
                format!("the kernel or a sandbox forbids io_uring: {error}")
            }
            // Memory or descriptors may be there in a moment; the start of the server says otherwise.
            _ => return Ok(()),
        },
    };
    Err(reason)
}

fn serve(mut acceptor: Acceptor, settings: &Settings) -> io::Result<()> {
    let workers = settings.event_workers()?;
    let mode = settings.accept.unwrap_or(MODEL.accept[0]);

    for number in 1..=workers {
        let completion_loop = CompletionLoop::new(acceptor.incoming(number, mode)?)?;
        acceptor.start_worker(number, workers, || completion_loop.run())?;
    }
    acceptor.accept().map(|_end| ())
}

/// The completion loop of one worker.
struct CompletionLoop {
    ring: IoUring,
    /// Keys and results of operations that are done.
    done: VecDeque<(u64, i32)>,
    /// `None` once the drain has emptied the backlog.
    incoming: Option<Incoming>,
    accepting: bool,
    stopping: bool,
    /// Exchanges by their descriptors. If the loop panics they are leaked: the kernel may be reading
    /// from or writing to their buffers.
    exchanges: Vec<Option<ManuallyDrop<Box<Submitted>>>>,
    open: usize,
}

/// An exchange with what the kernel knows of it.
struct Submitted {
    exchange: Exchange,
    time: Timespec,
    /// Completions to come: that of the operation, and that of its limit.
    awaited: u8,
    /// The result of the operation.
    result: i32,
}

impl CompletionLoop {
    fn new(incoming: Incoming) -> io::Result<Self> {
        Ok(CompletionLoop {
            ring: new_ring()?,
            done: VecDeque::new(),
            incoming: Some(incoming),
            accepting: false,
            stopping: false,
            exchanges: Vec::new(),
            open: 0,
        })
    }

    fn run(mut self) {
        // Fails for a ring that was not made disabled, which needs no enabling.
        let _ = self.ring.submitter().register_enable_rings();
        self.accept();
        self.await_stop();

        while self.incoming.is_some() || self.open > 0 {
            self.enter(1);
            while let Some((key, result)) = self.done.pop_front() {
                match key {
                    ACCEPT => self.accepted(result),
                    STOP => self.stop(),
                    PAUSE => self.accept(),
                    CANCEL => {}
                    key => self.proceed(key, result),
                }
            }
        }
    }

    /// Asks for one connection. A request for any number would keep to the limit on open files that
    /// was in force when it was made.
    fn accept(&mut self) {
        let Some(incoming) = self.incoming.as_ref().filter(|_| !self.stopping) else {
            return;
        };
        let listener = Fd(incoming.as_raw_fd());
        let accept = opcode::Accept::new(listener, null_mut(), null_mut()).flags(SOCK_CLOEXEC);
        self.accepting = true;
        self.push(&[accept.build().user_data(ACCEPT)]);
    }

    fn accepted(&mut self, result: i32) {
        self.accepting = false;
        let Some(incoming) = &self.incoming else {
            return;
        };

        #[expect(unsafe_code, reason = "io_uring returns a bare number")]
        // SAFETY: the descriptor is new, and nothing else owns it.
        let socket = result_of(result).map(|_| unsafe { OwnedFd::from_raw_fd(result) });
        match incoming.take(socket) {
            Offer::Connection(connection) => self.begin(connection),
            Offer::Exhausted if !self.stopping => {
                let pause = opcode::Timeout::new(&raw const PAUSE_TIME).build();
                return self.push(&[pause.user_data(PAUSE)]);
            }
            _ => {}
        }

        if self.stopping {
            self.drain_backlog();
        } else {
            self.accept();
        }
    }

    fn await_stop(&mut self) {
        if let Some(incoming) = &self.incoming {
            let event = Fd(incoming.stop_event().as_raw_fd());
            let poll = opcode::PollAdd::new(event, u32::from(POLLIN.cast_unsigned()));
            self.push(&[poll.build().user_data(STOP)]);
        }
    }

    /// Begins the drain: from here on nothing waits for a connection.
    fn stop(&mut self) {
        self.stopping = true;
        if self.accepting {
            let cancel = opcode::AsyncCancel::new(ACCEPT).build();
            self.push(&[cancel.user_data(CANCEL)]);
        } else {
            self.drain_backlog();
        }
    }

    /// Accepts what is in the backlog.
    fn drain_backlog(&mut self) {
        while let Some(incoming) = &mut self.incoming {
            match incoming.offer_last() {
                Offer::Connection(connection) => self.begin(connection),
                Offer::Refused => {}
                // The event may come before the drain begins.
                Offer::Nothing | Offer::Exhausted => return self.await_stop(),
                Offer::End => self.incoming = None,
            }
        }
    }

    fn begin(&mut self, connection: Connection) {
        let Some(mut exchange) = Exchange::begin(connection) else {
            return;
        };
        let first = exchange.start();
        let index = index(&exchange);
        if self.exchanges.len() <= index {
            self.exchanges.resize_with(index + 1, || None);
        }
        self.open += 1;
        self.submit(
            Box::new(Submitted {
                exchange,
                time: Timespec::new(),
                awaited: 0,
                result: 0,
            }),
            first,
        );
    }

    /// Continues an exchange once the kernel is done with its operation, and with the limit of that.
    fn proceed(&mut self, key: u64, result: i32) {
        let index = usize::try_from(key & !LIMIT).expect("a key is a descriptor");
        let submitted = self.exchanges[index].as_mut().expect("an operation of it");
        if key & LIMIT == 0 {
            submitted.result = result;
        }
        submitted.awaited -= 1;

        if submitted.awaited == 0
            && let Some(submitted) = self.exchanges[index].take()
        {
            let mut submitted = ManuallyDrop::into_inner(submitted);
            let next = submitted.exchange.proceed(result_of(submitted.result));
            self.submit(submitted, next);
        }
    }

    /// Hands the next operation of an exchange to the kernel.
    fn submit(&mut self, mut submitted: Box<Submitted>, operation: Operation) {
        let Submitted { exchange, time, .. } = &mut *submitted;
        let socket = Fd(exchange.as_raw_fd());
        let index = index(exchange);
        let key = index as u64;

        let (entry, limit) = match operation {
            Operation::Receive => {
                let space = exchange.space();
                let receive = opcode::Recv::new(socket, space.as_mut_ptr(), length(space));
                (receive.build(), exchange.time_left())
            }
            Operation::Send => {
                let output = exchange.output();
                let send = opcode::Send::new(socket, output.as_ptr(), length(output));
                (send.flags(MSG_NOSIGNAL).build(), None)
            }
            Operation::Wait(work) => {
                *time = work.into();
                (opcode::Timeout::new(time).build(), None)
            }
            Operation::Over => {
                self.open -= 1;
                return;
            }
        };

        let entry = entry.user_data(key);
        if let Some(limit) = limit {
            *time = limit.into();
            let limit = opcode::LinkTimeout::new(time).build();
            submitted.awaited = 2;
            self.exchanges[index] = Some(ManuallyDrop::new(submitted));
            // Together: the second one limits the one before it.
            self.push(&[entry.flags(Flags::IO_LINK), limit.user_data(key | LIMIT)]);
        } else {
            submitted.awaited = 1;
            self.exchanges[index] = Some(ManuallyDrop::new(submitted));
            self.push(&[entry]);
        }
    }

    /// Adds entries for the next system call; all of them, or none before the next one.
    fn push(&mut self, entries: &[Entry]) {
        #[expect(unsafe_code, reason = "the kernel uses memory that entries point to")]
        // SAFETY: an entry of a connection points to the buffer or the time of a `Submitted`, which is
        // boxed, and neither changed nor freed before all completions have come: `proceed`. The others
        // point to a static or to nothing.
        while unsafe { self.ring.submission().push_multiple(entries) }.is_err() {
            self.enter(0);
        }
    }

    /// Hands the entries to the kernel, and waits for so many completions.
    fn enter(&mut self, completions: usize) {
        if let Err(error) = self.ring.submit_and_wait(completions) {
            match Errno::from_raw(error.raw_os_error().unwrap_or(0)) {
                // A signal, or a kernel that first wants its completions to be taken.
                Errno::EINTR | Errno::EBUSY | Errno::EAGAIN => {}
                _ => panic!("io_uring_enter: {error}"),
            }
        }
        let completions = self.ring.completion();
        self.done
            .extend(completions.map(|entry| (entry.user_data(), entry.result())));
    }
}

/// A ring that its thread has to enable. Newer kernels are told that no other thread uses it, and that
/// completions are wanted when the thread enters the kernel, not as an interruption of its work.
fn new_ring() -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    builder.setup_cqsize(COMPLETIONS).setup_r_disabled();
    let older = builder.clone();
    builder
        .setup_submit_all()
        .setup_single_issuer()
        .setup_defer_taskrun();

    match builder.build(SUBMISSIONS) {
        Err(error) if error.raw_os_error() == Some(Errno::EINVAL as i32) => {
            older.build(SUBMISSIONS)
        }
        made => made,
    }
}

fn result_of(result: i32) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result))
}

fn index(exchange: &Exchange) -> usize {
    usize::try_from(exchange.as_raw_fd()).expect("an open descriptor is not negative")
}

fn length(buffer: &[u8]) -> u32 {
    u32::try_from(buffer.len()).unwrap_or(u32::MAX)
}
