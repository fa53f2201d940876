//! Ranking of the arms under a condition by throughput, and sentences that state it.
//!
//! The summary compares each arm with the reference alone. Two other arms are told apart only where their
//! intervals against the reference do not overlap, which is stricter than a comparison of the two would be;
//! arms that are not told apart tie.

use super::charts::place;
use super::scenario_report::{ArmLine, ScenarioReport, THROUGHPUT, ratio_from_one};
use crate::render::units;
use crate::results::ordered::{distinct, entry};
use crate::results::{ConditionKey, Metric};
use crate::stats::RatioVerdict;

/// Kind of a ranking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RankingKind {
    /// One arm leads, or several tie for the lead.
    Decided,
    /// There are too few blocks for an interval.
    TooFewBlocks,
    /// Only one arm is without faults.
    SingleArm,
    /// No arm is without faults.
    NoArm,
}

/// The arms under one condition, ranked.
pub(super) struct Ranking<'a> {
    pub(super) condition: ConditionKey,
    pub(super) kind: RankingKind,
    /// The leading arms; with [`RankingKind::TooFewBlocks`] all that were compared.
    pub(super) leaders: Vec<&'a str>,
    /// The arms left out, each with its fault.
    left_out: Vec<(&'a str, &'static str)>,
    /// All arms.
    arms: Vec<RankedArm<'a>>,
}

/// An arm of a ranking.
struct RankedArm<'a> {
    name: &'a str,
    /// The arm that the ratio refers to; none for the reference itself.
    reference: Option<&'a str>,
    ratio: Option<f64>,
    verdict: Option<RatioVerdict>,
    /// The ratio with its interval, as in the tables.
    ratio_text: String,
    /// Clients that were never answered.
    starved: u64,
    /// The fault that keeps the arm from leading.
    fault: Option<&'static str>,
    interval: Option<(f64, f64)>,
}

