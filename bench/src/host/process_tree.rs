//! CPU time, memory and context switches of a process tree on Linux, read from outside.
//!
//! A tree is a process and all its descendants. A process whose parent died has left the tree, and its
//! CPU time counts for its parent only if that parent reaped it. All figures are totals since the start
//! of the processes; the cost of a stretch of time is the difference of two readings. Sources: `proc(5)`, `wait(2)`, `clock_getcpuclockid(3)`.

use nix::errno::Errno;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::{Pid, SysconfVar, sysconf};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::str::FromStr;
use std::sync::LazyLock;
use std::time::Duration;

/// The CPU time of a process tree since the start of its processes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuTime {
    /// That of the existing processes: of all their threads, also of those that ended. Exact to the
    /// nanosecond.
    pub live_ns: u64,
    /// That of processes that ended and were reaped by an existing one. Every existing process reports
    /// it in ticks (10 ms), user and system time apart, each rounded down as a total: the error stays
    /// below two ticks per existing process, whatever number it reaped.
    pub reaped_ns: u64,
    /// User time of both, from ticks.
    pub user_ns: u64,
    /// System time of both, from ticks.
    pub system_ns: u64,
    /// False when a process ended during each attempt at a reading. Its time may then be missing,
    /// having moved from one account to the other in between.
    pub complete: bool,
}

impl CpuTime {
    /// All CPU time in nanoseconds, from the finer of the sources; the sum of `user_ns` and
    /// `system_ns` is the same in ticks.
    #[must_use]
    pub fn total_ns(&self) -> u64 {
        self.live_ns + self.reaped_ns
    }
}

/// The memory of a process tree; of a page that n processes share each counts one n-th.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Resident memory: the proportional set size.
    pub pss_bytes: u64,
    /// The part of it that no file backs, like heaps, stacks and copied pages; `None` before
    /// Linux 5.3.
    pub pss_anon_bytes: Option<u64>,
    /// The page tables of the processes, in kernel memory: `VmPTE`.
    pub page_table_bytes: u64,
    /// The number of processes, without those that ended and wait to be reaped.
    pub processes: u64,
    /// The number of threads of these processes.
    pub threads: u64,
}

impl Memory {
    /// The kernel's part of a thread's stack, on the architectures this runs on.
    const KERNEL_STACK_BYTES: u64 = 16 * 1024;

    /// The stacks of the threads in kernel memory.
    #[must_use]
    pub fn kernel_stack_bytes(&self) -> u64 {
        self.threads * Self::KERNEL_STACK_BYTES
    }
}

/// Context switches of the threads of a process tree.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ContextSwitches {
    /// Switches of a thread that had to wait for something.
    pub voluntary: u64,
    /// Switches because another thread got its turn.
    pub involuntary: u64,
}

/// The ids of the process `root` and of all processes below it, in no particular order.
///
/// Fails when there is no such process. One that ends meanwhile may be listed or not.
pub fn tree(root: u32) -> io::Result<Vec<u32>> {
    let processes = processes(root)?;
    Ok(processes.iter().map(|process| process.pid).collect())
}

/// The CPU time of the tree of `root`.
///
/// Fails when there is no such process.
pub fn cpu(root: u32) -> io::Result<CpuTime> {
    settled(|| {
        let listing = Listing::read(root)?;
        let mut time = CpuTime {
            complete: listing.complete,
            ..CpuTime::default()
        };
        for process in &listing.processes {
            let ticks = process.reaped_user_ticks + process.reaped_system_ticks;
            time.reaped_ns += ticks * *TICK_NS;
            time.user_ns += (process.user_ticks + process.reaped_user_ticks) * *TICK_NS;
            time.system_ns += (process.system_ticks + process.reaped_system_ticks) * *TICK_NS;
            match live_ns(process.pid)? {
                Some(ns) => time.live_ns += ns,
                None => time.complete = false,
            }
        }
        Ok((time, time.complete))
    })
}

