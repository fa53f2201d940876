//! The kind of a machine, by which figures of different runs may be compared or not.

use serde::{Deserialize, Serialize};

use super::cpu_quota::quota_millicpus;
use super::cpus::allowed_cpus;
use super::system_files::{line, list_length, text, value, values};

/// The folder of the kernel's clock.
pub(super) const CLOCKSOURCE: &str = "/sys/devices/system/clocksource/clocksource0";

/// The kind of a machine: figures of machines with equal keys may be compared, with care.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineKey {
    /// The model name of the first CPU; without one the architecture, and the implementer, part and
    /// variant of each kind of CPU.
    pub cpu_model: String,
    /// The number of CPUs that are online.
    pub logical_cpus: u64,
    /// The number of CPUs that the run may use, if it may not use all.
    #[serde(default)]
    pub allowed_cpus: Option<u64>,
    /// The CPU quota of the run's control group, in thousandths of a CPU, if it is below the CPUs that
    /// the run may use.
    #[serde(default)]
    pub quota_millicpus: Option<u64>,
    /// The number of memory nodes.
    pub numa_nodes: u64,
    /// The hypervisor, like `kvm`; `vm` for one that does not give its name, `none` for none.
    pub virtualisation: String,
}

impl MachineKey {
    /// The key of this machine, as far as this process may use it.
    #[must_use]
    pub fn of_this_machine() -> Self {
        let cpuinfo = text("/proc/cpuinfo");
        let count = |path: &str| line(path).as_deref().and_then(list_length);
        let logical_cpus = count("/sys/devices/system/cpu/online").unwrap_or(1);
        let allowed_cpus = allowed_cpus().map_or(logical_cpus, |cpus| cpus.len() as u64);

        Self {
            cpu_model: cpu_model(&cpuinfo),
            logical_cpus,
            allowed_cpus: (allowed_cpus < logical_cpus).then_some(allowed_cpus),
            quota_millicpus: quota_millicpus().filter(|&quota| quota < allowed_cpus * 1000),
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
                (
                    "CPUs that the run may use",
                    key.allowed_cpus.unwrap_or(key.logical_cpus).to_string(),
                ),
                (
                    "CPU quota",
                    key.quota().unwrap_or_else(|| "none".to_owned()),
                ),
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

    /// The CPU quota in words, such as `1.5 CPUs`.
    #[must_use]
    pub fn quota(&self) -> Option<String> {
        let millicpus = self.quota_millicpus?;
        let unit = if millicpus == 1000 { "CPU" } else { "CPUs" };
        Some(format!("{} {unit}", millicpus as f64 / 1000.0))
    }

    /// A short form for names of folders, such as `xeon-2cpu-kvm`. It leaves out a single memory
    /// node and the words that do not tell CPUs apart, so unequal keys can share it.
    #[must_use]
    pub fn slug(&self) -> String {
        let mut parts = significant_words(&self.cpu_model);
        parts.push(match self.allowed_cpus {
            Some(allowed) => format!("{allowed}of{}cpu", self.logical_cpus),
            None => format!("{}cpu", self.logical_cpus),
        });
        if let Some(quota) = self.quota_millicpus {
            parts.push(format!("quota{quota}m"));
        }

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

/// The model of the CPUs. On Arm, `/proc/cpuinfo` has no model name but the fields of the register
/// `MIDR_EL1`; a machine may have several kinds of cores.
fn cpu_model(cpuinfo: &str) -> String {
    if let Some(name) = value(cpuinfo, "model name") {
        return name.to_owned();
    }

    let field = |name| values(cpuinfo, name);
    let parts = field("CPU implementer")
        .zip(field("CPU part"))
        .zip(field("CPU variant"));
    let mut kinds: Vec<_> = parts.collect();
    kinds.sort_unstable();
    kinds.dedup();

    let mut model = std::env::consts::ARCH.to_owned();
    for ((implementer, part), variant) in kinds {
        let text = format!(" implementer {implementer} part {part} variant {variant}");
        model.push_str(&text);
    }

    model
}

/// Traces that a hypervisor leaves in the files of the kernel.
#[derive(Default)]
struct Traces {
    /// Whether the CPU reports one.
    flag: bool,
    /// `/sys/hypervisor/type`.
    kind: String,
    /// The maker and the product in the tables of the firmware.
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
                .map(|name| text(format!("/sys/class/dmi/id/{name}")))
                .concat(),
            clocks: text(format!("{CLOCKSOURCE}/available_clocksource")),
        }
    }

    /// The name of the hypervisor. The clock comes before the firmware, since it belongs to the
    /// hypervisor itself, while the firmware often only names the provider.
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

    /// Whether the firmware is a virtual machine's: some architectures have no flag in `cpuinfo`.
    fn firmware_is_virtual(&self) -> bool {
        ["VMware", "VirtualBox", "QEMU", "KVM", "Virtual Machine"]
            .iter()
            .any(|mark| self.firmware.contains(mark))
    }
}

/// The words of a CPU's model name that distinguish it from others, in lower case.
fn significant_words(model: &str) -> Vec<String> {
    const NOISE: [&str; 11] = [
        "intel",
        "amd",
        "cpu",
        "processor",
        "gen",
        "virtual",
        "with",
        "apu",
        "implementer",
        "part",
        "variant",
    ];
    let name = model.split('@').next().unwrap_or(model);
    name.to_lowercase()
        .replace("(r)", " ")
        .replace("(tm)", " ")
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '-')
        .filter(|word| !word.is_empty() && !NOISE.contains(word))
        // The numbers of cores ("64-core") and of the generation ("13th").
        .filter(|word| !word.ends_with("-core") && !is_ordinal(word))
        .map(str::to_owned)
        .collect()
}

fn is_ordinal(word: &str) -> bool {
    let digits = word.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let ending = &word[digits.len()..];
    !digits.is_empty() && matches!(ending, "st" | "nd" | "rd" | "th")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(cpu_model: &str, cpus: u64, nodes: u64, virtualisation: &str) -> MachineKey {
        MachineKey {
            cpu_model: cpu_model.to_owned(),
            logical_cpus: cpus,
            allowed_cpus: None,
            quota_millicpus: None,
            numa_nodes: nodes,
            virtualisation: virtualisation.to_owned(),
        }
    }

    /// One of two CPUs, and a quota of 1.5.
    fn restricted() -> MachineKey {
        MachineKey {
            allowed_cpus: Some(1),
            quota_millicpus: Some(1500),
            ..key("Xeon", 2, 1, "kvm")
        }
    }

    #[test]
    fn a_quota_and_restricted_cpus_make_another_machine() {
        let whole = key("Xeon", 2, 1, "kvm");
        let restricted = restricted();
        assert_eq!(
            whole.difference(&restricted).as_deref(),
            Some("CPUs that the run may use (2 and 1)")
        );
        let quota = MachineKey {
            quota_millicpus: Some(1000),
            ..whole.clone()
        };

        assert_eq!(
            whole.difference(&quota).as_deref(),
            Some("CPU quota (none and 1 CPU)")
        );
        assert_eq!(restricted.slug(), "xeon-1of2cpu-quota1500m-kvm");
    }

    #[test]
    fn records_from_before_quotas_were_recorded_are_read() {
        let old = r#"{"cpu_model":"Xeon","logical_cpus":2,"numa_nodes":1,"virtualisation":"kvm"}"#;
        let read: MachineKey = serde_json::from_str(old).expect("an old record");
        assert_eq!(read, key("Xeon", 2, 1, "kvm"));
    }

    #[test]
    fn kinds_of_arm_cpus_are_told_apart() {
        let core = |part: &str, variant: &str| {
            format!(
                "processor\t: 0\nBogoMIPS\t: 50.00\nCPU implementer\t: 0x41\n\
                 CPU architecture: 8\nCPU variant\t: {variant}\nCPU part\t: {part}\nCPU revision\t: 1\n\n"
            )
        };

        let arch = std::env::consts::ARCH;
        let neoverse = cpu_model(&(core("0xd0c", "0x3") + &core("0xd0c", "0x3")));
        let expected = format!("{arch} implementer 0x41 part 0xd0c variant 0x3");
        assert_eq!(neoverse, expected);
        assert_eq!(
            cpu_model(&(core("0xd41", "0x0") + &core("0xd05", "0x1"))),
            format!(
                "{arch} implementer 0x41 part 0xd05 variant 0x1 implementer 0x41 part 0xd41 variant 0x0"
            )
        );
        assert_eq!(cpu_model("processor\t: 0\n"), arch);
        let slug = key(&neoverse, 4, 1, "none").slug();
        assert!(slug.ends_with("0x41-0xd0c-0x3-4cpu-bare"), "{slug}");
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
}
