//! Hosts of an experiment: the one of the servers and those of the clients, their clocks and their machines.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};

use super::condition::Condition;
use super::reach;
use super::shares::{Share, shares};
use crate::host::cpus::{CpuList, cpu_ranges};
use crate::host::machine::{MachineWatch, socket_bytes};
use crate::processes::agent::messages::Description;
use crate::processes::clock_match::ClockMatch;
use crate::processes::site::{RemoteHost, Site};
use crate::render::units::plural;
use crate::results::HostRecord;
use crate::scenario::arm::Arm;
use crate::scenario::{Placement, Scenario};

/// Time of a lease, beyond the length of a block: for what comes before and after it.
const LEASE_TIME: Duration = Duration::from_secs(60);

/// Address on which servers listen for clients on other hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerAddress {
    address: IpAddr,
    /// First and last port; `None` for any free one.
    ports: Option<(u16, u16)>,
}

impl ServerAddress {
    pub(super) fn ip(&self) -> IpAddr {
        self.address
    }

    /// The address of the server of an arm of a block, from 0.
    fn of_arm(&self, arm: usize) -> anyhow::Result<SocketAddr> {
        let Some((first, last)) = self.ports else {
            return Ok(SocketAddr::new(self.address, 0));
        };
        let port = u16::try_from(arm)
            .ok()
            .and_then(|arm| first.checked_add(arm));
        let port = port.filter(|port| *port <= last).with_context(|| {
            format!("a block has more arms than there are ports, {first} to {last}; give more")
        })?;
        Ok(SocketAddr::new(self.address, port))
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ports {
            None => self.address.fmt(f),
            Some((first, last)) => write!(f, "{}-{last}", SocketAddr::new(self.address, first)),
        }
    }
}

impl FromStr for ServerAddress {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let form = || format!("'{text}' is not an address, as in 10.0.0.1 or 10.0.0.1:7000-7099");
        let (address, ports) = if let Ok(address) = text.parse() {
            (address, None)
        } else {
            let (address, ports) = text.rsplit_once(':').with_context(form)?;
            let address = address.trim_start_matches('[').trim_end_matches(']');
            let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
            let port = |text: &str| text.parse().with_context(form);
            let address: IpAddr = address.parse().with_context(form)?;
            (address, Some((port(first)?, port(last)?)))
        };

        if address.is_unspecified() {
            bail!(
                "{address} is every address of the host, and the server would be open to all of its \
                 networks; give the address that the clients are to use"
            );
        }
        if ports.is_some_and(|(first, last)| first == 0 || last < first) {
            bail!("'{text}': ports go from a lower to a higher one, from 1 on");
        }
        Ok(ServerAddress { address, ports })
    }
}

/// A host, and how it is used.
#[derive(Clone, Debug)]
pub struct HostOptions {
    /// Words of the command that starts processes there; `None` for this host.
    pub launcher: Option<Vec<String>>,
    /// Path of this executable there; its path here if not given.
    pub executable: Option<String>,
    /// CPUs that its processes are bound to; all if not given.
    pub cpus: Option<CpuList>,
    /// Of a load host: addresses that connections come from, in turn.
    pub source_addresses: Vec<IpAddr>,
    /// Of a load host: its share of the clients, in proportion to those of the others.
    pub weight: u32,
}

impl Default for HostOptions {
    fn default() -> Self {
        HostOptions {
            launcher: None,
            executable: None,
            cpus: None,
            source_addresses: Vec::new(),
            weight: 1,
        }
    }
}

/// Options that place servers and clients on other hosts.
#[derive(Clone, Debug, Default)]
pub struct HostsOptions {
    /// Host of the servers.
    pub server: HostOptions,
    /// Address on which servers listen.
    pub server_address: Option<ServerAddress>,
    /// Hosts of the clients; this host if there is none.
    pub loads: Vec<HostOptions>,
    /// The options as words of a command line.
    pub words: Vec<String>,
}

