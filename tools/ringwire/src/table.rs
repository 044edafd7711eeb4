//! Aligned columns.

use std::fmt;

/// Where a column's cells stand.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Align {
    Left,
    Right,
}

/// A table of text: words to the left, numbers to the right.
pub struct Table {
    indent: usize,
    columns: Vec<(String, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Without any column yet; each line begins with `indent` spaces.
    pub fn new(indent: usize) -> Table {
        Table { indent, columns: Vec::new(), rows: Vec::new() }
    }

    /// Adds columns of words.
    pub fn words(mut self, titles: &[&str]) -> Table {
        self.columns.extend(titles.iter().map(|title| (title.to_string(), Align::Left)));
        self
    }

    /// Adds columns of numbers.
    pub fn numbers(mut self, titles: &[&str]) -> Table {
        self.columns.extend(titles.iter().map(|title| (title.to_string(), Align::Right)));
        self
    }

    /// Adds a line of one cell a column.
    pub fn row(&mut self, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.columns.len());
        self.rows.push(cells);
    }

    fn width(&self, column: usize) -> usize {
        let cells = self.rows.iter().map(|row| &row[column]);
        let cells = cells.chain([&self.columns[column].0]);
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let titles: Vec<String> = self.columns.iter().map(|(title, _)| title.clone()).collect();
        let widths: Vec<usize> = (0..self.columns.len()).map(|column| self.width(column)).collect();
        let has_titles = titles.iter().any(|title| !title.is_empty());
        for row in has_titles.then_some(&titles).into_iter().chain(&self.rows) {
            let mut line = " ".repeat(self.indent);
            for (column, cell) in row.iter().enumerate() {
                let width = widths[column];
                let gap = if column == 0 { "" } else { "  " };
                line.push_str(&match self.columns[column].1 {
                    Align::Left => format!("{gap}{cell:<width$}"),
                    Align::Right => format!("{gap}{cell:>width$}"),
                });
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_end_without_spaces() {
        let mut table = Table::new(2).words(&["PORT"]).numbers(&["RX"]).words(&["NOTE"]);
        table.row(vec!["a".into(), "1,000".into(), "x".into()]);
        table.row(vec!["wire0".into(), "7".into(), String::new()]);
        assert_eq!(table.to_string(), "  PORT      RX  NOTE\n  a      1,000  x\n  wire0      7\n");
    }

    #[test]
    fn without_titles_there_is_no_head() {
        let mut table = Table::new(0).words(&["", ""]);
        table.row(vec!["a".into(), "b".into()]);
        assert_eq!(table.to_string(), "a  b\n");
    }
}
