//! Cost of the ways to bring a client to a thread or process: C14 and C15.
//!
//! Both are claims of Stevens' comparison of server designs, measured as in the scenarios `accept` and
//! `herd`: one request on each connection.

use echobench_clients::Driver;

use super::evidence::Evidence;
use super::lab::{self, Lab};
use super::rule::{Compared, does_not_hold, holds, holds_only_when, inconclusive, places};
use super::{CHAPTER_30, Claim, Ruling};
use crate::experiment::condition::Condition;
use crate::experiment::hosts::Hosts;
use crate::results::BlockRow;
use crate::results::summary::REFERENCE;
use crate::scenario::arm::Arm;
use crate::scenario::{Effort, Placement, Scenario};

pub(super) const C14: Claim = Claim {
    id: "C14",
    claim: "threads started beforehand serve a client with less CPU time than a thread started for it",
    source: CHAPTER_30,
    metric: "CPU time of the server for a connection with one request, and its part beyond that of iterative \
             (process control): thread, with and without the signal stack that the standard library gives each \
             thread, over prethread (mutex around accept) and over pool (the main thread accepts)",
    rule: "holds if the intervals of all four ratios of CPU time lie above 1; only when, if some do and the \
           others lie below 1; does not hold if all lie below 1",
    experiment: measure_prethreading,
    figures: &[
        ("thread_over_prethread_ratio", &["10 clients"]),
        ("thread_over_pool_ratio", &["10 clients"]),
        (
            "thread_with_signal_stack_over_prethread_ratio",
            &["10 clients"],
        ),
        ("thread_with_signal_stack_over_pool_ratio", &["10 clients"]),
    ],
    decide: decide_prethreading,
};

/// Arms of C14, each with its name in figures.
const DESIGNS: [(&str, &str); 5] = [
    ("iterative", "iterative"),
    (REFERENCE, REFERENCE),
    ("thread_with_signal_stack", "thread --signal-stack"),
    ("prethread", "prethread --accept mutex"),
    ("pool", "pool"),
];
/// Clients of C14 at the same time, as many as Stevens had.
const CLIENTS: u32 = 10;
/// Ratio from which on a design counts as cheaper.
const CHEAPER: f64 = 1.0;

fn measure_prethreading(lab: &Lab) -> anyhow::Result<Evidence> {
    let scenario = Scenario::find("accept")?;
    let arms = DESIGNS.map(|(_, arm)| arm.to_owned());
    let blocks = measure(lab, &scenario, &arms, (CLIENTS, Driver::Tasks))?;
    let cpu_ns = |index: usize| values(&blocks, index, |row| row.cpu_ns_per_request);

    let mut evidence = Evidence::default();
    let at = format!("{CLIENTS} clients");
    let service = cpu_ns(0);
    for (index, (name, _)) in DESIGNS.iter().enumerate() {
        let total = cpu_ns(index);
        evidence.median(&format!("{name}_connection_ns"), &at, &total, 1);
        if index > 0 {
            let control: Vec<f64> = total.iter().zip(&service).map(|(a, b)| a - b).collect();
            let figure = evidence.median(&format!("{name}_control_ns"), &at, &control, 1);
            figure.mark_headline();
        }
    }

    let pairs = [(1, 3), (1, 4), (2, 3), (2, 4)];
    for (thread, beforehand) in pairs {
        let metric = format!("{}_over_{}_ratio", DESIGNS[thread].0, DESIGNS[beforehand].0);
        let both = (&cpu_ns(thread)[..], &cpu_ns(beforehand)[..]);
        evidence
            .ratio(&metric, &at, both, pairs.len())
            .mark_headline();
    }
    Ok(evidence)
}

