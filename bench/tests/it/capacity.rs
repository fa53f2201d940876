//! Capacity: a search on disk and in tables, resumed with the same rates, and against a server whose capacity is
//! known.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use crate::common::place::{Place, Row, TINY, number, table};
use crate::common::{executable, finish};
use echobench::stats::md1;

/// A search of at most three steps with two arms that keep any objective.
fn place() -> Place {
    let text = TINY
        .replace("gap = \"3ms\"", "gap = \"20ms\"")
        .replace(
            "[\"thread\", \"async\", \"pool --workers 3\"]",
            "[\"thread\", \"async\"]",
        )
        .replace(
            "drivers = [\"threads\", \"processes\"]",
            "drivers = [\"threads\"]\nslo = \"p50=10s\"",
        )
        .replace(
            "[quick]",
            "[capacity]\nsteps = 3\npeak_blocks = 1\n\n[quick]",
        )
        .replace("blocks = 2", "blocks = 6");
    Place::with(&text)
}

/// The rates of a search, by step and arm.
fn rates(place: &Place) -> BTreeMap<(u64, String), String> {
    let rows = place.rows("blocks.csv").into_iter();
    let steps = rows.filter(|row| !row["step"].is_empty());
    steps
        .map(|row| {
            (
                (number(&row, "step"), row["model"].clone()),
                row["rate_per_second"].clone(),
            )
        })
        .collect()
}

fn rate(row: &Row) -> f64 {
    row["rate_per_second"].parse().unwrap()
}

#[test]
fn a_search_is_stored_shown_again_and_resumed_with_the_same_rates() {
    let place = place();
    let run = finish(place.run(&[]));
    assert_eq!(run.code, Some(0), "{run:?}");
    for words in [
        "kept up to",
        "missed at",
        "Highest rate that keeps p50=10s",
        "The steps of the search",
    ] {
        assert!(run.stdout.contains(words), "{words}: {run:?}");
    }
    assert!(run.stderr.contains("at most 3 steps"), "{run:?}");

    let blocks = place.rows("blocks.csv");
    let peaks: Vec<&Row> = blocks.iter().filter(|row| row["step"].is_empty()).collect();
    assert_eq!(peaks.len(), 2, "a block of each arm");
    for peak in peaks {
        let first = blocks
            .iter()
            .find(|row| row["step"] == "1" && row["model"] == peak["model"]);
        let peak: f64 = peak["throughput_per_second"].parse().unwrap();
        assert!((rate(first.unwrap()) - peak / 2.0).abs() < 1e-6 * peak);
    }
    let searched = rates(&place);
    assert!(
        searched.keys().all(|(step, _)| (1..=3).contains(step)),
        "{searched:?}"
    );
    let again = table(&place.results(), &[]);
    assert!(
        again.stdout.contains("Highest rate that keeps p50=10s"),
        "{again:?}"
    );

    // Without its last block, the run goes on with the rates that it had.
    let path = place.results().join("blocks.csv");
    let text = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    fs::write(&path, lines[..lines.len() - 2].join("\n") + "\n").unwrap();
    let record = place.results().join("run.json");
    let text = fs::read_to_string(&record).unwrap();
    fs::write(&record, text.replace("\"complete\"", "\"interrupted\"")).unwrap();
    let mut resume = executable();
    resume.args(["run", "--resume"]).arg(place.results());
    let resumed = finish(resume);
    assert_eq!(resumed.code, Some(0), "{resumed:?}");

    let last = *searched.keys().map(|(step, _)| step).max().unwrap();
    let after = rates(&place);
    for ((step, model), rate) in &searched {
        if *step <= last {
            assert_eq!(
                after.get(&(*step, model.clone())),
                Some(rate),
                "step {step}, {model}"
            );
        }
    }
    assert_eq!(place.rows("blocks.csv").len(), blocks.len());
}

