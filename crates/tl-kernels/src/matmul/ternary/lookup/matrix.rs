//! A ternary matrix laid out for look-ups, and its product: 64 rows side by side, block after block.
//!
//! ```text
//! [group of 64 rows][block]   byte vectors (tl1.rs, tl2.rs), then 64 f16 scales      one stream, 64-byte aligned
//!
//! 4224 bytes per 64 blocks with TL1 (2.0625 bits per weight), 3584 with TL2 (1.75)
//! ```
//!
//! Rows are padded to whole groups with weights 0 and scale 0. The matrix is made at run time from any packing and any
//! shape; making it reads, and thereby validates, every block.
//!
//! **Invariant:** `acc = fma(d_b * a_b, int_b as f32, acc)` over ascending blocks, `int_b` exact: the bits of
//! `ternary_core::oracle`.

use std::marker::PhantomData;
use std::sync::Arc;

use ternary_core::{Scales, TernaryTensor, f16};

use super::format::LookupFormat;
use super::tl1::Tl1;
use super::tl2::Tl2;
use crate::activations::{Grouping, LookupTable, QuantizedRows};
use crate::error::Result;
use crate::memory::AlignedBuffer;
use crate::pool::ColumnBlock;
use crate::simd::{GROUP_ROWS, Kernel, LANES, Simd, field_order};

/// Bytes of the scales of 64 blocks.
const SCALE_BYTES: usize = GROUP_ROWS * size_of::<f16>();

/// Tokens that share one reading of the weights.
const TOKENS: usize = 8;

/// The rows of a matrix in a lookup layout. Clones and slices share the data.
#[derive(Debug, Clone)]
pub(crate) struct LookupMatrix {
    grouping: Grouping,
    /// Row 0 of this view, in `data`.
    first_row: usize,
    blocks: usize,
    data: Arc<AlignedBuffer<u8>>,
}

/// Bytes of a block of 64 rows.
const fn block_bytes(grouping: Grouping) -> usize {
    let vectors = match grouping {
        Grouping::Pairs => Tl1::VECTORS,
        Grouping::Triples => Tl2::VECTORS,
    };
    vectors * GROUP_ROWS + SCALE_BYTES
}

impl LookupMatrix {
    /// Lays `tensor` out anew.
    ///
    /// # Errors
    /// The first damaged block.
    pub(crate) fn new(tensor: &TernaryTensor, grouping: Grouping) -> Result<LookupMatrix> {
        let (blocks, block_bytes) = (tensor.blocks_per_row(), block_bytes(grouping));
        let mut data = AlignedBuffer::default();
        data.resize(tensor.rows().div_ceil(GROUP_ROWS) * blocks * block_bytes);
        let mut groups = vec![(0, false); grouping.groups()];
        for (i, out) in data.as_mut_slice().chunks_exact_mut(block_bytes).enumerate() {
            let (first, b) = (i / blocks * GROUP_ROWS, i % blocks);
            for r in 0..GROUP_ROWS {
                let (trits, scale) = if first + r < tensor.rows() {
                    let block = tensor.block(first + r, b)?;
                    // A tensor's one scale need not be an f16; the product takes it from the tensor.
                    let stored = if tensor.scales() == Scales::PerBlock { block.scale } else { 1.0 };
                    (field_order(&block.trits), f16::from_f32(stored))
                } else {
                    ([0; 256], f16::ZERO)
                };
                for (g, group) in groups.iter_mut().enumerate() {
                    *group = grouping.index(grouping.columns(g, &trits, 0));
                }
                let write = |v: usize, byte| out[v * GROUP_ROWS + r] = byte;
                match grouping {
                    Grouping::Pairs => Tl1::encode(&groups, write),
                    Grouping::Triples => Tl2::encode(&groups, write),
                }
                let at = block_bytes - SCALE_BYTES + 2 * r;
                out[at..at + 2].copy_from_slice(&scale.to_le_bytes());
            }
        }
        Ok(LookupMatrix { grouping, first_row: 0, blocks, data: Arc::new(data) })
    }

    /// How the columns of the matrix are grouped.
    pub(crate) fn grouping(&self) -> Grouping {
        self.grouping
    }

