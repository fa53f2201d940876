//! Whole experiments, small ones: what they leave on disk, and what they leave behind.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::common::place::{Place, Row, TINY, number, table};
use crate::common::{Running, eventually, executable, finish, read_hlog};
use echobench::results::SCHEMA_VERSION;
use nix::sys::signal::{Signal, kill};

/// The names of the columns. A column more, less or renamed needs another schema version, and committed files in it.
pub(crate) const SLICES: &str = "\
    schema_version,scenario,clients,driver,placement,load_percent,traffic,step,model,block,round,\
    position,start_ns,measured_ns,planned,answered,failed,unsent,errors,replies,\
    throughput_per_second,latency_p50_ns,latency_p99_ns,connect_p50_ns,cpu_ns,overrun_ns";
pub(crate) const BLOCKS: &str = "\
    schema_version,scenario,clients,driver,placement,load_percent,traffic,step,model,block,status,\
    validity,rate_per_second,planned,answered,failed,unsent,errors,clients_never_served,\
    jain_index,client_least_requests,client_most_requests,first_reply_max_ns,\
    server_requests,throughput_per_second,latency_p50_ns,latency_p90_ns,latency_p99_ns,\
    latency_p999_ns,latency_p9999_ns,latency_max_ns,service_p50_ns,service_p99_ns,\
    lag_p50_ns,lag_p99_ns,connect_p50_ns,connected_per_second,cpu_ns_per_request,cpu_user_ns_per_request,\
    cpu_system_ns_per_request,context_switches_per_request,server_cpus,client_cpus,\
    idle_cpus,other_cpus,steal_ns,cpu_pressure_ns,hiccups,stall_max_ns,\
    load_hosts,network_rtt_ns,clock_bound_ns,\
    memory_bytes_per_connection,kernel_stack_bytes_per_connection,\
    page_table_bytes_per_connection,socket_bytes_per_connection,server_processes,server_threads,server_cpu_ns,memory_at_rest_bytes,worker_least_connections,worker_most_connections,worker_jain_index";
pub(crate) const HOSTS: &str = "\
    schema_version,scenario,clients,driver,placement,load_percent,traffic,step,model,block,host,validity,\
    host_clients,throughput_ratio,latency_p99_ratio,network_rtt_ns,agent_rtt_ns,clock_bound_before_ns,\
    clock_bound_after_ns,start_late_ns,own_cpus,idle_cpus,other_cpus,steal_ns,cpu_pressure_ns,stall_max_ns";
pub(crate) const SUMMARY: &str = "\
    schema_version,scenario,clients,driver,placement,load_percent,traffic,step,model,metric,estimate,low,\
    high,level,method,blocks,reference,ratio,ratio_low,ratio_high,ratio_level,verdict";

/// Every planned request was answered, or failed, or was never sent.
fn accounted_for(row: &Row) {
    let parts = ["answered", "failed", "unsent"].map(|name| number(row, name));
    assert_eq!(number(row, "planned"), parts.iter().sum::<u64>(), "{row:?}");
}

#[test]
fn a_run_leaves_what_it_measured() {
    let place = Place::new();
    let run = finish(place.run(&[]));
    assert_eq!(run.code, Some(0), "{run:?}");
    assert_eq!(place.status(), "complete");
    let results = place.results();
    assert!(run.stderr.contains(results.to_str().unwrap()), "{run:?}");
    let names = fs::read_dir(&results).unwrap();
    let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(
        names,
        [
            "blocks.csv",
            "latency.hlog",
            "run.json",
            "slices.csv",
            "summary.csv"
        ]
    );
    check_headers(&results);
    check_slices(&place);
    check_blocks(&place);
    check_latencies(&place);
    check_tables(&place, &run.stdout);

    let record = fs::read_to_string(results.join("run.json")).unwrap();
    crate::documents::assert_record_documented(&serde_json::from_str(&record).unwrap());
}

