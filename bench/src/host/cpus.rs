//! CPUs: the placement of servers and clients, and the sleep states of idle ones.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::str::FromStr;

use anyhow::{Context, bail};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// The CPUs on which servers and clients run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Placement {
    /// All, as the scheduler likes.
    #[default]
    None,
    /// The first half for servers, the second for clients.
    Split,
    /// One for everything.
    Same,
    /// Servers and clients on hosts of their own.
    Apart,
}

impl Placement {
    /// Every placement that can be chosen; [`Placement::Apart`] comes from hosts.
    pub const ALL: [Placement; 3] = [Placement::None, Placement::Split, Placement::Same];

    /// The name in options, files and columns.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Placement::None => "none",
            Placement::Split => "split",
            Placement::Same => "same",
            Placement::Apart => "apart",
        }
    }

    /// The CPUs of servers and of clients; empty for no restriction.
    pub fn cpus(self) -> anyhow::Result<(Vec<usize>, Vec<usize>)> {
        let all = allowed_cpus()?;
        Ok(match self {
            Placement::None | Placement::Apart => (Vec::new(), Vec::new()),
            Placement::Same => (vec![all[0]], vec![all[0]]),
            Placement::Split if all.len() < 2 => {
                bail!("placement split needs at least two CPUs, and there is one")
            }
            Placement::Split => {
                let (servers, clients) = all.split_at(all.len() / 2);
                (servers.to_vec(), clients.to_vec())
            }
        })
    }
}

impl std::fmt::Display for Placement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Placement {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Placement::ALL
            .into_iter()
            .find(|placement| placement.name() == name)
            .ok_or_else(|| format!("unknown placement '{name}' (none, split, same)"))
    }
}

/// A list of CPUs, as in `0-3,8`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuList(Vec<usize>);

impl CpuList {
    /// The CPUs, in ascending order.
    #[must_use]
    pub fn cpus(&self) -> &[usize] {
        &self.0
    }
}

impl FromStr for CpuList {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut cpus = BTreeSet::new();
        for range in text.split(',') {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let [first, last] = [first, last].map(|cpu| cpu.trim().parse::<usize>().ok());
            let range = first.zip(last).filter(|(first, last)| first <= last);
            match range {
                Some((first, last)) if last < CpuSet::count() => cpus.extend(first..=last),
                _ => return Err(format!("'{text}' is not a list of CPUs, as in 0-3,8")),
            }
        }
        Ok(CpuList(cpus.into_iter().collect()))
    }
}

/// CPUs in ascending order as the text of a list, such as `0-3,8`.
#[must_use]
pub fn cpu_ranges(cpus: &[usize]) -> String {
    let ranges = cpus.chunk_by(|a, b| a + 1 == *b).map(|range| match range {
        [only] => only.to_string(),
        range => format!("{}-{}", range[0], range[range.len() - 1]),
    });
    ranges.collect::<Vec<_>>().join(",")
}

/// Pins the calling thread, and the threads and processes that it starts afterwards, to these CPUs.
///
/// In a process with one thread that is the whole process. Fails with `EINVAL` if none of the CPUs
/// exists, or a number is 1,024 or more.
pub fn pin_current_process(cpus: &[usize]) -> nix::Result<()> {
    let mut set = CpuSet::new();
    for &cpu in cpus {
        set.set(cpu)?;
    }
    sched_setaffinity(Pid::from_raw(0), &set)
}

/// Calls a function while the calling thread is pinned to these CPUs, if there are any: what it starts stays there.
///
/// Fails as [`pin_current_process`] does.
pub fn while_pinned<T>(cpus: &[usize], start: impl FnOnce() -> T) -> nix::Result<T> {
    if cpus.is_empty() {
        return Ok(start());
    }
    let before = sched_getaffinity(Pid::from_raw(0))?;
    pin_current_process(cpus)?;
    let started = start();
    sched_setaffinity(Pid::from_raw(0), &before)?;
    Ok(started)
}

