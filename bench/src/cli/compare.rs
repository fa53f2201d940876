//! `echobench compare`: two committed runs beside each other.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use clap::Args;

use crate::outln;
use crate::render::Style;
use crate::render::units::or_unknown;
use crate::results::SummaryRow;
use crate::run::history::{Key, Run, by_key};

/// Put two results folders beside each other: ratios within each run, and absolute figures where
/// both ran on the same kind of machine.
#[derive(Args)]
pub struct CompareArgs {
    /// The earlier results folder
    before: PathBuf,

    /// The later results folder
    after: PathBuf,

    /// Also if they ran on different kinds of machines; then ratios only
    #[arg(long)]
    allow_unlike: bool,
}

pub(super) fn run(args: &CompareArgs) -> anyhow::Result<ExitCode> {
    let (before, after) = (Run::read(&args.before)?, Run::read(&args.after)?);
    let unlike = before.difference(&after);
    if let Some(unlike) = &unlike
        && !args.allow_unlike
    {
        bail!(
            "the machines were not of the same kind: {unlike}; --allow-unlike compares ratios only"
        );
    }
    let (earlier, later) = (by_key(&before.summary), by_key(&after.summary));
    let rows: Vec<_> = earlier
        .iter()
        .filter_map(|(key, row)| Some(line(key, row, later.get(key)?, unlike.is_none())))
        .collect();
    if rows.is_empty() {
        bail!("the two runs have no arm in common");
    }
    let mut names = super::history::KEY.to_vec();
    names.extend(["ratio before", "ratio after", "change"]);
    if unlike.is_none() {
        names.extend(["before", "after", "change"]);
    }
    outln!("{}", Style::Plain.table(&names, rows, &[0, 2, 3, 4, 5]));
    outln!(
        "\nRatio: to the reference arm of the same run. * the intervals of the two runs do not overlap."
    );
    if let Some(unlike) = unlike {
        outln!("Ratios only, since the machines were not of the same kind: {unlike}.");
    }
    Ok(ExitCode::SUCCESS)
}

fn line(key: &Key, before: &SummaryRow, after: &SummaryRow, absolute: bool) -> Vec<String> {
    let section = &key.section;
    let load = section
        .load_percent
        .map(|percent| format!(" at {percent} %"));
    let mut cells = vec![
        format!("{}{}", section.scenario, load.unwrap_or_default()),
        section.clients.to_string(),
        section.driver.to_string(),
        section.placement.to_string(),
        key.model.clone(),
        key.metric.clone(),
    ];
    let ratio = |row: &SummaryRow| or_unknown(row.ratio, |ratio| format!("{ratio:.3}"));
    let ends = |row: &SummaryRow| row.ratio_low.zip(row.ratio_high);
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

/// The change in percent, with a star when the intervals are apart.
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
