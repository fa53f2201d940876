//! Ranking of the arms under a condition, and sentences that state it: by throughput, or where the rate is given by
//! latency and cost.
//!
//! The summary compares each arm with the reference alone. Two other arms are told apart only where their
//! intervals against the reference do not overlap, which is stricter than a comparison of the two would be;
//! arms that are not told apart tie.

use super::charts::place;
use super::scenario_report::{ArmLine, Load, ScenarioReport, THROUGHPUT, ratio_from_one};
use super::slo::SloVerdict;
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

/// Measure by which arms are ranked, with its words.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Measure {
    pub(super) metric: Metric,
    /// Whether the arm with the lowest value leads.
    lowest_leads: bool,
    /// Name of the ratios in a heading.
    pub(super) name: &'static str,
    /// Words before the leaders.
    lead: &'static str,
    /// Words before and after a ratio.
    ratio: (&'static str, &'static str),
}

/// The ranking of a closed loop.
const SERVED: Measure = Measure {
    metric: THROUGHPUT,
    lowest_leads: false,
    name: "throughput",
    lead: "Most requests served",
    ratio: ("serves", "the requests of"),
};

/// The rankings of an open loop; the first one counts where there is room for one only.
const AT_A_RATE: [Measure; 2] = [
    Measure {
        metric: Metric::LatencyP99,
        lowest_leads: true,
        name: "p99",
        lead: "Lowest p99",
        ratio: ("has", "the p99 of"),
    },
    Measure {
        metric: Metric::CpuPerRequest,
        lowest_leads: true,
        name: "CPU time per request",
        lead: "Least CPU time per request",
        ratio: ("takes", "the CPU time per request of"),
    },
];

/// The measures of a kind of load.
fn measures(load: Load) -> &'static [Measure] {
    match load {
        Load::Closed => std::slice::from_ref(&SERVED),
        Load::Open | Load::Swept | Load::Step => &AT_A_RATE,
    }
}

/// The arms under one condition, ranked.
pub(super) struct Ranking<'a> {
    pub(super) condition: ConditionKey,
    pub(super) measure: &'static Measure,
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
    fn new(line: &ArmLine<'a>, measure: &Measure) -> Self {
        let row = line.metric(measure.metric);
        let reference = row.and_then(|row| row.reference.as_deref());
        let row = row.filter(|row| row.estimate.is_some());

        let throughput = line.estimate(THROUGHPUT);
        let failed = line.estimate(Metric::FailedRequests).unwrap_or(0.0);
        let fault = if throughput.is_none() {
            Some("failed")
        } else if throughput == Some(0.0) {
            Some("served nothing in most slices")
        } else if line.starved() > 0 {
            Some("left clients without an answer")
        } else if failed > 0.0 {
            Some("had errors")
        } else {
            None
        };

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
            ratio_text: line.ratio(measure.metric),
            starved: line.starved(),
            fault,
            interval,
        }
    }

    /// Whether the intervals show it ahead of another.
    fn is_ahead_of(&self, other: &RankedArm<'_>, measure: &Measure) -> bool {
        match (self.interval, other.interval) {
            (Some((_, high)), Some((low, _))) if measure.lowest_leads => high < low,
            (Some((low, _)), Some((_, high))) => low > high,
            _ => false,
        }
    }
}

