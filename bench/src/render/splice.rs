//! Splicing of generated text into a document, between markers and below the command that makes it.

use std::fs;
use std::path::Path;

use anyhow::{Context, bail};

use crate::host::files::write_file;

/// Replaces the text between the markers `<!-- NAME -->` and `<!-- /NAME -->` of a document.
pub fn splice(document: &Path, name: &str, command: &str, text: &str) -> anyhow::Result<()> {
    let path = document.display();
    let (begin, end) = (format!("<!-- {name} -->"), format!("<!-- /{name} -->"));

    let whole = fs::read_to_string(document).with_context(|| format!("cannot read {path}"))?;
    let Some((before, rest)) = whole.split_once(&begin) else {
        bail!("{path} has no line {begin}")
    };
    let Some((_, after)) = rest.split_once(&end) else {
        bail!("{path} has no line {end}")
    };

    let text = format!("{before}{begin}\n`{command}`\n\n{text}\n{end}{after}");
    write_file(document, text)
}
