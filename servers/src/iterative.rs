//! One connection at a time: the baseline that the other models are compared with.
//!
//! One thread accepts a connection, serves it up to its close, and accepts the next; all others wait
//! in the kernel's backlog. The first thread of the process handles signals, and sleeps otherwise.

use std::io;

use crate::acceptor::Acceptor;
use crate::settings::{AcceptMode, ModelOption, Settings};
use crate::{Family, Model};

pub(crate) const MODEL: Model = Model {
    name: "iterative",
    summary: "one connection at a time: the baseline",
    family: Family::Iterative,
    options: &[ModelOption::StackSize],
    accept: &[],
    probe: None,
    serve,
};

fn serve(mut acceptor: Acceptor, _settings: &Settings) -> io::Result<()> {
    let mut incoming = acceptor.incoming(0, AcceptMode::Block)?;
    acceptor.start_worker(1, 1, move || {
        while let Some(connection) = incoming.accept() {
            connection.serve();
        }
    })?;

    acceptor.accept().map(|_end| ())
}
