//! `echobench table DIR`: the tables of a results folder, from its CSV files alone.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;

use crate::results::{BlockRow, SliceRow, read_blocks, read_slices, read_summary};
use crate::summary::summarize;
use crate::tables::{Objective, Style, tables};

/// The options of `table`.
#[derive(Args)]
pub struct TableArgs {
    /// A results folder
    #[arg(value_name = "DIR")]
    folder: PathBuf,

    /// What to look for in a rate sweep: the highest rate at which a percentile of latency keeps
    /// within a time
    #[arg(long, value_name = "pNN=TIME", default_value_t)]
    objective: Objective,

    /// Draw the tables in Markdown
    #[arg(long)]
    markdown: bool,

    /// Replace the text between the markers `<!-- table -->` and `<!-- /table -->` of this document
    #[arg(long, value_name = "FILE")]
    into: Option<PathBuf>,
}

pub(super) fn run(args: &TableArgs) -> anyhow::Result<ExitCode> {
    let summary = read_summary(&args.folder)?;
    let blocks = read_blocks(&args.folder)?;
    let summary = match summary {
        Some(summary) => summary,
        None => summarize(&finished(read_slices(&args.folder)?, &blocks), &blocks),
    };
    if let Some(document) = &args.into {
        let text = tables(&summary, &blocks, Style::Markdown, args.objective);
        splice(document, &args.folder, &text)?;
        return Ok(ExitCode::SUCCESS);
    }
    let style = if args.markdown {
        Style::Markdown
    } else {
        Style::Plain
    };
    print!("{}", tables(&summary, &blocks, style, args.objective));
    Ok(ExitCode::SUCCESS)
}

/// The slices whose block was finished.
fn finished(mut slices: Vec<SliceRow>, blocks: &[BlockRow]) -> Vec<SliceRow> {
    let known: BTreeSet<_> = blocks
        .iter()
        .map(|row| (row.section(), row.block))
        .collect();
    slices.retain(|row| known.contains(&(row.section(), row.block)));
    slices
}

const BEGIN: &str = "<!-- table -->";
const END: &str = "<!-- /table -->";

/// Puts the tables, and the command that makes them, between the markers of a document.
fn splice(document: &Path, folder: &Path, tables: &str) -> anyhow::Result<()> {
    let name = document.display();
    let text = fs::read_to_string(document).with_context(|| format!("cannot read {name}"))?;
    let Some((before, rest)) = text.split_once(BEGIN) else {
        bail!("{name} has no line {BEGIN}")
    };
    let Some((_, after)) = rest.split_once(END) else {
        bail!("{name} has no line {END}")
    };
    let folder = folder.display().to_string();
    let command = format!("echobench table {}", folder.trim_end_matches('/'));
    let text = format!("{before}{BEGIN}\n`{command}`\n\n{tables}\n{END}{after}");
    fs::write(document, text).with_context(|| format!("cannot write {name}"))
}