impl<'a> RankedArm<'a> {
    fn new(line: &ArmLine<'a>) -> Self {
        let throughput = line.metric(THROUGHPUT);
        let row = throughput.filter(|row| row.estimate.is_some());

        let failed = line.estimate(Metric::FailedRequests).unwrap_or(0.0);
        let fault = if row.is_none() {
            Some("failed")
        } else if row.is_some_and(|row| row.estimate == Some(0.0)) {
            Some("served nothing in most slices")
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
        RankedArm {
            name: line.model(),
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

    /// Whether the intervals show it ahead of another.
    fn is_ahead_of(&self, other: &RankedArm<'_>) -> bool {
        match (self.interval, other.interval) {
            (Some((low, _)), Some((_, high))) => low > high,
            _ => false,
        }
    }
}

impl<'a> Ranking<'a> {
    /// The ranking of the arms of a closed loop under one condition.
    pub(super) fn new(lines: &[&ArmLine<'a>]) -> Self {
        let arms: Vec<RankedArm<'a>> = lines.iter().map(|line| RankedArm::new(line)).collect();
        let (kind, leaders) = lead(&arms);
        let faults = arms.iter().filter_map(|arm| Some((arm.name, arm.fault?)));
        let mut left_out: Vec<_> = faults.collect();
        left_out.sort_by_key(|(_, fault)| *fault);

        Ranking {
            condition: lines[0].condition(),
            kind,
            leaders,
            left_out,
            arms,
        }
    }

    /// Whether another condition has the same leaders and the same arms left out.
    fn agrees(&self, other: &Ranking<'_>) -> bool {
        self.kind == other.kind && self.leaders == other.leaders && self.left_out == other.left_out
    }

    /// Lead of a single winner: its ratio to the reference, or that of the next arm to it.
    pub(super) fn margin(&self) -> Option<String> {
        let ([leader], RankingKind::Decided) = (&self.leaders[..], self.kind) else {
            return None;
        };
        let winner = self.arms.iter().find(|arm| arm.name == *leader)?;
        if let Some(reference) = winner.reference {
            return Some(format!("{}× {reference}", ratio_from_one(winner.ratio?)));
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
        Some(format!("next {}×", ratio_from_one(next.ratio?)))
    }

    /// All ratios, a line each.
    pub(super) fn details(&self) -> String {
        let line = |arm: &RankedArm<'_>| {
            let fault = arm
                .fault
                .map(|fault| format!(" ({fault})"))
                .unwrap_or_default();
            format!("{}: {}{fault}", arm.name, arm.ratio_text)
        };
        let lines: Vec<String> = self.arms.iter().map(line).collect();
        lines.join("\n")
    }
}

/// Rankings with one driver, placement and traffic, under a name for all of them.
pub(super) type RankingGroup<'a> = (String, Vec<Ranking<'a>>);

/// A heading, and sentences below it.
pub(super) type Verdict = (String, Vec<String>);

impl<'a> ScenarioReport<'a> {
    /// The ranking under each condition with a closed loop.
    pub(super) fn rankings(&self) -> Vec<Ranking<'a>> {
        let mut conditions: Vec<(ConditionKey, Vec<&ArmLine<'a>>)> = Vec::new();
        let closed = |line: &&ArmLine<'_>| line.first().load_percent.is_none();
        for line in self.lines.iter().filter(closed) {
            entry(&mut conditions, line.condition()).push(line);
        }
        let of_lines = |(_, lines): &(_, Vec<&ArmLine<'a>>)| Ranking::new(lines);
        conditions.iter().map(of_lines).collect()
    }

    /// Rankings of the closed loops, by driver, placement and traffic.
    pub(super) fn groups(&self) -> Vec<RankingGroup<'a>> {
        let mut groups: Vec<RankingGroup<'a>> = Vec::new();
        for ranking in self.rankings() {
            entry(&mut groups, place(&ranking.condition)).push(ranking);
        }
        groups
    }

    /// The verdict on each group, and on what the lead depends on.
    pub(super) fn verdicts(&self, groups: &[RankingGroup<'_>]) -> Vec<Verdict> {
        let mut verdicts: Vec<Verdict> = groups.iter().map(group_verdict).collect();
        let dependence = self.dependence_sentences();
        if !dependence.is_empty() {
            verdicts.push(("What the lead depends on".to_owned(), dependence));
        }
        verdicts
    }

    /// The verdict in a few lines: sentences on the loads with the first driver and placement, on what the lead
    /// depends on, and on how many rows can be trusted. Empty without a closed loop.
    pub(super) fn in_short(&self) -> Vec<String> {
        let groups = self.groups();
        let Some((_, first)) = groups.first() else {
            return Vec::new();
        };

        let driver_and_placement = |rankings: &[Ranking<'_>]| {
            let condition = &rankings[0].condition;
            (condition.driver, condition.placement)
        };
        let headline = driver_and_placement(first);
        let mut lines = Vec::new();
        for group in &groups {
            if driver_and_placement(&group.1) == headline {
                let (heading, sentences) = group_verdict(group);
                lines.push(format!("{}, {}:", self.name, heading.replacen('C', "c", 1)));
                lines.extend(sentences.iter().map(|sentence| format!("- {sentence}")));
            }
        }

        let rest = self
            .dependence_sentences()
            .into_iter()
            .chain([self.trust()]);
        lines.extend(rest.map(|sentence| format!("- {sentence}")));
        lines
    }

    /// A sentence on the share of rows that something other than the server limited or disturbed.
    fn trust(&self) -> String {
        let rows = self.blocks.iter().filter(|row| row.is_ok());
        let count = rows.clone().count();
        match rows.filter(|row| !row.validity.is_valid()).count() {
            0 => "Every row is valid.".to_owned(),
            invalid => format!(
                "{invalid} of {} are not valid, see above.",
                units::plural(count, "row")
            ),
        }
    }
}

fn group_verdict((name, rankings): &RankingGroup<'_>) -> Verdict {
    let lead = std::iter::once(lead_sentence(rankings));
    let sentences = lead.chain(arm_sentences(rankings)).collect();
    (format!("Clients as {name}"), sentences)
}

/// The leaders among the arms without faults.
fn lead<'a>(arms: &[RankedArm<'a>]) -> (RankingKind, Vec<&'a str>) {
    let fit: Vec<&RankedArm<'a>> = arms
        .iter()
        .filter(|arm| arm.fault.is_none() && arm.ratio.is_some())
        .collect();
    let best = fit
        .iter()
        .max_by(|a, b| a.ratio.unwrap_or(0.0).total_cmp(&b.ratio.unwrap_or(0.0)));

    match best {
        None => (RankingKind::NoArm, Vec::new()),
        Some(best) if fit.len() == 1 => (RankingKind::SingleArm, vec![best.name]),
        Some(_) if fit.iter().any(|arm| arm.interval.is_none()) => (
            RankingKind::TooFewBlocks,
            fit.iter().map(|arm| arm.name).collect(),
        ),
        Some(best) => {
            let tied = fit.iter().filter(|arm| !best.is_ahead_of(arm));
            (RankingKind::Decided, tied.map(|arm| arm.name).collect())
        }
    }
}

/// A sentence on the leaders under each condition: "Most requests served: `thread` at 1 and 8 clients".
pub(super) fn lead_sentence(group: &[Ranking<'_>]) -> String {
    let parts: Vec<String> = group
        .chunk_by(Ranking::agrees)
        .map(|alike| {
            let first = &alike[0];
            let at = clients(&alike.iter().collect::<Vec<_>>());
            let leaders = listed(&first.leaders);
            let mut part = match first.kind {
                RankingKind::Decided if first.leaders.len() == 1 => format!("{leaders} at {at}"),
                RankingKind::Decided => format!("{leaders} alike at {at}"),
                RankingKind::TooFewBlocks => format!("too few blocks to say at {at}"),
                RankingKind::SingleArm => format!("nothing to compare {leaders} with at {at}"),
                RankingKind::NoArm => format!("no arm without faults at {at}"),
            };

            for group in first.left_out.chunk_by(|a, b| a.1 == b.1) {
                let arms: Vec<&str> = group.iter().map(|(arm, _)| *arm).collect();
                part = format!(
                    "{part}, leaving out {}, which {}",
                    listed(&arms),
                    group[0].1
                );
            }
            part
        })
        .collect();
    format!("Most requests served: {}.", parts.join("; "))
}

/// A sentence on each arm but the reference, over all conditions of a group.
pub(super) fn arm_sentences(group: &[Ranking<'_>]) -> Vec<String> {
    let arms = group.iter().flat_map(|ranking| &ranking.arms);
    let compared = arms.filter(|arm| arm.reference.is_some());
    distinct(compared.map(|arm| arm.name))
        .into_iter()
        .map(|name| arm_sentence(group, name))
        .collect()
}

fn arm_sentence(group: &[Ranking<'_>], name: &str) -> String {
    let (mut resolved, mut alike, mut few, mut failed) = (vec![], vec![], vec![], vec![]);
    let mut reference = "";
    for ranking in group {
        let Some(arm) = ranking.arms.iter().find(|arm| arm.name == name) else {
            continue;
        };
        reference = arm.reference.unwrap_or(reference);
        match arm.verdict {
            Some(RatioVerdict::Higher | RatioVerdict::Lower) => resolved.push((ranking, arm)),
            Some(RatioVerdict::Unresolved) => alike.push(ranking),
            Some(RatioVerdict::TooFewBlocks) => few.push(ranking),
            None => failed.push(ranking),
        }
    }

    let unresolved = [
        (
            alike,
            format!("no difference from `{reference}` resolved at"),
        ),
        (few, "too few blocks to tell at".to_owned()),
        (failed, "no value at".to_owned()),
    ];
    let unresolved = unresolved
        .into_iter()
        .filter(|(rankings, _)| !rankings.is_empty())
        .map(|(rankings, text)| format!("{text} {}", clients(&rankings)));

    let ratios = resolved_ratios(&resolved, reference);
    let parts: Vec<String> = std::iter::once(ratios)
        .filter(|part| !part.is_empty())
        .chain(unresolved)
        .collect();
    let colon = if resolved.is_empty() { ":" } else { "" };
    format!("`{name}`{colon} {}.", parts.join("; "))
}

/// The resolved ratios of an arm: "serves 1.2× [1.1, 1.3] the requests of `thread` at 8 clients, …".
fn resolved_ratios(resolved: &[(&Ranking<'_>, &RankedArm<'_>)], reference: &str) -> String {
    let mut parts: Vec<String> = Vec::new();
    for (index, (ranking, arm)) in resolved.iter().enumerate() {
        let ratio = arm.ratio_text.replacen(" [", "× [", 1);
        let mut part = if index == 0 {
            format!(
                "serves {ratio} the requests of `{reference}` at {}",
                clients(&[ranking])
            )
        } else {
            let number = units::count(u64::from(ranking.condition.clients));
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
    parts.join(", ")
}

/// `1, 8 and 64 clients`.
fn clients(rankings: &[&Ranking<'_>]) -> String {
    let counts = rankings
        .iter()
        .map(|ranking| u64::from(ranking.condition.clients));
    let texts: Vec<String> = counts.clone().map(units::count).collect();
    let word = if counts.max() == Some(1) {
        "client"
    } else {
        "clients"
    };
    format!("{} {word}", joined(&texts))
}

pub(super) fn listed(names: &[&str]) -> String {
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
