//! `compare` and `history`: what they put beside each other, what they do not, and what they mark.

use std::fs;
use std::path::Path;

use crate::common::{Finished, executable, finish};
use echobench::results::SCHEMA_VERSION;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A made-up results folder with one condition of one scenario.
struct Made {
    name: &'static str,
    payload_bytes: u32,
    /// Arms with their throughput; the first is the reference.
    arms: &'static [(&'static str, f64)],
    /// Columns `status` and `validity` of each block of each arm.
    blocks: &'static [(&'static str, &'static str)],
    status: &'static str,
    profile: &'static str,
    dirty: bool,
    target: Option<&'static str>,
    /// CPU model of a load host of its own.
    load_host: Option<&'static str>,
}

impl Made {
    const PLAIN: Made = Made {
        name: "one",
        payload_bytes: 64,
        arms: &[("thread", 1000.0), ("fork", 900.0)],
        blocks: &[("ok", "valid"), ("ok", "valid")],
        status: "complete",
        profile: "release",
        dirty: false,
        target: None,
        load_host: None,
    };

    fn record(&self) -> Value {
        let machine = json!({
            "cpu_model": "Xeon", "logical_cpus": 2, "numa_nodes": 1, "virtualisation": "kvm",
        });
        let of_host = |cpu: &str| {
            let mut machine = machine.clone();
            machine["cpu_model"] = json!(cpu);
            json!({ "role": "load host", "environment": { "machine": machine } })
        };
        let hosts: Vec<Value> = self.load_host.into_iter().map(of_host).collect();
        json!({
            "status": self.status,
            "hosts": hosts,
            "environment": {
                "started": format!("2026-01-01T00:00:00Z {}", self.name), "machine": machine,
                "profile": self.profile, "dirty": self.dirty,
                "target": self.target,
            },
            "scenarios": { "steady": { "traffic": { "payload_bytes": self.payload_bytes } } },
        })
    }

    fn summary(&self) -> String {
        let names = "schema_version,scenario,clients,driver,placement,load_percent,traffic,model,metric,estimate,low,\
            high,level,method,blocks,reference,ratio,ratio_low,ratio_high,ratio_level,verdict";
        let (reference, of) = self.arms[0];
        let mut text = format!("{names}\n");
        for &(model, rate) in self.arms {
            let row = format!(
                "{SCHEMA_VERSION},steady,8,threads,none,,,{model},throughput_per_second,{rate}"
            );
            let interval = format!("{},{},0.95,m,2", rate * 0.99, rate * 1.01);
            let ratio = rate / of;
            let compared = if model == reference {
                ",,,,,".to_owned()
            } else {
                format!(
                    "{reference},{ratio},{},{},0.95,lower",
                    ratio * 0.99,
                    ratio * 1.01
                )
            };
            text += &(row + "," + &interval + "," + &compared + "\n");
        }
        text
    }

    /// Only the columns that tell blocks apart, and what is the matter with them.
    fn blocks(&self) -> String {
        let numbers = "planned,answered,failed,unsent,clients_never_served,hiccups,stall_max_ns";
        let mut text = format!(
            "schema_version,scenario,clients,driver,placement,load_percent,traffic,model,block,status,validity,errors,{numbers}\n"
        );
        for (model, _) in self.arms {
            for (index, (status, validity)) in self.blocks.iter().enumerate() {
                let block = index + 1;
                let row = format!(
                    "{SCHEMA_VERSION},steady,8,threads,none,,,{model},{block},{status},{validity}"
                );
                text += &(row + ",,1,1,0,0,0,0,0\n");
            }
        }
        text
    }

    fn write(&self, place: &Path) {
        let folder = place.join(self.name);
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("run.json"), self.record().to_string()).unwrap();
        fs::write(folder.join("summary.csv"), self.summary()).unwrap();
        fs::write(folder.join("blocks.csv"), self.blocks()).unwrap();
    }
}

fn echobench(place: &TempDir, arguments: &[&str]) -> Finished {
    let mut command = executable();
    command.current_dir(place.path()).args(arguments);
    finish(command)
}

fn compared(before: &Made, after: &Made) -> Finished {
    let place = TempDir::new().unwrap();
    before.write(place.path());
    after.write(place.path());
    echobench(&place, &["compare", before.name, after.name])
}

