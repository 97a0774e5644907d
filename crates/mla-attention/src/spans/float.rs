//! Attention over F32 and F16 rows: scores are `dot16` of a query with a key widened to F32, and values are added by one
//! fused multiply-add per position, in ascending order.

use std::marker::PhantomData;
use std::ops::Range;

use half::f16;
use tl_kernels::Pool;
use tl_kernels::rows::{Table, dots, weighted_sums};

use super::attend::{MAX_TASK_ROWS, Query, SpanRows, Spans, attend};
use super::layer_caches::LayerCaches;
use crate::kv_cache::{CacheType, CachedFloat};

/// Number of rows whose weighted sums are computed together in a span that the rows see to different ends.
const STRIP_ROWS: usize = 6;

/// The place of a head's keys (or values) in the rows of a cache.
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
    /// `head` of the `positions` of a block.
    fn of<'a, T>(&self, rows: &'a [T], positions: Range<usize>, head: usize) -> Table<'a, T> {
        let start = positions.start * self.stride + head * self.head_stride;
        Table::new(&rows[start..], positions.len(), self.width, self.stride)
    }
}

/// The queries of every row, and the place of a head's keys and values in a cache.
pub(crate) struct FloatSpans<'a> {
    pub(crate) caches: LayerCaches<'a>,
    /// The query of each row, `[rows, key width]`.
    pub(crate) queries: &'a [f32],
    pub(crate) key_columns: Columns,
    pub(crate) value_columns: Columns,
    pub(crate) scale: f32,
}

impl FloatSpans<'_> {
    /// Attends from every row to the cache of its sequence, as [`attend`] does.
    ///
    /// # Panics
    /// When the caches are INT8.
    pub(crate) fn attend(&self, pool: &Pool, query: &(dyn Fn(usize) -> Query + Sync), out: &mut [f32]) {
        match self.caches.cache_type() {
            CacheType::F32 => attend(pool, &OfType::<f32> { spans: self, number: PhantomData }, query, out),
            CacheType::F16 => attend(pool, &OfType::<f16> { spans: self, number: PhantomData }, query, out),
            CacheType::I8 => unreachable!("INT8 caches have spans of their own"),
        }
    }
}

/// [`FloatSpans`] over caches of one number type.
struct OfType<'a, T> {
    spans: &'a FloatSpans<'a>,
    number: PhantomData<T>,
}

impl<T: CachedFloat + Sync> Spans for OfType<'_, T> {
    fn value_width(&self) -> usize {
        self.spans.value_columns.width
    }

    fn attend_span(&self, run: &mut SpanRows<'_>) {
        let FloatSpans { caches, queries, key_columns, value_columns, scale } = *self.spans;
        let (n_rows, n_keys) = (run.seen.len(), run.seen.iter().copied().max().unwrap_or(0));
        let [keys, values] = caches.block(run.cache, run.span).float_rows::<T>(caches.layer());
        let width = key_columns.width;
        let queries = Table::new(&queries[run.first_row * width..], n_rows, width, width);
        let scores = &mut run.scores[..n_rows * n_keys];
        // Scores of positions that a row must not see are computed too, and not read.
        dots(queries, key_columns.of(keys, 0..n_keys, run.kv_head), scores);

        let width = value_columns.width;
        let mut weighs = [false; MAX_TASK_ROWS];
        for (row, scores) in scores.chunks_exact_mut(n_keys).enumerate() {
            let acc = &mut run.acc[row * width..][..width];
            weighs[row] = run.states[row].fold_in(&mut scores[..run.seen[row]], scale, acc);
        }
        let mut add = |rows: Range<usize>, keys: Range<usize>| {
            let p = Table::new(&scores[rows.start * n_keys + keys.start..], rows.len(), keys.len(), n_keys);
            let values = value_columns.of(values, keys, run.kv_head);
            weighted_sums(p, values, &mut run.acc[rows.start * width..rows.end * width]);
        };
        // Each row adds the positions that it sees in ascending order: first the positions that all rows of its strip
        // see.
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
