//! The cache of one layer of grouped-query attention.

use super::cache_type::CacheType;
use super::error::CacheError;
use super::float_rows::{FloatRows, FloatSlice, FloatType};
use super::shape::{CacheShape, row_width, whole_rows};

/// The cache of one layer of grouped-query attention: keys and values `[len, n_kv_heads, head_dim]`.
#[derive(Debug)]
pub struct KvCache {
    head_dim: usize,
    keys: FloatRows,
    values: FloatRows,
}

impl KvCache {
    /// Reserves room for `n_ctx` positions.
    pub(super) fn new(n_ctx: usize, n_kv_heads: usize, head_dim: usize, ty: CacheType) -> Result<KvCache, CacheError> {
        let width = row_width("n_kv_heads x head_dim", n_kv_heads.checked_mul(head_dim))?;
        let ty = match ty {
            CacheType::F32 => FloatType::F32,
            CacheType::F16 => FloatType::F16,
            CacheType::I8 => {
                let shape = CacheShape::Kv { n_kv_heads, head_dim };
                return Err(CacheError::Type { ty, shape: shape.to_string() });
            }
        };
        Ok(KvCache { head_dim, keys: FloatRows::new(n_ctx, width, ty)?, values: FloatRows::new(n_ctx, width, ty)? })
    }

    /// Appends rotated `keys` and `values`, both `[n, n_kv_heads, head_dim]`. Appends nothing when they do not fit, a
    /// length is no multiple of the row, or the two differ.
    pub(crate) fn append(&mut self, keys: &[f32], values: &[f32]) -> Result<(), CacheError> {
        let n = whole_rows("keys", keys, self.keys.width())?;
        if values.len() != keys.len() {
            let (expected, got) = (keys.len(), values.len());
            return Err(CacheError::BufferLength { name: "values", expected, got });
        }
        self.check_room(n)?;
        self.keys.append(keys);
        self.values.append(values);
        Ok(())
    }

    pub(super) fn fork(&self) -> Result<KvCache, CacheError> {
        Ok(KvCache { head_dim: self.head_dim, keys: self.keys.fork()?, values: self.values.fork()? })
    }

    /// Keys and values of all positions held, `[len, n_kv_heads, head_dim]`.
    pub(crate) fn rows(&self) -> (FloatSlice<'_>, FloatSlice<'_>) {
        (self.keys.rows(), self.values.rows())
    }

    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(super) fn check_room(&self, n: usize) -> Result<(), CacheError> {
        self.keys.check_room(n)
    }

    pub(super) fn n_ctx(&self) -> usize {
        self.keys.capacity()
    }

    pub(super) fn truncate(&mut self, len: usize) {
        self.keys.truncate(len);
        self.values.truncate(len);
    }

    pub(super) fn cache_type(&self) -> CacheType {
        self.keys.ty().into()
    }

    pub(super) fn shape(&self) -> CacheShape {
        CacheShape::Kv { n_kv_heads: self.keys.width() / self.head_dim, head_dim: self.head_dim }
    }
}
