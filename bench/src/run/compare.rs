//! Two committed runs beside each other: ratios within each run and, on one kind of machine, absolute
//! figures.

use std::path::PathBuf;

use anyhow::bail;

use super::history::{CommittedRun, KEY_COLUMNS, SeriesKey, by_key};
use crate::render::Style;
use crate::render::units::or_unknown;
use crate::results::SummaryRow;

/// Options of a comparison.
#[derive(Clone, Debug)]
pub struct CompareOptions {
    /// The earlier results folder.
    pub before: PathBuf,
    /// The later results folder.
    pub after: PathBuf,
    /// Also compares the ratios of runs on different kinds of machines.
    pub allow_unlike: bool,
}

/// The table of a comparison and the notes below it.
pub fn compare(options: &CompareOptions) -> anyhow::Result<String> {
    let before = CommittedRun::read(&options.before)?;
    let after = CommittedRun::read(&options.after)?;
    let unlike = before.difference(&after);
    if let Some(unlike) = &unlike
        && !options.allow_unlike
    {
        bail!(
            "the machines were not of the same kind: {unlike}; --allow-unlike compares ratios only"
        );
    }

    let (earlier, later) = (by_key(&before.summary), by_key(&after.summary));
    let rows: Vec<_> = earlier
        .iter()
        .filter_map(|(key, row)| Some(cells(key, row, later.get(key)?, unlike.is_none())))
        .collect();
    if rows.is_empty() {
        bail!("the two runs have no arm in common");
    }

    let mut names = KEY_COLUMNS.to_vec();
    names.extend(["ratio before", "ratio after", "change"]);
    if unlike.is_none() {
        names.extend(["before", "after", "change"]);
    }
    let table = Style::Plain.table(&names, rows, &[0, 2, 3, 4, 5]);
    let mut notes = vec![
        "Ratio: to the reference arm of the same run. * the intervals of the two runs do not overlap."
            .to_owned(),
    ];
    notes.extend(unlike.map(|unlike| {
        format!("Ratios only, since the machines were not of the same kind: {unlike}.")
    }));
    Ok(format!("{table}\n\n{}\n", notes.join("\n")))
}

fn cells(key: &SeriesKey, before: &SummaryRow, after: &SummaryRow, absolute: bool) -> Vec<String> {
    let ratio = |row: &SummaryRow| or_unknown(row.ratio, |ratio| format!("{ratio:.3}"));
    let ends = |row: &SummaryRow| row.ratio_low.zip(row.ratio_high);
    let mut cells = key.cells();
    cells.extend([ratio(before), ratio(after)]);
    cells.push(change(before.ratio, after.ratio, ends(before), ends(after)));

    if absolute {
        let figure = |row: &SummaryRow| or_unknown(row.estimate, |value| format!("{value:.0}"));
        let ends = |row: &SummaryRow| row.low.zip(row.high);
        cells.extend([figure(before), figure(after)]);
        cells.push(change(
            before.estimate,
            after.estimate,
            ends(before),
            ends(after),
        ));
    }
    cells
}

/// Change in percent, with a star where the intervals do not overlap.
fn change(
    before: Option<f64>,
    after: Option<f64>,
    before_ends: Option<(f64, f64)>,
    after_ends: Option<(f64, f64)>,
) -> String {
    let ends = before_ends.zip(after_ends);
    let apart = ends.is_some_and(|(before, after)| before.1 < after.0 || after.1 < before.0);
    or_unknown(before.zip(after), |(before, after)| {
        let star = if apart { "*" } else { " " };
        format!("{:+.1} %{star}", 100.0 * (after / before - 1.0))
    })
}
