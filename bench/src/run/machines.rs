//! Ratios on several kinds of machines: which lie on the same side of 1 everywhere, and which turn around.

use std::collections::BTreeMap;

use super::committed::{CommittedRun, KEY_COLUMNS};
use super::history::{RunRatio, SeriesId, Workloads, key_cells, ratios_by_series};
use crate::render::Part;
use crate::render::grid::Grid;
use crate::render::units::plural;
use crate::stats::RatioVerdict;

/// The runs on one kind of machine, under its name.
pub(super) type MachineRuns<'a> = (String, Vec<&'a CommittedRun>);

/// Verdict on a ratio that several kinds of machines have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Agreement {
    /// Resolved above 1 on one machine, and below on another.
    Turns,
    /// Resolved on the same side of 1 on all of them.
    Agrees,
    /// Not resolved on at least one of them, and on one side of 1 on the others.
    NotResolved,
}

impl Agreement {
    fn of(verdicts: &[Option<RatioVerdict>]) -> Self {
        let count = |side| verdicts.iter().filter(|own| **own == Some(side)).count();
        let (higher, lower) = (count(RatioVerdict::Higher), count(RatioVerdict::Lower));
        if higher > 0 && lower > 0 {
            Agreement::Turns
        } else if higher.max(lower) == verdicts.len() {
            Agreement::Agrees
        } else {
            Agreement::NotResolved
        }
    }
}

/// A sentence on the ratios that several of these kinds of machines have, and a table of those that are resolved
/// on each of them. Of several runs on a machine, the newest that has the ratio counts.
pub(super) fn across_machines(machines: &[MachineRuns<'_>]) -> Vec<Part> {
    let runs: Vec<&CommittedRun> = machines
        .iter()
        .flat_map(|(_, runs)| runs)
        .copied()
        .collect();
    let kinds = machines.iter().enumerate();
    let kinds: Vec<usize> = kinds
        .flat_map(|(kind, (_, runs))| runs.iter().map(move |_| kind))
        .collect();

    let workloads = Workloads::of(&runs);
    let mut counts: BTreeMap<Agreement, usize> = BTreeMap::new();
    let mut rows: Vec<(Agreement, Vec<String>)> = Vec::new();
    for (id, ratios) in ratios_by_series(&runs, &workloads) {
        let newest: BTreeMap<usize, &RunRatio<'_>> = ratios
            .iter()
            .map(|ratio| (kinds[ratio.run], ratio))
            .collect();
        if newest.len() < 2 {
            continue;
        }
        let verdicts: Vec<_> = newest.values().map(|ratio| ratio.row.verdict).collect();
        let agreement = Agreement::of(&verdicts);
        *counts.entry(agreement).or_default() += 1;
        if agreement != Agreement::NotResolved {
            rows.push((agreement, cells(&id, agreement, &newest, machines.len())));
        }
    }

    let sentence = Part::Lines(vec![sentence(&counts)]);
    if rows.is_empty() {
        return vec![sentence];
    }
    rows.sort_by_key(|(agreement, _)| *agreement);
    let mut names = KEY_COLUMNS.to_vec();
    names.extend(machines.iter().map(|(name, _)| name.as_str()));
    names.push("");
    let rows = rows.into_iter().map(|(_, cells)| cells).collect();
    let left: Vec<usize> = [0, 2, 3, 4, 5].into_iter().chain(6..names.len()).collect();
    vec![sentence, Part::Table(Grid::of_text(&names, rows, &left))]
}

fn cells(
    id: &SeriesId,
    agreement: Agreement,
    newest: &BTreeMap<usize, &RunRatio<'_>>,
    machines: usize,
) -> Vec<String> {
    let mut cells = key_cells(id);
    let texts = (0..machines).map(|kind| newest.get(&kind).map(|ratio| ratio.text()));
    cells.extend(texts.map(Option::unwrap_or_default));
    let word = match agreement {
        Agreement::Turns => "TURNS",
        Agreement::Agrees | Agreement::NotResolved => "",
    };
    cells.push(word.to_owned());
    cells
}

fn sentence(counts: &BTreeMap<Agreement, usize>) -> String {
    let count = |agreement| counts.get(&agreement).copied().unwrap_or(0);
    match counts.values().sum() {
        0 => "No ratio was measured on several kinds of machines.".to_owned(),
        all => format!(
            "Of {} on several kinds of machines, {} resolved on the same side of 1 on each, {} around (TURNS), {} not \
             resolved on each.",
            plural(all, "ratio"),
            is_or_are(count(Agreement::Agrees)),
            match count(Agreement::Turns) {
                1 => "1 turns".to_owned(),
                turns => format!("{turns} turn"),
            },
            is_or_are(count(Agreement::NotResolved)),
        ),
    }
}

fn is_or_are(count: usize) -> String {
    format!("{count} {}", if count == 1 { "is" } else { "are" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_resolved_ratios_agree_or_turn_around() {
        use RatioVerdict::{Higher, Lower, TooFewBlocks, Unresolved};
        for (verdicts, expected) in [
            (vec![Some(Higher), Some(Higher)], Agreement::Agrees),
            (
                vec![Some(Lower), Some(Lower), Some(Lower)],
                Agreement::Agrees,
            ),
            (vec![Some(Higher), Some(Lower)], Agreement::Turns),
            (
                vec![Some(Higher), Some(Unresolved), Some(Lower)],
                Agreement::Turns,
            ),
            (vec![Some(Higher), Some(Unresolved)], Agreement::NotResolved),
            (vec![Some(TooFewBlocks), None], Agreement::NotResolved),
        ] {
            assert_eq!(Agreement::of(&verdicts), expected, "{verdicts:?}");
        }
    }
}
