//! `echobench claims`: claims of the textbooks, each measured and judged.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::claims::ledger::{self, LedgerOptions, LedgerOutcome};
use crate::claims::table::{ledger_table, list, verdicts_side_by_side};
use crate::claims::{CLAIMS, find};
use crate::render::Style;
use crate::render::splice::{check_splice, splice};
use crate::results::{ClaimRow, read_claims};
use crate::{noteln, out};

/// Options of `claims`.
#[derive(Args)]
pub struct ClaimsArgs {
    /// Only these, such as C1 C9 [default: all]
    #[arg(value_name = "ID")]
    ids: Vec<String>,

    /// The short form: less than 2 minutes for all, instead of less than 10
    #[arg(long)]
    quick: bool,

    /// Folder for the results [default: a new folder under results/]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// Seed of orders and traffic [default: from the clock]
    #[arg(long)]
    seed: Option<u64>,

    /// Show the claims of this results folder again, without measuring; if given again, also which verdicts
    /// the other folders have
    #[arg(long, value_name = "DIR", conflicts_with_all = ["quick", "out", "seed"])]
    from: Vec<PathBuf>,

    /// Show every claim with its source, its metric and its rule, without measuring
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
    let style = super::style(args.markdown, Style::Plain);

    if args.list {
        out!("{}", list(&claims, style));
        return Ok(ExitCode::SUCCESS);
    }
    if !args.from.is_empty() {
        let mut ledgers = Vec::new();
        for folder in &args.from {
            let mut rows = read_claims(folder)?;
            rows.retain(|row| claims.iter().any(|claim| claim.id == row.claim));
            ledgers.push((folder.display().to_string(), rows));
        }
        show(args, &ledgers, style)?;
        return Ok(ExitCode::SUCCESS);
    }

    if let Some(document) = &args.into {
        check_splice(document, "claims")?;
    }
    let ledger = ledger::measure(&LedgerOptions {
        claims,
        quick: args.quick,
        out: args.out.clone(),
        seed: super::seed(args.seed),
    })?;
    let folder = ledger.folder.display().to_string();
    let shown = show(args, &[(folder, ledger.rows.clone())], style);
    noteln!("\nresults in {}", ledger.folder.display());
    shown?;
    exit_code(ledger.into_outcome())
}

fn exit_code(outcome: LedgerOutcome) -> anyhow::Result<ExitCode> {
    Ok(match outcome {
        LedgerOutcome::Complete => ExitCode::SUCCESS,
        LedgerOutcome::Unwritten(error) => return Err(error),
        LedgerOutcome::Interrupted => ExitCode::FAILURE,
        LedgerOutcome::Failed => ExitCode::from(2),
        LedgerOutcome::Undecided(claims) => {
            noteln!(
                "the machine was disturbed, and {} not decided: measure again when it is quiet",
                claims.join(", ")
            );
            ExitCode::from(3)
        }
    })
}

/// Prints the tables of the first ledger and the verdicts of all, or splices them into a document.
fn show(
    args: &ClaimsArgs,
    ledgers: &[(String, Vec<ClaimRow>)],
    style: Style,
) -> anyhow::Result<()> {
    let text = |style| {
        let (_, rows) = &ledgers[0];
        ledger_table(rows, CLAIMS, style) + &verdicts_side_by_side(ledgers, CLAIMS, style)
    };
    let Some(document) = &args.into else {
        out!("{}", text(style));
        return Ok(());
    };

    let folders: Vec<&str> = ledgers
        .iter()
        .map(|(folder, _)| folder.trim_end_matches('/'))
        .collect();
    let command = format!("echobench claims --from {}", folders.join(" --from "));
    splice(document, "claims", &command, &text(Style::Markdown))
}
