//! The environment record: the machine and the build that a run was made with.
//!
//! No host name, user name or folder of the machine is in the record. A field whose value cannot be
//! determined is `None`, never a guess. Sources: `proc(5)`, `sysfs(5)`,
//! `Documentation/admin-guide/hw-vuln` of Linux.

use super::cpus::idle_driver;
use super::machine::Machine;
use super::machine_key::{CLOCKSOURCE, MachineKey};
use super::network::local_ports;
use super::system_files::{line, non_empty, number, text, value};
use nix::sys::resource::{Resource, getrlimit};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::sync::LazyLock;

/// The environment of a run, as recorded in `run.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Environment {
    /// The version of echobench.
    pub version: String,
    /// The full hash of the commit that the executable was built from; `None` when it was not built
    /// in a checkout of its own.
    pub revision: Option<String>,
    /// Whether the sources differed from that commit when the executable was built; `None` when it
    /// was not built in a checkout of its own.
    pub dirty: Option<bool>,
    /// The version line of the compiler.
    pub rustc: Option<String>,
    /// The kind of build, `release` or `debug`.
    pub profile: Option<String>,
    /// The platform of the build, which names its C library, such as `x86_64-unknown-linux-musl`.
    #[serde(default)]
    pub target: Option<String>,
    /// The SHA-256 of the executable, in hexadecimal.
    pub executable_sha256: Option<String>,
    /// The command line; of absolute paths only the last part.
    pub arguments: Vec<String>,
    /// Time of the record, in RFC 3339, UTC.
    pub started: String,
    /// The kind of the machine.
    pub machine: MachineKey,
    /// The release of the kernel.
    pub kernel: Option<String>,
    /// Source of the kernel's clock, such as `tsc`.
    pub clocksource: Option<String>,
    /// Frequency governor of the first CPU; `None` on machines without one.
    pub scaling_governor: Option<String>,
    /// Driver of the sleep states of idle CPUs, such as `intel_idle`; `None` on machines without one.
    #[serde(default)]
    pub idle_driver: Option<String>,
    /// Whether the run kept idle CPUs out of their sleep states.
    #[serde(default)]
    pub awake: bool,
    /// State that the kernel reports for each vulnerability of the CPU.
    pub mitigations: BTreeMap<String, String>,
    /// The usable memory of the machine.
    pub memory_bytes: Option<u64>,
    /// Limits that a large number of connections may reach.
    pub limits: Limits,
    /// The state of the machine at the start of the run.
    pub before: Machine,
    /// The state of the machine at the end of the run; `None` if it was cut short.
    pub after: Option<Machine>,
}

/// Limits that a large number of connections may reach; each `None` if it cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Open files of a process.
    pub open_files_soft: Option<u64>,
    /// Open files of a process, as far as the limit may be raised.
    pub open_files_hard: Option<u64>,
    /// `net.core.somaxconn`: the longest backlog of a listener.
    pub somaxconn: Option<u64>,
    /// `net.ipv4.ip_local_port_range`: the first and the last port for outgoing connections.
    pub local_ports: Option<(u16, u16)>,
    /// `net.ipv4.tcp_max_tw_buckets`: the most closed connections in TIME-WAIT.
    pub time_wait_connections: Option<u64>,
}

