//! The report of made-up runs and ledgers in which something is missing, its errors about damaged folders, and
//! the pictures that are committed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::common::{Finished, executable, finish};
use echobench::host::environment::Environment;
use echobench::results::ClaimVerdict;
use echobench::results::histogram_log::interval_line;
use echobench::results::summary::summarize;
use echobench::results::{
    BlockRow, BlockStatus, ClaimRow, ClaimsWriter, EffortName, RunRecord, RunStatus,
    SCHEMA_VERSION, SliceRow, Validity, Writer, read_claims,
};
use echobench::scenario::Views;
use echobench_clients::DurationHistogram;
use serde_json::json;
use tempfile::TempDir;

/// A made-up run: arms, numbers of clients, and their peculiarities.
struct Made {
    models: &'static [&'static str],
    clients: &'static [u32],
    blocks: u32,
    /// Throughput of an arm, as a factor.
    factor: fn(&str) -> f64,
    fails: fn(&str, u32) -> bool,
    starves: fn(&str, u32) -> u64,
}

impl Made {
    const PLAIN: Made = Made {
        models: &["thread", "fork", "async"],
        clients: &[1, 8, 64],
        blocks: 11,
        factor: |_| 1.0,
        fails: |_, _| false,
        starves: |_, _| 0,
    };

    fn folder(&self) -> TempDir {
        let folder = TempDir::new().unwrap();
        let mut writer = Writer::create(folder.path(), &record()).unwrap();
        let (mut slices, mut blocks) = (Vec::new(), Vec::new());

        for block in 1..=self.blocks {
            for &clients in self.clients {
                let (mut of_slices, mut of_blocks, mut log) = (vec![], vec![], String::new());
                for model in self.models {
                    let row = self.block(model, clients, block);
                    if row.is_ok() {
                        of_slices.push(self.slice(model, clients, block));
                        let tag = row.condition().tag(model);
                        let second = Duration::from_secs(1);
                        log += &interval_line(&tag, Duration::ZERO, second, &latencies(clients));
                    }
                    of_blocks.push(row);
                }
                writer.block(&of_slices, &of_blocks, &[], &log).unwrap();
                slices.extend(of_slices);
                blocks.extend(of_blocks);
            }
        }

        writer
            .summary(&summarize(&slices, &blocks, &Views::default()))
            .unwrap();
        folder
    }

    fn rate(&self, model: &str, block: u32) -> f64 {
        // Which of two equal arms is ahead changes from block to block.
        let sign = if (block + u32::try_from(model.len()).unwrap()).is_multiple_of(2) {
            1.0
        } else {
            -1.0
        };
        let spread = sign * f64::from(block) * 0.001;
        100_000.0 * (self.factor)(model) * (1.0 + spread)
    }

    fn block(&self, model: &str, clients: u32, block: u32) -> BlockRow {
        let common = BlockRow {
            schema_version: SCHEMA_VERSION,
            scenario: "steady".to_owned(),
            clients,
            model: model.to_owned(),
            block,
            status: BlockStatus::Failed("the server did not start".to_owned()),
            ..BlockRow::default()
        };

        if (self.fails)(model, clients) {
            return common;
        }
        let latency = u64::from(clients) * 10_000;
        let starved = (self.starves)(model, clients);
        if self.rate(model, block) == 0.0 {
            return BlockRow {
                status: BlockStatus::Ok,
                planned: 8,
                throughput_per_second: Some(0.0),
                ..common
            };
        }
        BlockRow {
            status: BlockStatus::Ok,
            planned: 10_000,
            answered: 10_000,
            throughput_per_second: Some(self.rate(model, block)),
            latency_p50_ns: Some(latency),
            latency_p99_ns: Some(latency * 2),
            cpu_ns_per_request: Some(4_000.0),
            memory_bytes_per_connection: Some(8_192.0),
            clients_never_served: starved,
            jain_index: Some(1.0 - starved as f64 / f64::from(clients)),
            ..common
        }
    }

    fn slice(&self, model: &str, clients: u32, block: u32) -> SliceRow {
        let replies = u64::from(self.rate(model, block) > 0.0);
        let row = json!({
            "schema_version": SCHEMA_VERSION, "scenario": "steady", "clients": clients,
            "driver": "threads", "placement": "none", "traffic": "", "model": model, "block": block,
            "round": 1, "position": 1, "start_ns": 0, "measured_ns": 1, "planned": 1, "answered": replies,
            "failed": 0, "unsent": 0, "errors": "", "replies": replies, "overrun_ns": 0,
            "throughput_per_second": self.rate(model, block),
        });
        serde_json::from_value(row).unwrap()
    }
}

