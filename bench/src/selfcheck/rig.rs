//! Servers and loads as processes of their own, each on its CPUs, with the other activity of the machine
//! during each load.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use echobench_clients::{
    Arrivals, Driver, LoadReport, Plan, Spacing, Window, WindowReport, Workload,
};
use serde::Serialize;

use crate::host::cpus::{allowed_cpus, pin_current_process};
use crate::host::machine::{DisturbanceLimits, Machine};
use crate::host::process_tree::{self, own_cpu_ns, reaped_cpu_ns};
use crate::host::time::nanoseconds;
use crate::processes::start::{Server, carry_out};
use crate::scenario::Placement;

/// Warm-up at the begin of each load, which is not measured.
pub(super) const WARMUP: Duration = Duration::from_millis(100);
/// Smallest part of a load without hiccups that can be judged, in percent.
pub(super) const LEAST_CALM: f64 = 50.0;
/// Requests in each window that a hiccup spoils.
const STRETCH: u32 = 4;
/// Smallest limit on the CPU share of other work: the accounts of the kernel may be that far off.
const ACCOUNTING_ERROR: f64 = 0.03;

/// CPUs of servers and loads.
pub(super) struct Rig {
    all: Vec<usize>,
    server: Vec<usize>,
    client: Vec<usize>,
}

impl Rig {
    /// Servers and clients on CPUs of their own where there are two CPUs.
    pub(super) fn new() -> anyhow::Result<Self> {
        let all = allowed_cpus().context("cannot read the CPUs of this process")?;
        let placement = if all.len() < 2 {
            Placement::None
        } else {
            Placement::Split
        };

        let (server, client) = placement.cpus()?;
        Ok(Rig {
            all,
            server,
            client,
        })
    }

    /// Whether servers and clients have CPUs of their own.
    pub(super) fn is_split(&self) -> bool {
        !self.server.is_empty()
    }

    /// Starts this executable as a server with these arguments, and waits until it is ready. To be
    /// called on the main thread, since the server lives as long as the thread that starts it.
    pub(super) fn server(&self, arguments: &[&str]) -> anyhow::Result<Server> {
        // A process inherits the CPUs of the thread that starts it.
        self.pin(&self.server)?;
        let server = Server::start(arguments, |_| Ok(()));
        self.pin(&self.all)?;
        server
    }

    fn pin(&self, cpus: &[usize]) -> anyhow::Result<()> {
        if self.is_split() {
            pin_current_process(cpus).context("cannot pin a process to its CPUs")?;
        }
        Ok(())
    }

    /// Puts one load on a server. `during` is called with the instant at which the windows start, and
    /// may act on the server during the load.
    pub(super) fn load<T>(
        &self,
        server: &Server,
        load: &Load,
        during: impl FnOnce(u64) -> anyhow::Result<T>,
    ) -> anyhow::Result<(LoadOutcome, T)> {
        let before = CpuAccounts::read(server);
        let mut arguments = Vec::new();
        if self.is_split() {
            let list: Vec<_> = self.client.iter().map(usize::to_string).collect();
            arguments.extend(["--cpus".to_owned(), list.join(",")]);
        }

        let plan = load.plan(server.address());
        // The load process is reaped at the end, so that its CPU time is in the accounts.
        let (report, done) = carry_out(&plan, &arguments, |start_ns, _| during(start_ns))?;

        let total = report.total();
        if total.failed() > 0 {
            let why = report.messages.values().next().map_or("", String::as_str);
            bail!(
                "{} of {} requests failed ({why}); is a limit on files or processes too low?",
                total.failed(),
                total.planned
            );
        }

        let (machine, cpu_ns) = CpuAccounts::read(server).since(&before, &report);
        let outcome = LoadOutcome {
            report,
            cpu_ns,
            length: load.length(),
            machine,
        };
        Ok((outcome, done))
    }
}

/// A load of clients.
#[derive(Clone)]
pub(super) struct Load {
    /// Kind of client.
    pub(super) driver: Driver,
    /// Number of clients.
    pub(super) clients: u32,
    /// Requests per second of an open loop; `None` for a closed one.
    pub(super) rate: Option<f64>,
    /// Pause between a reply and the next request of a closed loop.
    pub(super) pause: Duration,
    /// Lengths of the windows, one after the other, after a warm-up of [`WARMUP`].
    pub(super) windows: Vec<Duration>,
}

impl Load {
    /// An open loop in one window.
    pub(super) fn open(driver: Driver, clients: u32, rate: f64, length: Duration) -> Self {
        Load {
            driver,
            clients,
            rate: Some(rate),
            pause: Duration::ZERO,
            windows: vec![length],
        }
    }

