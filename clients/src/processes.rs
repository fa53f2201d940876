//! The driver `processes`: a process per client, forked from this one, with its own memory and its own
//! histograms, which are sent back as text and merged.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::Mutex;

use echobench_fork::{ForkResult, die_with, exit, fork};
use nix::fcntl::OFlag;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, getpid, pipe2};

use crate::client::Client;
use crate::failure::ErrorKind;
use crate::plan::Plan;
use crate::rendezvous::Rendezvous;
use crate::report::LoadReport;
use crate::{LoadError, blocking};

pub(crate) fn run(
    plan: &Plan,
    began_ns: u64,
    start: impl FnOnce() -> u64,
) -> Result<LoadReport, LoadError> {
    let mut phases = Phases::new().map_err(LoadError::system(
        "cannot make the pipes to the client processes",
    ))?;

    let mut children = Children::default();
    for (nth, index) in (1..).zip(plan.numbers()) {
        let child =
            spawn(plan, began_ns, index, &mut phases).map_err(|error| LoadError::Spawn {
                client: nth,
                clients: plan.clients,
                error,
            })?;
        children.0.push(child);
    }

    phases
        .lead(start)
        .map_err(LoadError::system("cannot start the client processes"))?;
    Ok(children.collect(plan))
}

/// Pipe that nothing is written to. Its end of file tells that every process has closed the write end, or
/// has died: so no process waits for one that was killed.
struct Latch {
    reader: File,
    writer: Option<OwnedFd>,
}

impl Latch {
    fn new() -> io::Result<Self> {
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC)?;
        Ok(Latch {
            reader: reader.into(),
            writer: Some(writer),
        })
    }

    /// Closes the write end of this process.
    fn release(&mut self) {
        self.writer = None;
    }

    /// Waits until all have closed theirs.
    fn wait(&mut self) -> io::Result<()> {
        loop {
            match self.reader.read(&mut [0]) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Rendezvous of the client processes, led by their parent. A child has copies of all descriptors.
struct Phases {
    /// Released by each child when it is ready.
    ready: Latch,
    /// Released by the parent after it has written the start.
    started: Latch,
    /// Released by each child when it has ended.
    ended: Latch,
    /// Released by the parent when all have ended.
    released: Latch,
    /// Memory that holds the start, eight bytes.
    start: File,
}

impl Phases {
    fn new() -> io::Result<Self> {
        Ok(Phases {
            ready: Latch::new()?,
            started: Latch::new()?,
            ended: Latch::new()?,
            released: Latch::new()?,
            start: memfd_create("start", MFdFlags::MFD_CLOEXEC)?.into(),
        })
    }

    /// Leads the children through all phases; called by the parent.
    fn lead(mut self, start: impl FnOnce() -> u64) -> io::Result<()> {
        self.ready.release();
        self.ended.release();

        self.ready.wait()?;
        self.start.write_all_at(&start().to_ne_bytes(), 0)?;
        self.started.release();

        self.ended.wait()?;
        self.released.release();
        Ok(())
    }

    /// Closes the ends of the parent; called by a child.
    fn follow(&mut self) {
        self.started.release();
        self.released.release();
    }
}

impl Rendezvous for &mut Phases {
    fn wait_for_start(&mut self) -> Option<u64> {
        self.ready.release();
        self.started.wait().ok()?;

        // Without a start the parent has failed.
        let mut start = [0; 8];
        self.start.read_exact_at(&mut start, 0).ok()?;
        Some(u64::from_ne_bytes(start))
    }

    fn wait_for_end(&mut self) {
        self.ended.release();
        // An error means the same as the end: there is nothing to wait for.
        let _ = self.released.wait();
    }
}

fn spawn(plan: &Plan, began_ns: u64, index: u32, phases: &mut Phases) -> io::Result<Child> {
    let (report_reader, report_writer) = pipe2(OFlag::O_CLOEXEC)?;
    let parent = getpid();
    match fork()? {
        ForkResult::Parent { child } => Ok(Child {
            pid: child,
            report: report_reader.into(),
            is_reaped: false,
        }),
        ForkResult::Child => {
            // A client must not outlive the load process, however that one ends.
            let result = die_with(parent)
                .and_then(|()| run_child(plan, began_ns, index, phases, report_writer));
            exit(i32::from(result.is_err()))
        }
    }
}

fn run_child(
    plan: &Plan,
    began_ns: u64,
    index: u32,
    phases: &mut Phases,
    report: OwnedFd,
) -> io::Result<()> {
    phases.follow();
    let shared = Mutex::new(LoadReport::empty(plan.windows.len()));
    blocking::run(plan, began_ns, Client::new(plan, index, &shared), phases);

    let text = serde_json::to_vec(&*shared.lock().expect("one thread"))?;
    File::from(report).write_all(&text)
}

struct Child {
    pid: Pid,
    report: File,
    is_reaped: bool,
}

/// Client processes; those that still run when this is dropped are killed.
#[derive(Default)]
struct Children(Vec<Child>);

impl Children {
    /// Merges the reports of the children; a child that died without one counts as an error.
    fn collect(mut self, plan: &Plan) -> LoadReport {
        let mut sum = LoadReport::empty(plan.windows.len());
        let mut text = Vec::new();

        for (index, child) in plan.numbers().zip(&mut self.0) {
            text.clear();
            let read = child.report.read_to_end(&mut text);
            match serde_json::from_slice(&text) {
                Ok(report) if read.is_ok() => sum.add(report),
                _ => {
                    sum.add_message(ErrorKind::ClientDied, || {
                        format!("client process {} ended without a report", child.pid)
                    });
                    count_dead(&mut sum, plan, index);
                }
            }
            child.is_reaped = waitpid(child.pid, None).is_ok();
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