fn record() -> RunRecord {
    RunRecord {
        schema_version: SCHEMA_VERSION,
        effort: EffortName::Full,
        seed: 1,
        status: RunStatus::Complete,
        resumed: Vec::new(),
        environment: Environment::capture(),
        hosts: Vec::new(),
        scenarios: [].into(),
    }
}

fn latencies(clients: u32) -> DurationHistogram {
    let latency = |index: u64| u64::from(clients) * 8_000 + index * 40;
    (0..1_000).map(latency).collect()
}

struct Rendered {
    html: String,
    charts: PathBuf,
    _folder: TempDir,
}

impl Rendered {
    fn chart(&self, name: &str) -> String {
        let path = self.charts.join(name).with_extension("svg");
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }
}

fn report(folder: &Path, arguments: &[&str]) -> Finished {
    let mut command = executable();
    command.arg("report").arg(folder).args(arguments);
    finish(command)
}

fn rendered(made: &Made) -> Rendered {
    rendered_from(made.folder())
}

fn rendered_from(folder: TempDir) -> Rendered {
    let end = report(folder.path(), &[]);
    assert_eq!(end.code, Some(0), "{end:?}");
    assert_eq!(
        end.stdout.trim(),
        folder.path().join("report.html").display().to_string()
    );
    Rendered {
        html: fs::read_to_string(folder.path().join("report.html")).unwrap(),
        charts: folder.path().join("report"),
        _folder: folder,
    }
}

/// The part of a chart that belongs to an arm.
fn series<'a>(chart: &'a str, arm: &str) -> &'a str {
    let begin = format!("<g class=\"series\" data-series=\"{arm}\"");
    let start = chart
        .find(&begin)
        .unwrap_or_else(|| panic!("no {arm} in {chart}"));
    let rest = &chart[start + 1..];
    let end = rest.find("<g class=\"series\"").unwrap_or(rest.len());
    &rest[..end]
}

fn leaders(map: &str, clients: u32) -> &str {
    let place = format!("data-section=\"steady/none/{clients}/threads/\" data-leaders=\"");
    let (_, rest) = map.split_once(&place).expect("a cell");
    rest.split('"').next().unwrap()
}

#[test]
fn a_missing_cell_is_a_gap() {
    let made = rendered(&Made {
        fails: |model, clients| model == "fork" && clients == 8,
        ..Made::PLAIN
    });

    let chart = made.chart("throughput-steady-threads");
    let lines = |arm| series(&chart, arm).matches("stroke-linejoin").count();

    assert_eq!((lines("thread"), lines("fork")), (1, 2), "{chart}");

    let marks = |arm| series(&chart, arm).matches("data-value").count();
    assert_eq!((marks("thread"), marks("fork")), (3, 2));
    assert!(!made.chart("latency-steady-8-threads").contains("\"fork\""));
    assert!(made.html.contains("no value at 8 clients"));
    assert!(
        made.html
            .contains("FAILED: fork, 8 threads: the server did not start")
    );
    assert_eq!(leaders(&made.chart("winners"), 8), "thread;async");
}

#[test]
fn one_model_has_curves_and_no_winner() {
    let made = rendered(&Made {
        models: &["thread"],
        ..Made::PLAIN
    });
    assert!(made.html.contains("nothing to compare <code"));
    assert!(made.chart("winners").contains("one arm"));
    let chart = made.chart("throughput-steady-threads");
    assert_eq!(series(&chart, "thread").matches("data-value").count(), 3);
}

#[test]
fn one_block_has_no_intervals_and_no_winner() {
    let made = rendered(&Made {
        blocks: 1,
        factor: |model| if model == "async" { 3.0 } else { 1.0 },
        ..Made::PLAIN
    });

    for name in ["throughput-steady-threads", "latency-steady-8-threads"] {
        let chart = made.chart(name);
        assert!(chart.contains("One block: no intervals."), "{chart}");
        assert!(
            !chart.contains("fill-opacity") && !chart.contains("data-low"),
            "{chart}"
        );
    }

    assert!(
        made.html
            .contains("too few blocks to say at 1, 8 and 64 clients")
    );
    assert!(made.chart("winners").contains("too few"));
}

