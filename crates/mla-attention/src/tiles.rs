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
//! the first part of the keys, so both kinds of attention run through here. How scores and weighted
//! sums are made is a matter of the cache's number type: [`float_tiles`](crate::float_tiles) and
//! [`int8_tiles`](crate::int8_tiles).
//!
//! A tile is read once for all rows of a task that see it and share its head: their scores are one small
//! matrix product, and so are their weighted sums.
//!
//! **Invariant**: tiles start at absolute multiples of 64, and the operations of a row are the same
//! in the same order whatever other rows there are. So neither batch nor threads change a bit.
//!
//! **Invariant**: a score of minus infinity weighs nothing; a row with no other score gives zeros.
//! A score that is not a number shows in its own row's output and in no other row.

use tl_kernels::{Pool, math};

/// Positions per tile.
pub(crate) const TILE: usize = 64;

/// Most rows that one task takes, so that a tile read once serves many queries.
pub(crate) const MAX_TASK_ROWS: usize = 64;

/// What a row may see.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    /// The row's own position: it sees `0 ..= position`.
    pub(crate) position: usize,
    /// Which key and value head it reads.
    pub(crate) kv_head: usize,
}

/// Keys and values, and the queries for them.
pub(crate) trait Tiles: Sync {
    /// Values per row of the result.
    fn value_width(&self) -> usize;

    /// Folds one tile into the rows of `run`.
    fn attend_run(&self, run: &mut Run<'_>);
}

/// Some neighbouring rows at one tile.
pub(crate) struct Run<'a> {
    /// The first of the rows.
    pub(crate) first_row: usize,
    /// The key and value head that all rows read.
    pub(crate) kv_head: usize,
    /// The tile's first position.
    pub(crate) tile_start: usize,
    /// How many positions of the tile each row sees, at least 1.
    pub(crate) seen: &'a [usize],
    /// One per row.
    pub(crate) states: &'a mut [Softmax],
    /// Room for `[rows, TILE]`.
    pub(crate) scores: &'a mut [f32],
    /// `[rows, value width]`.
    pub(crate) acc: &'a mut [f32],
}

/// Attends from the query of every row to its past; `out` is `[rows, value width]`.
pub(crate) fn attend(pool: &Pool, tiles: &impl Tiles, place: &(dyn Fn(usize) -> Place + Sync), out: &mut [f32]) {
    let width = tiles.value_width();
    let n_rows = out.len() / width;
    if n_rows == 0 {
        return;
    }
    let task_rows = n_rows.div_ceil(pool.threads()).clamp(1, MAX_TASK_ROWS);
    pool.chunks_mut(out, task_rows * width, |task, acc| {
        attend_task(tiles, task * task_rows, &|row| place(task * task_rows + row), acc);
    });
}

/// The rows from `first_row` on, `acc` `[rows of this task, value width]`; `place` counts from the first of them.
fn attend_task(tiles: &impl Tiles, first_row: usize, place: &dyn Fn(usize) -> Place, acc: &mut [f32]) {
    let width = tiles.value_width();
    let n_rows = acc.len() / width;
    let mut states = [Softmax::START; MAX_TASK_ROWS];
    let mut scores = [0.0; MAX_TASK_ROWS * TILE];
    acc.fill(0.0);
    let end = (0..n_rows).map(|row| place(row).position + 1).max().unwrap_or(0);
    for tile_start in (0..end).step_by(TILE) {
        let mut row = 0;
        while row < n_rows {
            let Place { position, kv_head } = place(row);
            if position < tile_start {
                row += 1;
                continue;
            }
            let start = row;
            let mut seen = [0; MAX_TASK_ROWS];
            while row < n_rows && place(row).kv_head == kv_head && place(row).position >= tile_start {
                seen[row - start] = TILE.min(place(row).position + 1 - tile_start);
                row += 1;
            }
            tiles.attend_run(&mut Run {
                first_row: first_row + start,
                kv_head,
                tile_start,
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

/// The running softmax of one row.
#[derive(Clone, Copy)]
pub(crate) struct Softmax {
    max: f32,
    sum: f32,
}

impl Softmax {
    const START: Softmax = Softmax { max: f32::NEG_INFINITY, sum: 0.0 };

    /// Turns a tile's products into weights relative to the new maximum of the scores `scale * product`, and rescales
    /// what `acc` holds. Returns whether the tile weighs anything.
    pub(crate) fn fold_in(&mut self, scores: &mut [f32], scale: f32, acc: &mut [f32]) -> bool {
        // The largest score passes over NaN, which then shows in its own weight.
        let top = math::scale_and_top(scores, scale);
        if top == f32::NEG_INFINITY && scores.iter().all(|&score| score == f32::NEG_INFINITY) {
            return false;
        }
        if top > self.max {
            let shrink = math::exp(self.max - top);
            self.sum *= shrink;
            math::scale_in_place(acc, shrink);
            self.max = top;
        }
        self.sum += math::exp_sum_in_place(scores, self.max);
        true
    }

    /// Divides the numerator by the denominator.
    fn normalise(&self, acc: &mut [f32]) {
        let scale = if self.sum == 0.0 { 0.0 } else { 1.0 / self.sum };
        math::scale_in_place(acc, scale);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tl_kernels::rows::{Table, weighted_sums};

    /// The weights and the output of one row over one-dimensional values, tile by tile.
    fn attend(scores: &[f32], values: &[f32]) -> f32 {
        let (mut state, mut acc) = (Softmax::START, [0.0]);
        for (scores, values) in scores.chunks(TILE).zip(values.chunks(TILE)) {
            let mut weights = scores.to_vec();
            if state.fold_in(&mut weights, 1.0, &mut acc) {
                let n = weights.len();
                weighted_sums(Table::new(&weights, 1, n, n), Table::new(values, n, 1, 1), &mut acc);
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
