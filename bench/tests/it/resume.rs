//! Runs that are killed at any moment: what they leave, and how they are finished.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Instant;

use crate::common::place::{Place, Row, TINY, table};
use crate::common::{Finished, Running, executable, finish, read_hlog};
use nix::sys::signal::Signal;

fn resume(folder: &Path) -> Command {
    let mut command = executable();
    command.arg("run").arg("--resume").arg(folder);
    command
}

/// Three blocks of two sections; every block has two arms.
fn options() -> Vec<&'static str> {
    vec!["--models", "thread,fork", "--blocks", "3"]
}

/// A file of a results folder as far as it has whole lines; empty if there is none.
fn whole_lines(place: &Place, name: &str) -> String {
    let mut text = fs::read_to_string(place.results().join(name)).unwrap_or_default();
    text.truncate(text.rfind('\n').map_or(0, |end| end + 1));
    text
}

/// The part of a finished run that depends on its scenario and seed alone.
fn structure(place: &Place) -> Vec<String> {
    let columns = |row: &Row, names: &[&str]| {
        let values = names.iter().map(|&name| row[name].as_str());
        values.collect::<Vec<_>>().join(" ")
    };
    // Without the instants: on a busy machine gaps become longer.
    let plan = ["driver", "model", "block", "round", "position"];
    let estimates = ["driver", "model", "metric"];
    let slices = place.rows("slices.csv");
    let blocks = place.rows("blocks.csv");
    let summary = place.rows("summary.csv");
    let tags = read_hlog(&place.results().join("latency.hlog"));
    slices
        .iter()
        .map(|row| columns(row, &plan))
        .chain(blocks.iter().map(|row| columns(row, &plan[..3])))
        .chain(summary.iter().map(|row| columns(row, &estimates)))
        .chain(tags.into_iter().map(|(tag, _)| tag))
        .collect()
}

/// Kills a run, and every attempt to resume it, until it is killed no more; so many times in all, each
/// time at a moment between its start and its end.
fn killed_and_resumed(moments: u32, seed: u64) {
    let reference = Place::new();
    let began = Instant::now();
    assert_eq!(finish(reference.run(&options())).code, Some(0));
    let whole_run = began.elapsed();
    let expected = structure(&reference);
    let mut random = fastrand::Rng::with_seed(seed);
    let mut place = Place::new();
    for _ in 0..moments {
        let before = whole_lines(&place, "blocks.csv");
        let run = if place.results().join("run.json").exists() {
            Running::start(resume(&place.results()))
        } else {
            Running::start(place.run(&options()))
        };
        thread::sleep(whole_run.mul_f64(random.f64()));
        run.signal(Signal::SIGKILL);
        // No process is left over, or this fails.
        run.end();
        let after = whole_lines(&place, "blocks.csv");
        assert!(after.starts_with(&before), "{before}\nbecame\n{after}");
        if !place.results().join("run.json").exists() {
            // Nothing had begun yet.
            place = Place::new();
            continue;
        }
        let shown = table(&place.results(), &[]);
        assert_eq!(shown.code, Some(0), "{shown:?}");
        if place.status() == "complete" {
            assert_eq!(structure(&place), expected);
            place = Place::new();
        }
    }
    if !place.results().join("run.json").exists() {
        return;
    }
    let before = whole_lines(&place, "blocks.csv");
    let last = finish(resume(&place.results()));
    assert_eq!(last.code, Some(0), "{last:?}");
    assert!(whole_lines(&place, "blocks.csv").starts_with(&before));
    assert_eq!(place.status(), "complete");
    assert_eq!(structure(&place), expected);
    assert_eq!(table(&place.results(), &[]).stdout, last.stdout);
}

#[test]
fn a_run_survives_kills_at_any_moment() {
    killed_and_resumed(8, 1);
}

#[test]
#[ignore = "takes a minute: cargo test -p echobench --test it resume:: -- --ignored"]
fn a_run_survives_fifty_kills() {
    killed_and_resumed(50, 2);
}