fn decide_prethreading(evidence: &Evidence) -> Ruling {
    let ratios = evidence
        .figures
        .iter()
        .filter(|figure| figure.metric.ends_with("_ratio"));
    let compared = Compared::with(CHEAPER, ratios);
    let named = |figures: &[&super::evidence::Figure]| {
        let names = figures.iter().map(|figure| {
            let name = figure.metric.trim_end_matches("_ratio").replace('_', " ");
            name.replace(" over ", " against ")
        });
        names.collect::<Vec<_>>().join(", ")
    };
    // The published table has prethread at 1.95 times the control time of thread, and says the opposite in words.
    let control = |name: &str| evidence.value(&format!("{name}_control_ns"), "10 clients");
    let published = control("prethread")
        .zip(control(REFERENCE))
        .map_or_else(String::new, |(own, reference)| {
            format!(
                "; process control of prethread ÷ thread {:.2}, 1.95 in the published table (1.93 s ÷ 0.99 s), \
                 whose text has prethread ahead",
                own / reference
            )
        });

    if compared.above.len() == 4 {
        holds(format!("against prethread and against pool{published}"))
    } else if compared.below.len() == 4 {
        does_not_hold(format!("in no comparison{published}"))
    } else if compared.unresolved.is_empty() && !compared.above.is_empty() {
        holds_only_when(format!("it is {}{published}", named(&compared.above)))
    } else {
        inconclusive(format!("not resolved for {}", named(&compared.unresolved)))
    }
}

pub(super) const C15: Claim = Claim {
    id: "C15",
    claim: "several processes that wait for the same listener all wake up for one connection",
    source: CHAPTER_30,
    metric: "context switches and CPU time of prefork for a connection of one client, with 1, 10 and 100 \
             processes waiting, by the way in which they wait",
    rule: "a way has the herd if 100 processes take at least 10 times the context switches of 1; holds if \
           every way has it; only when, if some have; does not hold if none has",
    experiment: measure_herd,
    figures: &[(HERD_RATIO, &WAYS)],
    decide: decide_herd,
};

/// Ways in which processes wait.
const WAYS: [&str; 5] = ["block", "poll", "exclusive", "file-lock", "mutex"];
/// Processes that wait.
const CHILDREN: [u32; 3] = [1, 10, 100];
/// Growth of context switches that makes a herd, of a hundredfold number of processes.
const HERD: f64 = 10.0;

fn measure_herd(lab: &Lab) -> anyhow::Result<Evidence> {
    let scenario = Scenario::find("herd")?;
    let mut evidence = Evidence::default();

    for way in WAYS {
        let arms = CHILDREN.map(|children| format!("prefork --workers {children} --accept {way}"));
        let blocks = measure(lab, &scenario, &arms, (1, Driver::Threads))?;
        let switches =
            |index: usize| values(&blocks, index, |row| row.context_switches_per_request);

        for (index, children) in CHILDREN.iter().enumerate() {
            let at = format!("{children} waiting");
            let cpu_ns = values(&blocks, index, |row| row.cpu_ns_per_request);
            let way = way.replace('-', "_");
            evidence.median(
                &format!("{way}_switches_per_connection"),
                &at,
                &switches(index),
                1,
            );
            evidence.median(&format!("{way}_cpu_ns"), &at, &cpu_ns, 1);
        }

        let last = CHILDREN.len() - 1;
        let growth = (&switches(last)[..], &switches(0)[..]);
        evidence
            .ratio(HERD_RATIO, way, growth, WAYS.len())
            .mark_headline();
    }
    Ok(evidence)
}

/// Context switches of the most processes over those of one.
const HERD_RATIO: &str = "hundred_over_one_ratio";

fn decide_herd(evidence: &Evidence) -> Ruling {
    let compared = Compared::with(HERD, evidence.all(HERD_RATIO));

    if compared.above.len() == WAYS.len() {
        holds("in every way to wait")
    } else if compared.below.len() == WAYS.len() {
        does_not_hold("in no way to wait")
    } else if compared.above.len() + compared.below.len() == WAYS.len() {
        holds_only_when(format!("they wait in {}", places(&compared.above)))
    } else {
        inconclusive(format!("not resolved for {}", places(&compared.unresolved)))
    }
}

/// Blocks of these arms under the traffic of a scenario, with clients on CPUs of their own where there are
/// several.
fn measure(
    lab: &Lab,
    scenario: &Scenario,
    arms: &[String],
    (clients, driver): (u32, Driver),
) -> anyhow::Result<Vec<Vec<BlockRow>>> {
    let placement = match Placement::Split.cpus() {
        Ok(_) => Placement::Split,
        Err(_) => Placement::Same,
    };
    let effort = Effort {
        rounds: arms.len(),
        blocks: lab.pick(9, 21),
        ..scenario.quick
    };
    let arms = arms.iter().map(|arm| Arm::of_model(arm)).collect();
    let condition = Condition::new(scenario, effort, arms, (clients, driver, placement));

    let mut blocks: Vec<Vec<BlockRow>> = Vec::new();
    for number in 1..=effort.blocks {
        lab::fail_if_interrupted()?;
        let next = condition.after(blocks.iter().flatten());
        let outcome = next.run_block(&Hosts::here(), number, lab.seed)?;
        for row in &outcome.blocks {
            anyhow::ensure!(row.is_ok(), "{}: {}", row.model, row.status);
        }
        blocks.push(outcome.blocks);
    }
    Ok(blocks)
}

