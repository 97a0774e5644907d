//! The places of all layers in a block of 64 positions.
//!
//! ```text
//! F32, F16   per layer  latents  [64, kv_lora + qk_rope]
//!                       or keys  [64, n_kv_heads x head_dim], then values in the same shape
//! I8         codes   per layer [vectors, width / 4, 64, 4]  i8   each vector rounded as activations are: absmax / 127
//!            scales  per layer [vectors, 64]                f32
//!            floats  per layer [qk_rope, 64]                f16  the rotated key of latent attention
//! ```
//!
//! A *vector* is the part of a position that has one INT8 scale: the latent, or the key or the value of one head. A width
//! that is no multiple of four is padded with zeros. A product with INT8 rows multiplies the same columns of all 64
//! positions at a time, so equal columns of neighbouring positions lie side by side.

use super::cache_type::CacheType;
use super::error::CacheError;
use super::shape::{CacheShape, row_width};

/// Positions in a block.
pub(crate) const BLOCK: usize = 64;

/// The places of all layers in a block.
#[derive(Debug, PartialEq, Eq)]
pub struct CacheLayout {
    ty: CacheType,
    parts: Vec<LayerPart>,
    /// The end of the last part.
    end: Starts,
}

/// One layer within a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LayerPart {
    pub(crate) shape: CacheShape,
    pub(crate) start: Starts,
}

/// The start of a layer in each array of a block. Arrays that the number type does not have stay empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Starts {
    /// F32 or F16 values.
    pub(crate) values: usize,
    /// Groups of INT8 codes.
    pub(crate) codes: usize,
    /// Groups of scales: one per vector.
    pub(crate) scales: usize,
    /// Groups of F16 values beside INT8 codes.
    pub(crate) floats: usize,
}

impl CacheLayout {
    /// The layout of layers of these shapes.
    pub(super) fn new(shapes: impl IntoIterator<Item = CacheShape>, ty: CacheType) -> Result<CacheLayout, CacheError> {
        let (mut parts, mut end) = (Vec::new(), Starts::default());
        for shape in shapes {
            let too_many = || CacheError::RowWidth { field: "all layers", got: "too many".into() };
            row_width("one layer", shape.values_per_token())?;
            parts.push(LayerPart { shape, start: end });
            end = end.behind(shape, ty).ok_or_else(too_many)?;
        }
        Ok(CacheLayout { ty, parts, end })
    }

    /// The number type of the values.
    #[must_use]
    pub fn cache_type(&self) -> CacheType {
        self.ty
    }

    /// The shapes of the layers, first to last.
    pub fn shapes(&self) -> impl ExactSizeIterator<Item = CacheShape> + '_ {
        self.parts.iter().map(|part| part.shape)
    }

    /// Bytes of one position over all layers.
    #[must_use]
    pub fn bytes_per_token(&self) -> usize {
        self.shapes().fold(0, |sum, shape| sum.saturating_add(shape.bytes_per_token(self.ty)))
    }

    /// The shape of `layer`, or the error that there is none.
    pub(crate) fn shape(&self, layer: usize) -> Result<CacheShape, CacheError> {
        let missing = || CacheError::Mismatch {
            expected: format!("at least {} layers", layer.saturating_add(1)),
            got: format!("{} layers", self.parts.len()),
        };
        self.parts.get(layer).map(|part| part.shape).ok_or_else(missing)
    }

    pub(crate) fn part(&self, layer: usize) -> LayerPart {
        self.parts[layer]
    }

    /// The number of values, codes, scales and floats in a block.
    pub(super) fn end(&self) -> Starts {
        self.end
    }

    /// The largest width of an INT8 vector.
    pub(super) fn widest_vector(&self) -> usize {
        self.shapes().map(|shape| shape.coded().width).max().unwrap_or(0)
    }
}

impl Starts {
    /// The start of the layer behind one of `shape`; `None` beyond the address space.
    fn behind(self, shape: CacheShape, ty: CacheType) -> Option<Starts> {
        let mut next = self;
        match ty {
            CacheType::F32 | CacheType::F16 => {
                next.values = self.values.checked_add(shape.values_per_token()?.checked_mul(BLOCK)?)?;
            }
            CacheType::I8 => {
                let coded = shape.coded();
                next.codes = self.codes.checked_add(coded.vectors.checked_mul(coded.width.div_ceil(4))?)?;
                next.scales = self.scales.checked_add(coded.vectors)?;
                next.floats = self.floats.checked_add(coded.floats)?;
            }
        }
        Some(next)
    }
}
