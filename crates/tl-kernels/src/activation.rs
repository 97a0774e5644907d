//! The input of a matrix product: `n` rows of `cols` activations, quantised once for all readers. Rows that only
//! products of integers read exist as codes alone.
//!
//! **Invariant:** once the largest shape has been seen, nothing here allocates.
//!
//! ```text
//! lanes   row t: cols.div_ceil(16) groups of 16 f32; the padding of the last group is -0.0, which with a
//!         weight of +0.0 leaves a running sum unchanged to the bit: fma(0.0, -0.0, s) == s for every s
//! codes   row t, block b: 256 INT8 in the order of the TQ2_0 fields, so that 64 packed bytes meet them
//!         without a shuffle: place 64 n + 32 h + m holds element 128 h + 32 n + m  (n < 4, h < 2, m < 32)
//! scales  [n, blocks] f32, equal over a row in A8Token mode;  sums  [n, blocks] i32, the sum of a block
//! ```

use ternary_core::{ActMode, BLOCK, quantize_a8};

use crate::aligned::AlignedBuffer;
use crate::arch::Level;
use crate::lut::{Grouping, TableGuard, Tables};
use crate::vector::{Kernel, Simd};

/// Floats per vector group: the lanes of `dot16`.
pub(crate) const LANES: usize = 16;

/// `n` rows of `cols` activations and, on request, their INT8 form. Reused from product to product.
#[derive(Debug, Clone, Default)]
pub struct ActivationBuffer {
    n: usize,
    cols: usize,
    lanes: AlignedBuffer<f32>,
    block: QuantizedRows,
    token: QuantizedRows,
    /// One row of codes in natural order, before they are put in field order.
    staging: Vec<i8>,
}

impl ActivationBuffer {
    /// An empty buffer.
    #[must_use]
    pub fn new() -> ActivationBuffer {
        ActivationBuffer::default()
    }

    /// Takes what products in `mode` read of `x` `[n, cols]`: INT8 codes or, for [`ActMode::F32`], a copy. All earlier
    /// forms are forgotten.
    ///
    /// # Panics
    /// If `x` does not hold `n * cols` values.
    pub fn set_in(&mut self, mode: ActMode, x: &[f32], n: usize, cols: usize) {
        let rows = match mode {
            ActMode::F32 => return self.set(x, n, cols),
            ActMode::A8Block => &mut self.block,
            ActMode::A8Token => &mut self.token,
        };
        assert_eq!(x.len(), n * cols, "activations must be [n, cols]");
        rows.quantize(mode, &mut self.staging, n, cols, |t| &x[t * cols..(t + 1) * cols]);
        (self.n, self.cols) = (n, cols);
        self.block.valid = mode == ActMode::A8Block;
        self.token.valid = mode == ActMode::A8Token;
        self.lanes.resize(0);
    }

    /// Takes a copy of `x` `[n, cols]`; earlier codes are forgotten.
    ///
    /// # Panics
    /// If `x` does not hold `n * cols` values.
    pub fn set(&mut self, x: &[f32], n: usize, cols: usize) {
        assert_eq!(x.len(), n * cols, "activations must be [n, cols]");
        self.fill(n, cols, |t, row| row.copy_from_slice(&x[t * cols..(t + 1) * cols]));
    }

    /// Becomes `[n, cols]` and lets `write(t, row)` produce each row in place; earlier codes are forgotten.
    pub fn fill(&mut self, n: usize, cols: usize, mut write: impl FnMut(usize, &mut [f32])) {
        self.n = n;
        self.cols = cols;
        self.block.valid = false;
        self.token.valid = false;
        let stride = cols.next_multiple_of(LANES);
        self.lanes.resize(n * stride);
        if stride == 0 {
            return;
        }
        for (t, row) in self.lanes.as_mut_slice().chunks_exact_mut(stride).enumerate() {
            write(t, &mut row[..cols]);
            row[cols..].fill(-0.0);
        }
    }

    /// Makes the INT8 form that linears of this mode read; does nothing for [`ActMode::F32`] or when it is
    /// there already.
    pub fn quantize(&mut self, mode: ActMode) {
        let rows = match mode {
            ActMode::F32 => return,
            ActMode::A8Block => &mut self.block,
            ActMode::A8Token => &mut self.token,
        };
        if rows.valid {
            return;
        }
        let stride = self.cols.next_multiple_of(LANES);
        let lanes = self.lanes.as_slice();
        rows.quantize(mode, &mut self.staging, self.n, self.cols, |t| &lanes[t * stride..][..self.cols]);
    }

