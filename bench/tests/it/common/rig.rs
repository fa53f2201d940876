//! Hosts of a network on this machine, which a launcher reaches: each in a network namespace, with a monotonic clock of
//! its own. Needs root.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use echobench::processes::child::bind_lifetime;
use nix::unistd::{Pid, geteuid};
use tempfile::TempDir;

use super::place::Place;

/// Address of the host of the servers.
const ADDRESS: &str = "10.77.0.11";
/// Hosts of a rig.
const HOSTS: [&str; 3] = ["h1", "h2", "h3"];
/// Time by which the clock of each is ahead, in seconds.
const OFFSETS: [&str; 3] = ["0", "1000", "-100"];

/// Hosts `h1`, `h2` and `h3`, whose clocks differ by minutes.
pub struct Rig {
    process: Child,
    input: Option<ChildStdin>,
    folder: TempDir,
    prefix: String,
    launcher: String,
}

impl Rig {
    /// Hosts that are reached by ssh; `None`, with the reason on standard error, where that is impossible.
    pub fn with_ssh() -> Option<Rig> {
        let mut rig = Rig::start("ssh.sh", &["ssh", "ssh-keygen", "/usr/sbin/sshd"])?;
        let config = rig.folder.path().join("config");
        rig.launcher = format!("ssh -F {}", config.display());
        Some(rig)
    }

    /// Hosts of an allocation of Slurm.
    pub fn with_slurm() -> Option<Rig> {
        let programs = ["srun", "salloc", "slurmctld", "slurmd", "munged"];
        let mut rig = Rig::start("slurm.sh", &programs)?;
        rig.launcher
            .push_str("srun --overlap -u --nodes 1 --ntasks 1 --nodelist");
        Some(rig)
    }

    fn start(script: &str, programs: &[&str]) -> Option<Rig> {
        if !geteuid().is_root() {
            eprintln!("skipped: network namespaces need root");
            return None;
        }
        for program in ["ip", "nsenter", "unshare", "setpriv"]
            .iter()
            .chain(programs)
        {
            let folders = ["", "/usr/sbin/", "/usr/bin/", "/sbin/", "/bin/"];
            if !folders
                .iter()
                .any(|folder| Path::new(&format!("{folder}{program}")).exists())
            {
                eprintln!("skipped: there is no {program}");
                return None;
            }
        }

        let folder = TempDir::new().unwrap();
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rig");
        let mut command = Command::new(scripts.join(script));
        command
            .arg(folder.path())
            .args(OFFSETS)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut process = command.spawn().expect("bash is there");
        let input = process.stdin.take();

        let mut line = String::new();
        let output = process.stdout.take().expect("a pipe");
        BufReader::new(output).read_line(&mut line).unwrap();
        let Some(prefix) = line.strip_prefix("ready ") else {
            // Its own message is on standard error.
            let _ = process.wait();
            eprintln!("skipped: this machine makes no such hosts");
            return None;
        };
        Some(Rig {
            process,
            input,
            folder,
            prefix: prefix.trim().to_owned(),
            launcher: String::new(),
        })
    }

    /// A run with the server on `h1`, and clients on the others.
    pub fn run(&self, place: &Place, options: &[&str]) -> Command {
        let run = place.run(&[]);
        let mut command = Command::new(self.folder.path().join("on"));
        command
            .arg(run.get_program())
            .args(run.get_args())
            .args(["--server-on", &self.launcher("h1")])
            .args(["--server-address", ADDRESS])
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
        format!("{} {host}", self.launcher)
    }

    /// Cuts the link of a host to all others.
    pub fn cut(&self, host: &str) {
        let switch = format!("{}-switch", self.prefix);
        let port = format!("p-{host}");
        let cut = Command::new("ip")
            .args(["-n", &switch, "link", "set", &port, "down"])
            .status();
        assert!(cut.unwrap().success());
    }

    /// Processes of a host, with their command lines.
    pub fn processes(&self, host: &str) -> Vec<(Pid, String)> {
        let namespace = format!("{}-{host}", self.prefix);
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

    /// Processes of ours on a host.
    pub fn own_processes(&self, host: &str) -> Vec<(Pid, String)> {
        let mut all = self.processes(host);
        // The step that starts an agent has its name among its words.
        all.retain(|(_, words)| words.contains("echobench ") && !words.contains("slurmstepd"));
        all
    }

    /// Waits for so long at most until nothing of ours runs on any host.
    pub fn is_left_within(&self, time: Duration) {
        let deadline = Instant::now() + time;
        let left = || HOSTS.map(|host| self.own_processes(host)).concat();
        while !left().is_empty() {
            assert!(Instant::now() < deadline, "still there: {:?}", left());
            thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.input = None;
        let _ = self.process.wait();
    }
}
