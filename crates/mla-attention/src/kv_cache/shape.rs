//! The shape of a layer's cache: the values stored per position, and the bytes that they take.

use std::fmt;

use super::cache_type::CacheType;
use super::error::CacheError;

/// The values that one layer stores per position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are those of `MlaConfig` and `GqaConfig`")]
pub enum CacheShape {
    /// The latent and the shared rotated key of multi-head latent attention.
    Latent { kv_lora: usize, qk_rope: usize },
    /// Keys and values of grouped-query attention.
    Kv { n_kv_heads: usize, head_dim: usize },
}

/// The values of one position as INT8: vectors with a scale each, and values that stay floats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Coded {
    pub(crate) vectors: usize,
    pub(crate) width: usize,
    pub(crate) floats: usize,
}

impl CacheShape {
    /// Values of one position; `None` beyond the address space.
    pub(super) fn values_per_token(self) -> Option<usize> {
        match self {
            CacheShape::Latent { kv_lora, qk_rope } => kv_lora.checked_add(qk_rope),
            CacheShape::Kv { n_kv_heads, head_dim } => n_kv_heads.checked_mul(head_dim)?.checked_mul(2),
        }
    }

    /// The vectors of an INT8 cache: the latent, or the keys of all heads and then their values.
    pub(crate) fn coded(self) -> Coded {
        match self {
            CacheShape::Latent { kv_lora, qk_rope } => Coded { vectors: 1, width: kv_lora, floats: qk_rope },
            CacheShape::Kv { n_kv_heads, head_dim } => {
                Coded { vectors: n_kv_heads.saturating_mul(2), width: head_dim, floats: 0 }
            }
        }
    }

    /// Bytes stored per position. Times the context length and the number of layers, this is the memory that a context
    /// needs.
    #[must_use]
    pub fn bytes_per_token(self, ty: CacheType) -> usize {
        let values = self.values_per_token().unwrap_or(usize::MAX);
        match ty {
            CacheType::F32 => values.saturating_mul(4),
            CacheType::F16 => values.saturating_mul(2),
            CacheType::I8 => {
                let coded = self.coded();
                let vector = coded.width.saturating_add(size_of::<f32>());
                coded.vectors.saturating_mul(vector).saturating_add(coded.floats.saturating_mul(2))
            }
        }
    }
}

impl fmt::Display for CacheShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CacheShape::Latent { kv_lora, qk_rope } => {
                write!(f, "latents of {kv_lora} + {qk_rope} values")
            }
            CacheShape::Kv { n_kv_heads, head_dim } => {
                write!(f, "keys and values of {n_kv_heads} heads x {head_dim}")
            }
        }
    }
}

/// Refuses a cache of another shape than a layer's own.
pub(crate) fn check_shape(expected: CacheShape, got: CacheShape) -> Result<(), CacheError> {
    if got == expected {
        return Ok(());
    }
    Err(CacheError::Mismatch { expected: expected.to_string(), got: got.to_string() })
}

/// Refuses rows that hold no value, or more than fit the address space (`None`).
pub(super) fn row_width(field: &'static str, width: Option<usize>) -> Result<usize, CacheError> {
    match width {
        Some(width) if width > 0 => Ok(width),
        _ => Err(CacheError::RowWidth { field, got: width.map_or("too many".into(), |w| w.to_string()) }),
    }
}
