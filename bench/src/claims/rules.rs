//! The rules, fixed beforehand: from evidence to verdict, and nothing else.

use super::evidence::{Evidence, Figure};
use super::{ClaimVerdict, Ruling};

/// The margin from which on one thing is called dearer than another.
const DEARER: f64 = 1.5;

fn rule(verdict: ClaimVerdict, condition: impl Into<String>) -> Ruling {
    Ruling {
        verdict,
        condition: condition.into(),
    }
}

fn holds(condition: impl Into<String>) -> Ruling {
    rule(ClaimVerdict::Holds, condition)
}

fn fails(condition: impl Into<String>) -> Ruling {
    rule(ClaimVerdict::DoesNotHold, condition)
}

fn only_when(condition: impl Into<String>) -> Ruling {
    rule(ClaimVerdict::HoldsOnlyWhen, condition)
}

fn open(condition: impl Into<String>) -> Ruling {
    rule(ClaimVerdict::Inconclusive, condition)
}

/// Figures held against a margin: which reach it, which do not, and which are not resolved.
#[derive(Default)]
struct Held<'a> {
    yes: Vec<&'a Figure>,
    no: Vec<&'a Figure>,
    open: Vec<&'a Figure>,
}

impl<'a> Held<'a> {
    fn against(figures: impl Iterator<Item = &'a Figure>, margin: f64) -> Self {
        let mut held = Held::default();
        for figure in figures {
            match figure.at_least(margin) {
                Some(true) => held.yes.push(figure),
                Some(false) => held.no.push(figure),
                None => held.open.push(figure),
            }
        }
        held
    }

    fn all(&self) -> bool {
        !self.yes.is_empty() && self.no.is_empty() && self.open.is_empty()
    }

    fn none(&self) -> bool {
        !self.no.is_empty() && self.yes.is_empty() && self.open.is_empty()
    }
}

fn places(figures: &[&Figure]) -> String {
    let mut places: Vec<&str> = Vec::new();
    for figure in figures {
        if !places.contains(&figure.at.as_str()) {
            places.push(&figure.at);
        }
    }
    places.join(", ")
}

/// C1.
pub(super) fn cheaper_to_start(evidence: &Evidence) -> Ruling {
    let ratios = evidence
        .all("fork_over_thread_ratio")
        .chain(evidence.all("spawn_over_thread_ratio"))
        .filter(|figure| figure.n > 1);
    let held = Held::against(ratios, DEARER);
    let server = evidence
        .all("fork_over_thread_connections_ratio")
        .find_map(|figure| figure.value);
    let server = server.map_or(String::new(), |ratio| {
        format!("; a fork server takes in {ratio:.2} times as many connections a second as thread")
    });
    if held.all() {
        holds(format!(
            "at every size of the parent that was judged{server}"
        ))
    } else if held.none() {
        fails(format!("at no size of the parent{server}"))
    } else if held.open.is_empty() && !held.yes.is_empty() {
        only_when(format!("the parent has {}{server}", places(&held.yes)))
    } else {
        open(format!("not resolved at {}", places(&held.open)))
    }
}

/// C2.
pub(super) fn shared_or_copied(evidence: &Evidence) -> Ruling {
    // What was measured once is shown, not judged.
    let ratios = evidence
        .all("fork_over_thread_ratio")
        .filter(|figure| figure.n > 1);
    let held = Held::against(ratios, DEARER);
    let inherits = evidence
        .sum("inherited_descriptors")
        .map(|count| count >= 1.0);
    match inherits {
        Some(true) if held.all() => holds(
            "pages that are not written to stay shared: a child costs a part of its parent, not all of it",
        ),
        Some(false) if held.none() => fails("neither memory nor descriptors"),
        Some(true) if held.none() => only_when("it is about descriptors, not about memory"),
        Some(false) if held.all() => only_when("it is about memory, not about descriptors"),
        _ => open(format!("memory not resolved at {}", places(&held.open))),
    }
}

