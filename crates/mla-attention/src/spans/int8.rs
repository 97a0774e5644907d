//! Attention over INT8 rows.
//!
//! ```text
//! query_h    = scale_q * code_q | q_pe                     rounded as activations are, per token and head
//! score_h(t) = fma(scale_q * scale_t, code_q . code_t, q_pe . k_pe_t)      an exact integer; the rest dot16
//! p_t scale_t ~= scale * weight_t                          one scale per head and span, weights of 7 or 14 bits
//! acc       += scale * (weight_0 code_0 + weight_1 code_1 + ..)            an exact integer, one fma per span
//! ```
//!
//! Grouped queries have no part that stays a float: their `q_pe . k_pe_t` is 0.
//!
//! **Invariant**: a position that a row must not see has the weight 0, so a span is one product for all rows; integers
//! are exact, so neither batch nor threads nor instruction set change a bit.

use tl_kernels::columns;
use tl_kernels::int8::{self, ROWS, Vectors, WeightCodes};
use tl_kernels::rows::Table;

use super::attend::{MAX_TASK_ROWS, SPAN, SpanRows, Spans};
use super::layer_caches::LayerCaches;

const _: () = assert!(SPAN == ROWS && MAX_TASK_ROWS <= ROWS);

/// The queries of every row, and the vectors that they read.
pub(crate) struct Int8Spans<'a> {
    pub(crate) caches: LayerCaches<'a>,
    /// Width of a key and of a value.
    pub(crate) width: usize,
    /// The value of kv head `h` is vector `h + first_value`; its key is vector `h`.
    pub(crate) first_value: usize,
    /// `[rows, width]`: the queries, rounded.
    pub(crate) rounded: &'a Vectors,
    /// `[rows, width + rope]`, of which the rotated part is read; empty where keys have no such part.
    pub(crate) rotated: &'a [f32],
    pub(crate) rope: usize,
    pub(crate) scale: f32,
}

impl Spans for Int8Spans<'_> {
    fn value_width(&self) -> usize {
        self.width
    }

    fn attend_span(&self, run: &mut SpanRows<'_>) {
        let (n_rows, n_keys) = (run.seen.len(), run.seen.iter().copied().max().unwrap_or(0));
        let rows = run.first_row..run.first_row + n_rows;
        let (width, layer) = (self.width, self.caches.layer());
        let block = self.caches.block(run.cache, run.span);
        let key = block.coded_vector(layer, run.kv_head);
        let value = block.coded_vector(layer, run.kv_head + self.first_value);

        // Products with all positions of the span; scores of positions that a row must not see are not read.
        let (scores, _) = run.scores[..n_rows * SPAN].as_chunks_mut();
        if self.rope == 0 {
            scores.as_flattened_mut().fill(0.0);
        } else {
            let stride = width + self.rope;
            let rotated = Table::new(&self.rotated[rows.start * stride + width..], n_rows, self.rope, stride);
            columns::dots(rotated, block.coded_floats(layer), scores);
        }
        int8::add_dots(self.rounded.range(rows), key.codes, key.scales, scores);

        let mut weights = [WeightCodes::ZERO; MAX_TASK_ROWS];
        for (row, scores) in scores.iter_mut().enumerate() {
            let seen = run.seen[row];
            let (p, acc) = (&mut scores[..seen], &mut run.acc[row * width..][..width]);
            if run.states[row].fold_in(p, self.scale, acc) {
                weights[row] = WeightCodes::new(p, &value.scales.0[..seen]);
            }
        }
        int8::weighted_sums(&weights[..n_rows], value.codes, n_keys, run.acc);
    }
}
