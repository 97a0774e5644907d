//! Attention over INT8 latents.
//!
//! ```text
//! query_h    = scale_q * code_q | q_pe                     rounded as activations are, per token and head
//! score_h(t) = fma(scale_q * scale_t, code_q . code_t, q_pe . k_pe_t)      an exact integer; the rest dot16
//! p_t scale_t ~= scale * weight_t                          one scale per head and tile, weights of 7 or 14 bits
//! acc       += scale * (weight_0 code_0 + weight_1 code_1 + ..)            an exact integer, one fma per tile
//! ```
//!
//! **Invariant**: what a row must not see has the weight 0, so a tile is one product for all rows; integers are exact,
//! so neither batch nor threads nor instruction set change a bit.

use half::f16;
use tl_kernels::int8::{self, MAX_ROWS, WeightCodes};
use tl_kernels::rows::{self, Table};

use crate::quantized::Int8Latents;
use crate::tiles::{MAX_TASK_ROWS, Run, TILE, Tiles};

const _: () = assert!(TILE <= MAX_ROWS);

/// The rows of a cache and the queries for them.
pub(crate) struct Int8Tiles<'a> {
    /// Width of the latent.
    pub(crate) kv_lora: usize,
    /// Width of the rotated key.
    pub(crate) qk_rope: usize,
    /// `[rows, kv_lora]`: the absorbed queries.
    pub(crate) codes: &'a [i8],
    /// `[rows]`: their scales.
    pub(crate) scales: &'a [f32],
    /// `[rows, kv_lora + qk_rope]`, of which the rotated part is read.
    pub(crate) queries: &'a [f32],
    pub(crate) cache: &'a Int8Latents,
    pub(crate) scale: f32,
}

impl Int8Tiles<'_> {
    /// The scores of all rows, `[rows, keys]`, before the common scale.
    fn scores(
        &self,
        first_row: usize,
        latents: Table<'_, i8>,
        scales: &[f32],
        keys: Table<'_, f16>,
        scores: &mut [f32],
    ) {
        let n_keys = latents.rows();
        let n_rows = scores.len() / n_keys;
        let (c, r) = (self.kv_lora, self.qk_rope);
        let queries = &self.queries[first_row * (c + r) + c..];
        rows::dots(Table::new(queries, n_rows, r, c + r), keys, scores);

        let mut sums = [0; MAX_TASK_ROWS * TILE];
        let sums = &mut sums[..n_rows * n_keys];
        int8::dots(Table::new(&self.codes[first_row * c..], n_rows, c, c), latents, sums);
        for (row, (scores, sums)) in scores.chunks_exact_mut(n_keys).zip(sums.chunks_exact(n_keys)).enumerate() {
            int8::add_scaled(sums, self.scales[first_row + row], scales, scores);
        }
    }
}

impl Tiles for Int8Tiles<'_> {
    fn value_width(&self) -> usize {
        self.kv_lora
    }

    fn attend_run(&self, run: &mut Run<'_>) {
        let (n_rows, n_keys) = (run.seen.len(), run.seen.iter().copied().max().unwrap_or(0));
        let tile = run.tile_start..run.tile_start + n_keys;
        let (c, r) = (self.kv_lora, self.qk_rope);
        let latents = Table::new(&self.cache.codes()[tile.start * c..], n_keys, c, c);
        let keys = Table::new(&self.cache.keys()[tile.start * r..], n_keys, r, r);
        let scales = &self.cache.scales()[tile];

        let scores = &mut run.scores[..n_rows * n_keys];
        self.scores(run.first_row, latents, scales, keys, scores);

        let mut weights = [WeightCodes::ZERO; MAX_TASK_ROWS];
        for (row, scores) in scores.chunks_exact_mut(n_keys).enumerate() {
            let seen = run.seen[row];
            let (p, acc) = (&mut scores[..seen], &mut run.acc[row * c..][..c]);
            if run.states[row].fold_in(p, self.scale, acc) {
                weights[row] = WeightCodes::new(p, &scales[..seen]);
            }
        }
        int8::weighted_sums(&weights[..n_rows], latents, run.acc);
    }
}