impl HostsOptions {
    /// Everything is on this host.
    #[must_use]
    pub fn are_none(&self) -> bool {
        let mut all = self.loads.iter().chain([&self.server]);
        all.all(|host| host.launcher.is_none())
    }

    /// Fails if so many servers of a scenario cannot listen at once.
    pub fn check_ports(&self, scenario: &Scenario, servers: usize) -> anyhow::Result<()> {
        if let Some(address) = &self.server_address {
            let last = address.of_arm(servers.saturating_sub(1));
            last.with_context(|| scenario.name.clone())?;
        }
        Ok(())
    }

    /// Fails if a placement is chosen: servers and clients have hosts of their own.
    pub fn check_placement(&self, chosen: Option<Placement>) -> anyhow::Result<()> {
        if let Some(placement) = chosen.filter(|_| !self.are_none()) {
            bail!(
                "--placement {placement} is for one host; leave it out: servers and clients are on hosts of \
                 their own"
            );
        }
        Ok(())
    }
}

/// Fails unless a remote shell reads a path as one word.
pub(super) fn check_plain_path(path: &str) -> Result<(), String> {
    let is_plain = |letter: char| letter.is_alphanumeric() || "/._-+~".contains(letter);
    if path.is_empty() || !path.chars().all(is_plain) {
        return Err(format!(
            "a remote shell would not read '{path}' as one word; copy this executable to a plain path there, \
             and name that one"
        ));
    }
    Ok(())
}

/// Path of this executable on another host. It is the only word that a remote shell reads.
fn executable_path(given: Option<&String>) -> anyhow::Result<String> {
    let path = match given {
        Some(path) => path.clone(),
        None => std::env::current_exe()
            .context("cannot find this executable")?
            .to_string_lossy()
            .into_owned(),
    };
    check_plain_path(&path).map_err(|error| {
        anyhow!("{error} (--remote-executable, or `executable` in a file of hosts)")
    })?;
    Ok(path)
}

/// A host of the clients, or of the servers.
pub(crate) struct HostInUse {
    /// The duty of the host, as in `load host 2`.
    pub(crate) role: String,
    pub(crate) site: Site,
    /// The host as it describes itself.
    pub(crate) description: Description,
    /// CPUs that its processes are bound to; empty for all.
    bound_cpus: Vec<usize>,
    pub(crate) source_addresses: Vec<IpAddr>,
    weight: u32,
    /// Of a load host: round trip to the host of the servers.
    pub(crate) network_rtt_ns: Option<u64>,
}

impl HostInUse {
    fn connect(role: String, options: &HostOptions, server: IpAddr) -> anyhow::Result<Self> {
        let (site, description) = match &options.launcher {
            None => (Site::Here, Description::capture(server)),
            Some(launcher) => {
                let executable = executable_path(options.executable.as_ref())?;
                let host = RemoteHost::connect(&role, launcher, &executable, server)?;
                let description = host.description.clone();
                (Site::Remote(host), description)
            }
        };

        let bound_cpus = options.cpus.as_ref().map_or(&[][..], CpuList::cpus);
        let has = |cpu: &usize| description.cpus.contains(cpu);
        if let Some(cpu) = bound_cpus.iter().find(|cpu| !has(cpu)) {
            let reason = format!(
                "it has no CPU {cpu}; its processes may use {}",
                cpu_ranges(&description.cpus)
            );
            match site.remote() {
                Some(host) => bail!(host.failed(reason)),
                None => bail!("{role} (this host): {reason}"),
            }
        }
        Ok(HostInUse {
            role,
            site,
            bound_cpus: bound_cpus.to_vec(),
            source_addresses: options.source_addresses.clone(),
            weight: options.weight,
            network_rtt_ns: None,
            description,
        })
    }

    /// Number of CPUs that its processes may use.
    pub(crate) fn cpus(&self) -> usize {
        let cpus = match &self.bound_cpus[..] {
            [] => &self.description.cpus,
            bound => bound,
        };
        cpus.len().max(1)
    }

