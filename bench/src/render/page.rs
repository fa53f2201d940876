//! Report page: verdicts, charts, tables, environment and method in one self-contained HTML file.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::Part;
use super::chart::{Picture, STYLE, Tip};
use super::grid::Grid;
use super::looks::Looks;
use crate::host::environment::Environment;
use crate::render::units::{self, or_unknown};
use crate::results::ordered::distinct;
use crate::results::{EffortName, RunRecord, RunStatus};

const PAGE_STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// Chapter of the page: a scenario, or a ledger of claims.
pub(crate) struct Chapter {
    pub(crate) name: String,
    pub(crate) question: Option<String>,
    /// Verdicts as sentences, in named groups; arms stand in backticks.
    pub(crate) verdicts: Vec<(String, Vec<String>)>,
    pub(crate) charts: Vec<Picture>,
    pub(crate) tables: Vec<Markup>,
}

/// A run that the page is about.
pub(crate) struct PageRun<'a> {
    /// Its name in the charts and tables; empty if the page is about one run.
    pub(crate) name: &'static str,
    pub(crate) record: &'a RunRecord,
    /// Raw data files: names and links from the page.
    pub(crate) files: Vec<(String, String)>,
}

/// Contents of the page.
pub(crate) struct Page<'a> {
    pub(crate) runs: Vec<PageRun<'a>>,
    pub(crate) looks: Looks<'a>,
    pub(crate) map: Option<Picture>,
    pub(crate) chapters: Vec<Chapter>,
    /// Description of the method.
    pub(crate) method: Markup,
}

/// A rendered report: the page, and its charts as separate files.
pub(crate) struct Rendered {
    /// HTML of the page.
    pub(crate) html: String,
    /// Charts: file name without the extension, and SVG.
    pub(crate) pictures: Vec<(String, String)>,
}

impl Page<'_> {
    /// Renders the page and its charts. Equal folders make equal reports.
    pub(crate) fn render(&self) -> Rendered {
        let charts = self.chapters.iter().flat_map(|chapter| &chapter.charts);
        let pictures = self.map.iter().chain(charts);

        Rendered {
            pictures: pictures
                .map(|picture| (picture.name.clone(), picture.file()))
                .collect(),
            html: self.html(),
        }
    }

    fn html(&self) -> String {
        let names: Vec<&str> = self
            .chapters
            .iter()
            .map(|chapter| chapter.name.as_str())
            .collect();
        let title = format!("echobench: {}", names.join(", "));

        let page = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    link rel="icon" href="data:,";
                    title { (title) }
                    style { (PreEscaped(PAGE_STYLE)) (PreEscaped(STYLE)) }
                }
                body {
                    header {
                        h1 { (title) }
                        @for run in &self.runs { (origin(run)) }
                    }
                    (self.legend())
                    main {
                        @if let Some(map) = &self.map {
                            section #overview { div.scroll role="group" aria-label="overview" tabindex="0" { (figure(map)) } }
                        }
                        @for chapter in &self.chapters { (self.chapter(chapter)) }
                        (self.environment())
                        section #method { h2 { "Method" } (self.method) }
                        (self.files())
                    }
                    div #tip hidden {}
                    script { (PreEscaped(SCRIPT)) }
                }
            }
        };
        page.into_string() + "\n"
    }

    /// Arms and their colours; the script turns them into buttons that show and hide an arm.
    fn legend(&self) -> Markup {
        html! {
            nav #legend aria-label="arms" {
                @for arm in self.looks.arms() {
                    button type="button" aria-pressed="true" data-series=(arm) {
                        span.swatch style=(format!("background:{}", self.looks.of(arm).colour)) {}
                        (arm)
                    }
                }
            }
        }
    }

    fn chapter(&self, chapter: &Chapter) -> Markup {
        html! {
            section {
                h2 { (chapter.name) }
                @if let Some(question) = &chapter.question { p.question { (question) } }
                @for (group, sentences) in &chapter.verdicts {
                    @if chapter.verdicts.len() > 1 { h3 { (group) } }
                    @for (index, sentence) in sentences.iter().enumerate() {
                        p.verdict.lead[index == 0] { (self.sentence(sentence)) }
                    }
                }
                div.charts { @for chart in &chapter.charts { (figure(chart)) } }
                @for table in &chapter.tables { (table) }
            }
        }
    }

    /// Markup of a sentence in which arms stand in backticks.
    fn sentence(&self, text: &str) -> Markup {
        html! {
            @for (index, piece) in text.split('`').enumerate() {
                @if index % 2 == 1 {
                    code style=(format!("border-color:{}", self.looks.of(piece).colour)) { (piece) }
                } @else { (piece) }
            }
        }
    }

    /// A column for each run, under its name.
    fn environment(&self) -> Markup {
        let facts: Vec<_> = self.runs.iter().map(|run| facts(run.record)).collect();
        let names = facts.iter().flatten().map(|(name, _)| *name);
        let row = |name: &str| -> Vec<String> {
            let values = facts
                .iter()
                .map(|facts| facts.iter().find(|(own, _)| *own == name));
            values
                .map(|fact| fact.map(|(_, value)| value.clone()).unwrap_or_default())
                .collect()
        };
        html! {
            section #environment {
                h2 { "Environment" }
                div.scroll role="group" aria-label="environment" tabindex="0" { table.facts {
                    @if self.runs.len() > 1 {
                        thead { tr { td {} @for run in &self.runs { th.left scope="col" { (run.name) } } } }
                    }
                    tbody { @for name in distinct(names) {
                        tr { th scope="row" { (name) } @for value in row(name) { td { (value) } } }
                    } }
                } }
            }
        }
    }

    fn files(&self) -> Markup {
        html! {
            section #files {
                h2 { "Raw data" }
                @for run in &self.runs {
                    @if !run.name.is_empty() { h3 { (run.name) } }
                    ul { @for (name, place) in &run.files { li { a href=(place) { (name) } ": " (about(name)) } } }
                }
            }
        }
    }
}

