//! `echobench list`: all models, services and scenarios, or the file of one scenario.

use std::process::ExitCode;

use clap::Args;
use echobench_protocol::Service;
use echobench_servers::MODELS;

use crate::render::Style;
use crate::scenario::Scenario;
use crate::{out, outln};

/// Options of `list`.
#[derive(Args)]
pub struct ListArgs {
    /// A scenario by name, or a file: prints it as a file with every field that has a value
    #[arg(value_name = "SCENARIO")]
    scenario: Option<String>,
}

pub(super) fn run(args: &ListArgs) -> anyhow::Result<ExitCode> {
    if let Some(name) = &args.scenario {
        out!("{}", Scenario::find(name)?.to_toml()?);
        return Ok(ExitCode::SUCCESS);
    }

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
