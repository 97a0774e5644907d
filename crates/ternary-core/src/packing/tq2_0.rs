//! TQ2_0: four 2-bit codes per byte, 32 weights apart.
//!
//! ```text
//! half h = 0, 1 of 128 weights; byte 32 h + m, m = 0..31:
//!   bit   7 6      5 4      3 2      1 0
//!   field n = 3    2        1        0      weight 128 h + 32 n + m
//! ```
//!
//! Field n of 32 neighbouring bytes holds 32 neighbouring weights, so one shift and one AND of 32 bytes unpack them.

use crate::BLOCK;
use crate::trit::{from_code, to_code};

/// Bytes of 256 codes.
pub(super) const CODE_BYTES: usize = BLOCK / 4;

const HALF_BYTES: usize = 32;
const HALF_WEIGHTS: usize = 4 * HALF_BYTES;

pub(super) fn decode(codes: &[u8; CODE_BYTES], trits: &mut [i8; BLOCK]) {
    let halves = codes.chunks_exact(HALF_BYTES).zip(trits.chunks_exact_mut(HALF_WEIGHTS));
    for (bytes, weights) in halves {
        for (n, plane) in weights.chunks_exact_mut(HALF_BYTES).enumerate() {
            for (weight, byte) in plane.iter_mut().zip(bytes) {
                *weight = from_code(byte >> (2 * n));
            }
        }
    }
}

pub(super) fn encode(trits: &[i8; BLOCK], codes: &mut [u8; CODE_BYTES]) {
    codes.fill(0);
    let halves = codes.chunks_exact_mut(HALF_BYTES).zip(trits.chunks_exact(HALF_WEIGHTS));
    for (bytes, weights) in halves {
        for (n, plane) in weights.chunks_exact(HALF_BYTES).enumerate() {
            for (byte, &weight) in bytes.iter_mut().zip(plane) {
                *byte |= to_code(weight) << (2 * n);
            }
        }
    }
}
