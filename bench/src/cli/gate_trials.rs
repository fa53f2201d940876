//! `echobench gate-trials`: the error rates of the gate on this machine (`scripts/gate-error-rates.sh`).

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;

use super::gate::{Form, record};
use crate::host::signals::{catch_interrupts, interrupted};
use crate::render::splice::splice;

use crate::gate::builds::Build;
use crate::gate::trials::{CONFIDENCE, RateRow, Seen, TrialRow, Trials, Truth};
use crate::host::files::write_file;
use crate::render::Style;
use crate::render::units::or_unknown;
use crate::results::{RunRecord, RunStatus};
use crate::{noteln, outln};

/// Run many gates between equal builds, half of them with a known slow-down, and count the errors.
#[derive(Args)]
pub struct GateTrialsArgs {
    /// How many gates
    #[arg(value_name = "N", required_unless_present = "from", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    gates: Option<u32>,

    /// Let something else use the CPUs at random meanwhile
    #[arg(long)]
    load: bool,

    /// The true slow-down of those that are slower, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=50))]
    slower: u32,

    #[command(flatten)]
    form: Form,

    /// A new folder for all verdicts and values
    #[arg(long, value_name = "DIR", required_unless_present = "from")]
    out: Option<PathBuf>,

    /// Show the rates of an earlier folder instead
    #[arg(long, value_name = "DIR", conflicts_with_all = ["gates", "out", "load"])]
    from: Option<PathBuf>,

    /// Replace the text between the markers `<!-- rates -->` and `<!-- /rates -->` of this document
    #[arg(long, value_name = "FILE", requires = "from")]
    into: Option<PathBuf>,
}

pub(super) fn run(args: &GateTrialsArgs) -> anyhow::Result<ExitCode> {
    if let Some(folder) = &args.from {
        let seen = Seen::read(folder)?;
        match &args.into {
            Some(document) => {
                let name = folder.display().to_string();
                let command = format!(
                    "echobench gate-trials --from {}",
                    name.trim_end_matches('/')
                );
                splice(document, "rates", &command, &text(&seen, Style::Markdown))?;
            }
            None => outln!("{}", text(&seen, Style::Plain)),
        }
        return Ok(ExitCode::SUCCESS);
    }
    let (Some(gates), Some(folder)) = (args.gates, &args.out) else {
        bail!("give a number of gates and --out DIR");
    };
    if folder.exists() {
        bail!(
            "{} is there already; results are never overwritten: give another --out",
            folder.display()
        );
    }
    let own = std::env::current_exe()?;
    let build = Build::open("candidate", &own)?;
    let gate = args.form.gate(build.clone(), build)?;
    if gate.scenario.models.len() != 1 {
        bail!(
            "trials are of one model, whose slow-down is calibrated: give one, as in --models thread"
        );
    }
    let mut record = record(&gate, args.form.effort_name());
    std::fs::create_dir_all(folder)
        .with_context(|| format!("cannot write to {}", folder.display()))?;
    let path = folder.join("run.json");
    let write =
        |record: &RunRecord| write_file(&path, serde_json::to_string_pretty(record)? + "\n");
    write(&record)?;
    catch_interrupts()?;
    let mut trials = Trials {
        gates,
        gate,
        share: f64::from(args.slower) / 100.0,
        load: args.load,
    };
    let seen = trials.run(folder, &|what| noteln!("{what}"))?;
    record.status = if interrupted() {
        RunStatus::Interrupted
    } else {
        RunStatus::Complete
    };
    record.environment.finish();
    write(&record)?;
    outln!("{}", text(&seen, Style::Plain));
    Ok(if interrupted() {
        noteln!(
            "interrupted: {} of {gates} gates are in {}",
            seen.trials.len(),
            folder.display()
        );
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// A line for each rule, a column for each truth.
fn text(seen: &Seen, style: Style) -> String {
    let rates = seen.rates();
    let mut rules: Vec<(&str, &str)> = rates
        .iter()
        .map(|row| (&row.rule[..], &row.said[..]))
        .collect();
    rules.dedup();
    let condition = |(rule, said): (&str, &str), truth| {
        let own = |row: &&RateRow| (&row.rule[..], &row.said[..], row.truth) == (rule, said, truth);
        or_unknown(rates.iter().find(own), |row| {
            let percent = |share: f64| format!("{:.1}", 100.0 * share);
            let (low, high) = (percent(row.low), percent(row.high));
            format!("{} of {} [{low}, {high}]", row.count, row.gates)
        })
    };
    let rows = rules.into_iter().map(|rule| {
        let mut cells = vec![rule.0.to_owned(), rule.1.to_owned()];
        cells.extend(TRUTHS.map(|truth| condition(rule, truth)));
        cells
    });
    let mut names = vec!["rule", "says"];
    names.extend(TRUTHS.map(title));
    let table = style.table(&names, rows.collect(), &[0, 1]);
    format!(
        "{table}\n\nIn brackets: exact intervals of the share at {:.0} %, in percent.\n{}",
        100.0 * CONFIDENCE,
        injected(seen)
    )
}

/// What the injected slow-downs came to.
fn injected(seen: &Seen) -> String {
    let estimate = |truth, value: fn(&TrialRow) -> Option<f64>| {
        or_unknown(seen.estimated(truth, value), |ratio| {
            format!("{:+.1} %", 100.0 * (ratio - 1.0))
        })
    };
    let line = |truth| {
        format!(
            "{}: throughput {}, CPU/request {}, p99 {}",
            title(truth),
            estimate(truth, |row| row.throughput_slowdown),
            estimate(truth, |row| row.cpu_slowdown),
            estimate(truth, |row| row.p99_slowdown)
        )
    };
    let lines = TRUTHS.map(line);
    format!(
        "Median slow-downs that the gates estimated: {}.",
        lines.join("; ")
    )
}

const TRUTHS: [Truth; 3] = [Truth::Equal, Truth::Cpu, Truth::Throughput];

fn title(truth: Truth) -> &'static str {
    match truth {
        Truth::Equal => "equal",
        Truth::Cpu => "slower in CPU/request",
        Truth::Throughput => "slower in throughput",
    }
}
