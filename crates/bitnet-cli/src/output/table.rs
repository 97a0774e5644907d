//! Tables without lines, for terminals and for pasting into reports.

use comfy_table::{CellAlignment, Table, presets};

/// An empty table with these headings; the columns from `first_number` on are aligned to the right.
pub(crate) fn table<const N: usize>(headings: [&str; N], first_number: usize) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(headings);
    for column in table.column_iter_mut().skip(first_number) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
