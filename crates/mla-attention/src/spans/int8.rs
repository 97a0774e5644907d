//! Attention over INT8 latents.
//!
//! ```text
//! query_h    = scale_q * code_q | q_pe                     rounded as activations are, per token and head
//! score_h(t) = fma(scale_q * scale_t, code_q . code_t, q_pe . k_pe_t)      an exact integer; the rest dot16
//! p_t scale_t ~= scale * weight_t                          one scale per head and span, weights of 7 or 14 bits
//! acc       += scale * (weight_0 code_0 + weight_1 code_1 + ..)            an exact integer, one fma per span
//! ```
//!
//! **Invariant**: a position that a row must not see has the weight 0, so a span is one product for all rows; integers
//! are exact, so neither batch nor threads nor instruction set change a bit.

use tl_kernels::columns;
use tl_kernels::int8::{self, ROWS, Vectors, WeightCodes};
use tl_kernels::rows::Table;

use super::attend::{MAX_TASK_ROWS, SPAN, SpanRows, Spans};
use crate::kv_cache::Int8Latents;

const _: () = assert!(SPAN == ROWS && MAX_TASK_ROWS <= ROWS);

/// The rows of a cache and the queries for them.
pub(crate) struct Int8Spans<'a> {
    /// Width of the latent.
    pub(crate) kv_lora: usize,
    /// Width of the rotated key.
    pub(crate) qk_rope: usize,
    /// `[rows, kv_lora]`: the absorbed queries.
    pub(crate) rounded: &'a Vectors,
    /// `[rows, kv_lora + qk_rope]`, of which the rotated part is read.
    pub(crate) queries: &'a [f32],
    pub(crate) cache: &'a Int8Latents,
    pub(crate) scale: f32,
}

impl Spans for Int8Spans<'_> {
    fn value_width(&self) -> usize {
        self.kv_lora
    }

    fn attend_span(&self, run: &mut SpanRows<'_>) {
        let (n_rows, n_keys) = (run.seen.len(), run.seen.iter().copied().max().unwrap_or(0));
        let rows = run.first_row..run.first_row + n_rows;
        let (c, r) = (self.kv_lora, self.qk_rope);
        let span = self.cache.span(run.first_position / SPAN);

        // Products with all positions of the span; scores of positions that a row must not see are not read.
        let (scores, _) = run.scores[..n_rows * SPAN].as_chunks_mut();
        let queries = &self.queries[rows.start * (c + r) + c..];
        columns::dots(Table::new(queries, n_rows, r, c + r), span.keys, scores);
        int8::add_dots(self.rounded.range(rows), span.codes, span.scales, scores);

        let mut weights = [WeightCodes::ZERO; MAX_TASK_ROWS];
        for (row, scores) in scores.iter_mut().enumerate() {
            let seen = run.seen[row];
            let (p, acc) = (&mut scores[..seen], &mut run.acc[row * c..][..c]);
            if run.states[row].fold_in(p, self.scale, acc) {
                weights[row] = WeightCodes::new(p, &span.scales.0[..seen]);
            }
        }
        int8::weighted_sums(&weights[..n_rows], span.codes, n_keys, run.acc);
    }
}
