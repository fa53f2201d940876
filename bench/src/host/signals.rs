//! Signals: interrupts that keep finished work, and handlers that only interrupt system calls.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::{fs, io};

use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction, signal};

/// Whether an interrupt has been caught.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Action of a second interrupt, before it ends the process.
static FORCED_EXIT: Mutex<Option<Box<dyn FnOnce() + Send>>> = Mutex::new(None);

/// Catches SIGINT, SIGTERM and SIGHUP from now on: the first makes every
/// [`ChildProcess::receive`](crate::processes::child::ChildProcess::receive) fail, so that finished work
/// can be kept; a second one ends this process at once, and with it every child process.
pub fn catch_interrupts() -> io::Result<()> {
    let signals: SigSet = interrupts().collect();
    signals.thread_block()?;

    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            while signals.wait().is_ok() {
                if INTERRUPTED.swap(true, Ordering::Relaxed) {
                    let mut action = FORCED_EXIT.lock().unwrap_or_else(PoisonError::into_inner);
                    if let Some(action) = action.take() {
                        action();
                    }
                    std::process::exit(1);
                }
            }
        })?;
    Ok(())
}

/// Sets the action of a second interrupt: the last that this process does, in the thread that waits for
/// signals.
pub fn on_forced_exit(action: impl FnOnce() + Send + 'static) {
    let mut forced_exit = FORCED_EXIT.lock().unwrap_or_else(PoisonError::into_inner);
    *forced_exit = Some(Box::new(action));
}

/// Whether this process was started with the signal ignored.
fn is_ignored(signal: Signal) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << (signal as u32 - 1)) != 0)
}

/// Calls an async-signal-safe function at SIGINT, SIGTERM and, unless it is ignored, SIGHUP. Needs no
/// thread, so that the process may fork.
pub(crate) fn handle_interrupts(handler: extern "C" fn(libc::c_int)) -> nix::Result<()> {
    let action = SigAction::new(
        SigHandler::Handler(handler),
        SaFlags::SA_RESTART,
        SigSet::empty(),
    );
    for interrupt in interrupts() {
        #[expect(unsafe_code, reason = "a signal handler can only be set this way")]
        // SAFETY: the caller's function is async-signal-safe.
        unsafe { sigaction(interrupt, &action) }?;
    }
    Ok(())
}

/// The signals by which a person, a service manager or a closed terminal asks for the end.
fn interrupts() -> impl Iterator<Item = Signal> {
    // `nohup` ignores SIGHUP, and means it.
    let hangup = (!is_ignored(Signal::SIGHUP)).then_some(Signal::SIGHUP);
    [Signal::SIGINT, Signal::SIGTERM].into_iter().chain(hangup)
}

/// Whether [`catch_interrupts`] has caught one.
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Restores the default action of SIGCHLD, which a parent may have left ignored. The kernel would then
/// reap every child itself, and lose its exit status and its CPU time.
pub fn reset_sigchld() {
    #[expect(unsafe_code, reason = "a disposition can only be set this way")]
    // SAFETY: the default disposition is no handler. It fails only for a signal that does not exist.
    let _ = unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) };
}

/// `None` in place of an error once the process has been interrupted: the error is then a consequence.
pub fn unless_interrupted<T>(result: anyhow::Result<T>) -> anyhow::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(_) if interrupted() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Handles a signal from now on by doing nothing. Without `restart`, every blocking system call that it
/// arrives in fails with `EINTR`.
pub(crate) fn ignore_with_handler(signal: Signal, restart: bool) -> nix::Result<()> {
    extern "C" fn nothing(_: libc::c_int) {}
    let flags = if restart {
        SaFlags::SA_RESTART
    } else {
        SaFlags::empty()
    };
    let action = SigAction::new(SigHandler::Handler(nothing), flags, SigSet::empty());
    #[expect(unsafe_code, reason = "a signal handler can only be set this way")]
    // SAFETY: the handler does nothing.
    unsafe { sigaction(signal, &action) }.map(drop)
}
