//! Clients that are started one after another, connect at once and send one frame: in which order
//! are they answered?
//!
//! They are the threads or the children of a process of its own, which has no other threads and may
//! therefore fork.

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Args;
use echobench_clients::{Driver, clock};
use echobench_fork::{ForkResult, die_with, exit, fork};
use echobench_protocol::Work;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, getpid, pipe};

use super::lab;
use crate::processes::agent::{Agent, die_with_parent, say};

/// How long all runs may take: they hang if they take longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// The arguments of `echobench roll-call`.
#[derive(Args)]
pub struct RollCallArgs {
    /// The server
    target: SocketAddr,

    /// Clients of each run
    #[arg(long)]
    clients: u32,

    /// Runs, one after the other
    #[arg(long)]
    runs: u32,

    /// How clients are run: threads or processes
    #[arg(long)]
    driver: Driver,
}

/// Makes all runs; says for each in which order the clients were answered.
pub fn run(args: &RollCallArgs) -> anyhow::Result<ExitCode> {
    die_with_parent()?;
    let mut orders = Vec::new();
    for _ in 0..args.runs {
        let answered = match args.driver {
            Driver::Processes => processes(args.target, args.clients)?,
            Driver::Threads | Driver::Tasks => threads(args.target, args.clients)?,
        };
        orders.push(order(&answered));
    }
    say(&orders)?;
    Ok(ExitCode::SUCCESS)
}

/// The same from outside: the orders of all runs, in a process of its own. To be called on the main
/// thread.
pub(super) fn runs(
    target: SocketAddr,
    driver: Driver,
    clients: u32,
    runs: u32,
) -> anyhow::Result<Vec<Vec<u32>>> {
    let arguments = [
        "roll-call".to_owned(),
        target.to_string(),
        format!("--clients={clients}"),
        format!("--runs={runs}"),
        format!("--driver={driver}"),
    ];
    let agent = Agent::spawn("the roll call", &arguments)?;
    agent.receive(Instant::now() + PATIENCE)
}

/// The clients in the order in which they were answered.
fn order(answered_ns: &[u64]) -> Vec<u32> {
    let mut order: Vec<u32> = (0..).take(answered_ns.len()).collect();
    order.sort_by_key(|&client| answered_ns[client as usize]);
    order
}

fn threads(target: SocketAddr, clients: u32) -> anyhow::Result<Vec<u64>> {
    let started: Vec<_> = (0..clients)
        .map(|_| thread::spawn(move || call(target)))
        .collect();
    started
        .into_iter()
        .map(|client| client.join().expect("a client does not panic"))
        .collect()
}

fn processes(target: SocketAddr, clients: u32) -> anyhow::Result<Vec<u64>> {
    let parent = getpid();
    let (here, there) = pipe()?;
    let mut children: Vec<Pid> = Vec::new();
    for number in 0..clients {
        match fork()? {
            ForkResult::Parent { child } => children.push(child),
            ForkResult::Child => {
                let called = die_with(parent).is_ok().then(|| call(target));
                let said = called.and_then(Result::ok).is_some_and(|ns| {
                    let mut message = [0; 12];
                    message[..4].copy_from_slice(&number.to_ne_bytes());
                    message[4..].copy_from_slice(&ns.to_ne_bytes());
                    // So short a message is never mixed with another's.
                    nix::unistd::write(&there, &message).is_ok()
                });
                exit(i32::from(!said))
            }
        }
    }
    drop(there);
    let mut answered_ns = vec![0; clients as usize];
    let mut reader = std::fs::File::from(here);
    for child in children {
        let ended = waitpid(child, None)?;
        ensure!(
            matches!(ended, WaitStatus::Exited(_, 0)),
            "a client process failed"
        );
        let mut message = [0; 12];
        reader
            .read_exact(&mut message)
            .context("a client process said nothing")?;
        let (number, ns) = message.split_at(4);
        let number = u32::from_ne_bytes(number.try_into()?);
        answered_ns[number as usize] = u64::from_ne_bytes(ns.try_into()?);
    }
    Ok(answered_ns)
}

/// One client: when its reply had come.
fn call(target: SocketAddr) -> anyhow::Result<u64> {
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
