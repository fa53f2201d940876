//! Notes below the table of a scenario: the statistics, the marks, and everything that was not as planned.

use super::scenario_report::{ArmLine, ScenarioReport};
use crate::render::units::plural;
use crate::results::summary::ALPHA;
use crate::results::{BlockRow, ValidityFlag};

impl ScenarioReport<'_> {
    /// The notes, a line each.
    pub(super) fn notes(&self) -> Vec<String> {
        let count = self.blocks.iter().map(|row| row.block).max().unwrap_or(0);
        let mut notes = vec![format!(
            "Medians of {}. Ratio: within blocks; its interval excludes 1 exactly where a sign test resolves \
             a difference, Holm-corrected to {:.0} % over the table.",
            plural(count as usize, "block"),
            ALPHA * 100.0
        )];
        notes.extend(self.common_placement());

        let ratios: Vec<String> = self.lines.iter().map(ArmLine::ratio).collect();
        if ratios.iter().any(|ratio| ratio.ends_with('~')) {
            notes.push("~ no difference resolved: the interval covers 1.".to_owned());
        }
        if ratios.iter().any(|ratio| ratio.ends_with('?')) {
            notes.push("? too few blocks to resolve any difference.".to_owned());
        }
        if self.lines.iter().any(|line| line.starved() > 0) {
            notes.push(
                "STARVE: clients that were connected and never answered; throughput and latency are those of \
                 the others."
                    .to_owned(),
            );
        }

        notes.extend(self.placement_flips());
        notes.extend(self.invalid_blocks());
        notes.extend(self.failures());
        notes
    }

    /// The placement, where all conditions have the same one and no column shows it.
    fn common_placement(&self) -> Option<String> {
        let placement = self.lines[0].first().placement;
        let mut lines = self.lines.iter();
        lines
            .all(|line| line.first().placement == placement)
            .then(|| format!("Placement: {placement}."))
    }

    /// Arms that are above the reference with one placement and below it with another.
    fn placement_flips(&self) -> Vec<String> {
        let mut flips = Vec::new();
        for (index, line) in self.lines.iter().enumerate() {
            for other in &self.lines[index + 1..] {
                let (a, b) = (line.first(), other.first());
                let same = (a.clients, a.driver, &a.model) == (b.clients, b.driver, &b.model);
                let ranked = line.is_faster().zip(other.is_faster());
                if same && ranked.is_some_and(|(a, b)| a != b) {
                    flips.push(format!(
                        "FLIP: {}, {} {}: {} with placement {}, {} with {}.",
                        a.model,
                        a.clients,
                        a.driver,
                        line.ratio(),
                        a.placement,
                        other.ratio(),
                        b.placement
                    ));
                }
            }
        }
        flips
    }

    /// Limits and disturbances, each with the number of blocks in which it occurred.
    fn invalid_blocks(&self) -> Vec<String> {
        let mut limits: Vec<(String, usize)> = Vec::new();
        for row in self.blocks.iter().filter(|row| row.is_ok()) {
            let known = row.validity.flags().map(|flag| limit_text(flag, row));
            let unknown = row.validity.unknown();
            for text in known.chain(unknown.map(|word| format!("{word}: {}", arm_of(row)))) {
                match limits.iter_mut().find(|(known, _)| *known == text) {
                    Some((_, count)) => *count += 1,
                    None => limits.push((text, 1)),
                }
            }
        }

        let note = |(text, count): (String, usize)| {
            let unit = if text.contains(" for ") {
                "block"
            } else {
                "row"
            };
            format!("NOT VALID: {text} in {}.", plural(count, unit))
        };
        limits.into_iter().map(note).collect()
    }

    /// Arms that failed or were skipped, each cause once.
    fn failures(&self) -> Vec<String> {
        let mut failures: Vec<String> = Vec::new();
        for row in self.blocks.iter().filter(|row| !row.is_ok()) {
            let BlockRow {
                model,
                clients,
                driver,
                status,
                ..
            } = row;
            let failure = match row.skipped() {
                Some(reason) => format!("SKIPPED: {model}: {reason}"),
                None => format!("FAILED: {model}, {clients} {driver}: {status}"),
            };
            if !failures.contains(&failure) {
                failures.push(failure);
            }
        }
        failures
    }
}

/// Text for a word of the column `validity`.
fn limit_text(flag: ValidityFlag, row: &BlockRow) -> String {
    let arm = arm_of(row);
    match flag {
        ValidityFlag::Disturbed => "the machine was disturbed".to_owned(),
        ValidityFlag::Generator => format!("the load generator was the limit for {arm}"),
        ValidityFlag::Overran => format!("replies came in another arm's slice for {arm}"),
        ValidityFlag::Late => format!("the load generator was late for {arm}"),
        ValidityFlag::Ports => format!("no local ports were left for {arm}"),
        ValidityFlag::Files => format!("no open files were left for {arm}"),
        ValidityFlag::Refused => format!("the server refused connections for {arm}"),
    }
}

/// An arm and its condition, in words.
fn arm_of(row: &BlockRow) -> String {
    format!(
        "{}, {} {}, {}",
        row.model, row.clients, row.driver, row.placement
    )
}
