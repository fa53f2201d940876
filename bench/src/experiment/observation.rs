//! The rows of a block, from the reports of its processes.

use std::fmt;
use std::time::Duration;

use echobench_clients::{
    Driver, DurationHistogram, ErrorKind, LoadReport, Percentiles, WindowReport, jain_index,
};

use super::condition::Condition;
use super::hosts::{Clocks, Hosts};
use super::schedule::Schedule;
use super::shares::Share;
use crate::host::machine::MachineWatch;
use crate::host::process_tree::{CpuTime, Memory};
use crate::results::histogram_log::interval_line;
use crate::results::{
    BlockRow, BlockStatus, HostRow, SCHEMA_VERSION, SliceRow, Validity, ValidityFlag,
};
use crate::scenario::Placement;
use crate::stats::median;

/// Share of its CPU time from which on a side has none left.
const SATURATED: f64 = 0.9;
/// Share of late requests above which the load was not the planned one.
const LATE: f64 = 0.01;
/// Share of slices with replies in the next arm's slice above which arms were not measured apart.
const OVERRUN: f64 = 0.1;
/// Part of the shortest gap between slices that an error of the hosts' clocks may take.
const CLOCK_SHARE: u64 = 4;

/// The report of a load process.
pub(crate) struct LoadPart {
    pub(crate) share: Share,
    /// Its report, on the clock of this host.
    pub(crate) report: LoadReport,
    /// Time by which it was told the start too late.
    pub(crate) late_ns: u64,
}

/// The figures of the clients of one load process.
pub(crate) struct LoadFigures {
    pub(crate) share: Share,
    pub(crate) cpu_ns: u64,
    /// Time by which it was told the start too late.
    pub(crate) late_ns: u64,
    pub(crate) answered: u64,
    /// Requests of an open loop that were sent late.
    late: u64,
    /// Replies in the measured parts of all slices.
    pub(crate) replies: u64,
    pub(crate) latency_p99_ns: Option<u64>,
    /// Shortest time to connect.
    pub(crate) connect_min_ns: Option<u64>,
}

impl LoadFigures {
    fn of(part: &LoadPart) -> Self {
        let total = part.report.total();
        LoadFigures {
            share: part.share,
            cpu_ns: part.report.cpu_ns,
            late_ns: part.late_ns,
            answered: total.answered,
            late: total.late,
            replies: total.replies_in_window,
            latency_p99_ns: Percentiles::of(&total.latency, total.lost).p99,
            connect_min_ns: (!total.connect.is_empty()).then(|| total.connect.min()),
        }
    }
}

/// The reports of an arm's processes.
pub(crate) struct Observed {
    /// Those of all clients.
    pub(crate) report: LoadReport,
    /// The figures of each load process.
    pub(crate) loads: Vec<LoadFigures>,
    /// Readings of CPU time at the start and after each slice.
    pub(crate) cpu: Vec<Option<CpuTime>>,
    pub(crate) memory_before: Option<Memory>,
    pub(crate) memory: Option<Memory>,
    pub(crate) context_switches: Option<u64>,
    pub(crate) server_cpu_ns: u64,
    pub(crate) server_requests: Option<u64>,
    /// Number of connections that the server refused.
    pub(crate) server_refused: Option<u64>,
    /// Number of times that the server had no descriptor left for a connection.
    pub(crate) server_exhausted: Option<u64>,
    /// Connections accepted by each worker that accepts for itself.
    pub(crate) worker_connections: Vec<u64>,
    /// The way the server ended, if it failed.
    pub(crate) server_failed: Option<String>,
}

impl Observed {
    /// The reports of the load processes together, without those of the server.
    pub(crate) fn of_loads(loads: Vec<LoadPart>, memory_before: Option<Memory>) -> Self {
        let figures = loads.iter().map(LoadFigures::of).collect();
        let reports = loads.into_iter().map(|part| part.report);
        let report = reports.reduce(|mut all, part| {
            all.add(part);
            all
        });

        Observed {
            report: report.unwrap_or_default(),
            loads: figures,
            cpu: Vec::new(),
            memory_before,
            memory: None,
            context_switches: None,
            server_cpu_ns: 0,
            server_requests: None,
            server_refused: None,
            server_exhausted: None,
            worker_connections: Vec::new(),
            server_failed: None,
        }
    }

