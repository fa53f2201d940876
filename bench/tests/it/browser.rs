//! The reports of the committed runs in a real browser: nothing goes wrong in them, nothing is cut off or
//! overlaps, and they show the numbers of `summary.csv`. Without Chromium there is nothing to test.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::common::{executable, finish};
use echobench::processes::child::bind_lifetime;
use echobench::results::{Metric, SummaryRow, read_summary};
use serde::Deserialize;
use tempfile::TempDir;

/// Findings of a script in the page.
#[derive(Deserialize)]
struct Found {
    width: f64,
    dark: bool,
    problems: Vec<String>,
    charts: usize,
    marks: Vec<Shown>,
    cells: Vec<Shown>,
}

#[derive(Deserialize)]
struct Shown {
    arm: String,
    /// Run of a value on a page of two runs.
    run: Option<String>,
    metric: String,
    value: f64,
    low: Option<f64>,
    high: Option<f64>,
    text: String,
}

const BEFORE: &str = "<script>window.problems = []; addEventListener('error', (event) => \
                      problems.push('error: ' + event.message));</script>";
const AFTER: &str = include_str!("common/look.js");

/// No network, nothing in the background, nothing of the user's.
const FLAGS: [&str; 10] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    // The page tells the one around it what it found.
    "--allow-file-access-from-files",
];

fn chromium() -> Option<String> {
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let found = |name: &&str| {
        let version = Command::new(name)
            .arg("--version")
            .stderr(Stdio::null())
            .output();
        version.is_ok_and(|output| output.status.success())
    };
    names.into_iter().find(found).map(str::to_owned)
}

/// Opens the page in a frame of this width, as a window has a least one, and lets the script look at it.
fn look(browser: &str, page: &Path, width: u32, dark: bool) -> Found {
    let profile = TempDir::new().unwrap();
    let around = page.with_file_name("around.html");
    let frame = format!(
        "<!DOCTYPE html><meta charset=\"utf-8\"><meta name=\"color-scheme\" content=\"light dark\">\
         <link rel=\"icon\" href=\"data:,\"><body style=\"margin: 0\">\
         <iframe src=\"report.html\" style=\"border: 0; width: {width}px; height: 900px\"></iframe>"
    );

    fs::write(&around, frame).unwrap();
    let scheme = u8::from(!dark);
    let mut command = Command::new("timeout");
    command
        .args(["120", browser])
        .args(FLAGS)
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("--blink-settings=preferredColorScheme={scheme}"))
        .arg("--window-size=1440,1000")
        .arg("--dump-dom")
        .arg(format!("file://{}", around.display()))
        .stdin(Stdio::null());

    let output = bind_lifetime(&mut command)
        .output()
        .expect("timeout is there");
    let (dom, talk) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );

    let said: Vec<&str> = talk
        .lines()
        .filter(|line| line.contains("CONSOLE"))
        .collect();

    assert!(said.is_empty(), "{said:?}");

    let found = dom
        .split_once("<pre id=\"found\">")
        .and_then(|(_, rest)| rest.split_once("</pre>"));
    let (found, _) = found.unwrap_or_else(|| panic!("no result from {browser}: {talk}"));
    serde_json::from_str(found).expect("what the script found")
}

/// The first committed results that a document has the output of this command from.
fn committed(document: &str, command: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let text = fs::read_to_string(root.join(document)).unwrap();
    let (_, rest) = text.split_once(command).expect("the command");
    root.join(rest.split(['`', ' ']).next().unwrap())
}

/// Makes the report of one or two results folders, looks at it in windows of all kinds, and shows what is found.
fn look_at_report(folders: &[&Path], each: impl Fn(&Found)) {
    let Some(browser) = chromium() else {
        eprintln!("skipped: there is no Chromium");
        return;
    };

    let out = TempDir::new().unwrap();
    let page = out.path().join("report.html");
    let mut command = executable();
    command.arg("report").args(folders).arg("-o").arg(&page);

    assert_eq!(finish(command).code, Some(0));

    let html = fs::read_to_string(&page).unwrap();
    assert!(
        !html.contains("http://")
            || html.matches("http://").count() == html.matches("xmlns=").count()
    );

    let html = html.replacen("<head>", &format!("<head>{BEFORE}"), 1);
    fs::write(
        &page,
        html.replacen("</body>", &format!("<script>{AFTER}</script></body>"), 1),
    )
    .unwrap();

    let pictures = fs::read_dir(page.with_extension("")).unwrap().count();
    for width in [360, 800, 1400] {
        for dark in [false, true] {
            let found = look(&browser, &page, width, dark);
            let place = format!("at {width}, dark: {dark}");
            assert_eq!(found.problems, Vec::<String>::new(), "{place}");
            assert_eq!((found.width, found.dark), (f64::from(width), dark));
            assert_eq!(found.charts, pictures, "{place}");
            each(&found);
        }
    }
}

