//! A thread per connection.
//!
//! The thread is started when the connection is accepted, serves it with blocking reads and writes,
//! and ends with it; nobody waits for it. All threads share one memory. How many there can be is a
//! matter of the stacks and of the limits on threads.

use std::io;
use std::thread;

use crate::acceptor::Acceptor;
use crate::settings::Settings;

pub(crate) fn serve(mut acceptor: Acceptor, settings: &Settings) -> io::Result<()> {
    while let Some(connection) = acceptor.accept()? {
        let spawned = thread::Builder::new()
            .stack_size(settings.stack_size)
            .spawn(move || connection.serve());
        // Without a thread the connection is dropped, and thereby refused.
        if let Err(error) = spawned {
            acceptor.complain("cannot start a thread for a connection", &error);
        }
    }
    Ok(())
}