#[test]
fn one_number_of_clients_makes_bars() {
    let made = rendered(&Made {
        clients: &[8],
        fails: |model, _| model == "fork",
        ..Made::PLAIN
    });
    let chart = made.chart("throughput-steady");
    assert!(series(&chart, "thread").contains("data-value"), "{chart}");
    assert!(series(&chart, "fork").contains("no value"), "{chart}");
}

#[test]
fn the_winner_is_known_only_where_it_is_resolved() {
    let made = rendered(&Made {
        factor: |model| if model == "async" { 1.5 } else { 1.0 },
        ..Made::PLAIN
    });
    assert_eq!(leaders(&made.chart("winners"), 8), "async");
    assert!(made.html.contains("serves 1.5"), "{}", made.html);
    let made = rendered(&Made::PLAIN);
    assert_eq!(leaders(&made.chart("winners"), 8), "thread;fork;async");
    assert!(made.html.contains("no difference from <code"));
    let chart = made.chart("throughput-steady-threads");
    assert!(chart.contains("fill-opacity=\"0.16\""), "{chart}");
}

#[test]
fn an_arm_that_starves_clients_does_not_win() {
    let made = rendered(&Made {
        factor: |model| if model == "async" { 2.0 } else { 1.0 },
        starves: |model, clients| {
            if model == "async" && clients == 64 {
                32
            } else {
                0
            }
        },
        ..Made::PLAIN
    });

    let map = made.chart("winners");
    assert_eq!(
        (leaders(&map, 8), leaders(&map, 64)),
        ("async", "thread;fork")
    );
    assert!(made.html.contains("but never answers 32 of them"));

    let chart = made.chart("throughput-steady-threads");
    assert_eq!(
        series(&chart, "async").matches("class=\"paper\"").count(),
        1
    );
    assert!(made.chart("fairness-steady-threads").contains("Jain"));
}

#[test]
fn an_arm_that_stands_still_has_0_and_its_rivals_no_bound() {
    let place = TempDir::new().unwrap();
    for (still, ratio) in [("fork", "0 [0, 0]"), ("thread", "∞ [∞, ∞]")] {
        let factor: fn(&str) -> f64 = match still {
            "fork" => |model| if model == "fork" { 0.0 } else { 1.0 },
            _ => |model| if model == "thread" { 0.0 } else { 1.0 },
        };
        let folder = Made {
            factor,
            ..Made::PLAIN
        }
        .folder();
        let path = folder.path().display().to_string();
        let echobench = |arguments: &[&str]| {
            let mut command = executable();
            command.current_dir(place.path()).args(arguments);
            let end = finish(command);
            assert_eq!(end.code, Some(0), "{end:?}");
            end.stdout
        };

        let table = echobench(&["table", &path]);
        assert!(table.contains(ratio), "{table}");
        assert!(table.contains("Ratio 0 or ∞:"), "{table}");
        let mut lines = table.lines();
        let words = |line: &&str| line.contains(&format!(" {still} "));
        let own = lines
            .find(words)
            .expect("a line of the arm that stands still");
        assert!(own.contains(" 0/s ") && own.contains(" ∞ "), "{own}");

        let compare = echobench(&["compare", &path, &path]);
        let copy = place.path().join(still);
        fs::create_dir(&copy).unwrap();
        for name in ["run.json", "summary.csv"] {
            fs::copy(folder.path().join(name), copy.join(name)).unwrap();
        }
        let history = echobench(&["history", "."]);
        let summary = fs::read_to_string(copy.join("summary.csv")).unwrap();
        assert!(summary.contains(",inf,"), "{summary}");

        let made = rendered_from(folder);
        assert!(!leaders(&made.chart("winners"), 8).contains(still));
        assert!(made.html.contains("served nothing in most slices"));
        let charts = fs::read_dir(&made.charts).unwrap();
        let charts = charts.map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap());
        for text in charts.chain([made.html.clone(), table, compare, history]) {
            for word in ["NaN", "\"inf", ">inf<", " inf ", "[inf", "inf]", "-inf"] {
                assert!(!text.contains(word), "{word}: {text}");
            }
        }
    }
}

