//! Result tables, for the terminal and for Markdown pages.

use comfy_table::{CellAlignment, Table, TableComponent, presets};

/// Rows under column titles. Columns that hold only numbers are aligned to the right.
#[derive(Debug, Clone)]
pub struct ResultTable {
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl ResultTable {
    /// An empty table with these column titles.
    pub fn new<C: Into<String>>(columns: impl IntoIterator<Item = C>) -> Self {
        Self { columns: columns.into_iter().map(Into::into).collect(), rows: Vec::new() }
    }

    /// Adds a row; cells that are missing at its end stay empty.
    #[must_use]
    pub fn row<C: Into<String>>(mut self, cells: impl IntoIterator<Item = C>) -> Self {
        let mut cells: Vec<String> = cells.into_iter().map(Into::into).collect();
        cells.resize(self.columns.len(), String::new());
        self.rows.push(cells);
        self
    }

    /// The column titles.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// The rows, each with a cell for every column.
    pub fn rows(&self) -> &[Vec<String>] {
        &self.rows
    }

    /// Whether it has no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Aligned text with a rule under the titles.
    pub fn to_text(&self) -> String {
        let mut table = self.build(presets::NOTHING);
        table.set_style(TableComponent::HeaderLines, '─').set_style(TableComponent::MiddleHeaderIntersections, '─');
        let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
        lines.join("\n")
    }

    /// A Markdown table.
    pub fn to_markdown(&self) -> String {
        self.build(presets::ASCII_MARKDOWN).to_string()
    }

    fn build(&self, preset: &str) -> Table {
        let mut table = Table::new();
        table.load_preset(preset).set_header(&self.columns).add_rows(&self.rows);
        for (index, column) in table.column_iter_mut().enumerate() {
            if !self.rows.is_empty() && self.rows.iter().all(|row| is_number(&row[index])) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        table
    }
}

/// `12`, `-0.3`, `1e-4`, `85 %`, or nothing.
fn is_number(cell: &str) -> bool {
    let number = cell.trim_end_matches(['%', 'x', ' ']);
    cell.is_empty() || number.parse::<f64>().is_ok()
}
