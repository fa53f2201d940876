//! Standard output and standard error: the only place that writes to them.
//!
//! Data goes to standard output, talk and progress to standard error. A write never panics and
//! never ends a command: the first error of standard output is kept, later data is dropped, and
//! [`finish`] turns it into an exit code after the command has written its files. Errors of standard
//! error are ignored, since there is nowhere left to report them.
//!
//! The standard library opens `/dev/null` in place of a standard stream that was closed when the
//! process started, so writes to such a stream succeed.

use std::fmt;
use std::io::{self, ErrorKind, Write as _};
use std::process::ExitCode;
use std::sync::OnceLock;

/// The error that made standard output lose data.
static LOST: OnceLock<io::Error> = OnceLock::new();

/// Prints data to standard output, like `print!`, and never panics.
#[macro_export]
macro_rules! out {
    ($($arguments:tt)*) => {
        $crate::host::output::write_data(::std::format_args!($($arguments)*))
    };
}

/// Prints a line of data to standard output, like `println!`, and never panics.
#[macro_export]
macro_rules! outln {
    () => {
        $crate::out!("\n")
    };
    ($($arguments:tt)*) => {
        $crate::out!("{}\n", ::std::format_args!($($arguments)*))
    };
}

/// Prints a message to standard error, like `eprint!`, and never panics.
#[macro_export]
macro_rules! note {
    ($($arguments:tt)*) => {
        $crate::host::output::write_note(::std::format_args!($($arguments)*))
    };
}

/// Prints a line of a message to standard error, like `eprintln!`, and never panics.
#[macro_export]
macro_rules! noteln {
    ($($arguments:tt)*) => {
        $crate::note!("{}\n", ::std::format_args!($($arguments)*))
    };
}

/// Writes to standard output; see [`out!`](crate::out).
pub fn write_data(text: fmt::Arguments<'_>) {
    if LOST.get().is_some() {
        return;
    }
    if let Err(error) = io::stdout().lock().write_fmt(text) {
        let _ = LOST.set(error);
    }
}

/// Writes to standard error; see [`note!`](crate::note).
pub fn write_note(text: fmt::Arguments<'_>) {
    // One write for all of it, so that lines of several processes do not mix.
    let text = text.to_string();
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// Flushes standard output at the end of a command. Success becomes failure if data was lost; any
/// other exit code stays, since it says something about the command's own result.
///
/// The loss is reported in one line, unless the reader went away, as in `echobench table DIR | head`.
#[must_use]
pub fn finish(code: ExitCode) -> ExitCode {
    if let Err(error) = io::stdout().lock().flush() {
        let _ = LOST.set(error);
    }

    let Some(error) = LOST.get() else {
        return code;
    };

    if error.kind() != ErrorKind::BrokenPipe {
        noteln!("error: cannot write to standard output: {error}");
    }

    if code == ExitCode::SUCCESS {
        ExitCode::FAILURE
    } else {
        code
    }
}