    /// The rows from `start` on.
    pub(crate) fn view_from_row(&self, start: usize) -> LookupMatrix {
        LookupMatrix { first_row: self.first_row + start, ..self.clone() }
    }

    /// Bytes of the layout, those of other views of it included.
    pub(crate) fn layout_bytes(&self) -> usize {
        self.data.as_slice().len()
    }

    /// Block `b` of a group of rows: its byte vectors, then its scales.
    #[inline(always)]
    fn block(&self, group: usize, b: usize) -> (&[[u8; GROUP_ROWS]], &[[u8; 2 * LANES]]) {
        let bytes = block_bytes(self.grouping);
        let block = &self.data.as_slice()[(group * self.blocks + b) * bytes..][..bytes];
        let (codes, scales) = block.split_at(bytes - SCALE_BYTES);
        (codes.as_chunks().0, scales.as_chunks().0)
    }
}

/// The product of some rows of a matrix in a lookup layout with all tokens.
pub(crate) struct LookupProduct<'a, 'b, F> {
    /// The matrix; its format is `F`.
    pub(crate) matrix: &'a LookupMatrix,
    /// The format as a type.
    pub(crate) format: PhantomData<F>,
    /// The place of its scales: in the blocks, or one for the tensor.
    pub(crate) scales: Scales,
    /// The tokens of the product.
    pub(crate) acts: &'a QuantizedRows,
    /// The tables of the tokens.
    pub(crate) table: &'a LookupTable,
    /// The rows to compute, as columns of `y`.
    pub(crate) out: ColumnBlock<'b, f32>,
}

impl<F: LookupFormat> Kernel for LookupProduct<'_, '_, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let columns = self.out.columns();
        let first = self.matrix.first_row + columns.start;
        let end = self.matrix.first_row + columns.end;
        let mut acc = [[[0.0; LANES]; GROUP_ROWS / LANES]; TOKENS];
        for group in first / GROUP_ROWS..end.div_ceil(GROUP_ROWS) {
            let group_start = group * GROUP_ROWS;
            let rows = first.max(group_start)..end.min(group_start + GROUP_ROWS);
            for t in (0..self.out.n_rows()).step_by(TOKENS) {
                let n = TOKENS.min(self.out.n_rows() - t);
                self.group_product(s, group, t, &mut acc[..n]);
                for (i, acc) in acc[..n].iter().enumerate() {
                    let sums = &acc.as_flattened()[rows.start - group_start..rows.end - group_start];
                    self.out.row_mut(t + i)[rows.start - first..rows.end - first].copy_from_slice(sums);
                }
            }
        }
    }
}