/// A figure of a claim; an interval of its own size around it.
fn figure(claim: &str, metric: &str, at: &str, value: Option<f64>) -> ClaimRow {
    ClaimRow {
        schema_version: SCHEMA_VERSION,
        claim: claim.to_owned(),
        metric: metric.to_owned(),
        at: at.to_owned(),
        headline: metric.ends_with("_ratio"),
        value,
        low: value.map(|value| value / 2.0),
        high: value.map(|value| value * 1.5),
        level: value.map(|_| 0.96),
        blocks: 15,
        verdict: ClaimVerdict::HoldsOnlyWhen,
        condition: "x < 2".to_owned(),
        validity: Validity::default(),
    }
}

/// C1 over four sizes: fork failed at one, spawn was taken once at the last one.
fn starts() -> Vec<ClaimRow> {
    let mut rows = Vec::new();
    for (mib, fork) in [
        (0, Some(77e3)),
        (64, None),
        (256, Some(5.9e6)),
        (1024, Some(39.5e6)),
    ] {
        let at = format!("{mib} MiB");
        rows.push(figure("C1", "thread_start_ns", &at, Some(14_480.25)));
        rows.push(figure("C1", "fork_start_ns", &at, fork));
        rows.push(figure("C1", "spawn_start_ns", &at, Some(1.4e6)));
    }

    let once = rows.last_mut().unwrap();
    (once.low, once.high) = (None, None);
    rows.push(figure(
        "C1",
        "fork_over_thread_ratio",
        "0 MiB",
        Some(5.459_9),
    ));

    rows
}

fn ledger(rows: &[ClaimRow]) -> TempDir {
    let folder = TempDir::new().unwrap();
    let mut writer = ClaimsWriter::create(folder.path(), &record()).unwrap();
    writer.claim(rows).unwrap();
    folder
}

#[test]
fn a_ledger_has_its_verdicts_and_the_cost_of_a_start() {
    let folder = ledger(&starts());
    let rows = read_claims(folder.path()).unwrap();
    let made = rendered_from(folder);
    let chart = made.chart("start-cost");
    let mut marks = 0;
    for row in rows.iter().filter(|row| !row.headline) {
        let Some(value) = row.value else { continue };
        let ends = row.low.zip(row.high);
        let ends = ends.map(|(low, high)| format!(" data-low=\"{low}\" data-high=\"{high}\""));
        let mark = format!(
            "data-arm=\"C1/{}\" data-metric=\"{}\" data-value=\"{value}\"{}>",
            row.at,
            row.metric,
            ends.unwrap_or_default()
        );
        let arm = row.metric.trim_end_matches("_start_ns");
        assert!(series(&chart, arm).contains(&mark), "{mark} in {chart}");
        marks += 1;
    }

    assert_eq!(chart.matches("data-value").count(), marks);

    for row in rows.iter().filter(|row| row.headline) {
        let cell = format!(
            "data-metric=\"{}\" data-value=\"{}\">5.46</td>",
            row.metric,
            row.value.unwrap()
        );
        assert!(made.html.contains(&cell), "{cell} in {}", made.html);
        assert!(made.html.contains("[2.73, 8.19]"), "{}", made.html);
    }

    assert!(made.html.contains("<b>holds only when</b>: x &lt; 2"));
    assert!(made.html.contains("1 claim: holds only when (1)."));
    assert!(made.html.contains("id=\"start-cost\""));
    assert!(made.html.contains("href=\"claims.csv\"") && made.html.contains("href=\"run.json\""));
    assert!(!made.html.contains("blocks.csv"));
}

#[test]
fn a_start_that_was_not_measured_is_a_gap() {
    let chart = rendered_from(ledger(&starts())).chart("start-cost");
    let lines = |arm| series(&chart, arm).matches("stroke-linejoin").count();
    let bands = |arm| series(&chart, arm).matches("fill-opacity").count();

    assert_eq!((lines("thread"), bands("thread")), (1, 1), "{chart}");
    assert_eq!((lines("fork"), bands("fork")), (2, 1), "{chart}");
    assert_eq!((lines("spawn"), bands("spawn")), (1, 1), "{chart}");
    assert!(chart.contains("Without a band"), "{chart}");

    let all: Vec<&str> = ["0 MiB", "64 MiB", "256 MiB", "1024 MiB"]
        .into_iter()
        .filter(|at| chart.contains(&format!(">{at}</text>")))
        .collect();

    assert_eq!(all.len(), 4, "{all:?}");
}