    /// Becomes the rows `rows` of `from`, in that order, in the forms that products in `modes` read.
    ///
    /// # Panics
    /// If `from` lacks one of the rows, or one of the forms.
    pub fn gather(&mut self, from: &ActivationBuffer, rows: &[u32], modes: &[ActMode]) {
        if modes.contains(&ActMode::F32) {
            self.fill(rows.len(), from.cols, |i, row| row.copy_from_slice(from.row(rows[i] as usize)));
        } else {
            (self.n, self.cols) = (rows.len(), from.cols);
            self.lanes.resize(0);
        }
        for (mode, to, from) in
            [(ActMode::A8Block, &mut self.block, &from.block), (ActMode::A8Token, &mut self.token, &from.token)]
        {
            to.valid = modes.contains(&mode);
            if to.valid {
                assert!(from.valid, "rows are quantised before they are gathered");
                to.gather(from, rows);
            }
        }
    }

    /// Rows of the present width that the buffer has memory for.
    #[must_use]
    pub fn capacity_rows(&self) -> usize {
        let codes = self.block.codes.capacity().max(self.token.codes.capacity());
        self.lanes.capacity().max(codes).checked_div(self.cols).unwrap_or(0)
    }

    /// Number of rows (tokens).
    #[must_use]
    pub fn n(&self) -> usize {
        self.n
    }

    /// Values per row.
    #[must_use]
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The activations of row `t`, `[cols]`.
    ///
    /// # Panics
    /// If there is no such row, or the buffer has only codes.
    #[must_use]
    pub fn row(&self, t: usize) -> &[f32] {
        &self.lanes(t).as_flattened()[..self.cols]
    }

    /// Row `t` in groups of 16, the last one padded with -0.0.
    pub(crate) fn lanes(&self, t: usize) -> &[[f32; LANES]] {
        let stride = self.cols.next_multiple_of(LANES);
        self.lanes.as_slice()[t * stride..(t + 1) * stride].as_chunks().0
    }

    /// The INT8 form for `mode`, if [`ActivationBuffer::quantize`] has made it.
    pub(crate) fn quantized(&self, mode: ActMode) -> Option<&QuantizedRows> {
        let rows = match mode {
            ActMode::F32 => return None,
            ActMode::A8Block => &self.block,
            ActMode::A8Token => &self.token,
        };
        rows.valid.then_some(rows)
    }
}

/// INT8 codes of all rows with a scale and a sum per block.
#[derive(Debug, Clone, Default)]
pub(crate) struct QuantizedRows {
    valid: bool,
    blocks: usize,
    codes: AlignedBuffer<i8>,
    scales: Vec<f32>,
    sums: Vec<i32>,
    /// Made when a lookup kernel first asks for them.
    tables: Tables,
}

impl QuantizedRows {
    /// Codes of row `t`, one array per block, in field order.
    pub(crate) fn codes(&self, t: usize) -> &[[i8; BLOCK]] {
        let stride = self.blocks * BLOCK;
        self.codes.as_slice()[t * stride..(t + 1) * stride].as_chunks().0
    }

    /// Scale of each block of row `t`.
    pub(crate) fn scales(&self, t: usize) -> &[f32] {
        &self.scales[t * self.blocks..(t + 1) * self.blocks]
    }

    /// Sum of the codes of each block of row `t`.
    pub(crate) fn sums(&self, t: usize) -> &[i32] {
        &self.sums[t * self.blocks..(t + 1) * self.blocks]
    }

    /// Blocks per row.
    pub(crate) fn blocks(&self) -> usize {
        self.blocks
    }

    /// Codes of all rows, one array per block, in field order.
    pub(crate) fn all_codes(&self) -> &[[i8; BLOCK]] {
        self.codes.as_slice().as_chunks().0
    }

