//! What attention remembers of earlier positions.
//!
//! ```text
//! LatentCache   one row per position:  [ normalised latent c | rotated shared key k_pe ]
//!                                        kv_lora               qk_rope
//! KvCache       two rows per position: [ rotated keys of all kv heads ] and [ values ]
//! ```
//!
//! GLM-4.7-Flash keeps 576 values per position and layer this way, instead of 20 heads x
//! (256 + 256): 54,144 bytes per token over 47 layers at F16, 30,268 at I8.
//!
//! **Invariant**: a cache holds positions `0 .. len` without a gap; memory for `n_ctx` positions
//! is reserved when it is made; more than `n_ctx` is an error, never a silent truncation.

use std::fmt;

use crate::Error;
use crate::plane::{FloatType, Plane};
use crate::quantized::Int8Latents;

/// The number type of cached values. Values are rounded when they are appended, so every score,
/// also a token's score with itself, sees the rounded ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheType {
    /// Exact; for reference runs.
    F32,
    /// Half the memory.
    #[default]
    F16,
    /// Latents as INT8 with one scale each, their rotated keys as F16: for latent attention only.
    I8,
}

impl fmt::Display for CacheType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CacheType::F32 => "f32",
            CacheType::F16 => "f16",
            CacheType::I8 => "i8",
        })
    }
}

/// What one layer stores per position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheShape {
    /// The latent and the shared rotated key of multi-head latent attention.
    Latent {
        /// Width of the latent.
        kv_lora: usize,
        /// Width of the rotated key.
        qk_rope: usize,
    },
    /// Keys and values of grouped-query attention.
    Kv {
        /// Key and value heads.
        n_kv_heads: usize,
        /// Width of a head.
        head_dim: usize,
    },
}

impl CacheShape {
    /// Values stored per position.
    #[must_use]
    pub fn values_per_token(self) -> usize {
        match self {
            CacheShape::Latent { kv_lora, qk_rope } => kv_lora.saturating_add(qk_rope),
            CacheShape::Kv { n_kv_heads, head_dim } => n_kv_heads.saturating_mul(head_dim).saturating_mul(2),
        }
    }

    /// Bytes stored per position: what to multiply by a context length and the number of layers
    /// to know the memory a context needs. 0 for a type that this shape has no cache of.
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

/// The cache of one layer of latent attention, `[len, kv_lora + qk_rope]`.
#[derive(Debug)]
pub struct LatentCache {
    kv_lora: usize,
    qk_rope: usize,
    pub(crate) rows: LatentRows,
}

/// The rows of a [`LatentCache`].
#[derive(Debug)]
pub(crate) enum LatentRows {
    Float(Plane),
    Int8(Int8Latents),
}

/// The same expression for both kinds of rows.
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
    ///
    /// # Errors
    /// [`Error::CacheMemory`] when the memory cannot be had, [`Error::Config`] when a row would
    /// be empty.
    pub fn new(n_ctx: usize, kv_lora: usize, qk_rope: usize, ty: CacheType) -> Result<LatentCache, Error> {
        let width = row_width("kv_lora + qk_rope", kv_lora.checked_add(qk_rope))?;
        let rows = match ty {
            CacheType::F32 => LatentRows::Float(Plane::new(n_ctx, width, FloatType::F32)?),
            CacheType::F16 => LatentRows::Float(Plane::new(n_ctx, width, FloatType::F16)?),
            CacheType::I8 => LatentRows::Int8(Int8Latents::new(n_ctx, kv_lora, qk_rope)?),
        };
        Ok(LatentCache { kv_lora, qk_rope, rows })
    }

    /// Appends `latents` `[n, kv_lora + qk_rope]`: normalised latents and rotated keys.
    ///
    /// # Errors
    /// [`Error::ContextFull`] when they do not fit, [`Error::BufferLength`] when the length is no
    /// multiple of the row; nothing is appended then.
    pub fn append(&mut self, latents: &[f32]) -> Result<(), Error> {
        let n = whole_rows("latents", latents, self.kv_lora + self.qk_rope)?;
        self.check_room(n)?;
        of_rows!(&mut self.rows, rows => rows.append(latents));
        Ok(())
    }