/// A figure of one arm in each block; not a number where it could not be measured, which no evidence may be.
fn values(
    blocks: &[Vec<BlockRow>],
    arm: usize,
    read: impl Fn(&BlockRow) -> Option<f64>,
) -> Vec<f64> {
    blocks
        .iter()
        .map(|rows| read(&rows[arm]).unwrap_or(f64::NAN))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claims::ClaimVerdict;
    use crate::claims::rule::made_up::{narrow, wide};

    /// Evidence of C14 with these ratios: thread over prethread and pool, then with signal stacks.
    fn prethreading(ratios: [f64; 4], make: fn(&[(&str, &str, f64)]) -> Evidence) -> Ruling {
        let at = "10 clients";
        let [prethread, pool, with_prethread, with_pool] = ratios;
        decide_prethreading(&make(&[
            ("thread_control_ns", at, 20_000.0),
            ("prethread_control_ns", at, 10_000.0),
            ("thread_over_prethread_ratio", at, prethread),
            ("thread_over_pool_ratio", at, pool),
            (
                "thread_with_signal_stack_over_prethread_ratio",
                at,
                with_prethread,
            ),
            ("thread_with_signal_stack_over_pool_ratio", at, with_pool),
        ]))
    }

    #[test]
    fn c14_asks_for_both_designs_and_both_kinds_of_threads() {
        let all = prethreading([1.4, 1.5, 2.0, 2.1], narrow);
        assert_eq!(all.verdict, ClaimVerdict::Holds);
        assert!(all.condition.contains("÷ thread 0.50, 1.95"), "{all:?}");

        let some = prethreading([0.9, 0.9, 1.3, 1.3], narrow);
        assert_eq!(some.verdict, ClaimVerdict::HoldsOnlyWhen);
        let expected = "thread with signal stack against prethread";
        assert!(some.condition.contains(expected), "{some:?}");

        let none = prethreading([0.9; 4], narrow).verdict;
        assert_eq!(none, ClaimVerdict::DoesNotHold);
        let unknown = prethreading([1.4; 4], wide).verdict;
        assert_eq!(unknown, ClaimVerdict::Inconclusive);
    }

    #[test]
    fn c15_asks_for_every_way_to_wait() {
        let herd = |growth: [f64; 5], make: fn(&[(&str, &str, f64)]) -> Evidence| {
            let figures: Vec<_> = WAYS
                .iter()
                .zip(growth)
                .map(|(way, growth)| (HERD_RATIO, *way, growth))
                .collect();
            decide_herd(&make(&figures))
        };

        assert_eq!(herd([50.0; 5], narrow).verdict, ClaimVerdict::Holds);
        assert_eq!(herd([1.2; 5], narrow).verdict, ClaimVerdict::DoesNotHold);
        let only = herd([1.2, 50.0, 1.2, 4.0, 1.5], narrow);
        assert_eq!(only.verdict, ClaimVerdict::HoldsOnlyWhen);
        assert_eq!(only.condition, "they wait in poll");
        assert_eq!(herd([10.0; 5], wide).verdict, ClaimVerdict::Inconclusive);
    }

    #[test]
    fn a_missing_way_decides_nothing() {
        let without = narrow(&[(HERD_RATIO, "block", 1.2), (HERD_RATIO, "poll", 50.0)]);
        assert_eq!(decide_herd(&without).verdict, ClaimVerdict::Inconclusive);
    }

    #[test]
    fn figures_come_from_the_rows_of_their_arm() {
        let row = |cpu_ns: Option<f64>| BlockRow {
            cpu_ns_per_request: cpu_ns,
            ..BlockRow::default()
        };
        let blocks = [
            vec![row(Some(1.0)), row(Some(2.0))],
            vec![row(Some(3.0)), row(None)],
        ];
        assert_eq!(values(&blocks, 0, |row| row.cpu_ns_per_request), [1.0, 3.0]);
        let second = values(&blocks, 1, |row| row.cpu_ns_per_request);
        assert!(second[0].is_finite() && second[1].is_nan());
    }
}