    fn first_cpu(&self) -> Option<CpuTime> {
        self.cpu.first().copied().flatten()
    }

    fn last_cpu(&self) -> Option<CpuTime> {
        self.cpu.last().copied().flatten()
    }

    /// CPU time of the server over all slices.
    pub(super) fn server_slices_ns(&self) -> Option<u64> {
        let (first, last) = self.first_cpu().zip(self.last_cpu())?;
        Some(last.total_ns().saturating_sub(first.total_ns()))
    }
}

/// The reason why an arm was not run, which is no failure.
#[derive(Debug)]
pub(crate) struct Skipped(pub(crate) String);

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "skipped: {}", self.0)
    }
}

impl std::error::Error for Skipped {}

/// The results of one block.
#[derive(Default)]
pub struct BlockOutcome {
    /// A row for each slice.
    pub slices: Vec<SliceRow>,
    /// A row for each arm.
    pub blocks: Vec<BlockRow>,
    /// A row for each host; none if there is only this.
    pub hosts: Vec<HostRow>,
    /// The latencies of each arm, in the order of `blocks`.
    pub latencies: Vec<DurationHistogram>,
    /// Wrong replies, and counts that differ between client and server.
    pub violations: Vec<String>,
}

impl BlockOutcome {
    /// The latencies as lines of the interval log, for the interval from `start` of this `length`.
    #[must_use]
    pub fn interval_log(&self, start: Duration, length: Duration) -> String {
        let rows = self.blocks.iter().zip(&self.latencies);
        rows.filter(|(row, _)| row.is_ok())
            .map(|(row, histogram)| {
                interval_line(&row.condition().tag(&row.model), start, length, histogram)
            })
            .collect()
    }
}

/// A block that has run, with the figures that all its arms share.
pub(crate) struct Block<'a> {
    pub(crate) condition: &'a Condition,
    pub(crate) schedule: &'a Schedule,
    pub(crate) number: u32,
    /// Start of the schedule, on the clock of this host.
    pub(crate) start_ns: u64,
    pub(crate) hosts: &'a Hosts,
    /// The figures of each host's machine, first that of the servers.
    pub(crate) machines: Vec<MachineWatch>,
    /// Largest error of the clock of any host; `None` if there is only this.
    pub(crate) clock_bound_ns: Option<u64>,
    /// The clocks of the hosts before and after the block.
    pub(crate) clocks: [&'a Clocks; 2],
}

