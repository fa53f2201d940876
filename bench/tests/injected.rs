//! Faults of measurement, put in on purpose: every one must be named by the rows, or refused before the
//! run, and a quiet machine must not be accused.
//!
//! These take some minutes, want the machine for themselves and, for the port limit, a network
//! namespace of their own:
//! `cargo test --release --package echobench --test injected -- --ignored --nocapture`.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;

const TIMES: usize = 25;

/// Processes that use every CPU, until this is dropped.
struct Hogs(Vec<Child>);

impl Hogs {
    fn start(count: usize, niceness: &str) -> Self {
        let hog = || {
            let mut command = Command::new("nice");
            command.args(["-n", niceness, "sh", "-c", "while :; do :; done"]);
            #[expect(unsafe_code, reason = "a hog must not outlive the test")]
            // SAFETY: only a system call between fork and exec.
            unsafe {
                command.pre_exec(|| set_pdeathsig(Signal::SIGKILL).map_err(Into::into));
            }
            command.spawn().expect("a hog starts")
        };
        Hogs((0..count).map(|_| hog()).collect())
    }
}

impl Drop for Hogs {
    fn drop(&mut self) {
        for hog in &mut self.0 {
            hog.kill().expect("the hog is there");
            hog.wait().expect("the hog ends");
        }
    }
}

fn scenario(folder: &Path, clients: u32, traffic: &str) -> String {
    let path = folder.join("small.toml");
    let effort = "blocks = 1\nrounds = 2\nslice = \"150ms\"\nramp = \"5ms\"\ngap = \"20ms\"\n";
    let text = format!(
        "question = \"small\"\nmodels = [\"thread\", \"async\"]\nclients = [{clients}]\n\
         drivers = [\"threads\"]\n[traffic]\npayload_bytes = 64\ntimeout = \"2s\"\n{traffic}\n\
         [quick]\n{effort}[full]\n{effort}"
    );
    fs::write(&path, text).expect("the folder is writable");
    path.to_str().expect("a plain path").to_owned()
}

/// Runs a small scenario through `wrapper`, a shell command that ends in `"$@"`, and returns what the
/// rows say of each arm.
fn run(wrapper: &str, clients: u32, traffic: &str) -> (Output, Vec<String>) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let scenario = scenario(folder.path(), clients, traffic);
    let out = folder.path().join("out");
    let output = Command::new("sh")
        .args([
            "-c",
            wrapper,
            "sh",
            env!("CARGO_BIN_EXE_echobench"),
            "run",
            &scenario,
            "--out",
        ])
        .arg(&out)
        .stdin(Stdio::null())
        .output()
        .expect("the shell starts");
    let rows = csv::Reader::from_path(out.join("blocks.csv"));
    let words = rows.map_or_else(
        |_| Vec::new(),
        |mut rows| {
            let names = rows.headers().expect("names").clone();
            let column = names.iter().position(|name| name == "validity");
            let word =
                |row: csv::StringRecord| column.and_then(|at| row.get(at).map(str::to_owned));
            rows.records()
                .map_while(Result::ok)
                .filter_map(word)
                .collect()
        },
    );
    (output, words)
}

fn named(words: &[String], word: &str) -> bool {
    !words.is_empty()
        && words
            .iter()
            .all(|row| row.split(';').any(|found| found == word))
}

#[test]
#[ignore = "takes minutes and wants the machine for itself"]
fn injected_faults_are_named() {
    let plain = "exec \"$@\"";
    let open = "arrivals = { per_second = 2000, spacing = \"constant\" }";
    let few_ports = "exec unshare --net sh -c 'ip link set lo up; \
                     echo 60000 60015 >/proc/sys/net/ipv4/ip_local_port_range; exec \"$@\"' sh \"$@\"";
    let cpus = std::thread::available_parallelism().expect("CPUs").get();
    let mut missed = Vec::new();
    let mut count = |kind: &str, found: bool, seen: &[String]| {
        if !found {
            missed.push(format!("{kind}: {seen:?}"));
        }
    };
    for _ in 0..TIMES {
        let hogs = Hogs::start(cpus, "0");
        let (_, words) = run(plain, 4, "");
        drop(hogs);
        count("CPU hog", named(&words, "disturbed"), &words);

        let hogs = Hogs::start(3 * cpus, "-20");
        let (_, words) = run(plain, 4, open);
        drop(hogs);
        count("late pacing", named(&words, "late"), &words);

        let (_, words) = run(few_ports, 40, "");
        count("port limit", named(&words, "ports"), &words);

        let (output, words) = run("ulimit -n 64; exec \"$@\"", 100, "");
        let refused = String::from_utf8_lossy(&output.stderr).contains("open files");
        count(
            "file limit",
            refused && output.status.code() == Some(1),
            &words,
        );
    }
    let mut accused = 0;
    for traffic in ["", open] {
        for _ in 0..TIMES {
            let (_, words) = run(plain, 4, traffic);
            accused += usize::from(!named(&words, "valid"));
        }
    }
    println!("faults missed: {} of {}", missed.len(), 4 * TIMES);
    println!(
        "runs without a fault that were not called valid: {accused} of {}",
        2 * TIMES
    );
    assert!(missed.is_empty(), "{missed:#?}");
}
