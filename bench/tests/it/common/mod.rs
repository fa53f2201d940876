//! A server process and its clients, for the tests that drive the real executable.

#![allow(
    unreachable_pub,
    reason = "the items of a test executable are reachable from nowhere else"
)]

pub mod control_group;
pub mod place;
pub mod rig;

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Once, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use echobench::processes::{child::bind_lifetime, ready_address};
use echobench::verify::{self, Connection, Limits};
pub use echobench::verify::{echo, frame};
use echobench_clients::DurationHistogram;
use echobench_protocol::Reason;
use echobench_servers::{MODELS, Model};
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
use nix::sys::signal::{SigHandler, Signal, kill, killpg, signal};
use nix::unistd::Pid;
use tempfile::TempDir;

/// A test that waits longer than this hangs. It says nothing about how fast anything has to be.
pub const HANG: Duration = Duration::from_secs(30);
/// The same of a command that measures from its start to its end, beside other tests and on a slow machine.
const WHOLE_COMMAND: Duration = Duration::from_secs(180);

/// Options of models that change how they serve.
const VARIANTS: [&[&str]; 4] = [
    &["async", "--runtime", "current-thread"],
    &["async", "--runtime", "per-core"],
    &["pool", "--queue", "rayon"],
    // The parent has a descriptor for each worker.
    &["prefork", "--accept", "pass", "--workers", "16"],
];

/// The models that this host can serve. The others are skipped, which is said.
pub fn available_models() -> impl Iterator<Item = &'static Model> {
    MODELS.iter().filter(|model| {
        let reason = model.unavailable();
        if let Some(reason) = &reason {
            println!("skipped: {}: {reason}", model.name);
        }
        reason.is_none()
    })
}

/// Every available model, and the variants of some: their arguments for `serve`.
pub fn models() -> Vec<Vec<&'static str>> {
    let plain = available_models().map(|model| vec![model.name]);
    let variants = VARIANTS.iter().map(|arguments| arguments.to_vec());
    plain.chain(variants).collect()
}

/// The executable under test.
pub fn executable() -> Command {
    heed_hangups();
    Command::new(env!("CARGO_BIN_EXE_echobench"))
}

/// Lets SIGHUP end processes again where the tests themselves run under `nohup`: what they start would
/// ignore it too.
fn heed_hangups() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        #[expect(unsafe_code, reason = "a disposition can only be set this way")]
        // SAFETY: the default action is no handler.
        let heeded = unsafe { signal(Signal::SIGHUP, SigHandler::SigDfl) };
        heeded.expect("a valid signal");
    });
}

/// A copy of the executable that everybody may read: limits on processes do not bind root.
pub fn copy_for_nobody() -> &'static Path {
    static COPY: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = COPY.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let path = folder.path().join("echobench");
        // By another process: a child forked for another test in the meantime would inherit the
        // copy open for writing, and then it could not be executed.
        let original = env!("CARGO_BIN_EXE_echobench");
        let copied = Command::new("cp").arg(original).arg(&path).status();
        assert!(copied.unwrap().success());
        (folder, path)
    });

    path
}

/// A server process that does not outlive its test.
pub struct Server {
    child: Child,
    address: SocketAddr,
    stdout: Receiver<String>,
    stderr: Option<JoinHandle<String>>,
}

/// The end of a server process.
pub struct Ended {
    pub status: ExitStatus,
    pub counters: Counters,
    pub stderr: String,
}

/// A loopback address for one server. A port on it is never given to the server of another test, so that nobody
/// answers there once the server is gone.
fn own_address() -> String {
    static SERVERS: AtomicU32 = AtomicU32::new(0);
    let process = std::process::id() % 254 + 1;
    let [.., high, low] = SERVERS.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    format!("127.{process}.{high}.{low}:0")
}

impl Server {
    /// Starts `echobench serve`, at an address of its own, with these arguments and waits until it is ready.
    pub fn start(arguments: &[&str]) -> Server {
        Server::start_by(executable(), arguments)
    }

