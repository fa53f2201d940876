//! Check of hosts before a run: that they start, that their clocks can be matched, and that clients reach a server.

use std::time::Duration;

use anyhow::bail;

use super::hosts::Hosts;
use crate::render::units::{count, duration, or_unknown, plural};

/// Time of a lease for the whole check.
const LEASE: Duration = Duration::from_secs(60);

/// Checks the hosts, which have been connected; returns a line for each.
pub fn check(hosts: &Hosts) -> anyhow::Result<Vec<String>> {
    let Some(apart) = hosts.apart() else {
        bail!("no host is named; add --server-on or --clients-on with its launcher");
    };
    hosts.lease(LEASE)?;
    let clocks = hosts.match_clocks()?;

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
        let to_server = host.network_rtt_ns.map_or_else(String::new, |ns| {
            format!(", server reached in {}", duration(ns as f64))
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
