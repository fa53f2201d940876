//! Figures of the documents: each quoted ratio with its interval, rate, time and count of blocks is that of the run
//! that its sentence names.
//!
//! A list item or paragraph names runs by links: to a results folder, or to a section that has one or whose tables
//! come from one. One without such a link quotes the runs of the last paragraph of its section that has one. Figures
//! that come from no committed row say so: `<!-- no rows: REASON -->` in the same item, paragraph or table.
//! Times are figures if they have the three digits of a measured one; rates after "about" are not checked.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::common::place::{Row, rows};
use crate::common::{executable, finish};
use crate::documents::{anchor_of, links, prose, root};

const DOCUMENTS: [&str; 5] = [
    "README.md",
    "docs/results.md",
    "docs/designs.md",
    "docs/claims.md",
    "docs/biases.md",
];
const NO_ROWS: &str = "<!-- no rows: ";

/// A figure as a document has it.
#[derive(Clone, Debug)]
enum Figure {
    /// Text of a table, such as `0.56 [0.53, 0.61]`.
    Shown(String),
    /// A number of blocks of an arm.
    Blocks {
        some: usize,
        all: usize,
        arms: Vec<String>,
    },
}

impl Figure {
    /// The same with a last digit that is higher by one, or 0 in place of 9; of a count, that of the count.
    fn changed(&self) -> Figure {
        match self {
            Figure::Shown(text) => {
                let end = text.find([' ', '/']).unwrap_or(text.len());
                let (value, rest) = text.split_at(end);
                let (start, last) = value.split_at(value.len() - 1);
                let digit = (last.parse::<u32>().expect("a digit") + 1) % 10;
                Figure::Shown(format!("{start}{digit}{rest}"))
            }
            Figure::Blocks { some, all, arms } => Figure::Blocks {
                some: some + 1,
                all: *all,
                arms: arms.clone(),
            },
        }
    }
}

/// An item, a paragraph or a table of a document.
struct Passage {
    text: String,
    /// The results folders that it quotes.
    runs: BTreeSet<PathBuf>,
}

/// The sections of a document by the anchors of their headings, without their tables and code.
fn sections(text: &str) -> Vec<(String, Vec<&str>)> {
    let mut sections = vec![(String::new(), Vec::new())];
    let mut spliced = false;
    for line in prose(text) {
        if ["<!-- table -->", "<!-- claims -->"].contains(&line) {
            spliced = true;
        } else if line.starts_with("<!-- /") {
            spliced = false;
        } else if line.starts_with('#') {
            sections.push((anchor_of(line), Vec::new()));
        } else if !spliced || line.starts_with("`echobench ") {
            sections.last_mut().unwrap().1.push(line);
        }
    }
    sections
}

/// The folder of a run at a path, which is that folder or a file of it.
fn run_folder(path: &Path) -> Option<PathBuf> {
    let path = path.canonicalize().ok()?;
    let mut folders = path.ancestors().take(2);
    folders
        .find(|folder| folder.join("run.json").exists())
        .map(Path::to_owned)
}

/// The runs that a section names by links, and those of its tables.
fn runs_of_section(document: &Path, lines: &[&str]) -> BTreeSet<PathBuf> {
    let folder = document.parent().unwrap();
    let linked = links(&lines.join("\n")).into_iter();
    let linked = linked.filter_map(|link| run_folder(&folder.join(link)));
    let commands = lines.iter().filter(|line| line.starts_with("`echobench "));
    let words = commands.flat_map(|line| line.trim_matches('`').split(' '));
    let spliced = words.filter_map(|word| run_folder(&root().join(word)));
    linked
        .chain(spliced.filter(|folder| *folder != root()))
        .collect()
}

/// The runs that a text names by links, itself or through the sections that it links to.
fn runs_of_text(document: &Path, text: &str) -> BTreeSet<PathBuf> {
    let mut runs = runs_of_section(document, &[text]);
    for link in links(text) {
        let (path, anchor) = link.split_once('#').unwrap_or((&link, ""));
        let target = match path {
            "" => document.to_owned(),
            path => document.parent().unwrap().join(path),
        };
        if target.extension().is_none_or(|end| end != "md") {
            continue;
        }
        let linked = fs::read_to_string(&target).unwrap();
        let linked = sections(&linked).into_iter();
        for (_, lines) in linked.filter(|(name, _)| anchor.is_empty() || name == anchor) {
            runs.extend(runs_of_section(&target, &lines));
        }
    }
    runs
}

