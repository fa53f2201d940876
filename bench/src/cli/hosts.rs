//! Options that place servers and clients on other hosts.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::experiment::host_check;
use crate::experiment::hosts::{Hosts, HostsOptions, ServerAddress};
use crate::host::signals::catch_interrupts;
use crate::out;

/// Hosts of servers and clients.
#[derive(Args, Debug)]
#[command(next_help_heading = "Options for other hosts")]
pub(super) struct HostsArgs {
    /// Run servers on another host, by a command that starts processes there, such as "ssh hostA"
    #[arg(long, value_name = "LAUNCHER")]
    server_on: Option<String>,

    /// Run clients on another host, such as "ssh hostB"; can be given several times, then the clients are
    /// shared among the hosts
    #[arg(long, value_name = "LAUNCHER")]
    clients_on: Vec<String>,

    /// Address of the server's host in the network of the clients, and ports for it, as in 10.0.0.1:7000-7099
    /// [default ports: any free one]. Whoever reaches them while a block lasts can make the server work
    #[arg(long, value_name = "IP[:PORTS]")]
    server_address: Option<ServerAddress>,

    /// Path of this executable on the other hosts [default: its path here]
    #[arg(long, value_name = "PATH")]
    remote_executable: Option<String>,
}

impl HostsArgs {
    pub(super) fn options(&self) -> HostsOptions {
        HostsOptions {
            server_on: self.server_on.clone(),
            clients_on: self.clients_on.clone(),
            server_address: self.server_address,
            remote_executable: self.remote_executable.clone(),
        }
    }
}

/// Hosts of a run, before it.
#[derive(Args)]
pub struct HostsCommand {
    #[command(subcommand)]
    action: HostsAction,
}

#[derive(Subcommand)]
enum HostsAction {
    /// Start an agent on each host, match the clocks, and reach a server with twenty requests from each load host
    Check(HostsArgs),
}

pub(super) fn run(command: &HostsCommand) -> anyhow::Result<ExitCode> {
    let HostsAction::Check(args) = &command.action;
    catch_interrupts()?;
    let hosts = Hosts::connect(&args.options())?;
    for line in host_check::check(&hosts)? {
        out!("{line}\n");
    }
    Ok(ExitCode::SUCCESS)
}
