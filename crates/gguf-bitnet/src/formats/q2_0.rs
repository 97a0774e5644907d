//! Q2_0: two-bit codes and one F16 scale per `N` weights, 64 or 128, coded by `ternary-core`.
//!
//! ```text
//! d: f16 | codes[N / 4]      value = d (c - 1)      weight i = bits 2 (i % 4) of byte i / 4
//! ```
//! Both lengths have id 42: blocks of 64 are those of llama.cpp, blocks of 128 those of a fork of it (`gguf/q2_0.rs` tells
//! them apart). Code 3 is +2, so files of other programs may have weights that are not ternary: they decode to their value.

use ternary_core::{Error, f16, q2_0, quantize_block};

use super::blocks::f16_at;
use super::format::{Encoder, Encoding, Format, Invalid, Layout};
use super::trit_coder::{ScaleKind, TritCoder, TritGroup};

/// The storage format Q2_0 with blocks of `N` weights.
pub(super) struct Q2_0<const N: usize>;

impl<const N: usize> Format for Q2_0<N> {
    fn layout(&self) -> Layout {
        let name = if N == 64 { "Q2_0" } else { "Q2_0_G128" };
        Layout { id: Some(42), name, block_len: N, block_bytes: q2_0::block_bytes(N) }
    }

    fn is_ternary(&self) -> bool {
        true
    }

    fn trits(&self) -> Option<&dyn TritCoder> {
        Some(self)
    }

    fn invalid(&self) -> Invalid {
        Invalid::Block { scales: &[0], codes: 0 }
    }

    fn decode(&self, bytes: &[u8], out: &mut [f32]) -> Result<(), Error> {
        for (block, (out, bytes)) in out.chunks_exact_mut(N).zip(bytes.chunks_exact(q2_0::block_bytes(N))).enumerate() {
            let scale = f16_at(bytes, 0);
            if !scale.is_finite() {
                return Err(Error::BadScale { block, scale });
            }
            for (i, out) in out.iter_mut().enumerate() {
                *out = scale * (f32::from(bytes[2 + i / 4] >> (2 * (i % 4)) & 3) - 1.0);
            }
        }
        Ok(())
    }

    /// Blocks of 128 are only read, and written by a conversion that asks for them.
    fn encoder(&self) -> Option<&dyn Encoder> {
        if N == 64 { Some(self) } else { None }
    }
}

impl<const N: usize> Encoder for Q2_0<N> {
    fn encode(&self, row: &[f32], encoding: Encoding<'_>, out: &mut [u8]) -> Result<(), Error> {
        let importance = encoding.importance.map(|h| h.as_chunks::<N>().0);
        let mut trits = [0; N];
        let blocks = row.as_chunks::<N>().0.iter().zip(out.chunks_exact_mut(q2_0::block_bytes(N)));
        for (block, (weights, out)) in blocks.enumerate() {
            let scale = quantize_block(encoding.rounding, weights, importance.map(|h| &h[block]), &mut trits);
            q2_0::encode(&trits, scale, out);
        }
        Ok(())
    }
}

impl<const N: usize> TritCoder for Q2_0<N> {
    fn group(&self) -> TritGroup {
        TritGroup::Block(N)
    }

    fn scale_kind(&self) -> ScaleKind {
        ScaleKind::F16
    }

    fn read(&self, bytes: &[u8], _cols: usize, trits: &mut [i8], scales: &mut [f32]) -> Result<(), Error> {
        let blocks = trits.as_chunks_mut::<N>().0.iter_mut().zip(bytes.chunks_exact(q2_0::block_bytes(N)));
        for (b, ((trits, bytes), scale)) in blocks.zip(scales).enumerate() {
            let block = q2_0::decode(bytes).map_err(|e| e.offset_block(b))?;
            (*trits, *scale) = (block.trits, block.scale);
        }
        Ok(())
    }

    fn write(&self, trits: &[i8], _cols: usize, scales: &[f32], out: &mut [u8]) -> Result<(), Error> {
        let blocks = trits.as_chunks::<N>().0.iter().zip(out.chunks_exact_mut(q2_0::block_bytes(N)));
        for ((trits, out), &scale) in blocks.zip(scales) {
            q2_0::encode(trits, f16::from_f32(scale), out);
        }
        Ok(())
    }
}