    /// The reason why this host cannot serve an arm of a scenario, if there is one.
    fn reason_to_skip(&self, arm: &Arm, scenario: &Scenario) -> anyhow::Result<Option<String>> {
        let Site::Remote(host) = &self.site else {
            return Ok(arm.skip.clone());
        };
        if let Some(model) = arm.model() {
            return Ok(self.description.unavailable.get(model.name).cloned());
        }

        // Wherever it is, it does no work.
        if scenario.asks_for_work() {
            return Ok(arm.skip.clone());
        }
        let mut external = scenario.external.iter();
        let external = external.find(|external| external.name == arm.name);
        match external.and_then(|external| external.needs.as_deref()) {
            Some(program) => host.missing(program),
            None => Ok(None),
        }
    }

    fn match_clock(&self) -> anyhow::Result<ClockMatch> {
        match &self.site {
            Site::Here => Ok(ClockMatch::SAME),
            Site::Remote(host) => host.match_clock(),
        }
    }
}

/// All hosts of an experiment: first the one of the servers, then those of the clients.
pub struct Hosts {
    /// `None` if everything is on this host.
    apart: Option<ApartHosts>,
}

pub(crate) struct ApartHosts {
    hosts: Vec<HostInUse>,
    address: ServerAddress,
}

impl Hosts {
    /// This host for everything.
    #[must_use]
    pub fn here() -> Self {
        Hosts { apart: None }
    }

    /// Starts the agents of all hosts, one after the other: a server of sessions may refuse many at once. Fails if a
    /// load host does not reach a server on the server's host.
    pub fn connect(options: &HostsOptions) -> anyhow::Result<Self> {
        if options.are_none() {
            if !options.words.is_empty() {
                bail!("no host is named; add --server-on or --clients-on with its launcher");
            }
            return Ok(Hosts::here());
        }
        let address = options.server_address.context(
            "clients on other hosts need to know where the server listens; give --server-address with the \
             address of its host in the network of the clients",
        )?;

        let mut hosts = vec![HostInUse::connect(
            "server host".to_owned(),
            &options.server,
            address.ip(),
        )?];
        let here = [HostOptions::default()];
        let loads = match &options.loads[..] {
            [] => &here,
            loads => loads,
        };
        for (number, load) in (1..).zip(loads) {
            let role = match loads.len() {
                1 => "load host".to_owned(),
                _ => format!("load host {number}"),
            };
            hosts.push(HostInUse::connect(role, load, address.ip())?);
        }
        let mut hosts = Hosts {
            apart: Some(ApartHosts { hosts, address }),
        };

        let round_trips = reach::round_trips(&hosts)?;
        let loads = hosts
            .apart
            .iter_mut()
            .flat_map(|apart| &mut apart.hosts[1..]);
        for (host, ns) in loads.zip(round_trips) {
            host.network_rtt_ns = Some(ns);
        }
        Ok(hosts)
    }

    /// The hosts, if servers and clients are not both on this one.
    pub(crate) fn apart(&self) -> Option<&ApartHosts> {
        self.apart.as_ref()
    }

    /// Site of the servers.
    pub(crate) fn server(&self) -> &Site {
        match &self.apart {
            None => &Site::Here,
            Some(apart) => &apart.hosts[0].site,
        }
    }

    /// The host of the servers as the user knows it, after what is said of a server; nothing for this one.
    pub(crate) fn server_in_words(&self) -> String {
        match self.server() {
            Site::Here => String::new(),
            Site::Remote(host) => format!(" on the {host}"),
        }
    }

    /// Sites of the clients.
    pub(crate) fn loads(&self) -> Vec<&Site> {
        match &self.apart {
            None => vec![&Site::Here],
            Some(apart) => apart.loads().iter().map(|host| &host.site).collect(),
        }
    }

    /// The duty of a load host, as in `load host 2`.
    pub(super) fn load_role(&self, load: usize) -> &str {
        let apart = self.apart.as_ref();
        apart.map_or("this host", |apart| &apart.loads()[load].role)
    }

