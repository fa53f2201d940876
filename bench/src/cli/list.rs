//! `echobench list`: all models, services and scenarios.

use std::process::ExitCode;

use echobench_protocol::Service;
use echobench_servers::MODELS;

use crate::outln;
use crate::render::Style;
use crate::scenario::Scenario;

pub(super) fn run() -> anyhow::Result<ExitCode> {
    let models = MODELS.iter().map(|model| {
        let summary = match model.unavailable() {
            None => model.summary.to_owned(),
            Some(reason) => format!("{} (not here: {reason})", model.summary),
        };
        [model.name.to_owned(), summary]
    });
    let services = Service::ALL
        .iter()
        .map(|service| [service.to_string(), service.summary().to_owned()]);
    let scenarios = Scenario::built_in()?
        .into_iter()
        .map(|scenario| [scenario.name, scenario.question]);

    let lists = [
        draw(["model", "echobench serve MODEL"], models),
        draw(
            ["service", "echobench serve MODEL --service SERVICE"],
            services,
        ),
        draw(["scenario", "echobench run SCENARIO"], scenarios),
    ];
    outln!("{}", lists.join("\n\n"));
    Ok(ExitCode::SUCCESS)
}

/// A list of names and descriptions.
fn draw(header: [&str; 2], rows: impl Iterator<Item = [String; 2]>) -> String {
    Style::Plain.table(&header, rows.map(Vec::from).collect(), &[0, 1])
}
