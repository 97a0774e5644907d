//! Attention over F32 and F16 rows: scores are `dot16` of a query with a key widened to F32, and values are added by one
//! fused multiply-add per position, in ascending order.

use std::ops::Range;

use tl_kernels::rows::{Table, Value, dots, weighted_sums};

use super::attend::{MAX_TASK_ROWS, SpanRows, Spans};

/// Rows whose weighted sums are made together in a span of which each row sees another part.
const STRIP_ROWS: usize = 6;

/// Where a head's keys (or values) lie in the rows of a cache.
#[derive(Clone, Copy)]
pub(crate) struct Columns {
    /// Values per position in the cache.
    pub(crate) stride: usize,
    /// Distance from one head to the next within a position.
    pub(crate) head_stride: usize,
    /// Values read per position.
    pub(crate) width: usize,
}

impl Columns {
    /// `head` of the cached `positions`.
    fn of<'a, T>(&self, rows: &'a [T], positions: Range<usize>, head: usize) -> Table<'a, T> {
        let start = positions.start * self.stride + head * self.head_stride;
        Table::new(&rows[start..], positions.len(), self.width, self.stride)
    }
}

/// Keys and values of every cached position, and the queries.
pub(crate) struct FloatSpans<'a, T> {
    /// One per row, `[rows, key width]`.
    pub(crate) queries: &'a [f32],
    pub(crate) keys: &'a [T],
    pub(crate) key_columns: Columns,
    pub(crate) values: &'a [T],
    pub(crate) value_columns: Columns,
    pub(crate) scale: f32,
}

impl<T: Value> Spans for FloatSpans<'_, T> {
    fn value_width(&self) -> usize {
        self.value_columns.width
    }

    fn attend_span(&self, run: &mut SpanRows<'_>) {
        let (n_rows, n_keys) = (run.seen.len(), run.seen.iter().copied().max().unwrap_or(0));
        let positions = |seen: Range<usize>| run.first_position + seen.start..run.first_position + seen.end;
        let width = self.key_columns.width;
        let queries = Table::new(&self.queries[run.first_row * width..], n_rows, width, width);
        let scores = &mut run.scores[..n_rows * n_keys];
        // Scores of positions that a row must not see are computed too, and not read.
        dots(queries, self.key_columns.of(self.keys, positions(0..n_keys), run.kv_head), scores);

        let width = self.value_columns.width;
        let mut weighs = [false; MAX_TASK_ROWS];
        for (row, scores) in scores.chunks_exact_mut(n_keys).enumerate() {
            let acc = &mut run.acc[row * width..][..width];
            weighs[row] = run.states[row].fold_in(&mut scores[..run.seen[row]], self.scale, acc);
        }
        let mut add = |rows: Range<usize>, keys: Range<usize>| {
            let p = Table::new(&scores[rows.start * n_keys + keys.start..], rows.len(), keys.len(), n_keys);
            let values = self.value_columns.of(self.values, positions(keys), run.kv_head);
            weighted_sums(p, values, &mut run.acc[rows.start * width..rows.end * width]);
        };
        // Each row adds the positions it sees in ascending order: first those that its strip sees as well.
        let strip_rows = if run.seen.iter().all(|&seen| seen == n_keys) { n_rows } else { STRIP_ROWS };
        for start in (0..n_rows).step_by(strip_rows) {
            let strip = start..n_rows.min(start + strip_rows);
            let all_weigh = weighs[strip.clone()].iter().all(|&weighs| weighs);
            let shared = run.seen[strip.clone()].iter().copied().min().filter(|_| all_weigh).unwrap_or(0);
            if shared > 0 {
                add(strip.clone(), 0..shared);
            }
            for row in strip.filter(|&row| weighs[row] && shared < run.seen[row]) {
                add(row..row + 1, shared..run.seen[row]);
            }
        }
    }
}
