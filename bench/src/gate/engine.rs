//! Engine of the gate: opens the builds, measures, and writes the report.

use std::path::PathBuf;

use super::builds::Build;
use super::export::{Export, Format};
use super::options::GateOptions;
use super::report::GateReport;
use super::rule::GateVerdict;
use super::{Observer, WrongReplies};
use crate::host::files::write_file;
use crate::host::signals::catch_interrupts;
use crate::results::{RunStatus, Writer};
use crate::{noteln, out};

/// A gate to run, and the places of its report.
#[derive(Clone, Debug)]
pub struct GateTask {
    /// The executable to compare with.
    pub baseline: PathBuf,
    /// The executable to judge.
    pub candidate: PathBuf,
    /// The workload.
    pub options: GateOptions,
    /// The format of the report on standard output.
    pub format: Format,
    /// Files with the report.
    pub exports: Vec<Export>,
    /// A new results folder for all rows.
    pub out: Option<PathBuf>,
}

/// Outcome of a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GateOutcome {
    /// The rule has decided.
    Judged(GateVerdict),
    /// An arm gave a wrong reply.
    WrongReplies,
}

/// Runs a gate and writes its report.
pub fn execute(task: &GateTask) -> anyhow::Result<GateOutcome> {
    let baseline = Build::open("baseline", &task.baseline)?;
    let candidate = Build::open("candidate", &task.candidate)?;
    let gate = task.options.gate(baseline, candidate)?;

    let mut record = task.options.record(&gate);
    let mut writer = task
        .out
        .as_deref()
        .map(|folder| Writer::create(folder, &record))
        .transpose()?;

    catch_interrupts()?;
    noteln!(
        "measuring for at most {} s, more to confirm a regression",
        gate.expected_time().as_secs()
    );
    let result = gate.run(&mut Observer {
        writer: writer.as_mut(),
        blocks: &mut |_, _| (),
        progress: &|message| noteln!("{message}"),
    });

    if let Some(writer) = &writer {
        record.status = match &result {
            Ok(_) => RunStatus::Complete,
            Err(error) => RunStatus::Failed(format!("{error:#}")),
        };
        record.environment.finish();
        writer.record(&record)?;
    }
    match result {
        Ok(report) => publish(task, &report),
        Err(error) if error.is::<WrongReplies>() => {
            noteln!("wrong: {error}");
            Ok(GateOutcome::WrongReplies)
        }
        Err(error) => Err(error),
    }
}

fn publish(task: &GateTask, report: &GateReport) -> anyhow::Result<GateOutcome> {
    out!("{}", task.format.render(report)?);
    for export in &task.exports {
        export.write(report)?;
    }
    if let Some(folder) = &task.out {
        write_file(&folder.join("gate.json"), Format::Json.render(report)?)?;
        noteln!("all rows are in {}", folder.display());
    }
    Ok(GateOutcome::Judged(report.verdict))
}