    /// The lookup tables of all rows, made now unless an earlier product made them.
    pub(crate) fn table(&self, level: Level, grouping: Grouping) -> TableGuard<'_> {
        self.tables.of(level, grouping, self)
    }

    fn resize(&mut self, n: usize, blocks: usize) {
        self.blocks = blocks;
        self.tables.clear();
        self.codes.resize(n * blocks * BLOCK);
        self.scales.resize(n * blocks, 0.0);
        self.sums.resize(n * blocks, 0);
    }

    /// Makes the codes of `n` rows `[cols]`, the values of which `row` knows.
    fn quantize<'x>(
        &mut self,
        mode: ActMode,
        staging: &mut Vec<i8>,
        n: usize,
        cols: usize,
        row: impl Fn(usize) -> &'x [f32],
    ) {
        let level = crate::dense::current();
        let blocks = cols.div_ceil(BLOCK);
        self.resize(n, blocks);
        staging.resize(blocks * BLOCK, 0);
        for t in 0..n {
            let (codes, scales, sums) = self.row_mut(t);
            level.run(QuantizeRow { mode, x: row(t), staging, codes, scales, sums });
        }
        self.valid = true;
    }

    fn gather(&mut self, from: &QuantizedRows, rows: &[u32]) {
        self.resize(rows.len(), from.blocks);
        let stride = from.blocks * BLOCK;
        for (i, &row) in rows.iter().enumerate() {
            let (row, to) = (row as usize, i * from.blocks..(i + 1) * from.blocks);
            let codes = &mut self.codes.as_mut_slice()[i * stride..(i + 1) * stride];
            codes.copy_from_slice(from.codes(row).as_flattened());
            self.scales[to.clone()].copy_from_slice(from.scales(row));
            self.sums[to].copy_from_slice(from.sums(row));
        }
    }

    fn row_mut(&mut self, t: usize) -> (&mut [[i8; BLOCK]], &mut [f32], &mut [i32]) {
        let span = t * self.blocks..(t + 1) * self.blocks;
        let codes = &mut self.codes.as_mut_slice()[span.start * BLOCK..span.end * BLOCK];
        (codes.as_chunks_mut().0, &mut self.scales[span.clone()], &mut self.sums[span])
    }
}

/// Rounding of one row. The rules are those of `ternary_core`, which a kernel compiles for its level.
struct QuantizeRow<'a> {
    mode: ActMode,
    /// `[cols]`.
    x: &'a [f32],
    /// The codes in natural order, padded to whole blocks.
    staging: &'a mut [i8],
    codes: &'a mut [[i8; BLOCK]],
    scales: &'a mut [f32],
    sums: &'a mut [i32],
}

impl Kernel for QuantizeRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _s: S) {
        let QuantizeRow { mode, x, staging, codes, scales, sums } = self;
        staging[x.len()..].fill(0);
        if mode == ActMode::A8Token {
            let scale = quantize_a8(x, &mut staging[..x.len()]);
            scales.fill(scale);
        } else {
            for ((x, codes), scale) in x.chunks(BLOCK).zip(staging.chunks_mut(BLOCK)).zip(scales) {
                *scale = quantize_a8(x, &mut codes[..x.len()]);
            }
        }
        for ((natural, ordered), sum) in staging.as_chunks::<BLOCK>().0.iter().zip(codes).zip(sums) {
            *ordered = field_order(natural);
            *sum = natural.iter().map(|&q| i32::from(q)).sum();
        }
    }
}

