//! The cache of one layer of latent attention.

use super::cache_type::CacheType;
use super::error::CacheError;
use super::float_rows::{FloatRows, FloatType};
use super::int8_latents::Int8Latents;
use super::shape::{CacheShape, row_width, whole_rows};

/// The cache of one layer of latent attention, `[len, kv_lora + qk_rope]`.
#[derive(Debug)]
pub struct LatentCache {
    kv_lora: usize,
    qk_rope: usize,
    rows: LatentRows,
}

/// The rows of a [`LatentCache`].
#[derive(Debug)]
pub(crate) enum LatentRows {
    Float(FloatRows),
    Int8(Int8Latents),
}

/// Evaluates the same expression for either kind of rows.
macro_rules! of_rows {
    ($cache:expr, $rows:ident => $body:expr) => {
        match $cache {
            LatentRows::Float($rows) => $body,
            LatentRows::Int8($rows) => $body,
        }
    };
}

impl LatentCache {
    /// Reserves room for `n_ctx` positions.
    pub(super) fn new(n_ctx: usize, kv_lora: usize, qk_rope: usize, ty: CacheType) -> Result<LatentCache, CacheError> {
        let width = row_width("kv_lora + qk_rope", kv_lora.checked_add(qk_rope))?;
        let rows = match ty {
            CacheType::F32 => LatentRows::Float(FloatRows::new(n_ctx, width, FloatType::F32)?),
            CacheType::F16 => LatentRows::Float(FloatRows::new(n_ctx, width, FloatType::F16)?),
            CacheType::I8 => LatentRows::Int8(Int8Latents::new(n_ctx, kv_lora, qk_rope)?),
        };
        Ok(LatentCache { kv_lora, qk_rope, rows })
    }

    /// Appends `latents` `[n, kv_lora + qk_rope]`: normalised latents and rotated keys.
    ///
    /// # Errors
    /// [`CacheError::Full`] when they do not fit, [`CacheError::BufferLength`] when the length is no multiple of the
    /// row; nothing is appended then.
    pub fn append(&mut self, latents: &[f32]) -> Result<(), CacheError> {
        let n = whole_rows("latents", latents, self.kv_lora + self.qk_rope)?;
        self.check_room(n)?;
        of_rows!(&mut self.rows, rows => rows.append(latents));
        Ok(())
    }

    pub(super) fn fork(&self) -> Result<LatentCache, CacheError> {
        let rows = match &self.rows {
            LatentRows::Float(rows) => LatentRows::Float(rows.fork()?),
            LatentRows::Int8(rows) => LatentRows::Int8(rows.fork()?),
        };
        Ok(LatentCache { rows, ..*self })
    }

    pub(crate) fn rows(&self) -> &LatentRows {
        &self.rows
    }

    pub(crate) fn len(&self) -> usize {
        of_rows!(&self.rows, rows => rows.len())
    }

    pub(super) fn check_room(&self, n: usize) -> Result<(), CacheError> {
        of_rows!(&self.rows, rows => rows.check_room(n))
    }

    pub(super) fn n_ctx(&self) -> usize {
        of_rows!(&self.rows, rows => rows.capacity())
    }

    pub(super) fn truncate(&mut self, len: usize) {
        of_rows!(&mut self.rows, rows => rows.truncate(len));
    }

    pub(super) fn cache_type(&self) -> CacheType {
        match &self.rows {
            LatentRows::Float(rows) => rows.ty().into(),
            LatentRows::Int8(_) => CacheType::I8,
        }
    }

    pub(super) fn shape(&self) -> CacheShape {
        CacheShape::Latent { kv_lora: self.kv_lora, qk_rope: self.qk_rope }
    }
}
