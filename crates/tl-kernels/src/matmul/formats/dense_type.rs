//! The dense weight types as a value at run time.

use std::fmt;

use super::dense::row_bytes;
use super::{Bf16, DenseFormat, F16, F32, Q2_0, Q6K, Q8_0};
use crate::error::Result;

/// A dense weight type that kernels read as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DenseType {
    /// Weights in IEEE single precision.
    F32,
    /// Weights in IEEE half precision.
    F16,
    /// The upper half of an IEEE single.
    Bf16,
    /// 8-bit integers, one scale per 32 weights.
    Q8_0,
    /// 6-bit integers, 8-bit scales per 16 weights, one scale per 256.
    Q6K,
    /// Ternary weights, one scale per 64.
    Q2_0,
}

impl DenseType {
    /// Every dense type that exists.
    pub const ALL: [DenseType; 6] =
        [DenseType::F32, DenseType::F16, DenseType::Bf16, DenseType::Q8_0, DenseType::Q6K, DenseType::Q2_0];

    /// The GGML name of the type.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.layout().0
    }

    /// Number of weights in a block.
    #[must_use]
    pub fn block_len(self) -> usize {
        self.layout().1
    }

    /// Number of bytes in a block.
    #[must_use]
    pub fn block_bytes(self) -> usize {
        self.layout().2
    }

    /// Bytes of a row of `cols` weights.
    ///
    /// # Errors
    /// [`Error::BlockMultiple`](crate::Error::BlockMultiple) when the row is no whole number of blocks,
    /// [`Error::ShapeOverflow`](crate::Error::ShapeOverflow).
    pub fn row_bytes(self, cols: usize) -> Result<usize> {
        let (ty, block, block_bytes) = self.layout();
        row_bytes(ty, block, block_bytes, cols)
    }

    /// Name, weights per block, bytes per block.
    fn layout(self) -> (&'static str, usize, usize) {
        fn of<F: DenseFormat>() -> (&'static str, usize, usize) {
            (F::NAME, F::BLOCK_LEN, F::BLOCK_BYTES)
        }
        match self {
            DenseType::F32 => of::<F32>(),
            DenseType::F16 => of::<F16>(),
            DenseType::Bf16 => of::<Bf16>(),
            DenseType::Q8_0 => of::<Q8_0>(),
            DenseType::Q6K => of::<Q6K>(),
            DenseType::Q2_0 => of::<Q2_0>(),
        }
    }
}

impl fmt::Display for DenseType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
