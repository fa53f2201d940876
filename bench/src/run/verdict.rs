//! Who serves the most requests in a section, and how far that is certain.
//!
//! The summary compares each arm with the reference alone. Two others are told apart here only where
//! their intervals against the reference do not meet, which claims less than a comparison of the two
//! would; whatever is not told apart is a tie.

use crate::render::units;
use crate::results::ConditionKey;
use crate::run::tables::{Line, bound};
use crate::stats::Verdict;

const THROUGHPUT: &str = "throughput_per_second";

/// What can be said about the arms of a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The first arm is ahead of all others, or those named share the lead.
    Decided,
    /// There are too few blocks for an interval.
    TooFewBlocks,
    /// There is nothing to compare it with.
    Alone,
    /// No arm has served all its clients.
    Nobody,
}

/// The arms of one section, compared.
pub(super) struct Standing<'a> {
    pub(super) section: ConditionKey,
    pub(super) outcome: Outcome,
    /// The arms in the lead; with [`Outcome::TooFewBlocks`] all that were compared.
    pub(super) leaders: Vec<&'a str>,
    /// The arms left out, and why.
    pub(super) left_out: Vec<(&'a str, &'static str)>,
    /// All its arms.
    pub(super) arms: Vec<Arm<'a>>,
}

/// An arm in a section.
pub(super) struct Arm<'a> {
    pub(super) name: &'a str,
    /// The arm that the ratio refers to; none for that arm itself.
    pub(super) reference: Option<&'a str>,
    pub(super) ratio: Option<f64>,
    pub(super) verdict: Option<Verdict>,
    /// The ratio with its interval, as in the tables.
    pub(super) ratio_text: String,
    /// Clients that were never answered.
    pub(super) starved: u64,
    /// Why it cannot lead.
    fault: Option<&'static str>,
    interval: Option<(f64, f64)>,
}

impl<'a> Arm<'a> {
    fn of(line: &Line<'a>) -> Self {
        let throughput = line.metric(THROUGHPUT);
        let row = throughput.filter(|row| row.estimate.is_some());
        let failed = line.estimate("failed_requests").unwrap_or(0.0);
        let fault = if row.is_none() {
            Some("failed")
        } else if line.starved() > 0 {
            Some("left clients without an answer")
        } else if failed > 0.0 {
            Some("had errors")
        } else {
            None
        };
        let reference = throughput.and_then(|row| row.reference.as_deref());
        let interval = match reference {
            None => Some((1.0, 1.0)),
            Some(_) => row.and_then(|row| row.ratio_low.zip(row.ratio_high)),
        };
        Arm {
            name: &line.first().model,
            reference,
            ratio: match reference {
                None => row.map(|_| 1.0),
                Some(_) => row.and_then(|row| row.ratio),
            },
            verdict: row.and_then(|row| row.verdict),
            ratio_text: line.ratio(),
            starved: line.starved(),
            fault,
            interval,
        }
    }

    /// Whether it is known to be ahead of another.
    fn beats(&self, other: &Arm<'_>) -> bool {
        match (self.interval, other.interval) {
            (Some((low, _)), Some((_, high))) => low > high,
            _ => false,
        }
    }
}

impl<'a> Standing<'a> {
    /// The arms of one section, of a closed loop.
    pub(super) fn of(lines: &[&Line<'a>]) -> Self {
        let arms: Vec<Arm<'a>> = lines.iter().map(|line| Arm::of(line)).collect();
        let (outcome, leaders) = lead(&arms);
        let faults = arms.iter().filter_map(|arm| Some((arm.name, arm.fault?)));
        let mut left_out: Vec<_> = faults.collect();
        left_out.sort_by_key(|(_, fault)| *fault);
        Standing {
            section: lines[0].first().condition(),
            outcome,
            leaders,
            left_out,
            arms,
        }
    }

    /// Whether another section came to the same.
    pub(super) fn agrees(&self, other: &Standing<'_>) -> bool {
        self.outcome == other.outcome
            && self.leaders == other.leaders
            && self.left_out == other.left_out
    }

    /// How far ahead the winner is: against the reference, or the next one against it.
    pub(super) fn margin(&self) -> Option<String> {
        let ([leader], Outcome::Decided) = (&self.leaders[..], self.outcome) else {
            return None;
        };
        let winner = self.arms.iter().find(|arm| arm.name == *leader)?;
        if let Some(reference) = winner.reference {
            return Some(format!("{}× {reference}", bound(winner.ratio?)));
        }
        let others = self
            .arms
            .iter()
            .filter(|arm| arm.fault.is_none() && arm.reference.is_some());
        let next = others.max_by(|a, b| {
            a.ratio
                .partial_cmp(&b.ratio)
                .unwrap_or(std::cmp::Ordering::Equal)
        })?;
        Some(format!("next {}×", bound(next.ratio?)))
    }

    /// All ratios, a line each.
    pub(super) fn details(&self) -> String {
        let lines: Vec<String> = self
            .arms
            .iter()
            .map(|arm| {
                let fault = arm
                    .fault
                    .map(|fault| format!(" ({fault})"))
                    .unwrap_or_default();
                format!("{}: {}{fault}", arm.name, arm.ratio_text)
            })
            .collect();
        lines.join("\n")
    }
}

fn lead<'a>(arms: &[Arm<'a>]) -> (Outcome, Vec<&'a str>) {
    let fit: Vec<&Arm<'_>> = arms
        .iter()
        .filter(|arm| arm.fault.is_none() && arm.ratio.is_some())
        .collect();
    let best = fit
        .iter()
        .max_by(|a, b| a.ratio.unwrap_or(0.0).total_cmp(&b.ratio.unwrap_or(0.0)));
    let names = || {
        arms.iter()
            .filter(|arm| fit.iter().any(|other| other.name == arm.name))
    };
    match best {
        None => (Outcome::Nobody, Vec::new()),
        Some(best) if fit.len() == 1 => (Outcome::Alone, vec![named(arms, best.name)]),
        Some(_) if fit.iter().any(|arm| arm.interval.is_none()) => {
            (Outcome::TooFewBlocks, names().map(|arm| arm.name).collect())
        }
        Some(best) => {
            let level = names().filter(|arm| !best.beats(arm));
            (Outcome::Decided, level.map(|arm| arm.name).collect())
        }
    }
}

