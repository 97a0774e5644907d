//! The portable level: plain Rust, sixteen lanes in an array. It defines the results of the other levels.

use half::f16;
use ternary_core::BLOCK;

use super::Isa;
use super::instruction_set::InstructionSet;
use crate::simd::{
    Float, GROUP_ROWS, Int8, Kernel, LANES, One, PatchShape, PortableLookup, RowBytes, Simd, TableSimd, TileSimd,
    TritTileSimd, field_order, tq1_codes,
};

/// The level that every machine has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scalar(());

impl InstructionSet for Scalar {
    const ISA: Isa = Isa::Scalar;
    type ForFloats = Scalar;

    fn detect() -> Option<Scalar> {
        Some(Scalar(()))
    }
    fn for_floats(self) -> Scalar {
        self
    }
}

/// The array `[f(0), .., f(15)]`.
#[inline(always)]
fn each(f: impl Fn(usize) -> f32) -> [f32; LANES] {
    std::array::from_fn(f)
}

impl Float for Scalar {
    type F = [f32; LANES];

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        [x; LANES]
    }
    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        each(|i| a[i] + b[i])
    }
    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        each(|i| a[i] - b[i])
    }
    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        each(|i| a[i] * b[i])
    }
    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        each(|i| a[i] / b[i])
    }
    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        each(|i| One.fma(a[i], b[i], c[i]))
    }
    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        each(|i| One.max(a[i], b[i]))
    }
    #[inline(always)]
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        each(|i| One.min(a[i], b[i]))
    }
    #[inline(always)]
    fn round(self, a: Self::F) -> Self::F {
        each(|i| One.round(a[i]))
    }
    #[inline(always)]
    fn pow2(self, a: Self::F) -> Self::F {
        each(|i| One.pow2(a[i]))
    }
}

impl Simd for Scalar {
    const PATCH: PatchShape = PatchShape::Rows4Tokens1;
    type Codes = [u8; BLOCK];
    type Sums = i32;
    type I = [i32; LANES];
    type Quad = [f32; 4];
    type Lookup = PortableLookup;

