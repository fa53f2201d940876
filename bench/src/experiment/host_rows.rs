//! The rows of a block about its hosts: what each was asked, what disturbed it, and how far it departs from the others.

use super::hosts::ApartHosts;
use super::observation::{Block, LoadFigures, Observed};
use crate::results::{HostRow, SCHEMA_VERSION, Validity, ValidityFlag};
use crate::stats::{log_ratio, median};

impl Block<'_> {
    /// A row for each host, first that of the servers; none if there is only this one. Others kept `other_cpus` busy
    /// on each.
    pub(super) fn host_rows(
        &self,
        arms: &[anyhow::Result<Observed>],
        other_cpus: &[Option<f64>],
    ) -> Vec<HostRow> {
        let Some(apart) = self.hosts.apart() else {
            return Vec::new();
        };
        let rates = Departures::of(apart, arms, |load| {
            // Idle clients have no replies.
            let active = self.condition.scenario.traffic.active_clients;
            let active = active.unwrap_or(u32::MAX).saturating_sub(load.share.first);
            let clients = active.min(load.share.clients);
            (clients > 0).then(|| load.replies as f64 / f64::from(clients))
        });
        let tails = Departures::of(apart, arms, |load| load.latency_p99_ns.map(|ns| ns as f64));

        let shares = self.hosts.shares(self.condition.clients);
        let rows = apart.all().iter().enumerate().map(|(host, used)| {
            let machine = &self.machines[host];
            let clocks = used
                .site
                .remote()
                .map(|_| self.clocks.map(|clocks| clocks.of(host)));
            let share = shares.iter().find(|share| share.host + 1 == host);
            let loads: Vec<(usize, &LoadFigures)> = loads_on(arms, host).collect();
            let connects = loads.iter().filter_map(|(_, load)| load.connect_min_ns);
            HostRow {
                schema_version: SCHEMA_VERSION,
                scenario: self.condition.scenario.name.clone(),
                clients: self.condition.clients,
                driver: self.condition.driver,
                placement: self.condition.placement,
                load_percent: self.condition.load_percent,
                traffic: self.condition.traffic.clone(),
                step: self.condition.step,
                model: self.condition.arms[0].name.clone(),
                block: self.number,
                host: u32::try_from(host).unwrap_or(u32::MAX),
                validity: self.host_validity(host, arms, other_cpus[host]),
                host_clients: (host > 0).then(|| share.map_or(0, |share| share.clients)),
                throughput_ratio: rates.ratio(host),
                latency_p99_ratio: tails.ratio(host),
                network_rtt_ns: connects.min(),
                agent_rtt_ns: clocks.map(|[before, _]| before.round_trip_ns),
                clock_bound_before_ns: clocks.map(|[before, _]| before.bound_ns()),
                clock_bound_after_ns: clocks.map(|[_, after]| after.bound_ns()),
                start_late_ns: loads.iter().map(|(_, load)| load.late_ns).max(),
                own_cpus: machine.cpus(own_cpu_ns(arms, host)),
                idle_cpus: machine.idle_ns.map(|idle| machine.cpus(idle)),
                other_cpus: other_cpus[host],
                steal_ns: machine.steal_ns,
                cpu_pressure_ns: machine.pressure_ns,
                stall_max_ns: machine.stall_max_ns,
            }
        });
        rows.collect()
    }

    /// The conditions that limited or disturbed a host.
    fn host_validity(
        &self,
        host: usize,
        arms: &[anyhow::Result<Observed>],
        other_cpus: Option<f64>,
    ) -> Validity {
        let mut validity = Validity::default();
        for (arm, load) in loads_on(arms, host) {
            if self.was_late(load) {
                validity.insert(ValidityFlag::Late);
            }
            let server_ns = arms[arm].as_ref().ok().and_then(Observed::server_slices_ns);
            let server_cpus = server_ns.map(|ns| ns as f64 / self.load_ns(arm));
            if self.load_was_the_limit(load, arm, server_cpus) {
                validity.insert(ValidityFlag::Generator);
            }
        }

        let [before, after] = self.clocks.map(|clocks| clocks.of(host));
        if self.is_clock_unknown(Some(before.bound_until_ns(&after))) {
            validity.insert(ValidityFlag::Clock);
        }
        if self.machines[host].disturbed(other_cpus) {
            validity.insert(ValidityFlag::Disturbed);
        }
        validity
    }
}