impl Environment {
    /// The environment now, at the start of a run.
    #[must_use]
    pub fn capture() -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            revision: Self::revision(),
            dirty: env!("ECHOBENCH_DIRTY").parse().ok(),
            rustc: non_empty(env!("ECHOBENCH_RUSTC")),
            profile: non_empty(env!("ECHOBENCH_PROFILE")),
            target: non_empty(env!("ECHOBENCH_TARGET")),
            executable_sha256: executable_sha256(),
            arguments: without_hosts(
                std::env::args_os()
                    .enumerate()
                    .map(|(index, argument)| {
                        without_folders(&argument.to_string_lossy(), index == 0)
                    })
                    .collect(),
            ),
            started: jiff::Timestamp::now()
                .strftime("%Y-%m-%dT%H:%M:%SZ")
                .to_string(),
            machine: MachineKey::of_this_machine(),
            kernel: line("/proc/sys/kernel/osrelease"),
            clocksource: line(format!("{CLOCKSOURCE}/current_clocksource")),
            scaling_governor: line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            idle_driver: idle_driver(),
            awake: false,
            mitigations: mitigations(),
            memory_bytes: memory_bytes(&text("/proc/meminfo")),
            limits: Limits::of_this_process(),
            before: Machine::read(),
            after: None,
        }
    }

    /// The full hash of the commit that this executable was built from.
    #[must_use]
    pub fn revision() -> Option<String> {
        non_empty(env!("ECHOBENCH_REVISION"))
    }

    /// Records the state of the machine at the end of the run.
    pub fn finish(&mut self) {
        self.after = Some(Machine::read());
    }

    /// Time for which a CPU quota kept the run from CPUs; `None` if that is unknown.
    #[must_use]
    pub fn throttled_ns(&self) -> Option<u64> {
        let after = self.after.as_ref()?.throttled_ns?;
        after.checked_sub(self.before.throttled_ns?)
    }

    /// The first seven digits of the revision.
    #[must_use]
    pub fn short_revision(&self) -> Option<&str> {
        self.revision.as_deref().and_then(short_revision)
    }
}

/// The first seven digits of a full hash.
pub(crate) fn short_revision(hash: &str) -> Option<&str> {
    hash.get(..7)
}

impl Limits {
    /// The limits of this process and its machine.
    fn of_this_process() -> Self {
        let open_files = getrlimit(Resource::RLIMIT_NOFILE).ok();
        Self {
            open_files_soft: open_files.map(|(soft, _)| soft),
            open_files_hard: open_files.map(|(_, hard)| hard),
            somaxconn: number("/proc/sys/net/core/somaxconn"),
            local_ports: local_ports(),
            time_wait_connections: number("/proc/sys/net/ipv4/tcp_max_tw_buckets"),
        }
    }
}

/// Id of the running kernel since its start, which namespaces and containers on it share.
pub(crate) fn kernel_id() -> Option<String> {
    line("/proc/sys/kernel/random/boot_id")
}

/// The SHA-256 of this executable, in hexadecimal.
pub(crate) fn executable_sha256() -> Option<String> {
    static HASH: LazyLock<Option<String>> =
        LazyLock::new(|| sha256_of(Path::new("/proc/self/exe")).ok());
    HASH.clone()
}

/// The SHA-256 of a file, in hexadecimal.
pub(crate) fn sha256_of(path: &Path) -> io::Result<String> {
    File::open(path).and_then(sha256)
}

fn sha256(mut source: impl Read) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match source.read(&mut buffer)? {
            0 => break,
            length => hash.update(&buffer[..length]),
        }
    }

    let mut digits = String::new();
    for byte in hash.finalize() {
        write!(digits, "{byte:02x}").expect("a string takes everything");
    }

    Ok(digits)
}

/// An argument without the folders of an absolute path, alone or after an equals sign; without those of
/// any path if it is the program.
fn without_folders(argument: &str, program: bool) -> String {
    let (option, path) = match argument.split_once('=') {
        Some((option, path)) if path.starts_with('/') => (format!("{option}="), path),
        _ => (String::new(), argument),
    };
    if !program && !path.starts_with('/') {
        return argument.to_owned();
    }

    let name = path.trim_end_matches('/').rsplit('/').next();
    option + name.unwrap_or("")
}