impl<F: LookupFormat> LookupProduct<'_, '_, F> {
    /// All 64 rows of a group, for the tokens from `t` on.
    #[inline(always)]
    fn group_product<S: Simd>(&self, s: S, group: usize, t: usize, acc: &mut [[[f32; LANES]; GROUP_ROWS / LANES]]) {
        acc.fill([[0.0; LANES]; GROUP_ROWS / LANES]);
        for b in 0..self.matrix.blocks {
            let (vectors, scales) = self.matrix.block(group, b);
            for (i, acc) in acc.iter_mut().enumerate() {
                let sums = F::sums(s, vectors, self.table.block(t + i, b));
                let a_scale = s.splat(self.acts.scales(t + i)[b]);
                for ((acc, scales), sums) in acc.iter_mut().zip(scales).zip(sums.as_chunks::<LANES>().0) {
                    let w_scales = match self.scales {
                        Scales::PerBlock => s.load_f16(scales),
                        Scales::PerTensor(scale) => s.splat(scale),
                    };
                    let ints = s.load(&sums.map(f32::from));
                    s.store(s.fma(s.mul(w_scales, a_scale), ints, s.load(acc)), acc);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ActivationBuffer, Isa, Pool};
    use ternary_core::{ActMode, Bytes, Packing, oracle};

    /// Rows that together use every entry of every group: row r has the pattern (r + g) of group g.
    fn covering_tensor(grouping: Grouping) -> TernaryTensor {
        let patterns = if grouping == Grouping::Pairs { 9 } else { 27 };
        let mut bytes = Vec::new();
        for r in 0..patterns {
            // In the order of the activation codes first, as the groups are defined there.
            let mut ordered = [0i8; 256];
            let mut place = [0usize; 256];
            place.iter_mut().enumerate().for_each(|(i, p)| *p = i);
            for g in 0..grouping.groups() {
                let code = (r + g) % patterns;
                let trits = [code / 9, code / 3 % 3, code % 3].map(|c| c as i8 - 1);
                let used = if grouping == Grouping::Pairs { [trits[1], trits[2], 0] } else { trits };
                for (p, trit) in grouping.columns(g, &place, 256).into_iter().zip(used) {
                    if p < 256 {
                        ordered[p] = trit;
                    }
                }
            }
            let natural_place = field_order(&place);
            let mut natural = [0i8; 256];
            (0..256).for_each(|i| natural[natural_place[i]] = ordered[i]);
            let mut block = vec![0; Packing::Tq2_0.block_bytes()];
            Packing::Tq2_0.encode(&natural, f16::from_f32(0.5), &mut block);
            bytes.extend(block);
        }
        TernaryTensor::new(Packing::Tq2_0, patterns, 256, Bytes::from(bytes), Scales::PerBlock).unwrap()
    }

    /// The product with a given table.
    fn product(matrix: &LookupMatrix, rows: usize, acts: &QuantizedRows, table: &LookupTable) -> Vec<f32> {
        let mut y = vec![0.0; rows];
        let level = Isa::current().level().unwrap();
        Pool::serial().column_blocks(&mut y, rows, rows, |out| match matrix.grouping() {
            Grouping::Pairs => {
                level.run(LookupProduct {
                    matrix,
                    format: PhantomData::<Tl1>,
                    scales: Scales::PerBlock,
                    acts,
                    table,
                    out,
                });
            }
            Grouping::Triples => {
                level.run(LookupProduct {
                    matrix,
                    format: PhantomData::<Tl2>,
                    scales: Scales::PerBlock,
                    acts,
                    table,
                    out,
                });
            }
        });
        y
    }

    /// Each used entry reaches a result: change any one and the product leaves the oracle.
    #[test]
    fn corrupted_tables_are_told_from_the_oracle() {
        let x: Vec<f32> = (0..256).map(|i| ((i * 67) % 255) as f32 - 127.0).collect();
        let mut acts = ActivationBuffer::new();
        acts.set(&x, 1, 256);
        acts.quantize(ActMode::A8Block);
        let rows = acts.quantized(ActMode::A8Block).unwrap();
        for (grouping, used) in [(Grouping::Pairs, 9), (Grouping::Triples, 14)] {
            let tensor = covering_tensor(grouping);
            let matrix = LookupMatrix::new(&tensor, grouping).unwrap();
            let mut expected = vec![0.0; tensor.rows()];
            oracle::gemv(&tensor, &x, ActMode::A8Block, &mut expected).unwrap();
            let mut table = LookupTable::default();
            table.build(Isa::current().level().unwrap(), grouping, rows);
            assert_eq!(product(&matrix, tensor.rows(), rows, &table), expected);
            let mut random = 7u64;
            for _ in 0..100 {
                random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
                let pick = (random >> 33) as usize;
                let group = pick % grouping.groups();
                // Pairs at the end of a block of triples use the entries 0..=4 only.
                let used = if grouping == Grouping::Triples && group >= 84 { 5 } else { used };
                let (entry, half) = (pick / 128 % used, pick % 2);
                table.entry_mut(group, half, entry, |value| *value ^= 1 << ((random >> 29) % 3));
                assert_ne!(product(&matrix, tensor.rows(), rows, &table), expected, "{grouping:?} {group} {entry}");
                table.build(Isa::current().level().unwrap(), grouping, rows);
            }
        }
    }

    #[test]
    fn a_group_takes_the_bytes_that_the_header_says() {
        assert_eq!(block_bytes(Grouping::Pairs), 4224);
        assert_eq!(block_bytes(Grouping::Triples), 3584);
    }
}