/// A finished run of two blocks, changed to look as if it had been killed after the first.
fn cut_short() -> Place {
    let place = Place::with(&TINY.replace(", \"processes\"", ""));
    let run = finish(place.run(&["--models", "thread,fork"]));
    assert_eq!(run.code, Some(0), "{run:?}");
    edit(&place, "run.json", |text| {
        text.replace("\"complete\"", "\"running\"")
    });
    edit(&place, "blocks.csv", |text| {
        let lines: Vec<_> = text.lines().take(3).collect();
        // And with a row of the next block, and half another one.
        lines.join("\n") + "\n" + lines[1].replace(",1,ok", ",2,ok").as_str() + "\n1,tiny,2,thr"
    });
    place
}

fn edit(place: &Place, name: &str, change: impl Fn(&str) -> String) {
    let path = place.results().join(name);
    let text = fs::read_to_string(&path).unwrap();
    let changed = change(&text);
    assert_ne!(changed, text, "{name}");
    fs::write(path, changed).unwrap();
}

fn refused(place: &Place, words: &[&str]) {
    let before = fs::read(place.results().join("slices.csv")).unwrap();
    finish(resume(&place.results())).refused(words);
    let after = fs::read(place.results().join("slices.csv")).unwrap();
    assert!(before == after, "a refused resumption changes nothing");
}

#[test]
fn unfinished_blocks_are_measured_again() {
    let place = cut_short();
    let first = whole_lines(&place, "blocks.csv");
    let first: Vec<_> = first.lines().take(3).collect();
    let run = finish(resume(&place.results()));
    assert_eq!(run.code, Some(0), "{run:?}");
    let all = whole_lines(&place, "blocks.csv");
    assert!(all.starts_with(&first.join("\n")), "{all}");
    let places: Vec<_> = place
        .rows("blocks.csv")
        .iter()
        .map(|row| format!("{} {}", row["block"], row["model"]))
        .collect();
    assert_eq!(places, ["1 thread", "1 fork", "2 thread", "2 fork"]);
    assert_eq!(place.rows("slices.csv").len(), 2 * 2 * 2);
    assert_eq!(read_hlog(&place.results().join("latency.hlog")).len(), 4);
    let record = fs::read_to_string(place.results().join("run.json")).unwrap();
    assert!(record.contains("\"resumed\": ["), "{record}");
}

/// The condition of a block is that of its traffic, too.
#[test]
fn a_run_with_several_kinds_of_traffic_is_finished() {
    let text = TINY.replace("payload_bytes = 64", "payload_bytes = [64, 1024]");
    let place = Place::with(&text.replace(", \"processes\"", ""));
    let run = finish(place.run(&["--models", "thread,fork"]));
    assert_eq!(run.code, Some(0), "{run:?}");
    edit(&place, "run.json", |text| {
        text.replace("\"complete\"", "\"running\"")
    });
    edit(&place, "blocks.csv", |text| {
        let lines: Vec<_> = text.lines().take(5).collect();
        lines.join("\n") + "\n"
    });

    let run = finish(resume(&place.results()));
    assert_eq!(run.code, Some(0), "{run:?}");
    let places: Vec<_> = place
        .rows("blocks.csv")
        .iter()
        .map(|row| format!("{} {} {}", row["block"], row["traffic"], row["model"]))
        .collect();
    let of_block = |block: u32| {
        ["64 B thread", "64 B fork", "1 KiB thread", "1 KiB fork"]
            .map(|place| format!("{block} {place}"))
    };
    assert_eq!(places, [of_block(1), of_block(2)].concat());
    assert_eq!(place.rows("slices.csv").len(), 2 * 2 * 2 * 2);
}

#[test]
fn a_wrong_reply_before_the_kill_is_not_forgotten() {
    let place = cut_short();
    edit(&place, "blocks.csv", |text| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let mut names = lines[0].split(',');
        let own_count = names.position(|name| name == "server_requests").unwrap();
        let mut fields: Vec<&str> = lines[1].split(',').collect();
        fields[own_count] = "1";
        lines[1] = fields.join(",");
        lines.join("\n")
    });
    let run = finish(resume(&place.results()));
    assert_eq!(run.code, Some(2), "{run:?}");
    assert!(run.stderr.contains("the server counted"), "{run:?}");
}

