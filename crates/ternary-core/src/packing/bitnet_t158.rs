//! BITNET_T158: four neighbouring 2-bit codes per byte.
//!
//! ```text
//! byte i:  bit   7 6      5 4      3 2      1 0
//!          weight 4i + 3  4i + 2   4i + 1   4i
//! ```

use crate::BLOCK;
use crate::trit::{from_code, to_code};

/// Bytes of 256 codes.
pub(super) const CODE_BYTES: usize = BLOCK / 4;

pub(super) fn decode(codes: &[u8; CODE_BYTES], trits: &mut [i8; BLOCK]) {
    for (byte, weights) in codes.iter().zip(trits.chunks_exact_mut(4)) {
        for (k, weight) in weights.iter_mut().enumerate() {
            *weight = from_code(byte >> (2 * k));
        }
    }
}

pub(super) fn encode(trits: &[i8; BLOCK], codes: &mut [u8; CODE_BYTES]) {
    for (byte, weights) in codes.iter_mut().zip(trits.chunks_exact(4)) {
        *byte = (0..4).fold(0, |byte, k| byte | to_code(weights[k]) << (2 * k));
    }
}
