//! Records where and with what a run was made, without saying whose machine it was.
//!
//! No host name, user name or folder of the machine is in the record. What cannot be found out is
//! `None`, never a guess. Sources: `proc(5)`, `sysfs(5)`,
//! `Documentation/admin-guide/hw-vuln` of Linux.

use super::cpus::idle_driver;
use super::machine::Machine;
use nix::sys::resource::{Resource, getrlimit};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::str::FromStr;

/// The environment of a run, as it stands in `run.json`.
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
    /// The SHA-256 of the executable, in hexadecimal.
    pub executable_sha256: Option<String>,
    /// The command line; of absolute paths only the last part.
    pub arguments: Vec<String>,
    /// When the record was made, in RFC 3339, UTC.
    pub started: String,
    /// What kind of machine it is.
    pub machine: MachineKey,
    /// The release of the kernel.
    pub kernel: Option<String>,
    /// Where the kernel takes the time from, like `tsc`.
    pub clocksource: Option<String>,
    /// How the frequency of the first CPU is governed; `None` where the machine does not say.
    pub scaling_governor: Option<String>,
    /// What lets idle CPUs sleep, like `intel_idle`; `None` where the machine does not say.
    #[serde(default)]
    pub idle_driver: Option<String>,
    /// Whether the run kept idle CPUs from sleeping.
    #[serde(default)]
    pub awake: bool,
    /// What the kernel does about each vulnerability of the CPU.
    pub mitigations: BTreeMap<String, String>,
    /// The usable memory of the machine.
    pub memory_bytes: Option<u64>,
    /// The limits that many connections run into.
    pub limits: Limits,
    /// The load of the machine when the record was made.
    pub before: Machine,
    /// The load of the machine when the run ended; `None` when it was cut short.
    pub after: Option<Machine>,
}

/// The kind of a machine: figures of machines with equal keys may be compared, with care.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineKey {
    /// The model name of the first CPU, or else the architecture.
    pub cpu_model: String,
    /// The number of CPUs that are online.
    pub logical_cpus: u64,
    /// The number of memory nodes.
    pub numa_nodes: u64,
    /// The hypervisor, like `kvm`; `vm` for one that does not say its name, `none` for none.
    pub virtualisation: String,
}

/// The limits that many connections run into; each `None` where it cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Open files of a process, as it is.
    pub open_files_soft: Option<u64>,
    /// Open files of a process, as far as it may be raised.
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
            rustc: known(env!("ECHOBENCH_RUSTC")),
            profile: known(env!("ECHOBENCH_PROFILE")),
            executable_sha256: sha256_of(Path::new("/proc/self/exe")).ok(),
            arguments: std::env::args_os()
                .enumerate()
                .map(|(index, argument)| discreet(&argument.to_string_lossy(), index == 0))
                .collect(),
            started: jiff::Timestamp::now()
                .strftime("%Y-%m-%dT%H:%M:%SZ")
                .to_string(),
            machine: MachineKey::of_this_machine(),
            kernel: line("/proc/sys/kernel/osrelease"),
            clocksource: line(&format!("{CLOCKSOURCE}/current_clocksource")),
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
        known(env!("ECHOBENCH_REVISION"))
    }

    /// Adds the load of the machine now, at the end of the run.
    pub fn finish(&mut self) {
        self.after = Some(Machine::read());
    }

    /// The first seven digits of the revision.
    #[must_use]
    pub fn short_revision(&self) -> Option<&str> {
        self.revision.as_deref()?.get(..7)
    }
}

impl MachineKey {
    /// The key of this machine.
    #[must_use]
    pub fn of_this_machine() -> Self {
        let cpuinfo = text("/proc/cpuinfo");
        let count = |path: &str| line(path).as_deref().and_then(listed);
        Self {
            cpu_model: value(&cpuinfo, "model name")
                .unwrap_or(std::env::consts::ARCH)
                .to_owned(),
            logical_cpus: count("/sys/devices/system/cpu/online").unwrap_or(1),
            numa_nodes: count("/sys/devices/system/node/online").unwrap_or(1),
            virtualisation: Traces::of_this_machine(&cpuinfo).hypervisor().to_owned(),
        }
    }

    /// The first field in which two machines differ, with both values; `None` for machines of the
    /// same kind.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Option<String> {
        let fields = |key: &Self| {
            [
                ("CPU model", key.cpu_model.clone()),
                ("logical CPUs", key.logical_cpus.to_string()),
                ("NUMA nodes", key.numa_nodes.to_string()),
                ("virtualisation", key.virtualisation.clone()),
            ]
        };
        let pairs = fields(self).into_iter().zip(fields(other));
        pairs
            .filter(|(own, others)| own != others)
            .map(|((name, own), (_, others))| format!("{name} ({own} and {others})"))
            .next()
    }

    /// A short form for names of folders, like `xeon-2cpu-kvm`. It leaves out a single memory
    /// node and the words that do not tell CPUs apart, so unequal keys can share it.
    #[must_use]
    pub fn slug(&self) -> String {
        let mut parts = significant_words(&self.cpu_model);
        parts.push(format!("{}cpu", self.logical_cpus));
        if self.numa_nodes > 1 {
            parts.push(format!("{}node", self.numa_nodes));
        }
        parts.push(match self.virtualisation.as_str() {
            "none" => "bare".to_owned(),
            hypervisor => hypervisor.to_owned(),
        });
        parts.join("-")
    }
}