#[test]
fn each_kind_of_traffic_is_a_condition() {
    let text = TINY.replace("payload_bytes = 64", "payload_bytes = [64, 1024]");
    let place = Place::with(&text.replace(", \"processes\"", ""));
    let run = finish(place.run(&["--models", "thread,fork"]));
    assert_eq!(run.code, Some(0), "{run:?}");

    for (name, models) in [("slices.csv", 2), ("blocks.csv", 2), ("summary.csv", 2)] {
        let rows = place.rows(name);
        let places = rows.iter().map(|row| (&row["traffic"], &row["model"]));
        let places: BTreeSet<_> = places.collect();
        assert_eq!(places.len(), 2 * models, "{name}");
        assert!(
            places
                .iter()
                .all(|(traffic, _)| ["64 B", "1 KiB"].contains(&traffic.as_str()))
        );
    }
    let tags = read_hlog(&place.results().join("latency.hlog"));
    let tags: BTreeSet<String> = tags.into_iter().map(|(tag, _)| tag).collect();
    assert!(tags.contains("tiny/none/2/threads/64+B/thread"), "{tags:?}");
    assert!(tags.contains("tiny/none/2/threads/1+KiB/fork"), "{tags:?}");

    let single_blanks = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let shown: Vec<String> = run.stdout.lines().map(single_blanks).collect();
    for line in [
        "clients driver traffic model",
        "2 threads 64 B thread",
        "2 threads 1 KiB fork",
    ] {
        assert!(
            shown.iter().any(|shown| shown.starts_with(line)),
            "{line}: {run:?}"
        );
    }
    let mut report = executable();
    report.arg("report").arg(place.results());
    let report = finish(report);
    assert_eq!(report.code, Some(0), "{report:?}");
    let page = fs::read_to_string(place.results().join("report.html")).unwrap();
    for words in [
        "Clients as threads, 1 KiB",
        "tiny, threads, 64 B",
        "2 clients as threads, 1 KiB",
    ] {
        assert!(page.contains(words), "{words}");
    }
}

fn check_headers(results: &Path) {
    for (name, header) in [
        ("slices.csv", SLICES),
        ("blocks.csv", BLOCKS),
        ("summary.csv", SUMMARY),
    ] {
        let text = fs::read_to_string(results.join(name)).unwrap();
        assert_eq!(text.lines().next(), Some(header), "{name}");
        let version = format!("{SCHEMA_VERSION},");
        assert!(text.lines().skip(1).all(|line| line.starts_with(&version)));
        assert!(text.ends_with('\n'));
    }
}

/// Two blocks with each driver; three arms, so that two rounds become three.
fn check_slices(place: &Place) {
    let slices = place.rows("slices.csv");
    assert_eq!(slices.len(), 2 * 2 * 3 * 3);
    let mut places = BTreeMap::new();
    for row in &slices {
        accounted_for(row);
        assert_eq!(number(row, "measured_ns"), 10_000_000);
        assert!(number(row, "replies") <= number(row, "answered"));
        assert_eq!(row["errors"].is_empty(), number(row, "failed") == 0);
        let block = (row["driver"].clone(), row["block"].clone());
        let within = (row["model"].clone(), row["round"].clone());
        let taken = places.insert((block, within), row["position"].clone());
        assert_eq!(taken, None, "{row:?}");
    }
    // Every arm is once in every position.
    let mut positions = BTreeMap::<_, Vec<_>>::new();
    for ((block, (model, _)), position) in places {
        positions.entry((block, model)).or_default().push(position);
    }
    assert_eq!(positions.len(), 2 * 2 * 3);
    for mut taken in positions.into_values() {
        taken.sort();
        assert_eq!(taken, ["1", "2", "3"]);
    }
}

