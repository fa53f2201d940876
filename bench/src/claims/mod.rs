//! Claims of the textbooks: for each an experiment, and a rule, fixed beforehand, that turns its
//! evidence into a verdict.
//!
//! Each file of a group of claims holds their texts, experiments, rules and tests. A rule sees nothing
//! but `Evidence` and decides on ratios, shares and counts, never on times. Its margins are far from
//! the effects that they separate, so that another run comes to the same verdict; whatever lies between
//! them is inconclusive.

mod backlog;
mod evidence;
mod ipc;
mod lab;
pub(crate) mod ledger;
mod memory;
pub(crate) mod page;
mod portability;
mod process_control;
mod rule;
mod service_order;
mod signals;
pub(crate) mod start_order;
mod starts;
pub(crate) mod table;
mod waiting;

use anyhow::bail;

use crate::results::ClaimVerdict;
use evidence::Evidence;
use lab::Lab;

/// Decision of a rule about the evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ruling {
    /// The verdict.
    pub(crate) verdict: ClaimVerdict,
    /// Condition under which the claim holds, a remark on the verdict, or why nothing is decided.
    pub(crate) condition: String,
}

/// One claim, with its experiment and its rule.
pub(crate) struct Claim {
    /// C1 to C15.
    pub(crate) id: &'static str,
    /// The claim, in our words.
    pub(crate) claim: &'static str,
    /// Book and chapter that make it.
    pub(crate) source: &'static str,
    /// Measured quantities.
    pub(crate) metric: &'static str,
    /// The rule, fixed before anything was measured.
    pub(crate) rule: &'static str,
    /// Makes the measurements. To be called on the main thread: processes live as long as the thread
    /// that starts them.
    experiment: fn(&Lab) -> anyhow::Result<Evidence>,
    /// Figures without which nothing is decided: metrics, each with the places that every run has.
    figures: &'static [(&'static str, &'static [&'static str])],
    /// The rule as code, for evidence that has these figures.
    decide: fn(&Evidence) -> Ruling,
}

impl Claim {
    /// Decision about the evidence; inconclusive if a figure is missing, whatever the others say.
    fn ruling(&self, evidence: &Evidence) -> Ruling {
        match evidence.missing(self.figures) {
            Some(reason) => rule::inconclusive(reason),
            None => (self.decide)(evidence),
        }
    }
}

const CHAPTER_5: &str = "Programming Python, 4th ed., ch. 5";
const CHAPTER_12: &str = "Programming Python, 4th ed., ch. 12";
const CHAPTERS: &str = "Programming Python, 4th ed., ch. 5 and 12";
const CHAPTER_30: &str = "UNIX Network Programming, 3rd ed., vol. 1, ch. 30";
const TUTORIAL: &str = "a web tutorial on a socket time server and client";

/// All claims, in the order of every list and table.
pub(crate) const CLAIMS: &[Claim] = &[
    starts::C1,
    memory::C2,
    memory::C3,
    waiting::C4,
    backlog::C5,
    service_order::C6,
    waiting::C7,
    ipc::C8,
    ipc::C9,
    signals::C10,
    signals::C11,
    portability::C12,
    starts::C13,
    process_control::C14,
    process_control::C15,
];

