//! Waits for signals, and system calls that signals interrupt: C10 and C11.

use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::thread::JoinHandleExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Context;
use crossbeam::channel::bounded;
use echobench_clients::{Driver, Plan, Window, clock};
use echobench_servers::textbook_models;
use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::pthread::{Pthread, pthread_kill};
use nix::sys::signal::{SigSet, Signal};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{pipe, read};

use super::evidence::Evidence;
use super::lab::{self, Lab, PAUSE_NS, SLICE_NS};
use super::rule::{does_not_hold, holds, holds_only_when, inconclusive};
use super::{CHAPTER_5, Claim, Ruling};
use crate::host::process_tree;
use crate::host::signals::ignore_with_handler;
use crate::host::threads;
use crate::processes::start::carry_out;

/// Sends a signal to one thread of this process.
pub(super) fn signal_thread<T>(thread: &JoinHandle<T>, signal: Signal) {
    // A number in both, but in musl the C library's own type is a pointer.
    let thread = thread.as_pthread_t() as Pthread;
    let _ = pthread_kill(thread, signal);
}

pub(super) const C10: Claim = Claim {
    id: "C10",
    claim: "waiting for a signal uses no CPU; a busy loop wastes it",
    source: CHAPTER_5,
    metric: "CPU time over waiting time, and wake-up latency, of a wait for a signal, of polling with \
             sleeps of 1 ms, and of polling without a pause",
    rule: "holds if the busy loop uses at least 10 times the CPU time of the wait for a signal; does \
           not hold below 2 times",
    experiment: measure_waits,
    figures: &[("cpu_over_signal_ratio", &[BUSY_LOOP])],
    decide: decide_waits,
};