fn named<'a>(arms: &[Arm<'a>], name: &str) -> &'a str {
    let arm = arms.iter().find(|arm| arm.name == name);
    arm.map_or("", |arm| arm.name)
}

/// The arm of each section that is compared, scenario by scenario: `` `thread` at 1 and 8 clients ``.
pub(super) fn lead_sentence(group: &[Standing<'_>]) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut from = 0;
    while from < group.len() {
        let same = group[from..]
            .iter()
            .take_while(|other| group[from].agrees(other))
            .count();
        let first = &group[from];
        let at = clients(&group[from..from + same].iter().collect::<Vec<_>>());
        let leaders = listed(&first.leaders);
        let mut part = match first.outcome {
            Outcome::Decided if first.leaders.len() == 1 => format!("{leaders} at {at}"),
            Outcome::Decided => format!("{leaders} alike at {at}"),
            Outcome::TooFewBlocks => format!("too few blocks to say at {at}"),
            Outcome::Alone => format!("nothing to compare {leaders} with at {at}"),
            Outcome::Nobody => format!("no arm without faults at {at}"),
        };
        for group in first.left_out.chunk_by(|a, b| a.1 == b.1) {
            let arms: Vec<&str> = group.iter().map(|(arm, _)| *arm).collect();
            part = format!(
                "{part}, leaving out {}, which {}",
                listed(&arms),
                group[0].1
            );
        }
        parts.push(part);
        from += same;
    }
    format!("Most requests served: {}.", parts.join("; "))
}

/// One sentence for each arm but the reference, over all sections of a group.
pub(super) fn arm_sentences(group: &[Standing<'_>]) -> Vec<String> {
    let mut names: Vec<&str> = Vec::new();
    for arm in group.iter().flat_map(|standing| &standing.arms) {
        if arm.reference.is_some() && !names.contains(&arm.name) {
            names.push(arm.name);
        }
    }
    names
        .into_iter()
        .map(|name| arm_sentence(group, name))
        .collect()
}

fn arm_sentence(group: &[Standing<'_>], name: &str) -> String {
    let (mut resolved, mut alike, mut few, mut failed) = (vec![], vec![], vec![], vec![]);
    let mut against = "";
    for standing in group {
        let Some(arm) = standing.arms.iter().find(|arm| arm.name == name) else {
            continue;
        };
        against = arm.reference.unwrap_or(against);
        match arm.verdict {
            Some(Verdict::Higher | Verdict::Lower) => resolved.push((standing, arm)),
            Some(Verdict::Unresolved) => alike.push(standing),
            Some(Verdict::TooFewBlocks) => few.push(standing),
            None => failed.push(standing),
        }
    }
    let mut parts: Vec<String> = Vec::new();
    for (index, (standing, arm)) in resolved.iter().enumerate() {
        let number = units::count(u64::from(standing.section.clients));
        let ratio = arm.ratio_text.replacen(" [", "× [", 1);
        let mut part = if index == 0 {
            format!(
                "serves {ratio} the requests of `{against}` at {}",
                clients(&[standing])
            )
        } else {
            format!("{ratio} at {number}")
        };
        if arm.starved > 0 {
            part = format!(
                "{part} but never answers {} of them",
                units::count(arm.starved)
            );
        }
        parts.push(part);
    }
    let sentence = parts.join(", ");
    let rest = [
        (alike, format!("no difference from `{against}` resolved at")),
        (few, "too few blocks to tell at".to_owned()),
        (failed, "no value at".to_owned()),
    ];
    let rest = rest
        .into_iter()
        .filter(|(standings, _)| !standings.is_empty())
        .map(|(standings, text)| format!("{text} {}", clients(&standings)));
    let all: Vec<String> = std::iter::once(sentence)
        .filter(|part| !part.is_empty())
        .chain(rest)
        .collect();
    let all = all.join("; ");
    let colon = if all.starts_with("serves") { "" } else { ":" };
    format!("`{name}`{colon} {all}.")
}

/// `1, 8 and 64 clients`.
fn clients(standings: &[&Standing<'_>]) -> String {
    let counts = standings
        .iter()
        .map(|standing| u64::from(standing.section.clients));
    let texts: Vec<String> = counts.clone().map(units::count).collect();
    let word = if counts.max() == Some(1) {
        "client"
    } else {
        "clients"
    };
    format!("{} {word}", joined(&texts))
}

fn listed(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    joined(&quoted)
}

fn joined(parts: &[String]) -> String {
    match parts {
        [] => String::new(),
        [one] => one.clone(),
        [before @ .., last] => format!("{} and {last}", before.join(", ")),
    }
}
