//! Cost of starting threads and processes, alone and in a server: C1 and C13.

use std::time::Duration;

use echobench_clients::{Driver, WorkMix};

use super::evidence::{Evidence, Figure};
use super::lab::{self, Lab};
use super::rule::{Compared, MARGIN, does_not_hold, holds, holds_only_when, inconclusive, places};
use super::{CHAPTER_12, CHAPTERS, Claim, Ruling};
use crate::processes::probe::{self, Probe, ProbeArgs};
use crate::results::summary::REFERENCE;
use crate::scenario::Placement;
use crate::stats::fit_line;

pub(super) const C1: Claim = Claim {
    id: "C1",
    claim: "threads are cheaper to start than processes",
    source: CHAPTERS,
    metric: "time to start and end a thread, a forked process and a new program, on one CPU, over the resident \
             memory of the parent; connections per second of fork and thread, with a new connection \
             for every request; the same for threads with the signal stack that Rust's standard library gives \
             each of them",
    rule: "holds if fork and spawn take at least 1.5 times as long as a thread at every size (sizes \
           measured once are shown, not judged); only when, if at some sizes; does not hold if at \
           none; connections per second and signal stacks are shown, not judged",
    experiment: measure_starts,
    figures: &[
        ("fork_over_thread_ratio", &SIZES),
        ("spawn_over_thread_ratio", &SIZES),
    ],
    decide: decide_starts,
};

/// Resident memory of the process that starts others.
const RESIDENT_MIB: [u32; 4] = [0, 64, 256, 1024];
/// The same as places of figures.
const SIZES: [&str; RESIDENT_MIB.len()] = ["0 MiB", "64 MiB", "256 MiB", "1024 MiB"];
/// Started operations; the reference comes first.
const STARTS: [&str; 3] = [REFERENCE, "fork", "spawn"];
/// Approximate time for which one block repeats an operation.
const BLOCK: Duration = Duration::from_millis(12);

fn measure_starts(lab: &Lab) -> anyhow::Result<Evidence> {
    let mut evidence = Evidence::default();
    // Filling a large memory takes most of the time; sizes measured once are shown, not judged.
    let blocks = lab.pick([9, 9, 1, 1], [15; RESIDENT_MIB.len()]);
    let judged = blocks.iter().filter(|&&blocks| blocks > 1).count();
    let of = judged * (STARTS.len() - 1);
    let mut curves: Vec<Vec<(f64, f64)>> = vec![Vec::new(); STARTS.len()];

    for (mib, blocks) in RESIDENT_MIB.into_iter().zip(blocks) {
        let at = format!("{mib} MiB");
        let values = lab.blocks(&STARTS, blocks, |name| start_ns(name, mib, false))?;

        for (index, name) in STARTS.iter().enumerate() {
            let figure = evidence.median(&format!("{name}_start_ns"), &at, &values[index], of);
            let points = figure.value.map(|ns| (f64::from(mib), ns));
            curves[index].extend(points);
        }

        for (index, name) in STARTS.iter().enumerate().skip(1) {
            let metric = format!("{name}_over_thread_ratio");
            let figure = evidence.ratio(&metric, &at, (&values[index], &values[0]), of);
            figure.headline = mib == RESIDENT_MIB[0] || mib == RESIDENT_MIB[3];
        }
    }

    if let Some(line) = fit_line(&curves[1]) {
        let growth = evidence.exact("fork_growth_ns_per_mib", "", line.slope);
        growth.mark_headline();
        let fit = evidence.exact("fork_growth_r_squared", "", line.r_squared);
        fit.mark_headline();
    }

    measure_signal_stack(lab, &mut evidence)?;
    measure_connections(lab, &mut evidence)?;
    Ok(evidence)
}

/// Time to start a thread with the signal stack of the standard library, over one without.
fn measure_signal_stack(lab: &Lab, evidence: &mut Evidence) -> anyhow::Result<()> {
    let values = lab.blocks(&[false, true], lab.pick(9, 15), |&signal_stack| {
        start_ns(REFERENCE, RESIDENT_MIB[0], signal_stack)
    })?;
    let at = format!("{} MiB", RESIDENT_MIB[0]);
    evidence.median("thread_with_signal_stack_start_ns", &at, &values[1], 1);
    let both = (&values[1][..], &values[0][..]);
    let ratio = evidence.ratio("thread_with_signal_stack_over_thread_ratio", &at, both, 1);
    ratio.mark_headline();
    Ok(())
}

