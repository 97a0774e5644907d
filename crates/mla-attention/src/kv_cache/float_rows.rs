//! A growing table of cached rows, `[len, width]`, as F32 or F16.
//!
//! **Invariant**: the memory for `capacity` rows is reserved at construction and never moves;
//! an append only writes behind the last row. (Reserved memory costs no RAM until it is written.)

use half::f16;
#[cfg(test)]
use half::slice::HalfFloatSliceExt;

use super::cache_type::CacheType;
use super::error::CacheError;

/// The number type of the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FloatType {
    F32,
    F16,
}

impl FloatType {
    /// Bytes of one value.
    pub(super) fn value_bytes(self) -> usize {
        match self {
            FloatType::F32 => 4,
            FloatType::F16 => 2,
        }
    }
}

/// All rows held, as the attention loop reads them.
#[derive(Clone, Copy)]
pub(crate) enum FloatSlice<'a> {
    F32(&'a [f32]),
    F16(&'a [f16]),
}

#[derive(Debug)]
enum Store {
    F32(Vec<f32>),
    F16(Vec<f16>),
}

/// `[len, width]` with room for `capacity` rows.
#[derive(Debug)]
pub(crate) struct FloatRows {
    width: usize,
    capacity: usize,
    store: Store,
}

impl FloatRows {
    /// Reserves `capacity` rows of `width` values.
    pub(super) fn new(capacity: usize, width: usize, ty: FloatType) -> Result<FloatRows, CacheError> {
        let refused = || CacheError::Memory {
            n_ctx: capacity,
            bytes: (capacity as u128).saturating_mul(width as u128).saturating_mul(ty.value_bytes() as u128),
        };
        let values = capacity.checked_mul(width).ok_or_else(refused)?;
        let store = match ty {
            FloatType::F32 => Store::F32(reserved(values).ok_or_else(refused)?),
            FloatType::F16 => Store::F16(reserved(values).ok_or_else(refused)?),
        };
        Ok(FloatRows { width, capacity, store })
    }

    /// A copy of the rows held now, with the same capacity.
    pub(super) fn fork(&self) -> Result<FloatRows, CacheError> {
        let mut copy = FloatRows::new(self.capacity, self.width, self.ty())?;
        match (&self.store, &mut copy.store) {
            (Store::F32(from), Store::F32(to)) => to.extend_from_slice(from),
            (Store::F16(from), Store::F16(to)) => to.extend_from_slice(from),
            _ => unreachable!("the copy was made with the same type"),
        }
        Ok(copy)
    }

    pub(super) fn width(&self) -> usize {
        self.width
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    pub(super) fn ty(&self) -> FloatType {
        match self.store {
            Store::F32(_) => FloatType::F32,
            Store::F16(_) => FloatType::F16,
        }
    }

    /// How many rows are held.
    pub(super) fn len(&self) -> usize {
        let values = match &self.store {
            Store::F32(values) => values.len(),
            Store::F16(values) => values.len(),
        };
        values / self.width
    }

    /// All rows held, `[len, width]`.
    pub(crate) fn rows(&self) -> FloatSlice<'_> {
        match &self.store {
            Store::F32(values) => FloatSlice::F32(values),
            Store::F16(values) => FloatSlice::F16(values),
        }
    }

    /// Refuses `n` more rows that do not fit.
    pub(super) fn check_room(&self, n: usize) -> Result<(), CacheError> {
        check_room(self.len(), n, self.capacity)
    }

    /// Appends `[n, width]` values, rounded to their type. Room must have been checked.
    pub(super) fn append(&mut self, values: &[f32]) {
        debug_assert!(values.len().is_multiple_of(self.width));
        debug_assert!(self.len() + values.len() / self.width <= self.capacity);
        match &mut self.store {
            Store::F32(rows) => rows.extend_from_slice(values),
            Store::F16(rows) => rows.extend(values.iter().map(|&v| saturating_f16(v))),
        }
    }

    /// Drops every row from `len` on.
    pub(super) fn truncate(&mut self, len: usize) {
        let values = len.saturating_mul(self.width);
        match &mut self.store {
            Store::F32(rows) => rows.truncate(values),
            Store::F16(rows) => rows.truncate(values),
        }
    }

    /// Decodes row `position` into `out` `[width]`.
    #[cfg(test)]
    pub(super) fn read(&self, position: usize, out: &mut [f32]) {
        let values = position * self.width..(position + 1) * self.width;
        match &self.store {
            Store::F32(rows) => out.copy_from_slice(&rows[values]),
            Store::F16(rows) => rows[values].convert_to_f32_slice(out),
        }
    }
}

/// Refuses `n` more rows than `len` that exceed `capacity`.
pub(super) fn check_room(len: usize, n: usize, capacity: usize) -> Result<(), CacheError> {
    let need = len.saturating_add(n);
    if need > capacity {
        return Err(CacheError::Full { have: capacity, need });
    }
    Ok(())
}

/// Rounds to the nearest F16; a finite value beyond its range becomes the largest F16, so that
/// one outlier costs precision instead of turning later scores into infinities.
pub(super) fn saturating_f16(value: f32) -> f16 {
    if value.is_finite() { f16::from_f32(value.clamp(-65504.0, 65504.0)) } else { f16::from_f32(value) }
}

/// Room for `values` elements.
pub(super) fn reserved<T>(values: usize) -> Option<Vec<T>> {
    let mut vec = Vec::new();
    vec.try_reserve_exact(values).ok()?;
    Some(vec)
}

impl From<FloatType> for CacheType {
    fn from(ty: FloatType) -> CacheType {
        match ty {
            FloatType::F32 => CacheType::F32,
            FloatType::F16 => CacheType::F16,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f16_rows_saturate_finite_values_and_keep_the_others() {
        let mut table = FloatRows::new(1, 5, FloatType::F16).expect("a small table");
        table.append(&[1e9, -1e9, f32::INFINITY, f32::NAN, 0.1]);
        let mut row = [0.0; 5];
        table.read(0, &mut row);
        assert_eq!(row[..3], [65504.0, -65504.0, f32::INFINITY]);
        assert!(row[3].is_nan());
        assert_eq!(row[4], f16::from_f32(0.1).to_f32());
    }

    #[test]
    fn the_reserved_memory_never_moves() {
        let mut table = FloatRows::new(100, 3, FloatType::F32).expect("a small table");
        let address = |table: &FloatRows| match table.rows() {
            FloatSlice::F32(rows) => rows.as_ptr() as usize,
            FloatSlice::F16(_) => unreachable!("made as F32"),
        };
        let before = address(&table);
        for _ in 0..100 {
            table.append(&[1.0, 2.0, 3.0]);
        }
        assert_eq!(address(&table), before);
        assert_eq!(table.len(), 100);
        assert!(matches!(table.check_room(1), Err(CacheError::Full { have: 100, need: 101 })));
    }

    #[test]
    fn an_absurd_capacity_is_an_error_with_the_number_of_bytes() {
        let error = FloatRows::new(usize::MAX / 2, 576, FloatType::F16).expect_err("too large");
        assert!(error.to_string().contains("bytes, which cannot be allocated"), "{error}");
    }
}