/// The figures of the clients on a host, by its number among all, each with its arm.
fn loads_on(
    arms: &[anyhow::Result<Observed>],
    host: usize,
) -> impl Iterator<Item = (usize, &LoadFigures)> {
    let measured = arms.iter().enumerate();
    let measured = measured.filter_map(|(arm, observed)| Some((arm, observed.as_ref().ok()?)));
    let loads = measured.flat_map(|(arm, observed)| observed.loads.iter().map(move |it| (arm, it)));
    loads.filter(move |(_, load)| load.share.host + 1 == host)
}

/// CPU time of the servers or the clients on a host.
fn own_cpu_ns(arms: &[anyhow::Result<Observed>], host: usize) -> u64 {
    let measured = arms.iter().flatten();
    match host {
        0 => measured.filter_map(Observed::server_slices_ns).sum(),
        _ => loads_on(arms, host).map(|(_, load)| load.cpu_ns).sum(),
    }
}

/// Logarithms of the ratios of a figure of each load host to that of the others, a list of them for each arm.
struct Departures(Vec<Vec<Option<f64>>>);

impl Departures {
    fn of(
        apart: &ApartHosts,
        arms: &[anyhow::Result<Observed>],
        figure: impl Fn(&LoadFigures) -> Option<f64>,
    ) -> Self {
        let of_arm = |observed: &Observed| {
            let mut figures = vec![None; apart.loads().len()];
            for load in &observed.loads {
                figures[load.share.host] = figure(load);
            }
            departures(&figures)
        };
        Departures(arms.iter().flatten().map(of_arm).collect())
    }

    /// The ratio of a host, by its number among all: the median over the arms.
    fn ratio(&self, host: usize) -> Option<f64> {
        let load = host.checked_sub(1)?;
        let logs: Vec<f64> = self.0.iter().filter_map(|arm| arm[load]).collect();
        median(&logs).map(f64::exp)
    }
}

/// Logarithm of the ratio of each figure to that of the others: of two to the other one, of more to the median of all,
/// from which a single host that departs moves nobody else. `None` without others.
fn departures(figures: &[Option<f64>]) -> Vec<Option<f64>> {
    let known: Vec<f64> = figures.iter().copied().flatten().collect();
    let reference = |own: f64| match known[..] {
        [] | [_] => None,
        [a, b] => Some(a + b - own),
        _ => median(&known),
    };
    let departure = |figure: &Option<f64>| {
        let own = (*figure)?;
        log_ratio(own, reference(own)?)
    };
    figures.iter().map(departure).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ratios(figures: &[Option<f64>]) -> Vec<Option<f64>> {
        let logs = departures(figures).into_iter();
        logs.map(|log| log.map(|log| (log.exp() * 1e6).round() / 1e6))
            .collect()
    }

    #[test]
    fn one_host_that_departs_moves_nobody_else() {
        let one = Some(1.0);
        assert_eq!(
            ratios(&[Some(100.0), Some(80.0), Some(100.0)]),
            [one, Some(0.8), one]
        );
        assert_eq!(ratios(&[Some(100.0), Some(80.0)]), [Some(1.25), Some(0.8)]);
        assert_eq!(
            ratios(&[None, Some(5.0), Some(10.0)]),
            [None, Some(0.5), Some(2.0)]
        );
    }

    #[test]
    fn a_host_without_others_departs_from_nobody() {
        assert_eq!(ratios(&[Some(3.0)]), [None]);
        assert_eq!(ratios(&[None, Some(3.0)]), [None, None]);
        assert_eq!(ratios(&[Some(0.0), Some(0.0)]), [None, None]);
        assert_eq!(ratios(&[]), []);
    }
}
