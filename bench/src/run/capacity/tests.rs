//! The search against queueing theory: a simulated server with a known capacity in place of a real one.

use super::search::{Answer, Bracket, Search};
use super::*;
use crate::results::{Validity, ValidityFlag};
use crate::stats::md1;

/// Service time of the simulated server.
const SERVICE_NS: f64 = 200e3;

/// Searches with these answers; returns the bracket, and the rates that were tried.
fn search(
    start: f64,
    precision: f64,
    mut answer: impl FnMut(f64) -> Answer,
) -> (Bracket, Vec<(f64, Answer)>) {
    let mut search = Search {
        start,
        precision,
        tried: Vec::new(),
    };
    while !search.is_done() && search.tried.len() < 40 {
        let rate = search.next_rate();
        let answer = answer(rate);
        search.tried.push((rate, answer));
    }
    (Bracket::of(&search.tried), search.tried)
}

/// Answers of a server with a capacity of 1,000 requests per second.
fn at_1000(rate: f64) -> Answer {
    if rate <= 1000.0 {
        Answer::Kept
    } else {
        Answer::Missed
    }
}

/// The 99th percentile of the time in system in a block of a queue with one server: four slices that begin empty,
/// of which the first 50 ms are not measured.
fn p99_of_block(rate: f64, random: &mut fastrand::Rng) -> u64 {
    let (ramp_ns, end_ns) = (50e6, 550e6);
    let mut times = Vec::new();
    for _ in 0..4 {
        let (mut now, mut free_at) = (0.0_f64, 0.0_f64);
        loop {
            now += -(1.0 - random.f64()).ln() * 1e9 / rate;
            if now >= end_ns {
                break;
            }
            free_at = free_at.max(now) + SERVICE_NS;
            if now >= ramp_ns {
                times.push(free_at - now);
            }
        }
    }
    times.sort_by(f64::total_cmp);
    units::to_count(times[times.len() * 99 / 100])
}

/// Nine blocks of the simulated server at a rate.
fn blocks_at(rate: f64, random: &mut fastrand::Rng) -> Vec<BlockRow> {
    let row = |_| BlockRow {
        rate_per_second: Some(rate),
        planned: 1000,
        answered: 1000,
        latency_p99_ns: Some(p99_of_block(rate, random)),
        ..BlockRow::default()
    };
    (0..9).map(row).collect()
}

/// The capacity that the search finds for a simulated server is that of M/D/1, for objectives from 5 to 20 service
/// times and whatever the seed.
#[test]
fn the_capacity_of_a_simulated_server_is_that_of_queueing_theory() {
    let (mut covered, mut all) = (0, 0);
    for times in [5.0, 10.0, 20.0] {
        let limit_ns = times * SERVICE_NS;
        let truth = md1::capacity(SERVICE_NS, limit_ns, 0.99) * 1e9;
        for seed in 0..8 {
            let mut random = fastrand::Rng::with_seed(seed);
            let slo: Slo = format!("p99={limit_ns}ns").parse().unwrap();
            let (bracket, tried) = search(2_500.0, 0.02, |rate| {
                let rows = blocks_at(rate, &mut random);
                answer(slo, &rows.iter().collect::<Vec<_>>())
            });
            let (kept, missed) = (bracket.kept.unwrap(), bracket.missed.unwrap());
            let middle = (kept * missed).sqrt();
            assert!(
                (middle / truth - 1.0).abs() < 0.05,
                "{times}, seed {seed}: {middle} for {truth}"
            );
            assert!(
                missed / kept < 1.15,
                "{times}, seed {seed}: {kept} to {missed}"
            );
            assert!(tried.len() <= 16, "{tried:?}");
            covered += usize::from((kept..=missed).contains(&truth));
            all += 1;
        }
    }
    assert!(covered * 10 >= all * 9, "{covered} of {all}");
}

#[test]
fn a_capacity_is_bracketed_wherever_the_search_begins() {
    for start in [1.0, 30.0, 700.0, 999.0, 1000.0, 5_000.0, 100_000.0] {
        let (bracket, tried) = search(start, 0.05, at_1000);
        let (kept, missed) = (bracket.kept.unwrap(), bracket.missed.unwrap());
        assert!(kept <= 1000.0 && missed > 1000.0, "{start}: {bracket:?}");
        assert!(missed <= kept * 1.05, "{start}: {bracket:?}");
        assert!(tried.len() < 20, "{start}: {tried:?}");
    }
    // From half of it, as from half of a peak.
    assert!(search(500.0, 0.05, at_1000).1.len() <= 7);
}