/// The CPUs on which the calling thread may run, in ascending order.
///
/// Fails with `EINVAL` on a machine with more than 1,024 CPUs.
pub fn allowed_cpus() -> nix::Result<Vec<usize>> {
    let set = sched_getaffinity(Pid::from_raw(0))?;
    Ok((0..CpuSet::count())
        .filter(|&cpu| set.is_set(cpu) == Ok(true))
        .collect())
}

/// The driver of the sleep states of idle CPUs, such as `intel_idle`; `None` without one.
#[must_use]
pub fn idle_driver() -> Option<String> {
    let name = fs::read_to_string("/sys/devices/system/cpu/cpuidle/current_driver").ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty() && name != "none")
}

/// Keeps idle CPUs out of their sleep states (C-states) while it exists. They poll for work instead, so a
/// wake-up takes about a microsecond. Polling is no load of any process, and counts as idle time.
///
/// Source: `Documentation/power/pm_qos_interface.rst` of Linux; `cyclictest` does the same.
#[derive(Debug)]
pub struct CpuIdleGuard {
    _request: File,
}

impl CpuIdleGuard {
    /// The file each of whose open descriptors requests a wake-up latency.
    pub const FILE: &str = "/dev/cpu_dma_latency";

    /// A guard, if it is `wanted`.
    pub(crate) fn hold_if(wanted: bool) -> anyhow::Result<Option<Self>> {
        wanted.then(Self::hold).transpose().with_context(|| {
            format!(
                "cannot keep CPUs awake by {}; run as root, or leave out --no-cpu-idle",
                Self::FILE
            )
        })
    }

    /// A guard. Fails if the file is missing or may be written only by root, and without a driver that
    /// honours it.
    pub fn hold() -> io::Result<Self> {
        if idle_driver().is_none() {
            return Err(io::Error::other("the kernel has no cpuidle driver"));
        }

        let mut request = File::options().write(true).open(Self::FILE)?;
        let microseconds: i32 = 0;
        request.write_all(&microseconds.to_ne_bytes())?;
        Ok(CpuIdleGuard { _request: request })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::errno::Errno;
    use std::thread;

    #[test]
    fn lists_of_cpus_round_trip() {
        for (text, same) in [
            ("0-3,8", "0-3,8"),
            ("8, 1,0", "0-1,8"),
            ("5", "5"),
            ("2-2,3", "2-3"),
        ] {
            let list: CpuList = text.parse().unwrap();
            assert_eq!(cpu_ranges(list.cpus()), same);
        }
        for text in ["", "a", "3-1", "0-", "-1", "0,,1", "1024", "0-9999999999"] {
            assert!(text.parse::<CpuList>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_pinned_thread_may_run_where_it_was_pinned() {
        // In a thread of its own, so that no other test is pinned.
        let pinned = thread::spawn(|| {
            let last = *allowed_cpus()?.last().expect("at least one CPU");
            pin_current_process(&[last])?;
            Ok::<_, Errno>((allowed_cpus()?, last))
        });
        let (allowed, last) = pinned.join().expect("no panic").expect("a CPU of ours");
        assert_eq!(allowed, [last]);
        assert_eq!(pin_current_process(&[]), Err(Errno::EINVAL));
        assert_eq!(pin_current_process(&[1 << 20]), Err(Errno::EINVAL));
        assert_eq!(while_pinned(&[1 << 20], || ()), Err(Errno::EINVAL));
    }

    #[test]
    fn what_starts_while_pinned_stays_there() {
        let before = allowed_cpus().unwrap();
        let last = *before.last().unwrap();

        let started = while_pinned(&[last], || thread::spawn(allowed_cpus)).unwrap();
        assert_eq!(started.join().unwrap(), Ok(vec![last]));
        assert_eq!(allowed_cpus(), Ok(before.clone()));

        assert_eq!(while_pinned(&[], allowed_cpus), Ok(Ok(before)));
    }
}
