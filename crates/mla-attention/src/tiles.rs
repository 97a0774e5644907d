//! Softmax attention over a cache in one pass: tiles of 64 positions and an online softmax
//! (arXiv 1805.02867; arXiv 2205.14135).
//!
//! A *row* is one query: a (token, head) pair. For each row, and each tile of positions up to the
//! row's own:
//!
//! ```text
//! s_j = scale * (query . key_j)                          one score per position of the tile
//! M   = max(m, max_j s_j)                                the running maximum
//! p_j = exp(s_j - M)
//! sum = sum * exp(m - M) + (p_0 + p_1 + ...)             the running denominator
//! acc = acc * exp(m - M) + p_0 v_0 + p_1 v_1 + ...       the running numerator
//! ```
//!
//! and at the end `out = acc / sum`. Latent attention is the case of one key head whose values are
//! the first part of the keys, so both kinds of attention run through here.
//!
//! **Invariant**: tiles start at absolute multiples of 64, and the operations of a row are the same
//! in the same order whatever other rows there are. So neither batch nor threads change a bit.
//!
//! **Invariant**: a score of minus infinity weighs nothing; a row with no other score gives zeros.
//! A score that is not a number shows in its own row's output and in no other row.

use half::f16;
use tl_kernels::{Pool, math, rows};

use crate::plane::Rows;

/// Positions per tile.
pub(crate) const TILE: usize = 64;

/// Most rows that one task takes, so that a tile read once serves many queries.
const MAX_TASK_ROWS: usize = 64;

/// One query.
pub(crate) struct Query<'a> {
    /// The row's own position: it sees `0 ..= position`.
    pub(crate) position: usize,
    /// Which key and value head it reads.
    pub(crate) kv_head: usize,
    /// `[key width]`.
    pub(crate) values: &'a [f32],
}

/// Where a head's keys (or values) lie in the rows of a cache.
#[derive(Clone, Copy)]
pub(crate) struct Columns {
    /// Values per position in the cache.
    pub(crate) stride: usize,
    /// Distance from one head to the next within a position.
    pub(crate) head_stride: usize,
    /// Values read.
    pub(crate) width: usize,
}

impl Columns {
    /// The table whose row j is `head` of position `first + j`.
    fn from<'a, T>(&self, rows: &'a [T], first: usize, head: usize) -> &'a [T] {
        &rows[first * self.stride + head * self.head_stride..]
    }
}

/// Keys and values of every cached position.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) keys: Rows<'a>,
    pub(crate) key_columns: Columns,
    pub(crate) values: Rows<'a>,
    pub(crate) value_columns: Columns,
    pub(crate) scale: f32,
}

impl Context<'_> {
    /// Attends from every query to its past; `out` is `[rows, value width]`.
    pub(crate) fn attend<'q>(&self, pool: &Pool, query: &(dyn Fn(usize) -> Query<'q> + Sync), out: &mut [f32]) {
        match (self.keys, self.values) {
            (Rows::F32(keys), Rows::F32(values)) => self.attend_typed(pool, keys, values, query, out),
            (Rows::F16(keys), Rows::F16(values)) => self.attend_typed(pool, keys, values, query, out),
            _ => unreachable!("a cache has one number type"),
        }
    }

    fn attend_typed<'q, T: CachedValue>(
        &self,
        pool: &Pool,
        keys: &[T],
        values: &[T],
        query: &(dyn Fn(usize) -> Query<'q> + Sync),
        out: &mut [f32],
    ) {
        let width = self.value_columns.width;
        let n_rows = out.len() / width;
        if n_rows == 0 {
            return;
        }
        let task_rows = n_rows.div_ceil(pool.threads()).clamp(1, MAX_TASK_ROWS);
        pool.chunks_mut(out, task_rows * width, |task, acc| {
            self.attend_task(keys, values, task * task_rows, query, acc);
        });
    }

    /// The rows from `first_row` on, `acc` `[rows of this task, value width]`.
    fn attend_task<'q, T: CachedValue>(
        &self,
        keys: &[T],
        values: &[T],
        first_row: usize,
        query: &(dyn Fn(usize) -> Query<'q> + Sync),
        acc: &mut [f32],
    ) {
        let width = self.value_columns.width;
        let mut states = [Softmax::START; MAX_TASK_ROWS];
        let mut scores = [0.0; TILE];
        acc.fill(0.0);
        let rows = acc.len() / width;
        let end = (first_row..first_row + rows).map(|row| query(row).position + 1).max();
        for tile_start in (0..end.unwrap_or(0)).step_by(TILE) {
            for (row, acc) in acc.chunks_exact_mut(width).enumerate() {
                let query = query(first_row + row);
                if query.position < tile_start {
                    continue;
                }
                let tile_end = (tile_start + TILE).min(query.position + 1);
                let scores = &mut scores[..tile_end - tile_start];
                let keys = self.key_columns.from(keys, tile_start, query.kv_head);
                T::dots(query.values, keys, self.key_columns.stride, scores);
                for score in scores.iter_mut() {
                    *score *= self.scale;
                }
                if states[row].fold_in(scores, acc) {
                    let values = self.value_columns.from(values, tile_start, query.kv_head);
                    T::weighted_sum(scores, values, self.value_columns.stride, acc);
                }
            }
        }
        for (state, acc) in states.iter().zip(acc.chunks_exact_mut(width)) {
            state.normalise(acc);
        }
    }
}

