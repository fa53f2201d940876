//! A fixed number of worker processes, forked beforehand.
//!
//! Each process serves one connection at a time, with blocking reads and writes, and accepts the next
//! one itself, or has it passed from the parent; the way is `--accept`. A process that dies is
//! replaced: the first start of a worker and its replacement are the same step.

use std::io;

use echobench_fork::{ForkResult, exit, fork};
use nix::unistd::getpid;

use crate::acceptor::Acceptor;
use crate::child;
use crate::settings::{AcceptMode, ModelOption, Settings};
use crate::{Family, Model};

pub(crate) const MODEL: Model = Model {
    name: "prefork",
    summary: "a fixed number of processes, each with one connection at a time",
    family: Family::ProcessPool,
    options: &[ModelOption::Workers, ModelOption::Accept],
    accept: AcceptMode::ALL,
    probe: None,
    serve,
};

fn serve(mut acceptor: Acceptor, settings: &Settings) -> io::Result<()> {
    let workers = settings.blocking_workers();
    let mode = settings.accept.unwrap_or(MODEL.accept[0]);
    acceptor.share_listener(workers, mode)?;

    let parent = getpid();
    while let Some(number) = acceptor.vacancy(workers)? {
        match fork() {
            Ok(ForkResult::Child) => {
                child::enter(parent, settings.idle_timeout);
                if mode == AcceptMode::Pass {
                    let receiver = acceptor.into_receiver(number);
                    while let Some(connection) = receiver.receive() {
                        child::serve(connection);
                    }
                    exit(0);
                }

                let mut incoming = acceptor.incoming(number, mode)?;
                drop(acceptor);
                while let Some(connection) = incoming.accept() {
                    child::serve(connection);
                }
                exit(0);
            }
            Ok(ForkResult::Parent { child }) => acceptor.worker_started(child, number),
            Err(error) => acceptor.worker_failed(number, &error)?,
        }
    }
    Ok(())
}
