//! A report as blocks: what Markdown and HTML have in common.
//!
//! **Invariant:** blocks hold plain text; each renderer escapes it for its own format.

/// A report that can be shown.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) title: String,
    /// Whether the title is good news.
    pub(super) good: bool,
    pub(super) blocks: Vec<Block>,
}

impl Page {
    pub(super) fn heading(&mut self, text: &str) {
        self.blocks.push(Block::Heading(text.to_owned()));
    }

    pub(super) fn text(&mut self, text: impl Into<String>) {
        self.blocks.push(Block::Text(text.into()));
    }

    /// A table, unless it has no rows.
    pub(super) fn table<const N: usize>(
        &mut self,
        head: [&'static str; N],
        rows: impl IntoIterator<Item = (Tone, [String; N])>,
    ) {
        let rows: Vec<TableRow> =
            rows.into_iter().map(|(tone, cells)| TableRow { tone, cells: cells.into() }).collect();
        if !rows.is_empty() {
            self.blocks.push(Block::Table(Table { head: head.into(), rows }));
        }
    }
}

#[derive(Debug)]
pub(super) enum Block {
    Heading(String),
    Text(String),
    List(Vec<String>),
    Table(Table),
    /// Shown by HTML only; what it draws is in a table too.
    Plot(Plot),
}

/// A table; every row is as long as the head.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) head: Vec<&'static str>,
    pub(super) rows: Vec<TableRow>,
}

#[derive(Debug)]
pub(super) struct TableRow {
    pub(super) cells: Vec<String>,
    pub(super) tone: Tone,
}

/// How a row is marked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Good,
    Bad,
}

/// Lines over a shared horizontal axis.
#[derive(Debug)]
pub struct Plot {
    /// The sentence above the plot.
    pub title: String,
    /// The name of the horizontal axis.
    pub x: &'static str,
    /// The name of the vertical axis.
    pub y: &'static str,
    /// The lines, at most four.
    pub series: Vec<Series>,
    /// A horizontal line, such as a threshold.
    pub line: Option<f64>,
}

/// One line of a plot.
#[derive(Debug)]
pub struct Series {
    /// Its name in the legend.
    pub name: &'static str,
    /// Its points in the order in which they are joined.
    pub points: Vec<(f64, f64)>,
}
