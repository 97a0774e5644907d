//! Products of Q8_0 and Q6_K blocks with INT8 activations. `Simd::dots_q8` and `Simd::dots_q6` have the portable forms,
//! which define these.

pub(super) mod avx2;
pub(super) mod avx512;
