//! Check of hosts before a run: that they start, that their clocks can be matched, and that clients reach a server.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::bail;
use echobench_clients::{Driver, LoadReport, Plan, Window, Workload, clock};

use super::block::server_is_ready;
use super::hosts::{Clocks, Hosts};
use crate::processes::messages::{FromDriver, Start};
use crate::render::units::{count, duration, or_unknown, plural};
use crate::scenario::arm::Arm;

/// Requests of each load host: too few to be a load.
const REQUESTS: u64 = 20;
/// Time for the start of a process, and for its report.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Time of a lease for the whole check.
const LEASE: Duration = Duration::from_secs(60);
/// Time for the start signal, beside a round trip.
const LEAD_NS: u64 = 10_000_000;

/// Checks the hosts; returns a line for each.
pub fn check(hosts: &Hosts) -> anyhow::Result<Vec<String>> {
    let Some(apart) = hosts.apart() else {
        bail!("no host is named; add --server-on or --clients-on with its launcher");
    };
    hosts.lease(LEASE)?;
    let clocks = hosts.match_clocks()?;
    let roles: Vec<&str> = apart
        .loads()
        .iter()
        .map(|host| host.role.as_str())
        .collect();
    let round_trips = round_trips(hosts, &roles, &clocks)?;

    let described = apart.all().iter().enumerate().map(|(index, host)| {
        let clock = clocks.of(index);
        let files = host.description.environment.limits.open_files_hard;
        let connection = match host.site.remote() {
            None => "this host".to_owned(),
            Some(_) => format!(
                "agent in {}, clock within {}",
                duration(clock.round_trip_ns as f64),
                duration(clock.bound_ns() as f64)
            ),
        };
        let to_server = index.checked_sub(1).and_then(|load| round_trips.get(load));
        let to_server = to_server.map_or_else(String::new, |ns| {
            format!(", server reached in {}", duration(*ns as f64))
        });
        format!(
            "{}: {connection}, {}, {} open files{to_server}",
            host.role,
            plural(host.cpus(), "CPU"),
            or_unknown(files, count)
        )
    });
    Ok(described.collect())
}

/// The shortest request of each load host to a server on the host of the servers, which ends afterwards.
fn round_trips(hosts: &Hosts, roles: &[&str], clocks: &Clocks) -> anyhow::Result<Vec<u64>> {
    let mut supervise = vec!["supervise".to_owned()];
    supervise.extend(Arm::of_model("thread").supervised(hosts.listen(0)?)?);
    let server = hosts.server().start("the server", &supervise)?;
    let (target, _) = server_is_ready(&server, Instant::now() + TIMEOUT)?;

    let mut round_trips = Vec::new();
    for (index, site) in hosts.loads().into_iter().enumerate() {
        let mut load = site.start("the clients", &["drive".to_owned()])?;
        let deadline = Instant::now() + TIMEOUT;
        load.send(&plan(target, hosts.source_addresses(index)))?;
        let mut answer = load.receive(deadline)?;
        if matches!(answer, FromDriver::Ready) {
            let clock = clocks.load(index);
            let start_ns = clock.there(clock::now() + LEAD_NS + 2 * clock.round_trip_ns);
            load.send(&Start { start_ns })?;
            answer = load.receive(deadline)?;
        }

        match answer {
            FromDriver::Done { report, .. } => {
                round_trips.push(shortest(&report, roles[index], target)?);
            }
            FromDriver::Failed { message } => bail!("{}: {message}", roles[index]),
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
