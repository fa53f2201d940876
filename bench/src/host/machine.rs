//! The machine as a whole: its CPU time, pressure, steal and CPU quota, and whether something disturbed a
//! measurement.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread::JoinHandle;

use echobench_clients::clock;
use serde::{Deserialize, Serialize};

use super::cpu_quota;
use super::process_tree::{TICK_NS, field, own_cpu_ns, reaped_cpu_ns};
use super::signals::interrupted;
use super::threads;

/// Interval of wake-ups of the watch.
const WATCH_INTERVAL_NS: u64 = 5_000_000;
/// Delay of a wake-up from which on the machine stood still: longer than a scheduler makes a thread wait
/// that has a thousand others to run.
const STALL_NS: u64 = 200_000_000;
/// Shares of CPU time from which on something else disturbs a measurement: the one definition of the word.
pub(crate) struct DisturbanceLimits {
    /// Work of other processes.
    pub(crate) other_work: f64,
    /// CPU time that the hypervisor gave to others.
    pub(crate) stolen: f64,
}

impl DisturbanceLimits {
    /// Of all CPUs, for a comparison of arms: their slices alternate, so drift meets all of them alike.
    pub(crate) const COMPARISON: Self = DisturbanceLimits {
        other_work: 0.15,
        stolen: 0.05,
    };

    /// Of one CPU, for a single load whose own latency is the result: nothing cancels out.
    pub(crate) const LOAD: Self = DisturbanceLimits {
        other_work: 0.10,
        stolen: 0.01,
    };
}

/// Kernel memory of one end of an open TCP connection, by the sizes of its slab objects: the socket, its
/// inode, file and directory entry. Buffers add to it while they hold data.
///
/// `None` if `/proc/slabinfo` cannot be read, which only root may.
#[must_use]
pub fn socket_bytes() -> Option<u64> {
    // The sizes of a running kernel do not change, and its table is long.
    static BYTES: LazyLock<Option<u64>> = LazyLock::new(read_socket_bytes);
    *BYTES
}

fn read_socket_bytes() -> Option<u64> {
    let table = fs::read_to_string("/proc/slabinfo").ok()?;
    let size = |cache: &str| -> Option<u64> {
        let line = table
            .lines()
            .find(|line| line.split_whitespace().next() == Some(cache))?;
        line.split_whitespace().nth(3)?.parse().ok()
    };
    Some(size("TCP")? + size("sock_inode_cache")? + size("filp")? + size("dentry")?)
}

/// The state of the whole machine. All figures but the load average are totals since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Time in which some task waited for a CPU (pressure stall information); `None` on kernels
    /// without it.
    pub cpu_pressure_ns: Option<u64>,
    /// CPU time in which the hypervisor ran something else, in ticks.
    pub steal_ns: Option<u64>,
    /// CPU time, busy or idle, in ticks.
    pub total_cpu_ns: Option<u64>,
    /// CPU time without anything to run, in ticks; waiting for disks is included.
    pub idle_cpu_ns: Option<u64>,
    /// The average number of runnable or uninterruptible tasks over the last minute.
    pub load_average: Option<f64>,
    /// Time for which the CPU quota of this process's control group has kept it from CPUs, since the
    /// group exists; `None` without such a group.
    #[serde(default)]
    pub throttled_ns: Option<u64>,
}

impl Machine {
    /// The present state; figures that cannot be read are `None`.
    #[must_use]
    pub fn read() -> Self {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let ticks = machine_ticks(&text("/proc/stat"));
        let nanoseconds = |ticks: u64| ticks * *TICK_NS;
        Self {
            cpu_pressure_ns: cpu_pressure_ns(&text("/proc/pressure/cpu")),
            steal_ns: ticks.map(|ticks| nanoseconds(ticks[STEAL])),
            total_cpu_ns: ticks.map(|ticks| nanoseconds(ticks.iter().sum())),
            idle_cpu_ns: ticks.map(|ticks| nanoseconds(ticks[IDLE] + ticks[IO_WAIT])),
            load_average: field(text("/proc/loadavg").as_bytes(), ""),
            throttled_ns: cpu_quota::throttled_ns(),
        }
    }
}

