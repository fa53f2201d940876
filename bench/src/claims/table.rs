//! Tables of the ledger: verdicts with the figures that decide them, then the curves.

use crate::claims::Claim;
use crate::render::Style;
use crate::render::units::{self, UNKNOWN, or_unknown};
use crate::results::ClaimRow;

/// Indent of everything under the id of a claim.
const INDENT: usize = 5;
/// Width at which plain paragraphs are broken.
const WIDTH: usize = 98;

/// Tables of these rows: the verdicts, and the curves behind them.
#[must_use]
pub(crate) fn ledger_table(rows: &[ClaimRow], claims: &[Claim], style: Style) -> String {
    let judged = judged(rows, claims);
    let (verdicts, line_break) = match style {
        Style::Plain | Style::Terminal(_) => (plain(&judged), "\n"),
        Style::Markdown => (markdown(&judged), "  \n"),
    };

    let mut parts = vec![verdicts, notes(&judged).join(line_break)];
    for (claim, rows) in &judged {
        parts.extend(curves(claim, rows, style));
    }
    parts.join("\n\n") + "\n"
}

/// The verdicts of several ledgers beside each other, below a sentence on those that differ; empty for one ledger.
/// The name of each is the path of its folder.
#[must_use]
pub(crate) fn verdicts_side_by_side(
    ledgers: &[(String, Vec<ClaimRow>)],
    claims: &[Claim],
    style: Style,
) -> String {
    if ledgers.len() < 2 {
        return String::new();
    }

    let (mut common, mut differ) = (0, Vec::new());
    let mut rows = Vec::new();
    for claim in claims {
        let verdicts = ledgers.iter().map(|(_, rows)| {
            let row = rows.iter().find(|row| row.claim == claim.id);
            row.map(|row| row.verdict)
        });
        let verdicts: Vec<_> = verdicts.collect();
        let mut known = verdicts.iter().flatten();
        let Some(first) = known.next() else {
            continue;
        };

        let is_same = known.all(|verdict| verdict == first);
        if !is_same {
            differ.push(claim.id);
        }
        common += usize::from(verdicts.iter().all(Option::is_some));
        let words = verdicts
            .iter()
            .map(|verdict| or_unknown(*verdict, |verdict| verdict.words().to_owned()));
        let mut cells = vec![claim.id.to_owned()];
        cells.extend(words);
        cells.push(if is_same { "" } else { "DIFFERS" }.to_owned());
        rows.push(cells);
    }

    let folder = |path: &str| {
        path.trim_end_matches('/')
            .rsplit('/')
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    let mut names = vec!["claim".to_owned()];
    names.extend(ledgers.iter().map(|(path, _)| folder(path)));
    names.push(String::new());
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let left: Vec<usize> = (0..names.len()).collect();
    let differing = match &differ[..] {
        [] => "no verdict differs".to_owned(),
        ids => format!("verdicts differ for {}", ids.join(", ")),
    };
    let table = style.table(&names, rows, &left);
    format!("\nJudged in all of these runs: {common} claims; {differing}.\n\n{table}\n")
}

/// A claim with its rows.
pub(crate) type Judged<'a> = (&'a Claim, Vec<&'a ClaimRow>);

/// The claims that have rows.
pub(crate) fn judged<'a>(rows: &'a [ClaimRow], claims: &'a [Claim]) -> Vec<Judged<'a>> {
    let with_rows = claims.iter().map(|claim| {
        let own = rows.iter().filter(|row| row.claim == claim.id);
        (claim, own.collect::<Vec<_>>())
    });
    with_rows.filter(|(_, rows)| !rows.is_empty()).collect()
}

/// List of claims with their source, metric and rule.
#[must_use]
pub(crate) fn list(claims: &[&Claim], style: Style) -> String {
    let entries: Vec<String> = claims.iter().map(|claim| entry(claim, style)).collect();
    entries.join("\n") + if style == Style::Markdown { "\n" } else { "" }
}

fn entry(claim: &Claim, style: Style) -> String {
    if style == Style::Markdown {
        return format!(
            "- **{}** {} ({}).  \n  Measured: {}.  \n  Rule: {}.",
            claim.id, claim.claim, claim.source, claim.metric, claim.rule
        );
    }

    let part = |name: &str, text: &str| indented(&format!("{name}: {text}"));
    let parts = [
        title(claim, style),
        part("source", claim.source),
        part("measured", claim.metric),
        part("rule", claim.rule),
    ];
    parts.join("\n") + "\n"
}

fn title(claim: &Claim, style: Style) -> String {
    match style {
        Style::Plain | Style::Terminal(_) => format!("{:<INDENT$}{}", claim.id, claim.claim),
        Style::Markdown => format!("**{}** {}", claim.id, claim.claim),
    }
}

/// A paragraph for each claim. The figures of all claims are drawn as one table, so that their columns
/// line up, and its lines shared out among the claims.
fn plain(judged: &[Judged<'_>]) -> String {
    let figures = judged.iter().flat_map(|(_, rows)| headlines(rows));
    let cells = figures.map(|row| vec![label(row), value(row, row.value), interval(row)]);
    let table = Style::Plain.table(&["", "", ""], cells.collect(), &[0, 2]);
    let mut lines = table.lines().skip(1);

    let mut paragraphs = Vec::new();
    for (claim, rows) in judged {
        let mut paragraph = vec![title(claim, Style::Plain)];
        let own = lines.by_ref().take(headlines(rows).count());
        // The table itself begins with a blank.
        paragraph.extend(own.map(|line| " ".repeat(INDENT - 1) + line));

        let verdict = rows[0].verdict.words().to_uppercase();
        let condition = &rows[0].condition;
        let colon = if condition.is_empty() { "" } else { ": " };
        paragraph.push(indented(&format!("{verdict}{colon}{condition}")));
        paragraphs.push(paragraph.join("\n"));
    }
    paragraphs.join("\n\n")
}

/// A paragraph under a claim, broken into lines.
fn indented(text: &str) -> String {
    let mut lines = vec![" ".repeat(INDENT)];

    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("there is one");
        if line.trim().is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() <= WIDTH {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(" ".repeat(INDENT) + word);
        }
    }

    lines.join("\n")
}

fn markdown(judged: &[Judged<'_>]) -> String {
    let mut lines = vec![
        "| claim | measured | interval | verdict | condition |".to_owned(),
        "|-------|----------|----------|---------|-----------|".to_owned(),
    ];

    for (claim, rows) in judged {
        let figures: Vec<_> = headlines(rows).collect();
        let measured: Vec<String> = figures
            .iter()
            .map(|row| format!("{}: {}", label(row), value(row, row.value)))
            .collect();
        let mut intervals: Vec<String> = figures.iter().map(|row| interval(row)).collect();
        // Empty lines would make the row of a claim of counts needlessly high.
        if intervals.iter().all(String::is_empty) {
            intervals.clear();
        }

        lines.push(format!(
            "| {} | {} | {} | **{}** | {} |",
            title(claim, Style::Markdown),
            measured.join("<br>"),
            intervals.join("<br>"),
            rows[0].verdict.words(),
            rows[0].condition
        ));
    }
    lines.join("\n")
}

/// Notes on the table, a line each.
pub(crate) fn notes(judged: &[Judged<'_>]) -> Vec<String> {
    let mut notes = vec![
        "Medians over blocks of fresh processes, in turns; ratios within blocks.".to_owned(),
        "Intervals: sign test, covering together at 95 % for each claim.".to_owned(),
        "Figures without an interval are counts, or were taken once.".to_owned(),
    ];

    let disturbed: Vec<&str> = judged
        .iter()
        .filter(|(_, rows)| !rows[0].validity.is_valid())
        .map(|(claim, _)| claim.id)
        .collect();
    if !disturbed.is_empty() {
        notes.push(format!(
            "DISTURBED: something else used the machine, or it stood still: {}.",
            disturbed.join(", ")
        ));
    }
    notes
}

/// The figures that stand in the table of verdicts.
pub(crate) fn headlines<'a>(rows: &'a [&'a ClaimRow]) -> impl Iterator<Item = &'a ClaimRow> {
    rows.iter().copied().filter(|row| row.headline)
}

/// Metrics that were measured at the same places.
#[derive(Default)]
struct Curve<'a> {
    places: Vec<&'a str>,
    rows: Vec<&'a ClaimRow>,
}

/// A table for each group of metrics over several places, unless all of it stands in the verdicts.
fn curves(claim: &Claim, rows: &[&ClaimRow], style: Style) -> Option<String> {
    let mut curves: Vec<Curve<'_>> = Vec::new();
    for row in rows.iter().copied().filter(|row| !row.at.is_empty()) {
        let joins = |curve: &Curve<'_>| {
            let same_metric = curve.rows.iter().any(|other| other.metric == row.metric);
            same_metric || curve.places.contains(&row.at.as_str())
        };
        let known = curves.iter().position(joins);
        let index = known.unwrap_or_else(|| {
            curves.push(Curve::default());
            curves.len() - 1
        });

        let curve = &mut curves[index];
        if !curve.places.contains(&row.at.as_str()) {
            curve.places.push(&row.at);
        }
        curve.rows.push(row);
    }

    let tables: Vec<String> = curves
        .iter()
        .filter(|curve| curve.places.len() > 1 && curve.rows.iter().any(|row| !row.headline))
        .map(|curve| curve.table(style))
        .collect();
    let title = title(claim, style);
    (!tables.is_empty()).then(|| format!("{title}\n\n{}", tables.join("\n\n")))
}

impl Curve<'_> {
    fn table(&self, style: Style) -> String {
        let mut metrics: Vec<&str> = Vec::new();
        for row in &self.rows {
            if !metrics.contains(&row.metric.as_str()) {
                metrics.push(&row.metric);
            }
        }
        let cell = |metric: &str, place: &str| {
            let here = |row: &&&ClaimRow| row.metric == metric && row.at == place;
            let row = self.rows.iter().find(here);
            row.map_or(UNKNOWN.to_owned(), |row| value(row, row.value))
        };
        let names: Vec<String> = metrics.iter().map(|metric| name(metric)).collect();

        let mut header = vec![""];
        let mut rows = Vec::new();
        // Many metrics at few places are read better from top to bottom.
        if metrics.len() > self.places.len() {
            header.extend(&self.places);
            for (metric, name) in metrics.iter().zip(names) {
                let cells = self.places.iter().map(|place| cell(metric, place));
                rows.push(std::iter::once(name).chain(cells).collect());
            }
        } else {
            header.extend(names.iter().map(String::as_str));
            for &place in &self.places {
                let cells = metrics.iter().map(|metric| cell(metric, place));
                rows.push(std::iter::once(place.to_owned()).chain(cells).collect());
            }
        }
        style.table(&header, rows, &[0])
    }
}

/// End of a metric's name, and the text of its values.
type Unit = (&'static str, fn(f64) -> String);

const UNITS: &[Unit] = &[
    ("_ns_per_mib", |ns| units::duration(ns) + "/MiB"),
    ("_ns", units::duration),
    ("_bytes", units::bytes),
    ("_per_second", units::rate),
    ("_share", percent),
    ("_ratio", units::ratio),
    ("_r_squared", |value| format!("{value:.3}")),
    ("tau", |value| format!("{value:.2}")),
];

fn percent(share: f64) -> String {
    let percent = 100.0 * share;
    match percent {
        percent if percent == 0.0 || percent >= 9.95 => format!("{percent:.0} %"),
        percent if percent >= 0.995 => format!("{percent:.1} %"),
        percent => format!("{percent:.2} %"),
    }
}

/// A value of a row, or an end of its interval, with its unit.
pub(crate) fn value(row: &ClaimRow, value: Option<f64>) -> String {
    let unit = UNITS.iter().find(|(unit, _)| row.metric.ends_with(unit));
    or_unknown(value, |value| match unit {
        Some((_, show)) => show(value),
        None if value.fract() == 0.0 => units::count(units::to_count(value)),
        None => format!("{value:.1}"),
    })
}

/// The interval of a row; empty if it has none.
pub(crate) fn interval(row: &ClaimRow) -> String {
    match (row.low, row.high) {
        (Some(low), Some(high)) => {
            format!("[{}, {}]", value(row, Some(low)), value(row, Some(high)))
        }
        _ => String::new(),
    }
}

/// A metric in words, without its unit.
fn name(metric: &str) -> String {
    let unit = UNITS.iter().find(|(unit, _)| metric.ends_with(unit));
    let stem = match unit {
        Some(("_r_squared", _)) => metric.replace("_r_squared", "_R²"),
        Some((unit, _)) if unit.starts_with('_') => metric.trim_end_matches(unit).to_owned(),
        _ => metric.to_owned(),
    };
    stem.replace("_over_", " ÷ ").replace('_', " ")
}

/// A figure in words.
pub(crate) fn label(row: &ClaimRow) -> String {
    match row.at.as_str() {
        "" => name(&row.metric),
        at => format!("{}, {at}", name(&row.metric)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claims::CLAIMS;
    use crate::results::{ClaimVerdict, SCHEMA_VERSION, Validity};

    fn row(claim: &str, metric: &str, at: &str, value: f64) -> ClaimRow {
        ClaimRow {
            schema_version: SCHEMA_VERSION,
            claim: claim.to_owned(),
            metric: metric.to_owned(),
            at: at.to_owned(),
            headline: metric.ends_with("_ratio"),
            value: Some(value),
            low: Some(value / 2.0),
            high: Some(value * 2.0),
            level: Some(0.96),
            blocks: 8,
            verdict: ClaimVerdict::HoldsOnlyWhen,
            condition: "it is so".to_owned(),
            validity: Validity::default(),
        }
    }

    fn rows() -> Vec<ClaimRow> {
        vec![
            row("C1", "fork_start_ns", "0 MiB", 1000.0),
            row("C1", "fork_start_ns", "64 MiB", 2000.0),
            row("C1", "fork_over_thread_ratio", "0 MiB", 7.0),
            row("C1", "fork_over_thread_ratio", "64 MiB", 70.0),
        ]
    }

    #[test]
    fn figures_read_well() {
        let shown = |metric: &str, number: f64| value(&row("C1", metric, "", number), Some(number));
        assert_eq!(shown("fork_growth_ns_per_mib", 12_000.0), "12.0 µs/MiB");
        assert_eq!(shown("zombies", 10_000.0), "10,000");
        assert_eq!(shown("connected", 5.5), "5.5");
        assert_eq!(shown("cpu_share", 0.0), "0 %");
        assert_eq!(shown("cpu_share", 0.0012), "0.12 %");
        assert_eq!(shown("cpu_share", 0.999), "100 %");
        assert_eq!(shown("a_over_b_ratio", 7.126), "7.13");
        assert_eq!(name("fork_over_thread_ratio"), "fork ÷ thread");
        assert_eq!(name("fork_growth_r_squared"), "fork growth R²");
        assert_eq!(name("tau"), "tau");
    }

    #[test]
    fn the_plain_table_is_narrow_and_has_verdict_and_curve() {
        let text = ledger_table(&rows(), CLAIMS, Style::Plain);

        assert!(
            text.lines().all(|line| line.chars().count() <= 100),
            "{text}"
        );
        assert!(text.contains("HOLDS ONLY WHEN: it is so"), "{text}");
        assert!(
            text.contains("fork ÷ thread, 64 MiB") && text.contains("[35.0, 140]"),
            "{text}"
        );
        // The curve also shows what is no headline.
        assert!(
            text.contains("fork start") && text.contains("2.00 µs"),
            "{text}"
        );
    }

    #[test]
    fn the_markdown_table_has_one_line_for_a_claim() {
        let text = ledger_table(&rows(), CLAIMS, Style::Markdown);
        let line = text
            .lines()
            .find(|line| line.starts_with("| **C1**"))
            .unwrap();
        assert!(line.contains("fork ÷ thread, 0 MiB: 7.00<br>"), "{line}");
        assert!(
            line.contains("| **holds only when** | it is so |"),
            "{line}"
        );
    }

    #[test]
    fn verdicts_of_several_ledgers_stand_side_by_side() {
        use ClaimVerdict::{DoesNotHold, Holds};

        let of = |claim: &str, verdict: ClaimVerdict| ClaimRow {
            verdict,
            ..row(claim, "tau", "", 1.0)
        };
        let one = vec![of("C1", Holds), of("C2", Holds), of("C3", Holds)];
        let two = vec![of("C1", Holds), of("C2", DoesNotHold)];
        let ledgers = [("results/one/".to_owned(), one), ("two".to_owned(), two)];
        assert_eq!(
            verdicts_side_by_side(&ledgers[..1], CLAIMS, Style::Plain),
            ""
        );

        let text = verdicts_side_by_side(&ledgers, CLAIMS, Style::Plain);
        let sentence = "Judged in all of these runs: 2 claims; verdicts differ for C2.";
        assert!(text.contains(sentence), "{text}");
        let lines: Vec<String> = text
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        for line in [
            "claim one two",
            "C1 holds holds",
            "C2 holds does not hold DIFFERS",
            "C3 holds –",
        ] {
            assert!(lines.iter().any(|own| own == line), "{line}: {text}");
        }
    }

    #[test]
    fn the_list_fits_on_a_screen_across() {
        let all: Vec<&Claim> = CLAIMS.iter().collect();
        let text = list(&all, Style::Plain);
        assert!(
            text.lines().all(|line| line.chars().count() <= 100),
            "{text}"
        );
        assert!(all.iter().all(|claim| text.contains(claim.source)));
    }
}
