//! fork(2), for processes with one thread only.
//!
//! After a fork the child has only the thread that forked, and every lock that another thread held
//! stays locked in it. [`fork`] therefore checks first, and is safe to call.
//!
//! ```
//! use echobench_fork::{ForkResult, exit, fork};
//! use nix::sys::wait::{WaitStatus, waitpid};
//!
//! # fn main() -> std::io::Result<()> {
//! match fork()? {
//!     ForkResult::Child => exit(7),
//!     ForkResult::Parent { child } => {
//!         assert_eq!(waitpid(child, None)?, WaitStatus::Exited(child, 7));
//!     }
//! }
//! # Ok(())
//! # }
//! ```

use std::io;
use std::os::unix::fs::MetadataExt as _;

pub use nix::unistd::ForkResult;

use nix::errno::Errno;
use nix::libc::_exit;
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{self, Pid, getppid};

/// Forks this process, or fails if it has, or may have, more than one thread.
pub fn fork() -> io::Result<ForkResult> {
    if !is_single_threaded()? {
        return Err(io::Error::other(
            "a process with several threads cannot fork",
        ));
    }

    #[expect(
        unsafe_code,
        reason = "fork is unsafe in a process with several threads"
    )]
    // SAFETY: there is no other thread that could hold a lock or be half-way through a change.
    let result = unsafe { unistd::fork() };
    result.map_err(Into::into)
}

/// Whether this process has one thread; an error if that cannot be determined.
pub fn is_single_threaded() -> io::Result<bool> {
    // A process with one thread shares its memory with nobody, so this succeeds without effect. It
    // costs a tenth of a microsecond, and needs no /proc.
    if unshare(CloneFlags::CLONE_VM).is_ok() {
        return Ok(true);
    }

    // Containers may forbid the call, whatever its arguments. A directory has two links, and one
    // for each directory in it: here, a thread.
    let tasks = std::fs::metadata("/proc/self/task").map_err(|error| {
        let message = format!("cannot count the threads of this process: {error}");
        io::Error::new(error.kind(), message)
    })?;
    Ok(tasks.nlink() == 3)
}

/// Binds the life of a forked child to that of `parent`: SIGKILL follows the parent's death. Fails
/// if the parent has died already. Async-signal-safe.
pub fn die_with(parent: Pid) -> io::Result<()> {
    set_pdeathsig(Signal::SIGKILL)?;

    // A parent that died before the call above sends no signal.
    if getppid() != parent {
        return Err(Errno::ESRCH.into());
    }
    Ok(())
}

/// Ends a forked child without running what belongs to its parent: destructors, buffers, exit
/// handlers.
pub fn exit(code: i32) -> ! {
    #[expect(unsafe_code, reason = "std::process::exit would run exit handlers")]
    // SAFETY: it does not return, so no state is left that could be wrong.
    unsafe {
        _exit(code)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn a_process_with_several_threads_does_not_fork() {
        thread::spawn(|| {
            assert!(!is_single_threaded().unwrap());
            let error = fork().unwrap_err();
            assert_eq!(
                error.to_string(),
                "a process with several threads cannot fork"
            );
        })
        .join()
        .unwrap();
    }
}
