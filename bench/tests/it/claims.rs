//! The ledger of claims from outside: what it prints, what it leaves on disk, and what it leaves
//! behind.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::common::{Finished, Running, executable, finish};
use nix::sys::signal::Signal;
use tempfile::TempDir;

/// The names of the columns: a change of one needs another schema version.
pub(crate) const COLUMNS: &str = "\
    schema_version,claim,metric,at,headline,value,low,high,level,blocks,verdict,condition,validity";

fn claims(arguments: &[&str]) -> Command {
    let mut command = executable();
    command.arg("claims").args(arguments);
    command
}

fn rows(folder: &Path) -> Vec<csv::StringRecord> {
    let mut reader = csv::Reader::from_path(folder.join("claims.csv")).unwrap();
    assert_eq!(
        reader
            .headers()
            .unwrap()
            .iter()
            .collect::<Vec<_>>()
            .join(","),
        COLUMNS
    );
    reader.records().map(Result::unwrap).collect()
}

/// The value of a figure, and the verdict beside it.
fn figure(rows: &[csv::StringRecord], metric: &str, at: &str) -> (String, String) {
    let row = rows.iter().find(|row| &row[2] == metric && &row[3] == at);
    let row = row.unwrap_or_else(|| panic!("no {metric} at '{at}': {rows:?}"));
    (row[5].to_owned(), row[10].to_owned())
}

/// It comes to verdicts, or says that the machine was too busy for one.
fn judged(finished: &Finished) {
    assert!(matches!(finished.code, Some(0 | 3)), "{finished:?}");
}

#[test]
fn claims_that_count_are_judged_kept_and_shown_again() {
    let place = TempDir::new().unwrap();
    let folder = place.path().join("results");
    let path = folder.to_str().unwrap();
    let run = finish(claims(&["C3", "c9", "C12", "--quick", "--out", path]));
    assert_eq!(run.code, Some(0), "{run:?}");
    let rows = rows(&folder);
    let pair = |value: &str, verdict: &str| (value.to_owned(), verdict.to_owned());
    for (metric, at, value, verdict) in [
        ("zombies", "fork", "0.0", "holds"),
        ("zombies", "fork without reaper", "1000.0", "holds"),
        ("bytes_lost_or_wrong", "", "0.0", "holds_only_when"),
        ("short_sends_share", "blocking", "0.0", "holds_only_when"),
        ("answered_share", "async", "1.0", "holds"),
        ("answered_share", "fork", "0.0", "holds"),
        ("told_so_share", "fork", "1.0", "holds"),
    ] {
        assert_eq!(
            figure(&rows, metric, at),
            pair(value, verdict),
            "{metric} at {at}"
        );
    }
    let record = fs::read_to_string(folder.join("run.json")).unwrap();
    assert!(record.contains("\"status\": \"complete\""), "{record}");
    for words in ["C3 ", "HOLDS ONLY WHEN: ", "zombies, fork without reaper"] {
        assert!(run.stdout.contains(words), "no '{words}': {run:?}");
    }
    assert!(
        run.stdout.lines().all(|line| line.chars().count() <= 100),
        "{run:?}"
    );

    let again = finish(claims(&["--from", path]));
    assert_eq!((again.code, &again.stdout), (Some(0), &run.stdout));
    let one = finish(claims(&["C12", "--from", path]));
    assert!(
        one.stdout.starts_with("C12 ") && !one.stdout.contains("zombies"),
        "{one:?}"
    );

    finish(claims(&["C3", "--quick", "--out", path])).refused(&["not empty", "--out"]);
}

#[test]
fn a_document_gets_the_ledger_and_the_command_that_makes_it() {
    let place = TempDir::new().unwrap();
    let (folder, document) = (place.path().join("results"), place.path().join("doc.md"));
    fs::write(
        &document,
        "before\n<!-- claims -->\nfrom before\n<!-- /claims -->\nafter\n",
    )
    .unwrap();

    let (folder, path) = (folder.to_str().unwrap(), document.to_str().unwrap());
    let run = finish(claims(&["C3", "--quick", "--out", folder, "--into", path]));

    assert_eq!((run.code, run.stdout.as_str()), (Some(0), ""), "{run:?}");

    let text = fs::read_to_string(&document).unwrap();
    let begin = format!("before\n<!-- claims -->\n`echobench claims --from {folder}`\n\n| claim |");

    assert!(text.starts_with(&begin), "{text}");
    assert!(
        text.contains("| **holds** |") && !text.contains("from before"),
        "{text}"
    );
    assert!(text.ends_with("\n<!-- /claims -->\nafter\n"), "{text}");

    fs::write(&document, "no markers").unwrap();
    finish(claims(&["--from", folder, "--into", path])).refused(&["no line <!-- claims -->"]);
}

#[test]
fn orders_and_storms_are_measured_on_threads_and_processes() {
    let place = TempDir::new().unwrap();
    let folder = place.path().join("results");
    let path = folder.to_str().unwrap();
    let run = finish(claims(&["C6", "C11", "--quick", "--out", path]));
    judged(&run);
    let rows = rows(&folder);
    let (lost, verdict) = figure(&rows, "lost_or_wrong_replies", "");

    assert_eq!(
        (lost.as_str(), verdict.as_str()),
        ("0.0", "holds_only_when")
    );
    assert_eq!(
        figure(&rows, "broken_off_share", "read, restarted").0,
        "0.0"
    );

    for driver in ["threads", "processes"] {
        let share: f64 = figure(&rows, "out_of_order_share", driver)
            .0
            .parse()
            .unwrap();
        let tau: f64 = figure(&rows, "tau", driver).0.parse().unwrap();
        assert!((0.0..=1.0).contains(&share) && (-1.0..=1.0).contains(&tau));
    }
}

