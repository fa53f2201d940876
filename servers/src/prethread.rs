//! A fixed number of worker threads, started beforehand.
//!
//! Each thread serves one connection at a time, with blocking reads and writes, and accepts the next
//! one itself; how they take turns is `--accept`. The first thread of the process only handles signals.

use std::io;

use crate::acceptor::Acceptor;
use crate::settings::{AcceptMode, ModelOption, Settings};
use crate::{Family, Model};

pub(crate) const MODEL: Model = Model {
    name: "prethread",
    summary: "a fixed number of threads, each accepting one connection at a time",
    family: Family::Pool,
    options: &[
        ModelOption::Workers,
        ModelOption::Accept,
        ModelOption::StackSize,
    ],
    accept: &[
        AcceptMode::Block,
        AcceptMode::Poll,
        AcceptMode::Exclusive,
        AcceptMode::FileLock,
        AcceptMode::Mutex,
        AcceptMode::Reuseport,
    ],
    probe: None,
    serve,
};

fn serve(mut acceptor: Acceptor, settings: &Settings) -> io::Result<()> {
    let workers = settings.blocking_workers();
    let mode = settings.accept.unwrap_or(MODEL.accept[0]);

    for number in 1..=workers {
        let mut incoming = acceptor.incoming(number, mode)?;
        acceptor.start_worker(number, workers, move || {
            while let Some(connection) = incoming.accept() {
                connection.serve();
            }
        })?;
    }

    acceptor.accept().map(|_end| ())
}