#[test]
fn a_ledger_without_starts_has_no_chart() {
    let row = figure("C9", "short_sends_share", "blocking", Some(0.0));
    let made = rendered_from(ledger(&[row]));
    assert!(made.html.contains("<b>C9</b>") && !made.html.contains("<figure"));
    assert_eq!(fs::read_dir(&made.charts).unwrap().count(), 0);
    let made = rendered_from(ledger(&[]));
    assert!(made.html.contains("No claim was finished."));
}

#[test]
fn a_run_that_was_killed_says_so() {
    let folder = Made::PLAIN.folder();
    fs::remove_file(folder.path().join("summary.csv")).unwrap();
    edit(folder.path(), "run.json", |text| {
        text.replace("\"complete\"", "\"running\"")
    });
    edit(folder.path(), "slices.csv", |text| {
        text[..text.len() - 9].to_owned()
    });
    let page = folder.path().join("elsewhere/page.html");
    let end = report(folder.path(), &["-o", page.to_str().unwrap()]);

    assert_eq!(end.code, Some(0), "{end:?}");

    let html = fs::read_to_string(&page).unwrap();
    assert!(html.contains("This run is not complete: running."));
    assert!(html.contains("href=\"../blocks.csv\"") && !html.contains("summary.csv\""));
    assert!(page.with_extension("").join("winners.svg").exists());
}

fn edit(folder: &Path, name: &str, change: impl Fn(&str) -> String) {
    let path = folder.join(name);
    let text = fs::read_to_string(&path).unwrap();
    let changed = change(&text);
    assert_ne!(text, changed, "{name} is as before");
    fs::write(path, changed).unwrap();
}

/// The error for a damaged folder.
fn refused(name: &str, change: impl Fn(&str) -> String, words: &[&str]) {
    let folder = Made::PLAIN.folder();
    edit(folder.path(), name, change);
    report(folder.path(), &[]).refused(words);
    assert!(!folder.path().join("report.html").exists());
}

/// Another text in one place of one line, counted from 1.
fn line(text: &str, number: usize, change: impl Fn(&str) -> String) -> String {
    let lines = text.lines().enumerate().map(|(index, line)| {
        if index + 1 == number {
            change(line) + "\n"
        } else {
            line.to_owned() + "\n"
        }
    });
    lines.collect()
}

#[test]
fn what_is_no_results_folder_is_refused() {
    let folder = TempDir::new().unwrap();
    report(folder.path(), &[]).refused(&["is not a results folder", "run.json"]);
    report(&folder.path().join("none"), &[]).refused(&["none is not a folder"]);
    let folder = ledger(&starts());
    fs::remove_file(folder.path().join("claims.csv")).unwrap();
    report(folder.path(), &[]).refused(&["is not a results folder", "summary.csv"]);
}

#[test]
fn a_damaged_file_is_named_with_its_line() {
    let cut = |text: &str| text[..text.len() - 20].to_owned();
    let rows = 1 + 11 * 9;
    let last = format!("line {rows}");
    refused("blocks.csv", cut, &["blocks.csv", &last, "breaks off"]);
    refused("summary.csv", cut, &["summary.csv", "line ", "breaks off"]);
    refused(
        "latency.hlog",
        cut,
        &["latency.hlog", "line ", "breaks off"],
    );

    refused(
        "latency.hlog",
        |text| line(text, 7, |line| line[..line.len() / 2].to_owned()),
        &["latency.hlog, line 7"],
    );

    refused(
        "summary.csv",
        |text| {
            line(text, 3, |line| {
                line.replace(",8", ",eight").replace(",1,", ",one,")
            })
        },
        &["summary.csv, line 3", "clients", "invalid digit"],
    );

    refused(
        "blocks.csv",
        |text| line(text, 5, |line| line.to_owned() + ",1"),
        &["blocks.csv, line 5", "fields instead of"],
    );

    refused(
        "run.json",
        |text| text.replacen(':', ";", 1),
        &["run.json, line 2"],
    );
}

#[test]
fn a_newer_schema_is_named() {
    let newer = |line: &str| line.replacen(&SCHEMA_VERSION.to_string(), "99", 1);
    let words = ["schema version '99'", "this echobench reads"];
    for (name, number) in [("run.json", 2), ("summary.csv", 2), ("blocks.csv", 4)] {
        refused(
            name,
            |text| line(text, number, newer),
            &[&[name][..], &words].concat(),
        );
    }

    let folder = ledger(&starts());
    edit(folder.path(), "claims.csv", |text| line(text, 3, newer));
    report(folder.path(), &[]).refused(&[&["claims.csv, line 3"][..], &words].concat());
}

