//! The matrices that read one input, and the rounding of that input to INT8.
//!
//! ```text
//! y = W x + b                                                in F32, or with W in Q8_0
//!   = W8 A8((x - m) / s) + R (x - m)[c] + b'                 rounded: W8 is W s in Q8_0, without the columns c
//!                                                            R is W[:, c] in F32, b' = b + W m
//! ```
//! Where some columns of an input are much larger than the others, one scale for 256 values leaves the others few bits. So each
//! column is moved by its mean `m` and divided by `s`, which shares the range between the input and the weights (Xiao et al. 2023,
//! "SmoothQuant"), and one column in six, up to 64, stays in F32: those with the largest ranges (Dettmers et al. 2022,
//! "LLM.int8()"). The ranges are those of texts that the encoder reads when it is loaded.
//!
//! Another text may have a value that is many times larger than all of theirs. A row `z = (x - m) / s` with such a value is cut into
//! `z' + z''`, where `z'` ends at the largest size of those texts and `z''` has what lies beyond it, 0 but for few columns. Both are
//! rounded, so that the large value takes no bits from the others.

use gguf_bitnet::{TensorType, quantize_row};
use ternary_core::{ActMode, Bytes};
use tl_kernels::dense::dot_f32;
use tl_kernels::{ActivationBuffer, DenseType, Linear, Pool, Product, forward_all};

use super::vectors::add;
use crate::error::Result;

/// The constants of the rounding.
#[derive(Clone, Copy, Debug)]
pub(super) struct RoundingRules {
    /// One column of so many stays in F32 ...
    columns_per_outlier: usize,
    /// ... and no more than this.
    most_outliers: usize,
    /// Least range of a column and least weight that count, so that no divisor is 0.
    least: f32,
    /// Multiple of the largest value in INT8 over the texts of the ranges beyond which a row is rounded in two parts.
    far: f32,
}

impl RoundingRules {
    /// Chosen on the 64 texts that the vectors of transformers are compared on.
    pub(super) const CHOSEN: RoundingRules =
        RoundingRules { columns_per_outlier: 6, most_outliers: 64, least: 1e-5, far: 3.0 };

    fn outliers(&self, cols: usize) -> usize {
        (cols / self.columns_per_outlier).min(self.most_outliers)
    }

    /// The rules that are used, and others that differ in one constant each.
    #[cfg(test)]
    pub(super) fn variants() -> [RoundingRules; 5] {
        let chosen = RoundingRules::CHOSEN;
        [
            chosen,
            RoundingRules { columns_per_outlier: 8, ..chosen },
            RoundingRules { most_outliers: 8, ..chosen },
            RoundingRules { least: 1e-6, ..chosen },
            RoundingRules { far: 2.0, ..chosen },
        ]
    }

    /// Adds the constants to the identity of an encoder, whose vectors depend on them.
    pub(super) fn hash(&self, hash: &mut blake3::Hasher) {
        let RoundingRules { columns_per_outlier, most_outliers, least, far } = self;
        let [least, far] = [least, far].map(|x| x.to_bits());
        let facts = format!(
            "outliers 1/{columns_per_outlier} most {most_outliers} least {least:08x} far {far:08x} mean by text "
        );
        hash.update(facts.as_bytes());
    }
}

/// A matrix with a bias.
#[derive(Debug)]
pub(super) struct Affine {
    pub(super) matrix: Linear,
    pub(super) bias: Vec<f32>,
}

/// Matrices that read one input.
#[derive(Debug)]
pub(super) struct Projection<const N: usize> {
    pub(super) affines: [Affine; N],
    rounding: Option<Rounding>,
}

