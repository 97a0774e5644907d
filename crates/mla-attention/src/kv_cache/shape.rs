//! The shape of a layer's cache: the values stored per position, and the bytes that they take.

use std::fmt;

use super::cache_type::CacheType;
use super::error::CacheError;
use super::float_rows::FloatType;
use super::int8_latents::Int8Latents;

/// The values that one layer stores per position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are those of `MlaConfig` and `GqaConfig`")]
pub enum CacheShape {
    /// The latent and the shared rotated key of multi-head latent attention.
    Latent { kv_lora: usize, qk_rope: usize },
    /// Keys and values of grouped-query attention.
    Kv { n_kv_heads: usize, head_dim: usize },
}

impl CacheShape {
    fn values_per_token(self) -> usize {
        match self {
            CacheShape::Latent { kv_lora, qk_rope } => kv_lora.saturating_add(qk_rope),
            CacheShape::Kv { n_kv_heads, head_dim } => n_kv_heads.saturating_mul(head_dim).saturating_mul(2),
        }
    }

    /// Bytes stored per position. Times the context length and the number of layers, this is the memory that a context
    /// needs. 0 for a number type that caches of this shape do not support.
    #[must_use]
    pub fn bytes_per_token(self, ty: CacheType) -> usize {
        match (self, ty) {
            (_, CacheType::F32) => self.values_per_token().saturating_mul(FloatType::F32.value_bytes()),
            (_, CacheType::F16) => self.values_per_token().saturating_mul(FloatType::F16.value_bytes()),
            (CacheShape::Latent { kv_lora, qk_rope }, CacheType::I8) => Int8Latents::row_bytes(kv_lora, qk_rope),
            (CacheShape::Kv { .. }, CacheType::I8) => 0,
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

/// The number of rows of `width` in `values`; refuses a length that is no whole number of rows.
pub(super) fn whole_rows(name: &'static str, values: &[f32], width: usize) -> Result<usize, CacheError> {
    if values.len().is_multiple_of(width) {
        return Ok(values.len() / width);
    }
    let expected = values.len().next_multiple_of(width);
    Err(CacheError::BufferLength { name, expected, got: values.len() })
}
