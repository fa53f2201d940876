//! Round trips of a message to another thread or process, from a queue in memory to TCP.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc as standard;
use std::thread;

use anyhow::ensure;
use crossbeam::channel::bounded;
use echobench_fork::{ForkResult, die_with, exit, fork};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc::O_NONBLOCK;
use nix::sys::stat::Mode;
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, getpid, mkdtemp, mkfifo, pipe2};

use super::start::each;
use super::{Between, Perform};

/// Of the length of the payload in the built-in scenarios.
type Message = [u8; 64];
const MESSAGE: Message = [7; 64];

pub(super) fn channel() -> anyhow::Result<Perform> {
    let (send, take) = bounded::<Message>(1);
    let (reply, receive) = bounded(1);
    thread::Builder::new().spawn(move || {
        // Ends when the other end is dropped.
        take.into_iter().try_for_each(|message| reply.send(message))
    })?;
    each(move || {
        send.send(MESSAGE)?;
        check(&receive.recv()?)
    })
}

pub(super) fn mpsc() -> anyhow::Result<Perform> {
    let (send, take) = standard::channel::<Message>();
    let (reply, receive) = standard::channel();
    thread::Builder::new()
        .spawn(move || take.into_iter().try_for_each(|message| reply.send(message)))?;
    each(move || {
        send.send(MESSAGE)?;
        check(&receive.recv()?)
    })
}

fn check(reply: &Message) -> anyhow::Result<()> {
    ensure!(reply == &MESSAGE, "the message came back changed");
    Ok(())
}

/// One end of a bidirectional stream.
pub(super) struct End {
    from: File,
    to: File,
}

/// The requesting end and the answering end.
pub(super) type Ends = (End, End);

impl End {
    fn new(from: impl Into<OwnedFd>, to: impl Into<OwnedFd>) -> Self {
        End {
            from: File::from(from.into()),
            to: File::from(to.into()),
        }
    }

    /// Sends every message back, until the other end closes.
    fn answer(mut self) -> io::Result<()> {
        let mut message = [0; size_of::<Message>()];
        loop {
            match self.from.read_exact(&mut message) {
                Ok(()) => self.to.write_all(&message)?,
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }
}

pub(super) fn pipes() -> io::Result<Ends> {
    let (take, send) = pipe2(OFlag::O_CLOEXEC)?;
    let (receive, reply) = pipe2(OFlag::O_CLOEXEC)?;
    Ok((End::new(receive, send), End::new(take, reply)))
}

pub(super) fn fifos() -> io::Result<Ends> {
    let folder = mkdtemp(&std::env::temp_dir().join("echobench-XXXXXX"))?;
    let both =
        fifo(&folder.join("there")).and_then(|there| Ok((there, fifo(&folder.join("back"))?)));
    // Open FIFOs do not need their names.
    fs::remove_dir_all(&folder)?;

    let ((take, send), (receive, reply)) = both?;
    Ok((End::new(receive, send), End::new(take, reply)))
}

/// The reading and the writing end of a new named pipe.
fn fifo(path: &Path) -> io::Result<(File, File)> {
    mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR)?;
    // Without O_NONBLOCK, opening it for reading waits for a writer.
    let reader = OpenOptions::new()
        .read(true)
        .custom_flags(O_NONBLOCK)
        .open(path)?;
    let writer = OpenOptions::new().write(true).open(path)?;
    fcntl(&reader, FcntlArg::F_SETFL(OFlag::empty()))?;
    Ok((reader, writer))
}

pub(super) fn unix() -> io::Result<Ends> {
    let (here, there) = UnixStream::pair()?;
    Ok((
        End::new(here.try_clone()?, here),
        End::new(there.try_clone()?, there),
    ))
}

pub(super) fn tcp() -> io::Result<Ends> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let here = TcpStream::connect(listener.local_addr()?)?;
    let (there, _) = listener.accept()?;
    here.set_nodelay(true)?;
    there.set_nodelay(true)?;
    Ok((
        End::new(here.try_clone()?, here),
        End::new(there.try_clone()?, there),
    ))
}

/// The requesting end of a stream, and the process at the other end, if it is one.
struct Stream {
    // Closed first, so that the other end notices.
    end: End,
    _process: Option<Forked>,
}

pub(super) fn stream(ends: Ends, between: Between) -> anyhow::Result<Perform> {
    let mut stream = match between {
        Between::Threads => {
            let (end, other) = ends;
            thread::Builder::new().spawn(move || other.answer())?;
            Stream {
                end,
                _process: None,
            }
        }
        Between::Processes => forked(ends)?,
    };
    each(move || stream.exchange())
}

impl Stream {
    fn exchange(&mut self) -> anyhow::Result<()> {
        let mut reply = [0; size_of::<Message>()];
        self.end.to.write_all(&MESSAGE)?;
        self.end.from.read_exact(&mut reply)?;
        check(&reply)
    }
}

/// A child process, reaped when this is dropped.
struct Forked(Pid);

fn forked((end, other): Ends) -> anyhow::Result<Stream> {
    let parent = getpid();

    match fork()? {
        ForkResult::Child => {
            drop(end);
            let done = die_with(parent).and_then(|()| other.answer()).is_ok();
            exit(i32::from(!done))
        }
        ForkResult::Parent { child } => Ok(Stream {
            end,
            _process: Some(Forked(child)),
        }),
    }
}

impl Drop for Forked {
    fn drop(&mut self) {
        let _ = waitpid(self.0, None);
    }
}