/// Rates around the capacity that blocks do not resolve lie between the two ends, which are as close to them as the
/// precision asks.
#[test]
fn rates_that_are_not_resolved_widen_the_bracket() {
    let (bracket, tried) = search(300.0, 0.05, |rate| match rate {
        ..900.0 => Answer::Kept,
        900.0..1100.0 => Answer::Unresolved,
        _ => Answer::Missed,
    });
    let (kept, missed) = (bracket.kept.unwrap(), bracket.missed.unwrap());
    assert!((850.0..900.0).contains(&kept), "{bracket:?}");
    assert!((1100.0..1160.0).contains(&missed), "{bracket:?}");
    assert!(tried.len() < 16, "{tried:?}");
}

#[test]
fn a_rate_that_is_kept_above_one_that_is_not_does_not_count() {
    let tried = [
        (100.0, Answer::Kept),
        (400.0, Answer::Kept),
        (200.0, Answer::Missed),
        (800.0, Answer::Missed),
    ];
    let bracket = Bracket::of(&tried);
    assert_eq!((bracket.kept, bracket.missed), (Some(100.0), Some(200.0)));

    let unresolved = [(100.0, Answer::Unresolved), (200.0, Answer::Kept)];
    assert_eq!(Bracket::of(&unresolved).kept, None);
}

/// Beyond what the generator can send, nothing is known about the server.
#[test]
fn where_the_generator_is_the_limit_a_capacity_is_a_lower_bound() {
    let (bracket, _) = search(100.0, 0.05, |rate| {
        if rate < 500.0 {
            Answer::Kept
        } else {
            Answer::Limited
        }
    });
    let (kept, limited) = (bracket.kept.unwrap(), bracket.limited.unwrap());
    assert!(kept < 500.0 && limited >= 500.0, "{bracket:?}");
    assert!(limited <= kept * 1.05, "{bracket:?}");
    assert_eq!(bracket.missed, None);
}

/// A disturbed machine is no reason to reject a rate: it is tried again.
#[test]
fn a_rate_at_which_the_machine_was_disturbed_is_tried_again() {
    let mut disturbed = 2;
    let (bracket, tried) = search(500.0, 0.05, |rate| {
        if disturbed > 0 {
            disturbed -= 1;
            return Answer::NotJudged;
        }
        at_1000(rate)
    });
    assert_eq!(
        tried[..3].iter().map(|(rate, _)| *rate).collect::<Vec<_>>(),
        [500.0; 3]
    );
    assert!(bracket.missed.unwrap() > 1000.0, "{bracket:?}");
}

#[test]
fn a_server_that_keeps_no_rate_or_fails_ends_the_search() {
    let (bracket, tried) = search(1_000.0, 0.05, |_| Answer::Missed);
    assert_eq!(bracket.kept, None);
    assert!(tried.len() <= 12, "{tried:?}");
    let (_, tried) = search(1_000.0, 0.05, |_| Answer::Failed);
    assert_eq!(tried.len(), 1);
}

#[test]
fn blocks_that_the_tool_marks_are_no_answer() {
    let slo = Slo::default();
    let rows = |flag: ValidityFlag| {
        let row = BlockRow {
            planned: 1000,
            answered: 1000,
            latency_p99_ns: Some(9_000_000),
            validity: [flag].into_iter().collect::<Validity>(),
            ..BlockRow::default()
        };
        vec![row; 9]
    };
    for (flag, expected) in [
        (ValidityFlag::Disturbed, Answer::NotJudged),
        (ValidityFlag::Late, Answer::Limited),
        (ValidityFlag::Generator, Answer::Limited),
        (ValidityFlag::Overran, Answer::Missed),
    ] {
        let rows = rows(flag);
        let answer = answer(slo, &rows.iter().collect::<Vec<_>>());
        assert_eq!(answer, expected, "{flag}");
    }
}