    /// Reads position `position` as `[kv_lora + qk_rope]` values.
    ///
    /// # Panics
    /// When the position is not held or `out` has another length.
    pub fn read(&self, position: usize, out: &mut [f32]) {
        assert_eq!(out.len(), self.kv_lora + self.qk_rope, "a position is one row");
        of_rows!(&self.rows, rows => rows.read(position, out));
    }

    fn fork(&self) -> Result<LatentCache, Error> {
        let rows = match &self.rows {
            LatentRows::Float(rows) => LatentRows::Float(rows.fork()?),
            LatentRows::Int8(rows) => LatentRows::Int8(rows.fork()?),
        };
        Ok(LatentCache { rows, ..*self })
    }

    pub(crate) fn len(&self) -> usize {
        of_rows!(&self.rows, rows => rows.len())
    }

    pub(crate) fn check_room(&self, n: usize) -> Result<(), Error> {
        of_rows!(&self.rows, rows => rows.check_room(n))
    }

    fn n_ctx(&self) -> usize {
        of_rows!(&self.rows, rows => rows.capacity())
    }

    fn truncate(&mut self, len: usize) {
        of_rows!(&mut self.rows, rows => rows.truncate(len));
    }

    fn cache_type(&self) -> CacheType {
        match &self.rows {
            LatentRows::Float(rows) => rows.ty().into(),
            LatentRows::Int8(_) => CacheType::I8,
        }
    }

    /// What a position consists of.
    #[must_use]
    pub fn shape(&self) -> CacheShape {
        CacheShape::Latent { kv_lora: self.kv_lora, qk_rope: self.qk_rope }
    }
}

impl From<FloatType> for CacheType {
    fn from(ty: FloatType) -> CacheType {
        match ty {
            FloatType::F32 => CacheType::F32,
            FloatType::F16 => CacheType::F16,
        }
    }
}

/// The cache of one layer of grouped-query attention: keys and values `[len, n_kv_heads, head_dim]`.
#[derive(Debug)]
pub struct KvCache {
    head_dim: usize,
    pub(crate) keys: Plane,
    pub(crate) values: Plane,
}

impl KvCache {
    /// Reserves room for `n_ctx` positions.
    ///
    /// # Errors
    /// [`Error::CacheMemory`] when the memory cannot be had, [`Error::Config`] when a row would
    /// be empty, [`Error::CacheType`] for [`CacheType::I8`].
    pub fn new(n_ctx: usize, n_kv_heads: usize, head_dim: usize, ty: CacheType) -> Result<KvCache, Error> {
        let width = row_width("n_kv_heads x head_dim", n_kv_heads.checked_mul(head_dim))?;
        let ty = match ty {
            CacheType::F32 => FloatType::F32,
            CacheType::F16 => FloatType::F16,
            CacheType::I8 => {
                let shape = CacheShape::Kv { n_kv_heads, head_dim };
                return Err(Error::CacheType { ty, shape: shape.to_string() });
            }
        };
        Ok(KvCache { head_dim, keys: Plane::new(n_ctx, width, ty)?, values: Plane::new(n_ctx, width, ty)? })
    }

    /// Appends rotated `keys` and `values`, both `[n, n_kv_heads, head_dim]`.
    ///
    /// # Errors
    /// [`Error::ContextFull`] when they do not fit, [`Error::BufferLength`] when a length is no
    /// multiple of the row or the two differ; nothing is appended then.
    pub fn append(&mut self, keys: &[f32], values: &[f32]) -> Result<(), Error> {
        let n = whole_rows("keys", keys, self.keys.width())?;
        if values.len() != keys.len() {
            let (expected, got) = (keys.len(), values.len());
            return Err(Error::BufferLength { name: "values", expected, got });
        }
        self.keys.check_room(n)?;
        self.keys.append(keys);
        self.values.append(values);
        Ok(())
    }