fn check_blocks(place: &Place) {
    let slices = place.rows("slices.csv");
    let blocks = place.rows("blocks.csv");
    assert_eq!(blocks.len(), 2 * 2 * 3);
    let mut answered = 0;
    for row in &blocks {
        assert_eq!(row["status"], "ok");
        assert_eq!(row["scenario"], "tiny");
        accounted_for(row);
        if row["failed"] == "0" {
            assert_eq!(row["server_requests"], row["answered"]);
        }
        let same = |other: &&Row| {
            ["driver", "model", "block"]
                .iter()
                .all(|name| other[*name] == row[*name])
        };
        let of_slices = slices
            .iter()
            .filter(same)
            .map(|row| number(row, "answered"));
        assert_eq!(of_slices.sum::<u64>(), number(row, "answered"));
        answered += number(row, "answered");
    }
    assert!(answered > 0);
}

/// In each line the latencies of one arm in one block; each arm of each section has a tag.
fn check_latencies(place: &Place) {
    let logged = read_hlog(&place.results().join("latency.hlog"));
    let blocks = place.rows("blocks.csv");
    let tags: BTreeSet<_> = logged.iter().map(|(tag, _)| tag.as_str()).collect();
    assert_eq!((tags.len(), logged.len()), (2 * 3, blocks.len()));
    for tag in tags {
        let parts: Vec<_> = tag.split('/').collect();
        let same_tag = logged.iter().filter(|(other, _)| other == tag);
        let counts: Vec<_> = same_tag.map(|(_, histogram)| histogram.len()).collect();
        let of_arm = |row: &&Row| {
            let model = row["model"].replace(' ', "+");
            [&row["scenario"], &row["driver"], &row["clients"], &model]
                .iter()
                .all(|part| parts.contains(&part.as_str()))
        };
        let rows: Vec<_> = blocks.iter().filter(of_arm).collect();
        assert_eq!((rows.len(), counts.len()), (2, 2), "{tag}");
        // Requests of the ramp are answered but not measured.
        for (row, count) in rows.into_iter().zip(counts) {
            assert!(count <= number(row, "answered"), "{tag}: {count}: {row:?}");
        }
    }
}

fn check_tables(place: &Place, printed: &str) {
    for word in ["tiny", "thread", "async", "pool --workers 3", "processes"] {
        assert!(printed.contains(word), "{printed}");
    }
    let again = table(&place.results(), &[]);
    assert_eq!((again.code, again.stdout.as_str()), (Some(0), printed));
    let markdown = table(&place.results(), &["--markdown"]);
    assert_eq!(markdown.code, Some(0));
    let mut parts = markdown.stdout.split("\n\n");
    let main = parts.find(|part| part.starts_with('|')).expect("a table");
    assert_eq!(main.lines().count(), 2 + 6, "{}", markdown.stdout);

    let readme = place.path("README.md");
    let (before, after) = ("# Title\n\n<!-- table -->", "<!-- /table -->\n\nText.\n");
    fs::write(&readme, format!("{before}\nold\n{after}")).unwrap();
    let into = ["--into", readme.to_str().unwrap()];
    assert_eq!(table(&place.results(), &into).code, Some(0));
    let once = fs::read_to_string(&readme).unwrap();
    assert!(once.starts_with(before) && once.ends_with(after), "{once}");
    assert!(
        once.contains(markdown.stdout.trim()) && !once.contains("old"),
        "{once}"
    );
    assert!(once.contains("echobench table"), "{once}");
    assert_eq!(table(&place.results(), &into).code, Some(0));
    assert_eq!(fs::read_to_string(&readme).unwrap(), once);
    fs::write(&readme, "# Title\n").unwrap();
    table(&place.results(), &into).refused(&["README.md", "<!-- table -->"]);
    assert_eq!(fs::read_to_string(&readme).unwrap(), "# Title\n");
}

#[test]
fn every_measured_request_is_in_the_log() {
    let scenario = TINY.replace("ramp = \"2ms\"", "ramp = \"0ms\"");
    let place = Place::with(&scenario);
    let run = finish(place.run(&["--models", "thread,fork", "--blocks", "1"]));
    assert_eq!(run.code, Some(0), "{run:?}");
    let logged = read_hlog(&place.results().join("latency.hlog"));
    let blocks = place.rows("blocks.csv");
    assert_eq!((logged.len(), blocks.len()), (4, 4));
    for (row, (_, histogram)) in blocks.iter().zip(&logged) {
        assert_eq!(number(row, "answered"), histogram.len());
    }
}

