//! Q2_0: blocks of `N` weights, 64 or 128, for rows that fill no blocks of 256.
//!
//! ```text
//! d: f16 | qs[N / 4]        byte i:  bit   7 6      5 4      3 2      1 0
//!                                    weight 4i + 3  4i + 2   4i + 1   4i        value (code - 1) d
//! ```
//!
//! Blocks of 64 are GGML type 42; those of 128 have the same number in another program. Code 3 means +2, so a file may hold
//! it and is then not ternary: [`decode`] refuses it, and [`encode`] never writes it.
//!
//! ```
//! use ternary_core::{TernaryBlock, f16, q2_0};
//!
//! let mut trits = [0; 64];
//! trits[7] = -1;
//! let mut packed = [0; 18];
//! q2_0::encode(&trits, f16::from_f32(0.25), &mut packed);
//! assert_eq!(q2_0::decode::<64>(&packed)?, TernaryBlock { trits, scale: 0.25 });
//! # Ok::<(), ternary_core::Error>(())
//! ```

use half::f16;

use crate::trit::{assert_ternary, first_invalid, from_code, to_code};
use crate::{Error, Result, TernaryBlock};

/// Bytes of the scale at the start of a block.
const SCALE_BYTES: usize = 2;

/// Bytes of a block of `n` weights.
#[must_use]
pub const fn block_bytes(n: usize) -> usize {
    SCALE_BYTES + n / 4
}

/// Reads one block.
///
/// # Errors
/// [`Error::Span`] where `block` has another length; [`Error::InvalidCode`] and [`Error::BadScale`], both with block 0.
pub fn decode<const N: usize>(block: &[u8]) -> Result<TernaryBlock<N>> {
    let span = Error::Span { expected_bytes: block_bytes(N), got_bytes: block.len() };
    let Some((&scale, codes)) = block.split_first_chunk().filter(|_| block.len() == block_bytes(N)) else {
        return Err(span);
    };
    let trits = core::array::from_fn(|i| from_code(codes[i / 4] >> (2 * (i % 4))));
    if let Some(weight) = first_invalid(&trits) {
        return Err(Error::InvalidCode { block: 0, weight });
    }
    let scale = f16::from_le_bytes(scale).to_f32();
    if !scale.is_finite() {
        return Err(Error::BadScale { block: 0, scale });
    }
    Ok(TernaryBlock { trits, scale })
}

/// Writes one block to `out`.
///
/// # Panics
/// If a trit is not -1, 0 or +1, or `out` is not [`block_bytes`] long.
pub fn encode<const N: usize>(trits: &[i8; N], scale: f16, out: &mut [u8]) {
    assert_ternary(trits);
    assert_eq!(out.len(), block_bytes(N), "bytes of a block of {N} weights");
    let (scale_out, codes) = out.split_at_mut(SCALE_BYTES);
    scale_out.copy_from_slice(&scale.to_le_bytes());
    for (byte, weights) in codes.iter_mut().zip(trits.as_chunks::<4>().0) {
        *byte = (0..4).fold(0, |byte, k| byte | to_code(weights[k]) << (2 * k));
    }
}