impl Limits {
    /// The limits of this process and its machine.
    fn of_this_process() -> Self {
        let open_files = getrlimit(Resource::RLIMIT_NOFILE).ok();
        Self {
            open_files_soft: open_files.map(|(soft, _)| soft),
            open_files_hard: open_files.map(|(_, hard)| hard),
            somaxconn: number("/proc/sys/net/core/somaxconn"),
            local_ports: line("/proc/sys/net/ipv4/ip_local_port_range")
                .as_deref()
                .and_then(|range| range.split_once(char::is_whitespace))
                .and_then(|(first, last)| Some((first.parse().ok()?, last.trim().parse().ok()?))),
            time_wait_connections: number("/proc/sys/net/ipv4/tcp_max_tw_buckets"),
        }
    }
}

const CLOCKSOURCE: &str = "/sys/devices/system/clocksource/clocksource0";

/// What a hypervisor leaves in view.
#[derive(Default)]
struct Traces {
    /// The CPU says that there is one.
    flag: bool,
    /// `/sys/hypervisor/type`.
    kind: String,
    /// The maker and the product in the firmware's tables.
    firmware: String,
    /// The clocks that the kernel knows.
    clocks: String,
}

impl Traces {
    fn of_this_machine(cpuinfo: &str) -> Self {
        let flags = value(cpuinfo, "flags").unwrap_or("");
        Self {
            flag: flags.split(' ').any(|flag| flag == "hypervisor"),
            kind: text("/sys/hypervisor/type"),
            firmware: ["sys_vendor", "product_name"]
                .map(|name| text(&format!("/sys/class/dmi/id/{name}")))
                .concat(),
            clocks: text(&format!("{CLOCKSOURCE}/available_clocksource")),
        }
    }

    /// The name of the hypervisor. The clock comes before the firmware: it belongs to the
    /// hypervisor itself, where firmware often only names the provider.
    fn hypervisor(&self) -> &'static str {
        const NAMES: [(&str, &str); 10] = [
            ("xen", "xen"),
            ("kvm", "kvm"),
            ("hyperv", "hyperv"),
            ("VMware", "vmware"),
            ("VirtualBox", "virtualbox"),
            ("Microsoft Corporation\nVirtual Machine", "hyperv"),
            ("Parallels", "parallels"),
            ("KVM", "kvm"),
            ("Google Compute Engine", "kvm"),
            ("QEMU", "qemu"),
        ];
        if !self.flag && self.kind.is_empty() && !self.firmware_is_virtual() {
            return "none";
        }
        let traces = [&self.kind, &self.clocks, &self.firmware];
        traces
            .into_iter()
            .find_map(|trace| NAMES.iter().find(|(mark, _)| trace.contains(mark)))
            .map_or("vm", |(_, name)| name)
    }

    /// Architectures without the flag in `cpuinfo` still have the firmware's word.
    fn firmware_is_virtual(&self) -> bool {
        ["VMware", "VirtualBox", "QEMU", "KVM", "Virtual Machine"]
            .iter()
            .any(|mark| self.firmware.contains(mark))
    }
}

/// The hash of everything that can be read, in hexadecimal.
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

/// An argument without the folders of an absolute path, alone or behind an equals sign; without
/// those of any path when it is the program.
fn discreet(argument: &str, program: bool) -> String {
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

/// The words of a CPU's model name that tell it from others, in lower case.
fn significant_words(model: &str) -> Vec<String> {
    const NOISE: [&str; 8] = [
        "intel",
        "amd",
        "cpu",
        "processor",
        "gen",
        "virtual",
        "with",
        "apu",
    ];
    let name = model.split('@').next().unwrap_or(model);
    name.to_lowercase()
        .replace("(r)", " ")
        .replace("(tm)", " ")
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '-')
        .filter(|word| !word.is_empty() && !NOISE.contains(word))
        // Number of cores ("64-core") and of the generation ("13th").
        .filter(|word| !word.ends_with("-core") && !is_ordinal(word))
        .map(str::to_owned)
        .collect()
}

fn is_ordinal(word: &str) -> bool {
    let digits = word.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let ending = &word[digits.len()..];
    !digits.is_empty() && matches!(ending, "st" | "nd" | "rd" | "th")
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

fn memory_bytes(meminfo: &str) -> Option<u64> {
    let kib: u64 = value(meminfo, "MemTotal")?
        .strip_suffix(" kB")?
        .parse()
        .ok()?;
    Some(kib * 1024)
}

/// How many numbers a list like `0-3,8` holds.
fn listed(ranges: &str) -> Option<u64> {
    ranges
        .split(',')
        .map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let (first, last) = (first.parse::<u64>().ok()?, last.parse::<u64>().ok()?);
            Some(last.checked_sub(first)? + 1)
        })
        .sum()
}

