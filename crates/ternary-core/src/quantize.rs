//! From dense weights to ternary blocks.
//!
//! **Invariant**: the result depends on the block's weights and importances alone: same bits on
//! every machine. A block whose scale is 0 has only zero trits.
//!
//! ```
//! use ternary_core::{Rounding, quantize_block};
//!
//! let mut trits = [0; 4];
//! let scale = quantize_block(Rounding::LeastSquares, &[0.9, -1.1, 0.1, 1.0], None, &mut trits);
//! assert_eq!(trits, [1, -1, 0, 1]);
//! assert_eq!(scale.to_f32(), 1.0);
//! ```

mod absmean;
mod least_squares;
mod scale;

pub use scale::stored_scale;

use half::f16;

use crate::{BLOCK, Error, Packing, Result};

/// The rule that turns weights into trits and a scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rounding {
    /// The published BitNet b1.58 rule: scale by the mean magnitude, round, clamp. Ignores
    /// importance.
    AbsMean,
    /// The trits and scale of least weighted squared error, found exactly.
    LeastSquares,
}

/// Quantises one block: trits to `trits`, the scale as the result, `weights[i] ≈ trits[i] * scale`.
///
/// `importance`, where given, weighs the squared error of each weight; where all of it is 0 it is ignored. A scale
/// beyond the range of f16 becomes the largest finite f16.
///
/// Weights must be finite, importances finite and not negative. Where they are not, the scale is
/// NaN, which no strict reader accepts, and the trits are 0; [`quantize_row`] makes it an error.
pub fn quantize_block<const N: usize>(
    rounding: Rounding,
    weights: &[f32; N],
    importance: Option<&[f32; N]>,
    trits: &mut [i8; N],
) -> f16 {
    trits.fill(0);
    let sound = weights.iter().all(|w| w.is_finite()) && importance.is_none_or(|h| h.iter().all(|h| is_importance(*h)));
    if !sound {
        return f16::NAN;
    }
    let scale = match rounding {
        Rounding::AbsMean => absmean::quantize(weights, trits),
        Rounding::LeastSquares => least_squares::quantize(weights, importance, trits),
    };
    if scale == f16::ZERO {
        trits.fill(0);
    }
    scale
}

/// Quantises and packs a row: `row` and `importance` are `[cols]`, `out` the packed row.
///
/// # Errors
/// [`Error::NotBlocks`] where `cols` is no multiple of 256, [`Error::Span`] where `out` has the
/// wrong length, [`Error::NotFinite`] and [`Error::BadImportance`] with the block in the row.
///
/// # Panics
/// If `importance` has another length than `row`.
pub fn quantize_row(
    packing: Packing,
    rounding: Rounding,
    row: &[f32],
    importance: Option<&[f32]>,
    out: &mut [u8],
) -> Result<()> {
    let expected_bytes = packing.row_bytes(row.len())?;
    if out.len() != expected_bytes {
        return Err(Error::Span { expected_bytes, got_bytes: out.len() });
    }
    if let Some(importance) = importance {
        assert_eq!(importance.len(), row.len(), "one importance per weight");
    }
    let importance = importance.map(|h| h.as_chunks::<BLOCK>().0);
    let mut trits = [0; BLOCK];
    let packed = out.chunks_exact_mut(packing.block_bytes());
    for (block, (weights, out)) in row.as_chunks().0.iter().zip(packed).enumerate() {
        let importance = importance.map(|h| &h[block]);
        let scale = quantize_block(rounding, weights, importance, &mut trits);
        if scale.is_nan() {
            let finite = weights.iter().all(|w| w.is_finite());
            return Err(if finite { Error::BadImportance { block } } else { Error::NotFinite { block } });
        }
        packing.encode(&trits, scale, out);
    }
    Ok(())
}

/// Whether `h` can be an importance: finite and not negative.
fn is_importance(h: f32) -> bool {
    h >= 0.0 && h.is_finite()
}
