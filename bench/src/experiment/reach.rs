//! Round trips of the network between load hosts and the server's host, before the first block.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::bail;
use echobench_clients::{Driver, LoadReport, Plan, Window, Workload, clock};

use super::block::server_is_ready;
use super::hosts::Hosts;
use crate::processes::messages::{FromDriver, Start};
use crate::processes::site::Process;
use crate::scenario::arm::Arm;

/// Requests of each load host: too few to be a load.
const REQUESTS: u64 = 20;
/// Time for the start of a process, and for its report.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Time for the start signal, beside a round trip.
const LEAD_NS: u64 = 10_000_000;

/// The shortest request of each load host to a server on the server's host, which ends afterwards. Fails if a host
/// does not reach it.
pub(super) fn round_trips(hosts: &Hosts) -> anyhow::Result<Vec<u64>> {
    let mut supervise = vec!["supervise".to_owned()];
    supervise.extend(Arm::of_model("thread").supervised(hosts.listen(0)?)?);
    let clocks = hosts.match_clocks()?;
    let server = hosts.server().start("the server", &supervise)?;
    let (target, _) = server_is_ready(&server, Instant::now() + TIMEOUT)?;

    // All start before the first is awaited: a host takes tens of milliseconds.
    let sites = hosts.loads().into_iter().enumerate();
    let loads = sites.map(|(host, site)| {
        let mut load = site.start("the clients", &["drive".to_owned()])?;
        load.send(&plan(target, hosts.source_addresses(host)))?;
        Ok(load)
    });
    let loads: Vec<Process> = loads.collect::<anyhow::Result<_>>()?;

    let mut round_trips = Vec::new();
    for (host, mut load) in loads.into_iter().enumerate() {
        let deadline = Instant::now() + TIMEOUT;
        let mut answer = load.receive(deadline)?;
        if matches!(answer, FromDriver::Ready) {
            let clock = clocks.load(host);
            let start_ns = clock.there(clock::now() + LEAD_NS + 2 * clock.round_trip_ns);
            load.send(&Start { start_ns })?;
            answer = load.receive(deadline)?;
        }

        let role = hosts.load_role(host);
        match answer {
            FromDriver::Done { report, .. } => round_trips.push(shortest(&report, role, target)?),
            FromDriver::Failed { message } => bail!("{role}: {message}"),
            FromDriver::Ready => bail!("the load process was ready twice"),
        }
    }
    Ok(round_trips)
}

/// One client that makes its requests one after the other.
fn plan(target: SocketAddr, source_addresses: Vec<IpAddr>) -> Plan {
    Plan {
        target,
        driver: Driver::Tasks,
        clients: 1,
        part: None,
        source_addresses,
        task_threads: 1,
        workload: Workload::default(),
        windows: vec![Window {
            start_ns: 0,
            measure_ns: 0,
            end_ns: u64::MAX,
            requests: Some(REQUESTS),
        }],
        end_ns: None,
    }
}

/// The shortest latency of a report, which has errors where the server was not reached.
fn shortest(report: &LoadReport, role: &str, target: SocketAddr) -> anyhow::Result<u64> {
    let total = report.total();
    if total.answered == REQUESTS {
        return Ok(total.latency.min());
    }
    let reason = report.messages.values().next();
    bail!(
        "the {role} does not reach the server at {target}: {}; is it the address of the server's host in the \
         network of the clients, and are its ports open?",
        reason.map_or("no answer", String::as_str)
    )
}
