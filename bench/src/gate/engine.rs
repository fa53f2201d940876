//! Engine of the gate: opens both sides, measures, and writes the report.

use std::path::PathBuf;

use super::export::{Export, ExportFile, Format};
use super::options::GateOptions;
use super::report::GateReport;
use super::rule::GateVerdict;
use super::server::GateServer;
use super::{Observer, WrongReplies};
use crate::host::files::write_file;
use crate::host::signals::catch_interrupts;
use crate::processes::site::HostFailed;
use crate::results::{RunStatus, Writer};
use crate::{noteln, out};

/// A gate to run, and the places of its report.
#[derive(Clone, Debug)]
pub struct GateTask {
    /// The server to compare with: an executable of echobench, or a command line.
    pub baseline: String,
    /// The server to judge.
    pub candidate: String,
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
    Judged {
        /// The verdict.
        verdict: GateVerdict,
        /// Whether all files of the report were written.
        published: bool,
    },
    /// An arm gave a wrong reply.
    WrongReplies,
}

/// Runs a gate and writes its report.
pub fn execute(task: &GateTask) -> anyhow::Result<GateOutcome> {
    catch_interrupts()?;
    let baseline = GateServer::open("baseline", &task.baseline)?;
    let candidate = GateServer::open("candidate", &task.candidate)?;
    let gate = task.options.gate(baseline, candidate)?;
    let exports = task.exports.iter().map(Export::open);
    let exports: Vec<ExportFile> = exports.collect::<anyhow::Result<_>>()?;

    gate.rehearse()?;

    let mut record = task.options.record(&gate);
    let mut writer = task
        .out
        .as_deref()
        .map(|folder| Writer::create(folder, &record))
        .transpose()?;

    noteln!(
        "measuring for at most {} s, more to confirm a regression",
        gate.expected_time().as_secs()
    );
    let result = gate.run(&mut Observer {
        writer: writer.as_mut(),
        blocks: &mut |_, _| (),
        progress: &|message| noteln!("{message}"),
    });

    let mut published = true;
    if let Some(writer) = &writer {
        record.status = match &result {
            Ok(_) => RunStatus::Complete,
            Err(error) => RunStatus::Failed(HostFailed::nameless(error)),
        };
        record.environment.finish();
        published &= note_error(writer.record(&record));
    }
    match result {
        Ok(report) => {
            published &= publish(task, &exports, &report);
            let verdict = report.verdict;
            Ok(GateOutcome::Judged { verdict, published })
        }
        Err(error) if error.is::<WrongReplies>() => {
            noteln!("wrong: {error}");
            Ok(GateOutcome::WrongReplies)
        }
        Err(error) => Err(error),
    }
}

/// Writes the report wherever it was asked for, and returns whether every file is there. A file that
/// cannot be written prevents none of the others.
fn publish(task: &GateTask, exports: &[ExportFile], report: &GateReport) -> bool {
    let mut published = note_error(task.format.render(report).map(|text| out!("{text}")));
    for export in exports {
        published &= note_error(export.write(report));
    }

    if let Some(folder) = &task.out {
        let json = Format::Json.render(report);
        let path = folder.join("gate.json");
        published &= note_error(json.and_then(|json| write_file(&path, json)));
        noteln!("all rows are in {}", folder.display());
    }
    published
}

/// Prints the error of a step that others do not depend on; returns whether it succeeded.
fn note_error(result: anyhow::Result<()>) -> bool {
    match result {
        Ok(()) => true,
        Err(error) => {
            noteln!("error: {error:#}");
            false
        }
    }
}
