//! Control groups, for tests of the limits that containers set.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// A limit, as it is set in one version of control groups: root of the hierarchy, file, content.
pub type Setting = (&'static str, &'static str, String);

/// A control group with a limit, removed when this is dropped.
pub struct ControlGroup(PathBuf);

impl ControlGroup {
    /// A group with the first of these limits that can be set; `None`, with the reason printed, if this
    /// process may set none.
    pub fn create(settings: &[Setting]) -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("echobench-test-{}-{number}", std::process::id());

        for (root, file, content) in settings {
            let folder = PathBuf::from(root).join(&name);
            if fs::create_dir(&folder).is_err() {
                continue;
            }
            let group = ControlGroup(folder);
            if fs::write(group.0.join(file), content).is_ok() {
                return Some(group);
            }
        }
        let files: Vec<_> = settings.iter().map(|(_, file, _)| *file).collect();
        println!(
            "skipped: this process may not create a control group with {}",
            files.join(" or ")
        );
        None
    }

    /// The command, run in the group.
    pub fn run(&self, command: &Command) -> Command {
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
