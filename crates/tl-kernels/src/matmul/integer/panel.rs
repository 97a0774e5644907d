//! Sixteen rows as a panel of integers, and the tokens that are multiplied with it.

use std::cell::RefCell;

use half::f16;
use ternary_core::BLOCK;

use crate::activations::QuantizedRows;
use crate::matmul::formats::{IntegerFormat, Q8_0};
use crate::simd::{LANES, Simd};

/// Calls `f` with this thread's panel, which is allocated once.
pub(crate) fn with_panel<R>(f: impl FnOnce(&mut Panel) -> R) -> R {
    thread_local! {
        static PANEL: RefCell<Panel> = RefCell::default();
    }
    PANEL.with_borrow_mut(f)
}

/// Sixteen rows by quads of columns and the tokens that are multiplied with them, columns in natural order.
#[derive(Default)]
pub(crate) struct Panel {
    /// `[cols / 4]`, each with a quad of every row.
    pub(super) quads: Vec<[[i8; 4]; LANES]>,
    /// The scale of each block `[cols / block]`.
    pub(super) scales: Vec<[f32; LANES]>,
    /// The scale of each group `[cols / group]`.
    pub(super) group_scales: Vec<[i32; LANES]>,
    /// The codes of the tokens `[strips, cols / 4, V]`.
    pub(super) token_quads: Vec<[i8; 4]>,
    /// The sums of their groups `[strips, cols / group, V]`.
    pub(super) token_sums: Vec<i32>,
    /// The scales of the codes that a block meets `[strips, cols / block, V]`.
    pub(super) token_scales: Vec<f32>,
}

impl Panel {
    /// Takes `n` tokens for rows of `n_blocks` blocks, in strips of `V`.
    #[inline(always)]
    pub(super) fn take_tokens<F: IntegerFormat, const V: usize>(
        &mut self,
        acts: &QuantizedRows,
        n: usize,
        n_blocks: usize,
    ) {
        let width = n_blocks * F::BLOCK_LEN;
        let padded = n.next_multiple_of(V);
        self.token_quads.resize(padded * width / 4, [0; 4]);
        self.token_sums.resize(padded * width / F::GROUP, 0);
        self.token_scales.resize(padded * n_blocks, 0.0);
        let strips = self.token_quads.chunks_exact_mut(V * width / 4).zip(
            self.token_sums
                .chunks_exact_mut(V * width / F::GROUP)
                .zip(self.token_scales.chunks_exact_mut(V * n_blocks)),
        );
        for (i, (quads, (sums, scales))) in strips.enumerate() {
            for j in 0..V {
                if i * V + j >= n {
                    quads.iter_mut().skip(j).step_by(V).for_each(|quad| *quad = [0; 4]);
                    continue;
                }
                let (codes, a_scales) = (acts.codes(i * V + j), acts.scales(i * V + j));
                for (k, run) in quads.chunks_exact_mut(8 * V).enumerate() {
                    let natural = Q8_0::acts(codes, k).as_chunks::<4>().0;
                    run[j..].iter_mut().step_by(V).zip(natural).for_each(|(quad, natural)| *quad = *natural);
                }
                for (g, sum) in sums[j..].iter_mut().step_by(V).enumerate() {
                    let run = Q8_0::acts(codes, g * F::GROUP / 32);
                    *sum = run[g * F::GROUP % 32..][..F::GROUP].iter().map(|&q| i32::from(q)).sum();
                }
                for (b, scale) in scales[j..].iter_mut().step_by(V).enumerate() {
                    *scale = a_scales[b * F::BLOCK_LEN / BLOCK];
                }
            }
        }
    }

    /// Takes at most sixteen rows of `row_bytes`; those behind the last one are zeros.
    #[inline(always)]
    pub(super) fn take_rows<S: Simd, F: IntegerFormat>(&mut self, s: S, rows: &[u8], row_bytes: usize) {
        let blocks = row_bytes / F::BLOCK_BYTES;
        let (block_quads, block_groups) = (F::BLOCK_LEN / 4, F::BLOCK_LEN / F::GROUP);
        self.quads.resize(blocks * block_quads, [[0; 4]; LANES]);
        self.scales.resize(blocks, [0.0; LANES]);
        self.group_scales.resize(blocks * block_groups, [0; LANES]);
        if rows.len() < LANES * row_bytes {
            self.quads.fill([[0; 4]; LANES]);
            self.scales.fill([0.0; LANES]);
        }
        let (mut codes, mut scales) = ([[0; LANES]; BLOCK / LANES], [0; BLOCK / LANES]);
        for (r, row) in rows.chunks_exact(row_bytes).enumerate() {
            for (b, block) in F::blocks(row).iter().enumerate() {
                let codes = &mut codes[..F::BLOCK_LEN / LANES];
                F::unpack(s, block, codes, &mut scales[..block_groups]);
                self.scales[b][r] = f16::from_bits(F::scale_bits(block)).to_f32();
                let quads = codes.as_flattened().as_chunks::<4>().0;
                for (panel, quad) in self.quads[b * block_quads..][..block_quads].iter_mut().zip(quads) {
                    panel[r] = *quad;
                }
                for (panel, scale) in self.group_scales[b * block_groups..][..block_groups].iter_mut().zip(scales) {
                    panel[r] = scale;
                }
            }
        }
    }
}