/// How the input is rounded.
#[derive(Debug)]
struct Rounding {
    /// For each column, its mean and the reciprocal of its divisor, which is 0 for the columns in F32.
    columns: Vec<[f32; 2]>,
    outliers: Vec<usize>,
    /// The columns `outliers` of each matrix, `[rows, outliers]`; nothing where there are none.
    rest: Vec<Linear>,
    /// Largest size of a value in INT8 over the texts of the ranges, and the one beyond which a row is cut in two there.
    near: f32,
    far: f32,
}

impl Rounding {
    /// Fills `inputs` with the parts of `x` `[n, cols]`, which the products then take.
    fn take(&self, x: &[f32], cols: usize, inputs: &mut Inputs) {
        let Inputs { acts, rest, moved, picked, far_rows, beyond, far, .. } = inputs;
        moved.resize(x.len(), 0.0);
        picked.clear();
        far_rows.clear();
        beyond.clear();
        for (t, (x, moved)) in x.chunks_exact(cols).zip(moved.chunks_exact_mut(cols)).enumerate() {
            for ((x, moved), [mean, factor]) in x.iter().zip(&mut *moved).zip(&self.columns) {
                *moved = (x - mean) * factor;
            }
            picked.extend(self.outliers.iter().map(|&c| x[c] - self.columns[c][0]));
            if moved.iter().any(|z| z.abs() > self.far) {
                far_rows.push(t);
                for z in moved {
                    let whole = *z;
                    *z = whole.clamp(-self.near, self.near);
                    beyond.push(whole - *z);
                }
            }
        }
        let n = x.len() / cols;
        acts.set_in(ActMode::A8Block, moved, n, cols);
        if !self.outliers.is_empty() {
            rest.set_in(ActMode::F32, picked, n, self.outliers.len());
        }
        if !far_rows.is_empty() {
            far.set_in(ActMode::A8Block, beyond, far_rows.len(), cols);
        }
    }

    /// Adds to `y` `[n, rows]`, the output of matrix `i`, what the columns in F32 and the second parts of rows give.
    fn add_parts(&self, pool: &Pool, i: usize, matrix: &Linear, inputs: &mut Inputs, y: &mut [f32]) {
        let Inputs { rest, sums, far_rows, far, .. } = inputs;
        if let Some(linear) = self.rest.get(i) {
            sums.resize(y.len(), 0.0);
            linear.forward(pool, rest, sums);
            add(y, sums);
        }
        if !far_rows.is_empty() {
            let rows = matrix.rows();
            sums.resize(far_rows.len() * rows, 0.0);
            matrix.forward(pool, far, sums);
            for (t, sums) in far_rows.iter().zip(sums.chunks_exact(rows)) {
                add(&mut y[t * rows..][..rows], sums);
            }
        }
    }
}

/// The values of a column of an input.
#[derive(Clone, Copy, Debug)]
pub(super) struct Range {
    low: f32,
    high: f32,
    /// Sums of the values and of their shares.
    sum: f64,
    shares: f64,
}

impl Range {
    const NONE: Range = Range { low: f32::INFINITY, high: f32::NEG_INFINITY, sum: 0.0, shares: 0.0 };

    /// Takes a value that counts for `share` in the mean.
    fn take(&mut self, x: f32, share: f64) {
        (self.low, self.high) = (self.low.min(x), self.high.max(x));
        (self.sum, self.shares) = (self.sum + share * f64::from(x), self.shares + share);
    }

    fn mean(&self) -> f32 {
        if self.shares > 0.0 { (self.sum / self.shares) as f32 } else { 0.0 }
    }

    /// The largest distance from the mean.
    fn reach(&self) -> f32 {
        (self.high - self.mean()).max(self.mean() - self.low)
    }
}

/// Buffers that the products of an encoder share.
#[derive(Debug, Default)]
pub(super) struct Inputs {
    acts: ActivationBuffer,
    rest: ActivationBuffer,
    moved: Vec<f32>,
    picked: Vec<f32>,
    sums: Vec<f32>,
    /// The rows that are rounded in two parts, and their second parts.
    far_rows: Vec<usize>,
    beyond: Vec<f32>,
    far: ActivationBuffer,
    watched: Option<Watched>,
}