    /// The load hosts of a number of clients.
    pub(super) fn shares(&self, clients: u32) -> Vec<Share> {
        let loads = self.apart.as_ref().map(ApartHosts::loads);
        let weights: Vec<u32> = loads.map_or(vec![1], |loads| {
            loads.iter().map(|host| host.weight).collect()
        });
        shares(clients, &weights)
    }

    /// The addresses that connections of a load host come from, in turn.
    pub(super) fn source_addresses(&self, load: usize) -> Vec<IpAddr> {
        let apart = self.apart.as_ref();
        apart.map_or_else(Vec::new, |apart| {
            apart.loads()[load].source_addresses.clone()
        })
    }

    /// CPUs that servers, and clients on a load host, are bound to; empty for all.
    pub(super) fn cpus(
        &self,
        placement: Placement,
        load: usize,
    ) -> anyhow::Result<[Vec<usize>; 2]> {
        let Some(apart) = &self.apart else {
            let (server, clients) = placement.cpus()?;
            return Ok([server, clients]);
        };
        Ok([apart.server(), &apart.loads()[load]].map(|host| host.bound_cpus.clone()))
    }

    /// Load hosts that conditions leave without a client, a line for each number of clients.
    #[must_use]
    pub fn idle_notes(&self, conditions: &[Condition]) -> Vec<String> {
        let Some(apart) = &self.apart else {
            return Vec::new();
        };
        let counts: BTreeSet<u32> = conditions
            .iter()
            .map(|condition| condition.clients)
            .collect();
        let note = |clients: u32| {
            let shares = self.shares(clients);
            let loads = apart.loads().iter().enumerate();
            let idle: Vec<&str> = loads
                .filter(|(host, _)| shares.iter().all(|share| share.host != *host))
                .map(|(_, host)| host.role.as_str())
                .collect();
            let clients = plural(clients as usize, "client");
            let words = format!("of {clients}, none is on {}", idle.join(", "));
            (!idle.is_empty()).then_some(words)
        };
        counts.into_iter().filter_map(note).collect()
    }

    /// The launchers of these hosts, by their numbers among all, a line each.
    #[must_use]
    pub fn launchers_of(&self, hosts: impl IntoIterator<Item = usize>) -> Vec<String> {
        let Some(apart) = &self.apart else {
            return Vec::new();
        };
        let numbers: BTreeSet<usize> = hosts.into_iter().collect();
        let named = numbers
            .into_iter()
            .filter_map(|number| apart.hosts.get(number));
        let line = |host: &HostInUse| match host.site.remote() {
            Some(remote) => format!("{} is: {}", host.role, remote.launcher()),
            None => format!("{} is this host", host.role),
        };
        named.map(line).collect()
    }

    /// The address on which the server of an arm listens, from 0; `None` for that of its own choice.
    pub(crate) fn listen(&self, arm: usize) -> anyhow::Result<Option<SocketAddr>> {
        let apart = self.apart.as_ref();
        apart.map(|apart| apart.address.of_arm(arm)).transpose()
    }

    /// The hosts as a record describes them; none if everything is on this one.
    #[must_use]
    pub fn records(&self) -> Vec<HostRecord> {
        let hosts = self.apart.iter().flat_map(|apart| &apart.hosts);
        let records = hosts.map(|host| HostRecord {
            role: host.role.clone(),
            environment: host.description.environment.clone(),
            network_card: host.description.network.card.clone(),
            mtu_bytes: host.description.network.mtu_bytes,
            congestion_control: host.description.network.congestion_control.clone(),
            network_rtt_ns: host.network_rtt_ns,
        });
        records.collect()
    }

    /// The arms of a condition, of which those that the host of the servers cannot serve are skipped.
    pub fn adapted(&self, condition: &Condition) -> anyhow::Result<Condition> {
        let Some(apart) = &self.apart else {
            return Ok(condition.clone());
        };
        let arms = condition.arms.iter().map(|arm| {
            let skip = apart.server().reason_to_skip(arm, &condition.scenario)?;
            Ok(Arm {
                skip,
                ..arm.clone()
            })
        });
        Ok(condition.with_arms(arms.collect::<anyhow::Result<_>>()?))
    }

