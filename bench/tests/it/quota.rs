//! CPU quotas: a run in a control group with one says so, and belongs to another kind of machine.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use tempfile::tempdir;

use crate::common::{executable, finish};

/// A control group with a quota of half a CPU, removed when this is dropped.
struct ControlGroup(PathBuf);

impl ControlGroup {
    /// `None`, with the reason printed, if this process may not create one.
    fn create() -> Option<Self> {
        let name = format!("echobench-test-{}", std::process::id());
        let version_1 = ("/sys/fs/cgroup/cpu", "cpu.cfs_quota_us", "50000");
        let version_2 = ("/sys/fs/cgroup", "cpu.max", "50000 100000");
        for (root, file, quota) in [version_1, version_2] {
            let folder = PathBuf::from(root).join(&name);
            if fs::create_dir(&folder).is_err() {
                continue;
            }
            let group = ControlGroup(folder);
            if fs::write(group.0.join(file), quota).is_ok() {
                return Some(group);
            }
        }
        println!("skipped: only root may create a control group with a CPU quota");
        None
    }

    /// The command, run in the group.
    fn run(&self, command: &Command) -> Command {
        let mut inside = Command::new("sh");
        inside
            .args(["-c", "echo $$ >\"$0\" && exec \"$@\""])
            .arg(self.0.join("cgroup.procs"))
            .arg(command.get_program())
            .args(command.get_args());
        inside
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn a_quota_is_recorded_and_said_and_marks_rows() {
    let Some(group) = ControlGroup::create() else {
        return;
    };
    let folder = tempdir().unwrap();
    let out = folder.path().join("run");
    let mut command = executable();
    command
        .args(["run", "steady", "--models", "thread,async", "--blocks", "1"])
        .arg("--out")
        .arg(&out);

    let run = finish(group.run(&command));

    assert_eq!(run.code, Some(0), "{run:?}");
    let words = ["The run had a CPU quota of 0.5 CPUs.", "THROTTLED: by its"];
    for words in words {
        assert!(run.stdout.contains(words), "{words}: {}", run.stdout);
    }
    let record = fs::read_to_string(out.join("run.json")).unwrap();
    let record: Value = serde_json::from_str(&record).unwrap();
    let environment = &record["environment"];
    assert_eq!(environment["machine"]["quota_millicpus"], 500);
    let throttled = |state: &str| environment[state]["throttled_ns"].as_u64().unwrap();
    assert!(throttled("after") > throttled("before"), "{environment}");
    let blocks = fs::read_to_string(out.join("blocks.csv")).unwrap();
    for row in blocks.lines().skip(1) {
        assert!(row.contains("disturbed"), "{row}");
    }
}
