//! `echobench claims`: the textbook's claims, each measured and judged.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Args;
use indexmap::IndexMap;

use crate::host::signals::{catch_interrupts, interrupted};
use crate::render::splice::splice;

use crate::claims::table::{ledger, list};
use crate::claims::{CLAIMS, Claim, ClaimVerdict, Evidence, Lab, Ruling, find};
use crate::host::environment::Environment;
use crate::host::machine::DisturbanceWatch;
use crate::render::Style;
use crate::results::{
    BlockRow, ClaimRow, ClaimsWriter, RunRecord, SCHEMA_VERSION, Validity, default_folder,
    read_claims,
};
use crate::{note, noteln, out};

/// The options of `claims`.
#[derive(Args)]
pub struct ClaimsArgs {
    /// Only these, such as C1 C9 [default: all]
    #[arg(value_name = "ID")]
    ids: Vec<String>,

    /// The short form: less than 2 minutes for all, instead of less than 10
    #[arg(long)]
    quick: bool,

    /// Where to put the results [default: a new folder under results/]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// Decides orders and traffic [default: from the clock]
    #[arg(long)]
    seed: Option<u64>,

    /// Measure nothing: show the claims of this results folder again
    #[arg(long, value_name = "DIR", conflicts_with_all = ["quick", "out", "seed"])]
    from: Option<PathBuf>,

    /// Measure nothing: show every claim with its source, its metric and its rule
    #[arg(long, conflicts_with_all = ["quick", "out", "seed", "from", "into"])]
    list: bool,

    /// Draw the tables in Markdown
    #[arg(long)]
    markdown: bool,

    /// Replace the text between the markers `<!-- claims -->` and `<!-- /claims -->` of this document
    #[arg(long, value_name = "FILE")]
    into: Option<PathBuf>,
}

pub(super) fn run(args: &ClaimsArgs) -> anyhow::Result<ExitCode> {
    let claims = find(&args.ids)?;
    let style = if args.markdown {
        Style::Markdown
    } else {
        Style::Plain
    };
    if args.list {
        out!("{}", list(&claims, style));
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(folder) = &args.from {
        let mut rows = read_claims(folder)?;
        rows.retain(|row| claims.iter().any(|claim| claim.id == row.claim));
        show(args, folder, &rows, style)?;
        return Ok(ExitCode::SUCCESS);
    }
    measure(args, &claims, style)
}

fn measure(args: &ClaimsArgs, claims: &[&Claim], style: Style) -> anyhow::Result<ExitCode> {
    let environment = Environment::capture();
    let folder = args
        .out
        .clone()
        .unwrap_or_else(|| default_folder(!args.quick, &environment, "-claims"));
    let seed = super::seed(args.seed);
    let mut record = RunRecord {
        schema_version: SCHEMA_VERSION,
        effort: if args.quick { "quick" } else { "full" }.to_owned(),
        seed,
        status: "running".to_owned(),
        resumed: Vec::new(),
        environment,
        scenarios: IndexMap::new(),
    };
    let mut writer = ClaimsWriter::create(&folder, &record)?;
    catch_interrupts()?;
    let lab = Lab {
        quick: args.quick,
        seed,
    };
    let mut ledger = Ledger::default();
    for claim in claims {
        if let Some(rows) = ledger.judge(claim, &lab) {
            writer.claim(&rows)?;
            ledger.rows.extend(rows);
        }
        if interrupted() {
            break;
        }
    }
    record.status = ledger.status(claims.len());
    record.environment.finish();
    writer.record(&record)?;
    show(args, &folder, &ledger.rows, style)?;
    noteln!("\nresults in {}", folder.display());
    Ok(ledger.exit_code())
}

/// What has been judged so far.
#[derive(Default)]
struct Ledger {
    rows: Vec<ClaimRow>,
    judged: usize,
    /// Claims whose experiments could not be made.
    failed: Vec<&'static str>,
    /// Claims that were not decided on a disturbed machine.
    lost: Vec<&'static str>,
}

impl Ledger {
    /// The rows of one claim; none if its experiment could not be made.
    fn judge(&mut self, claim: &Claim, lab: &Lab) -> Option<Vec<ClaimRow>> {
        note!("{:<4}{} ", claim.id, claim.claim);
        let began = Instant::now();
        let watch = DisturbanceWatch::start();
        let evidence = (claim.experiment)(lab);
        let disturbed = watch.disturbed();
        match evidence {
            Ok(evidence) => {
                let ruling = (claim.decide)(&evidence);
                let seconds = began.elapsed().as_secs_f64();
                noteln!("· {} · {seconds:.1} s", ruling.verdict.words());
                if disturbed && ruling.verdict == ClaimVerdict::Inconclusive {
                    self.lost.push(claim.id);
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

    fn status(&self, wanted: usize) -> String {
        if !self.failed.is_empty() {
            format!("failed: {}", self.failed.join(", "))
        } else if self.judged < wanted {
            "interrupted".to_owned()
        } else {
            "complete".to_owned()
        }
    }

    fn exit_code(&self) -> ExitCode {
        if interrupted() {
            return ExitCode::FAILURE;
        }
        if !self.failed.is_empty() {
            return ExitCode::from(2);
        }
        if !self.lost.is_empty() {
            noteln!(
                "the machine was disturbed, and {} not decided: measure again when it is quiet",
                self.lost.join(", ")
            );
            return ExitCode::from(3);
        }
        ExitCode::SUCCESS
    }
}

fn rows(claim: &Claim, evidence: &Evidence, ruling: &Ruling, disturbed: bool) -> Vec<ClaimRow> {
    let validity = if disturbed {
        Validity::Disturbed.word()
    } else {
        BlockRow::VALID
    };
    let row = |figure: &crate::claims::Figure| ClaimRow {
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
        validity: validity.to_owned(),
    };
    evidence.figures.iter().map(row).collect()
}

/// Prints the tables, or puts them into a document.
fn show(
    args: &ClaimsArgs,
    folder: &std::path::Path,
    rows: &[ClaimRow],
    style: Style,
) -> anyhow::Result<()> {
    let Some(document) = &args.into else {
        out!("{}", ledger(rows, CLAIMS, style));
        return Ok(());
    };
    let folder = folder.display().to_string();
    let command = format!("echobench claims --from {}", folder.trim_end_matches('/'));
    splice(
        document,
        "claims",
        &command,
        &ledger(rows, CLAIMS, Style::Markdown),
    )
}