/// The claims with these ids, in the order of [`CLAIMS`]; all of them for no ids.
///
/// Fails for an unknown id, and for one that is named twice.
pub(crate) fn find(ids: &[String]) -> anyhow::Result<Vec<&'static Claim>> {
    for (index, id) in ids.iter().enumerate() {
        if !CLAIMS.iter().any(|claim| claim.id.eq_ignore_ascii_case(id)) {
            let known: Vec<_> = CLAIMS.iter().map(|claim| claim.id).collect();
            bail!("unknown claim '{id}' ({})", known.join(", "));
        }
        if ids[..index]
            .iter()
            .any(|other| other.eq_ignore_ascii_case(id))
        {
            bail!("claim '{id}' is named twice");
        }
    }

    let wanted =
        |claim: &&Claim| ids.is_empty() || ids.iter().any(|id| id.eq_ignore_ascii_case(claim.id));
    Ok(CLAIMS.iter().filter(wanted).collect())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::evidence::Figure;
    use super::*;
    use crate::results::read_claims;

    #[test]
    fn the_ledger_is_numbered_through() {
        for (number, claim) in (1..).zip(CLAIMS) {
            assert_eq!(claim.id, format!("C{number}"));
        }
        let documented = include_str!("../../../docs/claims.md");
        assert_eq!(CLAIMS.len(), documented.matches("\n  Rule: ").count());
    }

    #[test]
    fn no_rule_decides_without_evidence() {
        for claim in CLAIMS {
            let verdict = (claim.decide)(&Evidence::default()).verdict;
            assert_eq!(verdict, ClaimVerdict::Inconclusive, "{}", claim.id);
        }
    }

    /// The claims of a committed ledger, each with its evidence and its ruling there.
    fn committed() -> impl Iterator<Item = (&'static Claim, Evidence, Ruling)> {
        CLAIMS.iter().filter_map(|claim| {
            let (evidence, ruling) = of_ledger(claim)?;
            Some((claim, evidence, ruling))
        })
    }

    /// `None` for a claim that is younger than the ledger.
    fn of_ledger(claim: &Claim) -> Option<(Evidence, Ruling)> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../results/2026-11-29-2790b69-epyc-2cpu-kvm-claims");
        let mut rows = read_claims(&folder).unwrap();
        rows.retain(|row| row.claim == claim.id);

        let first = rows.first()?;
        let ruling = Ruling {
            verdict: first.verdict,
            condition: first.condition.clone(),
        };
        let figures = rows.into_iter().map(|row| Figure {
            metric: row.metric,
            at: row.at,
            value: row.value,
            low: row.low,
            high: row.high,
            level: row.level,
            n: row.blocks,
            headline: row.headline,
        });
        let figures = figures.collect();
        Some((Evidence { figures }, ruling))
    }

    #[test]
    fn committed_rulings_follow_from_their_figures() {
        for (claim, evidence, ruling) in committed() {
            assert_eq!(claim.ruling(&evidence), ruling, "{}", claim.id);
        }
    }

    #[test]
    fn no_rule_decides_on_the_strength_of_a_missing_figure() {
        for (claim, evidence, ruling) in committed() {
            let required: Vec<(&str, &str)> = claim
                .figures
                .iter()
                .flat_map(|(metric, places)| places.iter().map(move |at| (*metric, *at)))
                .collect();
            for (metric, at) in &required {
                assert!(
                    evidence.at(metric, at).is_some(),
                    "{} {metric} {at}",
                    claim.id
                );
            }

            for (index, figure) in evidence.figures.iter().enumerate() {
                let Figure { metric, at, .. } = figure;
                let mut unmeasured = evidence.clone();
                unmeasured.figures[index] = Figure {
                    metric: metric.clone(),
                    at: at.clone(),
                    n: figure.n,
                    ..Figure::default()
                };
                let unmeasured = claim.ruling(&unmeasured);
                assert_eq!(
                    unmeasured.verdict,
                    ClaimVerdict::Inconclusive,
                    "{metric} {at}"
                );
                assert!(unmeasured.condition.contains(metric), "{unmeasured:?}");

                let mut absent = evidence.clone();
                absent.figures.remove(index);
                let expected = if required.contains(&(metric, at)) {
                    ClaimVerdict::Inconclusive
                } else {
                    ruling.verdict
                };
                assert_eq!(claim.ruling(&absent).verdict, expected, "{metric} {at}");
            }
        }
    }

    /// A rule that looks at a metric which it does not require would decide without it.
    #[test]
    fn every_figure_that_decides_is_required() {
        for (claim, evidence, ruling) in committed() {
            let is_required = |figure: &Figure| {
                claim
                    .figures
                    .iter()
                    .any(|(known, _)| *known == figure.metric)
            };

            for (index, figure) in evidence.figures.iter().enumerate() {
                for value in [0.0, 1e-6, 1.0, 1e12] {
                    let mut other = evidence.clone();
                    let ends = figure.low.map(|_| value);
                    other.figures[index] = Figure {
                        value: Some(value),
                        low: ends,
                        high: ends,
                        ..figure.clone()
                    };
                    let same = claim.ruling(&other).verdict == ruling.verdict;
                    assert!(same || is_required(figure), "{} {figure:?}", claim.id);
                }
            }
        }
    }

    #[test]
    fn claims_are_found_by_id() {
        let ids = |text: &str| -> Vec<String> { text.split(' ').map(str::to_owned).collect() };

        let found = find(&ids("c9 C3")).unwrap();
        assert_eq!(
            found.iter().map(|claim| claim.id).collect::<Vec<_>>(),
            ["C3", "C9"]
        );
        assert_eq!(find(&[]).unwrap().len(), CLAIMS.len());

        let unknown = find(&ids("C3 C99")).err().unwrap().to_string();
        assert!(
            unknown.starts_with("unknown claim 'C99' (C1, C2, "),
            "{unknown}"
        );
        let twice = find(&ids("C3 c3")).err().unwrap().to_string();
        assert_eq!(twice, "claim 'c3' is named twice");
    }
}
