//! Tests of scenarios and their files.

use std::collections::BTreeSet;
use std::path::Path;

use super::file::BUILT_IN;
use super::*;

#[test]
fn committed_scenarios_are_valid() {
    let scenarios = Scenario::built_in().unwrap();
    assert_eq!(scenarios.len(), BUILT_IN.len());
    for scenario in scenarios {
        assert!(!scenario.question.is_empty());
        assert!(!scenario.question.contains('\n'));
    }
}

#[test]
fn a_scenario_survives_being_recorded() {
    let scenario = Scenario::find("blocking").unwrap();
    let json = serde_json::to_string(&scenario).unwrap();
    let back: Scenario = serde_json::from_str(&json).unwrap();
    assert_eq!(
        serde_json::to_value(back.full).unwrap(),
        serde_json::to_value(scenario.full).unwrap()
    );
}

#[test]
fn a_list_of_traffic_makes_conditions_of_its_own() {
    let mut scenario = Scenario::find("steady").unwrap();
    let names = |scenario: &Scenario| -> Vec<String> {
        let each = scenario.traffic.each().into_iter();
        each.map(|(name, _)| name).collect()
    };
    assert_eq!(names(&scenario), [""]);

    let text = BUILT_IN[0].1.replace(
        "payload_bytes = 64",
        "payload_bytes = [64, 1024]\nwork = [\"none\", \"block:5ms\"]\nthink = \"1ms\"",
    );
    scenario = Scenario::parse("x", "x.toml", &text).unwrap();
    assert_eq!(
        names(&scenario),
        [
            "64 B, none",
            "64 B, block:5ms",
            "1 KiB, none",
            "1 KiB, block:5ms"
        ]
    );
    let (_, last) = scenario.traffic.each().pop().unwrap();
    scenario.traffic = last;
    let workload = scenario.workload(1);
    assert_eq!(
        (workload.payload_bytes, workload.think_ns),
        (1024, 1_000_000)
    );
    assert_eq!(workload.work, "block:5ms".parse().unwrap());
    assert_eq!(names(&scenario), [""]);

    let recorded = serde_json::to_value(&scenario).unwrap();
    assert_eq!(recorded["traffic"]["payload_bytes"], 1024);
}

#[test]
fn a_set_of_models_is_recorded_as_its_models() {
    let steady = Scenario::find("steady").unwrap();
    let main = ["thread", "fork", "pool", "async"];
    assert_eq!(steady.models, main);
    assert_eq!(Scenario::find("churn").unwrap().models.len(), 5);

    let recorded = serde_json::to_value(&steady).unwrap();
    assert_eq!(recorded["models"], serde_json::json!(main));
}

#[test]
fn arms_have_names_that_can_be_told_apart_and_shown() {
    let arms = |models: &[&str], external: &[&str]| {
        let mut scenario = Scenario::find("steady").unwrap();
        scenario.models = models.iter().map(ToString::to_string).collect();
        scenario.normalise_models();
        let external = external.iter().map(|name| External {
            name: name.to_string(),
            command: "server {port}".to_owned(),
            needs: None,
        });
        scenario.external = external.collect();
        let mut faults = Vec::new();
        scenario.check_arms(&mut faults);
        let texts: Vec<String> = faults.iter().map(ToString::to_string).collect();
        texts.join("; ")
    };
    assert_eq!(
        arms(
            &["thread", "pool --workers 8"],
            &["a b", "a_b", "a,b", "a-b", "ä|b"]
        ),
        ""
    );

    let twice = arms(&["pool  --workers\t8", "pool --workers 8"], &[]);
    assert!(twice.contains("named twice"), "{twice}");
    for name in ["a\u{1b}[2J", "a\u{202e}b", "a\u{200b}"] {
        let error = arms(&["thread"], &[name]);
        assert!(!error.contains(name) && !error.contains('\n'), "{error}");
    }
}

