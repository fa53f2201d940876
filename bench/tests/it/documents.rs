//! Documents: links resolve, tables are whole, and the dictionary of columns is complete.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{executable, finish, is_installed};
use echobench::results::Metric;

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

/// Folders whose Markdown files are documents of the project.
const FOLDERS: [&str; 4] = ["", "docs", "results", ".github"];

/// Every document, by its path from the root.
fn documents() -> BTreeMap<PathBuf, String> {
    let root = root();
    let mut documents = BTreeMap::new();

    for folder in FOLDERS {
        let Ok(entries) = fs::read_dir(root.join(folder)) else {
            continue;
        };

        for entry in entries {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "md") {
                let text = fs::read_to_string(&path).unwrap();
                documents.insert(path.strip_prefix(&root).unwrap().to_owned(), text);
            }
        }
    }
    documents
}

/// The lines outside of code blocks.
pub(crate) fn prose(text: &str) -> Vec<&str> {
    let mut fenced = false;
    let outside = |line: &&str| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fence && !fenced
    };
    text.lines().filter(outside).collect()
}

/// The anchor of a heading that is the first of its words.
pub(crate) fn anchor_of(heading: &str) -> String {
    heading
        .trim_start_matches('#')
        .trim()
        .to_lowercase()
        .chars()
        .filter(|char| char.is_alphanumeric() || [' ', '-', '_'].contains(char))
        .map(|char| if char == ' ' { '-' } else { char })
        .collect()
}

/// The anchors of the headings, as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();

    for line in prose(text) {
        let heading = line.trim_start_matches('#');
        if heading.len() == line.len() || !heading.starts_with(' ') {
            continue;
        }
        let anchor = anchor_of(line);
        let names = std::iter::once(anchor.clone()).chain((1..).map(|n| format!("{anchor}-{n}")));
        for name in names {
            if anchors.insert(name) {
                break;
            }
        }
    }
    anchors
}

/// The targets of the links and pictures in a text.
pub(crate) fn links(text: &str) -> Vec<String> {
    let prose = prose(text).join("\n");
    let targets = prose.split("](").skip(1);
    targets
        .filter_map(|rest| rest.split_once(')').map(|(target, _)| target.to_owned()))
        .collect()
}

#[test]
fn every_link_leads_somewhere() {
    let root = root();
    let documents = documents();
    let mut broken = Vec::new();
    let mut followed = 0;

    for (document, text) in &documents {
        for link in links(text) {
            if link.starts_with("https://") || link.starts_with("http://") {
                continue;
            }
            followed += 1;
            let (path, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = match path {
                "" => root.join(document),
                path => root.join(document).parent().unwrap().join(path),
            };

            let found = match fs::read_to_string(&target) {
                Ok(text) if !anchor.is_empty() => anchors(&text).contains(anchor),
                _ => target.exists() && anchor.is_empty(),
            };
            if !found {
                broken.push(format!("{}: {link}", document.display()));
            }
        }
    }
    assert_eq!(broken, Vec::<String>::new());
    assert!(followed > 50, "only {followed} links were found");
}

#[test]
fn every_document_is_reached_from_the_readme_in_two_clicks() {
    let documents = documents();
    let root = root();
    let next = |from: &Path| -> Vec<PathBuf> {
        let text = documents.get(from).map_or("", String::as_str);
        let files = links(text).into_iter().filter_map(|link| {
            let path = link.split('#').next()?.to_owned();
            let target = root.join(from).parent()?.join(path).canonicalize().ok()?;
            target.strip_prefix(&root).map(Path::to_owned).ok()
        });
        files.collect()
    };

    let once = next(Path::new("README.md"));
    let twice = once.iter().flat_map(|document| next(document));
    let reached: BTreeSet<PathBuf> = once.iter().cloned().chain(twice).collect();

    let needed = |path: &&PathBuf| !path.starts_with(".github");
    for document in documents.keys().filter(needed) {
        let is_start = document == Path::new("README.md");
        assert!(is_start || reached.contains(document), "{document:?}");
    }
}

/// The number of cells of a line of a table; a bar behind a backslash is text.
fn cells(line: &str) -> usize {
    let bars = line.matches('|').count() - line.matches("\\|").count();
    bars.saturating_sub(1)
}

/// The lines of tables with another number of cells than their header.
fn uneven_rows(text: &str) -> Vec<&str> {
    let prose = prose(text);
    let tables = prose.chunk_by(|a, b| a.starts_with('|') && b.starts_with('|'));
    let uneven = tables.flat_map(|table| {
        let header = cells(table[0]);
        let uneven = move |line: &&&str| line.starts_with('|') && cells(line) != header;
        table.iter().filter(uneven).copied()
    });
    uneven.collect()
}

#[test]
fn every_row_of_a_table_has_the_cells_of_its_header() {
    let broken = "| a | b |\n| --- | --- |\n| 1 | 2 | 3 |\n| `x \\| y` | 2 |\n| 1 |\n\n| c |\n";
    assert_eq!(uneven_rows(broken), ["| 1 | 2 | 3 |", "| 1 |"]);

    for (document, text) in documents() {
        let uneven = uneven_rows(&text);
        assert!(uneven.is_empty(), "{}: {uneven:?}", document.display());
    }
}

/// The columns or fields that a section of `docs/results-format.md` explains.
fn dictionary(section: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(root().join("docs/results-format.md")).unwrap();
    let heading = format!("\n## {section}\n");
    let (_, rest) = text.split_once(&heading).expect(&heading);
    let body = rest.split("\n## ").next().unwrap();

    let rows = body.lines().filter(|line| line.starts_with("| `"));
    // Other tables, such as that of the kinds of errors, have fewer cells.
    let rows = rows.filter(|line| line.matches(" | ").count() == 3);
    let names = rows.flat_map(|line| {
        let (first, _) = line.split_once(" | ").unwrap();
        first.split('`').skip(1).step_by(2)
    });
    names.map(str::to_owned).collect()
}

/// Holds a section of the dictionary to the names that are written.
pub(crate) fn assert_documented<'a>(sections: &[&str], names: impl IntoIterator<Item = &'a str>) {
    let written: BTreeSet<String> = names.into_iter().map(str::to_owned).collect();
    let documented: BTreeSet<String> = sections.iter().flat_map(|name| dictionary(name)).collect();
    let missing: Vec<_> = written.difference(&documented).collect();
    let unknown: Vec<_> = documented.difference(&written).collect();
    assert!(
        missing.is_empty() && unknown.is_empty(),
        "docs/results-format.md, {sections:?}: without {missing:?}; not written: {unknown:?}"
    );
}