impl Block<'_> {
    pub(crate) fn outcome(&self, arms: &[anyhow::Result<Observed>]) -> BlockOutcome {
        let mut outcome = BlockOutcome::default();
        let other_cpus = self.other_cpus(arms);

        for (index, observed) in arms.iter().enumerate() {
            let mut row = self.empty_row(&self.condition.arms[index].name);
            row.rate_per_second = self
                .condition
                .arrivals(index)
                .map(|arrivals| arrivals.per_second);
            match observed {
                Ok(observed) => {
                    self.add_measured(&mut outcome, row, index, observed, &other_cpus);
                }
                Err(error) => {
                    row.status = status_of(error);
                    outcome.blocks.push(row);
                    outcome.latencies.push(WindowReport::default().latency);
                }
            }
        }

        outcome.slices.sort_by_key(|row| row.start_ns);
        outcome.hosts = self.host_rows(arms, &other_cpus);
        outcome
    }

    /// CPUs that others kept busy on each host, first that of the servers.
    fn other_cpus(&self, arms: &[anyhow::Result<Observed>]) -> Vec<Option<f64>> {
        let mut own_ns = vec![0; self.machines.len()];
        for arm in arms.iter().flatten() {
            own_ns[0] += arm.server_slices_ns().unwrap_or(0);
            for load in &arm.loads {
                // A single host has servers and clients.
                let host = (load.share.host + 1) % self.machines.len().max(1);
                own_ns[host] += load.cpu_ns;
            }
        }

        let machines = self.machines.iter().enumerate();
        machines
            .map(|(host, machine)| {
                let together = self.hosts.sharing_a_kernel(host);
                machine.other_cpus(together.map(|host| own_ns[host]).sum())
            })
            .collect()
    }

    /// Adds the rows of a measured arm. Others kept `other_cpus` busy on each host.
    fn add_measured(
        &self,
        outcome: &mut BlockOutcome,
        mut row: BlockRow,
        index: usize,
        observed: &Observed,
        other_cpus: &[Option<f64>],
    ) {
        let total = observed.report.total();
        let slots = self.schedule.slots_of(index).enumerate();
        let slices: Vec<SliceRow> = slots
            .map(|(nth, slot)| self.slice_row(&row.model, observed, nth, slot))
            .collect();
        let rates: Vec<f64> = slices
            .iter()
            .map(|slice| slice.throughput_per_second)
            .collect();

        row.throughput_per_second = median(&rates);
        self.fill_counts(&mut row, &total, observed);
        let counts_requests = self.condition.arms[index].counts_requests();
        row.server_requests = observed.server_requests.filter(|_| counts_requests);
        fill_times(&mut row, &total);
        self.fill_cpu(&mut row, index, observed);
        row.other_cpus = other_cpus[0];
        self.fill_memory(&mut row, observed);

        let overran = slices.iter().filter(|slice| slice.overrun_ns > 0).count();
        let overran = overran as f64 > OVERRUN * slices.len() as f64;
        row.validity = self.validity(&row, &total, (index, observed), overran);
        let mut machines = self.machines.iter().zip(other_cpus);
        if machines.any(|(machine, others)| machine.disturbed(*others)) {
            row.validity.insert(ValidityFlag::Disturbed);
        }

        let violations = row.violations(&observed.report.messages);
        outcome.violations.extend(violations);
        outcome.slices.extend(slices);
        outcome.latencies.push(total.latency);
        outcome.blocks.push(row);
    }

    fn empty_row(&self, model: &str) -> BlockRow {
        BlockRow {
            schema_version: SCHEMA_VERSION,
            scenario: self.condition.scenario.name.clone(),
            clients: self.condition.clients,
            driver: self.condition.driver,
            placement: self.condition.placement,
            load_percent: self.condition.load_percent,
            traffic: self.condition.traffic.clone(),
            step: self.condition.step,
            model: model.to_owned(),
            block: self.number,
            ..BlockRow::default()
        }
    }

    fn slice_row(&self, model: &str, observed: &Observed, nth: usize, slot: usize) -> SliceRow {
        let window = self.schedule.window(slot);
        let seen = &observed.report.windows[nth];
        let measured_ns = window.end_ns - window.measure_ns;
        let (round, position) = self.schedule.place(slot);
        let number = |index: usize| u32::try_from(index + 1).unwrap_or(u32::MAX);
        let next_slice_ns = self.start_ns + self.schedule.next_start_ns(slot);
        let latency = Percentiles::of(&seen.latency, seen.lost);
        let reading = |nth: usize| observed.cpu.get(nth).copied().flatten();
        let cpu = reading(nth).zip(reading(nth + 1));

        SliceRow {
            schema_version: SCHEMA_VERSION,
            scenario: self.condition.scenario.name.clone(),
            clients: self.condition.clients,
            driver: self.condition.driver,
            placement: self.condition.placement,
            load_percent: self.condition.load_percent,
            traffic: self.condition.traffic.clone(),
            step: self.condition.step,
            model: model.to_owned(),
            block: self.number,
            round: number(round),
            position: number(position),
            start_ns: window.measure_ns,
            measured_ns,
            planned: seen.planned,
            answered: seen.answered,
            failed: seen.failed(),
            unsent: seen.unsent,
            errors: seen.errors.clone(),
            replies: seen.replies_in_window,
            throughput_per_second: seen.replies_in_window as f64 * 1e9 / measured_ns as f64,
            latency_p50_ns: latency.p50,
            latency_p99_ns: latency.p99,
            connect_p50_ns: seen.connect.quantile(0, 0.5),
            cpu_ns: cpu.map(|(before, after)| after.total_ns().saturating_sub(before.total_ns())),
            overrun_ns: seen.last_ns.saturating_sub(next_slice_ns),
        }
    }

    fn fill_counts(&self, row: &mut BlockRow, total: &WindowReport, observed: &Observed) {
        let report = &observed.report;
        let failed = observed.server_failed.clone();
        if let Some(reason) = failed.or_else(|| self.nobody_served(total, report)) {
            row.status = BlockStatus::Failed(reason);
        }
        row.planned = total.planned;
        row.answered = total.answered;
        row.failed = total.failed();
        row.unsent = total.unsent;
        row.errors = total.errors.clone();
        row.clients_never_served = report.clients_never_served();
        row.jain_index = report.jain_index();
        row.client_least_requests = report.answered_by_client.values().min().copied();
        row.client_most_requests = report.answered_by_client.values().max().copied();
        if row.clients_never_served == 0 {
            row.first_reply_max_ns = report.first_reply_by_client.values().max().copied();
        }

        // A ramp-up would be measured in place of the server.
        let is_at_once = self.condition.scenario.traffic.ramp_up.0.is_zero();
        if self.is_lasting() && is_at_once && report.connecting_ns > 0 {
            let connected = total.connections.min(u64::from(self.condition.clients));
            row.connected_per_second = Some(connected as f64 * 1e9 / report.connecting_ns as f64);
        }

        let workers = &observed.worker_connections;
        row.worker_least_connections = workers.iter().min().copied();
        row.worker_most_connections = workers.iter().max().copied();
        row.worker_jain_index = jain_index(workers);

        row.server_cpu_ns = Some(observed.server_cpu_ns);
        let machine = &self.machines[0];
        row.stall_max_ns = machine.stall_max_ns;
        row.steal_ns = machine.steal_ns;
        row.cpu_pressure_ns = machine.pressure_ns;
        row.idle_cpus = machine.idle_ns.map(|idle| machine.cpus(idle));
        row.hiccups = total.hiccups;
        self.fill_hosts(row, total);
    }

    /// Fills in the columns of hosts, which stay empty on one host.
    fn fill_hosts(&self, row: &mut BlockRow, total: &WindowReport) {
        let Some(apart) = self.hosts.apart() else {
            return;
        };

        row.load_hosts = Some(apart.loads().len() as u64);
        row.network_rtt_ns = (!total.connect.is_empty()).then(|| total.connect.min());
        row.clock_bound_ns = self.clock_bound_ns;
    }

    /// Whether connections last for the whole block, that is without churn.
    fn is_lasting(&self) -> bool {
        let traffic = &self.condition.scenario.traffic;
        traffic.requests_per_connection.is_none()
    }

    /// The failure of an arm that answered none of its clients. Starved clients are a result only beside clients
    /// that were served.
    ///
    /// Every client must have asked: on a machine that stood still, some have not, and nobody is to blame.
    fn nobody_served(&self, total: &WindowReport, report: &LoadReport) -> Option<String> {
        let traffic = &self.condition.scenario.traffic;
        let clients = self.condition.clients;
        let asking = traffic.active_clients.unwrap_or(clients).min(clients);
        let is_failure = total.answered == 0 && report.clients_never_served() >= u64::from(asking);
        is_failure.then(|| unanswered(total, report))
    }

    /// Time in which an arm was under load.
    pub(super) fn load_ns(&self, arm: usize) -> f64 {
        let effort = &self.condition.effort;
        let slices = self.schedule.slots_of(arm).count() as u64;
        (slices * (effort.ramp.ns() + effort.slice.ns())) as f64
    }

    fn fill_cpu(&self, row: &mut BlockRow, arm: usize, observed: &Observed) {
        let load_ns = self.load_ns(arm);
        row.client_cpus = Some(observed.report.cpu_ns as f64 / load_ns);
        let Some((first, last)) = observed.first_cpu().zip(observed.last_cpu()) else {
            return;
        };

        let used = |read: fn(&CpuTime) -> u64| read(&last).saturating_sub(read(&first)) as f64;
        row.server_cpus = Some(used(CpuTime::total_ns) / load_ns);
        if row.answered > 0 {
            let each = |ns: f64| Some(ns / row.answered as f64);
            row.cpu_ns_per_request = each(used(CpuTime::total_ns));
            row.cpu_user_ns_per_request = each(used(|cpu| cpu.user_ns));
            row.cpu_system_ns_per_request = each(used(|cpu| cpu.system_ns));
            // The count is of the threads and processes that existed all the time.
            let model = self.condition.arms[arm].model();
            let lasting = self.is_lasting()
                || model.is_some_and(|model| !model.family.starts_for_each_connection());
            row.context_switches_per_request = observed
                .context_switches
                .filter(|_| lasting)
                .and_then(|count| each(count as f64));
        }
    }

    fn fill_memory(&self, row: &mut BlockRow, observed: &Observed) {
        row.memory_at_rest_bytes = observed
            .memory_before
            .and_then(|memory| memory.pss_anon_bytes);
        let Some((before, with)) = observed.memory_before.zip(observed.memory) else {
            return;
        };

        row.server_processes = Some(with.processes);
        row.server_threads = Some(with.threads);

        // Under churn there is no number of connections to divide by.
        if !self.is_lasting() {
            return;
        }

        let each = |with: u64, without: u64| {
            Some((with as f64 - without as f64) / f64::from(self.condition.clients))
        };

        row.memory_bytes_per_connection = with
            .pss_anon_bytes
            .zip(before.pss_anon_bytes)
            .and_then(|(with, before)| each(with, before));
        row.kernel_stack_bytes_per_connection =
            each(with.kernel_stack_bytes(), before.kernel_stack_bytes());
        row.socket_bytes_per_connection = self.hosts.socket_bytes().map(|bytes| bytes as f64);
        row.page_table_bytes_per_connection = each(with.page_table_bytes, before.page_table_bytes);
    }

    /// The conditions that limited or disturbed an arm.
    fn validity(
        &self,
        row: &BlockRow,
        total: &WindowReport,
        (arm, observed): (usize, &Observed),
        overran: bool,
    ) -> Validity {
        let some = |count: Option<u64>| count.is_some_and(|count| count > 0);
        let before_start = &observed.report.errors_before_start;
        let failed = |kind| total.errors.count(kind) + before_start.count(kind) > 0;
        let mut validity = Validity::default();
        if overran {
            validity.insert(ValidityFlag::Overran);
        }

        if self.generator_was_the_limit(row, arm, observed) {
            validity.insert(ValidityFlag::Generator);
        }

        // One late host is enough: its clients put another load on the server.
        if observed.loads.iter().any(|load| self.was_late(load)) {
            validity.insert(ValidityFlag::Late);
        }

        if self.is_clock_unknown(self.clock_bound_ns) {
            validity.insert(ValidityFlag::Clock);
        }

        if failed(ErrorKind::NoPorts) {
            validity.insert(ValidityFlag::Ports);
        }

        if failed(ErrorKind::NoFiles) || some(observed.server_exhausted) {
            validity.insert(ValidityFlag::Files);
        }

        if some(observed.server_refused) || before_start.total() > 0 {
            validity.insert(ValidityFlag::Refused);
        }

        validity
    }

    /// Whether a load process was told the start, or sent requests, too late.
    pub(super) fn was_late(&self, load: &LoadFigures) -> bool {
        // Up to the end of the first ramp, nothing is measured.
        load.late_ns > self.condition.effort.ramp.ns()
            || load.late as f64 > LATE * load.answered as f64
    }

    /// Whether an error of a clock blurs the gaps between slices.
    pub(super) fn is_clock_unknown(&self, bound_ns: Option<u64>) -> bool {
        let bounds = bound_ns.zip(self.schedule.least_gap_ns());
        bounds.is_some_and(|(bound, gap)| bound > gap / CLOCK_SHARE)
    }

    /// Whether the clients used all the CPU time they could have while the server did not. Threads and
    /// processes that share CPUs with the server never count: each side takes CPU time from the other.
    fn generator_was_the_limit(&self, row: &BlockRow, arm: usize, observed: &Observed) -> bool {
        if self.hosts.apart().is_some() {
            // One load host without CPU time is enough to slow down its clients.
            let mut loads = observed.loads.iter();
            return loads.any(|load| self.load_was_the_limit(load, arm, row.server_cpus));
        }
        let Some((clients, server)) = row.client_cpus.zip(row.server_cpus) else {
            return false;
        };

        let Ok((server_cpus, client_cpus)) = self.condition.placement.cpus() else {
            return false;
        };

        let one_thread = self.condition.driver == Driver::Tasks;
        if self.condition.placement != Placement::Split {
            return one_thread && clients >= SATURATED && server < SATURATED;
        }

        let all = if one_thread { 1 } else { client_cpus.len() };
        clients >= SATURATED * all as f64 && server < SATURATED * server_cpus.len() as f64
    }

    /// The same of a load host, whose clients have CPUs of their own.
    pub(super) fn load_was_the_limit(
        &self,
        load: &LoadFigures,
        arm: usize,
        server_cpus: Option<f64>,
    ) -> bool {
        let Some((apart, server)) = self.hosts.apart().zip(server_cpus) else {
            return false;
        };
        let cpus = match self.condition.driver {
            Driver::Tasks => 1,
            Driver::Threads | Driver::Processes => apart.loads()[load.share.host].cpus(),
        };
        let clients = load.cpu_ns as f64 / self.load_ns(arm);
        clients >= SATURATED * cpus as f64 && server < SATURATED * apart.server().cpus() as f64
    }
}