impl<'a> Ranking<'a> {
    /// The ranking of the arms under one condition.
    pub(super) fn new(lines: &[&ArmLine<'a>], measure: &'static Measure) -> Self {
        let arms = lines.iter().map(|line| RankedArm::new(line, measure));
        let arms: Vec<RankedArm<'a>> = arms.collect();
        let (kind, leaders) = lead(&arms, measure);
        let faults = arms.iter().filter_map(|arm| Some((arm.name, arm.fault?)));
        let mut left_out: Vec<_> = faults.collect();
        left_out.sort_by_key(|(_, fault)| *fault);

        Ranking {
            condition: lines[0].condition(),
            measure,
            kind,
            leaders,
            left_out,
            arms,
        }
    }

    /// Whether it is one by throughput.
    pub(super) fn is_by_throughput(&self) -> bool {
        self.measure.metric == THROUGHPUT
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
        let ratios = others.filter_map(|arm| arm.ratio);
        let next = best(ratios, self.measure, |ratio| *ratio)?;
        Some(format!("next {}×", ratio_from_one(next)))
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
    /// The rankings under each condition with a load of its own, by every measure of that load.
    fn all_rankings(&self) -> Vec<Ranking<'a>> {
        let mut conditions: Vec<(ConditionKey, Vec<&ArmLine<'a>>)> = Vec::new();
        // The closed loops of a search only find where it begins.
        let own = |line: &&ArmLine<'_>| match line.load() {
            Load::Closed => !self.is_search(),
            Load::Open => true,
            Load::Swept | Load::Step => false,
        };
        for line in self.lines.iter().filter(own) {
            entry(&mut conditions, line.condition()).push(line);
        }
        let of_lines = |(_, lines): &(ConditionKey, Vec<&ArmLine<'a>>)| {
            let measures = measures(lines[0].load()).iter();
            let rankings = measures.map(|measure| Ranking::new(lines, measure));
            rankings.collect::<Vec<_>>()
        };
        conditions.iter().flat_map(of_lines).collect()
    }

    /// The ranking under each condition, by the first measure of its load.
    pub(super) fn rankings(&self) -> Vec<Ranking<'a>> {
        let mut rankings = self.all_rankings();
        rankings.retain(|ranking| ranking.is_by_throughput() || *ranking.measure == AT_A_RATE[0]);
        rankings
    }

    /// Rankings by driver, placement and traffic.
    pub(super) fn groups(&self) -> Vec<RankingGroup<'a>> {
        let mut groups: Vec<RankingGroup<'a>> = Vec::new();
        for ranking in self.all_rankings() {
            entry(&mut groups, place(&ranking.condition)).push(ranking);
        }
        groups
    }

    /// The verdict on each group, and on what the lead depends on.
    pub(super) fn verdicts(&self, groups: &[RankingGroup<'_>]) -> Vec<Verdict> {
        let verdict = |group| self.group_verdict(group);
        let mut verdicts: Vec<Verdict> = groups.iter().map(verdict).collect();
        let dependence = self.dependence_sentences();
        let capacities = self.capacity_sentences();
        if !capacities.is_empty() {
            verdicts.push(("Capacity".to_owned(), capacities));
        }
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
            return self.search_in_short();
        };

        let driver_and_placement = |rankings: &[Ranking<'_>]| {
            let condition = &rankings[0].condition;
            (condition.driver, condition.placement)
        };
        let headline = driver_and_placement(first);
        let mut lines = Vec::new();
        for group in &groups {
            if driver_and_placement(&group.1) == headline {
                let (heading, sentences) = self.group_verdict(group);
                lines.push(format!("{}, {}:", self.name, heading.replacen('C', "c", 1)));
                lines.extend(sentences.iter().map(|sentence| format!("- {sentence}")));
            }
        }

        let dependence = self.dependence_sentences();
        lines.extend(dependence.iter().map(|sentence| format!("- {sentence}")));
        self.add_trust(&mut lines);
        lines
    }

    fn group_verdict(&self, (name, rankings): &RankingGroup<'a>) -> Verdict {
        let mut sentences = Vec::new();
        let by_measure = rankings.iter().map(|ranking| ranking.measure);
        for measure in distinct(by_measure.map(|measure| measure.lead)) {
            let own = rankings
                .iter()
                .filter(|ranking| ranking.measure.lead == measure);
            let own: Vec<&Ranking<'_>> = own.collect();
            sentences.push(lead_sentence(&own));
            sentences.extend(arm_sentences(&own));
        }
        sentences.extend(self.slo_sentences(rankings));
        (format!("Clients as {name}"), sentences)
    }

    /// A sentence for each number of clients on the arms that keep the objective and those that do not.
    fn slo_sentences(&self, rankings: &[Ranking<'_>]) -> Vec<String> {
        let Some(slo) = self.slo else {
            return Vec::new();
        };
        let conditions = distinct(rankings.iter().map(|ranking| ranking.condition.clone()));
        let sentence = |condition: &ConditionKey| {
            let own = |line: &&ArmLine<'_>| {
                let is_own = line.load() == Load::Open && line.condition() == *condition;
                is_own && !self.is_skipped(line)
            };
            let mut arms: Vec<(SloVerdict, Vec<&str>)> = Vec::new();
            for line in self.lines.iter().filter(own) {
                entry(&mut arms, self.judge(slo, line).verdict).push(line.model());
            }
            arms.sort_by_key(|(verdict, _)| *verdict);
            let parts = arms.iter();
            let parts: Vec<String> = parts
                .map(|(verdict, arms)| {
                    let word = match verdict {
                        SloVerdict::Kept | SloVerdict::Missed => "by",
                        SloVerdict::Unresolved | SloVerdict::NotJudged => "for",
                    };
                    format!("{} {word} {}", verdict.words(), listed(arms))
                })
                .collect();
            let clients = units::plural(condition.clients as usize, "client");
            (!parts.is_empty()).then(|| format!("{slo} at {clients}: {}.", parts.join("; ")))
        };
        conditions.iter().filter_map(sentence).collect()
    }

    /// The verdict of a search in a few lines; empty without one.
    fn search_in_short(&self) -> Vec<String> {
        let capacities = self.capacity_sentences();
        if capacities.is_empty() {
            return Vec::new();
        }
        let mut lines = vec![format!("{}:", self.name)];
        lines.extend(capacities.iter().map(|sentence| format!("- {sentence}")));
        self.add_trust(&mut lines);
        lines
    }

    /// Adds a sentence on the share of rows that something other than the server limited or disturbed: below the
    /// heading if they are most of them, so that nobody reads the verdict without it; else at the end.
    fn add_trust(&self, lines: &mut Vec<String>) {
        let rows = self.blocks.iter().filter(|row| row.is_ok());
        let count = rows.clone().count();
        let invalid = rows.filter(|row| !row.validity.is_valid()).count();
        let verb = if invalid == 1 { "is" } else { "are" };
        let share = format!(
            "{invalid} of {} {verb} not valid, see above.",
            units::plural(count, "row")
        );

        if invalid * 2 > count {
            lines.insert(1, format!("- Do not rely on this: {share}"));
        } else if invalid > 0 {
            lines.push(format!("- {share}"));
        } else {
            lines.push("- Every row is valid.".to_owned());
        }
    }
}