pub(crate) const COMMON: &str = "Columns of slices.csv, blocks.csv and summary.csv";

#[test]
fn the_dictionary_has_every_column_of_a_run_and_of_the_claims() {
    let columns = |header: &'static str| header.split(',');
    assert_documented(&[COMMON, "slices.csv"], columns(crate::run::SLICES));
    assert_documented(&[COMMON, "blocks.csv"], columns(crate::run::BLOCKS));
    assert_documented(&[COMMON, "hosts.csv"], columns(crate::run::HOSTS));
    assert_documented(&[COMMON, "summary.csv"], columns(crate::run::SUMMARY));
    assert_documented(&["claims.csv"], columns(crate::claims::COLUMNS));
}

/// The names of all values of a JSON document, such as `comparisons[].p`. Those below one of `opaque`
/// are left out.
fn fields(value: &serde_json::Value, at: &str, opaque: &[&str], names: &mut BTreeSet<String>) {
    match value {
        _ if opaque.contains(&at) => {
            names.insert(at.to_owned());
        }
        serde_json::Value::Object(object) => {
            for (key, value) in object {
                let dot = if at.is_empty() { "" } else { "." };
                fields(value, &format!("{at}{dot}{key}"), opaque, names);
            }
        }
        serde_json::Value::Array(list) if list.iter().any(serde_json::Value::is_object) => {
            for value in list {
                fields(value, &format!("{at}[]"), opaque, names);
            }
        }
        _ => {
            names.insert(at.to_owned());
        }
    }
}

#[test]
fn the_dictionary_has_every_field_of_the_gates_report() {
    let report = serde_json::from_str(include_str!("../golden/gate.json")).unwrap();
    let mut names = BTreeSet::new();
    let opaque = ["baseline", "candidate", "confirmation"];
    fields(&report, "", &opaque, &mut names);
    assert_documented(&["gate.json"], names.iter().map(String::as_str));
}

/// Holds the dictionary to a `run.json`, which has been resumed.
pub(crate) fn assert_record_documented(record: &serde_json::Value) {
    let mut names = BTreeSet::new();
    let opaque = [
        "environment.mitigations",
        "environment.before",
        "environment.after",
        "scenarios",
        "resumed",
    ];
    fields(record, "", &opaque, &mut names);
    names.insert("resumed".to_owned());

    // The dictionary has these once for both ends of the run.
    for (field, _) in record["environment"]["before"].as_object().unwrap() {
        names.insert(format!("….{field}"));
    }
    assert_documented(&["run.json"], names.iter().map(String::as_str));
}

