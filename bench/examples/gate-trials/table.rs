//! Table of error rates.

use echobench::render::Style;
use echobench::render::units::or_unknown;

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
        injected(results)
    )
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
