//! CPU quotas of control groups: a limit on CPU time per period that containers and service managers set.
//! A process that has used it up does not run until the next period, typically 100 ms long, which no
//! other figure of the machine shows.
//!
//! Sources: `Documentation/admin-guide/cgroup-v2.rst` and `Documentation/scheduler/sched-bwc.rst` of
//! Linux, `cgroups(7)`.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use super::system_files::{number, text};

/// Nanoseconds of a microsecond.
const US: u64 = 1_000;

/// The control groups of this process that can have a CPU quota.
static OWN_GROUPS: LazyLock<Vec<ControlGroup>> = LazyLock::new(|| control_groups(Path::new("/")));

/// The CPU quota of this process in thousandths of a CPU: that of the tightest group above it. `None`
/// without a quota.
pub(super) fn quota_millicpus() -> Option<u64> {
    tightest_quota(&OWN_GROUPS)
}

/// Time for which the quotas of this process's groups have kept them from CPUs since the groups exist,
/// summed over CPUs. Other processes of the groups count too. `None` where the kernel has no quotas.
pub(super) fn throttled_ns() -> Option<u64> {
    longest_throttling(&OWN_GROUPS)
}

fn tightest_quota(groups: &[ControlGroup]) -> Option<u64> {
    groups
        .iter()
        .filter_map(ControlGroup::quota_millicpus)
        .min()
}

/// Groups nest, and a process is kept from CPUs by each of them, at times by several at once: the longest
/// time is a lower bound.
fn longest_throttling(groups: &[ControlGroup]) -> Option<u64> {
    groups.iter().filter_map(ControlGroup::throttled_ns).max()
}

/// A control group with the CPU controller.
#[derive(Debug, PartialEq, Eq)]
struct ControlGroup {
    folder: PathBuf,
    version: Version,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

impl ControlGroup {
    fn quota_millicpus(&self) -> Option<u64> {
        let (quota_us, period_us): (u64, u64) = match self.version {
            // -1, for no quota, is no unsigned number.
            Version::V1 => (
                number(self.folder.join("cpu.cfs_quota_us"))?,
                number(self.folder.join("cpu.cfs_period_us"))?,
            ),
            // "max", for no quota, is no number.
            Version::V2 => {
                let text = text(self.folder.join("cpu.max"));
                let (quota, period) = text.split_once(' ')?;
                (quota.parse().ok()?, period.trim().parse().ok()?)
            }
        };

        (quota_us * 1000).checked_div(period_us)
    }

    fn throttled_ns(&self) -> Option<u64> {
        let statistics = text(self.folder.join("cpu.stat"));
        let figure = |name: &str| -> Option<u64> {
            let mut lines = statistics.lines();
            lines.find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
        };
        match self.version {
            Version::V1 => figure("throttled_time "),
            Version::V2 => figure("throttled_usec ").map(|us| us * US),
        }
    }
}

/// The groups of this process below `root`, each with all groups that it is nested in.
fn control_groups(root: &Path) -> Vec<ControlGroup> {
    let mounts = text(root.join("proc/self/mountinfo"));
    let memberships = text(root.join("proc/self/cgroup"));
    let mut groups = Vec::new();

    for mount in mounts.lines().filter_map(Mount::parse) {
        let path = memberships.lines().find_map(|line| mount.path_in(line));
        let Some(path) = path else {
            continue;
        };

        let top = root.join(mount.point.trim_start_matches('/'));
        let below = path.strip_prefix(mount.root).unwrap_or(Path::new(""));
        let below = below.strip_prefix("/").unwrap_or(below);
        groups.extend(below.ancestors().map(|group| ControlGroup {
            folder: top.join(group),
            version: mount.version,
        }));
    }

    groups
}

/// A mounted hierarchy of control groups with the CPU controller.
struct Mount<'a> {
    version: Version,
    /// The group at the mount point: in a container, often not the root of all groups.
    root: &'a str,
    point: &'a str,
}

impl<'a> Mount<'a> {
    /// Parses a line of `/proc/self/mountinfo`; `None` for other file systems and controllers.
    fn parse(line: &'a str) -> Option<Self> {
        let (mount, file_system) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        let mut file_system = file_system.split(' ');
        let version = match file_system.next()? {
            "cgroup2" => Version::V2,
            "cgroup" if has_cpu(file_system.nth(1)?) => Version::V1,
            _ => return None,
        };

        Some(Mount {
            version,
            root,
            point,
        })
    }

