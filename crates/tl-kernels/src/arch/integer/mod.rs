//! Products of Q8_0 and Q6_K blocks with INT8 activations. `Simd::dots_q8` and `Simd::dots_q6` have the portable forms,
//! which define these.

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "vector instructions, behind tokens that prove support")]
pub(super) mod avx2;
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "vector instructions, behind tokens that prove support")]
pub(super) mod avx512;

#[cfg(target_arch = "aarch64")]
#[allow(unsafe_code, reason = "vector instructions, behind tokens that prove support")]
pub(super) mod neon;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
pub(super) mod wasm;
