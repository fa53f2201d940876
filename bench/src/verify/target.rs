//! Server under test: one that runs already, or one that is started for the suite.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, ToSocketAddrs};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::Peer;
use crate::experiment::block::server_is_ready;
use crate::processes::messages::{FromSupervisor, ToSupervisor};
use crate::processes::site::{Process, Site};
use crate::scenario::arm::{Arm, External};
use crate::scenario::check_arm;

/// Time limits for a server to start and to end.
const START_LIMIT: Duration = Duration::from_secs(20);
/// Longer than the supervisor waits before it kills the server.
const END_LIMIT: Duration = Duration::from_secs(20);

/// Server under test.
pub(crate) enum VerifyTarget {
    /// A server that runs: its name, and the addresses that the name has.
    Running(String, Vec<SocketAddr>),
    /// A server to start.
    Started(Arm),
}

impl VerifyTarget {
    /// A model with options of `serve`, or the address of a server that runs.
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        const EXAMPLE: &str = "an address such as 127.0.0.1:7000 or [::1]:7000";
        if !text.contains(':') || check_arm(text).is_ok() {
            check_arm(text).with_context(|| format!("neither {EXAMPLE} nor a model"))?;
            return Ok(VerifyTarget::Started(Arm::of_model(text)));
        }

        let addresses: Vec<SocketAddr> = text
            .to_socket_addrs()
            .with_context(|| format!("'{text}' is not {EXAMPLE}"))?
            .collect();
        if addresses.is_empty() {
            bail!("'{text}' has no address");
        }
        Ok(VerifyTarget::Running(text.to_owned(), addresses))
    }

    /// A command of another project.
    pub(crate) fn external(external: &External) -> anyhow::Result<Self> {
        Ok(VerifyTarget::Started(Arm::of_external(external)?))
    }

    pub(super) fn name(&self) -> String {
        match self {
            VerifyTarget::Running(name, _) => name.clone(),
            VerifyTarget::Started(arm) => arm.name.clone(),
        }
    }

    /// The addresses of the server, and the server itself if it had to be started.
    pub(super) fn start(&self) -> anyhow::Result<(Option<StartedServer>, Vec<SocketAddr>)> {
        let arm = match self {
            VerifyTarget::Running(_, addresses) => return Ok((None, addresses.clone())),
            VerifyTarget::Started(arm) => arm,
        };
        if let Some(reason) = &arm.skip {
            bail!("cannot verify {}: {reason}", arm.name);
        }

        let mut arguments = vec!["supervise".to_owned()];
        arguments.extend(arm.supervised(None)?);
        let supervisor = Site::Here.start(&format!("the server {}", arm.name), &arguments)?;
        let ready = server_is_ready(&supervisor, Instant::now() + START_LIMIT);
        let (address, _) = ready.map_err(with_advice)?;
        Ok((Some(StartedServer(supervisor)), vec![address]))
    }
}

/// Adds advice to an error of the start where servers cannot listen on their default address.
fn with_advice(error: anyhow::Error) -> anyhow::Error {
    if TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).is_ok() {
        return error;
    }
    error.context(
        "this machine has no 127.0.0.1: name an address that it has, as in verify \
         'thread --listen [::1]:0', or start the server yourself and verify its address",
    )
}

/// Finds the first of these addresses at which a server accepts connections.
pub(super) fn meet_any(
    name: &str,
    addresses: &[SocketAddr],
    limit: Duration,
) -> anyhow::Result<Peer> {
    let mut errors = Vec::new();
    for &address in addresses {
        match Peer::meet(address, limit) {
            Ok(peer) => return Ok(peer),
            Err(error) => errors.push(format!("{error:#}")),
        }
    }

    match &errors[..] {
        [error] => bail!("{error}"),
        errors => bail!(
            "{name} has {} addresses: {}",
            errors.len(),
            errors.join("; ")
        ),
    }
}

/// A server that was started for the suite; it ends with this process at the latest.
pub(super) struct StartedServer(Process);

impl StartedServer {
    /// Ends the server; fails if its end is not known, or it did not end by itself.
    pub(super) fn stop(mut self) -> anyhow::Result<()> {
        self.0.send(&ToSupervisor::Stop)?;
        match self.0.receive(Instant::now() + END_LIMIT)? {
            FromSupervisor::Exited { clean: true, .. } => Ok(()),
            FromSupervisor::Exited { status, .. } => {
                bail!("it did not end as it was asked to: {status}")
            }
            _ => bail!("supervisor out of step"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_of_a_name_is_tried() {
        let closed = || {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            listener.local_addr().unwrap()
        };
        let limit = Duration::from_millis(100);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let open = listener.local_addr().unwrap();
        assert!(meet_any("here:1", &[closed(), open], limit).is_ok());

        let (one, other) = (closed(), closed());
        let error = meet_any("here:1", &[one, other], limit).unwrap_err();
        let error = error.to_string();
        assert!(error.starts_with("here:1 has 2 addresses: cannot connect to "));
        assert!(error.contains(&one.to_string()) && error.contains(&other.to_string()));
    }

    #[test]
    fn options_of_a_model_may_hold_an_address() {
        let target = VerifyTarget::parse("thread --listen [::1]:0").unwrap();
        assert!(matches!(target, VerifyTarget::Started(_)));
        let target = VerifyTarget::parse("127.0.0.1:7000").unwrap();
        let VerifyTarget::Running(name, addresses) = target else {
            panic!("an address is a server that runs");
        };
        assert_eq!((name.as_str(), addresses.len()), ("127.0.0.1:7000", 1));
    }
}