#[test]
fn a_search_needs_an_objective_and_time() {
    let place = Place::new();
    for (options, words) in [
        (&["--capacity"][..], ["--slo", "not provided"]),
        (
            &["--capacity", "--slo", "p99=1ms", "--rate", "5"],
            ["--capacity", "--rate"],
        ),
        (
            &["--capacity", "--slo", "p99=1ms", "--precision", "5"],
            ["--precision", "5%"],
        ),
        (
            &["--capacity", "--slo", "p99=1ms", "--max-time", "1ms"],
            ["--max-time", "more time"],
        ),
        (&["--precision", "5%"], ["--slo", "not provided"]),
    ] {
        place.refuses(place.run(options), &words);
    }
}

/// A figure of the summary.
fn estimate(place: &Place, metric: &str, step: &str) -> f64 {
    let rows = place.rows("summary.csv");
    let row = rows
        .iter()
        .find(|row| row["metric"] == metric && row["step"] == step);
    row.expect(metric)["estimate"].parse().unwrap()
}

/// One thread whose requests take 500 µs of CPU time, in slices that are long enough for its queue.
const ONE_THREAD: &str = r#"question = "Is the capacity that the search finds that of M/D/1?"
models = ["reactor --workers 1"]
clients = 128
slo = "p99=10ms"

[traffic]
work = "spin:500us"

[capacity]
steps = 7

[quick]
slice = "400ms"
ramp = "100ms"
"#;

/// The tables of a run that may take minutes.
fn measure(command: &mut Command) -> String {
    let run = command.output().unwrap();
    assert_eq!(run.status.code(), Some(0), "{run:?}");
    String::from_utf8(run.stdout).unwrap()
}

/// One thread that serves requests of a known time under Poisson arrivals is the queue M/D/1: its capacity follows
/// from theory. Measures for three minutes, and needs a machine with nothing else on it.
#[test]
#[ignore = "measures for three minutes on a quiet machine: cargo test -p echobench --test it capacity:: -- --ignored"]
fn the_capacity_of_a_real_server_is_that_of_queueing_theory() {
    // The time outside of the server, where no request waits.
    let alone = Place::new();
    let mut command = executable();
    command
        .args([
            "run",
            "--models",
            "reactor --workers 1",
            "--work",
            "spin:500us",
        ])
        .args(["--clients", "1", "--blocks", "6", "--out"])
        .arg(alone.results());
    measure(&mut command);
    let service = estimate(&alone, "cpu_ns_per_request", "");
    let outside = estimate(&alone, "latency_p50_ns", "") - service;

    let place = Place::with(ONE_THREAD);
    let limit = 10e6;
    let table = measure(&mut place.run(&[]));
    let last = place
        .rows("summary.csv")
        .iter()
        .map(|row| row["step"].clone())
        .max()
        .unwrap();
    let busy = estimate(&place, "cpu_ns_per_request", &last);
    let expected = 1e9 * md1::capacity(busy, limit - outside, 0.99);

    let row = table.lines().find(|line| line.contains("reactor")).unwrap();
    println!("{table}\nservice {busy} ns, outside of it {outside} ns; M/D/1: {expected:.0}/s");
    let (kept, missed) = bracket(&table);
    let middle = (kept * missed).sqrt();
    println!(
        "{row}\nmeasured {kept} to {missed}, middle {middle:.0}: {:+.1} %",
        100.0 * (middle / expected - 1.0)
    );
    assert!((middle / expected - 1.0).abs() < 0.05);
}

/// The two rates of the sentence on the capacity of the only arm.
fn bracket(table: &str) -> (f64, f64) {
    let (_, sentence) = table.rsplit_once("Highest rate that keeps").unwrap();
    let rate = |text: &str| -> f64 {
        let digits: String = text.chars().filter(char::is_ascii_digit).collect();
        digits.parse().unwrap()
    };
    let mut rates = sentence
        .split("/s")
        .take(2)
        .map(|part| part.rsplit(' ').next().unwrap());
    (rate(rates.next().unwrap()), rate(rates.next().unwrap()))
}