/// The best of several by a value that is given to each.
fn best<T>(
    items: impl Iterator<Item = T>,
    measure: &Measure,
    value: impl Fn(&T) -> f64,
) -> Option<T> {
    items.min_by(|a, b| {
        let order = value(a).total_cmp(&value(b));
        if measure.lowest_leads {
            order
        } else {
            order.reverse()
        }
    })
}

/// The leaders among the arms without faults.
fn lead<'a>(arms: &[RankedArm<'a>], measure: &Measure) -> (RankingKind, Vec<&'a str>) {
    let fit: Vec<&RankedArm<'a>> = arms
        .iter()
        .filter(|arm| arm.fault.is_none() && arm.ratio.is_some())
        .collect();
    let first = best(fit.iter(), measure, |arm| arm.ratio.unwrap_or(0.0));

    match first {
        None => (RankingKind::NoArm, Vec::new()),
        Some(best) if fit.len() == 1 => (RankingKind::SingleArm, vec![best.name]),
        Some(_) if fit.iter().any(|arm| arm.interval.is_none()) => (
            RankingKind::TooFewBlocks,
            fit.iter().map(|arm| arm.name).collect(),
        ),
        Some(best) => {
            let tied = fit.iter().filter(|arm| !best.is_ahead_of(arm, measure));
            (RankingKind::Decided, tied.map(|arm| arm.name).collect())
        }
    }
}