/// The status of an arm that could not be measured.
fn status_of(error: &anyhow::Error) -> BlockStatus {
    match error.downcast_ref::<Skipped>() {
        Some(Skipped(reason)) => BlockStatus::Skipped(reason.clone()),
        None => BlockStatus::Failed(format!("{error:#}").replace('\n', " ")),
    }
}

/// The errors of an arm that answered no request at all, in words.
fn unanswered(total: &WindowReport, report: &LoadReport) -> String {
    let mut errors = total.errors.clone();
    errors.merge(&report.errors_before_start);
    let kinds: Vec<String> = errors
        .iter()
        .map(|(kind, count)| {
            let message = report.messages.get(&kind);
            let message = message.map_or_else(String::new, |message| format!(", {message}"));
            format!("{} ({count}{message})", kind.words())
        })
        .collect();
    format!("no request was answered: {}", kinds.join("; "))
}

fn fill_times(row: &mut BlockRow, total: &WindowReport) {
    let latency = Percentiles::of(&total.latency, total.lost);
    row.latency_p50_ns = latency.p50;
    row.latency_p90_ns = latency.p90;
    row.latency_p99_ns = latency.p99;
    row.latency_p999_ns = latency.p999;
    row.latency_p9999_ns = total.latency.quantile(total.lost, 0.9999);
    row.latency_max_ns = latency.max;
    let service = Percentiles::of(&total.service, total.lost - total.lost_unsent);
    row.service_p50_ns = service.p50;
    row.service_p99_ns = service.p99;
    let lag = Percentiles::of(&total.lag, 0);
    row.lag_p50_ns = lag.p50;
    row.lag_p99_ns = lag.p99;
    row.connect_p50_ns = total.connect.quantile(0, 0.5);
}
