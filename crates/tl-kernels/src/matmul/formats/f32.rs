//! IEEE single precision: little-endian values.

use super::dense::{DenseFormat, sealed, tail_of};
use crate::simd::{LANES, Simd};

/// The type [`DenseType::F32`](crate::DenseType::F32) at compile time.
#[derive(Debug, Clone, Copy)]
pub struct F32;

impl DenseFormat for F32 {
    const NAME: &'static str = "F32";
    const BLOCK_LEN: usize = 1;
    const BLOCK_BYTES: usize = 4;
}

impl sealed::Load for F32 {
    type Unit = [u8; 64];
    type Prepared<'a, S: Simd> = &'a [u8; 64];
    const GROUPS: usize = 1;

    #[inline(always)]
    fn units(row: &[u8]) -> &[[u8; 64]] {
        row.as_chunks().0
    }
    #[inline(always)]
    fn blank<'a, S: Simd>(_s: S) -> &'a [u8; 64] {
        &[0; 64]
    }
    #[inline(always)]
    fn prepare<'a, S: Simd, const R: usize>(_s: S, units: [&'a [u8; 64]; R], out: &mut [&'a [u8; 64]; R]) {
        *out = units;
    }
    #[inline(always)]
    fn group<S: Simd>(s: S, unit: &&[u8; 64], _g: usize) -> S::F {
        s.load_f32(unit)
    }
    #[inline(always)]
    fn tail(row: &[u8]) -> [f32; LANES] {
        tail_of(row, f32::from_le_bytes)
    }
}