#[test]
fn churn_is_measured_too() {
    let scenario = TINY.replace("timeout =", "requests_per_connection = 1\ntimeout =");
    let place = Place::with(&scenario);
    let run = finish(place.run(&["--models", "iterative,fork", "--blocks", "1"]));
    assert_eq!(run.code, Some(0), "{run:?}");
    let blocks = place.rows("blocks.csv");
    assert_eq!(blocks.len(), 4);
    for row in &blocks {
        assert_eq!(row["memory_bytes_per_connection"], "");
        if row["failed"] == "0" {
            assert_eq!(row["server_requests"], row["answered"]);
        }
    }
}

#[test]
fn results_are_never_overwritten() {
    let place = Place::new();
    let kept = place.results().join("kept");
    fs::create_dir(place.results()).unwrap();
    fs::write(&kept, "text").unwrap();
    let results = place.results();
    finish(place.run(&[])).refused(&[results.to_str().unwrap(), "not empty", "--out"]);
    assert_eq!(fs::read_dir(&results).unwrap().count(), 1);

    // An empty one will do. A file in its place will not, and nobody may write below a file.
    fs::remove_file(&kept).unwrap();
    fs::remove_dir(&results).unwrap();
    fs::write(&results, "text").unwrap();
    finish(place.run(&[])).refused(&["cannot write", results.to_str().unwrap()]);
    let mut below = executable();
    below
        .args(["run", &place.scenario(), "--out"])
        .arg(results.join("below"));
    finish(below).refused(&["cannot write", "below"]);
}

#[test]
fn what_cannot_be_run_is_said_in_a_line() {
    let place = Place::new();
    let scenario = place.scenario();
    for (arguments, words) in [
        (vec!["steadfast"], ["steadfast", "steady"]),
        (
            vec![&scenario, "--models", "thread,fibre"],
            ["fibre", "fork"],
        ),
        (
            vec![&scenario, "--models", "async,async"],
            ["async", "twice"],
        ),
        (vec![&scenario, &scenario], ["tiny", "twice"]),
        (vec!["steady", "steady"], ["steady", "twice"]),
        (vec!["no/such.toml"], ["no/such.toml", "cannot read"]),
        (vec![&scenario, "--placement", "moon"], ["moon", "split"]),
        (vec![&scenario, "--blocks", "0"], ["0", "--blocks"]),
        (vec![&scenario, "--quick", "--full"], ["--quick", "--full"]),
        (vec![], ["SCENARIO", "required"]),
        (vec![&scenario, "--colour"], ["--colour", "unexpected"]),
    ] {
        println!("run {arguments:?}");
        let mut command = executable();
        command
            .arg("run")
            .args(arguments)
            .arg("--out")
            .arg(place.results())
            .current_dir(place.folder.path());
        place.refuses(command, &words);
    }
}

#[test]
fn a_malformed_scenario_is_shown_where_it_is_wrong() {
    for (from, to, words) in [
        ("clients = [2]", "clients = [2]]", ["line 3", "clients"]),
        ("clients = [2]", "clients = [0]", ["0 clients", "clients"]),
        ("payload_bytes = 64", "payload = 64", ["line 8", "payload"]),
        ("timeout = \"5s\"", "timeout = 5", ["line 9", "timeout"]),
        ("blocks = 2", "blocks = \"two\"", ["line 12", "blocks"]),
        ("\"async\"", "\"fibre\"", ["fibre", "thread"]),
        (
            "timeout =",
            "work = \"sleep:1ms\"\ntimeout =",
            ["line 9", "sleep:1ms"],
        ),
        (
            "drivers = [\"threads\"",
            "drivers = [\"fibres\"",
            ["line 4", "fibres"],
        ),
    ] {
        let place = Place::with(&TINY.replacen(from, to, 1));
        let [one, other] = words;
        finish(place.run(&[])).refused(&["tiny.toml", one, other]);
        assert!(!place.results().exists());
    }
}

