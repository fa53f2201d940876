//! Options that place servers and clients on other hosts.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::bail;
use clap::{Args, Subcommand};

use crate::experiment::host_check;
use crate::experiment::hosts::{HostOptions, Hosts, HostsOptions, ServerAddress};
use crate::host::signals::catch_interrupts;
use crate::out;
use crate::processes::site::launcher_words;

/// Hosts of servers and clients.
#[derive(Args, Debug)]
#[command(next_help_heading = "Options for other hosts")]
pub(super) struct HostsArgs {
    /// File of the hosts of servers and clients, in place of the other options for hosts (docs/hosts.md)
    #[arg(long, value_name = "FILE")]
    hosts: Option<PathBuf>,

    #[command(flatten)]
    each: EachHostArgs,
}

/// The same without a file.
#[derive(Args, Debug)]
#[command(next_help_heading = "Options for other hosts")]
struct EachHostArgs {
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
    pub(super) fn options(&self) -> anyhow::Result<HostsOptions> {
        self.each.or_file(self.hosts.as_deref())
    }
}

impl EachHostArgs {
    /// The hosts of the file, if one is given, or of these options.
    fn or_file(&self, file: Option<&Path>) -> anyhow::Result<HostsOptions> {
        let words = self.words();
        let Some(file) = file else {
            return self.options(words);
        };
        if let Some(option) = words.first() {
            bail!("{} names the hosts; leave out {option}", file.display());
        }
        let words = ["--hosts".to_owned(), file.display().to_string()];
        HostsOptions::from_file(file, words.to_vec())
    }

    fn options(&self, words: Vec<String>) -> anyhow::Result<HostsOptions> {
        let host = |launcher: Option<&String>| -> anyhow::Result<HostOptions> {
            Ok(HostOptions {
                launcher: launcher.map(|text| launcher_words(text)).transpose()?,
                executable: self.remote_executable.clone(),
                ..HostOptions::default()
            })
        };
        let loads = self.clients_on.iter().map(|launcher| host(Some(launcher)));
        Ok(HostsOptions {
            server: host(self.server_on.as_ref())?,
            server_address: self.server_address,
            loads: loads.collect::<anyhow::Result<_>>()?,
            words,
        })
    }

    /// The options as words of a command line.
    fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        let mut add = |option: &str, value: String| words.extend([option.to_owned(), value]);
        if let Some(launcher) = &self.server_on {
            add("--server-on", launcher.clone());
        }
        for launcher in &self.clients_on {
            add("--clients-on", launcher.clone());
        }
        if let Some(address) = &self.server_address {
            add("--server-address", address.to_string());
        }
        if let Some(path) = &self.remote_executable {
            add("--remote-executable", path.clone());
        }
        words
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
    Check(CheckArgs),
}

#[derive(Args)]
struct CheckArgs {
    /// File of the hosts, in place of options
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,

    #[command(flatten)]
    each: EachHostArgs,
}

pub(super) fn run(command: &HostsCommand) -> anyhow::Result<ExitCode> {
    let HostsAction::Check(args) = &command.action;
    catch_interrupts()?;
    let hosts = Hosts::connect(&args.each.or_file(args.file.as_deref())?)?;
    for line in host_check::check(&hosts)? {
        out!("{line}\n");
    }
    Ok(ExitCode::SUCCESS)
}
