//! bfloat16, the upper half of an IEEE single: little-endian values.

use super::dense::{DenseFormat, sealed, tail_of};
use crate::simd::{LANES, Simd};

/// The type [`DenseType::Bf16`](crate::DenseType::Bf16) at compile time.
#[derive(Debug, Clone, Copy)]
pub struct Bf16;

impl DenseFormat for Bf16 {
    const NAME: &'static str = "BF16";
    const BLOCK_LEN: usize = 1;
    const BLOCK_BYTES: usize = 2;
}

impl sealed::Load for Bf16 {
    type Unit = [u8; 32];
    type Prepared<'a, S: Simd> = &'a [u8; 32];
    const GROUPS: usize = 1;

    #[inline(always)]
    fn units(row: &[u8]) -> &[[u8; 32]] {
        row.as_chunks().0
    }
    #[inline(always)]
    fn blank<'a, S: Simd>(_s: S) -> &'a [u8; 32] {
        &[0; 32]
    }
    #[inline(always)]
    fn prepare<'a, S: Simd, const R: usize>(_s: S, units: [&'a [u8; 32]; R], out: &mut [&'a [u8; 32]; R]) {
        *out = units;
    }
    #[inline(always)]
    fn group<S: Simd>(s: S, unit: &&[u8; 32], _g: usize) -> S::F {
        s.load_bf16(unit)
    }
    #[inline(always)]
    fn tail(row: &[u8]) -> [f32; LANES] {
        tail_of(row, |word| f32::from_bits(u32::from(u16::from_le_bytes(word)) << 16))
    }
}
