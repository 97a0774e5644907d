//! The INT8 rows of a latent cache, `[len, kv_lora + qk_rope]`.
//!
//! ```text
//! codes   [len, kv_lora]  i8    the latent, rounded as activations are: one scale, absmax / 127, ties to even
//! scales  [len]           f32
//! keys    [len, qk_rope]  f16   the rotated key
//! ```
//!
//! GLM-4.7-Flash: 512 + 4 + 128 = 644 bytes per position and layer.
//!
//! **Invariant**: as for [`Plane`](crate::plane::Plane), memory for `capacity` rows is reserved at construction and
//! never moves.

use half::f16;
use half::slice::HalfFloatSliceExt;
use ternary_core::quantize_a8;

use crate::Error;
use crate::plane::{check_room, reserved, saturating_f16};

/// INT8 latents with a scale each, and F16 keys, with room for `capacity` positions.
#[derive(Debug)]
pub(crate) struct Int8Latents {
    kv_lora: usize,
    qk_rope: usize,
    capacity: usize,
    codes: Vec<i8>,
    scales: Vec<f32>,
    keys: Vec<f16>,
}

impl Int8Latents {
    /// Bytes of one position.
    pub(crate) fn row_bytes(kv_lora: usize, qk_rope: usize) -> usize {
        kv_lora.saturating_add(qk_rope.saturating_mul(2)).saturating_add(size_of::<f32>())
    }

    /// Reserves room for `capacity` positions.
    pub(crate) fn new(capacity: usize, kv_lora: usize, qk_rope: usize) -> Result<Int8Latents, Error> {
        let vectors = || {
            let codes = reserved(capacity.checked_mul(kv_lora)?)?;
            let keys = reserved(capacity.checked_mul(qk_rope)?)?;
            Some(Int8Latents { kv_lora, qk_rope, capacity, codes, scales: reserved(capacity)?, keys })
        };
        vectors().ok_or_else(|| {
            let bytes = (capacity as u128).saturating_mul(Self::row_bytes(kv_lora, qk_rope) as u128);
            Error::CacheMemory { n_ctx: capacity, bytes }
        })
    }

    /// A copy of the rows held now, with the same capacity.
    pub(crate) fn fork(&self) -> Result<Int8Latents, Error> {
        let mut copy = Int8Latents::new(self.capacity, self.kv_lora, self.qk_rope)?;
        copy.codes.extend_from_slice(&self.codes);
        copy.scales.extend_from_slice(&self.scales);
        copy.keys.extend_from_slice(&self.keys);
        Ok(copy)
    }

    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Positions held.
    pub(crate) fn len(&self) -> usize {
        self.scales.len()
    }

    /// All codes held, `[len, kv_lora]`.
    pub(crate) fn codes(&self) -> &[i8] {
        &self.codes
    }

    /// All scales held, `[len]`.
    pub(crate) fn scales(&self) -> &[f32] {
        &self.scales
    }

    /// All keys held, `[len, qk_rope]`.
    pub(crate) fn keys(&self) -> &[f16] {
        &self.keys
    }

    /// Refuses `n` more positions that do not fit.
    pub(crate) fn check_room(&self, n: usize) -> Result<(), Error> {
        check_room(self.len(), n, self.capacity)
    }

    /// Appends rows `[n, kv_lora + qk_rope]`, rounded. Room must have been checked.
    pub(crate) fn append(&mut self, rows: &[f32]) {
        debug_assert!(self.len() + rows.len() / (self.kv_lora + self.qk_rope) <= self.capacity);
        for row in rows.chunks_exact(self.kv_lora + self.qk_rope) {
            let (latent, key) = row.split_at(self.kv_lora);
            let start = self.codes.len();
            self.codes.resize(start + self.kv_lora, 0);
            self.scales.push(quantize_a8(latent, &mut self.codes[start..]));
            self.keys.extend(key.iter().map(|&v| saturating_f16(v)));
        }
    }

    /// Drops every position from `len` on.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.codes.truncate(len.saturating_mul(self.kv_lora));
        self.scales.truncate(len);
        self.keys.truncate(len.saturating_mul(self.qk_rope));
    }

    /// Decodes position `position` into `out` `[kv_lora + qk_rope]`.
    pub(crate) fn read(&self, position: usize, out: &mut [f32]) {
        let (latent, key) = out.split_at_mut(self.kv_lora);
        let codes = &self.codes[position * self.kv_lora..][..self.kv_lora];
        for (out, &code) in latent.iter_mut().zip(codes) {
            *out = self.scales[position] * f32::from(code);
        }
        self.keys[position * self.qk_rope..][..self.qk_rope].convert_to_f32_slice(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_within_half_a_step() {
        let mut rows = Int8Latents::new(3, 4, 2).expect("a small cache");
        rows.append(&[1.0, -2.0, 0.5, 127.0, 0.25, 1e9, 0.0, 0.0, 0.0, 0.0, -1.0, 3.0]);
        let mut row = [0.0; 6];
        rows.read(0, &mut row);
        assert_eq!(row, [1.0, -2.0, 0.0, 127.0, 0.25, 65504.0], "ties go to even, keys saturate");
        rows.read(1, &mut row);
        assert_eq!(row, [0.0, 0.0, 0.0, 0.0, -1.0, 3.0]);
        assert_eq!((rows.len(), rows.capacity()), (2, 3));
        assert!(matches!(rows.check_room(2), Err(Error::ContextFull { have: 3, need: 4 })));
        rows.truncate(1);
        assert_eq!((rows.len(), rows.codes().len(), rows.keys().len()), (1, 4, 2));
    }

    #[test]
    fn a_latent_that_is_no_number_shows() {
        let mut rows = Int8Latents::new(1, 2, 0).expect("a small cache");
        rows.append(&[f32::NAN, 1.0]);
        let mut row = [0.0; 2];
        rows.read(0, &mut row);
        assert!(row.iter().all(|v| v.is_nan()));
    }

    #[test]
    fn an_absurd_capacity_is_an_error() {
        let error = Int8Latents::new(usize::MAX / 2, 512, 64).expect_err("too large");
        assert!(matches!(error, Error::CacheMemory { .. }), "{error}");
    }
}
