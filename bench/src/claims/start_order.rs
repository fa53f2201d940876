//! Process of clients that start one after another, connect at once and send one frame; it reports in
//! which order they were answered.
//!
//! The clients are threads or children of a process that has no other threads, and may therefore fork.

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use echobench_clients::{Driver, clock};
use echobench_fork::{ForkResult, die_with, exit, fork};
use echobench_protocol::Work;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, getpid, pipe};

use super::lab;
use crate::host::threads;
use crate::processes::child::{ChildProcess, die_with_parent};
use crate::processes::messages::send;

/// Time limit of all runs: they hang if they take longer.
const LIMIT: Duration = Duration::from_secs(60);

/// Options of `echobench start-order`.
pub(crate) struct StartOrderOptions {
    /// The server.
    pub(crate) target: SocketAddr,
    /// Clients of each run.
    pub(crate) clients: u32,
    /// Runs, one after the other.
    pub(crate) runs: u32,
    /// Kind of client: threads or processes.
    pub(crate) driver: Driver,
}

/// Makes all runs and reports the order of replies of each.
pub(crate) fn run(options: &StartOrderOptions) -> anyhow::Result<ExitCode> {
    die_with_parent()?;

    let mut orders = Vec::new();
    for _ in 0..options.runs {
        let answered_ns = match options.driver {
            Driver::Processes => run_processes(options.target, options.clients)?,
            Driver::Threads | Driver::Tasks => run_threads(options.target, options.clients)?,
        };
        orders.push(order(&answered_ns));
    }

    send(&orders)?;
    Ok(ExitCode::SUCCESS)
}

/// Orders of replies of all runs, made in a process of its own. To be called on the main thread.
pub(super) fn service_orders(
    target: SocketAddr,
    driver: Driver,
    clients: u32,
    runs: u32,
) -> anyhow::Result<Vec<Vec<u32>>> {
    let arguments = [
        "start-order".to_owned(),
        target.to_string(),
        format!("--clients={clients}"),
        format!("--runs={runs}"),
        format!("--driver={driver}"),
    ];
    let agent = ChildProcess::spawn("the clients in start order", &arguments)?;
    agent.receive(Instant::now() + LIMIT)
}

/// The clients in the order in which they were answered.
fn order(answered_ns: &[u64]) -> Vec<u32> {
    let mut order: Vec<u32> = (0..).take(answered_ns.len()).collect();
    order.sort_by_key(|&client| answered_ns[client as usize]);
    order
}

fn run_threads(target: SocketAddr, clients: u32) -> anyhow::Result<Vec<u64>> {
    let started: anyhow::Result<Vec<_>> = (0..clients)
        .map(|_| threads::spawn("send a request", move || request(target)))
        .collect();

    started?
        .into_iter()
        .map(|client| client.join().expect("a client does not panic"))
        .collect()
}

fn run_processes(target: SocketAddr, clients: u32) -> anyhow::Result<Vec<u64>> {
    let parent = getpid();
    let (reader, writer) = pipe()?;
    let mut children: Vec<Pid> = Vec::new();
    for number in 0..clients {
        match fork()? {
            ForkResult::Parent { child } => children.push(child),
            ForkResult::Child => {
                let answered = die_with(parent).is_ok().then(|| request(target));
                let reported = answered.and_then(Result::ok).is_some_and(|ns| {
                    let mut message = [0; 12];
                    message[..4].copy_from_slice(&number.to_ne_bytes());
                    message[4..].copy_from_slice(&ns.to_ne_bytes());
                    // The kernel never mixes messages of up to PIPE_BUF bytes with others.
                    nix::unistd::write(&writer, &message).is_ok()
                });
                exit(i32::from(!reported))
            }
        }
    }
    drop(writer);

    let mut answered_ns = vec![0; clients as usize];
    let mut reader = std::fs::File::from(reader);
    for child in children {
        let ended = waitpid(child, None)?;
        ensure!(
            matches!(ended, WaitStatus::Exited(_, 0)),
            "a client process failed"
        );

        let mut message = [0; 12];
        reader
            .read_exact(&mut message)
            .context("a client process reported nothing")?;
        let (number, ns) = message.split_at(4);
        let number = u32::from_ne_bytes(number.try_into()?);
        answered_ns[number as usize] = u64::from_ne_bytes(ns.try_into()?);
    }
    Ok(answered_ns)
}

/// One client; returns the instant of its reply.
fn request(target: SocketAddr) -> anyhow::Result<u64> {
    let mut stream = TcpStream::connect(target).context("cannot connect")?;
    lab::exchange(&mut stream, Work::None)?;
    let answered_ns = clock::now();
    Ok(answered_ns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_that_of_the_replies() {
        assert_eq!(order(&[30, 10, 20]), [1, 2, 0]);
        assert!(order(&[1, 2, 3]).is_sorted());
    }
}
