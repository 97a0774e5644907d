//! The input of a matrix product: `n` rows of `cols` activations, quantised once for all readers.
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
        let level = crate::dense::current();
        let blocks = self.cols.div_ceil(BLOCK);
        rows.resize(self.n, blocks);
        self.staging.resize(blocks * BLOCK, 0);
        let stride = self.cols.next_multiple_of(LANES);
        for t in 0..self.n {
            let x = &self.lanes.as_slice()[t * stride..][..self.cols];
            let (codes, scales, sums) = rows.row_mut(t);
            level.run(QuantizeRow { mode, x, staging: &mut self.staging, codes, scales, sums });
        }
        rows.valid = true;
    }

    /// Becomes the rows `rows` of `from`, in that order, with the codes that `from` has.
    ///
    /// # Panics
    /// If `from` lacks one of the rows.
    pub fn gather(&mut self, from: &ActivationBuffer, rows: &[u32]) {
        self.fill(rows.len(), from.cols, |i, row| row.copy_from_slice(from.row(rows[i] as usize)));
        for (to, from) in [(&mut self.block, &from.block), (&mut self.token, &from.token)] {
            if from.valid {
                to.gather(from, rows);
            }
        }
    }

    /// Rows of the present width that the buffer has memory for.
    #[must_use]
    pub fn capacity_rows(&self) -> usize {
        self.lanes.capacity().checked_div(self.cols).unwrap_or(0)
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
    /// If there is no such row.
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
        self.valid = true;
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
        some.gather(&all, &[2, 0]);
        assert_eq!((some.n(), some.row(0), some.row(1)), (2, &x[600..], &x[..300]));
        assert!(some.quantized(ActMode::A8Token).is_none(), "there were none to bring");
        let (from, to) = (all.quantized(ActMode::A8Block).unwrap(), some.quantized(ActMode::A8Block).unwrap());
        for (i, row) in [(0, 2), (1, 0)] {
            assert_eq!((to.codes(i), to.scales(i), to.sums(i)), (from.codes(row), from.scales(row), from.sums(row)));
        }
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