/// C3.
pub(super) fn zombies(evidence: &Evidence) -> Ruling {
    let left = |at| evidence.value("zombies", at);
    let values = (
        left("thread"),
        left("fork"),
        left("fork without reaper"),
        evidence.value("connections", ""),
    );
    let (Some(thread), Some(fork), Some(without), Some(connections)) = values else {
        return open("zombies were not counted");
    };
    if thread > 0.0 {
        fails(format!("thread left {thread} zombies"))
    } else if without < 0.99 * connections {
        fails(format!(
            "{without} zombies after {connections} connections without a reaper"
        ))
    } else if fork > 0.0 {
        fails(format!("{fork} zombies in spite of the reaper"))
    } else {
        holds(format!("with a reaper none are left of {connections}"))
    }
}

/// C4.
pub(super) fn makes_others_wait(evidence: &Evidence) -> Ruling {
    let waits = Held::against(evidence.all("iterative_over_model_ratio"), 2.5);
    let pool = evidence.all("small_pool_over_thread_ratio").next();
    let pool_waits = pool.and_then(|pool| pool.at_least(1.5));
    let pool_does_not = pool.and_then(|pool| pool.at_least(1.25)) == Some(false);
    if !waits.no.is_empty() {
        fails(format!(
            "{} made the others wait as well",
            places(&waits.no)
        ))
    } else if !waits.all() {
        open(format!("not resolved for {}", places(&waits.open)))
    } else if pool_waits == Some(true) {
        only_when("there are as many threads or processes as clients: a pool of 2 made 5 wait")
    } else if pool_does_not {
        holds("for a pool smaller than the number of clients as well")
    } else {
        open("not resolved for the small pool")
    }
}

/// C5.
pub(super) fn backlog(evidence: &Evidence) -> Ruling {
    const PLACE: &str = "backlog 5, ";
    let bursts = evidence.all("connected").filter_map(|figure| {
        let number = figure.at.strip_prefix(PLACE)?.split(' ').next()?;
        Some((figure, number.parse::<f64>().ok()?))
    });
    let (mut seen, mut unresolved) = (0, Vec::new());
    for (figure, clients) in bursts {
        seen += 1;
        let most = clients.min(6.0);
        match (figure.at_least(5.0), figure.at_least(most + 0.5)) {
            (Some(true), Some(false)) => {}
            (Some(false), _) | (_, Some(true)) => {
                let value = figure.value.unwrap_or(0.0);
                return fails(format!("{value} of {clients} could wait"));
            }
            _ => unresolved.push(figure),
        }
    }
    if seen == 0 || !unresolved.is_empty() {
        return open(format!("not resolved for {}", places(&unresolved)));
    }
    let happened = |metric| {
        let mut figures = evidence
            .all(metric)
            .filter(|figure| figure.at.starts_with(PLACE));
        figures.any(|figure| figure.value.is_some_and(|count| count > 0.0))
    };
    if happened("refused") {
        holds("one more than the backlog waits; of the others some are refused")
    } else if happened("retried") || happened("given_up") {
        holds(
            "one more than the backlog waits; the others are not refused: the kernel tries their connect \
             again after 1 s, 3 s and so on",
        )
    } else {
        holds("one more than the backlog waits")
    }
}

/// C6.
pub(super) fn random_order(evidence: &Evidence) -> Ruling {
    const OFTEN: f64 = 0.05;
    const SELDOM: f64 = 0.01;
    const CORRELATED: f64 = 0.1;
    let moved = Held::against(evidence.all("out_of_order_share"), OFTEN);
    let fixed = Held::against(evidence.all("out_of_order_share"), SELDOM);
    let ordered = Held::against(evidence.all("tau"), CORRELATED);
    if !fixed.no.is_empty() {
        fails(format!("{} are served as they start", places(&fixed.no)))
    } else if !moved.all() {
        open("not resolved how often the order changes")
    } else if ordered.none() {
        holds("")
    } else if ordered.yes.is_empty() {
        open("not resolved how far the orders agree")
    } else {
        only_when(
            "random means not fixed: who starts earlier is still served earlier more often than not",
        )
    }
}

