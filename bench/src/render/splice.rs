//! Splicing of generated text into a document, between markers and below the command that makes it.

use std::fs;
use std::path::Path;

use anyhow::{Context, bail};

use crate::host::files::{ResultFile, write_file};

/// Replaces the text between the markers `<!-- NAME -->` and `<!-- /NAME -->` of a document.
pub fn splice(document: &Path, name: &str, command: &str, text: &str) -> anyhow::Result<()> {
    let (before, after) = outside(document, name)?;
    write_file(
        document,
        format!("{before}\n`{command}`\n\n{text}\n{after}"),
    )
}

/// Checks that [`splice`] is possible, and changes nothing. To be called before a measurement whose result
/// the document is for.
pub(crate) fn check_splice(document: &Path, name: &str) -> anyhow::Result<()> {
    outside(document, name)?;
    ResultFile::open(document).map(drop)
}

/// The document up to the first marker and from the second, with both markers.
fn outside(document: &Path, name: &str) -> anyhow::Result<(String, String)> {
    let path = document.display();
    let (begin, end) = (format!("<!-- {name} -->"), format!("<!-- /{name} -->"));

    let whole = fs::read_to_string(document).with_context(|| format!("cannot read {path}"))?;
    let Some((before, rest)) = whole.split_once(&begin) else {
        bail!("{path} has no line {begin}")
    };
    let Some((_, after)) = rest.split_once(&end) else {
        bail!("{path} has no line {end}")
    };
    Ok((before.to_owned() + &begin, end + after))
}
