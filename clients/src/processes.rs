//! The driver `processes`: a process for each client, forked from this one, each with its own memory
//! and its own histograms, which come back as text and are merged.

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
use crate::plan::Plan;
use crate::report::{ErrorKind, Report};
use crate::{LoadError, blocking};

pub(crate) fn run(plan: &Plan, start: impl FnOnce() -> u64) -> Result<Report, LoadError> {
    let (ready_here, ready_there) = pipe()?;
    let (start_there, start_here) = pipe()?;
    let mut children = Children::default();
    for index in 0..plan.clients {
        let (result_here, result_there) = pipe()?;
        let ends = ChildEnds {
            ready: &ready_there,
            start: &start_there,
            result: result_there,
        };
        let pid = spawn(plan, index, ends).map_err(|source| LoadError::Spawn {
            client: index + 1,
            clients: plan.clients,
            source,
        })?;
        children.0.push(Child {
            pid,
            result: result_here.into(),
            reaped: false,
        });
    }
    drop(ready_there);
    children
        .wait_for_ready(&mut File::from(ready_here))
        .map_err(LoadError::system("cannot wait for the client processes"))?;
    // Each child takes eight bytes; a pipe keeps writes of this size whole.
    let message = start().to_ne_bytes();
    let mut start_here = File::from(start_here);
    for _ in 0..plan.clients {
        start_here
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
            let done = die_with(parent)
                .and_then(|()| child(plan, index, ends))
                .is_ok();
            exit(i32::from(!done))
        }
    }
}

fn child(plan: &Plan, index: u32, ends: ChildEnds<'_>) -> io::Result<()> {
    let shared = Mutex::new(Report::empty(plan.windows.len()));
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
    reaped: bool,
}

/// The client processes; what is still running when this goes is killed.
#[derive(Default)]
struct Children(Vec<Child>);

impl Children {
    /// Waits until every child has said that it is ready, or has died.
    fn wait_for_ready(&mut self, pipe: &mut File) -> io::Result<()> {
        let mut missing = self.0.len();
        let mut said = [0; 4096];
        while missing > 0 {
            let timeout = PollTimeout::from(200u8);
            match poll(&mut [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)], timeout) {
                Ok(0) => missing = missing.saturating_sub(self.reap_dead()),
                Ok(_) => match pipe.read(&mut said)? {
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
        for child in self.0.iter_mut().filter(|child| !child.reaped) {
            let status = waitpid(child.pid, Some(WaitPidFlag::WNOHANG));
            child.reaped = !matches!(status, Ok(WaitStatus::StillAlive));
            dead += usize::from(child.reaped);
        }
        dead
    }

    /// Merges what the children report; one that died without a report counts as an error.
    fn collect(mut self, plan: &Plan) -> Report {
        let mut sum = Report::empty(plan.windows.len());
        let mut text = String::new();
        for (index, child) in (0..).zip(&mut self.0) {
            text.clear();
            let read = child.result.read_to_string(&mut text);
            match serde_json::from_str(&text) {
                Ok(report) if read.is_ok() => sum.add(report),
                _ => {
                    sum.message(ErrorKind::ClientDied, || {
                        format!("client process {} ended without a report", child.pid)
                    });
                    count_dead(&mut sum, plan, index);
                }
            }
            child.reaped = child.reaped || waitpid(child.pid, None).is_ok();
        }
        sum
    }
}

/// A client that died counts with what it was to do: one request failed, the rest were not sent.
fn count_dead(sum: &mut Report, plan: &Plan, index: u32) {
    let Some((window, report)) = plan.windows.last().zip(sum.windows.last_mut()) else {
        return;
    };
    let quota = window
        .requests
        .map_or(1, |_| window.quota(index, plan.active_clients()));
    if quota > 0 {
        report.planned += quota;
        report.unsent += quota - 1;
        *report.errors.entry(ErrorKind::ClientDied).or_default() += 1;
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        for child in self.0.iter().filter(|child| !child.reaped) {
            // It may just have ended by itself.
            let _ = kill(child.pid, Signal::SIGKILL);
            let _ = waitpid(child.pid, None);
        }
    }
}
