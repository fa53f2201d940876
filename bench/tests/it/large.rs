//! Results folders much larger than the committed ones.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use nix::sys::resource::{Resource, setrlimit};
use tempfile::TempDir;

use crate::common::{executable, finish};

fn committed(name: &str) -> PathBuf {
    let results = Path::new(env!("CARGO_MANIFEST_DIR")).join("../results");
    results.join(name)
}

/// A results folder with the rows and histograms of another one so many times, as further blocks.
fn enlarged(folder: &Path, times: u32) -> TempDir {
    let large = TempDir::new().unwrap();
    for name in ["run.json", "summary.csv"] {
        fs::copy(folder.join(name), large.path().join(name)).unwrap();
    }
    for name in ["slices.csv", "blocks.csv"] {
        repeat_rows(&folder.join(name), &large.path().join(name), times);
    }

    let log = fs::read_to_string(folder.join("latency.hlog")).unwrap();
    let (header, lines) = log.split_at(log.find("Tag=").unwrap());
    let mut file = BufWriter::new(File::create(large.path().join("latency.hlog")).unwrap());
    file.write_all(header.as_bytes()).unwrap();
    for _ in 0..times {
        file.write_all(lines.as_bytes()).unwrap();
    }
    file.flush().unwrap();
    large
}

fn repeat_rows(from: &Path, to: &Path, times: u32) {
    let mut reader = csv::Reader::from_path(from).unwrap();
    let names = reader.headers().unwrap().clone();
    let column = names.iter().position(|name| name == "block").unwrap();
    let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    let block = |row: &csv::StringRecord| row[column].parse::<u32>().unwrap();
    let blocks = rows.iter().map(block).max().unwrap();

    let mut writer = csv::Writer::from_path(to).unwrap();
    writer.write_record(&names).unwrap();
    for copy in 0..times {
        for row in &rows {
            let number = (block(row) + copy * blocks).to_string();
            let fields = row.iter().enumerate();
            let fields = fields.map(|(index, field)| if index == column { &number } else { field });
            writer.write_record(fields).unwrap();
        }
    }
    writer.flush().unwrap();
}

/// The command, with at most so much memory.
fn within(mut command: Command, bytes: u64) -> Command {
    #[expect(
        unsafe_code,
        reason = "code between fork and exec must be async-signal-safe"
    )]
    // SAFETY: it makes one system call.
    unsafe {
        command.pre_exec(move || setrlimit(Resource::RLIMIT_DATA, bytes, bytes).map_err(Into::into))
    };
    command
}

fn report(folder: &Path) -> Command {
    let mut command = executable();
    command.arg("report").arg(folder);
    command
}

/// All histograms at once would take more than 600 MB.
#[test]
fn a_report_does_not_hold_all_histograms() {
    let large = enlarged(
        &committed("2026-11-21-75b2800-xeon-2cpu-kvm-rates-awake"),
        12,
    );
    let ended = finish(within(report(large.path()), 200 << 20));
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

/// Prints the time of each command that reads a folder of 126,000 histograms, and limits its memory.
#[test]
#[ignore = "takes a minute and 600 MB of disk: cargo test --release --test it -- --ignored --nocapture large::"]
fn large_folders_are_read_in_little_memory() {
    let large = enlarged(&committed("2026-11-21-eddd0ca-xeon-2cpu-kvm"), 100);
    let folder = large.path();
    let beside = TempDir::new().unwrap();
    std::os::unix::fs::symlink(folder, beside.path().join("run")).unwrap();

    let command = |name: &str, folders: &[&Path]| {
        let mut command = executable();
        command.arg(name).args(folders);
        command
    };
    for command in [
        command("report", &[folder]),
        command("table", &[folder]),
        command("compare", &[folder, folder]),
        command("history", &[beside.path()]),
    ] {
        let name = format!("{command:?}");
        let began = Instant::now();
        let ended = finish(within(command, 500_000_000));
        assert_eq!(ended.code, Some(0), "{ended:?}");
        println!("{:.1} s: {name}", began.elapsed().as_secs_f64());
    }
}
