//! The INT8 form of activations.

use std::sync::atomic::{AtomicU64, Ordering};

use ternary_core::{ActMode, BLOCK, quantize_a8};

use crate::arch::Level;
use crate::memory::AlignedBuffer;
use crate::simd::{Kernel, Simd, field_order};

/// INT8 codes of all rows with a scale and a sum per block.
///
/// **Invariant:** rows with the same version have the same codes, scales and sums.
#[derive(Debug, Clone, Default)]
pub(crate) struct QuantizedRows {
    /// 0 for rows that hold nothing; a number that no other rows of the process had each time that they change.
    version: u64,
    blocks: usize,
    codes: AlignedBuffer<i8>,
    scales: Vec<f32>,
    sums: Vec<i32>,
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

    /// The number of this state of the rows.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// Codes that the rows have memory for.
    pub(super) fn capacity(&self) -> usize {
        self.codes.capacity()
    }

    /// Number of blocks in a row.
    pub(crate) fn blocks(&self) -> usize {
        self.blocks
    }

    /// Codes of all rows, one array per block, in field order.
    pub(crate) fn all_codes(&self) -> &[[i8; BLOCK]] {
        self.codes.as_slice().as_chunks().0
    }

    /// Makes room for other rows, which the caller writes before anything reads them.
    fn resize(&mut self, n: usize, blocks: usize) {
        static VERSIONS: AtomicU64 = AtomicU64::new(1);
        self.version = VERSIONS.fetch_add(1, Ordering::Relaxed);
        self.blocks = blocks;
        self.codes.resize(n * blocks * BLOCK);
        self.scales.resize(n * blocks, 0.0);
        self.sums.resize(n * blocks, 0);
    }

    /// Makes the codes of `n` rows `[cols]`; `row(t)` gives the values of row t.
    pub(super) fn quantize<'x>(
        &mut self,
        mode: ActMode,
        staging: &mut Vec<i8>,
        n: usize,
        cols: usize,
        row: impl Fn(usize) -> &'x [f32],
    ) {
        let level = Level::current();
        let blocks = cols.div_ceil(BLOCK);
        self.resize(n, blocks);
        staging.resize(blocks * BLOCK, 0);
        for t in 0..n {
            let (codes, scales, sums) = self.row_mut(t);
            level.run(QuantizeRow { mode, x: row(t), staging, codes, scales, sums });
        }
    }

    pub(super) fn gather(&mut self, from: &QuantizedRows, rows: &[u32]) {
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
    /// The activations of the row, `[cols]`.
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