#[test]
fn a_table_needs_results_it_can_read() {
    let place = Place::new();
    let missing = place.path("missing");
    table(&missing, &[]).refused(&[missing.to_str().unwrap(), "results folder"]);
    table(&place.path("tiny.toml"), &[]).refused(&["tiny.toml", "results folder"]);
    table(place.folder.path(), &[]).refused(&["results folder", "summary.csv"]);

    let run = finish(place.run(&["--models", "thread", "--blocks", "1"]));
    assert_eq!(run.code, Some(0), "{run:?}");
    for name in ["summary.csv", "blocks.csv"] {
        let path = place.results().join(name);
        let text = fs::read_to_string(&path).unwrap();
        let newer = text.replacen(&format!("\n{SCHEMA_VERSION},"), "\n99,", 1);
        fs::write(&path, newer).unwrap();
        table(&place.results(), &[]).refused(&[
            name,
            "line 2",
            "version '99'",
            "this echobench reads",
        ]);
        fs::write(&path, text).unwrap();
    }
    assert_eq!(table(&place.results(), &[]).stdout, run.stdout);
    // One arm is compared with nothing, so no client changes its rank.
    assert!(!run.stdout.contains("ranking"), "{run:?}");
}

/// Waits until a run has finished some blocks, which are then on disk.
fn some_blocks_are_done(place: &Place) {
    let path = place.results().join("blocks.csv");
    let lines = || fs::read_to_string(&path).map_or(0, |text| text.lines().count());
    eventually(|| (lines() > 2 * 2).then_some(()), lines);
}

/// The files are whole: two arms with two slices in every finished block.
fn whole_blocks(place: &Place) {
    let blocks = place.rows("blocks.csv");
    let slices = place.rows("slices.csv");
    assert!(blocks.len() >= 2 * 2);
    assert_eq!(blocks.len() % 2, 0);
    for row in &blocks {
        assert_eq!(row["status"], "ok", "{row:?}");
        let same = |other: &&Row| {
            ["driver", "model", "block"]
                .iter()
                .all(|name| other[*name] == row[*name])
        };
        assert_eq!(slices.iter().filter(same).count(), 2);
    }
}

#[test]
fn an_interrupt_keeps_what_is_finished() {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let place = Place::new();
        let options = ["--models", "thread,fork", "--blocks", "1000"];
        let run = Running::start(place.run(&options));
        some_blocks_are_done(&place);
        run.signal(signal);
        let run = run.end();
        assert_eq!(run.code, Some(1), "{run:?}");
        assert_eq!(place.status(), "interrupted");
        whole_blocks(&place);
        let blocks = place.rows("blocks.csv").len() / 2;
        assert!(
            run.stderr
                .contains(&format!("interrupted: {blocks} finished")),
            "{run:?}"
        );
        assert!(run.stderr.contains(&resume_line(&place)), "{run:?}");
        let again = table(&place.results(), &[]);
        assert_eq!((again.code, again.stdout), (Some(0), run.stdout));
    }
}

/// The command that resumes the run.
fn resume_line(place: &Place) -> String {
    format!("echobench run --resume {}", place.results().display())
}

#[test]
fn a_second_interrupt_ends_the_run_at_once() {
    let place = Place::with(&TINY.replace("slice = \"10ms\"", "slice = \"2s\""));
    let run = Running::start(place.run(&["--models", "thread"]));
    run.processes_until(1, " drive");

    // Both are there before the run can answer the first.
    run.signal(Signal::SIGSTOP);
    run.signal(Signal::SIGINT);
    run.signal(Signal::SIGTERM);
    run.signal(Signal::SIGCONT);

    // Fails if a process is left over.
    let run = run.end();
    assert_eq!((run.code, run.stdout.as_str()), (Some(1), ""), "{run:?}");
    assert!(run.stderr.contains("ended at once: "), "{run:?}");
    assert!(run.stderr.contains(&resume_line(&place)), "{run:?}");
    assert_eq!(place.status(), "running");
}