/// The memory of the tree of `root`.
///
/// Fails if there is no such process, or if the memory of one may not be read.
pub fn memory(root: u32) -> io::Result<Memory> {
    let mut memory = Memory {
        pss_anon_bytes: Some(0),
        ..Memory::default()
    };

    let mut text = Vec::new();
    for process in processes(root)? {
        if read_process(&format!("/proc/{}/status", process.pid), &mut text)? {
            memory.page_table_bytes += field::<u64>(&text, "VmPTE:").unwrap_or(0) * 1024;
        }
        if !read_process(&format!("/proc/{}/smaps_rollup", process.pid), &mut text)? {
            continue;
        }
        let Some(kib) = field::<u64>(&text, "Pss:") else {
            continue;
        };
        let anon_kib = field::<u64>(&text, "Pss_Anon:");
        memory.pss_bytes += kib * 1024;
        memory.pss_anon_bytes = memory
            .pss_anon_bytes
            .zip(anon_kib)
            .map(|(sum, kib)| sum + kib * 1024);
        memory.processes += 1;
        memory.threads += process.threads;
    }

    Ok(memory)
}

/// The context switches of the tree of `root`, of the threads that exist. Those of threads and processes
/// that ended cannot be read from outside, so the figure can fall.
///
/// Fails when there is no such process.
pub fn context_switches(root: u32) -> io::Result<ContextSwitches> {
    let mut switches = ContextSwitches::default();
    let mut text = Vec::new();
    for process in processes(root)? {
        for thread in numbers_in(&format!("/proc/{}/task", process.pid))? {
            let path = format!("/proc/{}/task/{thread}/status", process.pid);
            if read_process(&path, &mut text)? {
                switches.voluntary += field(&text, "voluntary_ctxt_switches:").unwrap_or(0);
                switches.involuntary += field(&text, "nonvoluntary_ctxt_switches:").unwrap_or(0);
            }
        }
    }

    Ok(switches)
}

/// CPU time of this process and its threads, in nanoseconds.
#[must_use]
pub fn own_cpu_ns() -> u64 {
    usage_ns(UsageWho::RUSAGE_SELF)
}

/// CPU time of the processes that this process has reaped, and of those that they had reaped, in
/// nanoseconds.
#[must_use]
pub fn reaped_cpu_ns() -> u64 {
    usage_ns(UsageWho::RUSAGE_CHILDREN)
}

fn usage_ns(who: UsageWho) -> u64 {
    let usage = getrusage(who).expect("every Linux accounts for this process and its children");
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    micros.unsigned_abs() * 1000
}

/// The length of the ticks in which the kernel reports CPU time, in nanoseconds.
pub(super) static TICK_NS: LazyLock<u64> = LazyLock::new(|| {
    let per_second = sysconf(SysconfVar::CLK_TCK).ok().flatten();
    let per_second = per_second.and_then(|ticks| u64::try_from(ticks).ok());
    1_000_000_000 / per_second.filter(|&ticks| ticks > 0).unwrap_or(100)
});

/// Whether the kernel lists the children of a thread (`CONFIG_PROC_CHILDREN`).
static LISTS_CHILDREN: LazyLock<bool> =
    LazyLock::new(|| Path::new("/proc/thread-self/children").exists());

/// The fields of `/proc/PID/stat` that are needed here.
#[derive(Debug, PartialEq, Eq)]
struct Process {
    pid: u32,
    parent: u32,
    user_ticks: u64,
    system_ticks: u64,
    reaped_user_ticks: u64,
    reaped_system_ticks: u64,
    threads: u64,
}

impl Process {
    /// The present state of a process; `None` if it does not exist. `text` is a buffer to use again.
    fn read(pid: u32, text: &mut Vec<u8>) -> io::Result<Option<Self>> {
        if !read_process(&format!("/proc/{pid}/stat"), text)? {
            return Ok(None);
        }
        let parsed = Self::parse(pid, text).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Some(parsed))
    }

    fn parse(pid: u32, stat: &[u8]) -> Option<Self> {
        // The second field, the name, is in brackets and may itself contain brackets and spaces.
        let name_end = stat.iter().rposition(|&byte| byte == b')')?;
        let rest = str::from_utf8(&stat[name_end + 1..]).ok()?;

        let mut fields = rest.split_ascii_whitespace();
        // Numbers of fields as in proc(5), the first of the rest being number 3.
        let parent = fields.nth(4 - 3)?.parse().ok()?;
        let mut ticks = fields.skip(14 - 5).map(|field| field.parse().ok());
        Some(Self {
            pid,
            parent,
            user_ticks: ticks.next()??,
            system_ticks: ticks.next()??,
            reaped_user_ticks: ticks.next()??,
            reaped_system_ticks: ticks.next()??,
            threads: ticks.nth(20 - 18)??,
        })
    }
}