/// The columns of inputs as they pass.
#[derive(Debug)]
struct Watched {
    /// The share of each row in the means.
    shares: Vec<f64>,
    /// The columns of the inputs of all projections, in the order of the forward pass.
    ranges: Vec<Vec<Range>>,
}

impl Inputs {
    /// Buffers that watch the columns of the inputs, which are those of texts with so many tokens. All texts have one share in the
    /// means, so that a long one does not decide them.
    pub(super) fn watching(tokens: impl Iterator<Item = usize>) -> Inputs {
        let shares = tokens.flat_map(|n| std::iter::repeat_n(1.0 / n as f64, n)).collect();
        Inputs { watched: Some(Watched { shares, ranges: Vec::new() }), ..Inputs::default() }
    }

    /// The columns of all inputs so far, in the order of the products.
    pub(super) fn into_ranges(self) -> Vec<Vec<Range>> {
        self.watched.map_or_else(Vec::new, |watched| watched.ranges)
    }

    /// Adds the columns of the next input `x` `[n, cols]`, where they are watched.
    fn watch(&mut self, x: &[f32], cols: usize) {
        let Some(Watched { shares, ranges: all }) = &mut self.watched else { return };
        let mut ranges = vec![Range::NONE; cols];
        for (row, share) in x.chunks_exact(cols).zip(&*shares) {
            ranges.iter_mut().zip(row).for_each(|(range, x)| range.take(*x, *share));
        }
        all.push(ranges);
    }
}

impl<const N: usize> Projection<N> {
    /// Matrices whose input is not rounded.
    pub(super) fn new(affines: [Affine; N]) -> Projection<N> {
        Projection { affines, rounding: None }
    }

    /// `ys[i] = W_i x`, without the biases; `x` is `[n, cols]`.
    pub(super) fn forward(&self, pool: &Pool, x: &[f32], n: usize, inputs: &mut Inputs, mut ys: [&mut [f32]; N]) {
        let cols = x.len() / n;
        inputs.watch(x, cols);
        match &self.rounding {
            None => inputs.acts.set_in(self.affines[0].matrix.act_mode(), x, n, cols),
            Some(rounding) => rounding.take(x, cols, inputs),
        }
        let (acts, mut outputs) = (&inputs.acts, ys.iter_mut());
        let product = |affine| Product { linear: affine, acts, y: outputs.next().expect("one output per matrix") };
        forward_all(pool, self.affines.each_ref().map(|affine| &affine.matrix).map(product));
        let Some(rounding) = &self.rounding else { return };
        for (i, (affine, y)) in self.affines.iter().zip(ys).enumerate() {
            rounding.add_parts(pool, i, &affine.matrix, inputs, y);
        }
    }

    pub(super) fn is_rounded(&self) -> bool {
        self.rounding.is_some()
    }

    /// Bytes that the matrices take; at their largest, which for a rounded input is while they are made of floats.
    pub(super) fn memory_bytes(&self) -> u64 {
        let of_matrix = |matrix: &Linear| matrix.bytes().len() as u64;
        let of_affine = |affine: &Affine| of_matrix(&affine.matrix) + 4 * affine.bias.len() as u64;
        let own: u64 = self.affines.iter().map(of_affine).sum();
        let Some(Rounding { columns, rest, .. }) = &self.rounding else { return own };
        let floats = self.affines.iter().map(|affine| 4 * (affine.matrix.rows() * affine.matrix.cols()) as u64);
        own + floats.sum::<u64>() + rest.iter().map(of_matrix).sum::<u64>() + 8 * columns.len() as u64
    }