fn single_blanks(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The line of a table about an arm, with single blanks.
fn line(text: &str, arm: &str) -> String {
    let mut lines = text.lines().map(single_blanks);
    let words = format!(" {arm} throughput_per_second ");
    lines
        .find(|line| format!("{line} ").contains(&words))
        .unwrap_or_else(|| panic!("no {arm}: {text}"))
}

#[test]
fn different_workloads_of_one_name_are_not_compared() {
    let large = Made {
        name: "two",
        payload_bytes: 65_536,
        ..Made::PLAIN
    };
    let run = compared(&Made::PLAIN, &large);
    run.refused(&[
        "no arm in common",
        "workloads of steady differ",
        "payload_bytes (64 and 65536)",
    ]);

    let place = TempDir::new().unwrap();
    Made::PLAIN.write(place.path());
    large.write(place.path());
    let history = echobench(&place, &["history", "."]).stdout;
    let words = "steady (2) is another workload than steady: payload_bytes (64 and 65536).";
    assert!(history.contains(words), "{history}");
    assert_eq!(history.matches(" fork ").count(), 2, "{history}");
    assert!(
        history.contains("0.90 –") && history.contains("– 0.90"),
        "{history}"
    );
}

/// Each kind of traffic is compared with itself alone.
#[test]
fn kinds_of_traffic_are_told_apart() {
    let place = TempDir::new().unwrap();
    let later = Made {
        name: "two",
        ..Made::PLAIN
    };
    for made in [Made::PLAIN, later] {
        made.write(place.path());
        let summary = made.summary();
        let (names, rows) = summary.split_once('\n').unwrap();
        let of = |traffic: &str| rows.replace(",none,,,", &format!(",none,,{traffic},"));
        let large = of("1 KiB").replace("thread,0.9,", "thread,0.8,");
        let text = format!("{names}\n{}{large}", of("64 B"));
        fs::write(place.path().join(made.name).join("summary.csv"), text).unwrap();
    }

    let run = echobench(&place, &["compare", "one", "two"]);
    let lines: Vec<String> = run.stdout.lines().map(single_blanks).collect();
    for (traffic, ratio) in [("64 B", "0.900"), ("1 KiB", "0.800")] {
        let words = format!(
            "steady, {traffic} 8 threads none fork throughput_per_second {ratio} {ratio} +0.0 %"
        );
        assert!(lines.iter().any(|line| line.starts_with(&words)), "{run:?}");
    }

    let history = echobench(&place, &["history", "."]).stdout;
    let lines: Vec<String> = history.lines().map(single_blanks).collect();
    let words = "steady, 1 KiB 8 threads none fork throughput_per_second 0.80 0.80";
    assert!(
        lines.iter().any(|line| line.starts_with(words)),
        "{history}"
    );
}

/// Four ratios on two kinds of machines: on one side of 1 on both, on different sides, and unresolved on one.
#[test]
fn ratios_that_turn_around_on_another_machine_are_named() {
    const FORK: &str = "fork,throughput_per_second";
    let place = TempDir::new().unwrap();
    let other = Made {
        name: "two",
        arms: &[
            ("thread", 1000.0),
            ("fork", 1200.0),
            ("async", 800.0),
            ("pool", 900.0),
        ],
        ..Made::PLAIN
    };
    let one = Made {
        arms: &[
            ("thread", 1000.0),
            ("fork", 900.0),
            ("async", 700.0),
            ("pool", 950.0),
        ],
        ..Made::PLAIN
    };
    for made in [&one, &other] {
        made.write(place.path());
    }
    let edit = |name: &str, change: &dyn Fn(&str) -> String| {
        let path = place.path().join(name);
        let text = fs::read_to_string(&path).unwrap();
        let changed = change(&text);
        assert_ne!(text, changed);
        fs::write(path, changed).unwrap();
    };
    edit("two/run.json", &|text| text.replace("Xeon", "EPYC"));
    edit("two/summary.csv", &|text| {
        let line = |line: &str| {
            let verdict = if line.contains(FORK) {
                "higher"
            } else {
                "lower"
            };
            line.replace("lower", verdict) + "\n"
        };
        text.lines().map(line).collect()
    });
    edit("one/summary.csv", &|text| {
        let line = |line: &str| {
            let is_pool = line.contains(",pool,");
            line.replace("lower", if is_pool { "unresolved" } else { "lower" }) + "\n"
        };
        text.lines().map(line).collect()
    });

    let sentence = "Of 3 ratios on several kinds of machines, 1 is resolved on the same side of 1 on each, 1 turns \
                    around (TURNS), 1 is not resolved on each.";
    for arguments in [
        &["compare", "--allow-unlike", "one", "two"][..],
        &["history", "."],
    ] {
        let run = echobench(&place, arguments);
        let (_, text) = run
            .stdout
            .split_once(sentence)
            .unwrap_or_else(|| panic!("{run:?}"));
        let lines: Vec<String> = text.lines().map(single_blanks).collect();
        let fork = "steady 8 threads none fork throughput_per_second 0.90 [0.89, 0.91] 1.20 [1.19, 1.21] TURNS";
        let tokio =
            "steady 8 threads none async throughput_per_second 0.70 [0.69, 0.71] 0.80 [0.79, 0.81]";
        let at = |words: &str| lines.iter().position(|line| line == words);
        assert!(at(fork) < at(tokio) && at(fork).is_some(), "{run:?}");
        assert!(!text.contains(" pool "), "{run:?}");
    }
}

#[test]
fn arms_of_one_run_alone_are_shown() {
    let more = Made {
        name: "two",
        arms: &[("thread", 1000.0), ("async", 1500.0)],
        ..Made::PLAIN
    };
    let run = compared(&Made::PLAIN, &more);
    assert_eq!(run.code, Some(0), "{run:?}");
    let fork = "steady 8 threads none fork throughput_per_second 0.900 – – 900/s – –";
    let tokio = "steady 8 threads none async throughput_per_second – 1.500 – – 1,500/s –";
    assert_eq!(line(&run.stdout, "fork"), fork);
    assert_eq!(line(&run.stdout, "async"), tokio);
}

#[test]
fn ratios_to_different_arms_have_no_change() {
    let other = Made {
        name: "two",
        arms: &[("fork", 900.0), ("thread", 1000.0)],
        ..Made::PLAIN
    };
    let run = compared(&Made::PLAIN, &other);
    let thread =
        "steady 8 threads none thread throughput_per_second – 1.111 – 1,000/s 1,000/s +0.0 %";
    assert_eq!(line(&run.stdout, "thread"), thread);
    assert!(!run.stdout.contains("NaN"), "{run:?}");
    assert!(
        run.stdout.contains("In short: no ratio is in both runs."),
        "{run:?}"
    );
}

#[test]
fn an_arm_that_served_nothing_has_no_change_in_percent() {
    let nothing = Made {
        name: "two",
        arms: &[("thread", 1000.0), ("fork", 0.0)],
        ..Made::PLAIN
    };
    let back = Made {
        name: "three",
        ..Made::PLAIN
    };
    let run = compared(&nothing, &back);
    let fork = "steady 8 threads none fork throughput_per_second 0 0.900 – 0/s 900/s –";
    assert_eq!(line(&run.stdout, "fork"), fork);
    for word in ["NaN", "inf"] {
        assert!(!run.stdout.contains(word), "{run:?}");
    }
}

#[test]
fn runs_on_unlike_hosts_are_of_unlike_machines() {
    let on_host = |name, load_host| Made {
        name,
        load_host,
        ..Made::PLAIN
    };
    let epyc = on_host("two", Some("EPYC"));
    for (other, words) in [
        (Made::PLAIN, "other hosts (load host and none)"),
        (
            on_host("three", Some("Xeon")),
            "load host: CPU model (EPYC and Xeon)",
        ),
    ] {
        let run = compared(&epyc, &other);
        assert_eq!(run.code, Some(1), "{run:?}");
        assert!(run.stderr.contains(words), "{run:?}");
    }
    let alike = compared(&epyc, &on_host("four", Some("EPYC")));
    assert_eq!(alike.code, Some(0), "{alike:?}");
}

#[test]
fn the_largest_change_is_named_in_a_sentence() {
    let slower = Made {
        name: "two",
        arms: &[("thread", 1000.0), ("fork", 500.0)],
        ..Made::PLAIN
    };
    let sentence = "In short: 1 of 1 ratio changed beyond the intervals, most throughput_per_second of `fork` in \
                    steady with 8 threads: -44.4 %.";
    let run = compared(&Made::PLAIN, &slower);
    assert!(run.stdout.contains(sentence), "{run:?}");

    let same = Made {
        name: "three",
        ..Made::PLAIN
    };
    let run = compared(&Made::PLAIN, &same);
    let sentence = "In short: of 1 ratio none changed beyond the intervals.";
    assert!(run.stdout.contains(sentence), "{run:?}");
}

#[test]
fn builds_with_other_c_libraries_are_unlike() {
    let built_for = |name, target| Made {
        name,
        target,
        ..Made::PLAIN
    };
    let glibc = built_for("two", Some("x86_64-unknown-linux-gnu"));
    let musl = built_for("three", Some("x86_64-unknown-linux-musl"));

    let unlike = compared(&glibc, &musl);
    let difference = "builds (x86_64-unknown-linux-gnu and x86_64-unknown-linux-musl)";
    assert_eq!(unlike.code, Some(1), "{unlike:?}");
    assert!(unlike.stderr.contains(difference), "{unlike:?}");
    // Older runs do not say it.
    assert_eq!(compared(&Made::PLAIN, &musl).code, Some(0));
}

#[test]
fn doubtful_runs_are_marked() {
    let doubtful = Made {
        name: "two",
        blocks: &[("ok", "disturbed"), ("ok", "valid"), ("killed", "valid")],
        status: "interrupted",
        profile: "debug",
        dirty: true,
        ..Made::PLAIN
    };
    let run = compared(&Made::PLAIN, &doubtful);
    let title = "two (interrupted; debug build; uncommitted changes; 2 rows failed; 2 of 6 rows not valid: disturbed 2)";
    assert!(run.stdout.contains(&format!("after: {title}")), "{run:?}");
    assert!(run.stdout.contains("before: one\n"), "{run:?}");
    assert!(
        line(&run.stdout, "fork").contains(" 0.900 0.900! "),
        "{run:?}"
    );

    let place = TempDir::new().unwrap();
    Made::PLAIN.write(place.path());
    doubtful.write(place.path());
    let history = echobench(&place, &["history", "."]).stdout;
    assert!(history.contains(&format!("2  {title}\n")), "{history}");
    assert!(history.contains("0.90 0.90!"), "{history}");
}
