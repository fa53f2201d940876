//! Tables: cells that carry the value they show, drawn as text for a terminal of any width or as Markdown.

use comfy_table::{CellAlignment, Table, TableStyle, presets};

use super::Style;

/// Length in characters of the bar of the largest value of a section.
const BAR_LENGTH: usize = 10;

/// Cell of a table.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cell {
    /// Text of the cell.
    pub(crate) text: String,
    /// Metric of the summary and its value, if the cell shows one.
    pub(crate) source: Option<(&'static str, f64)>,
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Cell {
            text: text.into(),
            source: None,
        }
    }
}

/// Row of a table.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// Condition and arm, as their tag in the interval log; empty for a row about several conditions.
    pub(crate) arm: String,
    /// Text of the first [`Grid::section_columns`] cells in one line.
    pub(crate) section: String,
    /// Cells, one for each column.
    pub(crate) cells: Vec<Cell>,
}

/// Table of cells, not drawn yet.
#[derive(Clone, Debug, Default)]
pub(crate) struct Grid {
    /// Names of the columns.
    pub(crate) header: Vec<String>,
    /// Columns aligned to the left; the others are aligned to the right.
    pub(crate) left: Vec<usize>,
    /// Number of columns at the start that name the section.
    pub(crate) section_columns: usize,
    /// Columns that a narrow terminal leaves out, the first ones first.
    pub(crate) spare: &'static [&'static str],
    /// Metric that a wide terminal shows as bars.
    pub(crate) bar: Option<&'static str>,
    /// Rows, section by section.
    pub(crate) rows: Vec<Row>,
}

impl Grid {
    /// A table of text; all columns but those in `left` are aligned to the right.
    pub(crate) fn of_text(names: &[&str], rows: Vec<Vec<String>>, left: &[usize]) -> Self {
        let row = |cells: Vec<String>| Row {
            arm: String::new(),
            section: String::new(),
            cells: cells.into_iter().map(Cell::from).collect(),
        };
        Grid {
            header: names.iter().map(ToString::to_string).collect(),
            left: left.to_vec(),
            rows: rows.into_iter().map(row).collect(),
            ..Grid::default()
        }
    }

    /// The table as text.
    pub(crate) fn draw(&self, style: Style) -> String {
        match style {
            Style::Markdown => self.escaped().lines(presets::ASCII_MARKDOWN).join("\n"),
            Style::Plain => self.plain(),
            Style::Terminal(width) => self.fitted(usize::from(width)),
        }
    }

    /// The table with the separator of columns escaped in its texts, for Markdown.
    fn escaped(&self) -> Grid {
        let mut grid = self.clone();
        let cells = grid.rows.iter_mut().flat_map(|row| &mut row.cells);
        for text in cells.map(|cell| &mut cell.text).chain(&mut grid.header) {
            *text = text.replace('|', "\\|");
        }
        grid
    }

    /// Whether a row begins another section than the one before it.
    pub(crate) fn begins_section(&self, index: usize) -> bool {
        index > 0 && self.rows[index].section != self.rows[index - 1].section
    }

    /// Full width, with a gap between sections.
    fn plain(&self) -> String {
        self.spaced(|_| None)
    }

    /// Text for a terminal: with bars if there is room, else with sections as headings, else without
    /// the spare columns.
    fn fitted(&self, width: usize) -> String {
        let fits = |text: &str| text.lines().all(|line| line.chars().count() <= width);
        let whole = self.plain();
        if !fits(&whole) {
            return self.narrow(fits);
        }

        match self.bar.map(|metric| self.with_bars(metric).plain()) {
            Some(barred) if fits(&barred) => barred,
            _ => whole,
        }
    }

    fn narrow(&self, fits: impl Fn(&str) -> bool) -> String {
        let mut grid = self.clone();
        for _ in 0..self.section_columns {
            grid.remove(0);
        }

        let mut text = grid.headed();
        let mut without = Vec::new();
        for &name in self.spare {
            if fits(&text) {
                break;
            }
            let Some(column) = grid.header.iter().position(|known| known == name) else {
                continue;
            };
            grid.remove(column);
            without.push(name);
            text = grid.headed();
        }

        if without.is_empty() {
            return text;
        }
        format!("{text}\n\nLeft out at this width: {}.", without.join(", "))
    }

    /// Removes a column.
    fn remove(&mut self, column: usize) {
        self.header.remove(column);
        self.left.retain(|&other| other != column);
        for other in &mut self.left {
            *other -= usize::from(*other > column);
        }
        for row in &mut self.rows {
            row.cells.remove(column);
        }
    }

    /// Text with the name of each section above its rows.
    fn headed(&self) -> String {
        let several = self.rows.iter().any(|row| !row.section.is_empty());
        self.spaced(|row| several.then(|| row.section.clone()))
    }