/// Time of one start and end in a fresh process with so much resident memory.
fn start_ns(name: &str, resident_mib: u32, signal_stack: bool) -> anyhow::Result<f64> {
    let operation = probe::find(name)?;
    let mut probe = Probe::start(&ProbeArgs {
        resident_mib,
        // A wake-up on another CPU costs more than a start, and whether there is one is chance.
        placement: Placement::Same,
        signal_stack,
        ..ProbeArgs::new(operation)
    })?;

    // The first operations also load pages that later ones find in memory.
    let few = 3;
    let one = probe.time(few)?.as_nanos() / u128::from(few);
    let count = (BLOCK.as_nanos() / one.max(1)).clamp(3, 1000);
    let count = u64::try_from(count)?;
    Ok(probe.time(count)?.as_nanos() as f64 / count as f64)
}

/// Connections per second of a server, with a new connection for every request.
fn measure_connections(lab: &Lab, evidence: &mut Evidence) -> anyhow::Result<()> {
    let at = format!("{CLIENTS} clients");
    for (name, arm) in [
        ("fork", "fork"),
        ("thread_with_signal_stack", "thread --signal-stack"),
    ] {
        let mut rates = [Vec::new(), Vec::new()];
        for _ in 0..lab.pick(12, 21) {
            let servers = [lab::serve(REFERENCE)?, lab::serve(arm)?];
            let plans = servers
                .each_ref()
                .map(|server| lab::churn(server.address(), Driver::Threads, CLIENTS, 0));
            for (rates, total) in rates.iter_mut().zip(lab::run_alternating(plans)?) {
                rates.push(lab::per_second(&total));
            }
            for server in servers {
                server.stop()?;
            }
        }

        // The reference is measured beside each of them; its figure is that beside fork.
        if name == "fork" {
            evidence.median("thread_connections_per_second", &at, &rates[0], 1);
        }
        evidence.median(&format!("{name}_connections_per_second"), &at, &rates[1], 1);
        let metric = format!("{name}_over_thread_connections_ratio");
        let ratio = evidence.ratio(&metric, &at, (&rates[1], &rates[0]), 1);
        ratio.mark_headline();
    }
    Ok(())
}

/// Concurrent clients of a server under churn.
const CLIENTS: u32 = 16;

fn decide_starts(evidence: &Evidence) -> Ruling {
    let ratios = evidence
        .all("fork_over_thread_ratio")
        .chain(evidence.all("spawn_over_thread_ratio"))
        .filter(|figure| figure.n > 1);
    let ratios = Compared::with(MARGIN, ratios);

    let server = evidence
        .all("fork_over_thread_connections_ratio")
        .find_map(|figure| figure.value);
    let server = server.map_or(String::new(), |ratio| {
        format!("; a fork server takes in {ratio:.2} times as many connections a second as thread")
    });

    if ratios.all_above() {
        holds(format!(
            "at every size of the parent that was judged{server}"
        ))
    } else if ratios.all_below() {
        does_not_hold(format!("at no size of the parent{server}"))
    } else if ratios.unresolved.is_empty() && !ratios.above.is_empty() {
        holds_only_when(format!("the parent has {}{server}", places(&ratios.above)))
    } else {
        inconclusive(format!("not resolved at {}", places(&ratios.unresolved)))
    }
}

pub(super) const C13: Claim = Claim {
    id: "C13",
    claim: "several clients at once finish no later with threads than with processes",
    source: CHAPTER_12,
    metric: "time until many jobs are done, a connection for each and 8 at a time: fork over thread, \
             over the CPU time of a job; beside it thread with the signal stacks of Rust's standard library, not \
             judged",
    rule: "holds if every interval of the ratio lies above 0.8; does not hold if one lies below; the \
           crossover is the shortest length from which on the intervals end at 1.1 or less",
    experiment: measure_short_jobs,
    figures: &[(
        "fork_over_thread_ratio",
        &["10 µs", "100 µs", "1 ms", "10 ms"],
    )],
    decide: decide_short_jobs,
};

/// CPU time of one job, and the number of jobs in a quick and in a full run.
const JOBS: [(&str, u64, u64); 5] = [
    ("10us", 240, 480),
    ("100us", 240, 480),
    ("1ms", 64, 160),
    ("10ms", 16, 32),
    ("100ms", 0, 16),
];
/// Concurrent jobs.
const AT_A_TIME: u32 = 8;