/// Positions in the first line of `/proc/stat`, from user time to steal.
const IDLE: usize = 3;
const IO_WAIT: usize = 4;
const STEAL: usize = 7;

/// The times of all CPUs since the start, without those of guests, which are part of user time.
fn machine_ticks(stat: &str) -> Option<[u64; STEAL + 1]> {
    let rest = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let mut words = rest.split_ascii_whitespace();
    let mut ticks = [0; STEAL + 1];
    for tick in &mut ticks {
        *tick = words.next()?.parse().ok()?;
    }
    Some(ticks)
}

fn cpu_pressure_ns(pressure: &str) -> Option<u64> {
    let line = pressure.lines().find(|line| line.starts_with("some "))?;
    let (_, total_us) = line.rsplit_once("total=")?;
    Some(total_us.trim().parse::<u64>().ok()? * 1_000)
}

/// Figures of the whole machine over a block.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct MachineWatch {
    pub(crate) start_ns: u64,
    span_ns: u64,
    busy_ns: Option<u64>,
    pub(crate) idle_ns: Option<u64>,
    pub(crate) steal_ns: Option<u64>,
    pub(crate) pressure_ns: Option<u64>,
    throttled_ns: Option<u64>,
    pub(crate) stall_max_ns: u64,
}

impl MachineWatch {
    /// Watches from one instant to another, or until `ends_early` is true.
    pub(crate) fn between(start_ns: u64, end_ns: u64, ends_early: impl Fn() -> bool) -> Self {
        let goes_on = |next_ns| next_ns < end_ns && !ends_early();
        let mut watch = Self::while_true(start_ns, goes_on);
        watch.span_ns = end_ns - start_ns;
        watch
    }

    /// Watches from an instant on, while `goes_on` is true of the instant of the next wake-up.
    pub(crate) fn while_true(start_ns: u64, goes_on: impl Fn(u64) -> bool) -> Self {
        clock::sleep_until(start_ns);
        let before = Machine::read();

        // Steal time may read 0 through a freeze of the whole machine, but the clock shows it.
        let mut stall_max_ns = 0;
        let mut next_ns = start_ns + WATCH_INTERVAL_NS;

        while goes_on(next_ns) && !interrupted() {
            clock::sleep_until(next_ns);
            let now = clock::now();
            stall_max_ns = stall_max_ns.max(now - next_ns);
            next_ns = now + WATCH_INTERVAL_NS;
        }

        let after = Machine::read();
        let grown = |read: fn(&Machine) -> Option<u64>| read(&after)?.checked_sub(read(&before)?);
        let idle_ns = grown(|machine| machine.idle_cpu_ns);
        let total_ns = grown(|machine| machine.total_cpu_ns);
        MachineWatch {
            start_ns,
            span_ns: clock::now().saturating_sub(start_ns).max(1),
            busy_ns: total_ns
                .zip(idle_ns)
                .map(|(total, idle)| total.saturating_sub(idle)),
            idle_ns,
            steal_ns: grown(|machine| machine.steal_ns),
            pressure_ns: grown(|machine| machine.cpu_pressure_ns),
            throttled_ns: grown(|machine| machine.throttled_ns),
            stall_max_ns,
        }
    }

    /// Number of CPUs that this CPU time kept busy.
    pub(crate) fn cpus(&self, ns: u64) -> f64 {
        ns as f64 / self.span_ns as f64
    }

    /// Number of CPUs of the machine.
    fn all_cpus(&self) -> Option<f64> {
        let (idle, busy) = self.idle_ns.zip(self.busy_ns)?;
        Some(self.cpus(idle + busy))
    }

    /// Number of CPUs kept busy by processes outside of the experiment, whose own used `own_ns`.
    pub(crate) fn other_cpus(&self, own_ns: u64) -> Option<f64> {
        Some(self.cpus(self.busy_ns?.saturating_sub(own_ns)))
    }