/// The processes of a tree at one time.
struct Listing {
    processes: Vec<Process>,
    /// Whether none ended while they were read. The kernel's list of children can also skip an existing
    /// one, but only if an earlier one ended, which shows here too.
    complete: bool,
}

impl Listing {
    /// Reads parents before their children. A child that is reaped in between is then missed, which
    /// shows; the other order would count its time twice without a trace.
    fn read(root: u32) -> io::Result<Self> {
        let listing = if *LISTS_CHILDREN {
            Self::descend(root)?
        } else {
            Self::scan(root)?
        };
        if listing.processes.is_empty() {
            let reason = format!("there is no process {root}");
            return Err(io::Error::new(io::ErrorKind::NotFound, reason));
        }
        Ok(listing)
    }

    /// Lists a tree from each process to its children.
    fn descend(root: u32) -> io::Result<Self> {
        let mut text = Vec::new();
        let mut pids = vec![root];
        let mut processes = Vec::new();
        let mut next = 0;

        while let Some(&pid) = pids.get(next) {
            next += 1;
            if let Some(process) = Process::read(pid, &mut text)? {
                processes.push(process);
                children(&format!("/proc/{pid}/task"), &mut text, &mut pids)?;
            }
        }

        let complete = processes.len() == pids.len();
        Ok(Self {
            processes,
            complete,
        })
    }

    /// Finds a tree among all processes of the machine, by their parents.
    fn scan(root: u32) -> io::Result<Self> {
        let mut text = Vec::new();
        let mut all = Vec::new();
        let mut complete = true;

        for pid in numbers_in("/proc")? {
            match Process::read(pid, &mut text)? {
                Some(process) => all.push(process),
                None => complete = false,
            }
        }

        let (mut processes, mut others): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|process| process.pid == root);
        let mut next = 0;
        while let Some(parent) = processes.get(next).map(|process| process.pid) {
            next += 1;
            processes.extend(others.extract_if(.., |process| process.parent == parent));
        }

        Ok(Self {
            processes,
            complete,
        })
    }
}

/// The processes of a tree.
fn processes(root: u32) -> io::Result<Vec<Process>> {
    settled(|| {
        let listing = Listing::read(root)?;
        Ok((listing.processes, listing.complete))
    })
}

/// The first complete reading, or else the last of a few attempts.
fn settled<T>(mut reading: impl FnMut() -> io::Result<(T, bool)>) -> io::Result<T> {
    const ATTEMPTS: usize = 3;
    let mut latest = reading()?;
    for _ in 1..ATTEMPTS {
        if latest.1 {
            break;
        }
        latest = reading()?;
    }
    Ok(latest.0)
}

