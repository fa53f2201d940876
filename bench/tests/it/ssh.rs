//! Hosts of a network, reached by ssh: each in a network namespace, with a monotonic clock of its own. Needs root.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use crate::common::place::Place;
use crate::common::{Running, eventually, finish};
use crate::hosts::{SCENARIO, assert_counts_agree, one_block_is_kept};
use echobench::processes::child::bind_lifetime;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use tempfile::TempDir;

/// Hosts `h1`, `h2` and `h3`, whose clocks differ by minutes.
struct Rig {
    process: Child,
    input: Option<ChildStdin>,
    folder: TempDir,
    address: String,
    namespace: String,
}

impl Rig {
    /// Starts the hosts; `None`, with the reason on standard error, where that is impossible.
    fn start() -> Option<Rig> {
        if !geteuid().is_root() {
            eprintln!("skipped: network namespaces need root");
            return None;
        }
        for program in [
            "ip",
            "ssh",
            "ssh-keygen",
            "/usr/sbin/sshd",
            "unshare",
            "setpriv",
        ] {
            let mut probe = Command::new(program);
            probe.arg("-V").stdin(Stdio::null());
            probe.stdout(Stdio::null()).stderr(Stdio::null());
            if probe.status().is_err() {
                eprintln!("skipped: there is no {program}");
                return None;
            }
        }

        let folder = TempDir::new().unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rig/ssh.sh");
        let mut command = Command::new(script);
        command
            .arg(folder.path())
            .args(["0", "1000", "-100"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut process = command.spawn().expect("bash is there");
        let input = process.stdin.take();

        let mut line = String::new();
        let output = process.stdout.take().expect("a pipe");
        BufReader::new(output).read_line(&mut line).unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        let ["ready", address, namespace] = words[..] else {
            // Its own message is on standard error.
            let _ = process.wait();
            eprintln!("skipped: this machine makes no such hosts");
            return None;
        };
        let (address, namespace) = (address.to_owned(), namespace.to_owned());
        Some(Rig {
            process,
            input,
            folder,
            address,
            namespace,
        })
    }

    /// A run with the server on `h1`, and clients on the others.
    fn run(&self, place: &Place, options: &[&str]) -> Command {
        let run = place.run(&[]);
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.namespace])
            .arg(run.get_program())
            .args(run.get_args())
            .args(["--server-on", &self.launcher("h1")])
            .args(["--server-address", &self.address])
            .args(["--clients-on", &self.launcher("h2")])
            .args(["--clients-on", &self.launcher("h3")])
            .args(options);
        if let Some(folder) = run.get_current_dir() {
            command.current_dir(folder);
        }
        bind_lifetime(&mut command);
        command
    }

    fn launcher(&self, host: &str) -> String {
        format!("ssh -F {}/config {host}", self.folder.path().display())
    }

    /// Processes of a host, with their command lines.
    fn processes(&self, host: &str) -> Vec<(Pid, String)> {
        let namespace = self.namespace.replace("control", host);
        let output = Command::new("ip")
            .args(["netns", "pids", &namespace])
            .output()
            .unwrap();
        let pids = String::from_utf8(output.stdout).unwrap();
        let pids = pids.lines().map(|pid| pid.parse().unwrap());
        let with_words = |pid: i32| {
            let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let words = String::from_utf8_lossy(&words).replace('\0', " ");
            (Pid::from_raw(pid), words)
        };
        pids.map(with_words).collect()
    }

    /// Waits until nothing of ours runs on any host.
    fn is_left(&self) {
        for host in ["h1", "h2", "h3"] {
            let left = || {
                let mut all = self.processes(host);
                all.retain(|(_, words)| words.contains("echobench"));
                all
            };
            eventually(|| left().is_empty().then_some(()), left);
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.input = None;
        let _ = self.process.wait();
    }
}

#[test]
fn counts_agree_over_ssh_with_clocks_apart() {
    let Some(rig) = Rig::start() else { return };
    let place = Place::with(SCENARIO);
    let finished = finish(rig.run(&place, &[]));

    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert_counts_agree(&place, 6);
    rig.is_left();
}

#[test]
fn a_session_of_ssh_that_is_killed_ends_the_run() {
    let Some(rig) = Rig::start() else { return };
    let place = Place::with(SCENARIO);
    let running = Running::start(rig.run(&place, &["--blocks", "60"]));
    one_block_is_kept(&place);

    let sessions = rig.processes("h3").into_iter();
    for (pid, _) in sessions.filter(|(_, words)| words.starts_with("sshd: ")) {
        let _ = kill(pid, Signal::SIGKILL);
    }
    let finished = running.end();
    assert_eq!(finished.code, Some(1), "{finished:?}");
    for words in ["load host 2", "h3", "--resume"] {
        assert!(finished.stderr.contains(words), "{words}: {finished:?}");
    }
    assert!(place.rows("blocks.csv").len().is_multiple_of(2));
    rig.is_left();
}