/// C7.
pub(super) fn alike(evidence: &Evidence) -> Ruling {
    let ratios = || {
        evidence
            .all("throughput_processes_over_threads_ratio")
            .chain(evidence.all("p50_processes_over_threads_ratio"))
    };
    let not_below = Held::against(ratios(), 1.0 / DEARER);
    let above = Held::against(ratios(), DEARER);
    let Some(failed) = evidence.value("failed_requests", "") else {
        return open("failures were not counted");
    };
    if failed > 0.0 {
        fails(format!("{failed} requests failed"))
    } else if not_below.all() && above.none() {
        holds("within a factor of 1.5 in throughput and median latency")
    } else if !not_below.no.is_empty() || !above.yes.is_empty() {
        let mut outside = not_below.no;
        outside.extend(above.yes);
        fails(format!(
            "the two differ by more than 1.5 times for {}",
            places(&outside)
        ))
    } else {
        let mut unresolved = not_below.open;
        unresolved.extend(above.open);
        open(format!("not resolved for {}", places(&unresolved)))
    }
}

/// C8.
pub(super) fn ladder(evidence: &Evidence) -> Ruling {
    let ratios = || {
        evidence
            .all("tcp_over_channel_ratio")
            .chain(evidence.all("tcp_over_mpsc_ratio"))
    };
    let (no_slower, faster) = (
        Held::against(ratios(), 1.0 / DEARER),
        Held::against(ratios(), DEARER),
    );
    let serves_both = ["fifo", "unix", "tcp"].iter().all(|name| {
        let metric = format!("{name}_round_trip_ns");
        ["threads", "processes"]
            .iter()
            .all(|at| evidence.value(&metric, at).is_some())
    });
    if evidence.figures.is_empty() {
        open("nothing was measured")
    } else if !serves_both {
        fails("a fifo or a socket did not work in both places")
    } else if !no_slower.no.is_empty() {
        fails("a queue between threads is slower than TCP")
    } else if !no_slower.all() {
        open("not resolved whether queues are as fast as TCP")
    } else if faster.yes.is_empty() {
        holds(
            "queues are no slower than TCP between threads on one CPU, but hardly faster: waking up dominates",
        )
    } else if faster.all() {
        holds("queues are at least 1.5 times faster than TCP between threads on one CPU")
    } else {
        holds(
            "queues are no slower than TCP between threads on one CPU, and one kind is 1.5 times faster",
        )
    }
}

/// C9.
pub(super) fn short_sends(evidence: &Evidence) -> Ruling {
    let (mut short, mut whole) = (Vec::new(), Vec::new());
    for figure in evidence.all("short_sends_share") {
        match figure.value {
            Some(share) if share > 0.0 => short.push(figure),
            Some(_) => whole.push(figure),
            None => return open("a way of sending was not measured"),
        }
    }
    let Some(lost) = evidence.value("bytes_lost_or_wrong", "") else {
        return open("lost bytes were not counted");
    };
    if lost > 0.0 {
        fails(format!("{lost} bytes were lost although the rest was sent"))
    } else if short.is_empty() {
        fails("no send was short")
    } else if whole.is_empty() {
        holds("with the rest sent, nothing is lost")
    } else {
        only_when(
            "the socket does not block, or a signal comes: an undisturbed blocking send takes all",
        )
    }
}

/// C10.
pub(super) fn pausing(evidence: &Evidence) -> Ruling {
    let Some(busy) = evidence.at("cpu_over_signal_ratio", "busy loop") else {
        return open("the busy loop was not measured");
    };
    if busy.at_least(10.0) == Some(true) {
        holds("sleeping between looks is in between, and wakes up late")
    } else if busy.at_least(2.0) == Some(false) {
        fails("the busy loop uses no more")
    } else {
        open("not resolved how much more the busy loop uses")
    }
}

/// C11.
pub(super) fn storm(evidence: &Evidence) -> Ruling {
    let broken_off = evidence
        .all("broken_off_share")
        .any(|figure| figure.value.is_some_and(|share| share >= 0.5));
    let Some(bad) = evidence.value("lost_or_wrong_replies", "") else {
        return open("replies were not counted");
    };
    match (broken_off, bad > 0.0) {
        (true, true) => holds(format!("{bad} replies were lost or wrong")),
        (true, false) => only_when(
            "a program does not try again: no model lost a reply, since every call is repeated",
        ),
        (false, true) => open(format!(
            "no call was broken off, yet {bad} replies were lost"
        )),
        (false, false) => fails("no call was broken off"),
    }
}