/// The running softmax of one row.
#[derive(Clone, Copy)]
struct Softmax {
    max: f32,
    sum: f32,
}

impl Softmax {
    const START: Softmax = Softmax { max: f32::NEG_INFINITY, sum: 0.0 };

    /// Turns a tile's `scores` into weights relative to the new maximum and rescales what `acc`
    /// holds. Returns whether the tile weighs anything.
    fn fold_in(&mut self, scores: &mut [f32], acc: &mut [f32]) -> bool {
        // `f32::max` passes over NaN, which then shows in its own weight.
        let max = scores.iter().fold(self.max, |max, &score| max.max(score));
        if scores.iter().all(|&score| score == f32::NEG_INFINITY) {
            return false;
        }
        if max > self.max {
            let shrink = math::exp(self.max - max);
            self.sum *= shrink;
            for value in acc {
                *value *= shrink;
            }
            self.max = max;
        }
        self.sum += math::exp_sum_in_place(scores, max);
        true
    }

    /// Divides the numerator by the denominator.
    fn normalise(&self, acc: &mut [f32]) {
        let scale = if self.sum == 0.0 { 0.0 } else { 1.0 / self.sum };
        for value in acc {
            *value *= scale;
        }
    }
}

/// A number type that caches hold, and the products of a query's tile with it.
trait CachedValue: Copy + Sync {
    /// `scores[j] = dot16(query, key j)`, widened.
    fn dots(query: &[f32], keys: &[Self], stride: usize, scores: &mut [f32]);
    /// `acc += p[j] * value j` in ascending j, by one fused multiply-add per element.
    fn weighted_sum(p: &[f32], values: &[Self], stride: usize, acc: &mut [f32]);
}

impl CachedValue for f32 {
    fn dots(query: &[f32], keys: &[f32], stride: usize, scores: &mut [f32]) {
        rows::dots_f32(query, keys, stride, scores);
    }

    fn weighted_sum(p: &[f32], values: &[f32], stride: usize, acc: &mut [f32]) {
        rows::weighted_sum_f32(p, values, stride, acc);
    }
}

impl CachedValue for f16 {
    fn dots(query: &[f32], keys: &[f16], stride: usize, scores: &mut [f32]) {
        rows::dots_f16(query, keys, stride, scores);
    }

    fn weighted_sum(p: &[f32], values: &[f16], stride: usize, acc: &mut [f32]) {
        rows::weighted_sum_f16(p, values, stride, acc);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The weights and the output of one row over one-dimensional values, tile by tile.
    fn attend(scores: &[f32], values: &[f32]) -> f32 {
        let (mut state, mut acc) = (Softmax::START, [0.0]);
        for (scores, values) in scores.chunks(TILE).zip(values.chunks(TILE)) {
            let mut weights = scores.to_vec();
            if state.fold_in(&mut weights, &mut acc) {
                f32::weighted_sum(&weights, values, 1, &mut acc);
            }
        }
        state.normalise(&mut acc);
        acc[0]
    }

    fn wave(n: usize, scale: f32) -> Vec<f32> {
        (0..n).map(|i| scale * ((i * i) as f32 * 0.37).sin()).collect()
    }

    #[test]
    fn online_softmax_equals_the_plain_one() {
        for n in [1, 2, 63, 64, 65, 128, 200] {
            let (scores, values) = (wave(n, 9.0), wave(n + 1, 2.0)[1..].to_vec());
            let max = scores.iter().copied().fold(f32::MIN, f32::max);
            let weight = |s: &f32| f64::from(s - max).exp();
            let sum: f64 = scores.iter().map(weight).sum();
            let plain: f64 = scores.iter().zip(&values).map(|(s, v)| weight(s) / sum * f64::from(*v)).sum();
            let online = f64::from(attend(&scores, &values));
            assert!((online - plain).abs() < 1e-5, "{n} positions: {online} is not {plain}");
        }
    }

    #[test]
    fn masked_scores_weigh_nothing_and_a_fully_masked_row_gives_zeros() {
        let masked = f32::NEG_INFINITY;
        assert_eq!(attend(&[masked; 130], &[f32::NAN; 130]), 0.0);
        let mut scores = vec![masked; 130];
        scores[100] = -1e30;
        let mut values = vec![5.0; 130];
        values[100] = 7.0;
        assert_eq!(attend(&scores, &values), 7.0);
        scores[3] = 12.0;
        assert_eq!(attend(&scores, &values), 5.0);
    }

    #[test]
    fn a_score_that_is_no_number_shows() {
        for at in [0, 70] {
            let mut scores = wave(130, 1.0);
            scores[at] = f32::NAN;
            assert!(attend(&scores, &wave(130, 1.0)).is_nan());
        }
        assert!(attend(&[f32::NAN], &[1.0]).is_nan());
    }
}
