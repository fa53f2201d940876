//! Omission of the signal stacks that the standard library gives to every thread.
//!
//! At its start the standard library handles SIGSEGV and SIGBUS to report stack overflows, and from
//! then on gives every thread a signal stack for these handlers: 23 system calls per thread instead
//! of 13. A thread per connection would pay for that, and not for threads. Signals that are ignored at
//! the start are left alone, and then no thread gets a signal stack. An overflow still ends the
//! process: the kernel does not ignore it, it only goes without the message.

use std::ffi::c_int;
use std::fs;
use std::mem::MaybeUninit;
use std::ptr;

use nix::libc;

/// The option of `serve thread` that keeps the signal stacks, to measure their cost.
const KEEP: &[u8] = b"--signal-stack";
const SIGNALS: [c_int; 2] = [libc::SIGSEGV, libc::SIGBUS];

/// Makes the standard library start without its handlers. To be called before `main`, as an entry of
/// `.init_array`.
pub extern "C" fn omit_signal_stacks() {
    // Not the arguments that glibc passes to `.init_array`: musl passes none.
    let words = fs::read("/proc/self/cmdline").unwrap_or_default();
    if words.split(|&byte| byte == 0).any(|word| word == KEEP) {
        return;
    }

    for signal in SIGNALS {
        #[expect(unsafe_code, reason = "a disposition can only be set this way")]
        // SAFETY: to ignore a signal takes no handler.
        unsafe {
            libc::signal(signal, libc::SIG_IGN)
        };
    }
}

/// Restores the default action of the ignored signals, which child processes would inherit. To be
/// called in `main`.
#[expect(unsafe_code, reason = "a disposition can only be set this way")]
pub fn restore_signals() {
    for signal in SIGNALS {
        let mut action = MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: the pointers are null or point to an action, for which zeroes are valid.
        unsafe {
            libc::sigaction(signal, ptr::null(), action.as_mut_ptr());
            if action.assume_init().sa_sigaction == libc::SIG_IGN {
                libc::signal(signal, libc::SIG_DFL);
            }
        }
    }
}