    /// A closed loop in one window.
    pub(super) fn closed(driver: Driver, clients: u32, length: Duration) -> Self {
        Load {
            driver,
            clients,
            rate: None,
            pause: Duration::ZERO,
            windows: vec![length],
        }
    }

    /// The same with a pause of each client between a reply and its next request.
    pub(super) fn with_pauses(mut self, pause: Duration) -> Self {
        self.pause = pause;
        self
    }

    /// The same in windows of a few requests each, with one request per `interval`, so that windows with a
    /// hiccup can be left out.
    pub(super) fn in_stretches(mut self, interval: Duration) -> Self {
        let length: Duration = self.windows.iter().sum();
        let stretch = STRETCH * interval;
        let count = (length.as_nanos() / stretch.as_nanos()).max(1);

        self.windows = (0..count).map(|_| stretch).collect();
        self
    }

    fn length(&self) -> Duration {
        WARMUP + self.windows.iter().sum::<Duration>()
    }

    fn plan(&self, target: SocketAddr) -> Plan {
        let mut start_ns = 0;
        let mut windows = Vec::new();

        for (index, length) in self.windows.iter().enumerate() {
            let measure_ns = start_ns + if index == 0 { nanoseconds(WARMUP) } else { 0 };
            let end_ns = measure_ns + nanoseconds(*length);
            windows.push(Window {
                start_ns,
                measure_ns,
                end_ns,
                requests: None,
            });
            start_ns = end_ns;
        }

        let arrivals = self.rate.map(|per_second| Arrivals {
            per_second,
            spacing: Spacing::Constant,
        });
        Plan {
            target,
            driver: self.driver,
            clients: self.clients,
            part: None,
            source_addresses: Vec::new(),
            task_threads: 1,
            workload: Workload {
                arrivals,
                think_ns: nanoseconds(self.pause),
                ..Workload::default()
            },
            windows,
            end_ns: None,
        }
    }
}

/// Outcome of a load.
pub(super) struct LoadOutcome {
    report: LoadReport,
    /// CPU time of the load process and its clients over their whole life.
    cpu_ns: u64,
    length: Duration,
    /// Other activity of the machine.
    pub(super) machine: Disturbance,
}

impl LoadOutcome {
    /// The windows.
    pub(super) fn windows(&self) -> &[WindowReport] {
        &self.report.windows
    }

    /// Other activity of the machine, and the reason why quantile `q` cannot be judged, if any.
    pub(super) fn judge(&self, q: f64) -> (&Disturbance, Option<String>) {
        (&self.machine, self.machine.reason(q))
    }

    /// The part of the load without hiccups.
    pub(super) fn calm(&self) -> CalmPart {
        let windows = self.windows();
        let mut calm = CalmPart {
            requests: WindowReport::default(),
            calm: 0,
            all: windows.len(),
            machine: self.machine,
        };

        for (index, window) in windows.iter().enumerate() {
            let beside = &windows[index.saturating_sub(1)..windows.len().min(index + 2)];
            if beside.iter().all(|window| window.hiccups == 0) {
                calm.requests.add(window);
                calm.calm += 1;
            }
        }
        calm
    }

    /// The last window.
    pub(super) fn last(&self) -> &WindowReport {
        &self.report.windows[self.report.windows.len() - 1]
    }

    /// CPU time of the load as a share of one CPU.
    pub(super) fn cpu_share(&self) -> f64 {
        self.cpu_ns as f64 / nanoseconds(self.length) as f64
    }
}

/// The stretches of a load without a hiccup in them or in the two beside, into which it may reach.
///
/// Hiccups are detected before requests are sent, not by the latency of replies. The share of these
/// stretches is shown, since a generator that kept itself from its CPU would look the same. In a closed loop
/// without pauses no hiccup can be detected, and all stretches are used.
pub(super) struct CalmPart {
    /// Totals of all these stretches.
    pub(super) requests: WindowReport,
    calm: usize,
    all: usize,
    machine: Disturbance,
}

impl CalmPart {
    /// Share of the load, in percent.
    pub(super) fn percent(&self) -> f64 {
        100.0 * self.calm as f64 / self.all.max(1) as f64
    }

    /// Quantile `q` of latency; `None` if too little of the load is left.
    pub(super) fn latency(&self, q: f64) -> Option<f64> {
        latency(&self.requests, q).filter(|_| self.percent() >= LEAST_CALM)
    }

    /// Other activity of the machine, and the reason why quantile `q` cannot be judged, if any.
    pub(super) fn judge(&self, q: f64) -> (&Disturbance, Option<String>) {
        let too_few = self.latency(q).is_none().then(|| {
            format!(
                "{} hiccups: only {:.0} % of the stretches of {STRETCH} requests were without",
                self.machine.hiccups,
                self.percent()
            )
        });
        let disturbance = too_few.or(self.machine.without_hiccups().reason(q));
        (&self.machine, disturbance)
    }
}

