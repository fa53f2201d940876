//! Vocabulary of the rules: margins, verdicts with their condition, and test evidence.

use super::evidence::Figure;
use super::{ClaimVerdict, Ruling};

/// Ratio from which on one thing counts as more expensive than another.
pub(super) const MARGIN: f64 = 1.5;

pub(super) fn holds(condition: impl Into<String>) -> Ruling {
    ruling(ClaimVerdict::Holds, condition)
}

pub(super) fn does_not_hold(condition: impl Into<String>) -> Ruling {
    ruling(ClaimVerdict::DoesNotHold, condition)
}

pub(super) fn holds_only_when(condition: impl Into<String>) -> Ruling {
    ruling(ClaimVerdict::HoldsOnlyWhen, condition)
}

pub(super) fn inconclusive(condition: impl Into<String>) -> Ruling {
    ruling(ClaimVerdict::Inconclusive, condition)
}

fn ruling(verdict: ClaimVerdict, condition: impl Into<String>) -> Ruling {
    Ruling {
        verdict,
        condition: condition.into(),
    }
}

/// Figures compared with a margin: those above it, those below, and those not resolved.
#[derive(Default)]
pub(super) struct Compared<'a> {
    pub(super) above: Vec<&'a Figure>,
    pub(super) below: Vec<&'a Figure>,
    pub(super) unresolved: Vec<&'a Figure>,
}

impl<'a> Compared<'a> {
    pub(super) fn with(margin: f64, figures: impl Iterator<Item = &'a Figure>) -> Self {
        let mut compared = Compared::default();
        for figure in figures {
            match figure.at_least(margin) {
                Some(true) => compared.above.push(figure),
                Some(false) => compared.below.push(figure),
                None => compared.unresolved.push(figure),
            }
        }
        compared
    }

    /// Whether there are figures, and all are above the margin.
    pub(super) fn all_above(&self) -> bool {
        !self.above.is_empty() && self.below.is_empty() && self.unresolved.is_empty()
    }

    /// Whether there are figures, and all are below the margin.
    pub(super) fn all_below(&self) -> bool {
        !self.below.is_empty() && self.above.is_empty() && self.unresolved.is_empty()
    }
}

/// The places of these figures, each named once.
pub(super) fn places(figures: &[&Figure]) -> String {
    let mut places: Vec<&str> = Vec::new();
    for figure in figures {
        if !places.contains(&figure.at.as_str()) {
            places.push(&figure.at);
        }
    }
    places.join(", ")
}

/// Made-up evidence for the tests of rules; figures are (metric, place, value).
#[cfg(test)]
pub(super) mod made_up {
    use crate::claims::Evidence;

    /// Figures with intervals of 5 % on both sides.
    pub(in crate::claims) fn narrow(figures: &[(&str, &str, f64)]) -> Evidence {
        medians(
            figures,
            &[0.95, 0.97, 0.99, 1.0, 1.01, 1.02, 1.03, 1.04, 1.05],
        )
    }

    /// Figures with intervals from a fifth to five times the value.
    pub(in crate::claims) fn wide(figures: &[(&str, &str, f64)]) -> Evidence {
        medians(figures, &[0.2, 0.3, 0.5, 1.0, 2.0, 3.0, 5.0])
    }

    fn medians(figures: &[(&str, &str, f64)], blocks: &[f64]) -> Evidence {
        let mut evidence = Evidence::default();
        for &(metric, at, value) in figures {
            let values: Vec<f64> = blocks.iter().map(|factor| factor * value).collect();
            evidence.median(metric, at, &values, 1);
        }
        evidence
    }

    /// Figures without an interval.
    pub(in crate::claims) fn counts(figures: &[(&str, &str, f64)]) -> Evidence {
        with_counts(Evidence::default(), figures)
    }

    /// The same evidence and these counts.
    pub(in crate::claims) fn with_counts(
        mut evidence: Evidence,
        counts: &[(&str, &str, f64)],
    ) -> Evidence {
        for &(metric, at, count) in counts {
            evidence.exact(metric, at, count);
        }
        evidence
    }
}
