//! Notes below the table of a scenario: the statistics, the marks, and everything that was not as planned.

use echobench_clients::ErrorKind;

use super::scenario_report::{ArmLine, Load, ScenarioReport, THROUGHPUT};
use crate::render::units::plural;
use crate::results::ordered::entry;
use crate::results::summary::ALPHA;
use crate::results::{BlockRow, BlockStatus, ConditionKey, Metric, ValidityFlag};

/// Ratio of p99 to p50 above which the median hides a tail.
const HIDDEN_TAIL: f64 = 30.0;
/// Ratio of p99 to that of a typical slice from which on rare slices make the tail.
const RARE_SLICES: f64 = 3.0;

/// Number of arms that a line about rows that are not valid names.
const MOST_AFFECTED: usize = 4;

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

        let ratios: Vec<String> = self.lines.iter().flat_map(shown_ratios).collect();
        if ratios.iter().any(|ratio| ratio.ends_with('~')) {
            notes.push("~ no difference resolved: the interval covers 1.".to_owned());
        }
        if ratios.iter().any(|ratio| ratio.ends_with('?')) {
            notes.push("? too few blocks to resolve any difference.".to_owned());
        }
        if self.lines.iter().any(ArmLine::stood_still) {
            notes.push(
                "Ratio 0 or ∞: the arm, or the one that it is compared with, gave no reply in most slices."
                    .to_owned(),
            );
        }
        if self.lines.iter().any(|line| line.starved() > 0) {
            notes.push(
                "STARVE: clients that were never answered; throughput and latency are those of the others."
                    .to_owned(),
            );
        }

        notes.extend(self.tails());
        notes.extend(self.invalid_blocks());
        notes.extend(self.missing_arms());
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

    /// Tails that the columns of the table do not explain, a line for each kind with its arms.
    fn tails(&self) -> Vec<String> {
        let arms_above = |metric, limit: f64| {
            let exceeds = |line: &&ArmLine<'_>| {
                let p99 = line.estimate(Metric::LatencyP99);
                let ratio = p99
                    .zip(line.estimate(metric))
                    .map(|(p99, other)| p99 / other);
                ratio.is_some_and(|ratio| ratio.is_finite() && ratio > limit)
            };
            let lines = self.lines.iter().filter(exceeds);
            let arms: Vec<String> = lines.map(|line| self.describe(line)).collect();
            arms.join("; ")
        };

        let kinds = [
            (
                format!("TAIL: p99 is more than {HIDDEN_TAIL:.0} times p50"),
                arms_above(Metric::LatencyP50, HIDDEN_TAIL),
            ),
            (
                format!(
                    "RARE: p99 is more than {RARE_SLICES:.0} times that of a typical slice, so rare slices make it"
                ),
                arms_above(Metric::SliceLatencyP99, RARE_SLICES),
            ),
        ];
        let named = kinds.into_iter().filter(|(_, arms)| !arms.is_empty());
        named
            .map(|(kind, arms)| format!("{kind}: {arms}."))
            .collect()
    }

    /// Limits and disturbances, a line for each kind: how many rows, in which arms most, and what to do.
    fn invalid_blocks(&self) -> Vec<String> {
        let measured: Vec<&BlockRow> = self
            .blocks
            .iter()
            .filter(|row| row.is_ok())
            .copied()
            .collect();
        let mut kinds: Vec<((&str, &str), Vec<&BlockRow>)> = Vec::new();
        for row in &measured {
            let known = row.validity.flags();
            let known = known.map(|flag| -> (&str, &str) { cause_and_advice(flag) });
            let unknown = row.validity.unknown();
            let unknown = unknown.map(|word| (word, "see docs/results-format.md"));
            for kind in known.chain(unknown) {
                entry(&mut kinds, kind).push(row);
            }
        }

        let note = |((cause, advice), rows): ((&str, &str), Vec<&BlockRow>)| {
            let (count, all) = (rows.len(), measured.len());
            format!(
                "NOT VALID: {cause} in {count} of {} ({:.0} %): {advice}. Most: {}.",
                plural(all, "row"),
                100.0 * count as f64 / all as f64,
                self.most_affected(&rows)
            )
        };
        kinds.into_iter().map(note).collect()
    }

    /// The arms to which most of these rows belong, with their numbers of blocks.
    fn most_affected(&self, rows: &[&BlockRow]) -> String {
        let mut arms: Vec<(String, Vec<&BlockRow>)> = Vec::new();
        for &row in rows {
            entry(&mut arms, self.describe_block(row)).push(row);
        }
        arms.sort_by_key(|(_, rows)| std::cmp::Reverse(rows.len()));

        let text = |(name, rows): &(String, Vec<&BlockRow>)| {
            let condition = rows[0].condition();
            let blocks = self.blocks_of(&rows[0].model, &condition);
            let measured = blocks.filter(|row| row.is_ok()).count();
            format!("{name} ({} of {measured})", rows.len())
        };
        let mut texts: Vec<String> = arms.iter().take(MOST_AFFECTED).map(text).collect();
        if arms.len() > MOST_AFFECTED {
            texts.push(format!("{} more", arms.len() - MOST_AFFECTED));
        }
        texts.join("; ")
    }

    /// Arms that were skipped or failed, each cause once.
    fn missing_arms(&self) -> Vec<String> {
        let mut notes: Vec<String> = Vec::new();
        for row in &self.blocks {
            let note = match &row.status {
                BlockStatus::Ok => continue,
                BlockStatus::Skipped(reason) => format!("SKIPPED: {}: {reason}", row.model),
                BlockStatus::Failed(reason) => {
                    let left_out = self.left_out_blocks(row);
                    format!("FAILED: {}: {reason}{left_out}", self.describe_block(row))
                }
            };
            if !notes.contains(&note) {
                notes.push(note);
            }
        }
        notes
    }

    /// The number of blocks in which an arm failed, if it has figures from others.
    fn left_out_blocks(&self, row: &BlockRow) -> String {
        let is_own =
            |other: &&&BlockRow| other.model == row.model && other.condition() == row.condition();
        let own: Vec<_> = self.blocks.iter().filter(is_own).collect();
        let failed = own.iter().filter(|other| !other.is_ok()).count();
        if failed == own.len() {
            return String::new();
        }

        let is_compared_with_it = |line: &ArmLine<'_>| {
            line.condition() == row.condition() && line.reference() == Some(&row.model)
        };
        let ratios = if self.lines.iter().any(is_compared_with_it) {
            " and all ratios to it"
        } else {
            ""
        };
        format!(
            " (failed in {failed} of {}, which its medians{ratios} leave out)",
            plural(own.len(), "block")
        )
    }

    /// An arm and its condition in words, as [`ScenarioReport::in_words`].
    fn describe_block(&self, row: &BlockRow) -> String {
        self.in_words(&row.model, &row.condition())
    }

    fn describe(&self, line: &ArmLine<'_>) -> String {
        let condition = line.condition();
        let arm = self.in_words(line.model(), &condition);
        match condition.load_percent {
            Some(percent) => format!("{arm}, {percent} % of peak"),
            None => arm,
        }
    }

    /// An arm and its condition in words; with the placement where there are several.
    fn in_words(&self, model: &str, condition: &ConditionKey) -> String {
        let arm = format!("{model}, {}", condition.clients_in_words());
        if self.common_placement().is_some() {
            return arm;
        }
        format!("{arm}, placement {}", condition.placement)
    }
}