    /// Reads position `position` as keys and values, each `[n_kv_heads, head_dim]`.
    ///
    /// # Panics
    /// When the position is not held or a slice has another length.
    pub fn read(&self, position: usize, keys: &mut [f32], values: &mut [f32]) {
        self.keys.read(position, keys);
        self.values.read(position, values);
    }

    fn fork(&self) -> Result<KvCache, Error> {
        Ok(KvCache { head_dim: self.head_dim, keys: self.keys.fork()?, values: self.values.fork()? })
    }

    /// What a position consists of.
    #[must_use]
    pub fn shape(&self) -> CacheShape {
        CacheShape::Kv { n_kv_heads: self.keys.width() / self.head_dim, head_dim: self.head_dim }
    }
}

/// The cache of one layer, of either kind.
#[derive(Debug)]
pub enum LayerCache {
    /// Multi-head latent attention.
    Latent(LatentCache),
    /// Grouped-query attention.
    Kv(KvCache),
}

impl LayerCache {
    /// Reserves room for `n_ctx` positions of `shape`.
    ///
    /// # Errors
    /// As [`LatentCache::new`] and [`KvCache::new`].
    pub fn new(shape: CacheShape, n_ctx: usize, ty: CacheType) -> Result<LayerCache, Error> {
        Ok(match shape {
            CacheShape::Latent { kv_lora, qk_rope } => {
                LayerCache::Latent(LatentCache::new(n_ctx, kv_lora, qk_rope, ty)?)
            }
            CacheShape::Kv { n_kv_heads, head_dim } => LayerCache::Kv(KvCache::new(n_ctx, n_kv_heads, head_dim, ty)?),
        })
    }

    /// Positions held.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            LayerCache::Latent(cache) => cache.len(),
            LayerCache::Kv(cache) => cache.keys.len(),
        }
    }

    /// Whether no position is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Positions there is room for.
    #[must_use]
    pub fn n_ctx(&self) -> usize {
        match self {
            LayerCache::Latent(cache) => cache.n_ctx(),
            LayerCache::Kv(cache) => cache.keys.capacity(),
        }
    }

    /// The number type of the values.
    #[must_use]
    pub fn cache_type(&self) -> CacheType {
        match self {
            LayerCache::Latent(cache) => cache.cache_type(),
            LayerCache::Kv(cache) => cache.keys.ty().into(),
        }
    }

    /// What a position consists of.
    #[must_use]
    pub fn shape(&self) -> CacheShape {
        match self {
            LayerCache::Latent(cache) => cache.shape(),
            LayerCache::Kv(cache) => cache.shape(),
        }
    }

    /// Bytes of one position.
    #[must_use]
    pub fn bytes_per_token(&self) -> usize {
        self.shape().bytes_per_token(self.cache_type())
    }

    /// Refuses `n` more positions that do not fit.
    ///
    /// # Errors
    /// [`Error::ContextFull`] with the room and the need.
    pub fn check_room(&self, n: usize) -> Result<(), Error> {
        match self {
            LayerCache::Latent(cache) => cache.check_room(n),
            LayerCache::Kv(cache) => cache.keys.check_room(n),
        }
    }

    /// Forgets every position.
    pub fn reset(&mut self) {
        self.truncate(0);
    }

    /// Forgets every position from `len` on; a `len` beyond the end changes nothing.
    pub fn truncate(&mut self, len: usize) {
        match self {
            LayerCache::Latent(cache) => cache.truncate(len),
            LayerCache::Kv(cache) => {
                cache.keys.truncate(len);
                cache.values.truncate(len);
            }
        }
    }

    /// An independent copy with the same room.
    ///
    /// # Errors
    /// [`Error::CacheMemory`] when the memory cannot be had.
    pub fn fork(&self) -> Result<LayerCache, Error> {
        Ok(match self {
            LayerCache::Latent(cache) => LayerCache::Latent(cache.fork()?),
            LayerCache::Kv(cache) => LayerCache::Kv(cache.fork()?),
        })
    }
}