/// C12.
pub(super) fn without_fork(evidence: &Evidence) -> Ruling {
    let value = |metric: &str| evidence.value(metric, "fork");
    let (Some(answered), Some(told), Some(says_why)) = (
        value("answered_share"),
        value("told_so_share"),
        value("errors_that_say_why"),
    ) else {
        return open("fork was not measured");
    };
    let failed: Vec<&Figure> = evidence
        .all("answered_share")
        .filter(|figure| figure.at != "fork" && figure.value != Some(1.0))
        .collect();
    if !failed.is_empty() {
        fails(format!("{} failed without fork as well", places(&failed)))
    } else if answered > 0.0 {
        open("fork was not refused")
    } else if told < 1.0 || says_why < 1.0 {
        open("serve fork does not tell every client, or does not say why")
    } else {
        holds("measured on Linux with fork refused by the kernel; other systems were not measured")
    }
}

/// C13.
pub(super) fn short_jobs(evidence: &Evidence) -> Ruling {
    let figures: Vec<&Figure> = evidence.all("fork_over_thread_ratio").collect();
    let held = Held::against(figures.iter().copied(), 0.8);
    let gone = |figure: &&&Figure| figure.high.is_some_and(|high| high <= 1.1);
    let tail = figures.iter().rev().take_while(gone).count();
    let crossover = match tail {
        0 => "up to the longest jobs the difference is not known to have gone".to_owned(),
        _ => format!(
            "fork is at most 1.1 times as late from jobs of {} on",
            figures[figures.len() - tail].at
        ),
    };
    if !held.no.is_empty() {
        fails(format!(
            "processes finish earlier with jobs of {}",
            places(&held.no)
        ))
    } else if held.all() {
        holds(crossover)
    } else {
        open(format!("not resolved for jobs of {}", places(&held.open)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Figures with intervals of 5 % to both sides.
    fn sure(figures: &[(&str, &str, f64)]) -> Evidence {
        let mut evidence = Evidence::default();
        for &(metric, at, value) in figures {
            let blocks = [0.95, 0.97, 0.99, 1.0, 1.01, 1.02, 1.03, 1.04, 1.05];
            evidence.median(metric, &at, &blocks.map(|factor| factor * value), 1);
        }
        evidence
    }

    /// The same with intervals from a fifth to five times the value.
    fn vague(figures: &[(&str, &str, f64)]) -> Evidence {
        let mut evidence = Evidence::default();
        for &(metric, at, value) in figures {
            let blocks = [0.2, 0.3, 0.5, 1.0, 2.0, 3.0, 5.0];
            evidence.median(metric, &at, &blocks.map(|factor| factor * value), 1);
        }
        evidence
    }

    fn counted(mut evidence: Evidence, counts: &[(&str, &str, f64)]) -> Evidence {
        for &(metric, at, count) in counts {
            evidence.exact(metric, &at, count);
        }
        evidence
    }

    fn counts(figures: &[(&str, &str, f64)]) -> Evidence {
        counted(Evidence::default(), figures)
    }

    const FORK: &str = "fork_over_thread_ratio";

    #[test]
    fn no_rule_decides_without_evidence() {
        for claim in super::super::CLAIMS {
            let verdict = (claim.decide)(&Evidence::default()).verdict;
            assert_eq!(verdict, ClaimVerdict::Inconclusive, "{}", claim.id);
        }
    }

    #[test]
    fn c1_asks_for_every_size() {
        let judge = |evidence: &Evidence| cheaper_to_start(evidence).verdict;
        let spawn = "spawn_over_thread_ratio";
        let all = sure(&[
            (FORK, "0 MiB", 7.0),
            (FORK, "64 MiB", 90.0),
            (spawn, "0 MiB", 40.0),
        ]);
        assert_eq!(judge(&all), ClaimVerdict::Holds);
        let some = sure(&[(FORK, "0 MiB", 0.9), (FORK, "64 MiB", 90.0)]);
        let ruling = cheaper_to_start(&some);
        assert_eq!(ruling.verdict, ClaimVerdict::HoldsOnlyWhen);
        assert!(ruling.condition.contains("64 MiB") && !ruling.condition.contains(" 0 MiB"));
        assert_eq!(
            judge(&sure(&[(FORK, "0 MiB", 1.1)])),
            ClaimVerdict::DoesNotHold
        );
        assert_eq!(
            judge(&vague(&[(FORK, "0 MiB", 2.0)])),
            ClaimVerdict::Inconclusive
        );
    }

    #[test]
    fn c2_asks_for_a_copy_and_for_descriptors() {
        let judge = |ratio: f64, inherited: f64| {
            let figures = sure(&[(FORK, "100 connections", ratio)]);
            shared_or_copied(&counted(
                figures,
                &[("inherited_descriptors", "fork", inherited)],
            ))
            .verdict
        };
        assert_eq!(judge(4.0, 4.0), ClaimVerdict::Holds);
        assert_eq!(judge(1.0, 4.0), ClaimVerdict::HoldsOnlyWhen);
        assert_eq!(judge(4.0, 0.0), ClaimVerdict::HoldsOnlyWhen);
        assert_eq!(judge(1.0, 0.0), ClaimVerdict::DoesNotHold);
    }

    #[test]
    fn c3_counts_zombies() {
        let judge = |thread: f64, fork: f64, without: f64| {
            let counts = counts(&[
                ("connections", "", 1000.0),
                ("zombies", "thread", thread),
                ("zombies", "fork", fork),
                ("zombies", "fork without reaper", without),
            ]);
            zombies(&counts).verdict
        };
        assert_eq!(judge(0.0, 0.0, 1000.0), ClaimVerdict::Holds);
        assert_eq!(judge(0.0, 1.0, 1000.0), ClaimVerdict::DoesNotHold);
        assert_eq!(judge(0.0, 0.0, 900.0), ClaimVerdict::DoesNotHold);
        assert_eq!(judge(2.0, 0.0, 1000.0), ClaimVerdict::DoesNotHold);
    }

    #[test]
    fn c4_asks_about_the_small_pool() {
        let judge = |others: f64, pool: f64| {
            let evidence = sure(&[
                ("iterative_over_model_ratio", "thread", others),
                ("small_pool_over_thread_ratio", "pool --workers 2", pool),
            ]);
            makes_others_wait(&evidence).verdict
        };
        assert_eq!(judge(5.0, 1.0), ClaimVerdict::Holds);
        assert_eq!(judge(5.0, 3.0), ClaimVerdict::HoldsOnlyWhen);
        assert_eq!(judge(1.0, 3.0), ClaimVerdict::DoesNotHold);
        assert_eq!(judge(5.0, 1.4), ClaimVerdict::Inconclusive);
    }

    #[test]
    fn c5_allows_one_more_than_the_backlog() {
        let judge = |few: f64, many: f64| {
            let counts = counts(&[
                ("connected", "backlog 5, 5 clients", few),
                ("connected", "backlog 5, 100 clients", many),
                ("connected", "backlog 128, 100 clients", 100.0),
                ("retried", "backlog 5, 100 clients", 100.0 - many),
            ]);
            backlog(&counts)
        };
        assert_eq!(judge(5.0, 5.0).verdict, ClaimVerdict::Holds);
        let linux = judge(5.0, 6.0);
        assert_eq!(linux.verdict, ClaimVerdict::Holds);
        assert!(linux.condition.contains("not refused"), "{linux:?}");
        assert_eq!(judge(5.0, 8.0).verdict, ClaimVerdict::DoesNotHold);
        assert_eq!(judge(4.0, 5.0).verdict, ClaimVerdict::DoesNotHold);
    }

    #[test]
    fn c6_tells_random_from_not_fixed() {
        let judge = |share: f64, tau: f64| {
            let at = "threads";
            random_order(&sure(&[
                ("out_of_order_share", at, share),
                ("tau", at, tau),
            ]))
            .verdict
        };
        assert_eq!(judge(0.9, 0.01), ClaimVerdict::Holds);
        assert_eq!(judge(0.9, 0.6), ClaimVerdict::HoldsOnlyWhen);
        assert_eq!(judge(0.001, 0.99), ClaimVerdict::DoesNotHold);
        assert_eq!(judge(0.02, 0.9), ClaimVerdict::Inconclusive);
    }

    #[test]
    fn c7_allows_a_factor_and_no_failure() {
        let judge = |ratio: f64, failed: f64| {
            let figures = sure(&[("throughput_processes_over_threads_ratio", "thread", ratio)]);
            alike(&counted(figures, &[("failed_requests", "", failed)])).verdict
        };
        assert_eq!(judge(0.9, 0.0), ClaimVerdict::Holds);
        assert_eq!(judge(0.9, 1.0), ClaimVerdict::DoesNotHold);
        assert_eq!(judge(0.5, 0.0), ClaimVerdict::DoesNotHold);
        assert_eq!(judge(1.5, 0.0), ClaimVerdict::Inconclusive);
    }

    #[test]
    fn c8_compares_queues_and_asks_what_works() {
        let judge = |ratio: f64, unix: bool| {
            let mut figures = vec![("tcp_over_channel_ratio", "threads", ratio)];
            for at in ["threads", "processes"] {
                figures.push(("fifo_round_trip_ns", at, 1e4));
                figures.push(("tcp_round_trip_ns", at, 1e4));
                if unix {
                    figures.push(("unix_round_trip_ns", at, 1e4));
                }
            }
            ladder(&sure(&figures)).verdict
        };
        assert_eq!(judge(3.0, true), ClaimVerdict::Holds);
        assert_eq!(judge(3.0, false), ClaimVerdict::DoesNotHold);
        assert_eq!(judge(1.0, true), ClaimVerdict::Holds);
        assert_eq!(judge(0.5, true), ClaimVerdict::DoesNotHold);
        assert_eq!(judge(0.66, true), ClaimVerdict::Inconclusive);
    }

    #[test]
    fn c9_asks_which_sends_are_short() {
        let judge = |blocking: f64, other: f64, lost: f64| {
            let counts = counts(&[
                ("short_sends_share", "blocking", blocking),
                ("short_sends_share", "non-blocking", other),
                ("bytes_lost_or_wrong", "", lost),
            ]);
            short_sends(&counts).verdict
        };
        assert_eq!(judge(0.5, 0.9, 0.0), ClaimVerdict::Holds);
        assert_eq!(judge(0.0, 0.9, 0.0), ClaimVerdict::HoldsOnlyWhen);
        assert_eq!(judge(0.0, 0.0, 0.0), ClaimVerdict::DoesNotHold);
        assert_eq!(judge(0.0, 0.9, 7.0), ClaimVerdict::DoesNotHold);
    }

    #[test]
    fn c10_compares_cpu_times() {
        let judge =
            |ratio: f64| pausing(&sure(&[("cpu_over_signal_ratio", "busy loop", ratio)])).verdict;
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
            storm(&counts).verdict
        };
        assert_eq!(judge(1.0, 0.0), ClaimVerdict::HoldsOnlyWhen);
        assert_eq!(judge(1.0, 3.0), ClaimVerdict::Holds);
        assert_eq!(judge(0.0, 0.0), ClaimVerdict::DoesNotHold);
        assert_eq!(judge(0.0, 3.0), ClaimVerdict::Inconclusive);
    }

    #[test]
    fn c12_asks_who_serves_without_fork() {
        let judge = |thread: f64, fork: f64, told: f64| {
            let counts = counts(&[
                ("answered_share", "thread", thread),
                ("answered_share", "fork", fork),
                ("told_so_share", "fork", told),
                ("errors_that_say_why", "fork", 1.0),
            ]);
            without_fork(&counts).verdict
        };
        assert_eq!(judge(1.0, 0.0, 1.0), ClaimVerdict::Holds);
        assert_eq!(judge(0.9, 0.0, 1.0), ClaimVerdict::DoesNotHold);
        assert_eq!(judge(1.0, 1.0, 0.0), ClaimVerdict::Inconclusive);
        assert_eq!(judge(1.0, 0.0, 0.5), ClaimVerdict::Inconclusive);
    }

    #[test]
    fn c13_finds_the_crossover() {
        let curve = |ratios: [f64; 3]| {
            let [short, middle, long] = ratios;
            short_jobs(&sure(&[
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
            short_jobs(&vague(&[(FORK, "10 µs", 1.0)])).verdict,
            ClaimVerdict::Inconclusive
        );
    }
}