#[test]
fn bad_files_say_where() {
    let good = BUILT_IN[0].1;
    for (bad, words) in [
        (
            good.replace("payload_bytes", "payload"),
            vec!["line", "payload", "x.toml"],
        ),
        (good.replacen("gap =", "gap = 3 #", 1), vec!["line", "gap"]),
        (
            good.replace("clients = [", "clients = [0, "),
            vec!["0 clients"],
        ),
        (
            good.replace("\"main\"", "[\"thread\", \"fibre\"]"),
            vec!["fibre", "thread", "fork"],
        ),
        (
            good.replace("= 64", "= [64, 64]"),
            vec!["64 B", "listed twice"],
        ),
        (
            good.replace("= 64", "= 64\nwork = [\"none\", \"sleep:1ms\"]"),
            vec!["line", "sleep"],
        ),
        (
            good.replace("\"main\"", "\"most\""),
            vec!["line 2", "all", "main"],
        ),
        (
            good.replace("= 64", "= \"64 KB\""),
            vec!["line", "traffic.payload_bytes", "64KiB"],
        ),
        ("question = ".to_owned(), vec!["line 1"]),
    ] {
        let error = Scenario::parse("x", "x.toml", &bad)
            .unwrap_err()
            .to_string();
        for word in words {
            assert!(error.contains(word), "{error}: no {word}");
        }
        assert!(!error.contains('\n'), "{error}");
    }
}

fn parse(text: &str) -> anyhow::Result<Scenario> {
    Scenario::parse("x", "x.toml", text)
}

/// Everything that a record of it holds.
fn record(scenario: &Scenario) -> serde_json::Value {
    serde_json::to_value(scenario).unwrap()
}

#[test]
fn a_scenario_needs_nothing_but_its_question() {
    let scenario = parse("question = \"Why?\"").unwrap();
    assert_eq!(scenario.models, ["thread", "fork", "pool", "async"]);
    let loads = scenario.loads();
    assert_eq!(loads, [(64, Driver::Tasks, Placement::Split)]);
    assert_eq!(record(&scenario), record(&Scenario::plain("y", "Why?")));

    let error = parse("clients = 8").unwrap_err().to_string();
    assert!(error.starts_with("x.toml, question: missing"), "{error}");
}

#[test]
fn loads_of_the_long_form_are_left_out_of_the_short_one() {
    let text = "question = \"?\"\nclients = 1\n[[beside]]\nclients = 2\nfull_only = true\n[[beside]]\nclients = 3";
    for (full, expected) in [(false, &[1, 3][..]), (true, &[1, 2, 3])] {
        let mut scenario = parse(text).unwrap();
        scenario.take_form(full);
        let clients: Vec<u32> = scenario
            .loads()
            .iter()
            .map(|(clients, ..)| *clients)
            .collect();
        assert_eq!(clients, expected);
    }
}

#[test]
fn scenarios_are_read_back_from_their_own_text() {
    for scenario in Scenario::built_in().unwrap() {
        let text = scenario.to_toml().unwrap();
        let back = parse(&text).unwrap();
        assert_eq!(record(&back), record(&scenario), "{text}");
        assert!(text.starts_with("question = "), "{text}");
        assert!(!text.contains("0000000ns"), "{text}");
    }
}

#[test]
fn every_fault_of_a_file_is_named_in_a_line_of_its_own() {
    let text = "clients = [0, 8]\ndrivers = \"fibres\"\nmodel = \"thread\"\n\n[traffic]\npayload_bytes = \"64 KB\"\n\
                think = 5\narrivals = { per_second = \"fast\" }\n\n[quick]\nblocks = 0\nslices = 3\n\n[[external]]\n\
                name = \"mine\"\n";
    let error = parse(text).unwrap_err().to_string();
    let lines: Vec<&str> = error.lines().collect();
    let expected = [
        ["x.toml, question", "missing"],
        ["x.toml, line 1, clients", "0 clients"],
        ["x.toml, line 2, drivers", "threads, processes, tasks"],
        ["x.toml, line 3, model", "`models`"],
        ["x.toml, line 6, traffic.payload_bytes", "64KiB"],
        ["x.toml, line 7, traffic.think", "5"],
        ["x.toml, line 8, traffic.arrivals.per_second", "f64"],
        ["x.toml, line 11, quick.blocks", "more than 0"],
        ["x.toml, line 12, quick.slices", "`slice`"],
        ["x.toml, line 14, external", "`command`"],
    ];
    assert_eq!(lines.len(), expected.len(), "{error}");
    for (line, [start, word]) in lines.iter().zip(expected) {
        assert!(
            line.starts_with(start) && line.contains(word),
            "{line}: {start}, {word}"
        );
    }
}

