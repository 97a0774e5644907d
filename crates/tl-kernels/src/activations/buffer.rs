//! The buffer of activations that all products read.

use ternary_core::ActMode;

use super::lookup_table::{Grouping, LookupTables, TableGuard};
use super::quantized::QuantizedRows;
use crate::arch::Level;
use crate::memory::AlignedBuffer;
use crate::simd::LANES;

/// `n` rows of `cols` activations and, on request, their INT8 form. Reused from product to product.
#[derive(Debug, Clone, Default)]
pub struct ActivationBuffer {
    n: usize,
    cols: usize,
    lanes: AlignedBuffer<f32>,
    block: Form,
    token: Form,
    /// One row of codes in natural order, before they are put in field order.
    staging: Vec<i8>,
}

impl ActivationBuffer {
    /// A buffer without rows.
    #[must_use]
    pub fn new() -> ActivationBuffer {
        ActivationBuffer::default()
    }

    /// Takes `x` `[n, cols]` in the form that products in `mode` read: INT8 codes or, for [`ActMode::F32`], a copy. Earlier
    /// rows and codes are forgotten.
    ///
    /// # Panics
    /// If `x` does not hold `n * cols` values.
    pub fn set_in(&mut self, mode: ActMode, x: &[f32], n: usize, cols: usize) {
        let (form, other) = match mode {
            ActMode::F32 => return self.set(x, n, cols),
            ActMode::A8Block => (&mut self.block, &mut self.token),
            ActMode::A8Token => (&mut self.token, &mut self.block),
        };
        assert_eq!(x.len(), n * cols, "activations must be [n, cols]");
        form.renew().quantize(mode, &mut self.staging, n, cols, |t| &x[t * cols..(t + 1) * cols]);
        other.valid = false;
        (self.n, self.cols) = (n, cols);
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
        let form = match mode {
            ActMode::F32 => return,
            ActMode::A8Block => &mut self.block,
            ActMode::A8Token => &mut self.token,
        };
        if form.valid {
            return;
        }
        let stride = self.cols.next_multiple_of(LANES);
        let lanes = self.lanes.as_slice();
        form.renew().quantize(mode, &mut self.staging, self.n, self.cols, |t| &lanes[t * stride..][..self.cols]);
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
            if modes.contains(&mode) {
                assert!(from.valid, "rows are quantised before they are gathered");
                to.renew().gather(&from.rows, rows);
            } else {
                to.valid = false;
            }
        }
    }

    /// Rows of the present width that the buffer has memory for.
    #[must_use]
    pub fn capacity_rows(&self) -> usize {
        let codes = self.block.rows.capacity().max(self.token.rows.capacity());
        self.lanes.capacity().max(codes).checked_div(self.cols).unwrap_or(0)
    }

    /// Number of rows (tokens).
    #[must_use]
    pub fn n(&self) -> usize {
        self.n
    }

    /// Number of values in a row.
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
        self.form(mode).map(|form| &form.rows)
    }

    /// The lookup tables of the INT8 form for `mode`, made now unless an earlier product made them.
    pub(crate) fn lookup_table(&self, mode: ActMode, level: Level, grouping: Grouping) -> Option<TableGuard<'_>> {
        self.form(mode).map(|form| form.tables.of(level, grouping, &form.rows))
    }

    fn form(&self, mode: ActMode) -> Option<&Form> {
        let form = match mode {
            ActMode::F32 => return None,
            ActMode::A8Block => &self.block,
            ActMode::A8Token => &self.token,
        };
        form.valid.then_some(form)
    }
}

/// The rows quantised in one mode, and the tables that products made of them.
#[derive(Debug, Clone, Default)]
struct Form {
    /// Whether the codes are those of the buffer's present rows.
    valid: bool,
    rows: QuantizedRows,
    /// The tables, made when a lookup kernel first asks for them.
    tables: LookupTables,
}

impl Form {
    /// Declares the form valid and its tables outdated, and returns the rows for the caller to fill.
    fn renew(&mut self) -> &mut QuantizedRows {
        self.valid = true;
        self.tables.clear();
        &mut self.rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::field_order;
    use ternary_core::{BLOCK, quantize_a8};

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
        assert!(some.quantized(ActMode::A8Token).is_none(), "no product asked for these codes");
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
        assert!(some.quantized(ActMode::A8Block).is_none(), "no product asked for these codes");
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
}
