//! The INT8 rows of a latent cache, in spans of 64 positions.
//!
//! ```text
//! codes   [spans, kv_lora / 4, 64, 4]  i8    the latent, rounded as activations are: one scale, absmax / 127, ties to even
//! scales  [spans, 64]                  f32
//! keys    [spans, qk_rope, 64]         f16   the rotated key
//! ```
//!
//! A product with a span multiplies the same columns of all 64 positions at a time, so equal columns of neighbouring
//! positions lie side by side. A `kv_lora` that is no multiple of four is padded with zeros.
//!
//! GLM-4.7-Flash: 512 + 4 + 128 = 644 bytes per position and layer.
//!
//! **Invariant**: as for [`FloatRows`](super::float_rows::FloatRows), memory for `capacity` rows is reserved at
//! construction and never moves. The last span holds arbitrary finite codes behind the last position.

use half::f16;
use ternary_core::quantize_a8;
use tl_kernels::int8::{Group, ROWS};

use super::error::CacheError;
use super::float_rows::{check_room, reserved, saturating_f16};

/// INT8 latents with a scale each, and F16 keys, with room for `capacity` positions.
#[derive(Debug)]
pub(crate) struct Int8Latents {
    kv_lora: usize,
    qk_rope: usize,
    capacity: usize,
    len: usize,
    codes: Vec<Group<[i8; 4]>>,
    scales: Vec<Group<f32>>,
    keys: Vec<Group<f16>>,
    /// Codes of one position, before they are written to their groups.
    staging: Vec<i8>,
}

/// The rows of 64 positions.
#[derive(Clone, Copy)]
pub(crate) struct LatentSpan<'a> {
    /// One group per four columns.
    pub(crate) codes: &'a [Group<[i8; 4]>],
    pub(crate) scales: &'a Group<f32>,
    /// One group per column.
    pub(crate) keys: &'a [Group<f16>],
}

impl Int8Latents {
    /// Bytes of one position.
    pub(super) fn row_bytes(kv_lora: usize, qk_rope: usize) -> usize {
        kv_lora.saturating_add(qk_rope.saturating_mul(2)).saturating_add(size_of::<f32>())
    }

    /// Reserves room for `capacity` positions.
    pub(super) fn new(capacity: usize, kv_lora: usize, qk_rope: usize) -> Result<Int8Latents, CacheError> {
        let vectors = || {
            let spans = capacity.div_ceil(ROWS);
            let codes = reserved(spans.checked_mul(kv_lora.div_ceil(4))?)?;
            let (scales, keys) = (reserved(spans)?, reserved(spans.checked_mul(qk_rope)?)?);
            let mut staging = reserved(kv_lora)?;
            staging.resize(kv_lora, 0);
            Some(Int8Latents { kv_lora, qk_rope, capacity, len: 0, codes, scales, keys, staging })
        };
        vectors().ok_or_else(|| {
            let bytes = (capacity as u128).saturating_mul(Self::row_bytes(kv_lora, qk_rope) as u128);
            CacheError::Memory { n_ctx: capacity, bytes }
        })
    }

    /// A copy of the rows held now, with the same capacity.
    pub(super) fn fork(&self) -> Result<Int8Latents, CacheError> {
        let mut copy = Int8Latents::new(self.capacity, self.kv_lora, self.qk_rope)?;
        copy.len = self.len;
        copy.codes.extend_from_slice(&self.codes);
        copy.scales.extend_from_slice(&self.scales);
        copy.keys.extend_from_slice(&self.keys);
        Ok(copy)
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// How many positions are held.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The positions `64 span .. 64 span + 64`.
    pub(crate) fn span(&self, span: usize) -> LatentSpan<'_> {
        let quads = self.kv_lora.div_ceil(4);
        LatentSpan {
            codes: &self.codes[span * quads..][..quads],
            scales: &self.scales[span],
            keys: &self.keys[span * self.qk_rope..][..self.qk_rope],
        }
    }