#[test]
fn the_table_in_the_readme_is_the_output_of_the_command() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let (_, rest) = readme
        .split_once("(`echobench table ")
        .expect("the command");
    let folder = rest.split('`').next().unwrap();
    let (_, block) = rest.split_once("```text\n").unwrap();
    let (block, _) = block.split_once("```").unwrap();

    let mut command = executable();
    command.arg("table").arg(root().join(folder));
    command.env("COLUMNS", "100");
    let table = finish(command).stdout;

    let (quoted, cut): (Vec<&str>, Vec<&str>) = block.lines().partition(|line| *line != "…");
    for line in &quoted {
        assert!(table.lines().any(|other| other == *line), "{line}");
    }
    assert_eq!(quoted.len() + cut.len(), 8, "{block}");
}

#[test]
fn tables_of_scripts_are_those_of_their_rows() {
    if !is_installed("python3") {
        return;
    }
    for (script, rows, document, lines) in [
        ("host_cost.py", "hosts", "scale.md", 6),
        ("equal_arms.py", "equal-arms", "methodology.md", 7),
    ] {
        let mut command = Command::new(root().join("scripts").join(script));
        let rows = root().join("results").join(rows);
        command.arg("--table").arg(rows);
        let table = finish(command);

        assert_eq!(table.code, Some(0), "{table:?}");
        let document = fs::read_to_string(root().join("docs").join(document)).unwrap();
        assert!(document.contains(&table.stdout), "{}", table.stdout);
        assert_eq!(table.stdout.lines().count(), lines, "{}", table.stdout);
    }
}

#[test]
fn the_dictionary_has_every_metric() {
    let mut table = "| metric | unit | meaning |\n| --- | --- | --- |\n".to_owned();
    for metric in Metric::ALL {
        let unit = if metric.unit().is_empty() {
            "1"
        } else {
            metric.unit()
        };
        writeln!(table, "| `{metric}` | {unit} | {} |", metric.meaning()).unwrap();
    }

    let path = root().join("docs/results-format.md");
    let text = fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once("<!-- metrics -->\n").unwrap();
    let (inside, after) = rest.split_once("<!-- /metrics -->").unwrap();
    if std::env::var_os("ECHOBENCH_WRITE_DOCS").is_some() {
        let whole = format!("{before}<!-- metrics -->\n{table}<!-- /metrics -->{after}");
        fs::write(path, whole).unwrap();
    } else {
        let hint = "ECHOBENCH_WRITE_DOCS=1 cargo test --test it dictionary writes it";
        assert!(
            inside == table,
            "docs/results-format.md is out of date; {hint}"
        );
    }
}

/// The command and the options in a piece of code that calls `echobench`; words in quotes are skipped.
fn call(code: &str) -> Option<(&str, Vec<&str>)> {
    let (before, call) = code.split_once("echobench ")?;
    // Not a package, as in `cargo test -p echobench`.
    if !["", "$"].contains(&before.trim()) && !before.ends_with('/') {
        return None;
    }

    let unquoted = call.split(['"', '\'']).step_by(2);
    let mut words = unquoted.flat_map(str::split_whitespace);
    let command = words.next()?;
    let words = words.take_while(|word| !word.starts_with('#'));
    let options = words.filter(|word| word.starts_with("--"));
    Some((command, options.collect()))
}

#[test]
fn every_option_in_a_document_is_in_the_help_of_its_command() {
    let help = |command: &str| {
        let mut help = executable();
        help.args([command, "--help"]);
        finish(help).stdout
    };
    let mut known: BTreeMap<String, String> = BTreeMap::new();
    let mut checked = 0;

    for (document, text) in documents() {
        for code in text.split(['`', '\n']) {
            let Some((command, options)) = call(code) else {
                continue;
            };
            for option in options {
                let help = known
                    .entry(command.to_owned())
                    .or_insert_with(|| help(command));
                checked += 1;
                assert!(
                    help.contains(&format!("{option} ")) || help.contains(&format!("{option}\n")),
                    "{}: echobench {command} has no {option}",
                    document.display()
                );
            }
        }
    }
    assert!(checked > 30, "only {checked} options were found");
}