#[test]
fn a_run_under_nohup_outlives_its_terminal() {
    let place = Place::new();
    let run = place.run(&["--models", "thread,fork"]);
    let mut ignoring = Command::new("sh");
    ignoring
        .args(["-c", "trap '' HUP; exec \"$0\" \"$@\""])
        .arg(run.get_program())
        .args(run.get_args());
    let run = Running::start(ignoring);
    run.processes_until(2, " drive");
    run.signal(Signal::SIGHUP);
    let run = run.end();
    assert_eq!(run.code, Some(0), "{run:?}");
    assert_eq!(place.status(), "complete");
}

#[test]
fn a_run_does_not_need_its_outputs() {
    let place = Place::new();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let status = place
        .run(&["--models", "thread,fork"])
        .stdout(writer.try_clone().unwrap())
        .stderr(writer)
        .status()
        .unwrap();
    // The tables are lost, the results are not.
    assert_eq!(status.code(), Some(1));
    assert_eq!(place.status(), "complete");
    assert_eq!(place.rows("blocks.csv").len(), 2 * 2 * 2);
    assert!(place.results().join("summary.csv").exists());
}

#[test]
fn a_full_disk_leaves_a_run_that_can_be_resumed() {
    let place = Place::new();
    let run = place.run(&["--models", "thread,fork", "--blocks", "1000"]);
    let results = place.results();
    fs::create_dir(&results).unwrap();
    let mut small = Command::new("unshare");
    small
        .args(["--mount", "--map-root-user", "sh", "-c"])
        .arg("mount -t tmpfs -o size=32k none \"$0\" || exit 77; exec \"$@\"")
        .arg(&results)
        .arg(run.get_program())
        .args(run.get_args());
    let run = finish(small);
    if run.code == Some(77) || run.stderr.starts_with("unshare: ") {
        eprintln!("skipped: no right to mount a small disk");
        return;
    }
    assert_eq!(run.code, Some(1), "{run:?}");
    assert!(run.stderr.contains("No space left on device"), "{run:?}");
    assert!(run.stderr.contains(&resume_line(&place)), "{run:?}");
}

#[test]
fn runs_at_the_same_time_have_folders_of_their_own() {
    let place = Place::new();
    let start = || {
        let mut command = executable();
        command
            .arg("run")
            .arg(place.scenario())
            .args(["--models", "thread", "--blocks", "1"])
            .current_dir(place.folder.path());
        Running::start(command)
    };
    let runs: Vec<Running> = (0..3).map(|_| start()).collect();
    for run in runs {
        let run = run.end();
        assert_eq!(run.code, Some(0), "{run:?}");
    }
    let folders = fs::read_dir(place.path("results/quick")).unwrap();
    assert_eq!(folders.count(), 3);
}

/// A server that accepts every connection and never answers.
fn silent() -> String {
    let program = env!("CARGO_BIN_EXE_echobench");
    format!("silent='{program}' respond --delay 1h --listen 127.0.0.1:{{port}}")
}

/// Slices in which every client asks, also on a machine with other work.
fn long_slices() -> Place {
    Place::with(&TINY.replace("slice = \"10ms\"", "slice = \"200ms\""))
}

#[test]
fn an_arm_that_answers_nothing_has_failed() {
    let place = long_slices();
    let run = finish(place.run(&["--models", "thread", "--external", &silent()]));
    assert_eq!(run.code, Some(1), "{run:?}");
    for row in place.rows("blocks.csv") {
        let ok = row["status"] == "ok";
        assert_eq!(ok, row["model"] == "thread", "{row:?}");
        let cause = "no request was answered: timed out";
        assert!(ok || row["status"].starts_with(cause), "{row:?}");
    }
    let failure = "silent, 2 threads: no request was answered: timed out";
    assert!(
        run.stdout.contains(&format!("FAILED: {failure}")),
        "{run:?}"
    );
    assert!(
        run.stderr.contains(&format!("failed: tiny, {failure}")),
        "{run:?}"
    );
    assert!(!run.stdout.contains("STARVE"), "{run:?}");
}

