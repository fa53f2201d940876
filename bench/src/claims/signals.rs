//! Waiting for signals, and being interrupted by them: C10 and C11.

use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::thread::JoinHandleExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use crossbeam::channel::bounded;
use echobench_clients::{Driver, Plan, Window, clock};
use echobench_servers::MODELS;
use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{pipe, read};

use super::evidence::{Evidence, shown};
use super::lab::{self, Lab};
use crate::host::process_tree;
use crate::host::signals::take;
use crate::processes::start::carry_out;

/// Sends a signal to one thread of this process that has not been joined.
pub(super) fn interrupt(thread: libc::pthread_t, signal: Signal) {
    #[expect(unsafe_code, reason = "the standard library sends no signals")]
    // SAFETY: the id of a thread stays valid until it is joined.
    let _ = unsafe { libc::pthread_kill(thread, signal as libc::c_int) };
}

/// Ways to wait.
const WAITS: [&str; 3] = ["signal", "sleep 1 ms", "busy loop"];
/// How long one wait lasts.
const WAIT: Duration = Duration::from_millis(20);
const WAITS_IN_A_BLOCK: u32 = 5;

/// C10.
pub(super) fn pausing(lab: &Lab) -> anyhow::Result<Evidence> {
    let values = lab.blocks(&WAITS, lab.pick(8, 24), waits)?;
    let mut evidence = Evidence::default();
    let mut shares: Vec<Vec<f64>> = Vec::new();
    for (way, values) in WAITS.iter().zip(values) {
        let (share, latency): (Vec<f64>, Vec<f64>) = values.into_iter().unzip();
        shown(evidence.median("cpu_share", &way, &share, 1));
        shown(evidence.median("wake_up_ns", &way, &latency, 1));
        shares.push(share);
    }
    for (way, share) in WAITS.iter().zip(&shares).skip(1) {
        let metric = "cpu_over_signal_ratio";
        evidence.ratio(metric, &way, (share, &shares[0]), WAITS.len() - 1);
    }
    Ok(evidence)
}

/// One thread waits a few times: its CPU time over the waiting time, and the mean time until it is
/// awake, in nanoseconds.
fn waits(way: &&str) -> anyhow::Result<(f64, f64)> {
    let waiter: fn(&AtomicU64) = match *way {
        "signal" => |_| {
            // It is blocked in this thread, so it waits to be taken.
            let _ = SigSet::from(Signal::SIGUSR2).wait();
        },
        "sleep 1 ms" => |called| {
            while called.load(Ordering::Acquire) == 0 {
                thread::sleep(Duration::from_millis(1));
            }
        },
        _ => |called| {
            while called.load(Ordering::Acquire) == 0 {
                std::hint::spin_loop();
            }
        },
    };
    let called = Arc::new(AtomicU64::new(0));
    let (ready, is_ready) = bounded(0);
    let (awake, is_awake) = bounded(1);
    let handle = thread::spawn({
        let called = Arc::clone(&called);
        move || {
            SigSet::from(Signal::SIGUSR2).thread_block()?;
            for _ in 0..WAITS_IN_A_BLOCK {
                let _ = ready.send(());
                let (began, cpu) = (clock::now(), thread_cpu()?);
                waiter(&called);
                let now = clock::now();
                let _ = awake.send((now - began, thread_cpu()? - cpu, now));
            }
            Ok::<_, Errno>(())
        }
    });
    let (mut waited, mut used, mut late) = (0, 0, 0);
    for _ in 0..WAITS_IN_A_BLOCK {
        called.store(0, Ordering::Release);
        is_ready.recv().context("the waiter has gone")?;
        thread::sleep(WAIT);
        let at = clock::now();
        called.store(at, Ordering::Release);
        if *way == WAITS[0] {
            interrupt(handle.as_pthread_t(), Signal::SIGUSR2);
        }
        let (time, cpu, now) = is_awake.recv().context("the waiter has gone")?;
        waited += time;
        used += cpu;
        late += now.saturating_sub(at);
    }
    handle.join().expect("the waiter does not panic")?;
    let share = used as f64 / waited as f64;
    Ok((share, late as f64 / f64::from(WAITS_IN_A_BLOCK)))
}

fn thread_cpu() -> nix::Result<u64> {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?;
    Ok(time.tv_sec().cast_unsigned() * 1_000_000_000 + time.tv_nsec().cast_unsigned())
}

/// How often each thread gets a signal in the storm.
const STORM_EVERY_NS: u64 = 1_000_000;
/// How often the storm looks for threads and processes that have come.
const LOOK_EVERY: u64 = 10;
/// A slice of C11, quiet or stormy.
const SLICE_NS: u64 = 30_000_000;
/// Between slices.
const PAUSE_NS: u64 = 6_000_000;
/// Which slices of a block are stormy.
const STORMY: [bool; 4] = [false, true, true, false];