/// The passages of a document with the runs that they quote.
fn passages(document: &Path, text: &str) -> Vec<Passage> {
    let mut passages = Vec::new();
    for (_, lines) in sections(text) {
        let mut blocks: Vec<Vec<&str>> = vec![Vec::new()];
        for line in lines {
            if line.is_empty() || line.trim_start().starts_with("- ") {
                blocks.push(Vec::new());
            }
            blocks.last_mut().unwrap().push(line);
        }

        let mut of_section = BTreeSet::new();
        for block in blocks {
            let text = block.join("\n");
            let text = text.trim();
            let own = runs_of_text(document, text);
            if !own.is_empty() && !text.starts_with("- ") {
                of_section.clone_from(&own);
            }
            let runs = if own.is_empty() {
                of_section.clone()
            } else {
                own
            };
            passages.push(Passage {
                text: text.split_whitespace().collect::<Vec<_>>().join(" "),
                runs,
            });
        }
    }
    passages
}

/// A word without the punctuation around a number.
fn bare(word: &str) -> &str {
    word.trim_matches(['(', ')', '.', ',', ';', ':', '*'])
}

fn is_number(word: &str) -> bool {
    let is_part = |letter: char| letter.is_ascii_digit() || ['.', ','].contains(&letter);
    word.starts_with(|first: char| first.is_ascii_digit()) && word.chars().all(is_part)
}

/// The arms after a count of blocks: "for `pool` and `thread`".
fn arms_after(words: &[&str]) -> Vec<String> {
    let arm = |word: &str| {
        word.starts_with('`')
            .then(|| word.split('`').nth(1))
            .flatten()
            .map(str::to_owned)
    };
    let ["for", first, rest @ ..] = words else {
        return Vec::new();
    };
    let second = match rest {
        ["and", second, ..] => arm(second),
        _ => None,
    };
    arm(first).into_iter().chain(second).collect()
}

/// The figures of a passage.
fn figures(text: &str) -> Vec<Figure> {
    let words: Vec<&str> = text.split(' ').collect();
    let mut figures = Vec::new();
    let mut all_blocks = None;
    for (at, word) in words.iter().enumerate() {
        let value = bare(word).trim_end_matches('×');
        if !is_number(value) {
            continue;
        }
        let after = |n: usize| words.get(at + n).copied().unwrap_or_default();
        let digits = value
            .matches(|letter: char| letter.is_ascii_digit())
            .count();
        let is_about = at > 0 && words[at - 1] == "about";

        let is_interval = after(1)
            .strip_prefix('[')
            .is_some_and(|low| is_number(bare(low)));
        if is_interval && after(2).contains(']') {
            let (high, _) = after(2).split_once(']').unwrap();
            figures.push(Figure::Shown(format!("{value} {} {high}]", after(1))));
        } else if after(1).starts_with("requests/s") && !is_about {
            figures.push(Figure::Shown(format!("{value}/s")));
        } else if ["ns", "µs", "ms", "s"].contains(&bare(after(1))) && digits == 3 {
            figures.push(Figure::Shown(format!("{value} {}", bare(after(1)))));
        } else if after(1) == "of" && bare(after(3)) == "blocks" {
            all_blocks = bare(after(2)).parse().ok();
            let arms = arms_after(&words[(at + 4).min(words.len())..]);
            figures.extend(blocks(value, all_blocks, arms));
        } else if all_blocks.is_some() && after(1) == "for" {
            let arms = arms_after(&words[at + 1..]);
            figures.extend(
                (!arms.is_empty())
                    .then(|| blocks(value, all_blocks, arms))
                    .flatten(),
            );
        }
    }
    figures
}

fn blocks(some: &str, all: Option<usize>, arms: Vec<String>) -> Option<Figure> {
    let (some, all) = (some.parse().ok()?, all?);
    Some(Figure::Blocks { some, all, arms })
}

/// The committed rows of the runs, as `table` and `claims` show them, and as they are.
#[derive(Default)]
struct Runs {
    shown: BTreeMap<PathBuf, String>,
    blocks: BTreeMap<PathBuf, Vec<Row>>,
}

impl Runs {
    fn shown(&mut self, run: &Path) -> &str {
        self.shown.entry(run.to_owned()).or_insert_with(|| {
            let mut command = executable();
            if run.join("claims.csv").exists() {
                command.args(["claims", "--from"]).arg(run);
            } else {
                command.arg("table").arg(run);
            }
            let text = finish(command).stdout;
            format!(
                " {} ",
                text.split_whitespace().collect::<Vec<_>>().join(" ")
            )
        })
    }