#[test]
fn a_run_without_a_request_has_failed() {
    let arrivals = "arrivals = { per_second = 0.001, spacing = \"poisson\" }\ntimeout =";
    let scenario = TINY
        .replace("timeout =", arrivals)
        .replace("gap = \"3ms\"", "gap = \"20ms\"");
    let place = Place::with(&scenario);
    let run = finish(place.run(&["--models", "thread", "--blocks", "1"]));
    assert_eq!(run.code, Some(1), "{run:?}");

    let cause = "failed: no request was answered in the whole run: no request was due";
    assert!(run.stderr.contains(cause), "{run:?}");
}

#[test]
fn a_run_without_a_network_names_the_cause() {
    let place = long_slices();
    let run = place.run(&["--models", "thread,async", "--blocks", "1"]);
    let mut unreachable = Command::new("unshare");
    unreachable
        .args(["--net", "--map-root-user"])
        .arg(run.get_program())
        .args(run.get_args());
    let run = finish(unreachable);
    if run.stderr.starts_with("unshare: ") {
        eprintln!("skipped: no right to make a network namespace");
        return;
    }
    assert_eq!(run.code, Some(1), "{run:?}");
    for word in ["no request was answered", "unreachable (os error 101)"] {
        assert!(run.stderr.contains(word), "{run:?}");
    }
    assert!(!run.stdout.contains("STARVE"), "{run:?}");
}

#[test]
fn a_killed_run_leaves_readable_rows_and_no_processes() {
    let place = Place::new();
    let options = ["--models", "thread,fork", "--blocks", "1000"];
    let run = Running::start(place.run(&options));
    some_blocks_are_done(&place);
    // Not between two blocks, when there would be little to leave behind.
    run.processes_until(2, " drive");
    run.signal(Signal::SIGKILL);
    let run = run.end();
    assert_eq!(run.code, None, "{run:?}");
    assert_eq!(place.status(), "running");
    whole_blocks(&place);
}

#[test]
fn a_server_that_dies_has_a_row_that_says_so() {
    for (victim, driver) in [("async", "threads"), ("fork", "processes")] {
        let scenario = TINY
            .replace("slice = \"10ms\"", "slice = \"150ms\"")
            .replace("\"threads\", \"processes\"", &format!("\"{driver}\""));
        let place = Place::with(&scenario);
        let models = format!("thread,{victim},iterative");
        let options = ["--models", &models, "--blocks", "2"];
        let run = Running::start(place.run(&options));
        // Once its clients are there too.
        run.processes_until(3, " drive");
        let words = format!(" serve {victim}");
        let is_server = |line: &str| line.contains(&words) && !line.contains(" supervise ");
        let (pid, _) = eventually(
            || {
                let mut all = run.processes().into_iter();
                all.find(|(_, line)| is_server(line))
            },
            || run.processes(),
        );
        kill(pid, Signal::SIGKILL).unwrap();
        let run = run.end();
        assert_eq!(run.code, Some(1), "{run:?}");
        assert_eq!(place.status(), "complete");
        let blocks = place.rows("blocks.csv");
        assert_eq!(blocks.len(), 2 * 3);
        let (ok, failed): (Vec<_>, Vec<_>) =
            blocks.into_iter().partition(|row| row["status"] == "ok");
        assert_eq!(ok.len(), 2 * 3 - 1);
        assert_eq!(failed[0]["model"], victim);
        assert!(failed[0]["status"].contains("server"), "{failed:?}");
        accounted_for(&failed[0]);
        for row in ok {
            assert!(number(&row, "answered") > 0, "{row:?}");
        }
        let words = format!("FAILED: {victim}, 2 {driver}: ");
        assert!(run.stdout.contains(&words), "{run:?}");
        assert_eq!(table(&place.results(), &[]).stdout, run.stdout);
    }
}