/// Ways to wait: name, and wait until the call has come.
type Wait = (&'static str, fn(&AtomicU64));

const WAITS: [Wait; 3] = [
    (SIGNAL, |_| {
        // The signal is blocked in this thread, so it stays pending until it is taken here.
        let _ = SigSet::from(Signal::SIGUSR2).wait();
    }),
    ("sleep 1 ms", |called| {
        while called.load(Ordering::Acquire) == 0 {
            thread::sleep(Duration::from_millis(1));
        }
    }),
    (BUSY_LOOP, |called| {
        while called.load(Ordering::Acquire) == 0 {
            std::hint::spin_loop();
        }
    }),
];
const SIGNAL: &str = "signal";
const BUSY_LOOP: &str = "busy loop";
/// Length of one wait.
const WAIT: Duration = Duration::from_millis(20);
const WAITS_IN_A_BLOCK: u32 = 5;

fn measure_waits(lab: &Lab) -> anyhow::Result<Evidence> {
    let values = lab.blocks(&WAITS, lab.pick(8, 24), measure_wait)?;

    let mut evidence = Evidence::default();
    let mut shares: Vec<Vec<f64>> = Vec::new();
    for ((way, _), values) in WAITS.iter().zip(values) {
        let (share, latency): (Vec<f64>, Vec<f64>) = values.into_iter().unzip();
        evidence.median("cpu_share", way, &share, 1).mark_headline();
        let figure = evidence.median("wake_up_ns", way, &latency, 1);
        figure.mark_headline();
        shares.push(share);
    }

    for ((way, _), share) in WAITS.iter().zip(&shares).skip(1) {
        let metric = "cpu_over_signal_ratio";
        evidence.ratio(metric, way, (share, &shares[0]), WAITS.len() - 1);
    }
    Ok(evidence)
}

/// One thread waits a few times: its CPU time over the waiting time, and its mean time to wake up, in
/// nanoseconds.
fn measure_wait(&(way, wait): &Wait) -> anyhow::Result<(f64, f64)> {
    let called = Arc::new(AtomicU64::new(0));
    let (ready, is_ready) = bounded(0);
    let (awake, is_awake) = bounded(1);
    let waiter = threads::spawn("wait", {
        let called = Arc::clone(&called);
        move || {
            SigSet::from(Signal::SIGUSR2).thread_block()?;
            for _ in 0..WAITS_IN_A_BLOCK {
                // A rendezvous: the wait and the caller's sleep begin together.
                let _ = ready.send(());
                let (began, cpu) = (clock::now(), thread_cpu_ns()?);
                wait(&called);
                let now = clock::now();
                let _ = awake.send((now - began, thread_cpu_ns()? - cpu, now));
            }
            Ok::<_, Errno>(())
        }
    })?;

    let (mut waited, mut used, mut late) = (0, 0, 0);
    for _ in 0..WAITS_IN_A_BLOCK {
        called.store(0, Ordering::Release);
        is_ready.recv().context("the waiting thread has ended")?;
        thread::sleep(WAIT);
        let at = clock::now();
        called.store(at, Ordering::Release);
        if way == SIGNAL {
            signal_thread(&waiter, Signal::SIGUSR2);
        }

        let (time, cpu, now) = is_awake.recv().context("the waiting thread has ended")?;
        waited += time;
        used += cpu;
        late += now.saturating_sub(at);
    }

    waiter.join().expect("the waiting thread does not panic")?;
    let share = used as f64 / waited as f64;
    Ok((share, late as f64 / f64::from(WAITS_IN_A_BLOCK)))
}

fn thread_cpu_ns() -> nix::Result<u64> {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?;
    Ok(time.tv_sec().cast_unsigned() * 1_000_000_000 + time.tv_nsec().cast_unsigned())
}

fn decide_waits(evidence: &Evidence) -> Ruling {
    let Some(busy) = evidence.at("cpu_over_signal_ratio", BUSY_LOOP) else {
        return inconclusive("the busy loop was not measured");
    };

    if busy.at_least(10.0) == Some(true) {
        holds("sleeping between looks is in between, and wakes up late")
    } else if busy.at_least(2.0) == Some(false) {
        does_not_hold("the busy loop uses no more")
    } else {
        inconclusive("not resolved how much more the busy loop uses")
    }
}

pub(super) const C11: Claim = Claim {
    id: "C11",
    claim: "some system calls do not react well to signals",
    source: CHAPTER_5,
    metric: "share of calls that a signal interrupts, with and without restart; wrong, failed or lost \
             replies of every model while every thread of server and clients gets 1,000 signals a \
             second, and throughput over that without",
    rule: "holds if signals interrupt calls and replies are lost; only when a program does not retry, if \
           calls are interrupted and no reply is lost; does not hold if no call is interrupted",
    experiment: measure_storm,
    figures: &[
        (
            "broken_off_share",
            &["read", "read, restarted", "poll, restarted"],
        ),
        ("lost_or_wrong_replies", &[""]),
    ],
    decide: decide_storm,
};

/// Time between two signals to a thread in the storm.
const STORM_EVERY_NS: u64 = 1_000_000;
/// Rounds of signals between two listings of threads: reading /proc takes longer than sending.
const ROUNDS_PER_LISTING: u64 = 10;
/// Slices of a block: whether signals are sent.
const STORMY: [bool; 4] = [false, true, true, false];

fn measure_storm(lab: &Lab) -> anyhow::Result<Evidence> {
    let mut evidence = Evidence::default();
    for (call, restart, at) in [
        (Call::Read, false, "read"),
        (Call::Read, true, "read, restarted"),
        (Call::Poll, true, "poll, restarted"),
    ] {
        let share = broken_off_share(call, restart)?;
        evidence
            .exact("broken_off_share", at, share)
            .mark_headline();
    }

    let (mut bad, mut signals, mut answered) = (0, 0, 0);
    // Every model has its own accept, read and write calls to interrupt.
    for model in textbook_models() {
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

        let metric = "storm_over_quiet_throughput_ratio";
        let figure = evidence.ratio(metric, model.name, (&rates[1], &rates[0]), 1);
        figure.mark_headline();
    }

    evidence.exact("signals_sent", "", signals as f64);
    evidence.exact("answered_requests", "", answered as f64);
    let figure = evidence.exact("lost_or_wrong_replies", "", bad as f64);
    figure.mark_headline();
    Ok(evidence)
}

/// A blocking call.
#[derive(Clone, Copy)]
enum Call {
    Read,
    Poll,
}

/// Share of signals that break off a call which waits for a pipe.
fn broken_off_share(call: Call, restart: bool) -> anyhow::Result<f64> {
    const SIGNALS: u32 = 50;
    ignore_with_handler(Signal::SIGALRM, restart)?;
    let (reader, writer) = pipe()?;
    let waiter = threads::spawn("wait", move || {
        let mut broken_off = 0;
        loop {
            let result = match call {
                Call::Read => read(&reader, &mut [0]).map(drop),
                Call::Poll => {
                    let mut events = [PollFd::new(reader.as_fd(), PollFlags::POLLIN)];
                    poll(&mut events, PollTimeout::NONE).map(drop)
                }
            };
            match result {
                Err(Errno::EINTR) => broken_off += 1,
                _ => return broken_off,
            }
        }
    })?;

    for _ in 0..SIGNALS {
        // The thread needs time to be blocked in its call again.
        thread::sleep(Duration::from_millis(1));
        signal_thread(&waiter, Signal::SIGALRM);
    }
    thread::sleep(Duration::from_millis(1));
    std::fs::File::from(writer).write_all(&[1])?;

    let broken_off: u32 = waiter.join().expect("the waiting thread does not panic");
    Ok(f64::from(broken_off) / f64::from(SIGNALS))
}

/// Totals of one server and its clients over quiet and stormy slices.
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
    // Signals then also meet connect and accept, and an iterative server serves every client.
    plan.workload.requests_per_connection = Some(16);

    let arguments = ["--take-alarms".to_owned()];
    let (report, signals) = carry_out(&plan, &arguments, |start_ns, load| {
        let mut signals = 0;
        for (slot, _) in (0..).zip(STORMY).filter(|(_, stormy)| *stormy) {
            let begin_ns = start_ns + slot * slot_ns;
            signals += send_signals_until(&[server.id(), load], begin_ns, begin_ns + SLICE_NS);
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

/// Sends SIGALRM to every thread of these process trees at even intervals; returns the number sent.
fn send_signals_until(roots: &[u32], begin_ns: u64, end_ns: u64) -> u64 {
    let mut sent = 0;
    let mut threads = Vec::new();
    let times = (begin_ns..end_ns).step_by(usize::try_from(STORM_EVERY_NS).unwrap_or(usize::MAX));

    for (round, at_ns) in (0_u64..).zip(times) {
        clock::sleep_until(at_ns);
        if round.is_multiple_of(ROUNDS_PER_LISTING) {
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

/// Every thread of these process trees, each with its process.
fn threads_of(roots: &[u32]) -> Vec<(u32, u32)> {
    let mut threads = Vec::new();
    // Processes that end during the listing need no signal.
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

fn decide_storm(evidence: &Evidence) -> Ruling {
    let broken_off = evidence
        .all("broken_off_share")
        .any(|figure| figure.value.is_some_and(|share| share >= 0.5));
    let Some(bad) = evidence.value("lost_or_wrong_replies", "") else {
        return inconclusive("replies were not counted");
    };

    match (broken_off, bad > 0.0) {
        (true, true) => holds(format!("{bad} replies were lost or wrong")),
        (true, false) => holds_only_when(
            "a program does not try again: no model lost a reply, since every call is repeated",
        ),
        (false, true) => inconclusive(format!(
            "no call was broken off, yet {bad} replies were lost"
        )),
        (false, false) => does_not_hold("no call was broken off"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claims::ClaimVerdict;
    use crate::claims::rule::made_up::{counts, narrow};

    #[test]
    fn c10_compares_cpu_times() {
        let judge = |ratio: f64| {
            let evidence = narrow(&[("cpu_over_signal_ratio", "busy loop", ratio)]);
            decide_waits(&evidence).verdict
        };
        assert_eq!(judge(300.0), ClaimVerdict::Holds);
        assert_eq!(judge(1.0), ClaimVerdict::DoesNotHold);
        assert_eq!(judge(5.0), ClaimVerdict::Inconclusive);
    }

    #[test]
    fn c11_asks_whether_trying_again_helps() {
        let judge = |broken_off: f64, bad: f64| {
            let counts = counts(&[
                ("broken_off_share", "read", broken_off),
                ("broken_off_share", "read, restarted", 0.0),
                ("lost_or_wrong_replies", "", bad),
            ]);
            decide_storm(&counts).verdict
        };

        assert_eq!(judge(1.0, 0.0), ClaimVerdict::HoldsOnlyWhen);
        assert_eq!(judge(1.0, 3.0), ClaimVerdict::Holds);
        assert_eq!(judge(0.0, 0.0), ClaimVerdict::DoesNotHold);
        assert_eq!(judge(0.0, 3.0), ClaimVerdict::Inconclusive);
    }
}