    /// The path of this process's group, from a line of `/proc/self/cgroup`: `NUMBER:CONTROLLERS:PATH`.
    fn path_in<'b>(&self, line: &'b str) -> Option<&'b Path> {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let is_own = match self.version {
            Version::V1 => has_cpu(controllers),
            Version::V2 => controllers.is_empty(),
        };
        is_own.then_some(Path::new(path))
    }
}

fn has_cpu(controllers: &str) -> bool {
    controllers.split(',').any(|controller| controller == "cpu")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::{TempDir, tempdir};

    use super::*;

    /// A root folder with these files.
    fn root(files: &[(&str, &str)]) -> TempDir {
        let root = tempdir().unwrap();
        for (name, contents) in files {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, contents).unwrap();
        }
        root
    }

    fn figures(files: &[(&str, &str)]) -> (Option<u64>, Option<u64>) {
        let root = root(files);
        let groups = control_groups(root.path());
        (tightest_quota(&groups), longest_throttling(&groups))
    }

    const V2_MOUNT: (&str, &str) = (
        "proc/self/mountinfo",
        "24 1 0:22 / /proc rw - proc proc rw\n\
         30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n",
    );
    const V1_MOUNT: (&str, &str) = (
        "proc/self/mountinfo",
        "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
         32 31 0:29 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
         33 31 0:30 /docker/7f /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n",
    );

    #[test]
    fn the_tightest_of_nested_groups_counts() {
        let files = [
            V2_MOUNT,
            ("proc/self/cgroup", "0::/user.slice/bench\n"),
            ("sys/fs/cgroup/user.slice/cpu.max", "50000 100000\n"),
            (
                "sys/fs/cgroup/user.slice/cpu.stat",
                "usage_usec 9\nnr_throttled 2\nthrottled_usec 170000\n",
            ),
            ("sys/fs/cgroup/user.slice/bench/cpu.max", "150000 100000\n"),
            (
                "sys/fs/cgroup/user.slice/bench/cpu.stat",
                "usage_usec 9\nthrottled_usec 0\n",
            ),
        ];
        assert_eq!(figures(&files), (Some(500), Some(170_000_000)));
    }

    #[test]
    fn a_group_without_a_quota_has_none() {
        let files = [
            V2_MOUNT,
            ("proc/self/cgroup", "0::/bench\n"),
            ("sys/fs/cgroup/bench/cpu.max", "max 100000\n"),
        ];
        assert_eq!(figures(&files), (None, None));
        assert_eq!(figures(&[]), (None, None));
    }

    #[test]
    fn a_container_sees_its_own_group_at_the_mount_point() {
        let own_namespace = [
            V2_MOUNT,
            ("proc/self/cgroup", "0::/\n"),
            ("sys/fs/cgroup/cpu.max", "25000 50000\n"),
            ("sys/fs/cgroup/cpu.stat", "throttled_usec 3\n"),
        ];
        assert_eq!(figures(&own_namespace), (Some(500), Some(3_000)));

        // The path is that on the host, of which the mount shows only a part.
        let version_1 = [
            V1_MOUNT,
            (
                "proc/self/cgroup",
                "4:memory:/docker/7f\n3:cpu,cpuacct:/docker/7f/inner\n",
            ),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "200000\n"),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
            (
                "sys/fs/cgroup/cpu,cpuacct/cpu.stat",
                "nr_periods 5\nnr_throttled 1\nthrottled_time 42\n",
            ),
            ("sys/fs/cgroup/cpu,cpuacct/inner/cpu.cfs_quota_us", "-1\n"),
            (
                "sys/fs/cgroup/cpu,cpuacct/inner/cpu.cfs_period_us",
                "100000\n",
            ),
        ];
        assert_eq!(figures(&version_1), (Some(2000), Some(42)));
    }

    #[test]
    fn controllers_are_whole_words() {
        let line = "33 31 0:30 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset";
        assert!(Mount::parse(line).is_none());
    }
}
