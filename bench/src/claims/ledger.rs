//! Ledger of claims: measures and judges each of them, and writes its rows at once.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context;
use indexmap::IndexMap;

use super::evidence::{Evidence, Figure};
use super::{Claim, Lab, Ruling};
use crate::host::environment::Environment;
use crate::host::machine::DisturbanceWatch;
use crate::host::signals::{catch_interrupts, interrupted};
use crate::results::{
    ClaimRow, ClaimVerdict, ClaimsWriter, EffortName, RunRecord, RunStatus, SCHEMA_VERSION,
    Validity, ValidityFlag, create_default_folder,
};
use crate::{note, noteln};

/// Options of a ledger.
pub(crate) struct LedgerOptions {
    /// Claims to judge.
    pub(crate) claims: Vec<&'static Claim>,
    /// The short form.
    pub(crate) quick: bool,
    /// Folder for the results; by default a new one.
    pub(crate) out: Option<PathBuf>,
    /// Seed of orders and traffic.
    pub(crate) seed: u64,
}

/// Judged claims.
pub(crate) struct Ledger {
    /// Folder of the results.
    pub(crate) folder: PathBuf,
    /// Rows of all judged claims.
    pub(crate) rows: Vec<ClaimRow>,
    judged: usize,
    /// Claims whose experiment failed.
    failed: Vec<&'static str>,
    /// Claims that stayed undecided on a disturbed machine.
    undecided: Vec<&'static str>,
    /// The error that ended it early, if its results could not be written.
    unwritten: Option<anyhow::Error>,
}

/// Outcome of a whole ledger.
#[derive(Debug)]
pub(crate) enum LedgerOutcome {
    /// Every claim was judged.
    Complete,
    /// A signal ended it early.
    Interrupted,
    /// Its results could not be written.
    Unwritten(anyhow::Error),
    /// An experiment failed.
    Failed,
    /// These claims were not decided, on a disturbed machine.
    Undecided(Vec<&'static str>),
}

/// Measures and judges claims. Claims that are judged before an interrupt, or before the results folder
/// can no longer be written, are in the ledger.
pub(crate) fn measure(options: &LedgerOptions) -> anyhow::Result<Ledger> {
    catch_interrupts().context("cannot catch interrupts")?;
    let environment = Environment::capture();
    let folder = match &options.out {
        Some(folder) => folder.clone(),
        None => create_default_folder(!options.quick, &environment, "-claims")?,
    };
    let mut record = RunRecord {
        schema_version: SCHEMA_VERSION,
        effort: if options.quick {
            EffortName::Quick
        } else {
            EffortName::Full
        },
        seed: options.seed,
        status: RunStatus::Running,
        resumed: Vec::new(),
        environment,
        hosts: Vec::new(),
        scenarios: IndexMap::new(),
    };
    // Written at the start, so that a killed ledger still says on which machine its rows were measured.
    let mut writer = ClaimsWriter::create(&folder, &record)?;

    let lab = Lab {
        quick: options.quick,
        seed: options.seed,
    };
    let mut ledger = Ledger {
        folder,
        rows: Vec::new(),
        judged: 0,
        failed: Vec::new(),
        undecided: Vec::new(),
        unwritten: None,
    };
    for claim in &options.claims {
        if let Some(rows) = ledger.judge(claim, &lab) {
            ledger.unwritten = writer.claim(&rows).err();
            ledger.rows.extend(rows);
        }
        if interrupted() || ledger.unwritten.is_some() {
            break;
        }
    }

    record.status = ledger.status(options.claims.len());
    record.environment.finish();
    let recorded = writer.record(&record);
    ledger.unwritten = ledger.unwritten.or(recorded.err());
    Ok(ledger)
}

impl Ledger {
    /// Rows of one claim; none if its experiment failed.
    fn judge(&mut self, claim: &Claim, lab: &Lab) -> Option<Vec<ClaimRow>> {
        note!("{:<4}{} ", claim.id, claim.claim);
        let began = Instant::now();
        let (evidence, disturbed) = match DisturbanceWatch::start() {
            Ok(watch) => {
                let evidence = (claim.experiment)(lab).and_then(Evidence::complete);
                (evidence, watch.disturbed())
            }
            Err(error) => (Err(error), false),
        };

        match evidence {
            Ok(evidence) => {
                let ruling = claim.ruling(&evidence);
                let seconds = began.elapsed().as_secs_f64();
                noteln!("· {} · {seconds:.1} s", ruling.verdict.words());
                if disturbed && ruling.verdict == ClaimVerdict::Inconclusive {
                    self.undecided.push(claim.id);
                }
                self.judged += 1;
                Some(rows(claim, &evidence, &ruling, disturbed))
            }
            Err(_) if interrupted() => {
                noteln!("· interrupted");
                None
            }
            Err(error) => {
                noteln!("· failed");
                noteln!("error: {}: {error:#}", claim.id);
                self.failed.push(claim.id);
                None
            }
        }
    }

    fn status(&self, wanted: usize) -> RunStatus {
        if !self.failed.is_empty() {
            RunStatus::Failed(format!("failed: {}", self.failed.join(", ")))
        } else if self.judged < wanted {
            RunStatus::Interrupted
        } else {
            RunStatus::Complete
        }
    }

    /// Outcome of the whole ledger, the most serious first.
    pub(crate) fn into_outcome(self) -> LedgerOutcome {
        if let Some(error) = self.unwritten {
            LedgerOutcome::Unwritten(error)
        } else if interrupted() {
            LedgerOutcome::Interrupted
        } else if !self.failed.is_empty() {
            LedgerOutcome::Failed
        } else if !self.undecided.is_empty() {
            LedgerOutcome::Undecided(self.undecided)
        } else {
            LedgerOutcome::Complete
        }
    }
}

fn rows(claim: &Claim, evidence: &Evidence, ruling: &Ruling, disturbed: bool) -> Vec<ClaimRow> {
    let flags = disturbed.then_some(ValidityFlag::Disturbed);
    let validity: Validity = flags.into_iter().collect();

    let row = |figure: &Figure| ClaimRow {
        schema_version: SCHEMA_VERSION,
        claim: claim.id.to_owned(),
        metric: figure.metric.clone(),
        at: figure.at.clone(),
        headline: figure.headline,
        value: figure.value,
        low: figure.low,
        high: figure.high,
        level: figure.level,
        blocks: figure.n,
        verdict: ruling.verdict,
        condition: ruling.condition.clone(),
        validity: validity.clone(),
    };

    evidence.figures.iter().map(row).collect()
}
