//! Clients that wait for each other, and clients of two kinds side by side: C4 and C7.

use anyhow::Context;
use echobench_clients::Driver;

use super::evidence::Evidence;
use super::lab::{self, Lab};
use super::rule::{Compared, MARGIN, does_not_hold, holds, holds_only_when, inconclusive, places};
use super::{CHAPTER_12, CHAPTERS, Claim, Ruling};
use crate::results::summary::REFERENCE;

pub(super) const C4: Claim = Claim {
    id: "C4",
    claim: "a server that handles one client at a time makes the others wait; threads and processes do not",
    source: CHAPTER_12,
    metric: "time until 5 clients have their replies, with a handler that blocks for 40 ms, over that \
             of a thread for each client",
    rule: "holds if the iterative server takes at least 2.5 times as long as each of the others, and a \
           pool of 2 workers at most 1.25 times as long as a thread for each client; only when, if \
           that pool takes at least 1.5 times as long",
    experiment: measure_waiting,
    figures: &[
        (
            "iterative_over_model_ratio",
            &["thread", "fork", "async", "pool --workers 5"],
        ),
        ("small_pool_over_thread_ratio", &["pool --workers 2"]),
    ],
    decide: decide_waiting,
};

/// Number of clients, as in the textbook.
const CLIENTS: u32 = 5;

fn measure_waiting(lab: &Lab) -> anyhow::Result<Evidence> {
    const SMALL_POOL: &str = "pool --workers 2";
    let arms = [
        "iterative",
        REFERENCE,
        "fork",
        "async",
        "pool --workers 5",
        SMALL_POOL,
    ];
    let values = lab.blocks(&arms, lab.pick(10, 20), |arm| {
        let server = lab::serve(arm)?;
        let requests = u64::from(CLIENTS);
        let mut plan = lab::requests(server.address(), Driver::Threads, CLIENTS, requests);
        plan.workload.work = "block:40ms".parse()?;
        let report = lab::run_answered(&plan)?;
        server.stop()?;
        Ok(lab::completion_ns(&report))
    })?;

    let mut evidence = Evidence::default();
    let of = arms.len() - 1;
    for (arm, values) in arms.iter().zip(&values) {
        let figure = evidence.median("completion_ns", arm, values, of);
        figure.mark_headline();
    }

    for (arm, times) in arms.iter().zip(&values).skip(1) {
        if *arm == SMALL_POOL {
            let times = (&times[..], &values[1][..]);
            let figure = evidence.ratio("small_pool_over_thread_ratio", arm, times, of);
            figure.mark_headline();
        } else {
            evidence.ratio("iterative_over_model_ratio", arm, (&values[0], times), of);
        }
    }
    Ok(evidence)
}

fn decide_waiting(evidence: &Evidence) -> Ruling {
    let waits = Compared::with(2.5, evidence.all("iterative_over_model_ratio"));
    let pool = evidence.all("small_pool_over_thread_ratio").next();
    let pool_waits = pool.and_then(|pool| pool.at_least(1.5));
    let pool_does_not = pool.and_then(|pool| pool.at_least(1.25)) == Some(false);

    if !waits.below.is_empty() {
        let places = places(&waits.below);
        does_not_hold(format!("{places} made the others wait as well"))
    } else if !waits.all_above() {
        let places = places(&waits.unresolved);
        inconclusive(format!("not resolved for {places}"))
    } else if pool_waits == Some(true) {
        holds_only_when(
            "there are as many threads or processes as clients: a pool of 2 made 5 wait",
        )
    } else if pool_does_not {
        holds("for a pool smaller than the number of clients as well")
    } else {
        inconclusive("not resolved for the small pool")
    }
}

pub(super) const C7: Claim = Claim {
    id: "C7",
    claim: "a socket server serves threads and processes alike",
    source: CHAPTERS,
    metric: "throughput and median latency of process clients over those of thread clients, alternating \
             on the same server, 8 of each; failed requests",
    rule: "holds if nothing fails and every ratio lies between 2/3 and 3/2; does not hold if \
           something fails or a ratio lies outside",
    experiment: measure_client_kinds,
    figures: &[
        (
            "throughput_processes_over_threads_ratio",
            &["thread", "fork"],
        ),
        ("p50_processes_over_threads_ratio", &["thread", "fork"]),
        ("failed_requests", &[""]),
    ],
    decide: decide_client_kinds,
};