#[test]
fn latency_over_time_has_every_block() {
    let disturbed = |row: &str| row.contains(",fork,7,ok,");
    let folder = Made {
        clients: &[8],
        fails: |model, _| model == "async",
        ..Made::PLAIN
    }
    .folder();
    edit(folder.path(), "blocks.csv", |text| {
        let row = |row: &str| {
            let row = row.to_owned() + "\n";
            if !disturbed(&row) {
                return row;
            }
            // One bad moment, in a block that is not valid.
            let row = row.replace(",valid,", ",disturbed,");
            row.replace(",160000,", ",4000000,")
        };
        text.lines().map(row).collect()
    });
    let made = rendered_from(folder);

    let chart = made.chart("time-steady-8-threads");
    for arm in ["thread", "fork"] {
        let words = format!("<title>{arm}, block ");
        assert_eq!(chart.matches(&words).count(), 2 * 11, "{arm}: {chart}");
    }
    assert!(!chart.contains("<title>async"), "{chart}");
    assert!(
        chart.contains("<title>thread, block 7, p99: 160 µs</title>"),
        "{chart}"
    );
    assert!(
        chart.contains("<title>fork, block 7, p99: 4.00 ms, disturbed</title>"),
        "{chart}"
    );
    assert!(
        chart.contains("<title>fork, block 7, median: 80.0 µs, disturbed</title>"),
        "{chart}"
    );
    assert_eq!(chart.matches("<path class=\"paper\"").count(), 2, "{chart}");
    assert!(chart.contains("Hollow: the block is not valid"), "{chart}");
    assert!(made.html.contains("id=\"time-steady-8-threads\""));
}

#[test]
fn a_single_block_has_no_course_of_time() {
    let made = rendered(&Made {
        blocks: 1,
        ..Made::PLAIN
    });
    assert!(!made.html.contains("Latency over time"), "{}", made.html);
}

/// A page of two runs, and its charts.
struct Pair {
    place: TempDir,
    before: TempDir,
    after: TempDir,
}

impl Pair {
    fn new(before: &Made, after: &Made) -> Self {
        Pair {
            place: TempDir::new().unwrap(),
            before: before.folder(),
            after: after.folder(),
        }
    }

    fn page(&self) -> PathBuf {
        self.place.path().join("both.html")
    }

    fn report(&self, arguments: &[&str]) -> Finished {
        let after = self.after.path().to_str().unwrap();
        let page = self.page();
        let all = [&[after, "-o", page.to_str().unwrap()], arguments].concat();
        report(self.before.path(), &all)
    }

    fn compare(&self, arguments: &[&str]) -> String {
        let mut command = executable();
        let folders = [self.before.path(), self.after.path()];
        command.arg("compare").args(folders).args(arguments);
        let end = finish(command);
        assert_eq!(end.code, Some(0), "{end:?}");
        end.stdout
    }

    fn chart(&self, name: &str) -> String {
        let path = self.place.path().join("both").join(name);
        fs::read_to_string(path.with_extension("svg")).unwrap()
    }
}

/// The number of marks of an arm and run in a chart of two runs.
fn marks_of(chart: &str, arm: &str, run: &str) -> usize {
    let words = format!("/{arm}\" data-run=\"{run}\"");
    chart.matches(&words).count()
}

fn faster(factor: fn(&str) -> f64) -> Made {
    Made {
        factor,
        ..Made::PLAIN
    }
}

