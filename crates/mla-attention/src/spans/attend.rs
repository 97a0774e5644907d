//! The loop over rows and spans.

use tl_kernels::Pool;

use super::softmax::Softmax;

/// Number of positions in a span.
pub(super) const SPAN: usize = 64;

/// Largest number of rows in a task. A span that is read once serves all rows of the task.
pub(super) const MAX_TASK_ROWS: usize = 64;

/// The positions and the head that the query of a row reads.
#[derive(Clone, Copy)]
pub(crate) struct Query {
    /// The sequence that the row belongs to: an index into the caches.
    pub(crate) cache: usize,
    /// The row's own position: it sees `0 ..= position`.
    pub(crate) position: usize,
    /// The key and value head that it reads.
    pub(crate) kv_head: usize,
}

/// Keys and values, and the queries for them.
pub(crate) trait Spans: Sync {
    /// Values per row of the result.
    fn value_width(&self) -> usize;

    /// Adds one span to the running softmax of `rows`.
    fn attend_span(&self, rows: &mut SpanRows<'_>);
}

/// Neighbouring rows, and the span to be added to them.
pub(crate) struct SpanRows<'a> {
    /// The first of the rows.
    pub(super) first_row: usize,
    /// The sequence of all rows.
    pub(super) cache: usize,
    /// The key and value head that all rows read.
    pub(super) kv_head: usize,
    /// The span's number within its sequence.
    pub(super) span: usize,
    /// How many positions of the span each row sees, at least 1.
    pub(super) seen: &'a [usize],
    /// The running softmax of each row.
    pub(super) states: &'a mut [Softmax],
    /// Scratch for the scores, `[rows, SPAN]`.
    pub(super) scores: &'a mut [f32],
    /// The running numerators, `[rows, value width]`.
    pub(super) acc: &'a mut [f32],
}

/// Attends from the query of every row to its past; `out` is `[rows, value width]`.
pub(crate) fn attend(pool: &Pool, spans: &impl Spans, query: &(dyn Fn(usize) -> Query + Sync), out: &mut [f32]) {
    let width = spans.value_width();
    let n_rows = out.len() / width;
    if n_rows == 0 {
        return;
    }
    // Every thread gets as many tasks as the others.
    let tasks_per_thread = n_rows.div_ceil(pool.threads()).div_ceil(MAX_TASK_ROWS);
    let task_rows = n_rows.div_ceil(pool.threads() * tasks_per_thread);
    pool.chunks_mut(out, task_rows * width, |task, acc| {
        attend_task(spans, task * task_rows, &|row| query(task * task_rows + row), acc);
    });
}

/// Attends from the rows of one task, the first of which is `first_row`. `acc` is `[rows of the task, value width]`,
/// and `query(0)` is the query of `first_row`.
fn attend_task(spans: &impl Spans, first_row: usize, query: &dyn Fn(usize) -> Query, acc: &mut [f32]) {
    let width = spans.value_width();
    let n_rows = acc.len() / width;
    let mut states = [Softmax::START; MAX_TASK_ROWS];
    let mut scores = [0.0; MAX_TASK_ROWS * SPAN];
    acc.fill(0.0);
    let end = (0..n_rows).map(|row| query(row).position + 1).max().unwrap_or(0);
    for first_position in (0..end).step_by(SPAN) {
        let mut row = 0;
        while row < n_rows {
            let Query { cache, position, kv_head } = query(row);
            if position < first_position {
                row += 1;
                continue;
            }
            let start = row;
            let mut seen = [0; MAX_TASK_ROWS];
            while row < n_rows {
                let next = query(row);
                if (next.cache, next.kv_head) != (cache, kv_head) || next.position < first_position {
                    break;
                }
                seen[row - start] = SPAN.min(next.position + 1 - first_position);
                row += 1;
            }
            spans.attend_span(&mut SpanRows {
                first_row: first_row + start,
                cache,
                kv_head,
                span: first_position / SPAN,
                seen: &seen[..row - start],
                states: &mut states[start..row],
                scores: &mut scores,
                acc: &mut acc[start * width..row * width],
            });
        }
    }
    for (state, acc) in states.iter().zip(acc.chunks_exact_mut(width)) {
        state.normalise(acc);
    }
}