/// Line on a run and its machine, and warnings about it.
fn origin(run: &PageRun<'_>) -> Markup {
    let RunRecord {
        environment,
        effort,
        status,
        ..
    } = run.record;
    let machine = &environment.machine;
    let lead = match run.name {
        "" => String::new(),
        name => format!("{name}: "),
    };
    let revision = environment.short_revision();
    let revision = revision.map(|name| format!(", revision {name}"));

    html! {
        p { (format!(
            "{lead}A {effort} run of {}{}, on {} with {} CPUs ({}), Linux {}.",
            environment.started.split('T').next().unwrap_or_default(),
            revision.unwrap_or_default(),
            machine.cpu_model,
            machine.logical_cpus,
            machine.virtualisation,
            environment.kernel.as_deref().unwrap_or("of unknown version"),
        )) }
        @if *status != RunStatus::Complete {
            p.warning { (format!("{lead}This run is not complete: {status}. What is here is what was finished.")) }
        }
        @if *effort != EffortName::Full {
            p.warning { (lead) "Quick runs have few blocks: they find large differences only." }
        }
        @if environment.profile.as_deref() != Some("release") {
            p.warning { (lead) "Not a release build: the figures say little about the models." }
        }
        @if environment.dirty == Some(true) {
            p.warning { (lead) "Built from a checkout with changes that no commit has." }
        }
    }
}

/// Description of a raw data file.
fn about(file: &str) -> &'static str {
    match file {
        "run.json" => "machine, build, limits, load before and after, seed, scenarios",
        "slices.csv" => "a row for each block, round and arm",
        "blocks.csv" => "a row for each block and arm, the unit of the statistics",
        "summary.csv" => {
            "for each arm and metric: estimate, interval, ratio to the reference, verdict"
        }
        "claims.csv" => "a row for each figure of a claim: value, interval, verdict",
        _ => "all latencies, as an HdrHistogram interval log, a tag for each arm",
    }
}

fn figure(picture: &Picture) -> Markup {
    html! {
        figure style=(format!("--width:{}px", picture.width)) {
            (picture.inline())
            @if !picture.values.is_empty() {
                details {
                    summary { "Values" }
                    table { tbody { @for Tip { place, value } in &picture.values {
                        tr { th.left scope="row" { (place) } td.left { (value) } }
                    } } }
                }
            }
        }
    }
}