/// Arguments without the values of those options that name other hosts.
fn without_hosts(mut arguments: Vec<String>) -> Vec<String> {
    const OPTIONS: [&str; 4] = ["--hosts", "--server-on", "--clients-on", "--server-address"];
    for index in 0..arguments.len() {
        let (option, value) = match arguments[index].split_once('=') {
            Some((option, value)) => (option.to_owned(), Some(value)),
            None => (arguments[index].clone(), None),
        };
        if !OPTIONS.contains(&option.as_str()) {
            continue;
        }
        match value {
            Some(_) => arguments[index] = format!("{option}=…"),
            None => {
                if let Some(value) = arguments.get_mut(index + 1) {
                    "…".clone_into(value);
                }
            }
        }
    }
    arguments
}

fn memory_bytes(meminfo: &str) -> Option<u64> {
    let kib: u64 = value(meminfo, "MemTotal")?
        .strip_suffix(" kB")?
        .parse()
        .ok()?;
    Some(kib * 1024)
}

fn mitigations() -> BTreeMap<String, String> {
    let folder = fs::read_dir("/sys/devices/system/cpu/vulnerabilities");
    let entries = folder.into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let state = line(entry.path().to_str()?)?;
            Some((entry.file_name().into_string().ok()?, state))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_survives_json() {
        let mut environment = Environment::capture();
        environment.finish();
        let json = serde_json::to_string(&environment).expect("it serialises");
        let back: Environment = serde_json::from_str(&json).expect("it deserialises");
        assert_eq!(back, environment);
    }

    #[test]
    fn the_record_is_filled_in() {
        let environment = Environment::capture();
        let digits = environment
            .executable_sha256
            .expect("a readable executable");
        assert_eq!(digits.len(), 64);
        assert!(
            environment
                .rustc
                .expect("built by rustc")
                .starts_with("rustc ")
        );
        let target = environment.target.expect("built for a platform");
        assert!(target.starts_with(std::env::consts::ARCH), "{target}");
        assert!(environment.started.parse::<jiff::Timestamp>().is_ok());
        assert!(environment.kernel.is_some() && environment.memory_bytes.is_some());
        assert!(environment.limits.open_files_hard >= environment.limits.open_files_soft);
        assert!(
            environment
                .limits
                .local_ports
                .is_some_and(|(first, last)| first < last)
        );
        assert_eq!(environment.after, None);
    }

    #[test]
    fn the_record_does_not_name_the_machine_or_its_folders() {
        let host = line("/proc/sys/kernel/hostname").expect("every machine has a name");
        let mut environment = Environment::capture();
        // Words of the kernel's, which a host may have for its name.
        environment.mitigations.clear();
        environment.machine.virtualisation.clear();
        let json = serde_json::to_string(&environment).expect("it serialises");
        let words = |text: &str| -> Vec<String> {
            let parts = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
            parts.map(str::to_owned).collect()
        };

        assert!(!words(&json).contains(&host), "{host}: {json}");
        let executable = std::env::current_exe().expect("it is running");
        let folder = executable.parent().and_then(Path::to_str).expect("UTF-8");
        assert!(!json.contains(folder), "{folder}: {json}");
    }

    #[test]
    fn absolute_paths_lose_their_folders() {
        assert_eq!(without_folders("/home/me/echobench", true), "echobench");
        assert_eq!(
            without_folders("target/release/echobench", true),
            "echobench"
        );
        assert_eq!(without_folders("/home/me/results/", false), "results");
        assert_eq!(
            without_folders("--out=/home/me/results", false),
            "--out=results"
        );
        for kept in ["results/today", "--models=a,b", "steady", "127.0.0.1:7", ""] {
            assert_eq!(without_folders(kept, false), kept);
        }
    }

    #[test]
    fn the_hash_is_sha256() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(sha256(io::empty()).expect("nothing to fail"), empty);
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256(&b"abc"[..]).expect("nothing to fail"), abc);
    }

    #[test]
    fn the_short_revision_has_seven_digits() {
        let mut environment = Environment::capture();
        environment.revision = Some("0123456789abcdef0123456789abcdef01234567".to_owned());
        assert_eq!(environment.short_revision(), Some("0123456"));
        environment.revision = None;
        assert_eq!(environment.short_revision(), None);
    }
}
