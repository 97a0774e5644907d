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
    pub(super) rows: Vec<Row>,
}

#[derive(Debug)]
pub(super) struct Row {
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
        self.rows.push(Row { cells, tone });
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
    /// Ascending in x.
    pub(super) points: Vec<(f64, f64)>,
}