/// Number of clients of each kind.
const OF_EACH_KIND: u32 = 8;

fn measure_client_kinds(lab: &Lab) -> anyhow::Result<Evidence> {
    let models: &[&str] = lab.pick(&[REFERENCE, "fork"], &[REFERENCE, "fork", "pool", "async"]);
    let mut evidence = Evidence::default();
    let of = 2 * models.len();
    let mut failed = 0;

    for model in models {
        let mut rates = [Vec::new(), Vec::new()];
        let mut medians = [Vec::new(), Vec::new()];
        for _ in 0..lab.pick(45, 61) {
            let server = lab::serve(model)?;
            let target = server.address();
            let plans = [Driver::Threads, Driver::Processes]
                .map(|driver| lab::requests(target, driver, OF_EACH_KIND, 0));
            let totals = lab::run_alternating(plans)?;
            server.stop()?;

            for (index, total) in totals.iter().enumerate() {
                failed += total.failed() + total.unsent;
                rates[index].push(lab::per_second(total));
                let median = total.latency.quantile(total.lost, 0.5);
                medians[index].push(median.context("too few replies")? as f64);
            }
        }

        for (metric, [threads, processes]) in [
            ("throughput_processes_over_threads_ratio", &rates),
            ("p50_processes_over_threads_ratio", &medians),
        ] {
            let figure = evidence.ratio(metric, model, (processes, threads), of);
            figure.mark_headline();
        }
    }

    let figure = evidence.exact("failed_requests", "", failed as f64);
    figure.mark_headline();
    Ok(evidence)
}

fn decide_client_kinds(evidence: &Evidence) -> Ruling {
    let ratios = || {
        evidence
            .all("throughput_processes_over_threads_ratio")
            .chain(evidence.all("p50_processes_over_threads_ratio"))
    };
    let lower = Compared::with(1.0 / MARGIN, ratios());
    let upper = Compared::with(MARGIN, ratios());
    let Some(failed) = evidence.value("failed_requests", "") else {
        return inconclusive("failures were not counted");
    };

    if failed > 0.0 {
        does_not_hold(format!("{failed} requests failed"))
    } else if lower.all_above() && upper.all_below() {
        holds("within a factor of 1.5 in throughput and median latency")
    } else if !lower.below.is_empty() || !upper.above.is_empty() {
        let outside = places(&[lower.below, upper.above].concat());
        does_not_hold(format!(
            "the two differ by more than 1.5 times for {outside}"
        ))
    } else {
        let unresolved = places(&[lower.unresolved, upper.unresolved].concat());
        inconclusive(format!("not resolved for {unresolved}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claims::ClaimVerdict;
    use crate::claims::rule::made_up::{narrow, with_counts};

    #[test]
    fn c4_asks_about_the_small_pool() {
        let judge = |others: f64, pool: f64| {
            let evidence = narrow(&[
                ("iterative_over_model_ratio", "thread", others),
                ("small_pool_over_thread_ratio", "pool --workers 2", pool),
            ]);
            decide_waiting(&evidence).verdict
        };
        assert_eq!(judge(5.0, 1.0), ClaimVerdict::Holds);
        assert_eq!(judge(5.0, 3.0), ClaimVerdict::HoldsOnlyWhen);
        assert_eq!(judge(1.0, 3.0), ClaimVerdict::DoesNotHold);
        assert_eq!(judge(5.0, 1.4), ClaimVerdict::Inconclusive);
    }

    #[test]
    fn c7_allows_a_factor_and_no_failure() {
        let judge = |ratio: f64, failed: f64| {
            let figures = narrow(&[("throughput_processes_over_threads_ratio", "thread", ratio)]);
            let evidence = with_counts(figures, &[("failed_requests", "", failed)]);
            decide_client_kinds(&evidence).verdict
        };
        assert_eq!(judge(0.9, 0.0), ClaimVerdict::Holds);
        assert_eq!(judge(0.9, 1.0), ClaimVerdict::DoesNotHold);
        assert_eq!(judge(0.5, 0.0), ClaimVerdict::DoesNotHold);
        assert_eq!(judge(1.5, 0.0), ClaimVerdict::Inconclusive);
    }
}