fn measure_short_jobs(lab: &Lab) -> anyhow::Result<Evidence> {
    let mut evidence = Evidence::default();
    let lengths: Vec<_> = JOBS
        .iter()
        .map(|&(length, quick, full)| (length, lab.pick(quick, full)))
        .filter(|&(_, jobs)| jobs > 0)
        .collect();
    let of = lengths.len();

    for (index, &(length, jobs)) in lengths.iter().enumerate() {
        let work: WorkMix = format!("spin:{length}").parse()?;
        let arms = [REFERENCE, "fork", "thread --signal-stack"];
        let values = lab.blocks(&arms, lab.pick(12, 15), |model| {
            let server = lab::serve(model)?;
            let mut plan = lab::churn(server.address(), Driver::Threads, AT_A_TIME, jobs);
            plan.workload.work = work.clone();
            let report = lab::run_answered(&plan)?;
            server.stop()?;
            Ok(lab::completion_ns(&report))
        })?;

        let at = length.replace("us", " µs").replace("ms", " ms");
        evidence.median("thread_completion_ns", &at, &values[0], of);
        evidence.median("fork_completion_ns", &at, &values[1], of);
        let with_signal_stack = "thread_with_signal_stack";
        evidence.median(
            &format!("{with_signal_stack}_completion_ns"),
            &at,
            &values[2],
            of,
        );
        let metric = format!("{with_signal_stack}_over_thread_ratio");
        evidence.ratio(&metric, &at, (&values[2], &values[0]), of);
        let times = (&values[1][..], &values[0][..]);
        let figure = evidence.ratio("fork_over_thread_ratio", &at, times, of);
        figure.headline = index == 0 || index + 1 == lengths.len();
    }
    Ok(evidence)
}

fn decide_short_jobs(evidence: &Evidence) -> Ruling {
    let figures: Vec<&Figure> = evidence.all("fork_over_thread_ratio").collect();
    let ratios = Compared::with(0.8, figures.iter().copied());

    let no_difference = |figure: &&&Figure| figure.high.is_some_and(|high| high <= 1.1);
    let tail = figures.iter().rev().take_while(no_difference).count();
    let crossover = match tail {
        0 => "up to the longest jobs the difference is not known to have gone".to_owned(),
        _ => format!(
            "fork is at most 1.1 times as late from jobs of {} on",
            figures[figures.len() - tail].at
        ),
    };

    if !ratios.below.is_empty() {
        let places = places(&ratios.below);
        does_not_hold(format!("processes finish earlier with jobs of {places}"))
    } else if ratios.all_above() {
        holds(crossover)
    } else {
        let places = places(&ratios.unresolved);
        inconclusive(format!("not resolved for jobs of {places}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claims::ClaimVerdict;
    use crate::claims::rule::made_up::{narrow, wide};

    const FORK: &str = "fork_over_thread_ratio";

    #[test]
    fn c1_asks_for_every_size() {
        let judge = |evidence: &Evidence| decide_starts(evidence).verdict;
        let spawn = "spawn_over_thread_ratio";

        let all = narrow(&[
            (FORK, "0 MiB", 7.0),
            (FORK, "64 MiB", 90.0),
            (spawn, "0 MiB", 40.0),
        ]);
        assert_eq!(judge(&all), ClaimVerdict::Holds);

        let some = narrow(&[(FORK, "0 MiB", 0.9), (FORK, "64 MiB", 90.0)]);
        let ruling = decide_starts(&some);
        assert_eq!(ruling.verdict, ClaimVerdict::HoldsOnlyWhen);
        assert!(ruling.condition.contains("64 MiB") && !ruling.condition.contains(" 0 MiB"));

        assert_eq!(
            judge(&narrow(&[(FORK, "0 MiB", 1.1)])),
            ClaimVerdict::DoesNotHold
        );
        assert_eq!(
            judge(&wide(&[(FORK, "0 MiB", 2.0)])),
            ClaimVerdict::Inconclusive
        );
    }

    #[test]
    fn c13_finds_the_crossover() {
        let curve = |ratios: [f64; 3]| {
            let [short, middle, long] = ratios;
            decide_short_jobs(&narrow(&[
                (FORK, "10 µs", short),
                (FORK, "1 ms", middle),
                (FORK, "10 ms", long),
            ]))
        };

        let ruling = curve([2.0, 1.01, 1.0]);
        assert_eq!(ruling.verdict, ClaimVerdict::Holds);
        assert!(
            ruling.condition.contains("from jobs of 1 ms on"),
            "{ruling:?}"
        );

        assert_eq!(curve([0.5, 1.0, 1.0]).verdict, ClaimVerdict::DoesNotHold);
        assert_eq!(
            decide_short_jobs(&wide(&[(FORK, "10 µs", 1.0)])).verdict,
            ClaimVerdict::Inconclusive
        );
    }
}
