//! The driver `processes`: a process per client, forked from this one, with its own memory and its own
//! histograms, which are sent back as text and merged.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Mutex;

use echobench_fork::{ForkResult, die_with, exit, fork};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getpid, pipe2};

use crate::client::Client;
use crate::failure::ErrorKind;
use crate::plan::Plan;
use crate::report::LoadReport;
use crate::{LoadError, blocking};

pub(crate) fn run(plan: &Plan, start: impl FnOnce() -> u64) -> Result<LoadReport, LoadError> {
    let (ready_reader, ready_writer) = pipe()?;
    let (start_reader, start_writer) = pipe()?;

    let mut children = Children::default();
    for index in 0..plan.clients {
        let (result_reader, result_writer) = pipe()?;
        let ends = ChildEnds {
            ready: &ready_writer,
            start: &start_reader,
            result: result_writer,
        };
        let pid = spawn(plan, index, ends).map_err(|source| LoadError::Spawn {
            client: index + 1,
            clients: plan.clients,
            source,
        })?;
        children.0.push(Child {
            pid,
            result: result_reader.into(),
            is_reaped: false,
        });
    }

    drop(ready_writer);
    children
        .wait_until_ready(&mut File::from(ready_reader))
        .map_err(LoadError::system("cannot wait for the client processes"))?;

    // Each child reads eight bytes; writes of this size to a pipe are atomic.
    let message = start().to_ne_bytes();
    let mut start_writer = File::from(start_writer);
    for _ in 0..plan.clients {
        start_writer
            .write_all(&message)
            .map_err(LoadError::system("cannot start the client processes"))?;
    }
    Ok(children.collect(plan))
}

fn pipe() -> Result<(OwnedFd, OwnedFd), LoadError> {
    pipe2(OFlag::O_CLOEXEC)
        .map_err(io::Error::from)
        .map_err(LoadError::system("cannot make a pipe to a client process"))
}

/// Ends of the pipes that a child uses.
struct ChildEnds<'a> {
    ready: &'a OwnedFd,
    start: &'a OwnedFd,
    result: OwnedFd,
}

fn spawn(plan: &Plan, index: u32, ends: ChildEnds<'_>) -> io::Result<Pid> {
    let parent = getpid();
    match fork()? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            // A client must not outlive the load process, however that one ends.
            let result = die_with(parent).and_then(|()| run_child(plan, index, ends));
            exit(i32::from(result.is_err()))
        }
    }
}

fn run_child(plan: &Plan, index: u32, ends: ChildEnds<'_>) -> io::Result<()> {
    let shared = Mutex::new(LoadReport::empty(plan.windows.len()));
    let wait_for_start = || {
        let mut start = [0; 8];
        let told = File::from(ends.ready.try_clone().ok()?).write_all(&[1]);
        let heard = File::from(ends.start.try_clone().ok()?).read_exact(&mut start);
        told.and(heard).ok().map(|()| u64::from_ne_bytes(start))
    };
    blocking::run(plan, Client::new(plan, index, &shared), wait_for_start);

    let report = shared.into_inner().expect("one thread");
    let mut result = File::from(ends.result);
    serde_json::to_writer(&mut io::BufWriter::new(&mut result), &report)?;
    Ok(())
}

struct Child {
    pid: Pid,
    result: File,
    is_reaped: bool,
}

/// Client processes; those that still run when this is dropped are killed.
#[derive(Default)]
struct Children(Vec<Child>);

impl Children {
    /// Waits until every child has reported that it is ready, or has died.
    fn wait_until_ready(&mut self, pipe: &mut File) -> io::Result<()> {
        let mut missing = self.0.len();
        let mut ready = [0; 4096];

        while missing > 0 {
            let timeout = PollTimeout::from(200u8);
            match poll(&mut [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)], timeout) {
                Ok(0) => missing = missing.saturating_sub(self.reap_dead()),
                Ok(_) => match pipe.read(&mut ready)? {
                    0 => break,
                    count => missing = missing.saturating_sub(count),
                },
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    fn reap_dead(&mut self) -> usize {
        let mut dead = 0;
        for child in self.0.iter_mut().filter(|child| !child.is_reaped) {
            let status = waitpid(child.pid, Some(WaitPidFlag::WNOHANG));
            child.is_reaped = !matches!(status, Ok(WaitStatus::StillAlive));
            dead += usize::from(child.is_reaped);
        }
        dead
    }

    /// Merges the reports of the children; a child that died without one counts as an error.
    fn collect(mut self, plan: &Plan) -> LoadReport {
        let mut sum = LoadReport::empty(plan.windows.len());
        let mut text = String::new();

        for (index, child) in (0..).zip(&mut self.0) {
            text.clear();
            let read = child.result.read_to_string(&mut text);
            match serde_json::from_str(&text) {
                Ok(report) if read.is_ok() => sum.add(report),
                _ => {
                    sum.add_message(ErrorKind::ClientDied, || {
                        format!("client process {} ended without a report", child.pid)
                    });
                    count_dead(&mut sum, plan, index);
                }
            }
            child.is_reaped = child.is_reaped || waitpid(child.pid, None).is_ok();
        }
        sum
    }
}

/// Counts the requests planned for a client that died: one failed, the others were not sent.
fn count_dead(sum: &mut LoadReport, plan: &Plan, index: u32) {
    let Some((window, report)) = plan.windows.last().zip(sum.windows.last_mut()) else {
        return;
    };
    let quota = window
        .requests
        .map_or(1, |_| window.quota(index, plan.active_clients()));
    if quota > 0 {
        report.planned += quota;
        report.unsent += quota - 1;
        report.errors.add(ErrorKind::ClientDied, 1);
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        for child in self.0.iter().filter(|child| !child.is_reaped) {
            // It may just have ended by itself.
            let _ = kill(child.pid, Signal::SIGKILL);
            let _ = waitpid(child.pid, None);
        }
    }
}