/// A sentence on the leaders under each condition: "Most requests served: `thread` at 1 and 8 clients".
fn lead_sentence(group: &[&Ranking<'_>]) -> String {
    let parts: Vec<String> = group
        .chunk_by(|a, b| a.agrees(b))
        .map(|alike| {
            let first = alike[0];
            let at = clients(alike);
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
    format!("{}: {}.", group[0].measure.lead, parts.join("; "))
}

/// A sentence on each arm but the reference, over all conditions of a group.
fn arm_sentences(group: &[&Ranking<'_>]) -> Vec<String> {
    let arms = group.iter().flat_map(|ranking| &ranking.arms);
    let compared = arms.filter(|arm| arm.reference.is_some());
    distinct(compared.map(|arm| arm.name))
        .into_iter()
        .map(|name| arm_sentence(group, name))
        .collect()
}

fn arm_sentence(group: &[&Ranking<'_>], name: &str) -> String {
    let (mut resolved, mut alike, mut few, mut failed) = (vec![], vec![], vec![], vec![]);
    let mut reference = "";
    for &ranking in group {
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

    let ratios = resolved_ratios(&resolved, reference, group[0].measure);
    let parts: Vec<String> = std::iter::once(ratios)
        .filter(|part| !part.is_empty())
        .chain(unresolved)
        .collect();
    let colon = if resolved.is_empty() { ":" } else { "" };
    format!("`{name}`{colon} {}.", parts.join("; "))
}

/// The resolved ratios of an arm: "serves 1.2× [1.1, 1.3] the requests of `thread` at 8 clients, …".
fn resolved_ratios(
    resolved: &[(&Ranking<'_>, &RankedArm<'_>)],
    reference: &str,
    measure: &Measure,
) -> String {
    let (before, after) = measure.ratio;
    let mut parts: Vec<String> = Vec::new();
    for (index, (ranking, arm)) in resolved.iter().enumerate() {
        let ratio = arm.ratio_text.replacen(" [", "× [", 1);
        let mut part = if index == 0 {
            format!(
                "{before} {ratio} {after} `{reference}` at {}",
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::Style;
    use crate::results::summary::summarize;
    use crate::results::{BlockRow, SliceRow};
    use crate::run::tables::tables;
    use crate::scenario::{View, Views};

    /// Ten blocks of three arms at a rate, each with its p99 and its CPU time per request in microseconds.
    fn at_a_rate(arms: &[(&str, f64, f64)], view: View) -> String {
        let (mut slices, mut blocks) = (Vec::new(), Vec::new());
        for block in 1..=10 {
            for (model, p99_us, cpu_us) in arms {
                let noise = 1.0 + 0.001 * f64::from(block);
                let ns = |us: f64| units::to_count(us * 1e3 * noise);
                slices.push(SliceRow {
                    scenario: "custom".to_owned(),
                    clients: 64,
                    model: (*model).to_owned(),
                    block,
                    planned: 500,
                    answered: 500,
                    replies: 500,
                    throughput_per_second: 5000.0,
                    latency_p50_ns: Some(ns(100.0)),
                    latency_p99_ns: Some(ns(*p99_us)),
                    ..SliceRow::default()
                });
                blocks.push(BlockRow {
                    scenario: "custom".to_owned(),
                    clients: 64,
                    model: (*model).to_owned(),
                    block,
                    rate_per_second: Some(5000.0),
                    planned: 500,
                    answered: 500,
                    throughput_per_second: Some(5000.0),
                    latency_p50_ns: Some(ns(100.0)),
                    latency_p99_ns: Some(ns(*p99_us)),
                    cpu_ns_per_request: Some(cpu_us * 1e3 * noise),
                    ..BlockRow::default()
                });
            }
        }
        let views = Views::new(view, []);
        let summary = summarize(&slices, &blocks, &views);
        tables(&summary, &blocks, Style::Plain, &views)
    }

    const ARMS: [(&str, f64, f64); 3] = [
        ("thread", 2_000.0, 10.0),
        ("async", 1_000.0, 20.0),
        ("fork", 4_000.0, 10.0),
    ];

    #[test]
    fn an_open_loop_is_compared_by_latency_and_cost() {
        let slo = Some("p99=3ms".parse().unwrap());
        let text = at_a_rate(
            &ARMS,
            View {
                slo,
                reference: None,
            },
        );
        for words in [
            "p99 ÷ thread",
            "CPU/req ÷ thread",
            "kept, 10 of 10",
            "missed, 0 of 10",
            "Lowest p99: `async` at 64 clients.",
            "`async` has 0.50× [0.50, 0.50] the p99 of `thread` at 64 clients.",
            "Least CPU time per request: `thread` and `fork` alike at 64 clients.",
            "`async` takes 2.00× [2.00, 2.00] the CPU time per request of `thread` at 64 clients.",
            "p99=3ms at 64 clients: kept by `thread` and `async`; missed by `fork`.",
        ] {
            assert!(text.contains(words), "no '{words}' in:\n{text}");
        }
        // The rate is given: nothing is said about who serves how much.
        for words in ["throughput", "requests served"] {
            assert!(!text.contains(words), "'{words}' in:\n{text}");
        }
    }

    #[test]
    fn ratios_refer_to_the_arm_that_is_chosen() {
        let reference = Some("fork".to_owned());
        let text = at_a_rate(
            &ARMS,
            View {
                slo: None,
                reference,
            },
        );
        assert!(text.contains("p99 ÷ fork"), "{text}");
        let words = "`async` has 0.25× [0.25, 0.25] the p99 of `fork` at 64 clients.";
        assert!(text.contains(words), "{text}");
        assert!(!text.contains("kept"), "{text}");
    }
}