/// The caches of all layers of a model, with one length.
///
/// The layers of a step are written one after the other, so between two steps, and only then, all
/// layers hold the same positions. After a failed step, `truncate` to the length before it.
///
/// ```
/// use mla_attention::{CacheShape, CacheType, CompressedMlaCache};
///
/// let shape = CacheShape::Latent { kv_lora: 512, qk_rope: 64 };
/// let cache = CompressedMlaCache::new(vec![shape; 47], 16, CacheType::F16)?;
/// assert_eq!(cache.bytes_per_token(), 54_144);
/// assert_eq!((cache.len(), cache.n_ctx()), (0, 16));
/// # Ok::<(), mla_attention::Error>(())
/// ```
#[derive(Debug)]
pub struct CompressedMlaCache {
    n_ctx: usize,
    layers: Vec<LayerCache>,
}

impl CompressedMlaCache {
    /// Reserves room for `n_ctx` positions in one cache per shape.
    ///
    /// # Errors
    /// As [`LayerCache::new`].
    pub fn new(
        shapes: impl IntoIterator<Item = CacheShape>,
        n_ctx: usize,
        ty: CacheType,
    ) -> Result<CompressedMlaCache, Error> {
        let layers = shapes.into_iter().map(|shape| LayerCache::new(shape, n_ctx, ty));
        Ok(CompressedMlaCache { n_ctx, layers: layers.collect::<Result<_, _>>()? })
    }

    /// Positions held: those that every layer holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.layers.iter().map(LayerCache::len).min().unwrap_or(0)
    }

    /// Whether no position is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Positions there is room for.
    #[must_use]
    pub fn n_ctx(&self) -> usize {
        self.n_ctx
    }

    /// The layers, first to last.
    #[must_use]
    pub fn layers(&self) -> &[LayerCache] {
        &self.layers
    }

    /// The layers, first to last, to be appended to.
    pub fn layers_mut(&mut self) -> &mut [LayerCache] {
        &mut self.layers
    }

    /// Bytes of one position over all layers.
    #[must_use]
    pub fn bytes_per_token(&self) -> usize {
        self.layers.iter().map(LayerCache::bytes_per_token).sum()
    }

    /// Refuses `n` more positions that do not fit.
    ///
    /// # Errors
    /// [`Error::ContextFull`] with the room and the need.
    pub fn check_room(&self, n: usize) -> Result<(), Error> {
        let need = self.len().saturating_add(n);
        if need > self.n_ctx {
            return Err(Error::ContextFull { have: self.n_ctx, need });
        }
        Ok(())
    }

    /// Forgets every position.
    pub fn reset(&mut self) {
        self.truncate(0);
    }

    /// Forgets every position from `len` on, in every layer.
    pub fn truncate(&mut self, len: usize) {
        for layer in &mut self.layers {
            layer.truncate(len);
        }
    }

    /// An independent copy with the same room.
    ///
    /// # Errors
    /// [`Error::CacheMemory`] when the memory cannot be had.
    pub fn fork(&self) -> Result<CompressedMlaCache, Error> {
        let layers = self.layers.iter().map(LayerCache::fork);
        Ok(CompressedMlaCache { n_ctx: self.n_ctx, layers: layers.collect::<Result<_, _>>()? })
    }
}

/// Refuses a cache of another shape than a layer's own.
pub(crate) fn check_shape(expected: CacheShape, got: CacheShape) -> Result<(), Error> {
    if got == expected {
        return Ok(());
    }
    Err(Error::CacheMismatch { expected: expected.to_string(), got: got.to_string() })
}

fn row_width(field: &'static str, width: Option<usize>) -> Result<usize, Error> {
    match width {
        Some(width) if width > 0 => Ok(width),
        _ => Err(Error::Config {
            field,
            expected: "at least 1 and within the address space".into(),
            got: width.map_or("beyond it".into(), |w| w.to_string()),
        }),
    }
}

fn whole_rows(name: &'static str, values: &[f32], width: usize) -> Result<usize, Error> {
    if values.len().is_multiple_of(width) {
        return Ok(values.len() / width);
    }
    let expected = values.len().next_multiple_of(width);
    Err(Error::BufferLength { name, expected, got: values.len() })
}