    /// Text with a gap before each section, and below the gap its heading.
    fn spaced(&self, heading: impl Fn(&Row) -> Option<String>) -> String {
        let mut drawn = self.lines(presets::NOTHING).into_iter();
        let mut lines: Vec<String> = drawn.next().into_iter().collect();

        for (index, (row, line)) in self.rows.iter().zip(drawn).enumerate() {
            if self.begins_section(index) {
                lines.push(String::new());
            }
            if index == 0 || self.begins_section(index) {
                lines.extend(heading(row).map(|text| format!(" {text}")));
            }
            lines.push(line);
        }

        lines.join("\n")
    }

    fn lines(&self, preset: TableStyle) -> Vec<String> {
        let mut table = Table::new();
        table.load_style(preset);
        table.set_header(&self.header);

        for row in &self.rows {
            table.add_row(row.cells.iter().map(|cell| &cell.text));
        }

        for (index, column) in table.column_iter_mut().enumerate() {
            if !self.left.contains(&index) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }

        table
            .lines()
            .map(|line| line.trim_end().to_owned())
            .collect()
    }

    /// The table with one more column: a metric as a bar, relative to the largest value of its section.
    fn with_bars(&self, metric: &str) -> Grid {
        let value = |row: &Row| {
            let mut sources = row.cells.iter().filter_map(|cell| cell.source);
            sources
                .find(|(name, _)| *name == metric)
                .map(|(_, value)| value)
        };

        let most = |section: &str| {
            let rows = self.rows.iter().filter(|row| row.section == section);
            rows.filter_map(value).fold(0.0, f64::max)
        };

        let mut grid = self.clone();
        grid.left.push(grid.header.len());
        grid.header.push(String::new());
        for row in &mut grid.rows {
            let share = value(row).map_or(0.0, |value| value / most(&row.section));
            row.cells.push(bar(share).into());
        }
        grid
    }
}

/// Bar for a share of the full length, in eighths of a character.
fn bar(share: f64) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    if !(0.0..=1.0).contains(&share) {
        return String::new();
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and the width of a bar"
    )]
    let eighths = (share * BAR_LENGTH as f64 * 8.0).round() as usize;
    "█".repeat(eighths / 8) + EIGHTHS[eighths % 8]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid() -> Grid {
        let row = |clients: &str, model: &str, value: f64| Row {
            arm: String::new(),
            section: format!("{clients} clients"),
            cells: vec![
                clients.into(),
                model.into(),
                Cell {
                    text: value.to_string(),
                    source: Some(("rate", value)),
                },
                "a long remark".into(),
            ],
        };
        Grid {
            header: ["clients", "model", "rate", "remark"]
                .map(str::to_owned)
                .into(),
            left: vec![1, 3],
            section_columns: 1,
            spare: &["remark"],
            bar: Some("rate"),
            rows: vec![
                row("1", "thread", 40.0),
                row("8", "thread", 80.0),
                row("8", "fork", 10.0),
            ],
        }
    }

    #[test]
    fn a_wide_terminal_shows_bars() {
        let text = grid().draw(Style::Terminal(80));
        assert!(text.contains("██████████\n"), "{text}");
        assert!(text.ends_with("a long remark  █▎"), "{text}");
        assert!(!grid().draw(Style::Plain).contains('█'));
    }

    #[test]
    fn a_narrow_terminal_gets_less_but_never_a_wrapped_line() {
        let text = grid().draw(Style::Terminal(36));
        assert!(text.contains("\n 8 clients\n"), "{text}");
        assert!(text.contains("remark"), "{text}");
        let text = grid().draw(Style::Terminal(24));
        assert!(text.ends_with("Left out at this width: remark."), "{text}");
        assert!(text.contains("fork"), "{text}");
    }

    #[test]
    fn markdown_escapes_the_separator_of_columns() {
        let mut grid = grid();
        grid.header[2] = "rate ÷ a|b".to_owned();
        grid.rows[1].cells[1] = "a|b".into();
        let text = grid.draw(Style::Markdown);
        assert!(
            text.contains(r"rate ÷ a\|b") && text.contains(r"| a\|b "),
            "{text}"
        );

        // Every line has the separators of four columns and no others.
        for line in text.replace(r"\|", "").lines() {
            assert_eq!(line.matches('|').count(), 5, "{text}");
        }
        assert!(!grid.draw(Style::Plain).contains('\\'));
    }

    #[test]
    fn bars_are_exact_to_an_eighth() {
        assert_eq!(bar(0.0), "");
        assert_eq!(bar(0.5), "█████");
        assert_eq!(bar(0.5125), "█████▏");
        assert_eq!(bar(f64::NAN), "");
    }
}
