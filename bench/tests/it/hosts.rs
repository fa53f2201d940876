//! Servers and clients on other hosts, reached by launchers that need no network: each starts an agent on this
//! machine.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{ChildStdin, Command};
use std::thread;
use std::time::Duration;

use crate::common::place::{Place, Row, number, table};
use crate::common::{Finished, Running, eventually, executable, finish};
use crate::documents::assert_documented;
use crate::run::HOSTS;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// Blocks of about half a second.
pub(crate) const SCENARIO: &str = r#"question = "Does it work?"
models = ["thread", "async"]
clients = [5]
drivers = ["threads"]

[traffic]
payload_bytes = 64
timeout = "5s"

[quick]
blocks = 3
rounds = 6
slice = "30ms"
ramp = "2ms"
gap = "3ms"

[full]
blocks = 3
rounds = 6
slice = "30ms"
ramp = "2ms"
gap = "3ms"
"#;

/// A launcher that prints what a login shell may print, before the agent starts.
const NOISY: &str = r#"echo "Welcome to this host"
echo '{"clock":{"received_ns":1,"sent_ns":2}}'
printf 'no end of line'
exec "$@""#;
/// A launcher that passes every line on late.
const LATE: &str = r#"late() { while IFS= read -r line; do sleep 0.01; printf '%s\n' "$line"; done; }
late | "$@" | late"#;
/// A launcher that passes the start of a load on too late.
const LATE_START: &str = r#"while IFS= read -r line; do
    case $line in *'"message":{"start_ns"'*) sleep 0.3 ;; esac
    printf '%s\n' "$line"
done | "$@""#;
/// A launcher that passes input and output on, as that of a network does.
const RELAY: &str = r#"cat | "$@" | cat"#;