    /// Refuses `n` more positions that do not fit.
    pub(super) fn check_room(&self, n: usize) -> Result<(), CacheError> {
        check_room(self.len(), n, self.capacity)
    }

    /// Appends rows `[n, kv_lora + qk_rope]`, rounded. Room must have been checked.
    pub(super) fn append(&mut self, rows: &[f32]) {
        debug_assert!(self.len() + rows.len() / (self.kv_lora + self.qk_rope) <= self.capacity);
        for row in rows.chunks_exact(self.kv_lora + self.qk_rope) {
            self.set_spans((self.len + 1).div_ceil(ROWS));
            let (latent, key) = row.split_at(self.kv_lora);
            let (span, at) = (self.len / ROWS, self.len % ROWS);
            self.scales[span].0[at] = quantize_a8(latent, &mut self.staging);
            let codes = &mut self.codes[span * self.kv_lora.div_ceil(4)..];
            for (group, quad) in codes.iter_mut().zip(self.staging.chunks(4)) {
                group.0[at][..quad.len()].copy_from_slice(quad);
            }
            for (group, &value) in self.keys[span * self.qk_rope..].iter_mut().zip(key) {
                group.0[at] = saturating_f16(value);
            }
            self.len += 1;
        }
    }

    /// Drops every position from `len` on.
    pub(super) fn truncate(&mut self, len: usize) {
        if len < self.len {
            self.len = len;
            self.set_spans(len.div_ceil(ROWS));
        }
    }

    /// Resizes the table to `spans` spans; new ones are zeros.
    fn set_spans(&mut self, spans: usize) {
        self.codes.resize(spans * self.kv_lora.div_ceil(4), Group([[0; 4]; ROWS]));
        self.scales.resize(spans, Group([0.0; ROWS]));
        self.keys.resize(spans * self.qk_rope, Group([f16::ZERO; ROWS]));
    }

    /// Decodes position `position` into `out` `[kv_lora + qk_rope]`.
    #[cfg(test)]
    pub(super) fn read(&self, position: usize, out: &mut [f32]) {
        assert!(position < self.len, "position {position} of {}", self.len);
        let (span, at) = (self.span(position / ROWS), position % ROWS);
        let (latent, key) = out.split_at_mut(self.kv_lora);
        for (i, out) in latent.iter_mut().enumerate() {
            *out = span.scales.0[at] * f32::from(span.codes[i / 4].0[at][i % 4]);
        }
        for (out, values) in key.iter_mut().zip(span.keys) {
            *out = values.0[at].to_f32();
        }
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
        assert!(matches!(rows.check_room(2), Err(CacheError::Full { have: 3, need: 4 })));
        rows.truncate(1);
        assert_eq!(rows.len(), 1);
    }

    #[test]
    fn positions_are_read_back_from_their_spans() {
        let (kv_lora, qk_rope, n) = (6, 3, 130);
        let value = |position: usize, i: usize| ((position * 31 + i * 7) % 255) as f32 - 127.0;
        let row = |position: usize| {
            let mut row: Vec<f32> = (0..kv_lora + qk_rope).map(|i| value(position, i)).collect();
            row[0] = 127.0;
            row
        };
        let mut rows = Int8Latents::new(n, kv_lora, qk_rope).expect("a small cache");
        rows.append(&(0..100).flat_map(row).collect::<Vec<_>>());
        rows.truncate(63);
        rows.append(&(63..n).flat_map(row).collect::<Vec<_>>());
        let copy = rows.fork().expect("a small cache");
        for position in 0..n {
            let mut got = [0.0; 9];
            copy.read(position, &mut got);
            assert_eq!(got[..], row(position), "position {position}");
        }
        assert_eq!(rows.span(2).codes[1].0[0][2..], [0, 0], "padding columns hold zeros");
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
        assert!(matches!(error, CacheError::Memory { .. }), "{error}");
    }
}