#[test]
fn two_runs_stand_side_by_side() {
    let pair = Pair::new(
        &Made::PLAIN,
        &faster(|model| if model == "async" { 1.5 } else { 1.0 }),
    );
    let end = pair.report(&[]);
    assert_eq!(end.code, Some(0), "{end:?}");
    let html = fs::read_to_string(pair.page()).unwrap();

    let chart = pair.chart("pair-throughput_per_second-steady-threads");
    for arm in ["thread", "fork", "async"] {
        assert_eq!(marks_of(&chart, arm, "before"), 3, "{arm}: {chart}");
        assert_eq!(marks_of(&chart, arm, "after"), 3, "{arm}: {chart}");
    }
    // The marks of the earlier run are open.
    let open = chart.matches("<path class=\"paper\"").count();
    assert_eq!(open, 9, "{chart}");
    assert_eq!(chart.matches("+50.0 %*").count(), 3, "{chart}");
    assert!(chart.contains("Open, before: ") && chart.contains("Filled, after: "));
    assert!(html.contains("async, 8 threads, before") && html.contains("async, 8 threads, after"));

    // The sentences of `compare`, with arms as code.
    let text = pair.compare(&[]);
    let sentences = text.lines().filter(|line| {
        ["In short: ", "Absolute: ", "before: ", "after: "]
            .iter()
            .any(|lead| line.starts_with(lead))
    });
    let mut count = 0;
    for sentence in sentences {
        for piece in sentence.split('`') {
            assert!(html.contains(piece), "{piece} is not in {html}");
        }
        count += 1;
    }
    assert_eq!(count, 4, "{text}");
    assert!(
        html.contains("<th class=\"left\" scope=\"col\">before</th>"),
        "{html}"
    );
    assert_eq!(html.matches(">blocks.csv</a>").count(), 2, "{html}");
}

#[test]
fn what_one_of_two_runs_has_alone_is_said() {
    let other = Made {
        models: &["thread", "pool"],
        clients: &[8, 64],
        ..Made::PLAIN
    };
    let pair = Pair::new(&Made::PLAIN, &other);
    assert_eq!(pair.report(&[]).code, Some(0));
    let html = fs::read_to_string(pair.page()).unwrap();
    let text = pair.compare(&[]);
    for words in [
        "Only before: async in steady (2 conditions), fork in steady (2 conditions), steady (1 condition).",
        "Only after: pool in steady (2 conditions).",
    ] {
        assert!(html.contains(words), "{words}: {html}");
        assert!(text.contains(words), "{words}: {text}");
    }
    let chart = pair.chart("pair-throughput_per_second-steady-threads");
    assert_eq!(marks_of(&chart, "pool", "before"), 0, "{chart}");
    assert_eq!(marks_of(&chart, "pool", "after"), 2, "{chart}");
}

#[test]
fn unlike_machines_have_no_common_page_but_on_demand() {
    let pair = Pair::new(
        &Made::PLAIN,
        &faster(|model| if model == "fork" { 0.5 } else { 1.0 }),
    );
    edit(pair.after.path(), "run.json", |text| {
        let (start, rest) = text.split_once("\"cpu_model\":").unwrap();
        let (_, end) = rest.split_once(',').unwrap();
        format!("{start}\"cpu_model\": \"Abacus\",{end}")
    });
    pair.report(&[])
        .refused(&["not of the same kind", "CPU model", "--allow-unlike"]);
    assert!(!pair.page().exists());

    assert_eq!(pair.report(&["--allow-unlike"]).code, Some(0));
    let html = fs::read_to_string(pair.page()).unwrap();
    let chart = pair.chart("pair-throughput_per_second-steady-threads");
    assert!(chart.contains("ratio to the reference arm"), "{chart}");
    assert!(series(&chart, "fork").contains("-50.0 %*"), "{chart}");
    assert!(
        !chart.contains("data-series=\"thread\"") && !html.contains("100,000/s"),
        "{chart}"
    );
    assert!(html.contains("Ratios only, since"), "{html}");
    assert!(html.contains("on several kinds of machines"), "{html}");
}

#[test]
fn two_folders_that_have_no_common_page_are_refused() {
    let pair = Pair::new(
        &Made {
            models: &["thread"],
            ..Made::PLAIN
        },
        &Made {
            models: &["fork"],
            ..Made::PLAIN
        },
    );
    pair.report(&[]).refused(&["no arm in common"]);
    assert!(!pair.page().exists());
    pair.report(&["--slo", "p99=1ms"])
        .refused(&["--slo", "two runs"]);

    let claims = ledger(&starts());
    let claims = claims.path().to_str().unwrap();
    report(pair.before.path(), &[claims]).refused(&["ledger of claims", "claims --from"]);
    let alone = report(pair.before.path(), &["--allow-unlike"]);
    assert_eq!(alone.code, Some(1), "{alone:?}");
    assert!(alone.stderr.contains("AFTER"), "{alone:?}");
}

