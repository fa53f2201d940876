//! Rendering of numbers as text, SVG and HTML: units, tables, axes, charts, pages, and text spliced into
//! documents.

pub(crate) mod axis;
pub(crate) mod chart;
pub(crate) mod grid;
pub(crate) mod looks;
pub(crate) mod page;
pub(crate) mod report;
pub mod splice;
pub mod units;

use std::io::IsTerminal as _;

use comfy_table::Table;

use grid::Grid;

/// Form in which a table is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Plain text of any width.
    Plain,
    /// Text for a terminal with this number of columns.
    Terminal(u16),
    /// Markdown.
    Markdown,
}

impl Style {
    /// Form for standard output: fitted to the variable `COLUMNS`, else to the terminal if it is one.
    #[must_use]
    pub fn of_stdout() -> Self {
        let variable = std::env::var("COLUMNS")
            .ok()
            .and_then(|text| text.parse().ok());
        let terminal = || {
            std::io::stdout()
                .is_terminal()
                .then(|| Table::new().width())
        };

        match variable.or_else(|| terminal().flatten()) {
            Some(width) => Style::Terminal(width),
            None => Style::Plain,
        }
    }

    /// Draws rows of text; all columns but those in `left` are aligned to the right.
    #[must_use]
    pub fn table(self, names: &[&str], rows: Vec<Vec<String>>, left: &[usize]) -> String {
        Grid::of_text(names, rows, left).draw(self)
    }
}

/// Part of a report.
pub(crate) enum Part {
    /// Table.
    Table(Grid),
    /// Paragraph of lines.
    Lines(Vec<String>),
    /// Introductory line, and a list.
    List(String, Vec<String>),
}

impl Part {
    pub(crate) fn text(&self, style: Style) -> String {
        match self {
            Part::Table(grid) => grid.draw(style),
            Part::Lines(lines) if style == Style::Markdown => lines.join("  \n"),
            Part::Lines(lines) => lines.join("\n"),
            Part::List(intro, items) => {
                let items: Vec<String> = items.iter().map(|item| format!("\n- {item}")).collect();
                intro.clone() + &items.concat()
            }
        }
    }
}