#[test]
fn the_report_of_the_committed_run_is_whole_and_true() {
    let folder = committed("docs/results.md", "`echobench table ");
    let summary = read_summary(&folder).unwrap().expect("a summary");
    look_at_report(&[&folder], |found| equal(&summary, found));
}

#[test]
fn the_report_of_the_committed_claims_is_whole() {
    let folder = committed("docs/claims.md", "`echobench claims --from ");
    look_at_report(&[&folder], |found| assert!(found.charts > 0));
}

#[test]
fn the_report_of_two_committed_runs_is_whole_and_true() {
    let results = Path::new(env!("CARGO_MANIFEST_DIR")).join("../results");
    let names = [
        "2026-11-21-75b2800-xeon-2cpu-kvm",
        "2026-11-21-eddd0ca-xeon-2cpu-kvm",
    ];
    let folders = names.map(|name| results.join(name));
    let [before, after] = folders
        .each_ref()
        .map(|folder| read_summary(folder).unwrap().unwrap());

    look_at_report(&[&folders[0], &folders[1]], |found| {
        for (name, summary) in [("before", &before), ("after", &after)] {
            let marks = found
                .marks
                .iter()
                .filter(|mark| mark.run.as_deref() == Some(name));
            let marks: Vec<&Shown> = marks.collect();
            for mark in &marks {
                let is_own = |row: &&SummaryRow| {
                    row.condition().tag(&row.model) == mark.arm && row.metric.name() == mark.metric
                };
                shows(mark, summary.iter().find(is_own));
            }
            let throughputs = summary
                .iter()
                .filter(|row| row.metric == Metric::Throughput);
            assert_eq!(marks.len(), 3 * throughputs.count(), "{name}");
        }
    });
}

/// Every number shown is one of the summary, and every throughput of the summary is shown.
fn equal(summary: &[SummaryRow], found: &Found) {
    let key = |row: &SummaryRow| {
        (
            row.condition().tag(&row.model),
            row.metric.name().to_owned(),
        )
    };

    let rows: HashMap<_, &SummaryRow> = summary.iter().map(|row| (key(row), row)).collect();
    for shown in found.marks.iter().chain(&found.cells) {
        let row = rows.get(&(shown.arm.clone(), shown.metric.clone()));
        shows(shown, row.copied());
    }

    for row in summary
        .iter()
        .filter(|row| row.metric == Metric::Throughput && row.estimate.is_some())
    {
        let tag = row.condition().tag(&row.model);
        let here = |shown: &&Shown| shown.arm == tag && shown.metric == row.metric.name();
        assert!(
            found.marks.iter().any(|shown| here(&shown)),
            "{tag} is in no chart"
        );
        assert!(
            row.load_percent.is_some() || found.cells.iter().any(|shown| here(&shown)),
            "{tag} is in no table"
        );
    }
}

/// The values of a mark or a cell are those of a row, also in its words.
fn shows(shown: &Shown, row: Option<&SummaryRow>) {
    let place = format!("{} {}", shown.arm, shown.metric);
    let row = row.expect(&place);
    let is_estimate = same(Some(shown.value), row.estimate);
    assert!(is_estimate, "{place}: {}", shown.value);
    if shown.low.is_some() {
        let interval = same(shown.low, row.low) && same(shown.high, row.high);
        assert!(interval, "{place}: {:?} to {:?}", shown.low, shown.high);
    }

    let far = (number(&shown.text) - shown.value).abs();
    assert!(
        far <= 0.5 || far <= shown.value.abs() * 0.006,
        "{place}: {} is not {}",
        shown.text,
        shown.value
    );
}

/// Equal but for the last digit, which reading JSON may cost.
fn same(a: Option<f64>, b: Option<f64>) -> bool {
    matches!((a, b), (Some(a), Some(b)) if (a - b).abs() <= b.abs() * 1e-12)
}

/// The value of a number with a unit.
fn number(text: &str) -> f64 {
    let text = text.replace(',', "");
    let (number, unit) = text.split_once(' ').unwrap_or((&text, ""));
    let factor = match unit {
        "" | "ns" | "B" => 1.0,
        "µs" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        "KiB" => 1024.0,
        "MiB" => 1024.0 * 1024.0,
        other => panic!("no unit: {other}"),
    };

    let number = number.trim_end_matches("/s");
    number
        .parse::<f64>()
        .unwrap_or_else(|error| panic!("{text}: {error}"))
        * factor
}
