//! Sixteen rows as a panel of integers, and the tokens that are multiplied with it.

use std::cell::RefCell;

use half::f16;
use ternary_core::BLOCK;

use crate::activations::QuantizedRows;
use crate::matmul::formats::{IntegerFormat, Q8_0, RUN};
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
    /// The tokens that the panel has: the version of their rows, and their number, columns, columns of a block and of a group, V.
    tokens: (u64, [usize; 5]),
    /// The codes of the tokens `[strips, cols / 4, V]`.
    pub(super) token_quads: Vec<[i8; 4]>,
    /// The sums of their groups `[strips, cols / group, V]`.
    pub(super) token_sums: Vec<i32>,
    /// The scales of the codes that a block meets `[strips, cols / block, V]`.
    pub(super) token_scales: Vec<f32>,
}

impl Panel {
    /// Takes `n` tokens for rows of `n_blocks` blocks, in strips of `V`, unless it has them: the pieces of a product, and products
    /// with one input, follow each other on a thread.
    #[inline(always)]
    pub(super) fn take_tokens<F: IntegerFormat, const V: usize>(
        &mut self,
        acts: &QuantizedRows,
        n: usize,
        n_blocks: usize,
    ) {
        let width = n_blocks * F::BLOCK_LEN;
        let tokens = (acts.version(), [n, width, F::BLOCK_LEN, F::GROUP, V]);
        if tokens == self.tokens {
            return;
        }
        self.tokens = Default::default();
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
        self.tokens = tokens;
    }

    /// Takes at most sixteen rows of `row_bytes`; the last one stands for those behind it.
    #[inline(always)]
    pub(super) fn take_rows<S: Simd, F: IntegerFormat>(&mut self, s: S, rows: &[u8], row_bytes: usize) {
        let (blocks, last) = (row_bytes / F::BLOCK_BYTES, rows.len() / row_bytes - 1);
        let (block_quads, block_groups) = (F::BLOCK_LEN / 4, F::BLOCK_LEN / F::GROUP);
        self.quads.resize(blocks * block_quads, [[0; 4]; LANES]);
        self.scales.resize(blocks, [0.0; LANES]);
        self.group_scales.resize(blocks * block_groups, [0; LANES]);
        let mut of_row: [&[F::Block]; LANES] = [&[]; LANES];
        for (r, of_row) in of_row.iter_mut().enumerate() {
            *of_row = &F::blocks(&rows[r.min(last) * row_bytes..][..row_bytes])[..blocks];
        }
        let mut runs = [[[0; RUN]; LANES]; BLOCK / RUN];
        let runs = &mut runs[..F::BLOCK_LEN / RUN];
        let places = self.quads.chunks_exact_mut(block_quads).zip(self.group_scales.chunks_exact_mut(block_groups));
        for (b, (scales, (quads, group_scales))) in self.scales.iter_mut().zip(places).enumerate() {
            // The next sixteen rows lie behind these.
            let step = LANES * F::BLOCK_BYTES;
            s.prefetch_bytes(&rows[0], rows.len() + b * step, step);
            let mut bits = [f16::ZERO; LANES];
            for r in 0..LANES {
                F::unpack(s, &of_row[r][b], r, runs);
                bits[r] = f16::from_bits(F::scale_bits(&of_row[r][b]));
            }
            s.store(s.load_half(&bits), scales);
            for (run, quads) in runs.iter().zip(quads.as_chunks_mut().0) {
                s.transpose_quads(run, quads);
            }
            take_group_scales::<S, F>(s, of_row, b, group_scales);
        }
    }
}

/// Takes the scales of the groups of block `b` of each row.
#[inline(always)]
fn take_group_scales<S: Simd, F: IntegerFormat>(s: S, rows: [&[F::Block]; LANES], b: usize, out: &mut [[i32; LANES]]) {
    let (mut bytes, mut quads) = ([[0; RUN]; LANES], [[[0; 4]; LANES]; RUN / 4]);
    for r in 0..LANES {
        let Some(scales) = F::group_scales(&rows[r][b]) else { return out.fill([1; LANES]) };
        bytes[r] = bytemuck::cast(*scales);
    }
    s.transpose_quads(&bytes, &mut quads);
    for (four, quads) in out.as_chunks_mut::<4>().0.iter_mut().zip(&quads[RUN / 8..]) {
        for (k, scales) in four.iter_mut().enumerate() {
            for r in 0..LANES {
                scales[r] = i32::from(quads[r][k]);
            }
        }
    }
}
