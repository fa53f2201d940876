//! A folder with a small scenario in it, and room for results.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::{Finished, executable, finish};

/// A scenario of some hundred milliseconds a block.
pub const TINY: &str = r#"question = "Does it work?"
models = ["thread", "async", "pool --workers 3"]
clients = [2]
drivers = ["threads", "processes"]
placements = ["none"]

[traffic]
payload_bytes = 64
timeout = "5s"

[quick]
blocks = 2
rounds = 2
slice = "10ms"
ramp = "2ms"
gap = "3ms"

[full]
blocks = 3
rounds = 2
slice = "10ms"
ramp = "2ms"
gap = "3ms"
"#;

/// A folder with a scenario in it, and room for results.
pub struct Place {
    pub folder: TempDir,
}

impl Place {
    pub fn new() -> Place {
        Place::with(TINY)
    }

    pub fn with(scenario: &str) -> Place {
        let folder = TempDir::new().unwrap();
        fs::write(folder.path().join("tiny.toml"), scenario).unwrap();
        Place { folder }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn scenario(&self) -> String {
        self.path("tiny.toml").to_str().unwrap().to_owned()
    }

    pub fn results(&self) -> PathBuf {
        self.path("results")
    }

    pub fn run(&self, options: &[&str]) -> Command {
        let mut command = executable();
        command
            .arg("run")
            .arg(self.scenario())
            .arg("--out")
            .arg(self.results())
            .args(["--seed", "7"])
            .args(options)
            .current_dir(self.folder.path());
        command
    }

    /// A run into this place is refused by one line with all these words, and leaves no folder.
    pub fn refuses(&self, command: Command, words: &[&str]) {
        let mut finished = finish(command);
        // The names of missing arguments are on lines of their own.
        finished.stderr = finished
            .stderr
            .replace(":\n  <", ": <")
            .replace(":\n  --", ": --");
        finished.refused(words);
        assert!(!self.results().exists());
    }

    pub fn rows(&self, name: &str) -> Vec<Row> {
        rows(&self.results().join(name))
    }

    pub fn status(&self) -> String {
        let text = fs::read_to_string(self.results().join("run.json")).unwrap();
        let record: serde_json::Value = serde_json::from_str(&text).unwrap();
        record["status"].as_str().unwrap().to_owned()
    }
}

/// A line of a CSV, by column.
pub type Row = BTreeMap<String, String>;

/// All lines of a CSV, each of which must be whole.
pub fn rows(path: &Path) -> Vec<Row> {
    let mut reader = csv::Reader::from_path(path).unwrap();
    reader.deserialize().map(Result::unwrap).collect()
}

pub fn number(row: &Row, column: &str) -> u64 {
    row[column].parse().expect("a whole number")
}

/// The tables of a results folder.
pub fn table(folder: &Path, options: &[&str]) -> Finished {
    let mut command = executable();
    command.arg("table").arg(folder).args(options);
    finish(command)
}