#[test]
fn a_comparison_in_markdown_has_the_same_sentences() {
    let pair = Pair::new(
        &Made::PLAIN,
        &faster(|model| if model == "async" { 1.5 } else { 1.0 }),
    );
    let (text, markdown) = (pair.compare(&[]), pair.compare(&["--markdown"]));
    let sentences = |text: &str| -> Vec<String> {
        let lines = text.lines().map(|line| line.trim_end().to_owned());
        lines
            .filter(|line| line.starts_with("In short") || line.starts_with("Absolute"))
            .collect()
    };
    assert_eq!(sentences(&text).len(), 2, "{text}");
    assert_eq!(sentences(&text), sentences(&markdown));
    assert!(markdown.starts_with("| scenario "), "{markdown}");
}

/// A page of results, and the results folder that its tables and pictures are made from.
fn page_of_results(name: &str) -> (PathBuf, String, String) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned();
    let text = fs::read_to_string(root.join(name)).unwrap();
    let (_, rest) = text.split_once("`echobench table ").expect("the command");
    let folder = rest.split('`').next().unwrap().to_owned();
    (root, text, folder)
}

fn in_root(root: &Path, arguments: &[&str]) -> Finished {
    let mut command: Command = executable();
    command
        .current_dir(root)
        .env_remove("COLUMNS")
        .args(arguments);
    let end = finish(command);
    assert_eq!(end.code, Some(0), "{end:?}");
    end
}

#[test]
fn the_tables_and_pictures_of_the_documents_are_up_to_date() {
    let (root, designs, folder) = page_of_results("docs/designs.md");
    let table = in_root(&root, &["table", &folder, "--markdown"]).stdout;
    assert!(
        designs.contains(&table),
        "the tables of designs are out of date: scripts/report.sh"
    );

    let (_, text, folder) = page_of_results("docs/results.md");
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    let table = in_root(&root, &["table", &folder, "--markdown"]).stdout;

    assert!(
        text.contains(&table),
        "the tables are out of date: scripts/report.sh"
    );

    let out = TempDir::new().unwrap();
    let page = out.path().join("report.html");
    in_root(&root, &["report", &folder, "-o", page.to_str().unwrap()]);
    let mut pictures = 0;
    for entry in fs::read_dir(root.join("docs/img")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let new = fs::read_to_string(out.path().join("report").join(name));
        let new = new.unwrap_or_else(|error| panic!("no chart {name} any more: {error}"));
        let old = fs::read_to_string(&path).unwrap();
        assert!(new == old, "{name} is out of date: scripts/report.sh");
        assert!(
            text.contains(&format!("(img/{name})"))
                || readme.contains(&format!("(docs/img/{name})")),
            "neither README.md nor docs/results.md shows {name}"
        );
        pictures += 1;
    }

    assert!(pictures >= 2);
}

#[test]
fn a_table_keeps_to_the_width_of_the_terminal() {
    let (root, _, folder) = page_of_results("docs/results.md");
    let mut command = executable();
    command
        .current_dir(&root)
        .env("COLUMNS", "80")
        .args(["table", &folder]);

    let narrow = finish(command).stdout;
    let table = |line: &&str| line.contains("thread") && line.contains("/s ");
    let widest = narrow
        .lines()
        .filter(table)
        .map(|line| line.chars().count())
        .max();

    assert!(widest.is_some_and(|widest| widest <= 80), "{narrow}");
    assert!(narrow.contains("Left out at this width: "), "{narrow}");

    let whole = in_root(&root, &["table", &folder]).stdout;
    assert!(!whole.contains("Left out") && whole.contains("mem/conn"));
    assert!(!whole.contains('\u{1b}') && !narrow.contains('\u{1b}'));
}

#[test]
fn completions_and_man_pages_know_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let mut command = executable();
        command.args(["completions", shell]);
        let script = finish(command).stdout;
        assert!(
            script.contains("selfcheck") && script.contains("report"),
            "{shell}: {script}"
        );
        for absent in ["supervise", "subcmd__help", "'help'", "-a \"help\""] {
            assert!(!script.contains(absent), "{shell}: {absent}: {script}");
        }
    }

    let folder = TempDir::new().unwrap();
    let mut command = executable();
    command.arg("man").arg(folder.path());

    assert_eq!(finish(command).code, Some(0));

    let page = fs::read_to_string(folder.path().join("echobench-report.1")).unwrap();
    assert!(page.contains("SVG"), "{page}");
    assert!(folder.path().join("echobench.1").exists());
    assert!(!folder.path().join("echobench-supervise.1").exists());
}
