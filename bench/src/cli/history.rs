//! `echobench history`: the ratios of each arm over all committed runs.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::outln;
use crate::render::Style;
use crate::run::history::{ALPHA, RUNS_EACH_SIDE, Run, Series, series};

/// List the ratios of each arm over the committed runs, oldest first, and mark where they changed.
/// Advisory: the exit code is 0 whatever is found.
#[derive(Args)]
pub struct HistoryArgs {
    /// A folder of results folders
    #[arg(default_value = "results")]
    folder: PathBuf,
}

pub(super) fn run(args: &HistoryArgs) -> anyhow::Result<ExitCode> {
    let runs = Run::read_all(&args.folder)?;
    let mut rest: Vec<&Run> = runs.iter().collect();
    while let Some(first) = rest.first() {
        let first = *first;
        let (alike, others): (Vec<_>, Vec<_>) = rest
            .into_iter()
            .partition(|run| run.difference(first).is_none());
        let awake = if first.awake { ", CPUs awake" } else { "" };
        print_runs(&format!("{}{awake}", first.machine.slug()), &alike);
        rest = others;
    }
    outln!(
        "Ratios to the reference arm of the same run, oldest first. A change is marked with at least \
         {RUNS_EACH_SIDE} runs on each side, and a false one with a probability of at most {:.0} % over \
         all rows of a table.",
        100.0 * ALPHA
    );
    Ok(ExitCode::SUCCESS)
}

/// What tells the ratios of committed runs apart, in tables.
pub(super) const KEY: [&str; 6] = [
    "scenario",
    "clients",
    "driver",
    "placement",
    "model",
    "metric",
];

fn print_runs(machine: &str, runs: &[&Run]) {
    outln!("{machine}, runs: {}", runs.len());
    for (place, run) in runs.iter().enumerate() {
        outln!("  {}  {}", place + 1, run.name);
    }
    let names = [&KEY[..], &["ratios", "change"]].concat();
    let rows = series(runs)
        .into_iter()
        .map(|series| cells(&series, runs))
        .collect();
    outln!(
        "\n{}\n",
        Style::Plain.table(&names, rows, &[0, 2, 3, 4, 5, 6, 7])
    );
}

fn cells(series: &Series, runs: &[&Run]) -> Vec<String> {
    let section = &series.key.section;
    let load = section
        .load_percent
        .map(|percent| format!(" at {percent} %"));
    let ratios: Vec<String> = series
        .ratios
        .iter()
        .map(|(_, ratio)| format!("{ratio:.2}"))
        .collect();
    let change = series.change.map(|change| {
        let (place, _) = series.ratios[change.at];
        format!("from {} on (p {:.4})", runs[place].name, change.p)
    });
    vec![
        format!("{}{}", section.scenario, load.unwrap_or_default()),
        section.clients.to_string(),
        section.driver.to_string(),
        section.placement.to_string(),
        series.key.model.clone(),
        series.key.metric.clone(),
        ratios.join(" "),
        change.unwrap_or_default(),
    ]
}
