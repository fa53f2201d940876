//! `echobench start-order`, used by `claims`: the order in which clients are answered.

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Args;
use echobench_clients::Driver;

use crate::claims::start_order::{self, StartOrderOptions};

/// Options of `start-order`.
#[derive(Args)]
pub struct StartOrderArgs {
    /// The server
    target: SocketAddr,

    /// Clients of each run
    #[arg(long)]
    clients: u32,

    /// Runs, one after the other
    #[arg(long)]
    runs: u32,

    /// Kind of client: threads or processes
    #[arg(long)]
    driver: Driver,
}

pub(super) fn run(args: &StartOrderArgs) -> anyhow::Result<ExitCode> {
    start_order::run(&StartOrderOptions {
        target: args.target,
        clients: args.clients,
        runs: args.runs,
        driver: args.driver,
    })
}
