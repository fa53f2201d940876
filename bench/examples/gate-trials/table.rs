//! Table of error rates.

use echobench::gate::rule::GateMetric;
use echobench::render::Style;
use echobench::render::units::or_unknown;
use echobench::stats::proportion_interval;

use crate::resample::resample;
use crate::trials::{CONFIDENCE, RateRow, TrialResults, TrialRow, Truth};

/// Table of the error rates: a line for each rule and answer, a column for each truth.
pub(crate) fn text(results: &TrialResults, style: Style) -> String {
    let rates = results.rates();
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

    let truths = tried(results);
    let rows = rules.into_iter().map(|rule| {
        let mut cells = vec![rule.0.to_owned(), rule.1.to_owned()];
        cells.extend(truths.iter().map(|&truth| condition(rule, truth)));
        cells
    });

    let mut names = vec!["rule", "says"];
    names.extend(truths.iter().map(|&truth| title(truth)));
    let table = style.table(&names, rows.collect(), &[0, 1]);

    let text = format!(
        "{table}\n\nIn brackets: exact intervals of the share at {:.0} %, in percent.\n{}",
        100.0 * CONFIDENCE,
        injected(results)
    );
    let parts = [Some(text), resampled(results, style)];
    parts.into_iter().flatten().collect::<Vec<_>>().join("\n\n")
}

/// Table of gates over blocks that are drawn from the measured ones, a line for each truth and slow model.
fn resampled(results: &TrialResults, style: Style) -> Option<String> {
    let rows = resample(results, RESAMPLED);
    if rows.is_empty() {
        return None;
    }

    let share = |count: u64, gates: u64| {
        let (low, high) = proportion_interval(count, gates, CONFIDENCE);
        let percent = |share: f64| format!("{:.1}", 100.0 * share);
        format!("{count} [{}, {}]", percent(low), percent(high))
    };
    let cells = rows.iter().map(|row| {
        let mut cells = vec![
            title(row.truth).to_owned(),
            row.model.clone().unwrap_or_default(),
            share(row.regressions, row.gates),
            share(row.inconclusive, row.gates),
        ];
        let confirmed = |metric| row.confirmed.get(&metric).copied().unwrap_or(0).to_string();
        cells.extend(GateMetric::ALL.iter().map(|&metric| confirmed(metric)));
        cells
    });

    let mut names = vec!["resampled", "model", "regression", "inconclusive"];
    names.extend(GateMetric::ALL.iter().map(|metric| metric.title()));
    let table = style.table(&names, cells.collect(), &[0, 1]);
    let note = format!(
        "Each line: {RESAMPLED} gates of all models, as long as those above, in which one is slower; with exact intervals of the\n\
         share at {:.0} %, in percent, and the gates in which a line of each metric was confirmed. Blocks are drawn whole and with\n\
         replacement from those of the gates above; of equal builds, either of two is the candidate at random. The intervals\n\
         are those of the drawing, not of the blocks that were drawn from.",
        100.0 * CONFIDENCE
    );
    Some(format!("{table}\n\n{note}"))
}

/// Sentence on the slow-downs that the gates estimated.
fn injected(results: &TrialResults) -> String {
    let estimate = |truth, value: fn(&TrialRow) -> Option<f64>| {
        or_unknown(results.estimated(truth, value), |ratio| {
            format!("{:+.1} %", 100.0 * (ratio - 1.0))
        })
    };
    let line = |truth| {
        format!(
            "{}: throughput {}, CPU/request {}, p99 {}, p99 of a slice {}",
            title(truth),
            estimate(truth, |row| row.throughput_slowdown),
            estimate(truth, |row| row.cpu_slowdown),
            estimate(truth, |row| row.p99_slowdown),
            estimate(truth, |row| row.slice_p99_slowdown)
        )
    };

    let lines = tried(results).into_iter();
    let lines: Vec<String> = lines.map(|truth| format!("- {}", line(truth))).collect();
    format!(
        "Median slow-downs that the gates estimated:\n\n{}",
        lines.join("\n")
    )
}

/// The truths of the gates, in the order of every table.
fn tried(results: &TrialResults) -> Vec<Truth> {
    let is_tried = |truth: &Truth| results.trials.iter().any(|row| row.truth == *truth);
    TRUTHS.into_iter().filter(is_tried).collect()
}

const TRUTHS: [Truth; 4] = [Truth::Equal, Truth::Cpu, Truth::Throughput, Truth::Tail];
/// Resampled gates in a line: without an error, the interval of its rate is less than 1 % wide.
const RESAMPLED: u64 = 500;

fn title(truth: Truth) -> &'static str {
    match truth {
        Truth::Equal => "equal",
        Truth::Cpu => "slower in CPU/request",
        Truth::Throughput => "slower in throughput",
        Truth::Tail => "worse in the tail",
    }
}
