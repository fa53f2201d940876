//! A report on disk: the page, its charts in a folder beside it, and links to the raw data.

use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, bail};

use super::page::Rendered;
use super::units::plural;
use crate::host::files::write_file;
use crate::results::FILES;
use crate::{noteln, outln};

/// Location of a report about a results folder.
pub(crate) struct ReportLocation {
    /// File of the page.
    page: PathBuf,
    /// Folder of the page.
    parent: PathBuf,
    /// Folder of the charts: the name of the page without its extension.
    charts: PathBuf,
}

impl ReportLocation {
    /// Creates the folder for the page, whose charts must not get into the results folders.
    pub(crate) fn create(page: PathBuf, results: &[&Path]) -> anyhow::Result<Self> {
        let charts = page.with_extension("");
        let parent = match page.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let location = ReportLocation {
            parent: parent.to_owned(),
            charts,
            page,
        };

        fs::create_dir_all(&location.parent).with_context(|| location.failure())?;
        if location.charts == location.page || results.contains(&location.charts.as_path()) {
            bail!(
                "{} leaves no name for the charts' folder: end it in .html",
                location.page.display()
            );
        }
        Ok(location)
    }

    fn failure(&self) -> String {
        format!("cannot write the report to {}", self.page.display())
    }

    /// Names of the raw data files of a results folder, and links to them from the page.
    pub(crate) fn links(&self, results: &Path) -> anyhow::Result<Vec<(String, String)>> {
        let to_folder = || -> std::io::Result<PathBuf> {
            Ok(relative(
                &self.parent.canonicalize()?,
                &results.canonicalize()?,
            ))
        };
        let to_folder = to_folder().with_context(|| self.failure())?;
        let existing = FILES.iter().filter(|name| results.join(name).exists());
        Ok(existing
            .map(|name| ((*name).to_owned(), url_path(&to_folder.join(name))))
            .collect())
    }

    /// Writes the charts and the page, and names the page on standard output.
    pub(crate) fn write(&self, report: &Rendered) -> anyhow::Result<()> {
        fs::create_dir_all(&self.charts).with_context(|| self.failure())?;
        for (name, svg) in &report.pictures {
            write_file(&self.charts.join(name).with_extension("svg"), svg)?;
        }
        write_file(&self.page, &report.html)?;

        outln!("{}", self.page.display());
        let number = plural(report.pictures.len(), "chart");
        noteln!("{number} in {}", self.charts.display());
        Ok(())
    }
}

/// The relative path from one folder to another.
fn relative(from: &Path, to: &Path) -> PathBuf {
    let (from, to): (Vec<Component<'_>>, Vec<Component<'_>>) =
        (from.components().collect(), to.components().collect());
    let common = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
    let up = from[common..].iter().map(|_| Component::ParentDir);
    up.chain(to[common..].iter().copied()).collect()
}

/// A path as a link: characters with a meaning of their own in a URL are escaped.
fn url_path(path: &Path) -> String {
    let mut link = String::new();
    for character in path.display().to_string().chars() {
        match character {
            ' ' => link.push_str("%20"),
            '%' => link.push_str("%25"),
            '?' => link.push_str("%3F"),
            '#' => link.push_str("%23"),
            character => link.push(character),
        }
    }
    link
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_from_the_page_to_the_folder() {
        let relative = |from: &str, to: &str| {
            relative(Path::new(from), Path::new(to))
                .display()
                .to_string()
        };
        assert_eq!(relative("/a/b", "/a/b"), "");
        assert_eq!(relative("/a", "/a/results/x"), "results/x");
        assert_eq!(relative("/a/pages", "/a/results/x"), "../results/x");
        assert_eq!(
            url_path(Path::new("50% done/run 1")),
            "50%25%20done/run%201"
        );
    }
}
