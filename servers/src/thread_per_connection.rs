//! A thread per connection.
//!
//! The thread is started when the connection is accepted, serves it with blocking reads and writes,
//! and ends with it; it is never joined. All threads share one address space. Stacks and the limits on
//! threads bound their number.

use std::io;
use std::thread;

use crate::acceptor::Acceptor;
use crate::settings::{ModelOption, Settings};
use crate::{Family, Model};

pub(crate) const MODEL: Model = Model {
    name: "thread",
    summary: "a thread per connection",
    family: Family::Threads,
    options: &[ModelOption::StackSize, ModelOption::SignalStack],
    accept: &[],
    probe: None,
    serve,
};

fn serve(mut acceptor: Acceptor, settings: &Settings) -> io::Result<()> {
    while let Some(connection) = acceptor.accept()? {
        let spawned = thread::Builder::new()
            .stack_size(settings.stack_size())
            .spawn(move || connection.serve());

        // Without a thread the connection is dropped, and thereby refused.
        if let Err(error) = spawned {
            acceptor.warn_start_failed("cannot start a thread for a connection", &error);
        }
    }
    Ok(())
}