    /// Whether something else disturbed the block: other processes, which used `other_cpus`, the
    /// hypervisor, a CPU quota, or a stop of the machine.
    pub(crate) fn disturbed(&self, other_cpus: Option<f64>) -> bool {
        let cpus = self.all_cpus().unwrap_or(1.0);
        let limits = DisturbanceLimits::COMPARISON;
        let others = other_cpus.unwrap_or(0.0) > limits.other_work * cpus;
        let stolen = self
            .steal_ns
            .is_some_and(|ns| self.cpus(ns) > limits.stolen * cpus);
        let throttled = self.throttled_ns.is_some_and(|ns| ns > 0);
        others || stolen || throttled || self.stall_max_ns >= STALL_NS
    }
}

/// A watch for disturbances in a thread of its own.
pub struct DisturbanceWatch {
    stop: Arc<AtomicBool>,
    own_before_ns: u64,
    watcher: JoinHandle<MachineWatch>,
}

impl DisturbanceWatch {
    /// Watches from now on.
    pub fn start() -> anyhow::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let is_stopped = Arc::clone(&stop);
        let goes_on = move |_| !is_stopped.load(Ordering::Relaxed);
        let own_before_ns = own_cpu_ns() + reaped_cpu_ns();
        let watcher = threads::spawn("watch the machine", move || {
            MachineWatch::while_true(clock::now(), goes_on)
        })?;

        Ok(DisturbanceWatch {
            stop,
            own_before_ns,
            watcher,
        })
    }

    /// Whether the machine was disturbed until now. Every process of the experiment has to be reaped
    /// before: the CPU time of one that is not counts as that of others.
    #[must_use]
    pub fn disturbed(self) -> bool {
        self.stop.store(true, Ordering::Relaxed);
        let machine = self.watcher.join().expect("the watch does not panic");
        let own_ns = own_cpu_ns() + reaped_cpu_ns();
        machine.disturbed(machine.other_cpus(own_ns.saturating_sub(self.own_before_ns)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_files_are_understood() {
        let stat = "cpu  10 1 20 300 40 0 5 7 9 9\ncpu0 10 1 20 300 40 0 5 7 9 9\n";
        assert_eq!(machine_ticks(stat), Some([10, 1, 20, 300, 40, 0, 5, 7]));
        assert_eq!(machine_ticks("cpu  1 2 3\n"), None);
        let pressure = "some avg10=0.00 avg60=0.00 avg300=0.15 total=4923670\n\
            full avg10=0.00 avg60=0.00 avg300=0.00 total=0\n";
        assert_eq!(cpu_pressure_ns(pressure), Some(4_923_670_000));
        assert_eq!(cpu_pressure_ns(""), None);
        assert_eq!(field(b"0.42 0.40 0.38 1/99 4242\n", ""), Some(0.42));
    }

    #[test]
    fn the_machine_only_counts_up() {
        let before = Machine::read();
        let after = Machine::read();
        assert!(before.total_cpu_ns.is_some() && before.load_average.is_some());
        assert!(before.total_cpu_ns <= after.total_cpu_ns);
        assert!(before.steal_ns <= after.steal_ns);
        assert!(before.cpu_pressure_ns <= after.cpu_pressure_ns);
        assert!(before.idle_cpu_ns < before.total_cpu_ns);
        assert!(before.throttled_ns <= after.throttled_ns);
    }

    #[test]
    fn a_throttled_block_is_disturbed() {
        let mut watch = MachineWatch {
            start_ns: 0,
            span_ns: 1_000,
            busy_ns: Some(500),
            idle_ns: Some(500),
            steal_ns: Some(0),
            pressure_ns: Some(0),
            throttled_ns: Some(0),
            stall_max_ns: 0,
        };

        assert!(!watch.disturbed(Some(0.0)));
        watch.throttled_ns = Some(1);
        assert!(watch.disturbed(Some(0.0)));
    }
}
