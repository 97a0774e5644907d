//! Rows as they are stored, and their conversion to f32.

use std::marker::PhantomData;

use crate::matmul::formats::DenseFormat;
use crate::simd::{LANES, Simd};

/// A matrix that can be written, row by row, into a panel.
pub(crate) trait PanelSource {
    /// Row `r` as f32, padded with zeros to whole groups.
    fn convert<S: Simd>(&self, s: S, r: usize, out: &mut [[f32; LANES]]);
}

/// Rows as they are stored.
#[derive(Clone, Copy)]
pub(crate) struct PackedRows<'a, F> {
    /// All rows, one after the other.
    pub(crate) bytes: &'a [u8],
    /// Number of bytes in a row.
    pub(crate) row_bytes: usize,
    /// The type of the weights.
    pub(crate) format: PhantomData<F>,
}

impl<F> PackedRows<'_, F> {
    #[inline(always)]
    pub(super) fn row(&self, r: usize) -> &[u8] {
        &self.bytes[r * self.row_bytes..(r + 1) * self.row_bytes]
    }
}

impl<F: DenseFormat> PanelSource for PackedRows<'_, F> {
    #[inline(always)]
    fn convert<S: Simd>(&self, s: S, r: usize, out: &mut [[f32; LANES]]) {
        let units = F::units(self.row(r));
        let (whole, rest) = out.split_at_mut(units.len() * F::GROUPS);
        let mut prepared = [F::blank(s)];
        for (unit, out) in units.iter().zip(whole.chunks_exact_mut(F::GROUPS)) {
            F::prepare(s, [unit], &mut prepared);
            for (g, out) in out.iter_mut().enumerate() {
                s.store(F::group(s, &prepared[0], g), out);
            }
        }
        if let [rest] = rest {
            *rest = F::tail(self.row(r));
        }
    }
}