    /// Whether any of the runs has a figure of a passage.
    fn have(&mut self, figure: &Figure, passage: &Passage) -> bool {
        let mut runs = passage.runs.iter();
        match figure {
            Figure::Shown(text) => runs.any(|run| self.shown(run).contains(&format!(" {text} "))),
            Figure::Blocks { some, all, arms } => runs.any(|run| {
                let rows = self
                    .blocks
                    .entry(run.clone())
                    .or_insert_with(|| rows(&run.join("blocks.csv")));
                let all_of = |arm: Option<&String>| {
                    counts(rows, &passage.text, arm).contains(&(*some, *all))
                };
                match &arms[..] {
                    [] => all_of(None),
                    arms => arms.iter().all(|arm| all_of(Some(arm))),
                }
            }),
        }
    }
}

/// Numbers of blocks that are as the passage says, and of all blocks, of each arm under each condition that it names.
fn counts(rows: &[Row], text: &str, arm: Option<&String>) -> BTreeSet<(usize, usize)> {
    let is_so: fn(&Row) -> bool = if text.contains("below 1 ms") {
        |row| {
            row["latency_p99_ns"]
                .parse::<u64>()
                .is_ok_and(|ns| ns < 1_000_000)
        }
    } else if text.contains("generator was the limit") {
        |row| row["validity"].contains("generator")
    } else {
        |_| false
    };
    let percent = text
        .split_once("At ")
        .and_then(|(_, rest)| rest.split(' ').next());
    let placements = ["none", "split", "same"];
    let placement = placements
        .into_iter()
        .find(|name| text.contains(&format!("`{name}`")));

    let mut counts: BTreeMap<Vec<&str>, (usize, usize)> = BTreeMap::new();
    for row in rows {
        let is_named = arm.map_or_else(
            || !text.contains('`') || text.contains(&format!("`{}`", row["model"])),
            |arm| row["model"] == *arm,
        );
        let is_named = is_named
            && percent.is_none_or(|percent| row["load_percent"] == percent)
            && placement.is_none_or(|placement| row["placement"] == placement);
        if is_named {
            let key = [
                "scenario",
                "clients",
                "driver",
                "placement",
                "load_percent",
                "model",
            ];
            let count = counts
                .entry(key.map(|name| row[name].as_str()).to_vec())
                .or_default();
            count.0 += usize::from(is_so(row));
            count.1 += 1;
        }
    }
    counts.into_values().collect()
}

#[test]
fn every_quoted_figure_is_that_of_the_run_that_its_sentence_names() {
    let mut runs = Runs::default();
    let mut faults = Vec::new();
    let mut unnoticed = Vec::new();
    let mut checked = 0;

    for name in DOCUMENTS {
        let document = root().join(name);
        let text = fs::read_to_string(&document).unwrap();
        for passage in passages(&document, &text) {
            if passage.text.contains(NO_ROWS) {
                continue;
            }
            for figure in figures(&passage.text) {
                checked += 1;
                if !runs.have(&figure, &passage) {
                    faults.push(format!(
                        "{name}: {figure:?} of {:?}: {}",
                        passage.runs, passage.text
                    ));
                }
                // A copy of the document with another digit.
                let changed = figure.changed();
                if runs.have(&changed, &passage) {
                    unnoticed.push(format!(
                        "{name}: {figure:?} as {changed:?}: {}",
                        passage.text
                    ));
                }
            }
        }
    }
    assert!(
        faults.is_empty(),
        "not in the rows of these runs:\n{}",
        faults.join("\n")
    );
    assert!(
        unnoticed.is_empty(),
        "another digit goes unnoticed:\n{}",
        unnoticed.join("\n")
    );
    assert!(checked > 50, "only {checked} figures were found");
}

#[test]
fn figures_are_found_in_prose() {
    let texts = |text: &str| -> Vec<String> {
        figures(text)
            .iter()
            .map(|figure| format!("{figure:?}"))
            .collect()
    };
    let shown = |text: &str| format!("{:?}", Figure::Shown(text.to_owned()));
    assert_eq!(
        texts(
            "serves 0.56× [0.53, 0.61], takes 66.5 µs (not 5 ms), 13,233 requests/s, about 190,000 requests/s"
        ),
        [
            shown("0.56 [0.53, 0.61]"),
            shown("66.5 µs"),
            shown("13,233/s")
        ]
    );
    let counted = texts("in 9 of 13 blocks for `async`, 6 for `pool` and `thread`, 4 for `fork`.");
    let of = |some: usize, arms: &[&str]| {
        let arms = arms.iter().map(ToString::to_string).collect();
        format!(
            "{:?}",
            Figure::Blocks {
                some,
                all: 13,
                arms
            }
        )
    };
    assert_eq!(
        counted,
        [
            of(9, &["async"]),
            of(6, &["pool", "thread"]),
            of(4, &["fork"])
        ]
    );
}
