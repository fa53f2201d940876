//! `echobench verify`: the conformance suite against any server.

use std::net::{SocketAddr, ToSocketAddrs};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;

use crate::experiment::block::server_is_ready;
use crate::outln;
use crate::processes::child::ChildProcess;
use crate::processes::messages::{FromSupervisor, ToSupervisor};
use crate::scenario::arm::{Arm, External};
use crate::scenario::check_arm;
use crate::verify::{CHECKS, Outcome, Peer};

/// How long a server may take to start, and for anything it is asked.
const PATIENCE: Duration = Duration::from_secs(10);

/// The options of `verify`.
#[derive(Args)]
#[command(
    after_help = "Exit codes: 0 all checks passed; 1 it could not be done; 2 a check failed."
)]
pub struct VerifyArgs {
    /// A model, with options of `serve` if it needs any, as in "pool --workers 8"; or the address of a
    /// server that runs, as in 127.0.0.1:7000
    #[arg(required_unless_present = "external", conflicts_with = "external")]
    target: Option<String>,

    /// A server to start, as in "mine=server --port {port}"; {port} is where it is to listen on 127.0.0.1
    #[arg(long, value_name = "NAME=COMMAND")]
    external: Option<External>,
}

pub(super) fn run(args: &VerifyArgs) -> anyhow::Result<ExitCode> {
    let (_server, address) = server(args)?;
    let peer = Peer::meet(address, PATIENCE)?;
    let outcomes: Vec<_> = CHECKS
        .iter()
        .map(|check| (check, check.run(peer)))
        .collect();
    let width = CHECKS.iter().map(|check| check.name.len()).max();
    let width = width.unwrap_or(0).max("check".len());
    outln!("{:<width$}  outcome", "check");
    for (check, outcome) in &outcomes {
        let outcome = match outcome {
            Outcome::Passed => "pass".to_owned(),
            Outcome::Failed(why) => format!("FAIL: {}: {why}", check.what),
            Outcome::Skipped => "skipped: not an echobench server".to_owned(),
        };
        outln!("{:<width$}  {outcome}", check.name);
    }
    let failed = |(_, outcome): &&(_, Outcome)| matches!(outcome, Outcome::Failed(_));
    Ok(match outcomes.iter().filter(failed).count() {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::from(2),
    })
}

/// The address of the server, and the server itself if it had to be started; it ends with its owner.
fn server(args: &VerifyArgs) -> anyhow::Result<(Option<Started>, SocketAddr)> {
    let arm = match (&args.external, &args.target) {
        (Some(external), _) => Arm::of_external(external)?,
        (None, Some(target)) if target.contains(':') => {
            let addresses = target.to_socket_addrs();
            let mut addresses = addresses
                .with_context(|| format!("'{target}' is not an address such as 127.0.0.1:7000"))?;
            let address = addresses.next().context("the name has no address")?;
            return Ok((None, address));
        }
        (None, Some(target)) => {
            check_arm(target).context("neither an address such as 127.0.0.1:7000 nor a model")?;
            Arm::of_model(target)
        }
        (None, None) => bail!("nothing to verify"),
    };
    let mut arguments = vec!["supervise".to_owned()];
    arguments.extend(arm.supervised()?);
    let started = Started(ChildProcess::spawn(
        &format!("the server {}", arm.name),
        &arguments,
    )?);
    let (address, _) = server_is_ready(&started.0, Instant::now() + 2 * PATIENCE)?;
    Ok((Some(started), address))
}

/// A server that ends when it is no longer needed.
struct Started(ChildProcess);

impl Drop for Started {
    fn drop(&mut self) {
        // If it is gone already, all the better; if it does not go, it is killed.
        let asked = self.0.send(&ToSupervisor::Stop);
        let _: anyhow::Result<FromSupervisor> =
            asked.and_then(|()| self.0.receive(Instant::now() + PATIENCE));
    }
}