    /// The same with `command` in front of `serve`.
    pub fn start_by(mut command: Command, arguments: &[&str]) -> Server {
        command
            .arg("serve")
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if !arguments.contains(&"--listen") {
            command.args(["--listen", &own_address()]);
        }

        let mut child = bind_lifetime(&mut command)
            .spawn()
            .expect("the executable starts");
        let stdout = lines(child.stdout.take().expect("piped"));
        let mut errors = child.stderr.take().expect("piped");
        let stderr = thread::spawn(move || {
            let mut text = String::new();
            let _ = errors.read_to_string(&mut text);
            text
        });

        let mut server = Server {
            child,
            address: SocketAddr::from(([0, 0, 0, 0], 0)),
            stdout,
            stderr: Some(stderr),
        };

        let line = server.line().expect("a server says when it is ready");
        server.address = ready_address(&line).expect("the first line has its address");
        server
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("process ids are small"))
    }

    pub fn connect(&self) -> Client {
        Client::connect(self.address).expect("the server can be connected to")
    }

    /// A check of the conformance suite holds, and the server is taken for what it is.
    pub fn holds(&self, check: &str) {
        let check = verify::CHECKS.iter().find(|known| known.name == check);
        let check = check.expect("a check of this name");
        let peer = verify::Peer::known(self.address, HANG);
        assert_eq!(
            check.run(peer),
            verify::CheckOutcome::Passed,
            "{}",
            check.what
        );
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("the server is there");
    }

    /// Waits until a signal that was sent is no longer pending: before that, another one of its kind
    /// would be lost in it.
    pub fn has_seen(&self, signal: Signal) {
        let pending = || {
            let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
            let mut lines = status.lines();
            let mask = lines.find_map(|line| line.strip_prefix("ShdPnd:")).unwrap();
            u64::from_str_radix(mask.trim(), 16).unwrap()
        };
        let bit = 1 << (signal as i32 - 1);
        eventually(|| (pending() & bit == 0).then_some(()), pending);
    }

    /// The next line on standard output; `None` at its end.
    pub fn line(&self) -> Option<String> {
        match self.stdout.recv_timeout(HANG) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("the server says nothing more"),
        }
    }

    /// The counters now.
    pub fn counters(&self) -> Counters {
        self.signal(Signal::SIGUSR1);
        Counters::parse(&self.line().expect("a line of counters"))
    }

    /// The counters once they are as wanted. The server counts a reply after it has sent it, so the
    /// client may be ahead.
    pub fn counters_until(&self, wanted: impl Fn(&Counters) -> bool) -> Counters {
        eventually(|| Some(self.counters()).filter(&wanted), || self.counters())
    }

    /// Whether the process is still there.
    pub fn is_running(&mut self) -> bool {
        self.status().is_none()
    }

    /// The exit status, if it has ended.
    pub fn status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Whether it is stopped by a signal.
    pub fn is_stopped(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        fields.starts_with('T')
    }

    /// SIGTERM, and the end.
    pub fn stop(self) -> Ended {
        self.signal(Signal::SIGTERM);
        self.end()
    }

    /// Waits for the server to end; nothing of it may be left over.
    pub fn end(mut self) -> Ended {
        let mut last = None;
        while let Some(line) = self.line() {
            last = Some(line);
        }
        let status = self.child.wait().unwrap();
        assert!(killpg(self.pid(), None).is_err(), "a process is left over");
        let stderr = self.stderr.take().expect("taken once").join().unwrap();
        Ended {
            status,
            counters: Counters::parse(&last.expect("counters at the end")),
            stderr,
        }
    }

    /// The children of the server, zombies included.
    pub fn children(&self) -> Vec<Pid> {
        let pid = self.pid();
        let list = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        list.split_whitespace()
            .map(|child| Pid::from_raw(child.parse().unwrap()))
            .collect()
    }

    /// The number of open descriptors of the server.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid()))
            .unwrap()
            .count()
    }

    /// User and system CPU time of the server, in the kernel's ticks of 10 ms.
    pub fn cpu_ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        // The name in the second field may hold anything but ends with the last parenthesis.
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        let ticks = fields.split(' ').skip(11).take(2);
        ticks.map(|field| field.parse::<u64>().unwrap()).sum()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Its group is its own, and its number stays taken until it is waited for.
        if let Ok(None) = self.child.try_wait() {
            let _ = killpg(self.pid(), Signal::SIGKILL);
            let _ = self.child.wait();
        }
    }
}

fn lines(from: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}

/// A line of counters.
#[derive(Debug)]
pub struct Counters(HashMap<String, u64>);

impl Counters {
    fn parse(line: &str) -> Counters {
        let fields = line.strip_prefix("counters ").expect("a line of counters");
        let field = |field: &str| {
            let (name, value) = field.split_once('=').expect("name=value");
            // That of the workers is a list, of which the sum is taken.
            let values = value.split(',').map(|value| value.parse::<u64>().unwrap());
            (name.to_owned(), values.sum())
        };
        Counters(fields.split(' ').map(field).collect())
    }