    /// Matches all clocks.
    pub(crate) fn match_clocks(&self) -> anyhow::Result<Clocks> {
        let hosts = self.apart.iter().flat_map(|apart| &apart.hosts);
        let matches: anyhow::Result<Vec<ClockMatch>> = hosts.map(HostInUse::match_clock).collect();
        Ok(Clocks(matches?))
    }

    /// Time by which slices have to be further apart than on one host.
    pub(super) fn separation_ns(&self, clocks: &Clocks) -> u64 {
        let hosts = self.apart.iter().flat_map(|apart| &apart.hosts);
        let round_trips = hosts.filter_map(|host| host.network_rtt_ns);
        clocks.separation_ns(round_trips.max().unwrap_or(0))
    }

    /// Lets every host go on for so long, and the time around it, without this run.
    pub(crate) fn lease(&self, time: Duration) -> anyhow::Result<()> {
        self.each_remote(|_, host| host.lease(time + LEASE_TIME))
    }

    /// Lets every host watch its machine between two instants of this host's clock.
    pub(crate) fn watch_machines(
        &self,
        clocks: &Clocks,
        start_ns: u64,
        end_ns: u64,
    ) -> anyhow::Result<()> {
        self.each_remote(|index, host| {
            let clock = clocks.of(index);
            host.watch_machine(clock.there(start_ns), clock.there(end_ns))
        })
    }

    /// The figures of every host's machine; `here` are those of this one.
    pub(crate) fn machines_watched(&self, here: MachineWatch) -> anyhow::Result<Vec<MachineWatch>> {
        let Some(apart) = &self.apart else {
            return Ok(vec![here]);
        };
        let watched = apart.hosts.iter().map(|host| match &host.site {
            Site::Here => Ok(here.clone()),
            Site::Remote(host) => host.machine_watched(),
        });
        watched.collect()
    }

    fn each_remote(
        &self,
        act: impl Fn(usize, &RemoteHost) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let hosts = self.apart.iter().flat_map(|apart| &apart.hosts);
        for (index, host) in hosts.enumerate() {
            if let Some(host) = host.site.remote() {
                act(index, host)?;
            }
        }
        Ok(())
    }

    /// Numbers of the hosts that run on the same kernel as this one, and share its CPUs: itself at least.
    pub(crate) fn sharing_a_kernel(&self, host: usize) -> impl Iterator<Item = usize> {
        let all = self.apart.as_ref().map_or(&[][..], |apart| &apart.hosts);
        let kernel = |host: usize| {
            all.get(host)
                .and_then(|it| it.description.kernel_id.as_ref())
        };
        let count = all.len().max(1);
        (0..count).filter(move |&other| {
            other == host || kernel(host).is_some() && kernel(other) == kernel(host)
        })
    }

    /// Kernel memory of a connection's end on the host of the servers.
    pub(crate) fn socket_bytes(&self) -> Option<u64> {
        match &self.apart {
            None => socket_bytes(),
            Some(apart) => apart.hosts[0].description.socket_bytes,
        }
    }
}

impl ApartHosts {
    /// All hosts, first that of the servers.
    pub(crate) fn all(&self) -> &[HostInUse] {
        &self.hosts
    }

    /// That of the servers.
    pub(crate) fn server(&self) -> &HostInUse {
        &self.hosts[0]
    }

    /// Those of the clients.
    pub(crate) fn loads(&self) -> &[HostInUse] {
        &self.hosts[1..]
    }
}

/// Matches of the clocks of all hosts with the one here, in the order of the hosts; none if there is only this.
pub(crate) struct Clocks(Vec<ClockMatch>);

impl Clocks {
    /// The clock of the host of the servers.
    pub(crate) fn server(&self) -> ClockMatch {
        self.of(0)
    }