#[test]
fn sizes_and_times_are_read_as_tables_print_them() {
    let scenario = parse(
        "question = \"?\"\n[traffic]\npayload_bytes = [\"1KiB\", \"64 KiB\", 5]\nthink = [\"1.5 ms\", \"2 s\"]\n",
    );
    let traffic = scenario.unwrap().traffic;
    let bytes: Vec<u32> = traffic.payload_bytes.iter().map(|bytes| bytes.0).collect();
    assert_eq!(bytes, [1024, 65_536, 5]);
    let thinks: Vec<u64> = traffic.think.iter().map(|think| think.ns()).collect();
    assert_eq!(thinks, [1_500_000, 2_000_000_000]);
}

/// Fields of a file stand; those that it leaves out are long enough for its traffic.
#[test]
fn slices_and_gaps_that_are_not_given_follow_from_the_traffic() {
    let waits = "question = \"?\"\n[traffic]\nwork = \"block:50ms\"\n";
    let effort = parse(waits).unwrap().quick;
    assert!(effort.slice.0 >= Duration::from_millis(100), "{effort:?}");
    assert!(effort.ramp.0 >= Duration::from_millis(50), "{effort:?}");
    assert!(effort.gap.0 > Duration::from_millis(50), "{effort:?}");

    let given = parse(&format!("{waits}[quick]\nslice = \"7ms\"\n"))
        .unwrap()
        .quick;
    assert_eq!(given.slice.0, Duration::from_millis(7));
    assert_eq!((given.ramp, given.gap), (effort.ramp, effort.gap));

    // 368 requests carry a 99th percentile; at 200 a second a block needs 2 s.
    let rate = "question = \"?\"\n[traffic]\narrivals = { per_second = 200.0 }\n";
    let effort = parse(rate).unwrap().quick;
    let measured = effort.slice.0 * u32::try_from(effort.rounds).unwrap();
    assert!(measured.as_secs_f64() * 200.0 > 400.0, "{effort:?}");
    assert!(effort.gap.0 >= OPEN_LOOP_GAP);
}

/// Names of the fields of a table of a scenario file, as the reader knows them.
fn fields_of(table: &str, head: &str) -> BTreeSet<String> {
    let text = format!("question = \"?\"\n{head}no_such_field = 1\n");
    let error = parse(&text).unwrap_err().to_string();
    let (_, list) = error.split_once("expected one of ").expect(&error);
    let list = list.lines().next().unwrap();
    let names = list.split('`').skip(1).step_by(2);
    names.map(|name| format!("{table}{name}")).collect()
}

#[test]
fn the_reference_of_scenario_files_has_every_field() {
    let mut fields = fields_of("", "");
    for table in ["traffic", "sweep", "capacity", "quick", "full"] {
        fields.remove(table);
        fields.extend(fields_of(&format!("{table}."), &format!("[{table}]\n")));
    }
    for table in ["external", "beside"] {
        fields.remove(table);
        fields.extend(fields_of(&format!("{table}."), &format!("[[{table}]]\n")));
    }

    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/scenarios.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (_, section) = text.split_once("\n## Fields\n").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let names = rows.flat_map(|row| {
        row.split(" | ")
            .next()
            .unwrap()
            .split('`')
            .skip(1)
            .step_by(2)
    });
    let documented: BTreeSet<String> = names.map(str::to_owned).collect();
    let missing: Vec<_> = fields.difference(&documented).collect();
    let unknown: Vec<_> = documented.difference(&fields).collect();
    assert!(
        missing.is_empty() && unknown.is_empty(),
        "without {missing:?}; no fields: {unknown:?}"
    );
}