/// The CPU time of one process; `None` if it does not exist.
fn live_ns(pid: u32) -> io::Result<Option<u64>> {
    let pid = Pid::from_raw(pid.cast_signed());
    match clock_getcpuclockid(pid).and_then(clock_gettime) {
        Ok(time) => {
            let nanoseconds = Duration::from(time).as_nanos();
            Ok(Some(u64::try_from(nanoseconds).unwrap_or(u64::MAX)))
        }
        Err(Errno::ESRCH | Errno::EINVAL) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Appends the children of all threads in a `task` folder.
fn children(tasks: &str, text: &mut Vec<u8>, pids: &mut Vec<u32>) -> io::Result<()> {
    for thread in numbers_in(tasks)? {
        if read_process(&format!("{tasks}/{thread}/children"), text)? {
            let words = str::from_utf8(text).unwrap_or("").split_ascii_whitespace();
            pids.extend(words.filter_map(|word| word.parse::<u32>().ok()));
        }
    }
    Ok(())
}

/// The numbers among the names in a folder: of processes or threads. None if the folder is gone.
fn numbers_in(folder: &str) -> io::Result<Vec<u32>> {
    let mut numbers = Vec::new();
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if is_gone(&error) => return Ok(numbers),
        Err(error) => return Err(error),
    };

    for entry in entries {
        match entry {
            Ok(entry) => numbers.extend(
                entry
                    .file_name()
                    .to_str()
                    .and_then(|n| n.parse::<u32>().ok()),
            ),
            Err(error) if is_gone(&error) => break,
            Err(error) => return Err(error),
        }
    }

    Ok(numbers)
}

/// Reads a file of a process into `text`; false when the process is gone.
fn read_process(path: &str, text: &mut Vec<u8>) -> io::Result<bool> {
    text.clear();
    match File::open(path).and_then(|mut file| file.read_to_end(text)) {
        Ok(_) => Ok(true),
        Err(error) if is_gone(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(Errno::ESRCH as i32)
}

/// The first word after `name` on the line that starts with it.
pub(super) fn field<T: FromStr>(text: &[u8], name: &str) -> Option<T> {
    let text = String::from_utf8_lossy(text);
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::signal::{Signal, killpg};
    use std::io::{BufRead, BufReader};
    use std::mem;
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Command, Stdio};
    use std::thread;
    use std::time::Instant;

    /// A shell in a process group of its own, which ends with this value.
    struct Shell(Child);

    impl Shell {
        /// Starts a script and returns once it has said `ready`.
        fn start(script: &str) -> Self {
            let mut child = Command::new("sh")
                .args(["-c", script])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .process_group(0)
                .spawn()
                .expect("sh starts");
            let stdout = child.stdout.take().expect("stdout is a pipe");
            let shell = Self(child);
            let mut line = String::new();
            BufReader::new(stdout)
                .read_line(&mut line)
                .expect("sh writes a line");
            assert_eq!(line, "ready\n");
            shell
        }

        fn pid(&self) -> u32 {
            self.0.id()
        }

        /// Lets the script go on by the end of its input and returns all the CPU time it used,
        /// with that of the processes it reaped.
        #[expect(
            unsafe_code,
            reason = "std and nix have no wait that returns the usage"
        )]
        fn finish(mut self) -> Duration {
            drop(self.0.stdin.take());
            let pid = self.pid().cast_signed();
            // SAFETY: wait4 fills the usage, for which all zeros are a valid value; the process is
            // our child, and nobody else waits for it as `self` is forgotten.
            let usage = unsafe {
                let mut usage: nix::libc::rusage = mem::zeroed();
                let waited = nix::libc::wait4(pid, std::ptr::null_mut(), 0, &raw mut usage);
                assert_eq!(waited, pid);
                usage
            };

            mem::forget(self);
            let seconds = |time: nix::libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
            Duration::from_secs_f64(seconds(usage.ru_utime) + seconds(usage.ru_stime))
        }
    }

    impl Drop for Shell {
        fn drop(&mut self) {
            let _ = killpg(Pid::from_raw(self.pid().cast_signed()), Signal::SIGKILL);
            let _ = self.0.wait();
        }
    }

    /// Uses about 50 ms of CPU time, depending on the machine.
    const BURN: &str = "burn() { i=0; while [ $i -lt 100000 ]; do i=$((i + 1)); done; }; ";

    fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
        let start = Instant::now();
        while !holds() {
            assert!(start.elapsed() < Duration::from_secs(20), "never: {what}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn assert_about(ns: u64, truth: Duration, slack: Duration) {
        let difference = Duration::from_nanos(ns).abs_diff(truth);
        assert!(difference <= slack + truth / 20, "{ns} ns, {truth:?}");
    }

    #[test]
    fn cpu_time_of_live_and_reaped_processes_is_what_the_parent_is_told() {
        // Four processes burn: the shell, two that it reaps, and one that lives on.
        let shell = Shell::start(&format!(
            "exec 3<&0; {BURN} burn; (burn); (burn); \
             {{ burn; echo ready; read line <&3; }} & wait"
        ));
        let time = cpu(shell.pid()).expect("it runs");
        assert_eq!(tree(shell.pid()).expect("it runs").len(), 2);
        let truth = shell.finish();
        assert!(time.complete);
        assert!(time.live_ns > 0 && time.reaped_ns > 0, "{time:?}");
        let ticks = |n| Duration::from_nanos(n * *TICK_NS);
        assert_about(time.total_ns(), truth, ticks(4));
        assert_about(time.user_ns + time.system_ns, truth, ticks(8));
    }

    #[test]
    fn cpu_time_does_not_fall_when_a_process_is_reaped() {
        let shell = Shell::start(&format!(
            "exec 3<&0; {BURN} {{ burn; echo ready; read line <&3; }} & wait; read line"
        ));
        let before = cpu(shell.pid()).expect("it runs");
        let child = tree(shell.pid()).expect("it runs")[1];
        nix::sys::signal::kill(Pid::from_raw(child.cast_signed()), Signal::SIGKILL)
            .expect("the child runs");
        eventually("the child is reaped", || {
            tree(shell.pid()).expect("it runs").len() == 1
        });
        let after = cpu(shell.pid()).expect("it runs");
        assert!(after.reaped_ns > before.reaped_ns, "{before:?} {after:?}");
        assert!(
            after.total_ns() + 2 * *TICK_NS >= before.total_ns(),
            "{before:?} {after:?}"
        );
    }

    #[test]
    fn both_ways_to_list_a_tree_agree() {
        let shell = Shell::start("(sleep 60; :) & (sleep 60; :) & echo ready; wait");
        let expected = 5;
        eventually("all have started", || {
            tree(shell.pid()).expect("it runs").len() == expected
        });
        let pids = |listing: Listing| {
            assert_eq!(listing.processes[0].pid, shell.pid());
            let mut pids: Vec<u32> = listing.processes.iter().map(|p| p.pid).collect();
            pids.sort_unstable();
            pids
        };

        let scanned = pids(Listing::scan(shell.pid()).expect("it runs"));
        assert_eq!(scanned.len(), expected);
        if *LISTS_CHILDREN {
            assert_eq!(
                pids(Listing::descend(shell.pid()).expect("it runs")),
                scanned
            );
        }
    }

    #[test]
    fn children_of_all_threads_are_listed() {
        let tasks = std::env::temp_dir().join(format!("echobench-task-{}", std::process::id()));
        for (thread, children) in [("7", "11 12 \n"), ("8", ""), ("9", "13 ")] {
            fs::create_dir_all(tasks.join(thread)).expect("a writable folder");
            fs::write(tasks.join(thread).join("children"), children).expect("a writable folder");
        }
        let mut pids = vec![7];
        let listed = children(tasks.to_str().expect("UTF-8"), &mut Vec::new(), &mut pids);
        fs::remove_dir_all(&tasks).expect("the folder is there");
        listed.expect("the folder is readable");
        pids.sort_unstable();
        assert_eq!(pids, [7, 11, 12, 13]);
    }

    #[test]
    fn shared_memory_counts_once() {
        let shell = Shell::start("for i in 1 2 3 4; do (sleep 60; :) & done; echo ready; wait");
        eventually("all have started", || {
            tree(shell.pid()).expect("it runs").len() == 9
        });
        let memory = memory(shell.pid()).expect("it runs");
        let mut rss_bytes = 0;
        let mut text = Vec::new();
        for pid in tree(shell.pid()).expect("it runs") {
            assert!(read_process(&format!("/proc/{pid}/status"), &mut text).expect("readable"));
            rss_bytes += field::<u64>(&text, "VmRSS:").expect("a live process") * 1024;
        }

        assert_eq!((memory.processes, memory.threads), (9, 9));
        assert!(0 < memory.pss_bytes && memory.pss_bytes < rss_bytes);
        assert!(
            memory
                .pss_anon_bytes
                .is_none_or(|anon| anon <= memory.pss_bytes)
        );
    }

    #[test]
    fn context_switches_are_counted() {
        let shell = Shell::start("echo ready; while :; do sleep 0.01; done");
        let before = context_switches(shell.pid()).expect("it runs").voluntary;
        eventually("the shell waits again", || {
            context_switches(shell.pid()).expect("it runs").voluntary > before
        });
    }

    #[test]
    fn a_missing_process_is_an_error() {
        let shell = Shell::start("echo ready");
        let pid = shell.pid();
        shell.finish();

        for result in [
            tree(pid).map(drop),
            cpu(pid).map(drop),
            memory(pid).map(drop),
            context_switches(pid).map(drop),
            cpu(0).map(drop),
        ] {
            assert_eq!(
                result.expect_err("it ended").kind(),
                io::ErrorKind::NotFound
            );
        }
    }

    #[test]
    fn a_name_cannot_confuse_the_parser() {
        let stat = b"42 (a) S 1 (\xff)) S 7 42 42 0 -1 4194304 150 99 0 0 \
            5 6 70 80 20 0 3 0 1234 4096 100 18446744073709551615";
        let process = Process::parse(42, stat).expect("a whole line");
        let expected = Process {
            pid: 42,
            parent: 7,
            user_ticks: 5,
            system_ticks: 6,
            reaped_user_ticks: 70,
            reaped_system_ticks: 80,
            threads: 3,
        };

        assert_eq!(process, expected);
        assert_eq!(Process::parse(42, b"42 (sh) S 7 42"), None);
    }
}