/// A launcher made of a script; returns its path.
fn launcher(place: &Place, name: &str, script: &str) -> String {
    let path = place.path(name);
    fs::write(&path, format!("#!/bin/bash\n{script}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}

/// A run with the servers on one host and the clients on others.
fn run(place: &Place, server: &str, clients: &[&str], options: &[&str]) -> Command {
    let mut command = place.run(&["--server-on", server, "--server-address", "127.0.0.1"]);
    for launcher in clients {
        command.args(["--clients-on", launcher]);
    }
    command.args(options);
    command
}

/// Every row was measured, and its clients counted what its server did. On a busy machine, the last requests of a
/// block may have been given up.
pub(crate) fn assert_counts_agree(place: &Place, expected: usize) {
    let rows = place.rows("blocks.csv");
    assert_eq!(rows.len(), expected);
    for row in rows {
        assert_eq!(
            (row["status"].as_str(), row["placement"].as_str()),
            ("ok", "apart")
        );
        let [answered, failed, counted] =
            ["answered", "failed", "server_requests"].map(|column| number(&row, column));
        assert!(answered > 0, "{row:?}");
        assert!((answered..=answered + failed).contains(&counted), "{row:?}");
    }
}

#[test]
fn counts_agree_over_several_hosts() {
    let place = Place::with(SCENARIO);
    let noisy = launcher(&place, "noisy", NOISY);
    let finished = finish(run(&place, "setsid", &["env A=b", &noisy], &[]));
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert_counts_agree(&place, 6);

    // Each of the five clients has its own count, whichever host it is on. On a busy machine, a load process may miss
    // a whole block.
    let rows = place.rows("blocks.csv");
    let is_whole =
        |row: &Row| row["clients_never_served"] == "0" && row["client_least_requests"] != "0";
    assert!(rows.iter().any(is_whole), "{rows:?}");
    for row in &rows {
        let most = 5 * number(row, "client_most_requests");
        assert!(most >= number(row, "answered"), "{row:?}");
    }
    let record = fs::read_to_string(place.results().join("run.json")).unwrap();
    let hosts: Value = serde_json::from_str(&record).unwrap();
    let roles: Vec<&str> = hosts["hosts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|host| host["role"].as_str().unwrap())
        .collect();
    assert_eq!(roles, ["server host", "load host 1", "load host 2"]);
    let fields = hosts["hosts"][0].as_object().unwrap().keys();
    let fields: Vec<String> = fields.map(|field| format!("hosts[].{field}")).collect();
    assert_documented(&["run.json: hosts"], fields.iter().map(String::as_str));
    for host in hosts["hosts"].as_array().unwrap() {
        assert_eq!(host["network_card"], "loopback", "{host}");
        let is_load = host["role"] != "server host";
        assert_eq!(host["network_rtt_ns"].is_number(), is_load, "{host}");
    }
    for name in ["setsid", "A=b", "noisy", "127.0.0.1"] {
        assert!(!record.contains(name), "{name} is in the record");
    }
}

#[test]
fn processes_of_clients_are_shared_among_hosts() {
    let place = Place::with(&SCENARIO.replace("threads", "processes"));
    let finished = finish(run(&place, "env", &["env", "env"], &["--blocks", "1"]));
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert_counts_agree(&place, 2);
}

#[test]
fn more_hosts_than_clients_leave_some_without() {
    let place = Place::with(&SCENARIO.replace("[5]", "[1]"));
    let finished = finish(run(&place, "env", &["env", "env"], &["--blocks", "1"]));
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert_counts_agree(&place, 2);
}

#[test]
fn one_side_may_stay_on_this_host() {
    for options in [["--server-on", "env"], ["--clients-on", "env"]] {
        let place = Place::with(SCENARIO);
        let mut command = place.run(&options);
        command.args(["--server-address", "127.0.0.1", "--blocks", "1"]);
        let finished = finish(command);
        assert_eq!(finished.code, Some(0), "{options:?}: {finished:?}");
        assert_counts_agree(&place, 2);
    }
}

/// The executable under test as if it were of another project, at the address that it is given.
fn stranger() -> String {
    let program = env!("CARGO_BIN_EXE_echobench");
    format!("'{program}' serve thread --listen {{address}}:{{port}}")
}

#[test]
fn servers_of_other_projects_run_on_the_host_of_the_servers() {
    // An address of loopback that nothing uses without being told.
    let address = "127.82.0.1";
    let place = Place::with(SCENARIO);
    let mark = launcher(&place, "mark", r#"ON_SERVER_HOST=yes exec "$@""#);
    let script = place.path("started");
    let wrapped = format!(
        "mine=sh -c 'echo $0 $ON_SERVER_HOST >> {}; {} & wait' {{address}}",
        script.display(),
        stranger().replace('\'', "")
    );
    let mut command = place.run(&["--models", "thread", "--external", &wrapped]);
    command.args(["--server-on", &mark, "--server-address", address]);
    command.args(["--clients-on", "env", "--clients-on", "env"]);
    let finished = finish(command);
    assert_eq!(finished.code, Some(0), "{finished:?}");

    let started = fs::read_to_string(script).unwrap();
    assert_eq!(started, format!("{address} yes\n").repeat(3));
    let rows = place.rows("blocks.csv");
    assert_eq!(rows.len(), 6);
    for row in rows {
        assert_eq!(row["status"], "ok", "{row:?}");
        assert!(number(&row, "answered") > 0, "{row:?}");
        assert!(!row["cpu_ns_per_request"].is_empty(), "{row:?}");
        // It does not count for itself.
        assert_eq!(row["server_requests"].is_empty(), row["model"] == "mine");
    }
}

#[test]
fn servers_of_other_projects_that_cannot_run_there_have_a_reason() {
    let needing = "[[external]]\nname = \"lost\"\ncommand = \"x {port}\"\nneeds = \"no-such-program\"\n[traffic]";
    let place = Place::with(&SCENARIO.replace("[traffic]", needing));
    let own = stranger().replace("{address}", "127.0.0.2");
    let elsewhere = format!("elsewhere={own}");
    let options = ["--blocks", "1", "--external", &elsewhere];
    let options = [&options[..], &["--external", "none=no-such-program {port}"]].concat();
    let finished = finish(run(&place, "env", &["env"], &options));
    assert_eq!(finished.code, Some(1), "{finished:?}");
    for row in place.rows("blocks.csv") {
        let words = match row["model"].as_str() {
            "lost" => "no-such-program is not installed",
            "elsewhere" => "no connection to 127.0.0.1:",
            "none" => "cannot start 'no-such-program'",
            _ => "ok",
        };
        assert!(row["status"].contains(words), "{row:?}");
    }
}

#[test]
fn a_program_is_looked_for_on_the_host_of_the_servers() {
    let needing = "[[external]]\nname = \"there\"\ncommand = \"only-there {address} {port}\"\nneeds = \"only-there\"\n[traffic]";
    let place = Place::with(&SCENARIO.replace("[traffic]", needing));
    let bin = place.path("bin");
    fs::create_dir(&bin).unwrap();
    let serve = stranger()
        .replace("{address}", "\"$1\"")
        .replace("{port}", "\"$2\"");
    launcher(&place, "bin/only-there", &format!("exec {serve}"));
    let server = format!("env PATH={}:/usr/bin:/bin", bin.display());

    let finished = finish(run(&place, &server, &["env"], &["--blocks", "1"]));
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let rows = place.rows("blocks.csv");
    let there = rows.iter().find(|row| row["model"] == "there").unwrap();
    assert_eq!(there["status"], "ok");
    assert!(number(there, "answered") > 0, "{there:?}");
}

/// A gate of two servers with the servers on one host, and the clients on others.
fn gate(place: &Place, server: &str, sides: [&str; 2], options: &[&str]) -> Command {
    let mut command = executable();
    command.current_dir(place.folder.path()).arg("gate");
    command.args(["--baseline", sides[0], "--candidate", sides[1]]);
    command.args(["--scenario", "tiny.toml", "--out", "results", "--seed", "7"]);
    command.args(["--server-on", server]);
    command.args(["--clients-on", "env", "--clients-on", "env"]);
    if !options.contains(&"--server-address") {
        command.args(["--server-address", "127.0.0.1"]);
    }
    command.args(options);
    command
}

/// A scenario with the least number of blocks that decides.
const GATE: &str = r#"question = "Is it slower?"
models = ["thread"]
clients = [2]

[traffic]
payload_bytes = 64
timeout = "5s"

[quick]
blocks = 22
rounds = 2
slice = "10ms"
ramp = "2ms"
gap = "5ms"

[full]
blocks = 22
rounds = 2
slice = "10ms"
ramp = "2ms"
gap = "5ms"
"#;

#[test]
fn a_gate_compares_servers_on_another_host() {
    let place = Place::with(GATE);
    let server = stranger();
    let finished = finish(gate(&place, "setsid", [&server, &server], &["--quick"]));
    assert!(matches!(finished.code, Some(0 | 3)), "{finished:?}");
    let rows = place.rows("blocks.csv");
    assert!(rows.len() >= 3 * 11 && rows.len().is_multiple_of(3));
    for row in rows {
        assert_eq!(
            (row["status"].as_str(), row["placement"].as_str()),
            ("ok", "apart")
        );
        assert!(number(&row, "answered") > 0, "{row:?}");
    }
    let record = fs::read_to_string(place.results().join("run.json")).unwrap();
    let record: Value = serde_json::from_str(&record).unwrap();
    assert_eq!(record["hosts"].as_array().unwrap().len(), 3);
}

#[test]
fn builds_are_compared_with_their_clients_on_another_host() {
    let place = Place::with(GATE);
    let own = env!("CARGO_BIN_EXE_echobench");
    let mut command = executable();
    command.current_dir(place.folder.path()).arg("gate");
    command.args(["--baseline", own, "--candidate", own]);
    command.args(["--scenario", "tiny.toml", "--out", "results", "--quick"]);
    command.args(["--clients-on", "env", "--server-address", "127.0.0.1"]);
    let finished = finish(command);
    assert!(matches!(finished.code, Some(0 | 3)), "{finished:?}");
    let rows = place.rows("blocks.csv");
    assert_counts_agree(&place, rows.len());
}

#[test]
fn a_gate_that_cannot_be_measured_on_hosts_is_refused_in_one_line() {
    let place = Place::with(GATE);
    let (own, server) = (env!("CARGO_BIN_EXE_echobench"), stranger());
    let elsewhere = server.replace("{address}", "127.0.0.2");
    for (launcher, candidate, words) in [
        (
            "env",
            "./none {port}",
            &[
                "the candidate `./none {port}` on the server host (env): ",
                "No such file",
            ][..],
        ),
        (
            "env",
            &elsewhere,
            &[
                "server host (env)",
                "no connection to 127.0.0.1:",
                "by {address}",
            ],
        ),
        (
            "false",
            &server,
            &["server host (false): its launcher did not start"],
        ),
    ] {
        finish(gate(&place, launcher, [&server, candidate], &[])).refused(words);
        assert!(!place.results().exists(), "{candidate}");
    }
    let builds = gate(&place, "env", [own, own], &[]);
    finish(builds).refused(&[
        "the baseline is an executable of this host",
        "/path/there/echobench",
    ]);
    let placed = gate(&place, "env", [&server, &server], &["--placement", "same"]);
    finish(placed).refused(&["leave it out"]);
    let few = ["--server-address", "127.0.0.1:7000-7001"];
    let ports = gate(&place, "env", [&server, &server], &few);
    finish(ports).refused(&["tiny", "more arms than there are ports"]);
}

#[test]
fn a_gate_whose_host_fails_says_which() {
    let place = Place::with(GATE);
    let server = stranger();
    let relay = launcher(&place, "relay", RELAY);
    let options = ["--blocks", "1000"];
    let running = Running::start(gate(&place, &relay, [&server, &server], &options));
    one_block_is_kept(&place);
    for pid in with_words(&running, "echobench agent") {
        let _ = kill(pid, Signal::SIGKILL);
    }
    let finished = running.end();
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert!(finished.stderr.contains(" host"), "{finished:?}");
    assert!(place.status().contains(" host"), "{}", place.status());
    assert!(!place.status().contains("relay"), "{}", place.status());
}

#[test]
fn slices_are_further_apart_by_a_slow_connection() {
    let place = Place::with(SCENARIO);
    let late = launcher(&place, "late", LATE);
    let finished = finish(run(&place, "env", &[&late], &["--blocks", "1"]));
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert_counts_agree(&place, 2);

    // The round trip is 20 ms at least, and so are both bounds together.
    let mut starts: Vec<u64> = place
        .rows("slices.csv")
        .iter()
        .map(|row| row["start_ns"].parse().unwrap())
        .collect();
    starts.sort_unstable();
    for pair in starts.windows(2) {
        assert!(
            pair[1] - pair[0] >= 30_000_000 + 5_000_000 + 40_000_000,
            "{starts:?}"
        );
    }
}

#[test]
fn launchers_that_start_no_agent_are_named() {
    let place = Place::with(SCENARIO);
    let hello = |version: &str, architecture: &str| {
        let hello = json!({"hello": {
            "version": version, "executable_sha256": "0123456789", "architecture": architecture,
        }});
        format!("echo '{hello}'; cat > /dev/null")
    };
    let other = launcher(&place, "other", &hello("0.0.1", std::env::consts::ARCH));
    let foreign = launcher(
        &place,
        "foreign",
        &hello(env!("CARGO_PKG_VERSION"), "pdp11"),
    );

    for (launcher, words) in [
        ("false", "its launcher did not start"),
        ("no-such-launcher", "No such file"),
        (&other, "another build (0.0.1, SHA-256 0123456"),
        (&foreign, "its processor is pdp11"),
        ("'open quote", "cannot read the launcher"),
    ] {
        let finished = finish(run(&place, launcher, &["env"], &[]));
        assert_eq!(finished.code, Some(1), "{finished:?}");
        assert!(finished.stderr.contains(words), "{launcher}: {finished:?}");
        assert!(!place.results().exists(), "{launcher}");
    }
    finish(run(&place, "env", &["env", "false"], &[])).refused(&["load host 2 (false)"]);
    let copy = finish(run(
        &place,
        "env",
        &["env"],
        &["--remote-executable", "/no/such"],
    ));
    assert!(copy.stderr.contains("'/no/such agent'"), "{copy:?}");
    assert!(copy.stderr.contains("--remote-executable"), "{copy:?}");
}

#[test]
fn options_that_make_no_sense_are_refused() {
    let place = Place::with(SCENARIO);
    let both = ["--server-on", "env", "--clients-on", "env"];
    let address = ["--server-address", "127.0.0.1"];
    for (options, words) in [
        (&["--server-address", "0.0.0.0"][..], "every address"),
        (&["--server-address", "hostA"], "not an address"),
        (&both, "give --server-address"),
        (&address, "no host is named"),
        (&["--placement", "split"], "leave it out"),
        (&["--no-cpu-idle"], "this host only"),
        (&["--placement", "apart"], "unknown placement"),
    ] {
        let mut command = place.run(options);
        if !words.contains("--server-address") && !words.starts_with("no host") {
            command.args(both);
            if !options.contains(&"--server-address") {
                command.args(address);
            }
        }
        let finished = finish(command);
        assert!(matches!(finished.code, Some(1 | 2)), "{finished:?}");
        assert!(finished.stderr.contains(words), "{words}: {finished:?}");
        assert!(!place.results().exists());
    }

    let mut command = place.run(&both);
    command.args(["--server-address", "127.0.0.1:7000"]);
    finish(command).refused(&["more arms than there are ports"]);

    // Each server of another project needs a port as well.
    let mut command = place.run(&both);
    command.args(["--models", "thread", "--external", "x=server {port}"]);
    command.args(["--server-address", "127.0.0.1:7000"]);
    finish(command).refused(&["more arms than there are ports"]);
}

/// A file of hosts, of which the second load host has three quarters of the clients.
fn lab(place: &Place, second: &str) -> String {
    let path = place.path("lab.toml");
    let text = format!(
        "[server]\nlauncher = ['env', 'A=b']\naddress = '127.0.0.1'\ncpus = '0'\n\
         [[load]]\nlauncher = 'setsid'\n\
         [[load]]\nlauncher = 'env'\nweight = 3\n{second}\n"
    );
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_file_names_the_hosts() {
    let place = Place::with(SCENARIO);
    let lab = lab(
        &place,
        "cpus = '0'\nsource_addresses = ['127.0.0.2', '127.0.0.3']",
    );
    let running = Running::start(place.run(&["--hosts", &lab, "--blocks", "4"]));
    one_block_is_kept(&place);
    // Bound to the CPUs of the file, or not at all.
    for (words, bound) in [
        ("supervise --cpus 0", 2),
        ("drive --cpus 0", 2),
        ("drive", 4),
    ] {
        let words = format!("echobench {words}");
        eventually(
            || (with_words(&running, &words).len() == bound).then_some(()),
            || running.processes(),
        );
    }

    let finished = running.end();
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert_counts_agree(&place, 8);
    let record = fs::read_to_string(place.results().join("run.json")).unwrap();
    assert!(!record.contains("lab.toml"), "{record}");
    check_host_rows(&place, &[1, 4], 4);
}

/// A row for each host and block, with so many clients on each load host.
fn check_host_rows(place: &Place, clients: &[u64], blocks: u64) {
    let text = fs::read_to_string(place.results().join("hosts.csv")).unwrap();
    assert_eq!(text.lines().next(), Some(HOSTS));
    let rows = place.rows("hosts.csv");
    let mut expected = Vec::new();
    for block in 1..=blocks {
        expected.extend((0..=clients.len() as u64).map(|host| (block, host)));
    }
    let places: Vec<(u64, u64)> = rows
        .iter()
        .map(|row| (number(row, "block"), number(row, "host")))
        .collect();
    assert_eq!(places, expected);

    for row in rows {
        assert_eq!((&*row["model"], &*row["placement"]), ("thread", "apart"));
        assert!(number(&row, "agent_rtt_ns") > 0, "{row:?}");
        assert!(number(&row, "clock_bound_before_ns") > 0, "{row:?}");
        assert!(row["own_cpus"].parse::<f64>().unwrap() > 0.0, "{row:?}");
        let of_clients = [
            "host_clients",
            "network_rtt_ns",
            "throughput_ratio",
            "start_late_ns",
        ];
        let Some(load) = number(&row, "host").checked_sub(1) else {
            assert!(of_clients.iter().all(|column| row[*column].is_empty()));
            continue;
        };
        let load = usize::try_from(load).unwrap();
        assert_eq!(number(&row, "host_clients"), clients[load]);
        assert!(number(&row, "network_rtt_ns") > 0, "{row:?}");
        assert_eq!(
            row["throughput_ratio"].is_empty(),
            clients.len() == 1,
            "{row:?}"
        );
    }
}

#[test]
fn a_late_host_is_named() {
    let place = Place::with(SCENARIO);
    let late = launcher(&place, "late", LATE_START);
    let finished = finish(run(&place, "env", &["env", &late], &["--blocks", "1"]));
    assert_eq!(finished.code, Some(0), "{finished:?}");

    let words = "HOST: load host 2: the load generator was late in 1 of 1 block.";
    assert!(finished.stdout.contains(words), "{finished:?}");
    let is_launcher = format!("load host 2 is: {late}");
    assert!(finished.stderr.contains(&is_launcher), "{finished:?}");
    assert!(!finished.stdout.contains(&late), "{finished:?}");
    assert_eq!(table(&place.results(), &[]).stdout, finished.stdout);

    let validities: Vec<String> = place
        .rows("hosts.csv")
        .iter()
        .map(|row| row["validity"].clone())
        .collect();
    assert!(validities[2].contains("late"), "{validities:?}");
    for row in place.rows("blocks.csv") {
        assert!(row["validity"].contains("late"), "{row:?}");
    }
}

#[test]
fn a_host_without_a_client_is_named() {
    let place = Place::with(&SCENARIO.replace("[5]", "[1]"));
    let lab = lab(&place, "");
    let finished = finish(place.run(&["--hosts", &lab, "--blocks", "1"]));
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let words = "of 1 client, none is on load host 1";
    assert!(finished.stderr.contains(words), "{finished:?}");
    assert_counts_agree(&place, 2);
}

#[test]
fn faults_of_a_file_are_named_before_anything_starts() {
    let place = Place::with(SCENARIO);
    for (second, words) in [
        ("cpus = '1000'", &["load host 2 (env)", "no CPU 1000"][..]),
        (
            "source_addresses = ['192.0.2.1']",
            &["load host 2", "from 192.0.2.1"],
        ),
        ("colour = 1", &["line 10, load[2].colour", "unknown field"]),
    ] {
        let lab = lab(&place, second);
        let mut check = executable();
        check.args(["hosts", "check", &lab]);
        let checked = finish(check);
        assert_eq!(checked.code, Some(1), "{checked:?}");
        for word in words {
            assert!(checked.stderr.contains(word), "{word}: {checked:?}");
        }
    }

    let lab = lab(&place, "");
    let option = ["--server-on", "env", "--hosts", &lab];
    finish(place.run(&option)).refused(&["lab.toml names the hosts", "leave out --server-on"]);
    finish(place.run(&["--hosts", "absent.toml"])).refused(&["cannot read absent.toml"]);
}

#[test]
fn hosts_are_checked_without_a_run() {
    let check = |address: &str, clients: &str| {
        let mut command = executable();
        command.args([
            "hosts",
            "check",
            "--server-on",
            "setsid",
            "--clients-on",
            "env",
        ]);
        command.args(["--clients-on", clients, "--server-address", address]);
        finish(command)
    };
    let checked = check("127.0.0.1", "env");
    assert_eq!(checked.code, Some(0), "{checked:?}");
    let lines: Vec<&str> = checked.stdout.lines().collect();
    assert_eq!(lines.len(), 3, "{checked:?}");
    assert!(lines.iter().all(|line| line.contains("clock within")));
    let reached = |line: &&&str| line.contains("server reached in");
    assert_eq!(lines.iter().filter(reached).count(), 2, "{checked:?}");

    // An address for documents, which no host has.
    let absent = check("192.0.2.1", "env");
    assert_eq!(absent.code, Some(1), "{absent:?}");
    assert!(
        absent.stderr.contains("the server did not start"),
        "{absent:?}"
    );
    let failed = check("127.0.0.1", "false");
    assert!(failed.stderr.contains("load host 2 (false)"), "{failed:?}");
    let mut alone = executable();
    alone.args(["hosts", "check"]);
    finish(alone).refused(&["no host is named"]);
}

/// The processes of a run with these words in their command line.
fn with_words(running: &Running, words: &str) -> Vec<Pid> {
    let all = running.processes().into_iter();
    let with_words = all.filter(|(_, line)| line.contains(words));
    with_words.map(|(pid, _)| pid).collect()
}

/// Waits until a run has finished a block.
pub(crate) fn one_block_is_kept(place: &Place) {
    let blocks = place.results().join("blocks.csv");
    let kept = || fs::read_to_string(&blocks).is_ok_and(|text| text.lines().count() > 2);
    eventually(|| kept().then_some(()), || "no block is finished");
}

/// Kills processes with these words until the run ends; returns its end.
fn killed(place: &Place, running: Running, words: &str) -> Finished {
    one_block_is_kept(place);
    // One that has just done its duty is not missed.
    eventually(
        || {
            if let Some(pid) = with_words(&running, words).first() {
                let _ = kill(*pid, Signal::SIGKILL);
                thread::sleep(Duration::from_millis(300));
            }
            with_words(&running, " run ").is_empty().then_some(())
        },
        || running.processes(),
    );
    running.end()
}

#[test]
fn a_killed_process_of_a_host_ends_the_run() {
    for (words, host) in [
        ("cat", "server host ("),
        ("echobench agent", " host"),
        ("echobench supervise", "server host ("),
        ("echobench serve", "server host ("),
        ("echobench drive", "load host (env)"),
    ] {
        let place = Place::with(SCENARIO);
        let relay = launcher(&place, "relay", RELAY);
        let options = ["--blocks", "60"];
        let running = Running::start(run(&place, &relay, &["env"], &options));
        let finished = killed(&place, running, words);

        println!("{words}: {}", finished.stderr);
        assert_eq!(finished.code, Some(1), "{words}: {finished:?}");
        assert!(finished.stderr.contains(host), "{words}: {finished:?}");
        assert!(
            finished.stderr.contains("--resume"),
            "{words}: {finished:?}"
        );

        // Every kept block has all its arms, and the record names no host.
        let blocks = place.rows("blocks.csv");
        assert!(
            !blocks.is_empty() && blocks.len().is_multiple_of(2),
            "{words}"
        );
        assert!(
            place.status().contains("host: "),
            "{words}: {}",
            place.status()
        );
        assert!(
            !place.status().contains("relay"),
            "{words}: {}",
            place.status()
        );
    }
}

#[test]
fn a_run_whose_host_failed_is_resumed_on_equal_hosts() {
    let place = Place::with(SCENARIO);
    let running = Running::start(run(&place, "env", &["env"], &["--blocks", "4"]));
    let finished = killed(&place, running, "echobench drive");
    assert_eq!(finished.code, Some(1), "{finished:?}");

    // A killed run may leave rows of an unfinished block.
    let path = place.results().join("hosts.csv");
    let text = fs::read_to_string(&path).unwrap();
    let last = text.lines().last().unwrap();
    fs::write(
        &path,
        format!("{text}{}\n2,ti", last.replace(",thread,", ",thread,9")),
    )
    .unwrap();

    let resume = |hosts: &[&str]| {
        let mut command = executable();
        command
            .arg("run")
            .arg("--resume")
            .arg(place.results())
            .args(hosts);
        finish(command)
    };
    resume(&[]).refused(&["a server host and 1 load hosts"]);
    let hosts = [
        "--server-on",
        "env",
        "--clients-on",
        "env",
        "--server-address",
        "127.0.0.1",
    ];
    let more = [&hosts[..], &["--clients-on", "env"]].concat();
    resume(&more).refused(&["a server host and 1 load hosts"]);

    let whole = fs::read_to_string(&path).unwrap();
    let short: Vec<&str> = whole.lines().take(2).collect();
    fs::write(&path, short.join("\n") + "\n").unwrap();
    resume(&hosts).refused(&["hosts.csv has 1 of"]);
    fs::write(&path, whole).unwrap();

    let resumed = resume(&hosts);
    assert_eq!(resumed.code, Some(0), "{resumed:?}");
    assert_counts_agree(&place, 8);
    check_host_rows(&place, &[5], 4);
}

#[test]
fn an_interrupt_ends_all_hosts() {
    let place = Place::with(SCENARIO);
    let running = Running::start(run(&place, "setsid", &["env"], &["--blocks", "60"]));
    one_block_is_kept(&place);
    running.signal(Signal::SIGINT);
    let finished = running.end();
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert_eq!(place.status(), "interrupted");
    assert!(
        finished.stderr.contains("--server-on setsid"),
        "{finished:?}"
    );
}

#[test]
fn nothing_outlives_a_killed_run() {
    let place = Place::with(SCENARIO);
    let relay = launcher(&place, "relay", RELAY);
    // `setsid` leaves the agent without a parent that could end it.
    let running = Running::start(run(&place, "setsid", &[&relay], &["--blocks", "60"]));
    one_block_is_kept(&place);
    eventually(
        || (!with_words(&running, "echobench drive").is_empty()).then_some(()),
        || running.processes(),
    );
    running.signal(Signal::SIGKILL);
    running.end();
}

/// An agent that supervises a server, with its input.
fn agent_with_server(first: &Value) -> (Running, ChildStdin) {
    let mut command = executable();
    command.arg("agent");
    let (running, mut input) = Running::start_with_input(command);
    let arguments = ["supervise", "--own", "--", "serve", "fork"];
    let start = json!({"start": {"id": 0, "arguments": arguments}});
    writeln!(input, "{first}\n{start}").unwrap();
    running.processes_until(1, "echobench serve");
    (running, input)
}

#[test]
fn an_agent_ends_with_its_input() {
    let (running, input) = agent_with_server(&json!("clock"));
    drop(input);
    assert_eq!(running.end().code, Some(0));
}

#[test]
fn an_agent_ends_with_its_lease() {
    // The connection was cut: its input never ends.
    let (running, _input) = agent_with_server(&json!({"lease": {"seconds": 1}}));
    assert_eq!(running.end().code, Some(1));
}

#[test]
fn a_dead_agent_leaves_nothing_behind() {
    let (running, _input) = agent_with_server(&json!("clock"));
    running.signal(Signal::SIGKILL);
    running.end();
}

#[test]
fn rows_of_one_host_are_as_before() {
    let place = Place::with(SCENARIO);
    let finished = finish(place.run(&["--blocks", "1"]));
    assert_eq!(finished.code, Some(0), "{finished:?}");
    for row in place.rows("blocks.csv") {
        assert_ne!(row["placement"], "apart");
        assert_eq!(row["status"], "ok");
    }
    let record = fs::read_to_string(place.results().join("run.json")).unwrap();
    assert!(!record.contains("\"hosts\""));
    assert!(!place.results().join("hosts.csv").exists());
}
