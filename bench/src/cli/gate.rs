//! `echobench gate`: a candidate build against a baseline build, with an exit code for CI.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use clap::Args;
use echobench_clients::raise_file_limit;

use crate::gate::builds::Build;
use crate::gate::export::{Export, Format};
use crate::gate::{Gate, Observer, Report, WrongReplies};
use crate::host::environment::Environment;
use crate::host::files::write_file;
use crate::host::signals::catch_interrupts;
use crate::results::{EffortName, RunRecord, RunStatus, SCHEMA_VERSION, Writer};
use crate::scenario::{Effort, Placement, Scenario};
use crate::{noteln, out};

/// The options of `gate`.
#[derive(Args)]
#[command(
    after_help = "Exit codes: 0 pass; 1 it could not be done; 2 a regression, or wrong replies; 3 inconclusive."
)]
pub struct GateArgs {
    /// The executable that is known
    #[arg(long, value_name = "EXE")]
    baseline: PathBuf,

    /// The executable that is judged
    #[arg(long, value_name = "EXE")]
    candidate: PathBuf,

    #[command(flatten)]
    form: GateForm,

    /// How to print the report
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Format::Table)]
    format: Format,

    /// Also write the report to a file, as in junit=gate.xml; may be given several times
    #[arg(long, value_name = "FORMAT=FILE")]
    export: Vec<Export>,

    /// Keep all rows in a new results folder
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// The workload of a gate, as options.
#[derive(Args)]
pub struct GateForm {
    /// The workload: a scenario by name (see `echobench list`), or a file: NAME.toml
    #[arg(long, value_name = "SCENARIO", default_value = "gate")]
    scenario: String,

    /// Other models than the scenario's, each with options of `serve` if it needs any
    #[arg(long, value_name = "MODELS", value_delimiter = ',')]
    models: Vec<String>,

    /// The short form instead of the long one: fewer and shorter blocks, so less certain to have an answer
    #[arg(long)]
    quick: bool,

    /// Another number of blocks than the scenario's; after half of them there may be an answer already
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    blocks: Option<u32>,

    /// Another placement than the scenario's: none, split or same
    #[arg(long)]
    placement: Option<Placement>,

    /// Decides the orders of the arms and the clients' traffic [default: from the clock]
    #[arg(long)]
    seed: Option<u64>,
}

impl GateForm {
    /// The gate between two builds in this form.
    pub fn gate(&self, baseline: Build, candidate: Build) -> anyhow::Result<Gate> {
        let (scenario, effort) = self.scenario()?;
        let gate = Gate {
            baseline,
            candidate,
            scenario,
            effort,
            seed: self.seed(),
            candidate_options: Vec::new(),
        };
        gate.check()?;
        Ok(gate)
    }

    fn seed(&self) -> u64 {
        super::seed(self.seed)
    }

    fn scenario(&self) -> anyhow::Result<(Scenario, Effort)> {
        let mut scenario = Scenario::find(&self.scenario)?;
        if scenario.sweep.is_some() || scenario.traffic.arrivals.is_some() {
            bail!(
                "scenario '{}' is an open loop, in which throughput is given: a gate needs a closed one",
                scenario.name
            );
        }
        if !scenario.external.is_empty() || !scenario.alternate {
            bail!(
                "scenario '{}' has external arms or does not alternate between its arms: a gate needs neither",
                scenario.name
            );
        }
        if !self.models.is_empty() {
            scenario.models = self
                .models
                .iter()
                .map(|model| model.trim().to_owned())
                .collect();
        }
        for (index, model) in scenario.models.iter().enumerate() {
            if scenario.models[..index].contains(model) {
                bail!("model '{model}' is named twice");
            }
        }
        if let Some(placement) = self.placement {
            scenario.placements = vec![placement];
        }
        for placement in &scenario.placements {
            placement.cpus()?;
        }
        raise_file_limit(scenario.clients.iter().copied().max().unwrap_or(0))?;
        let mut effort = if self.quick {
            scenario.quick
        } else {
            scenario.full
        };
        effort.blocks = self.blocks.unwrap_or(effort.blocks);
        Ok((scenario, effort))
    }

    /// The record of a gate in this form that is about to run.
    #[must_use]
    pub fn record(&self, gate: &Gate) -> RunRecord {
        let scenario = gate.scenario.clone();
        RunRecord {
            schema_version: SCHEMA_VERSION,
            effort: if self.quick {
                EffortName::Quick
            } else {
                EffortName::Full
            },
            seed: gate.seed,
            status: RunStatus::Running,
            resumed: Vec::new(),
            environment: Environment::capture(),
            scenarios: [(scenario.name.clone(), scenario)].into_iter().collect(),
        }
    }
}

pub(super) fn run(args: &GateArgs) -> anyhow::Result<ExitCode> {
    let baseline = Build::open("baseline", &args.baseline)?;
    let candidate = Build::open("candidate", &args.candidate)?;
    let gate = args.form.gate(baseline, candidate)?;
    let mut record = args.form.record(&gate);
    let mut writer = args
        .out
        .as_deref()
        .map(|folder| Writer::create(folder, &record))
        .transpose()?;
    catch_interrupts()?;
    noteln!(
        "measuring for at most {} s, more to confirm a regression",
        gate.expected_time().as_secs()
    );
    let mut observer = Observer {
        writer: writer.as_mut(),
        blocks: &mut |_, _| (),
        progress: &|what| noteln!("{what}"),
    };
    let result = gate.run(&mut observer);
    if let Some(writer) = &writer {
        record.status = match &result {
            Ok(_) => RunStatus::Complete,
            Err(error) => RunStatus::Failed(format!("{error:#}")),
        };
        record.environment.finish();
        writer.record(&record)?;
    }
    match result {
        Ok(report) => publish(args, &report),
        Err(error) if error.is::<WrongReplies>() => {
            noteln!("wrong: {error}");
            Ok(ExitCode::from(2))
        }
        Err(error) => Err(error),
    }
}

fn publish(args: &GateArgs, report: &Report) -> anyhow::Result<ExitCode> {
    out!("{}", args.format.render(report)?);
    for export in &args.export {
        export.write(report)?;
    }
    if let Some(folder) = &args.out {
        write_file(&folder.join("gate.json"), &Format::Json.render(report)?)?;
        noteln!("all rows are in {}", folder.display());
    }
    Ok(ExitCode::from(report.verdict.exit_code()))
}