#[test]
fn what_cannot_be_resumed_is_said_in_a_line() {
    let place = cut_short();
    let whole = fs::read_to_string(place.results().join("run.json")).unwrap();
    for (from, to, words) in [
        (
            "\"running\"",
            "\"complete\"",
            ["complete", "echobench table"],
        ),
        (
            "\"executable_sha256\": \"",
            "\"executable_sha256\": \"0",
            ["another build", "new run"],
        ),
        (
            "\"cpu_model\": \"",
            "\"cpu_model\": \"Old ",
            ["machine", "old-"],
        ),
        (
            "\"models\": [",
            "\"models\": [ \"pool\",",
            ["blocks.csv", "does not plan"],
        ),
        (
            "\"clients\": [",
            "\"clients\": [ 3], \"x\": [",
            ["run.json", "line "],
        ),
    ] {
        edit(&place, "run.json", |text| text.replacen(from, to, 1));
        refused(&place, &words);
        fs::write(place.results().join("run.json"), &whole).unwrap();
    }
    let missing = place.path("missing");
    finish(resume(&missing)).refused(&[missing.to_str().unwrap(), "not a folder"]);
    let with_options = |options: &[&str]| -> Finished {
        let mut command = resume(&place.results());
        command.args(options);
        finish(command)
    };
    for options in [
        ["--seed", "3"],
        ["--blocks", "3"],
        ["--models", "thread"],
        ["--external", "mine=server {port}"],
    ] {
        with_options(&options).refused(&["--resume", options[0], "cannot be used with"]);
    }
    with_options(&["steady"]).refused(&["--resume", "SCENARIO"]);
    // After all that it can still be finished.
    assert_eq!(finish(resume(&place.results())).code, Some(0));
}

#[test]
fn lost_slices_are_noticed() {
    let place = cut_short();
    fs::remove_file(place.results().join("summary.csv")).unwrap();
    let shown = || {
        let mut report = executable();
        report.arg("report").arg(place.results());
        [table(&place.results(), &[]), finish(report)]
    };
    assert_eq!(shown().map(|end| end.code), [Some(0); 2]);

    let path = place.results().join("slices.csv");
    let whole = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = whole.lines().collect();
    // The first block has two slices of two arms.
    let shortened = [&lines[..4], &lines[..3], &lines[..1], &[]];
    for lines in shortened {
        let text: Vec<String> = lines.iter().map(|line| (*line).to_owned() + "\n").collect();
        fs::write(&path, text.concat()).unwrap();
        let words = [
            "slices.csv",
            " of 2 slices of tiny, 2 threads, ",
            "block 1",
            "restore",
        ];
        refused(&place, &words);
        for end in shown() {
            end.refused(&words);
        }
    }

    fs::write(&path, [&lines[..2], &lines[3..]].concat().join("\n") + "\n").unwrap();
    refused(&place, &["slices.csv has 1 of 2 slices", "block 1"]);

    for name in ["slices.csv", "latency.hlog"] {
        let path = place.results().join(name);
        let text = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        finish(resume(&place.results())).refused(&["has no", name, "restore"]);
        assert!(!path.exists(), "{name}");
        fs::write(&path, text).unwrap();
    }

    fs::write(&path, whole).unwrap();
    assert_eq!(finish(resume(&place.results())).code, Some(0));
}

#[test]
fn a_run_under_way_is_left_alone() {
    let place = Place::new();
    let run = Running::start(place.run(&["--models", "thread", "--blocks", "1000"]));
    run.processes_until(1, " drive");
    finish(resume(&place.results())).refused(&["another run is writing"]);
    run.signal(Signal::SIGINT);
    assert_eq!(run.end().code, Some(1));
    assert_eq!(place.status(), "interrupted");
}
