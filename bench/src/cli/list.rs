//! `echobench list`: models, services and scenarios, a line each.

use std::process::ExitCode;

use echobench_protocol::Service;
use echobench_servers::MODELS;

use crate::outln;
use crate::scenario::Scenario;

pub(super) fn run() -> anyhow::Result<ExitCode> {
    outln!("models (echobench serve MODEL)");
    for model in MODELS {
        outln!("  {:<10} {}", model.name, model.summary);
    }
    outln!("\nservices (serve --service)");
    for service in Service::ALL {
        outln!("  {service:<10} {}", service.summary());
    }
    outln!("\nscenarios (echobench run SCENARIO)");
    for scenario in Scenario::built_in()? {
        outln!("  {:<10} {}", scenario.name, scenario.question);
    }
    Ok(ExitCode::SUCCESS)
}
