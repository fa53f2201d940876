//! Resolution of a run, before it begins: the blocks that its comparisons need, and what they can resolve.

use crate::experiment::condition::Condition;
use crate::render::units::plural;
use crate::results::ordered::distinct;
use crate::results::summary::ALPHA;
use crate::stats::{blocks_needed, scatter_that_resolves};

/// Difference between two arms that a reader may want to see resolved, as a ratio.
const DIFFERENCE: f64 = 1.05;

/// A line for each scenario among the closed loops `conditions` that compares anything.
pub(super) fn notes(conditions: &[Condition]) -> Vec<String> {
    let of_scenario = |group: &[Condition]| {
        let comparisons = comparisons(group);
        let blocks = group
            .iter()
            .map(|condition| condition.effort.blocks)
            .max()?;
        // A search compares rates, and its closed loops only find where to begin.
        let is_search = group[0].scenario.capacity.is_some();
        (comparisons > 0 && !is_search)
            .then(|| note(&group[0].scenario.name, comparisons, blocks as usize))
    };
    conditions
        .chunk_by(|a, b| a.scenario.name == b.scenario.name)
        .filter_map(of_scenario)
        .collect()
}

/// Number of ratios to the reference in a scenario, which all share one error rate: under its closed loops, and
/// under the open loops of a rate sweep.
fn comparisons(conditions: &[Condition]) -> usize {
    // Arms that run one after the other have a condition each, with the same key.
    let references = distinct(conditions.iter().map(Condition::key)).len();
    let arms = conditions.iter().flat_map(|condition| &condition.arms);
    let arms = arms.filter(|arm| arm.skip.is_none()).count();
    let sweep = conditions[0].scenario.sweep.as_ref();
    let rates = sweep.map_or(0, |sweep| sweep.percent.len());
    arms.saturating_sub(references) * (1 + rates)
}

fn note(scenario: &str, comparisons: usize, blocks: usize) -> String {
    let family = plural(comparisons, "comparison");
    let needed = blocks_needed(comparisons, ALPHA);
    let measured = plural(blocks, "block");

    match scatter_that_resolves(DIFFERENCE.ln(), blocks, comparisons, ALPHA) {
        Some(scatter) => format!(
            "{scenario}: {measured} for {family}; resolves a difference of {:.0} % if a ratio scatters by at most \
             {:.1} % from block to block",
            100.0 * (DIFFERENCE - 1.0),
            100.0 * scatter
        ),
        None => format!(
            "{scenario}: {measured} cannot resolve any difference: {family} need {needed} (--blocks {needed})"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{Effort, Scenario};
    use crate::stats::block_steps;

    /// The closed loops of a form of a scenario, on a machine that has all it needs.
    fn conditions(scenario: &Scenario, effort: Effort) -> Vec<Condition> {
        let with_arms = |condition: Condition| {
            let mut arms = condition.scenario.arms().unwrap();
            for arm in &mut arms {
                arm.skip = None;
            }
            condition.with_arms(arms)
        };
        let conditions = Condition::all_of(scenario, effort).into_iter();
        conditions.map(with_arms).collect()
    }

    /// A block beyond a step costs time and makes intervals wider. A form with up to 3 blocks is a look, which
    /// says beforehand that it resolves nothing.
    #[test]
    fn committed_scenarios_have_numbers_of_blocks_that_pay() {
        for full_scenario in Scenario::built_in().unwrap() {
            for (form, full) in [("quick", false), ("full", true)] {
                let mut scenario = full_scenario.clone();
                scenario.take_form(full);
                let effort = scenario.effort(full);
                let comparisons = comparisons(&conditions(&scenario, effort));
                let blocks = effort.blocks as usize;
                // The gate has a rule of its own, and one arm has nothing to be compared with.
                if blocks <= 3 || scenario.name == "gate" || comparisons == 0 {
                    continue;
                }
                let steps: Vec<usize> = block_steps(comparisons, ALPHA).take(8).collect();
                assert!(
                    steps.contains(&blocks),
                    "{} {form}: {blocks} blocks for {comparisons} comparisons, whose steps are {steps:?}",
                    scenario.name
                );
            }
        }
    }

    #[test]
    fn a_form_that_cannot_resolve_anything_says_what_it_needs() {
        assert_eq!(
            note("steady", 33, 3),
            "steady: 3 blocks cannot resolve any difference: 33 comparisons need 11 (--blocks 11)"
        );
        let text = note("steady", 33, 11);
        assert!(
            text.starts_with("steady: 11 blocks for 33 comparisons; resolves"),
            "{text}"
        );
    }
}
