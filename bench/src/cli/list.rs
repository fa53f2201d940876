//! `echobench list`: models, services and scenarios, a line each.

use std::process::ExitCode;

use echobench_protocol::Service;
use echobench_servers::MODELS;

use crate::scenario::Scenario;

pub(super) fn run() -> anyhow::Result<ExitCode> {
    println!("models (echobench serve MODEL)");
    for model in MODELS {
        println!("  {:<10} {}", model.name, model.summary);
    }
    println!("\nservices (serve --service)");
    for service in Service::ALL {
        println!("  {service:<10} {}", service.summary());
    }
    println!("\nscenarios (echobench run SCENARIO)");
    for scenario in Scenario::built_in()? {
        println!("  {:<10} {}", scenario.name, scenario.question);
    }
    Ok(ExitCode::SUCCESS)
}