    pub fn get(&self, name: &str) -> u64 {
        self.0[name]
    }
}

/// Tries again until there is something, or until it takes so long that the test hangs.
pub fn eventually<T, S: std::fmt::Debug>(
    attempt: impl FnMut() -> Option<T>,
    state: impl FnOnce() -> S,
) -> T {
    within(HANG, attempt, state)
}

fn within<T, S: std::fmt::Debug>(
    limit: Duration,
    mut attempt: impl FnMut() -> Option<T>,
    state: impl FnOnce() -> S,
) -> T {
    let start = Instant::now();
    while start.elapsed() < limit {
        if let Some(result) = attempt() {
            return result;
        }
        thread::sleep(Duration::from_millis(5));
    }
    panic!("it does not come to it; it is {:?}", state());
}

/// A client with one connection: that of the conformance suite, but it fails the test.
#[derive(Debug)]
pub struct Client(pub TcpStream);

impl Client {
    pub fn connect(address: SocketAddr) -> std::io::Result<Client> {
        let stream = TcpStream::connect_timeout(&address, HANG)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(HANG))?;
        stream.set_write_timeout(Some(HANG))?;
        Ok(Client(stream))
    }

    fn connection(&self) -> Connection<&TcpStream> {
        Connection::over(&self.0, Limits::new(HANG, HANG))
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.connection().send(bytes).expect("the server takes it");
    }

    /// Reads so many bytes.
    pub fn receive(&mut self, count: usize) -> Vec<u8> {
        self.connection().receive(count).expect("a reply")
    }

    /// Reads what comes before the server closes.
    pub fn rest(&mut self) -> Vec<u8> {
        self.connection().rest().expect("the server closes")
    }

    /// The server closes without another word, in whatever way.
    pub fn closed(&mut self) {
        match self.0.read(&mut [0; 64]) {
            Ok(0) => {}
            // A signal to the tests, such as that of a child's end.
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => self.closed(),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
            other => panic!("expected the end, got {other:?}"),
        }
    }

    /// No more requests.
    pub fn finish(&self) {
        self.connection().finish().expect("it is open");
    }

    /// Sends a frame and gets it back as it is.
    pub fn exchange(&mut self, frame: &[u8]) {
        self.connection().exchange(frame).expect("the same bytes");
    }

    /// Gets an error frame for this request, and then the end.
    pub fn refused(&mut self, reason: Reason, sequence: u64) {
        self.connection()
            .refused(reason, sequence)
            .expect("an error frame");
    }

    /// Closes with a reset.
    pub fn reset(self) {
        Connection::over(self.0, Limits::new(HANG, HANG))
            .reset()
            .expect("it is open");
    }
}

/// The end of a command.
#[derive(Debug)]
pub struct Finished {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Finished {
    /// It could not be done, and one line says why, with all these words in it.
    pub fn refused(&self, words: &[&str]) {
        assert_eq!(self.code, Some(1), "{self:?}");
        assert_eq!(self.stdout, "", "{self:?}");
        let mut lines = self.stderr.lines();
        let line = lines.next().expect("a line that says why");
        for word in words {
            assert!(line.contains(word), "no '{word}': {self:?}");
        }
        // Only a command line that cannot be read is followed by a reminder of its form.
        let reminder = |line: &str| line.is_empty() || line.starts_with(char::is_whitespace);
        let hint = |line: &str| line.starts_with("Usage: ") || line.starts_with("For more");
        assert!(lines.all(|line| reminder(line) || hint(line)), "{self:?}");
    }
}

/// A command under way, and everything it has started: none of it outlives the test.
pub struct Running {
    child: Child,
    mark: String,
    stdout: Receiver<String>,
    stderr: Receiver<String>,
}

impl Running {
    pub fn start(command: Command) -> Running {
        let (running, _) = Running::start_with_input(command);
        running
    }

    /// The same with its standard input, which is at its end as soon as it is dropped.
    pub fn start_with_input(mut command: Command) -> (Running, ChildStdin) {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let mark = format!("{}-{number}", std::process::id());
        command
            .env("ECHOBENCH_TEST_MARK", &mark)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());

        let mut child = bind_lifetime(&mut command)
            .spawn()
            .expect("the executable starts");
        let input = child.stdin.take().expect("piped");
        let running = Running {
            stdout: text(child.stdout.take().expect("piped")),
            stderr: text(child.stderr.take().expect("piped")),
            child,
            mark,
        };