#[test]
fn a_server_that_does_not_start_has_a_row_that_says_so() {
    let place = Place::new();
    // The option is known only to the server.
    let options = ["--models", "thread,pool --workers 0", "--blocks", "1"];
    let run = finish(place.run(&options));
    assert_eq!(run.code, Some(1), "{run:?}");
    for row in place.rows("blocks.csv") {
        let ok = row["status"] == "ok";
        assert_eq!(ok, row["model"] == "thread", "{row:?}");
        assert!(ok || row["status"].contains("did not start"), "{row:?}");
    }
    assert!(run.stdout.contains("FAILED: pool --workers 0"), "{run:?}");
}

#[test]
fn connections_beyond_a_limit_have_a_row_that_names_it() {
    let scenario = TINY
        .replace("clients = [2]", "clients = [2, 300]")
        .replace("\"threads\", \"processes\"", "\"tasks\"");
    let place = Place::with(&scenario);
    let run = place.run(&["--models", "async", "--blocks", "1"]);
    let mut limited = Command::new("sh");
    limited
        .args(["-c", "ulimit -n 200; exec \"$0\" \"$@\""])
        .arg(run.get_program())
        .args(run.get_args());
    let run = finish(limited);
    assert_eq!(run.code, Some(1), "{run:?}");
    for row in place.rows("blocks.csv") {
        if row["clients"] == "2" {
            assert_eq!(row["status"], "ok", "{row:?}");
        } else {
            for word in ["332 open files", "200", "RLIMIT_NOFILE"] {
                assert!(row["status"].contains(word), "{row:?}");
            }
        }
    }
    assert!(run.stdout.contains("FAILED: async, 300 tasks: "), "{run:?}");
}

/// Only root may keep them from sleeping; anybody else is told so.
#[test]
fn idle_cpus_are_kept_awake_or_it_is_said_why_not() {
    let place = Place::new();
    let run = finish(place.run(&["--models", "thread", "--blocks", "1", "--awake"]));
    if run.code == Some(0) {
        let text = fs::read_to_string(place.results().join("run.json")).unwrap();
        let record: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(record["environment"]["awake"], true);
        let again = table(&place.results(), &[]);
        for text in [&run.stdout, &again.stdout] {
            assert!(text.contains("Idle CPUs were kept awake."), "{text}");
        }
    } else {
        run.refused(&["/dev/cpu_dma_latency", "--no-cpu-idle"]);
    }
}

#[test]
fn a_server_that_refuses_connections_has_a_row_that_says_so() {
    let scenario = TINY.replace("clients = [2]", "clients = [4]");
    let place = Place::with(&scenario);
    let run = finish(place.run(&["--models", "thread,thread --max-connections 2"]));
    // A refusal is no wrong reply.
    assert_eq!(run.code, Some(1), "{run:?}");
    let cause = "thread --max-connections 2, 4 threads: the server refused connections";
    assert!(
        run.stderr.contains(&format!("failed: tiny, {cause}")),
        "{run:?}"
    );
    assert!(!run.stderr.contains("wrong"), "{run:?}");
    for row in place.rows("blocks.csv") {
        let words = row["validity"].split(';');
        let refuses = row["model"].contains("--max-connections");
        assert_eq!(
            words.filter(|&word| word == "refused").count(),
            usize::from(refuses),
            "{row:?}"
        );
    }
    let words = "NOT VALID: the server refused connections in 4 of 8 rows (50 %)";
    let mut lines = run.stdout.lines();
    let note = lines.find(|line| line.starts_with(words));
    let note = note.expect("a line on what is not valid");
    let most = "thread --max-connections 2, 4 threads (2 of 2)";
    assert!(note.contains(most), "{run:?}");
}

#[test]
fn nobody_has_to_read_on() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = executable().arg("list").stdout(writer).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}