    #[inline(always)]
    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        kernel.run(self)
    }

    #[inline(always)]
    fn prefetch<T>(self, _near: &T, _distance: usize) {}
    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> Self::F {
        *x
    }
    #[inline(always)]
    fn store(self, a: Self::F, out: &mut [f32; LANES]) {
        *out = a;
    }
    #[inline(always)]
    fn load_f32(self, bytes: &[u8; 4 * LANES]) -> Self::F {
        let (words, _) = bytes.as_chunks();
        each(|i| f32::from_le_bytes(words[i]))
    }
    #[inline(always)]
    fn load_f16(self, bytes: &[u8; 2 * LANES]) -> Self::F {
        let (words, _) = bytes.as_chunks();
        each(|i| f16::from_le_bytes(words[i]).to_f32())
    }
    #[inline(always)]
    fn load_half(self, x: &[f16; LANES]) -> Self::F {
        each(|i| x[i].to_f32())
    }
    #[inline(always)]
    fn load_bf16(self, bytes: &[u8; 2 * LANES]) -> Self::F {
        let (words, _) = bytes.as_chunks();
        each(|i| f32::from_bits(u32::from(u16::from_le_bytes(words[i])) << 16))
    }
    #[inline(always)]
    fn splat_f16(self, bits: u16) -> Self::F {
        [f16::from_bits(bits).to_f32(); LANES]
    }
    #[inline(always)]
    fn load_i8(self, bytes: &[u8; LANES]) -> Self::F {
        each(|i| f32::from(bytes[i].cast_signed()))
    }
    #[inline(always)]
    fn reduce(self, mut a: Self::F) -> f32 {
        for step in [8, 4, 2, 1] {
            for j in 0..step {
                a[j] += a[j + step];
            }
        }
        a[0]
    }

    #[inline(always)]
    fn unpack_tq2(self, packed: &[u8; BLOCK / 4]) -> Self::Codes {
        std::array::from_fn(|i| (packed[i % 64] >> (2 * (i / 64))) & 3)
    }
    #[inline(always)]
    fn unpack_tq1(self, packed: &[u8; 52]) -> Self::Codes {
        field_order(&tq1_codes(packed))
    }
    #[inline(always)]
    fn load_codes(self, codes: &[u8; BLOCK]) -> Self::Codes {
        field_order(codes)
    }
    #[inline(always)]
    fn zero_sums(self) -> i32 {
        0
    }
    #[inline(always)]
    fn no_quads(self, _x_sum: i32) -> [i32; LANES] {
        [0; LANES]
    }
    #[inline(always)]
    fn dot_quads(self, mut acc: [i32; LANES], w: &[[i8; 4]; LANES], x: [i8; 4]) -> [i32; LANES] {
        for (acc, w) in acc.iter_mut().zip(w) {
            for c in 0..4 {
                *acc += i32::from(w[c]) * i32::from(x[c]);
            }
        }
        acc
    }
    #[inline(always)]
    fn mul_add_i32(self, a: [i32; LANES], b: &[i32; LANES], c: [i32; LANES]) -> [i32; LANES] {
        std::array::from_fn(|r| a[r] * b[r] + c[r])
    }
    #[inline(always)]
    fn to_f32(self, a: [i32; LANES]) -> Self::F {
        self.load_i32(&a)
    }
    #[inline(always)]
    fn sum_of(self, total: i32) -> i32 {
        total
    }
    #[inline(always)]
    fn dot_codes(self, codes: &Self::Codes, acts: &[i8; BLOCK]) -> i32 {
        codes.iter().zip(acts).map(|(&c, &a)| i32::from(c) * i32::from(a)).sum()
    }
    #[inline(always)]
    fn accumulate(self, acc: [f32; 4], dots: [i32; 4], act_sum: i32, w_scales: [f32; 4], a_scale: f32) -> [f32; 4] {
        std::array::from_fn(|j| One.fma(w_scales[j] * a_scale, (dots[j] - act_sum) as f32, acc[j]))
    }
    #[inline(always)]
    fn quad(self, x: [f32; 4]) -> [f32; 4] {
        x
    }
    #[inline(always)]
    fn quad_values(self, a: [f32; 4]) -> [f32; 4] {
        a
    }
    #[inline(always)]
    fn quad_f16(self, bits: [u16; 4]) -> [f32; 4] {
        bits.map(|b| f16::from_bits(b).to_f32())
    }
    #[inline(always)]
    fn lookup(self) -> PortableLookup {
        PortableLookup
    }
}

// These traits have portable bodies, and this level uses all of them.
impl Int8 for Scalar {}
impl TileSimd for Scalar {}
impl TableSimd for Scalar {}

impl RowBytes for Scalar {
    type Rows = [u8; GROUP_ROWS];

    #[inline(always)]
    fn load_rows(self, bytes: &[u8; GROUP_ROWS]) -> Self::Rows {
        *bytes
    }
    #[inline(always)]
    fn store_rows(self, a: Self::Rows, bytes: &mut [u8; GROUP_ROWS]) {
        *bytes = a;
    }
    #[inline(always)]
    fn zero_rows(self) -> Self::Rows {
        [0; GROUP_ROWS]
    }
}

impl TritTileSimd for Scalar {
    #[inline(always)]
    fn triple_rows(self, a: Self::Rows) -> Self::Rows {
        a.map(|a| a.wrapping_mul(3))
    }
    #[inline(always)]
    fn add_trits(self, sums: Self::Rows, fractions: Self::Rows, unit: u8) -> Self::Rows {
        let code = |fraction: u8| u8::from(fraction > 85) + u8::from(fraction > 170);
        std::array::from_fn(|r| sums[r].wrapping_add(unit.wrapping_mul(code(fractions[r]))))
    }
}
