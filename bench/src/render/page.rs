//! The page: verdicts, charts, tables, the environment and the method in one HTML file that needs
//! nothing else.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::Part;
use super::chart::{Picture, STYLE};
use super::grid::Grid;
use super::looks::Looks;
use crate::host::environment::Environment;
use crate::render::units::{self, or_unknown};
use crate::results::{EffortName, RunRecord, RunStatus};

const PAGE_STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// What the page says about a scenario.
pub(crate) struct Chapter {
    pub(crate) name: String,
    pub(crate) question: Option<String>,
    /// For each driver and placement what came of it, a sentence each; arms in backticks.
    pub(crate) verdicts: Vec<(String, Vec<String>)>,
    pub(crate) charts: Vec<Picture>,
    pub(crate) tables: Vec<Markup>,
}

/// Everything on the page.
pub(crate) struct Page<'a> {
    pub(crate) record: &'a RunRecord,
    pub(crate) looks: Looks<'a>,
    pub(crate) map: Option<Picture>,
    pub(crate) chapters: Vec<Chapter>,
    /// How it was measured.
    pub(crate) method: Markup,
    /// The files of the run: their names and where they are, seen from the page.
    pub(crate) files: &'a [(String, String)],
}

/// A finished report: the page, and its charts as files of their own.
pub(crate) struct Rendered {
    /// The page.
    pub(crate) html: String,
    /// The names of the charts, without the extension, and the charts as SVG.
    pub(crate) pictures: Vec<(String, String)>,
}

impl Page<'_> {
    /// The page as HTML, and its charts as SVG files. Equal folders make equal reports.
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
                        (self.origin())
                    }
                    (self.legend())
                    main {
                        @if let Some(map) = &self.map {
                            section #overview { div.scroll { (figure(map)) } }
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

    fn origin(&self) -> Markup {
        let RunRecord {
            environment,
            effort,
            status,
            ..
        } = self.record;
        let machine = &environment.machine;
        html! {
            p { (format!(
                "A {effort} run of {}, on {} with {} CPUs ({}), Linux {}.",
                environment.started.split('T').next().unwrap_or_default(),
                machine.cpu_model,
                machine.logical_cpus,
                machine.virtualisation,
                environment.kernel.as_deref().unwrap_or("of unknown version"),
            )) }
            @if *status != RunStatus::Complete {
                p.warning { (format!("This run is not complete: {status}. What is here is what was finished.")) }
            }
            @if *effort != EffortName::Full {
                p.warning { "Quick runs have few blocks: they find large differences only." }
            }
            @if environment.profile.as_deref() != Some("release") {
                p.warning { "Not a release build: the figures say little about the models." }
            }
            @if environment.dirty == Some(true) {
                p.warning { "Built from a checkout with changes that no commit has." }
            }
        }
    }

    /// The arms and their colours; buttons where there is a script to listen to them.
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

    /// A sentence in which arms stand in backticks.
    fn sentence(&self, text: &str) -> Markup {
        html! {
            @for (index, piece) in text.split('`').enumerate() {
                @if index % 2 == 1 {
                    code style=(format!("border-color:{}", self.looks.of(piece).colour)) { (piece) }
                } @else { (piece) }
            }
        }
    }

    fn environment(&self) -> Markup {
        let rows = facts(self.record);
        html! {
            section #environment {
                h2 { "Environment" }
                div.scroll { table.facts {
                    @for (name, value) in rows { tr { th scope="row" { (name) } td { (value) } } }
                } }
            }
        }
    }

    fn files(&self) -> Markup {
        html! {
            section #files {
                h2 { "Raw data" }
                ul { @for (name, place) in self.files { li { a href=(place) { (name) } ": " (about(name)) } } }
            }
        }
    }
}

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
        figure style=(format!("--width:{}px", picture.width)) { (picture.inline()) }
    }
}

/// A part of what there is to say about a scenario.
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
        div.scroll { table {
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

fn facts(record: &RunRecord) -> Vec<(&'static str, String)> {
    let Environment {
        machine,
        limits,
        before,
        after,
        ..
    } = &record.environment;
    let environment = &record.environment;
    let unknown = |value: &Option<String>| or_unknown(value.clone(), |value| value);
    let number = |value: Option<u64>| or_unknown(value, units::count);
    let revision = match (&environment.revision, environment.dirty) {
        (Some(revision), Some(true)) => format!("{revision}, with changes"),
        (revision, _) => unknown(revision),
    };
    let load_average = |load: Option<f64>| or_unknown(load, |load| format!("{load:.1}"));
    let load = format!(
        "{} before, {} after",
        load_average(before.load_average),
        load_average(after.as_ref().and_then(|after| after.load_average))
    );
    let mitigations: Vec<String> = environment
        .mitigations
        .iter()
        .filter(|(_, state)| *state != "Not affected")
        .map(|(name, state)| format!("{name}: {state}"))
        .collect();
    vec![
        ("command", environment.arguments.join(" ")),
        ("started", environment.started.clone()),
        ("status", record.status.to_string()),
        ("seed", record.seed.to_string()),
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
        ("kernel", unknown(&environment.kernel)),
        ("clock source", unknown(&environment.clocksource)),
        ("scaling governor", unknown(&environment.scaling_governor)),
        (
            "idle CPUs",
            match (&environment.idle_driver, environment.awake) {
                (_, true) => "kept awake".to_owned(),
                (driver, false) => or_unknown(driver.as_ref(), |name| format!("sleep ({name})")),
            },
        ),
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
        (
            "echobench",
            format!(
                "{}, {} build",
                environment.version,
                unknown(&environment.profile)
            ),
        ),
        ("revision", revision),
        ("compiler", unknown(&environment.rustc)),
        (
            "executable",
            format!("SHA-256 {}", unknown(&environment.executable_sha256)),
        ),
    ]
}
