//! Layout of `bench/src`: studies never import each other, foundations import no study, and no folders
//! import each other in a circle. The table at the top of `src/lib.rs` describes the folders.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

const STUDIES: [&str; 6] = ["run", "claims", "gate", "selfcheck", "verify", "load"];
const FOUNDATIONS: [&str; 7] = [
    "experiment",
    "render",
    "processes",
    "results",
    "scenario",
    "host",
    "stats",
];
/// The command line; `main` is what calls it.
const CLI: &str = "cli";
const MAIN: &str = "main";

/// The folder that a file imports another one from, with the place of the import.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Import {
    from: String,
    to: String,
    place: String,
}

/// The top folder of a file, or its name where it lies beside the folders.
fn folder(path: &str) -> &str {
    let first = path.split('/').next().unwrap_or(path);
    first.trim_end_matches(".rs")
}

/// The number of modules that enclose the items of a file: 1 in `run/mod.rs`, 2 in `run/page.rs`.
fn depth(path: &str) -> usize {
    let is_root = matches!(path, "lib.rs" | "main.rs");
    let names = path.split('/').filter(|name| *name != "mod.rs").count();
    if is_root { 0 } else { names }
}

/// The first names of what stands behind `crate::`, one or a list in braces.
fn first_names(path: &str) -> Vec<String> {
    let name = |text: &str| {
        let end = text.find(|c: char| !c.is_alphanumeric() && c != '_');
        text[..end.unwrap_or(text.len())].to_owned()
    };
    let Some(list) = path.strip_prefix('{') else {
        return vec![name(path)];
    };

    let mut names = Vec::new();
    let mut level = 0;
    let mut start = 0;
    for (at, character) in list.char_indices() {
        match character {
            '{' => level += 1,
            '}' if level > 0 => level -= 1,
            ',' | '}' if level == 0 => {
                names.push(name(list[start..at].trim_start()));
                start = at + 1;
                if character == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

/// Positions at which the text holds this path as a whole word.
fn occurrences<'a>(text: &'a str, path: &'a str) -> impl Iterator<Item = usize> + 'a {
    text.match_indices(path).map(|(at, _)| at).filter(|at| {
        let before = text[..*at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
    })
}

/// The inline modules that are open in each line. In formatted code a module ends with a brace at the
/// indentation of its first line.
fn inline_modules(code: &str) -> Vec<usize> {
    let mut open: Vec<usize> = Vec::new();
    let indentation = |line: &str| line.len() - line.trim_start().len();
    code.split('\n')
        .map(|line| {
            let words = line.trim_start().trim_start_matches("pub(crate) ");
            let words = words.trim_start_matches("pub ");
            if words.starts_with("mod ") && words.ends_with('{') {
                open.push(indentation(line));
            } else if line.trim() == "}" && open.last() == Some(&indentation(line)) {
                open.pop();
            }
            open.len()
        })
        .collect()
}

/// Imports of a file from other folders, by any path that starts at the root of the crate.
fn imports(path: &str, text: &str, folders: &BTreeSet<String>) -> Vec<Import> {
    let lines = text.lines().map(|line| line.split("//").next());
    let code = lines
        .map(Option::unwrap_or_default)
        .collect::<Vec<_>>()
        .join("\n");

    let mut imports = Vec::new();
    let mut line_start = 0;
    for (index, (line, open)) in code.split('\n').zip(inline_modules(&code)).enumerate() {
        let supers = "super::".repeat(depth(path) + open);
        let roots = ["crate::", "echobench::", supers.as_str()];
        let roots = roots.into_iter().filter(|root| !root.is_empty());
        let paths = roots.flat_map(|root| occurrences(line, root).map(|at| at + root.len()));
        // A list in braces may go on over lines.
        let names = paths.flat_map(|at| first_names(&code[line_start + at..]));
        for to in names.filter(|name| folders.contains(name) && name != folder(path)) {
            let from = folder(path).to_owned();
            let place = format!("{path}:{}", index + 1);
            imports.push(Import { from, to, place });
        }
        line_start += line.len() + 1;
    }
    imports
}

/// Whether the layout has room for such an import.
fn is_allowed(import: &Import) -> bool {
    let to_foundation = FOUNDATIONS.contains(&import.to.as_str());
    match import.from.as_str() {
        MAIN => to_foundation || import.to == CLI,
        CLI => to_foundation || STUDIES.contains(&import.to.as_str()),
        _ => to_foundation,
    }
}

/// A circle of imports that can be reached from this folder, as the folders on the way.
fn circle<'a>(
    graph: &BTreeMap<&'a str, BTreeSet<&'a str>>,
    way: &mut Vec<&'a str>,
) -> Option<String> {
    let here = *way.last()?;
    for next in graph.get(here).into_iter().flatten() {
        if let Some(start) = way.iter().position(|name| name == next) {
            let mut names = way[start..].to_vec();
            names.push(next);
            return Some(names.join(" → "));
        }
        way.push(next);
        let found = circle(graph, way);
        way.pop();
        if found.is_some() {
            return found;
        }
    }
    None
}

/// Everything about these files that breaks the layout; each is a path and its text.
fn violations(files: &[(String, String)]) -> Vec<String> {
    let folders: BTreeSet<String> = files
        .iter()
        .map(|(path, _)| folder(path).to_owned())
        .filter(|name| !["lib", MAIN].contains(&name.as_str()))
        .collect();
    let known = |name: &str| name == CLI || STUDIES.contains(&name) || FOUNDATIONS.contains(&name);
    let unknown = folders.iter().filter(|name| !known(name));
    let mut violations: Vec<String> = unknown
        .map(|name| format!("{name} is neither a study nor a foundation"))
        .collect();

    let imports: Vec<Import> = files
        .iter()
        .flat_map(|(path, text)| imports(path, text, &folders))
        .collect();
    let wrong = imports.iter().filter(|import| !is_allowed(import));
    violations
        .extend(wrong.map(|Import { from, to, place }| format!("{place}: {from} imports {to}")));

    let mut graph: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for import in &imports {
        graph.entry(&import.from).or_default().insert(&import.to);
    }
    let circles = graph
        .keys()
        .filter_map(|name| circle(&graph, &mut vec![name]));
    violations.extend(circles.take(1).map(|names| format!("a circle: {names}")));
    violations
}

/// All files below a folder, with their paths relative to `root`.
fn sources(root: &Path, folder: &Path, files: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(root, &path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path
                .strip_prefix(root)
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned();
            files.push((name, fs::read_to_string(&path).unwrap()));
        }
    }
}

#[test]
fn studies_stand_apart_and_foundations_carry_them() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &root, &mut files);
    files.sort();

    let folders: BTreeSet<&str> = files.iter().map(|(path, _)| folder(path)).collect();
    for name in STUDIES.iter().chain(&FOUNDATIONS).chain([&CLI, &MAIN]) {
        assert!(folders.contains(name), "no {name} any more");
    }
    let violations = violations(&files);
    assert!(violations.is_empty(), "{}", violations.join("\n"));
}

#[test]
fn what_breaks_the_layout_is_found() {
    let found = |files: &[(&str, &str)]| {
        let owned = |(path, text): &(&str, &str)| ((*path).to_owned(), (*text).to_owned());
        let names = ["run", "claims", "render", "results", "stats", CLI];
        let empty = names.map(|name| (format!("{name}/mod.rs"), String::new()));
        let files: Vec<_> = files.iter().map(owned).chain(empty).collect();
        violations(&files).join("; ")
    };

    for (path, text, expected) in [
        (
            "run/page.rs",
            "use crate::results::Row;\nuse crate::render::{grid, page};",
            "",
        ),
        (
            "run/page.rs",
            "use crate::claims::Ledger;",
            "run/page.rs:1: run imports claims",
        ),
        (
            "run/page.rs",
            "\n    crate::claims::ledger()",
            "run/page.rs:2: run imports claims",
        ),
        (
            "run/page.rs",
            "use super::super::claims;",
            "run/page.rs:1: run imports claims",
        ),
        (
            "run/page.rs",
            "use crate::cli::Options;",
            "run/page.rs:1: run imports cli",
        ),
        (
            "results/csv.rs",
            "use crate::{\n    render::grid,\n    run::{table, claims},\n};",
            "results/csv.rs:1: results imports run",
        ),
        (
            "stats/mod.rs",
            "use super::claims;",
            "stats/mod.rs:1: stats imports claims",
        ),
        (
            "stats/mod.rs",
            "use crate::cli;",
            "stats/mod.rs:1: stats imports cli",
        ),
        ("cli/run.rs", "use crate::run;\nuse crate::claims;", ""),
        ("main.rs", "use echobench::cli;", ""),
        (
            "main.rs",
            "use echobench::run;",
            "main.rs:1: main imports run",
        ),
        (
            "extra/mod.rs",
            "",
            "extra is neither a study nor a foundation",
        ),
        // These are names of its own, or no code.
        ("run/mod.rs", "mod tests {\n    use super::claims;\n}", ""),
        (
            "run/mod.rs",
            "//! As `crate::claims` has it.\nuse crate::run::page;",
            "",
        ),
        (
            "run/page.rs",
            "use super::claims;\nuse other_crate::claims;",
            "",
        ),
    ] {
        assert_eq!(found(&[(path, text)]), expected, "{path}: {text}");
    }

    let there = ("results/a.rs", "use crate::stats;");
    let back = ("stats/a.rs", "use crate::render;");
    let again = ("render/a.rs", "use crate::results;");
    assert_eq!(found(&[there, back]), "");
    let circle = "a circle: render → results → stats → render";
    assert_eq!(found(&[there, back, again]), circle);
}
