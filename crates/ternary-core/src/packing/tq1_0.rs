//! TQ1_0: five trits per byte in base 3, as a fraction of 256.
//!
//! Five codes, most significant first, are a number `q` in 0..243, stored as `ceil(256 q / 243)`:
//! the byte is the fraction `q / 243` in units of 1/256, rounded up. Multiplying by 3 moves the
//! next code above the fraction, so that decoding needs no division:
//!
//! ```text
//! fraction_n = byte * 3^n mod 256        code_n = fraction_n * 3 >> 8
//! ```
//!
//! ```text
//! bytes  0..32   weight 32 n + m,        n = 0..5, m = 0..32
//! bytes 32..48   weight 160 + 16 n + m,  n = 0..5, m = 0..16
//! bytes 48..52   weight 240 + 4 n + j,   n = 0..4, j = 0..4   (a fifth code 0 follows)
//! ```
//!
//! Every byte decodes to codes 0, 1, 2: there are no invalid codes.

use crate::BLOCK;
use crate::trit::{from_code, to_code};

/// Bytes of 256 codes.
pub(super) const CODE_BYTES: usize = 52;

/// Codes in a full byte.
const PER_BYTE: usize = 5;

/// The three runs of bytes: (bytes in the run, codes in each of its bytes).
const RUNS: [(usize, usize); 3] = [(32, 5), (16, 5), (4, 4)];

pub(super) fn decode(codes: &[u8; CODE_BYTES], trits: &mut [i8; BLOCK]) {
    let (mut codes, mut trits) = (codes.as_slice(), trits.as_mut_slice());
    for (width, planes) in RUNS {
        let (bytes, weights);
        (bytes, codes) = codes.split_at(width);
        (weights, trits) = trits.split_at_mut(width * planes);
        let mut power: u8 = 1;
        for plane in weights.chunks_exact_mut(width) {
            for (weight, byte) in plane.iter_mut().zip(bytes) {
                let fraction = u16::from(byte.wrapping_mul(power));
                *weight = from_code(((fraction * 3) >> 8) as u8);
            }
            power *= 3;
        }
    }
}

pub(super) fn encode(trits: &[i8; BLOCK], codes: &mut [u8; CODE_BYTES]) {
    let (mut trits, mut codes) = (trits.as_slice(), codes.as_mut_slice());
    for (width, planes) in RUNS {
        let (bytes, weights);
        (bytes, codes) = codes.split_at_mut(width);
        (weights, trits) = trits.split_at(width * planes);
        for (m, byte) in bytes.iter_mut().enumerate() {
            // The codes of this byte lie `width` weights apart.
            let digit = |n| {
                if n < planes { u16::from(to_code(weights[n * width + m])) } else { 0 }
            };
            let q = (0..PER_BYTE).fold(0, |q, n| 3 * q + digit(n));
            *byte = (q * 256).div_ceil(243) as u8;
        }
    }
}
