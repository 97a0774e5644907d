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

    pub(super) fn list(&mut self, items: Vec<String>) {
        self.blocks.push(Block::List(items));
    }

    pub(super) fn table(&mut self, table: Table) {
        self.blocks.push(Block::Table(table));
    }

    pub(super) fn plot(&mut self, plot: Plot) {
        self.blocks.push(Block::Plot(plot));
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
#[derive(Debug, Default)]
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

impl Table {
    pub(super) fn new(head: impl Into<Vec<&'static str>>) -> Self {
        Self { head: head.into(), rows: Vec::new() }
    }

    pub(super) fn row(&mut self, tone: Tone, cells: impl Into<Vec<String>>) {
        let cells = cells.into();
        debug_assert_eq!(cells.len(), self.head.len(), "{cells:?}");
        self.rows.push(TableRow { cells, tone });
    }
}

/// Lines over a shared horizontal axis.
#[derive(Debug)]
pub(super) struct Plot {
    pub(super) title: String,
    pub(super) x: &'static str,
    pub(super) y: &'static str,
    pub(super) series: Vec<Series>,
    /// A horizontal line, such as a threshold.
    pub(super) line: Option<f64>,
}

#[derive(Debug)]
pub(super) struct Series {
    pub(super) name: &'static str,
    pub(super) points: Vec<(f64, f64)>,
}