/// C11.
pub(super) fn storm(lab: &Lab) -> anyhow::Result<Evidence> {
    let mut evidence = Evidence::default();
    for (call, restart, at) in [
        (Call::Read, false, "read"),
        (Call::Read, true, "read, restarted"),
        (Call::Poll, true, "poll, restarted"),
    ] {
        shown(evidence.exact("broken_off_share", &at, broken_off(call, restart)?));
    }
    let (mut bad, mut signals, mut answered) = (0, 0, 0);
    for model in MODELS {
        let mut rates = [Vec::new(), Vec::new()];
        for block in 0..lab.pick(10, 20) {
            // Thread clients and process clients in turn.
            let driver = [Driver::Threads, Driver::Processes][block % 2];
            let outcome = storm_block(model.name, driver)?;
            bad += outcome.bad;
            signals += outcome.signals;
            answered += outcome.answered;
            rates[0].push(outcome.replies[0]);
            rates[1].push(outcome.replies[1]);
        }
        let ratio = (&rates[1][..], &rates[0][..]);
        shown(evidence.ratio("storm_over_quiet_throughput_ratio", &model.name, ratio, 1));
    }
    evidence.exact("signals_sent", &"", signals as f64);
    evidence.exact("answered_requests", &"", answered as f64);
    shown(evidence.exact("lost_or_wrong_replies", &"", bad as f64));
    Ok(evidence)
}

/// A call that waits.
#[derive(Clone, Copy)]
enum Call {
    Read,
    Poll,
}

/// The share of signals that break off a call which waits for a pipe.
fn broken_off(call: Call, restart: bool) -> anyhow::Result<f64> {
    const SIGNALS: u32 = 50;
    take(Signal::SIGALRM, restart)?;
    let (here, there) = pipe()?;
    let waiter = thread::spawn(move || {
        let mut broken_off = 0;
        loop {
            let result = match call {
                Call::Read => read(&here, &mut [0]).map(drop),
                Call::Poll => {
                    let mut events = [PollFd::new(here.as_fd(), PollFlags::POLLIN)];
                    poll(&mut events, PollTimeout::NONE).map(drop)
                }
            };
            match result {
                Err(Errno::EINTR) => broken_off += 1,
                _ => return broken_off,
            }
        }
    });
    for _ in 0..SIGNALS {
        // Time to wait again.
        thread::sleep(Duration::from_millis(1));
        interrupt(waiter.as_pthread_t(), Signal::SIGALRM);
    }
    thread::sleep(Duration::from_millis(1));
    std::fs::File::from(there).write_all(&[1])?;
    let broken_off: u32 = waiter.join().expect("the waiter does not panic");
    Ok(f64::from(broken_off) / f64::from(SIGNALS))
}

/// What came of a server and clients that were quiet and stormy in turn.
struct StormBlock {
    bad: u64,
    signals: u64,
    answered: u64,
    /// In quiet slices and in stormy ones.
    replies: [f64; 2],
}

fn storm_block(model: &str, driver: Driver) -> anyhow::Result<StormBlock> {
    let server = lab::serve(&format!("{model} --take-alarms"))?;
    let slot_ns = SLICE_NS + PAUSE_NS;
    let windows = (0..STORMY.len() as u64)
        .map(|slot| Window {
            start_ns: slot * slot_ns,
            measure_ns: slot * slot_ns,
            end_ns: slot * slot_ns + SLICE_NS,
            requests: None,
        })
        .collect();
    let mut plan = Plan {
        windows,
        ..lab::requests(server.address(), driver, 8, 0)
    };
    // Connecting and accepting meet the storm as well, and an iterative server comes to serve all.
    plan.workload.requests_per_connection = Some(16);
    let arguments = ["--take-alarms".to_owned()];
    let (report, signals) = carry_out(&plan, &arguments, |start_ns, load| {
        let mut signals = 0;
        for (slot, _) in (0..).zip(STORMY).filter(|(_, stormy)| *stormy) {
            let begin_ns = start_ns + slot * slot_ns;
            signals += rage(&[server.id(), load], begin_ns, begin_ns + SLICE_NS);
        }
        Ok(signals)
    })?;
    server.stop()?;
    let mut replies = [0.0; 2];
    for (window, stormy) in report.windows.iter().zip(STORMY) {
        replies[usize::from(stormy)] += window.replies_in_window as f64;
    }
    let total = report.total();
    Ok(StormBlock {
        bad: total.planned - total.answered,
        signals,
        answered: total.answered,
        replies,
    })
}

/// Sends SIGALRM to every thread of these process trees, again and again. How many were sent.
fn rage(roots: &[u32], begin_ns: u64, end_ns: u64) -> u64 {
    let mut sent = 0;
    let mut threads = Vec::new();
    let times = (begin_ns..end_ns).step_by(usize::try_from(STORM_EVERY_NS).unwrap_or(usize::MAX));
    for (number, at_ns) in (0_u64..).zip(times) {
        clock::sleep_until(at_ns);
        if number.is_multiple_of(LOOK_EVERY) {
            threads = threads_of(roots);
        }
        for &(process, thread) in &threads {
            #[expect(
                unsafe_code,
                reason = "no library sends signals to threads of other processes"
            )]
            // SAFETY: the call only sends a signal, to a process of ours that takes it, or fails.
            let result = unsafe {
                libc::syscall(
                    libc::SYS_tgkill,
                    process,
                    thread,
                    Signal::SIGALRM as libc::c_int,
                )
            };
            sent += u64::from(result == 0);
        }
    }
    sent
}

/// Every thread below these processes, each with its process.
fn threads_of(roots: &[u32]) -> Vec<(u32, u32)> {
    let mut threads = Vec::new();
    // Those that end meanwhile are not missed.
    let trees = roots
        .iter()
        .filter_map(|&root| process_tree::tree(root).ok());
    for process in trees.flatten() {
        let Ok(entries) = std::fs::read_dir(format!("/proc/{process}/task")) else {
            continue;
        };
        let numbers = entries
            .map_while(Result::ok)
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        threads.extend(numbers.map(|thread| (process, thread)));
    }
    threads
}