#[test]
fn wrong_words_are_answered_with_the_right_ones() {
    finish(claims(&["C99"])).refused(&["unknown claim 'C99'", "C1, C2", "C13"]);
    finish(claims(&["C3", "C3"])).refused(&["'C3' is named twice"]);
    finish(claims(&["--from", "/nowhere"])).refused(&["/nowhere is not a folder"]);
    let empty = TempDir::new().unwrap();
    let path = empty.path().to_str().unwrap();
    finish(claims(&["--from", path])).refused(&["no claims.csv"]);
}

#[test]
fn the_list_has_every_rule() {
    let documented = include_str!("../../../docs/claims.md");
    let rules = documented.matches("\n  Rule: ").count();
    let list = finish(claims(&["--list"]));
    assert_eq!(list.code, Some(0), "{list:?}");
    assert_eq!(list.stdout.matches("rule: ").count(), rules, "{list:?}");
    assert!(rules >= 13, "docs/claims.md has {rules} rules");
    let all = finish(claims(&["--list", "--markdown"]));
    assert!(
        documented.ends_with(&all.stdout),
        "the list in docs/claims.md is out of date: scripts/report.sh"
    );
}

#[test]
fn the_documented_verdicts_are_those_of_the_committed_run() {
    let documented = include_str!("../../../docs/claims.md");
    let (_, rest) = documented.split_once("`echobench claims --from ").unwrap();
    let folders = rest.split('`').next().unwrap();
    let mut command = claims(&["--markdown", "--from"]);
    command.args(folders.split(' '));
    command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let ledger = finish(command);
    assert!(ledger.stdout.contains("**C13**"), "{ledger:?}");
    assert!(
        documented.contains(&ledger.stdout),
        "docs/claims.md is out of date: scripts/report.sh"
    );
}

#[test]
fn a_killed_ledger_leaves_readable_rows_and_no_processes() {
    let place = TempDir::new().unwrap();
    let folder = place.path().join("results");
    let path = folder.to_str().unwrap();
    let run = Running::start(claims(&["C3", "C13", "--quick", "--out", path]));
    // In the midst of the second one.
    run.processes_until(1, " serve --drain 200ms thread");
    crate::common::eventually(
        || (rows_if_any(&folder) > 0).then_some(()),
        || rows_if_any(&folder),
    );

    run.processes_until(1, " drive");
    run.signal(Signal::SIGKILL);
    let run = run.end();

    assert_eq!(run.code, None, "{run:?}");

    let rows = rows(&folder);
    assert!(rows.iter().all(|row| &row[1] == "C3"), "{rows:?}");

    let again = finish(claims(&["--from", path]));
    assert!(again.stdout.starts_with("C3 "), "{again:?}");
}

fn rows_if_any(folder: &Path) -> usize {
    fs::read_to_string(folder.join("claims.csv")).map_or(0, |text| text.lines().count())
}

#[test]
fn an_interrupted_ledger_shows_what_it_has() {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let place = TempDir::new().unwrap();
        let folder = place.path().join("results");
        let path = folder.to_str().unwrap();
        let run = Running::start(claims(&["C3", "C13", "--quick", "--out", path]));
        crate::common::eventually(
            || (rows_if_any(&folder) > 0).then_some(()),
            || rows_if_any(&folder),
        );
        run.processes_until(1, " drive");
        run.signal(signal);
        let run = run.end();

        assert_eq!(run.code, Some(1), "{signal}: {run:?}");
        assert!(run.stdout.starts_with("C3 "), "{run:?}");
        assert!(run.stderr.contains("· interrupted\n"), "{run:?}");
        assert!(run.stderr.contains("results in "), "{run:?}");
        assert!(rows(&folder).iter().all(|row| &row[1] == "C3"));
        let record = fs::read_to_string(folder.join("run.json")).unwrap();
        assert!(record.contains("\"status\": \"interrupted\""), "{record}");
    }
}

#[test]
fn a_document_without_markers_is_found_before_the_measurement() {
    let place = TempDir::new().unwrap();
    let (folder, document) = (place.path().join("results"), place.path().join("doc.md"));
    fs::write(&document, "no markers").unwrap();
    let (out, path) = (folder.to_str().unwrap(), document.to_str().unwrap());
    finish(claims(&["--quick", "--out", out, "--into", path]))
        .refused(&["no line <!-- claims -->"]);
    assert!(!folder.exists());
    assert_eq!(fs::read_to_string(&document).unwrap(), "no markers");
}

#[test]
fn a_full_output_costs_no_rows() {
    let place = TempDir::new().unwrap();
    let folder = place.path().join("results");
    let mut command = claims(&["C3", "--quick", "--out", folder.to_str().unwrap()]);
    let full = || fs::File::options().write(true).open("/dev/full").unwrap();
    command
        .stdin(std::process::Stdio::null())
        .stdout(full())
        .stderr(full());
    let status = command.status().unwrap();
    assert_eq!(status.code(), Some(1));
    assert_eq!(rows(&folder).len(), 4);
    let record = fs::read_to_string(folder.join("run.json")).unwrap();
    assert!(record.contains("\"status\": \"complete\""), "{record}");
}