/// The elements of a block in the order in which the 2-bit fields of a TQ2_0 block come out of 64 bytes.
#[inline(always)]
pub(crate) fn field_order<T: Copy>(natural: &[T; BLOCK]) -> [T; BLOCK] {
    let mut ordered = *natural;
    for n in 0..4 {
        for h in 0..2 {
            ordered[64 * n + 32 * h..][..32].copy_from_slice(&natural[128 * h + 32 * n..][..32]);
        }
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_padded_with_minus_zero() {
        let mut acts = ActivationBuffer::new();
        acts.set(&[1.0; 34], 2, 17);
        assert_eq!(acts.row(1), [1.0; 17]);
        let last = acts.lanes(1)[1];
        assert!(last[1..].iter().all(|v| v.to_bits() == (-0.0f32).to_bits()));
    }

    #[test]
    fn codes_scales_and_sums_follow_the_reference() {
        let cols = 512;
        let x: Vec<f32> = (0..2 * cols).map(|i| ((i * 37) % 101) as f32 - 50.0 + (i / cols) as f32).collect();
        let mut acts = ActivationBuffer::new();
        acts.set(&x, 2, cols);
        for mode in [ActMode::A8Block, ActMode::A8Token] {
            assert!(acts.quantized(mode).is_none());
            acts.quantize(mode);
            let rows = acts.quantized(mode).unwrap();
            for t in 0..2 {
                let x = &x[t * cols..(t + 1) * cols];
                let mut whole = vec![0i8; cols];
                let whole_scale = quantize_a8(x, &mut whole);
                for b in 0..2 {
                    let mut q = [0i8; BLOCK];
                    let mut scale = quantize_a8(&x[b * BLOCK..(b + 1) * BLOCK], &mut q);
                    if mode == ActMode::A8Token {
                        q.copy_from_slice(&whole[b * BLOCK..(b + 1) * BLOCK]);
                        scale = whole_scale;
                    }
                    assert_eq!(rows.codes(t)[b], field_order(&q));
                    assert_eq!(rows.scales(t)[b], scale);
                    assert_eq!(rows.sums(t)[b], q.iter().map(|&v| i32::from(v)).sum::<i32>());
                }
            }
        }
        acts.set(&x[..cols], 1, cols);
        assert!(acts.quantized(ActMode::A8Block).is_none(), "new rows forget old codes");
    }

    #[test]
    fn gathered_rows_bring_their_codes() {
        let x: Vec<f32> = (0..3 * 300).map(|i| (i % 77) as f32 - (i / 300) as f32).collect();
        let (mut all, mut some) = (ActivationBuffer::new(), ActivationBuffer::new());
        all.set(&x, 3, 300);
        all.quantize(ActMode::A8Block);
        some.gather(&all, &[2, 0], &[ActMode::F32, ActMode::A8Block]);
        assert_eq!((some.n(), some.row(0), some.row(1)), (2, &x[600..], &x[..300]));
        assert!(some.quantized(ActMode::A8Token).is_none(), "nobody reads them");
        let same_codes = |some: &ActivationBuffer| {
            let (from, to) = (all.quantized(ActMode::A8Block).unwrap(), some.quantized(ActMode::A8Block).unwrap());
            [(0, 2), (1, 0)].into_iter().all(|(i, row)| {
                (to.codes(i), to.scales(i), to.sums(i)) == (from.codes(row), from.scales(row), from.sums(row))
            })
        };
        assert!(same_codes(&some));
        some.gather(&all, &[2, 0], &[ActMode::A8Block]);
        assert!((some.n(), some.cols()) == (2, 300) && same_codes(&some));
        some.gather(&all, &[1], &[ActMode::F32]);
        assert_eq!((some.n(), some.row(0)), (1, &x[300..600]));
        assert!(some.quantized(ActMode::A8Block).is_none(), "nobody reads them");
    }

    #[test]
    fn codes_alone_are_those_of_a_copy() {
        let x: Vec<f32> = (0..2 * 300).map(|i| (i % 77) as f32 - (i / 300) as f32).collect();
        let (mut copy, mut alone) = (ActivationBuffer::new(), ActivationBuffer::new());
        copy.set(&x, 2, 300);
        alone.set(&[1.0; 9], 3, 3);
        for mode in [ActMode::A8Token, ActMode::A8Block] {
            copy.quantize(mode);
            alone.set_in(mode, &x, 2, 300);
            let (a, b) = (copy.quantized(mode).unwrap(), alone.quantized(mode).unwrap());
            for t in 0..2 {
                assert_eq!((a.codes(t), a.scales(t), a.sums(t)), (b.codes(t), b.scales(t), b.sums(t)));
            }
            let other = if mode == ActMode::A8Block { ActMode::A8Token } else { ActMode::A8Block };
            assert!((alone.n(), alone.cols()) == (2, 300) && alone.quantized(other).is_none());
        }
        alone.set_in(ActMode::F32, &x, 2, 300);
        assert_eq!(alone.row(1), &x[300..]);
        assert!(alone.quantized(ActMode::A8Block).is_none());
    }

    #[test]
    fn field_order_is_a_permutation() {
        let mut natural = [0u8; BLOCK];
        natural.iter_mut().enumerate().for_each(|(i, v)| *v = i as u8);
        let ordered = field_order(&natural);
        assert_eq!(ordered[64 + 32 + 5], 128 + 32 + 5);
        let mut seen = ordered;
        seen.sort_unstable();
        assert_eq!(seen, natural);
    }
}
