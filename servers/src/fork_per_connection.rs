//! A process per connection.
//!
//! The child is forked when the connection is accepted, serves it with blocking reads and writes,
//! and exits. It has a copy of the parent's memory and descriptors: it closes those that are not
//! its own, as the parent closes the connection. The acceptor collects the children as they exit.

use std::io;

use echobench_fork::{ForkResult, exit, fork, is_single_threaded};
use nix::unistd::getpid;

use crate::acceptor::Acceptor;
use crate::child;
use crate::settings::Settings;
use crate::{Family, Model};

pub(crate) const MODEL: Model = Model {
    name: "fork",
    summary: "a process per connection",
    family: Family::Processes,
    options: &[],
    accept: &[],
    probe: None,
    serve,
};

fn serve(mut acceptor: Acceptor, settings: &Settings) -> io::Result<()> {
    if !is_single_threaded()? {
        return Err(io::Error::other(
            "a process of several threads cannot fork; give the server a process of its own: echobench serve fork",
        ));
    }

    let parent = getpid();
    while let Some(connection) = acceptor.accept()? {
        match fork() {
            Ok(ForkResult::Child) => {
                child::enter(parent, settings.idle_timeout);
                drop(acceptor);
                child::serve(connection.counted_by_parent());
                exit(0);
            }
            Ok(ForkResult::Parent { child }) => acceptor.child_started(child, connection),
            // The connection is dropped, and thereby refused.
            Err(error) => acceptor.warn_start_failed("cannot fork for a connection", &error),
        }
    }
    Ok(())
}