/// Markup of a part of a report.
pub(crate) fn table_part(part: &Part) -> Markup {
    match part {
        Part::Table(grid) => table(grid),
        Part::Lines(lines) => html! {
            p.notes { @for (index, line) in lines.iter().enumerate() { @if index > 0 { br; } (line) } }
        },
        Part::List(intro, items) => html! {
            p.notes { (intro) }
            ul { @for item in items { li { (item) } } }
        },
    }
}

fn table(grid: &Grid) -> Markup {
    let left = |index: usize| grid.left.contains(&index).then_some("left");
    html! {
        div.scroll role="group" aria-label=(grid.header.join(", ")) tabindex="0" { table {
            thead { tr {
                @for (index, name) in grid.header.iter().enumerate() { th scope="col" class=[left(index)] { (name) } }
            } }
            tbody { @for (index, row) in grid.rows.iter().enumerate() {
                tr class=[grid.begins_section(index).then_some("begins")] data-arm=(row.arm) {
                    @for (index, cell) in row.cells.iter().enumerate() {
                        td class=[left(index)] data-metric=[cell.source.map(|(metric, _)| metric)]
                            data-value=[cell.source.map(|(_, value)| value)] { (cell.text) }
                    }
                }
            } }
        } }
    }
}

/// Names and values of the environment table.
fn facts(record: &RunRecord) -> Vec<(&'static str, String)> {
    let environment = &record.environment;
    let mut facts = vec![
        ("command", environment.arguments.join(" ")),
        ("started", environment.started.clone()),
        ("status", record.status.to_string()),
        ("seed", record.seed.to_string()),
    ];
    facts.extend(machine_facts(environment));
    facts.extend(build_facts(environment));
    facts
}

fn machine_facts(environment: &Environment) -> Vec<(&'static str, String)> {
    let Environment {
        machine,
        limits,
        before,
        after,
        ..
    } = environment;
    let number = |value: Option<u64>| or_unknown(value, units::count);
    let load_average = |load: Option<f64>| or_unknown(load, |load| format!("{load:.1}"));
    let load = format!(
        "{} before, {} after",
        load_average(before.load_average),
        load_average(after.as_ref().and_then(|after| after.load_average))
    );
    let idle_cpus = match (&environment.idle_driver, environment.awake) {
        (_, true) => "kept awake".to_owned(),
        (driver, false) => or_unknown(driver.as_ref(), |name| format!("sleep ({name})")),
    };
    let mitigations: Vec<String> = environment
        .mitigations
        .iter()
        .filter(|(_, state)| *state != "Not affected")
        .map(|(name, state)| format!("{name}: {state}"))
        .collect();

    vec![
        (
            "CPU",
            format!("{}, {} logical", machine.cpu_model, machine.logical_cpus),
        ),
        ("memory nodes", machine.numa_nodes.to_string()),
        ("virtualisation", machine.virtualisation.clone()),
        (
            "memory",
            or_unknown(environment.memory_bytes, |size| units::bytes(size as f64)),
        ),
        ("kernel", text_or_unknown(environment.kernel.as_deref())),
        (
            "clock source",
            text_or_unknown(environment.clocksource.as_deref()),
        ),
        (
            "scaling governor",
            text_or_unknown(environment.scaling_governor.as_deref()),
        ),
        ("idle CPUs", idle_cpus),
        ("mitigations", mitigations.join("; ")),
        ("load average", load),
        ("open files", number(limits.open_files_soft)),
        ("longest backlog", number(limits.somaxconn)),
        (
            "local ports",
            or_unknown(limits.local_ports, |(first, last)| {
                format!("{first} to {last}")
            }),
        ),
    ]
}

fn build_facts(environment: &Environment) -> Vec<(&'static str, String)> {
    let revision = match (&environment.revision, environment.dirty) {
        (Some(revision), Some(true)) => format!("{revision}, with changes"),
        (revision, _) => text_or_unknown(revision.as_deref()),
    };
    let profile = text_or_unknown(environment.profile.as_deref());
    let digest = text_or_unknown(environment.executable_sha256.as_deref());
    vec![
        (
            "echobench",
            format!("{}, {profile} build", environment.version),
        ),
        ("revision", revision),
        ("compiler", text_or_unknown(environment.rustc.as_deref())),
        ("target", text_or_unknown(environment.target.as_deref())),
        ("executable", format!("SHA-256 {digest}")),
    ]
}

fn text_or_unknown(value: Option<&str>) -> String {
    or_unknown(value, str::to_owned)
}