/// Activity of the machine beside a load and its server.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Disturbance {
    /// Number of times that something else had the CPU when a request was due, or the CPU slept.
    pub(super) hiccups: u64,
    /// Requests that were due and could not be sent in time.
    unsent: u64,
    /// All requests.
    pub(super) requests: u64,
    /// CPU time of all other work, as a share of one CPU; a little below 0 where the accounts of the
    /// kernel do not agree, `None` if not known.
    foreign_share: Option<f64>,
    /// CPU time that the hypervisor took, as a share of one CPU.
    stolen_share: Option<f64>,
}

impl Disturbance {
    /// Reason why quantile `q` cannot be judged, if any.
    pub(super) fn reason(&self, q: f64) -> Option<String> {
        if self.unsent > 0 {
            return Some(format!("{} requests were not sent in time", self.unsent));
        }

        let percent = |share: f64| format!("{:.0} %", 100.0 * share);
        let limits = DisturbanceLimits::LOAD;
        // Other work that delays as many requests as lie beyond a quantile can move it.
        let limit = (2.0 * (1.0 - q)).clamp(ACCOUNTING_ERROR, limits.other_work);
        if let Some(foreign) = self.foreign_share.filter(|&share| share > limit) {
            return Some(format!("other work took {} of a CPU", percent(foreign)));
        }
        if let Some(stolen) = self.stolen_share.filter(|&share| share > limits.stolen) {
            return Some(format!("the hypervisor took {} of a CPU", percent(stolen)));
        }

        // A hiccup delays one request or several; half as many as lie beyond the quantile move it.
        let few = (1.0 - q) / 2.0 * self.requests as f64;
        (self.hiccups as f64 > few).then(|| {
            format!(
                "{} hiccups in {} requests: something else had the CPU",
                self.hiccups, self.requests
            )
        })
    }

    /// The same for a figure that leaves out hiccups.
    pub(super) fn without_hiccups(&self) -> Self {
        Disturbance {
            hiccups: 0,
            ..*self
        }
    }

    /// The sum of the counts and the larger of the shares.
    pub(super) fn and(&self, other: &Self) -> Self {
        let larger = |a: Option<f64>, b: Option<f64>| a.into_iter().chain(b).reduce(f64::max);
        Disturbance {
            hiccups: self.hiccups + other.hiccups,
            unsent: self.unsent + other.unsent,
            requests: self.requests + other.requests,
            foreign_share: larger(self.foreign_share, other.foreign_share),
            stolen_share: larger(self.stolen_share, other.stolen_share),
        }
    }
}

/// CPU times at one instant.
struct CpuAccounts {
    at: Instant,
    machine: Machine,
    server_ns: u64,
    own_ns: u64,
    reaped_ns: u64,
}

impl CpuAccounts {
    fn read(server: &Server) -> Self {
        let server_ns = process_tree::cpu(server.id()).map_or(0, |cpu| cpu.total_ns());
        CpuAccounts {
            at: Instant::now(),
            machine: Machine::read(),
            server_ns,
            own_ns: own_cpu_ns(),
            reaped_ns: reaped_cpu_ns(),
        }
    }

    /// Other activity of the machine since `before`, and the CPU time of the load: of the processes that
    /// were reaped.
    fn since(&self, before: &Self, report: &LoadReport) -> (Disturbance, u64) {
        let wall = nanoseconds(self.at - before.at) as f64;
        let load_ns = self.reaped_ns.saturating_sub(before.reaped_ns);
        let known = load_ns
            + self.server_ns.saturating_sub(before.server_ns)
            + self.own_ns.saturating_sub(before.own_ns);

        let grown = |field: fn(&Machine) -> Option<u64>| {
            let (now, then) = field(&self.machine).zip(field(&before.machine))?;
            Some(now.saturating_sub(then) as f64)
        };
        let busy = grown(|machine| machine.total_cpu_ns)
            .zip(grown(|machine| machine.idle_cpu_ns))
            .map(|(total, idle)| total - idle);

        let total = report.total();
        let machine = Disturbance {
            hiccups: total.hiccups,
            unsent: total.unsent,
            requests: total.planned,
            foreign_share: busy.map(|busy| (busy - known as f64) / wall),
            stolen_share: grown(|machine| machine.steal_ns).map(|stolen| stolen / wall),
        };
        (machine, load_ns)
    }
}

/// Quantile `q` of latency, in nanoseconds.
pub(super) fn latency(window: &WindowReport, q: f64) -> Option<f64> {
    window.latency.quantile(window.lost, q).map(|ns| ns as f64)
}
