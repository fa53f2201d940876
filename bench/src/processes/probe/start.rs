//! Costs of handing work to a new thread, process or task, or to threads that wait for work.

use std::ffi::CString;
use std::os::unix::ffi::OsStringExt as _;
use std::thread;

use anyhow::{Context, ensure};
use crossbeam::channel::{bounded, unbounded};
use echobench_fork::{ForkResult, exit};
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, posix_spawn};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use rayon::ThreadPoolBuilder;
use tokio::runtime::{Builder, Runtime};

use super::Perform;
use crate::host::cpus::allowed_cpus;

/// An operation that calls a function once per execution.
#[expect(
    clippy::unnecessary_wraps,
    reason = "the last expression of functions that prepare an operation"
)]
pub(super) fn each(
    mut once: impl FnMut() -> anyhow::Result<()> + 'static,
) -> anyhow::Result<Perform> {
    Ok(Box::new(move |count| (0..count).try_for_each(|_| once())))
}

pub(super) fn thread() -> anyhow::Result<Perform> {
    each(|| {
        let thread = thread::Builder::new().spawn(|| {})?;
        thread.join().expect("it does nothing");
        Ok(())
    })
}

pub(super) fn scoped() -> anyhow::Result<Perform> {
    each(|| {
        thread::scope(|scope| {
            let thread = thread::Builder::new().spawn_scoped(scope, || {});
            thread.map(drop).map_err(Into::into)
        })
    })
}

pub(super) fn fork() -> anyhow::Result<Perform> {
    each(|| {
        let child = match echobench_fork::fork()? {
            ForkResult::Child => exit(0),
            ForkResult::Parent { child } => child,
        };
        reap(child)
    })
}

/// Starts this executable, as a server does that starts a process for its work, rather than some small
/// program of the system: a part of the cost grows with the size of the executable.
pub(super) fn spawn() -> anyhow::Result<Perform> {
    let executable = std::env::current_exe().context("cannot find this executable")?;
    let path = CString::new(executable.into_os_string().into_vec())?;
    let arguments = [path.clone(), c"nothing".to_owned()];
    let environment: [CString; 0] = [];

    let actions = PosixSpawnFileActions::init()?;
    let attributes = PosixSpawnAttr::init()?;

    each(move || {
        reap(posix_spawn(
            path.as_c_str(),
            &actions,
            &attributes,
            &arguments,
            &environment,
        )?)
    })
}

fn reap(child: Pid) -> anyhow::Result<()> {
    let status = waitpid(child, None)?;
    ensure!(
        matches!(status, WaitStatus::Exited(_, 0)),
        "the process did not exit with code 0: {status:?}"
    );
    Ok(())
}

pub(super) fn task_current_thread() -> anyhow::Result<Perform> {
    Ok(tasks(Builder::new_current_thread().build()?))
}

pub(super) fn task_multi_thread() -> anyhow::Result<Perform> {
    let workers = allowed_cpus()?.len();
    let runtime = Builder::new_multi_thread().worker_threads(workers).build();
    Ok(tasks(runtime?))
}

/// Tasks spawned from outside the runtime's workers, as the model `async` does when it accepts.
fn tasks(runtime: Runtime) -> Perform {
    Box::new(move |count| {
        runtime.block_on(async {
            for _ in 0..count {
                tokio::spawn(async {}).await?;
            }
            Ok(())
        })
    })
}

pub(super) fn rayon() -> anyhow::Result<Perform> {
    let workers = allowed_cpus()?.len();
    let pool = ThreadPoolBuilder::new().num_threads(workers).build()?;

    let (done, wait) = bounded(1);
    each(move || {
        let done = done.clone();
        pool.spawn(move || done.send(()).expect("the probe waits"));
        wait.recv().map_err(Into::into)
    })
}

pub(super) fn pool() -> anyhow::Result<Perform> {
    type Job = Box<dyn FnOnce() + Send>;
    let (jobs, work) = unbounded::<Job>();
    for _ in allowed_cpus()? {
        let work = work.clone();
        thread::Builder::new().spawn(move || work.into_iter().for_each(|job| job()))?;
    }

    let (done, wait) = bounded(1);
    each(move || {
        let done = done.clone();
        let job = Box::new(move || done.send(()).expect("the probe waits"));
        jobs.send(job).ok().context("the workers are gone")?;
        wait.recv().map_err(Into::into)
    })
}
