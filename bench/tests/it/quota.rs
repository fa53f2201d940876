//! CPU quotas: a run in a control group with one says so, and belongs to another kind of machine.

use std::fs;

use serde_json::Value;
use tempfile::tempdir;

use crate::common::control_group::ControlGroup;
use crate::common::{executable, finish};

#[test]
fn a_quota_is_recorded_and_said_and_marks_rows() {
    let half = [
        ("/sys/fs/cgroup/cpu", "cpu.cfs_quota_us", "50000".to_owned()),
        ("/sys/fs/cgroup", "cpu.max", "50000 100000".to_owned()),
    ];
    let Some(group) = ControlGroup::create(&half) else {
        return;
    };
    let folder = tempdir().unwrap();
    let out = folder.path().join("run");
    let mut command = executable();
    command
        .args(["run", "steady", "--models", "thread,async", "--blocks", "1"])
        // More of them might all be without a reply at half a CPU.
        .args(["--clients", "8", "--drivers", "tasks"])
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
