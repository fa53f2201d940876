//! Faults of measurement, put there on purpose: the verdict of the row has to name each of them.
//!
//! It loads the machine for minutes, so it runs only when asked for, best on a machine without other
//! work: `cargo test --release --test it injected:: -- --ignored --nocapture`. The faults of ports need the
//! right to make a network namespace.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::common::{Running, executable};
use echobench::processes::child::bind_lifetime;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// Faults of each kind.
const EACH: u32 = 25;
/// Busy processes beside the experiment, for each CPU.
const HOGS_PER_CPU: usize = 2;

/// Goes on as the experiment in a network with few ports.
const FEW_PORTS: &str = r#"
    ip link set lo up && echo 40000 40003 >/proc/sys/net/ipv4/ip_local_port_range && exec "$0" "$@""#;

/// A disturbance of a run.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// Nothing.
    None,
    /// Processes that use all the CPU they get.
    CpuHogs,
    /// No descriptor for another connection.
    FileLimit,
    /// Fewer ports than clients.
    PortLimit,
    /// The clients stand still now and then while they have a schedule to keep.
    LatePacing,
}

impl Fault {
    /// The word that the verdict must have.
    fn word(self) -> &'static str {
        match self {
            Fault::None => "valid",
            Fault::CpuHogs => "disturbed",
            Fault::FileLimit => "files",
            Fault::PortLimit => "ports",
            Fault::LatePacing => "late",
        }
    }

    fn scenario(self) -> String {
        let (clients, traffic) = match self {
            Fault::None | Fault::CpuHogs => (4, ""),
            Fault::FileLimit => (4, "requests_per_connection = 1"),
            Fault::PortLimit => (16, ""),
            Fault::LatePacing => (
                4,
                r#"arrivals = { per_second = 2000, spacing = "constant" }"#,
            ),
        };
        let effort = r#"
blocks = 1
rounds = 6
slice = "60ms"
ramp = "4ms"
gap = "20ms""#;
        format!(
            "question = \"Is the fault named?\"\nmodels = [\"thread\"]\nclients = [{clients}]\n\
             drivers = [\"threads\"]\nplacements = [\"none\"]\n[traffic]\npayload_bytes = 64\ntimeout = \"1s\"\n{traffic}\n\
             [quick]{effort}\n[full]{effort}\n"
        )
    }

    /// The verdict of a run to which this is done.
    fn verdict(self) -> String {
        let folder = TempDir::new().unwrap();
        let (scenario, out) = (folder.path().join("fault.toml"), folder.path().join("out"));
        std::fs::write(&scenario, self.scenario()).unwrap();
        let mut command = executable();
        if let Fault::PortLimit = self {
            command = Command::new("unshare");
            command.args(["--net", "sh", "-c", FEW_PORTS]);
            command.arg(executable().get_program());
        }

        command.arg("run").arg(scenario).arg("--out").arg(&out);
        let cpus = thread::available_parallelism().unwrap().get();
        let hogs = match self {
            Fault::CpuHogs => HOGS_PER_CPU * cpus,
            _ => 0,
        };

        let _hogs: Vec<Hog> = (0..hogs).map(|_| Hog::start()).collect();
        let running = Running::start(command);
        let load = || running.processes_until(1, "echobench drive")[0];

        match self {
            Fault::FileLimit => forbid_files(load()),
            Fault::LatePacing => hold_back(load()),
            _ => {}
        }

        let finished = running.end();
        assert!(out.is_dir(), "{self:?}: {finished:?}");

        validity(&out)
    }
}

/// A busy process that ends with this.
struct Hog(Child);

impl Hog {
    fn start() -> Hog {
        let mut command = Command::new("sh");
        command
            .args(["-c", "while :; do :; done"])
            .stdin(Stdio::null());
        Hog(bind_lifetime(&mut command)
            .spawn()
            .expect("there is a shell"))
    }
}

impl Drop for Hog {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Takes from a process the right to open anything more.
fn forbid_files(process: Pid) {
    // It first has to be connected, or there is no experiment.
    thread::sleep(Duration::from_millis(300));
    let mut command = Command::new("prlimit");
    command.arg(format!("--pid={process}")).arg("--nofile=4:4");
    assert!(command.status().expect("prlimit is there").success());
}

/// Stops a process for a moment, again and again, until it ends.
fn hold_back(process: Pid) {
    let pause = || thread::sleep(Duration::from_millis(20));
    while kill(process, Signal::SIGSTOP) != Err(Errno::ESRCH) {
        pause();
        let _ = kill(process, Signal::SIGCONT);
        pause();
        pause();
    }
}

fn validity(results: &Path) -> String {
    let mut reader = csv::Reader::from_path(results.join("blocks.csv")).unwrap();
    let names = reader.headers().unwrap().clone();
    let column = names.iter().position(|name| name == "validity").unwrap();
    let row = reader
        .records()
        .next()
        .expect("a row of the block")
        .unwrap();
    row[column].to_owned()
}

#[test]
#[ignore = "loads the machine for minutes"]
fn faults_are_named() {
    let kinds = [
        Fault::CpuHogs,
        Fault::FileLimit,
        Fault::PortLimit,
        Fault::LatePacing,
    ];

    let mut verdicts: BTreeMap<(String, String), u32> = BTreeMap::new();
    let mut missed = Vec::new();
    for number in 0..EACH {
        for fault in kinds.into_iter().chain([Fault::None]) {
            let verdict = fault.verdict();
            println!("{fault:?} {number}: {verdict}");
            let named = verdict.split(';').any(|word| word == fault.word());
            if !named && !matches!(fault, Fault::None) {
                missed.push(format!("{fault:?} {number}: {verdict}"));
            }
            // What the machine does beside is not in our hands; what only a fault can do is.
            if let Fault::None = fault {
                assert!(
                    !verdict.contains("files") && !verdict.contains("ports"),
                    "{verdict}"
                );
            }
            *verdicts.entry((format!("{fault:?}"), verdict)).or_default() += 1;
        }
    }

    for ((fault, verdict), count) in verdicts {
        println!("{fault:<12} {count:>3} × {verdict}");
    }

    assert!(missed.is_empty(), "not named: {missed:#?}");
}