/// The ratios of an arm that a table shows.
fn shown_ratios(line: &ArmLine<'_>) -> Vec<String> {
    let metrics: &[Metric] = match line.load() {
        Load::Closed => &[THROUGHPUT],
        Load::Open => &[Metric::LatencyP99, Metric::CpuPerRequest],
        Load::Swept | Load::Step => &[],
    };
    metrics.iter().map(|metric| line.ratio(*metric)).collect()
}

/// Meaning of a flag, and what to do about it.
pub(super) fn cause_and_advice(flag: ValidityFlag) -> (&'static str, &'static str) {
    match flag {
        ValidityFlag::Disturbed => (
            "the machine was disturbed",
            "run again when nothing else runs",
        ),
        ValidityFlag::Generator => (
            "the load generator was the limit",
            "the server may be faster than it seems",
        ),
        ValidityFlag::Overran => ("replies came in another arm's slice", "lengthen `gap`"),
        ValidityFlag::Late => (
            "the load generator was late",
            "give the clients CPUs of their own",
        ),
        ValidityFlag::Clock => (
            "the clocks of the hosts were not known well enough",
            "use a faster connection to them",
        ),
        ValidityFlag::Ports => (
            "no local ports were left",
            "give load hosts more source addresses (docs/hosts.md), or open fewer connections",
        ),
        ValidityFlag::Files => (
            "no open files were left",
            "raise the limit on them, or use fewer clients",
        ),
        ValidityFlag::Refused => (
            "the server refused connections",
            "use fewer clients, or raise its limits",
        ),
    }
}

/// Arms of a run that failed or whose server refused connections, each cause once.
pub(super) fn failures(blocks: &[BlockRow]) -> Vec<String> {
    let mut failures = Vec::new();
    for row in blocks {
        let reason = match &row.status {
            BlockStatus::Failed(reason) => reason.as_str(),
            BlockStatus::Ok if is_refused(row) => "the server refused connections",
            BlockStatus::Ok | BlockStatus::Skipped(_) => continue,
        };
        let BlockRow {
            scenario, model, ..
        } = row;
        let clients = row.condition().clients_in_words();
        let failure = format!("{scenario}, {model}, {clients}: {reason}");
        if !failures.contains(&failure) {
            failures.push(failure);
        }
    }

    let mut measured = blocks.iter().filter(|row| row.is_ok()).peekable();
    if measured.peek().is_some() && measured.all(|row| row.answered == 0) {
        let why = "no request was due in any slice, or the machine stood still";
        failures.push(format!("no request was answered in the whole run: {why}"));
    }
    failures
}

/// Whether the server had no room for a client: the arm was measured with fewer clients than asked for.
fn is_refused(row: &BlockRow) -> bool {
    row.errors.count(ErrorKind::Overloaded) > 0
}