        (running, input)
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("process ids are small"))
    }

    /// Sends a signal to the command alone.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("it is there");
    }

    /// Every live process of the command, with its command line. They are known by a variable of
    /// their environment, which each inherits from the one that starts it.
    pub fn processes(&self) -> Vec<(Pid, String)> {
        let variable = format!("ECHOBENCH_TEST_MARK={}\0", self.mark);
        let entries = std::fs::read_dir("/proc").unwrap().map_while(Result::ok);
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter_map(|pid: i32| {
            // One that ends meanwhile has no files any more.
            let read = |name: &str| std::fs::read(format!("/proc/{pid}/{name}")).ok();
            let environment = read("environ")?;
            let marked = |at: &[u8]| at == variable.as_bytes();
            if !environment.windows(variable.len()).any(marked) {
                return None;
            }
            let stat = String::from_utf8(read("stat")?).ok()?;
            let (_, fields) = stat.rsplit_once(") ")?;
            let dead = fields.starts_with(['Z', 'X']);
            let words = String::from_utf8(read("cmdline")?).ok()?.replace('\0', " ");
            (!dead).then(|| (Pid::from_raw(pid), words))
        })
        .collect()
    }

    /// The processes of which `wanted` many have a command line with these words.
    pub fn processes_until(&self, wanted: usize, words: &str) -> Vec<Pid> {
        let with_words = || {
            let all = self.processes().into_iter();
            all.filter(|(_, line)| line.contains(words))
                .map(|(pid, _)| pid)
                .collect::<Vec<_>>()
        };
        eventually(
            || Some(with_words()).filter(|pids| pids.len() == wanted),
            || self.processes(),
        )
    }

    /// Waits for its end, which is at hand; nothing of it may be left over.
    pub fn end(self) -> Finished {
        self.end_within(HANG)
    }

    fn end_within(mut self, limit: Duration) -> Finished {
        let running = || "still running";
        let status = within(limit, || self.child.try_wait().unwrap(), running);
        eventually(
            || self.processes().is_empty().then_some(()),
            || self.processes(),
        );
        Finished {
            code: status.code(),
            stdout: self.stdout.recv_timeout(HANG).expect("it has ended"),
            stderr: self.stderr.recv_timeout(HANG).expect("it has ended"),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        for (pid, _) in self.processes() {
            let _ = kill(pid, Signal::SIGKILL);
        }
    }
}

/// Runs a command from its start to its end.
pub fn finish(command: Command) -> Finished {
    Running::start(command).end_within(WHOLE_COMMAND)
}

/// Whether a program that some tests need is there; says so if not.
pub fn is_installed(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output();
    let found = found.is_ok_and(|output| output.status.success());
    if !found {
        println!("skipped: {program} is not installed");
    }
    found
}

/// Runs a helper to its end, which must be a success, and returns what it prints.
pub fn succeeds(command: &mut Command) -> String {
    let output = command.output().expect("the program is there");
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Written by another process: were it open in this one, a process that another test starts at that
/// moment would have it open too, and it could not be run.
pub fn script(folder: &Path, name: &str, text: &str) {
    let mut command = Command::new("sh");
    command.current_dir(folder).args([
        "-c",
        "printf '#!/bin/sh\\n%s\\n' \"$2\" >\"$1\" && chmod +x \"$1\"",
        "sh",
        name,
        text,
    ]);
    assert!(command.status().unwrap().success());
}

/// A git command that neither the settings of a user nor those of a hook reach.
pub fn git(folder: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new("git");
    command
        .current_dir(folder)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_SYSTEM", "/dev/null")
        .args(["-c", "user.name=test", "-c", "user.email=test@localhost"])
        .args(arguments);
    for variable in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"] {
        command.env_remove(variable);
    }
    succeeds(&mut command)
}

fn text(mut from: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut text = String::new();
        let _ = from.read_to_string(&mut text);
        let _ = sender.send(text);
    });
    receiver
}

/// Reads an interval log: the tag and the histogram of each line.
pub fn read_hlog(path: &Path) -> Vec<(String, DurationHistogram)> {
    let log = std::fs::read(path).unwrap();
    IntervalLogIterator::new(&log)
        .filter_map(|entry| match entry.expect("a line of the format") {
            LogEntry::Interval(interval) => {
                let tag = interval.tag().expect("a tag").as_str().to_owned();
                let histogram = interval.encoded_histogram();
                Some((
                    tag,
                    DurationHistogram::from_base64(histogram).expect("a histogram"),
                ))
            }
            _ => None,
        })
        .collect()
}