    /// The clock of a load host, by its number from 0.
    pub(crate) fn load(&self, host: usize) -> ClockMatch {
        self.of(host + 1)
    }

    /// The clock of a host, by its number among all.
    pub(crate) fn of(&self, host: usize) -> ClockMatch {
        self.0.get(host).copied().unwrap_or(ClockMatch::SAME)
    }

    /// The longest of the shortest round trips to the hosts.
    pub(crate) fn round_trip_ns(&self) -> u64 {
        let round_trips = self.0.iter().map(|clock| clock.round_trip_ns);
        round_trips.max().unwrap_or(0)
    }

    /// Time by which slices have to be further apart than on one host: a request may be under way in a network with
    /// this round trip, or on the slowest connection to an agent, and two hosts may each be off by the bound of their
    /// clocks.
    pub(crate) fn separation_ns(&self, network_rtt_ns: u64) -> u64 {
        let bounds = self.0.iter().map(ClockMatch::bound_ns);
        self.round_trip_ns().max(network_rtt_ns) + 2 * bounds.max().unwrap_or(0)
    }

    /// The largest error of any clock until `after` was taken; `None` if there is only this host.
    pub(crate) fn bound_until_ns(&self, after: &Clocks) -> Option<u64> {
        let both = self.0.iter().zip(&after.0);
        both.map(|(before, after)| before.bound_until_ns(after))
            .max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_addresses_are_read() {
        let any: ServerAddress = "10.0.0.1".parse().unwrap();
        assert_eq!(any.of_arm(3).unwrap(), "10.0.0.1:0".parse().unwrap());

        let range: ServerAddress = "10.0.0.1:7000-7001".parse().unwrap();
        assert_eq!(range.of_arm(1).unwrap(), "10.0.0.1:7001".parse().unwrap());
        let error = range.of_arm(2).unwrap_err().to_string();
        assert!(error.contains("7000 to 7001"), "{error}");

        let one: ServerAddress = "[fd00::1]:7".parse().unwrap();
        assert_eq!(one.of_arm(0).unwrap(), "[fd00::1]:7".parse().unwrap());
        let plain: ServerAddress = "fd00::1".parse().unwrap();
        assert_eq!(plain.of_arm(0).unwrap(), "[fd00::1]:0".parse().unwrap());
    }

    #[test]
    fn slices_are_apart_by_the_longest_round_trip() {
        // Exchanges of 400 ns in all, so the clock is known to within 200 ns.
        let mut clock = ClockMatch::UNKNOWN;
        clock.exchange(1_000, 1_200, 1_200, 1_400);
        let clocks = Clocks(vec![ClockMatch::SAME, clock]);
        assert_eq!(clocks.separation_ns(0), 400 + 2 * 200);
        assert_eq!(clocks.separation_ns(300), 400 + 2 * 200);
        assert_eq!(clocks.separation_ns(5_000), 5_000 + 2 * 200);
        assert_eq!(Clocks(Vec::new()).separation_ns(0), 0);
    }

    #[test]
    fn server_addresses_that_are_none_are_refused() {
        for (text, words) in [
            ("0.0.0.0", "every address"),
            ("[::]:7000-7001", "every address"),
            ("0.0.0.0:7000", "every address"),
            ("hostA", "not an address"),
            ("10.0.0.1:x", "not an address"),
            ("10.0.0.1:9-7", "lower to a higher"),
            ("10.0.0.1:0", "from 1 on"),
            ("", "not an address"),
        ] {
            let error = text.parse::<ServerAddress>().unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn an_executable_that_a_shell_would_take_apart_is_refused() {
        let path = |path: &str| executable_path(Some(&path.to_owned()));
        assert_eq!(path("~/bin/echobench-1.0").unwrap(), "~/bin/echobench-1.0");
        for word in ["/my folder/echobench", "$(x)", "a;b", "'q'", ""] {
            assert!(path(word).is_err(), "{word}");
        }
    }
}
