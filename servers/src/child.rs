//! What a forked child and its parent owe each other.

use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::MetadataExt as _;
use std::sync::atomic::AtomicI32;
use std::sync::atomic::Ordering::Relaxed;

use nix::errno::Errno;
use nix::libc::{_exit, c_int};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::socket::{Shutdown, shutdown};
use nix::unistd::{Pid, getppid};

/// The socket that [`end_reading`] is about.
static SOCKET: AtomicI32 = AtomicI32::new(-1);

/// Whether this process may fork: after a fork the child has only the thread that forked, and every
/// lock that another one held stays locked in it.
pub(crate) fn is_single_threaded() -> bool {
    // A directory has two links, and one for each directory in it: here, a thread.
    std::fs::metadata("/proc/self/task").map_or(true, |tasks| tasks.nlink() == 3)
}

/// To be called first in a child: it dies with its parent, and SIGTERM and SIGINT make it finish
/// what it has received.
pub(crate) fn enter(parent: Pid, connection: &impl AsRawFd) {
    // It can fail only for a signal that does not exist.
    let _ = set_pdeathsig(Signal::SIGKILL);
    if getppid() != parent {
        // The parent died before it could be followed.
        exit();
    }
    let socket: RawFd = connection.as_raw_fd();
    SOCKET.store(socket, Relaxed);
    let action = SigAction::new(
        SigHandler::Handler(end_reading),
        SaFlags::SA_RESTART,
        SigSet::empty(),
    );
    let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]);
    for signal in &signals {
        #[expect(unsafe_code, reason = "a signal handler can only be set this way")]
        // SAFETY: the handler calls nothing that is not async-signal-safe.
        let _ = unsafe { sigaction(signal, &action) };
    }
    // The parent blocks them, so one that was sent meanwhile arrives now.
    let _ = signals.thread_unblock();
}

/// Leaves a child without running what belongs to the parent: destructors, buffers, exit handlers.
pub(crate) fn exit() -> ! {
    #[expect(unsafe_code, reason = "std::process::exit would run exit handlers")]
    // SAFETY: it does not return, so no state is left to be wrong.
    unsafe {
        _exit(0)
    }
}

extern "C" fn end_reading(_: c_int) {
    let errno = Errno::last_raw();
    let _ = shutdown(SOCKET.load(Relaxed), Shutdown::Read);
    Errno::set_raw(errno);
}