/// What follows the colon on the first line of that name.
fn value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        (found.trim_end() == name).then(|| value.trim())
    })
}

/// A file's text; empty when it cannot be read.
fn text(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// A file's text without the white space around it; `None` when that is empty.
fn line(path: &str) -> Option<String> {
    known(text(path).trim())
}

fn number<T: FromStr>(path: &str) -> Option<T> {
    line(path)?.parse().ok()
}

fn known(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(cpu_model: &str, cpus: u64, nodes: u64, virtualisation: &str) -> MachineKey {
        MachineKey {
            cpu_model: cpu_model.to_owned(),
            logical_cpus: cpus,
            numa_nodes: nodes,
            virtualisation: virtualisation.to_owned(),
        }
    }

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
        assert_eq!(discreet("/home/me/echobench", true), "echobench");
        assert_eq!(discreet("target/release/echobench", true), "echobench");
        assert_eq!(discreet("/home/me/results/", false), "results");
        assert_eq!(discreet("--out=/home/me/results", false), "--out=results");
        for kept in ["results/today", "--models=a,b", "steady", "127.0.0.1:7", ""] {
            assert_eq!(discreet(kept, false), kept);
        }
    }

    #[test]
    fn machines_differ_in_their_kind_and_in_nothing_else() {
        let machine = key("Xeon", 2, 1, "kvm");
        assert_eq!(machine.difference(&machine.clone()), None);
        for (other, field) in [
            (key("EPYC", 2, 1, "kvm"), "CPU model (Xeon and EPYC)"),
            (key("Xeon", 4, 1, "kvm"), "logical CPUs (2 and 4)"),
            (key("Xeon", 2, 2, "kvm"), "NUMA nodes (1 and 2)"),
            (key("Xeon", 2, 1, "none"), "virtualisation (kvm and none)"),
        ] {
            assert_eq!(machine.difference(&other).as_deref(), Some(field));
        }
    }

    #[test]
    fn the_machine_key_is_stable() {
        let machine = MachineKey::of_this_machine();
        assert_eq!(machine, MachineKey::of_this_machine());
        assert!(machine.logical_cpus >= 1 && machine.numa_nodes >= 1);
        let slug = machine.slug();
        assert!(
            slug.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'),
            "{slug}"
        );
    }

    #[test]
    fn the_slug_keeps_what_tells_machines_apart() {
        for (machine, slug) in [
            (
                key("Intel(R) Xeon(R) Processor", 2, 1, "kvm"),
                "xeon-2cpu-kvm",
            ),
            (
                key(
                    "Intel(R) Xeon(R) Platinum 8375C CPU @ 2.90GHz",
                    64,
                    2,
                    "none",
                ),
                "xeon-platinum-8375c-64cpu-2node-bare",
            ),
            (
                key("AMD EPYC 7B13 64-Core Processor", 8, 1, "vm"),
                "epyc-7b13-8cpu-vm",
            ),
            (
                key("13th Gen Intel(R) Core(TM) i7-13700K", 24, 1, "none"),
                "core-i7-13700k-24cpu-bare",
            ),
            (key("aarch64", 4, 1, "none"), "aarch64-4cpu-bare"),
        ] {
            assert_eq!(machine.slug(), slug);
        }
    }

    #[test]
    fn hypervisors_are_known_by_their_traces() {
        let traces = |flag, kind: &str, clocks: &str, firmware: &str| {
            let [kind, clocks, firmware] = [kind, clocks, firmware].map(str::to_owned);
            let traces = Traces {
                flag,
                kind,
                firmware,
                clocks,
            };
            traces.hypervisor()
        };
        assert_eq!(traces(false, "", "tsc hpet acpi_pm", "Dell Inc.\n"), "none");
        assert_eq!(traces(true, "", "tsc kvm-clock", ""), "kvm");
        assert_eq!(traces(true, "xen", "xen tsc", "Xen\nHVM domU"), "xen");
        assert_eq!(traces(true, "", "tsc", "VMware, Inc.\nVMware7,1"), "vmware");
        assert_eq!(
            traces(true, "", "hyperv_clocksource_tsc_page", ""),
            "hyperv"
        );
        assert_eq!(traces(false, "", "arch_sys_counter", "QEMU\nvirt"), "qemu");
        assert_eq!(traces(true, "", "tsc", ""), "vm");
    }

    #[test]
    fn lists_of_cpus_are_counted() {
        assert_eq!(listed("0"), Some(1));
        assert_eq!(listed("0-3,8,10-11"), Some(7));
        assert_eq!(listed("3-1"), None);
        assert_eq!(listed(""), None);
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