    /// The same matrices in Q8_0, for an input of these `ranges` that is rounded to INT8.
    pub(super) fn rounded(self, ranges: &[Range], rules: RoundingRules) -> Result<Projection<N>> {
        let cols = ranges.len();
        let mut weights = vec![rules.least; cols];
        let mut row = vec![0.0; cols];
        for affine in &self.affines {
            for r in 0..affine.matrix.rows() {
                affine.matrix.dequantize_row(r, &mut row)?;
                weights.iter_mut().zip(&row).for_each(|(most, w)| *most = most.max(w.abs()));
            }
        }
        let reaches: Vec<f32> = ranges.iter().map(|range| range.reach().max(rules.least)).collect();
        let divisors: Vec<f32> = reaches.iter().zip(&weights).map(|(reach, w)| (reach / w).sqrt()).collect();
        let mut outliers: Vec<usize> = (0..cols).collect();
        let size = |c: usize| reaches[c] / divisors[c];
        outliers.sort_by(|&a, &b| size(b).total_cmp(&size(a)).then(a.cmp(&b)));
        let near = outliers.get(rules.outliers(cols)).map_or(0.0, |&c| size(c));
        outliers.truncate(rules.outliers(cols));
        let means: Vec<f32> = ranges.iter().map(Range::mean).collect();
        let mut columns: Vec<[f32; 2]> = means.iter().zip(&divisors).map(|(m, s)| [*m, 1.0 / s]).collect();
        outliers.iter().for_each(|&c| columns[c][1] = 0.0);
        let mut rest = Vec::with_capacity(N);
        let mut affines = Vec::with_capacity(N);
        for Affine { matrix, mut bias } in self.affines {
            let (mut encoded, mut kept) = (Vec::new(), Vec::new());
            for (r, bias) in bias.iter_mut().enumerate() {
                matrix.dequantize_row(r, &mut row)?;
                *bias += dot_f32(&row, &means);
                kept.extend(outliers.iter().map(|&c| std::mem::take(&mut row[c])));
                row.iter_mut().zip(&divisors).for_each(|(w, s)| *w *= s);
                quantize_row(TensorType::Q8_0, &row, &mut encoded)?;
            }
            if !outliers.is_empty() {
                rest.push(Linear::from_f32(matrix.rows(), outliers.len(), kept)?);
            }
            let matrix = Linear::dense(DenseType::Q8_0, matrix.rows(), cols, Bytes::from(encoded))?;
            affines.push(Affine { matrix: matrix.with_act_mode(ActMode::A8Block), bias });
        }
        let affines = affines.try_into().expect("N matrices");
        Ok(Projection { affines, rounding: Some(Rounding { columns, outliers, rest, near, far: rules.far * near }) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoder::cosine;
    use crate::encoder::vectors::normalise;

    const ROWS: usize = 32;
    const COLS: usize = 96;
    const TOKENS: usize = 64;

    /// Numbers between -1 and 1.
    fn numbers(n: usize, mut state: u64) -> Vec<f32> {
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / 8_388_608.0 - 1.0
        };
        (0..n).map(|_| next()).collect()
    }

    fn projection() -> Projection<1> {
        let matrix = Linear::from_f32(ROWS, COLS, numbers(ROWS * COLS, 2)).unwrap();
        Projection::new([Affine { matrix, bias: vec![0.0; ROWS] }])
    }

    /// The outputs with their biases, `[TOKENS, ROWS]`, each row with length 1.
    fn outputs(projection: &Projection<1>, x: &[f32], inputs: &mut Inputs) -> Vec<f32> {
        let mut y = vec![0.0; TOKENS * ROWS];
        projection.forward(&Pool::serial(), x, TOKENS, inputs, [&mut y]);
        for row in y.chunks_exact_mut(ROWS) {
            add(row, &projection.affines[0].bias);
            normalise(row);
        }
        y
    }

    /// The first token has a large value in one column of each block of 32 weights. The outputs of the others suffer unless these
    /// columns are taken out.
    #[test]
    fn columns_in_f32_keep_large_ones_from_spoiling_the_others() {
        let mut x = numbers(TOKENS * COLS, 1);
        [5, 40, 70].into_iter().for_each(|c| x[c] = 10_000.0);
        let mut inputs = Inputs::watching([TOKENS].into_iter());
        let exact = outputs(&projection(), &x, &mut inputs);
        let ranges = inputs.into_ranges().remove(0);
        let lowest = |rules: RoundingRules| {
            let rounded = projection().rounded(&ranges, rules).unwrap();
            let got = outputs(&rounded, &x, &mut Inputs::default());
            let rows = got.chunks_exact(ROWS).zip(exact.chunks_exact(ROWS)).skip(1);
            rows.map(|(got, exact)| cosine(got, exact)).fold(1.0, f32::min)
        };
        let none = RoundingRules { most_outliers: 0, ..RoundingRules::CHOSEN };
        let [kept, lost] = [RoundingRules::CHOSEN, none].map(lowest);
        assert!(kept > 0.999 && lost < 0.99, "{kept} {lost}");
    }

    /// The ranges are those of values below 1. Of the row with three values of 30 the second part alone has these.
    #[test]
    fn a_value_beyond_the_ranges_takes_no_bits_from_the_others_of_its_row() {
        let near = numbers(TOKENS * COLS, 1);
        let mut inputs = Inputs::watching([TOKENS].into_iter());
        outputs(&projection(), &near, &mut inputs);
        let ranges = inputs.into_ranges().remove(0);
        let rounded = |rules| projection().rounded(&ranges, rules).unwrap();
        let in_int8 = |c: &usize| !rounded(RoundingRules::CHOSEN).rounding.unwrap().outliers.contains(c);
        let mut x = near.clone();
        (0..COLS).filter(in_int8).take(3).for_each(|c| x[c] = 30.0);
        let product = |projection: &Projection<1>, inputs: &mut Inputs, x: &[f32]| {
            let mut y = vec![0.0; x.len() / COLS * ROWS];
            projection.forward(&Pool::serial(), x, x.len() / COLS, inputs, [&mut y]);
            y.chunks_exact_mut(ROWS).for_each(|row| add(row, &projection.affines[0].bias));
            y
        };
        let exact = product(&projection(), &mut Inputs::default(), &x);
        let error = |rules| {
            let mut inputs = Inputs::default();
            let y = product(&rounded(rules), &mut inputs, &x);
            let of_row = y[..ROWS].iter().zip(&exact).map(|(a, b)| (a - b).powi(2)).sum::<f32>().sqrt();
            (of_row, inputs.far_rows, y)
        };
        let (cut, cut_rows, y) = error(RoundingRules::CHOSEN);
        let (whole, none, _) = error(RoundingRules { far: f32::INFINITY, ..RoundingRules::CHOSEN });
        assert_eq!((&cut_rows[..], &none[..]), (&[0][..], &[][..]));
        assert!(cut < 0.6 * whole, "{cut} {whole}");
        // A row has the same bits in any batch.
        let projection = rounded(RoundingRules::CHOSEN);
        let mut inputs = Inputs::default();
        let alone: Vec<f32> = x.chunks_exact(COLS).flat_map(|row| product(&projection, &mut inputs, row)).collect();
        assert!(alone == y);
    }

    #[test]
    fn all_texts_have_one_share_in_the_mean_of_a_column() {
        let mut inputs = Inputs::watching([1, 3].into_iter());
        inputs.watch(&[8.0, 1.0, 2.0, 3.0], 1);
        let range = inputs.into_ranges()[0][0];
        assert_eq!((range.mean(), range.reach()), (5.0, 4.0));
    }

    #[test]
    fn narrow_inputs_have_columns_in_int8_too() {
        let outliers = [64, 96, 384, 1536].map(|cols| RoundingRules::CHOSEN.outliers(cols));
        assert_eq!(outliers, [10, 16, 64, 64]);
    }
}
