//! RuvLLM's craftsman files, in which two standard type ids have another meaning.
//!
//! They differ from the standard in three points: id 30 is BITNET_T158 (the standard says BF16) and
//! id 29 is BF16 (the standard says IQ1_M); dimensions are stored outermost first; BITNET_T158
//! blocks run over the flattened tensor, the last one padded. `general.architecture` is `craftsman`
//! and `craftsman.bitnet.weight_encoding` is present. The standard files of this workspace carry
//! the latter key too, so the bytes up to the next tensor decide: 66 per 256 weights, or 2 per
//! weight.

use super::error::GgufError;
use super::header::{Header, RawInfo, fits_span};
use super::metadata::Metadata;
use crate::error::Result;
use crate::formats::TensorType;
use crate::source::SourceError;

/// Id of BITNET_T158 in these files, BF16 elsewhere.
const TERNARY_ID: u32 = 30;
/// Id of BF16 in these files, IQ1_M elsewhere.
const BF16_ID: u32 = 29;

/// Whether `header` is that of a craftsman file; `span` gives the bytes up to the next tensor.
pub(super) fn is_craftsman(header: &Header, span: impl Fn(usize) -> u64) -> bool {
    if !header.metadata.contains_key("craftsman.bitnet.weight_encoding") {
        return false;
    }
    if is_architecture(&header.metadata) {
        return true;
    }
    header.infos.iter().enumerate().any(|(i, info)| {
        let fit = Fit::of(info, span(i), header.alignment);
        info.type_id == TERNARY_ID && fit.ternary && !fit.bf16
    })
}

fn is_architecture(metadata: &Metadata) -> bool {
    matches!(metadata.str("general.architecture"), Ok(Some("craftsman")))
}

/// The type of a tensor of a craftsman file.
///
/// # Errors
/// [`GgufError::AmbiguousType`] when its span fits both or neither of the meanings of its id,
/// [`SourceError::TruncatedData`] when it is too short for either.
pub(super) fn tensor_type(info: &RawInfo, span: u64, alignment: u64) -> Result<TensorType> {
    let ternary = match info.type_id {
        TERNARY_ID => true,
        BF16_ID => false,
        id => return TensorType::from_id(id),
    };
    let elements = info.elements();
    let least = if ternary { bytes_as_ternary(elements).min(bytes_as_bf16(elements)) } else { bytes_as_bf16(elements) };
    if span < least {
        return Err(SourceError::TruncatedData { need: least, have: span }.into());
    }
    let fit = Fit::of(info, span, alignment);
    let ambiguous = |reading| GgufError::AmbiguousType { id: info.type_id, span, elements, reading };
    match (fit.ternary && ternary, fit.bf16) {
        (true, true) => Err(ambiguous("both BF16 and BITNET_T158").into()),
        (false, false) => Err(ambiguous("neither BF16 nor BITNET_T158").into()),
        (false, true) => Ok(TensorType::Bf16),
        (true, false) => {
            let cols = info.dims.last().copied().unwrap_or(1);
            let whole_rows = cols.is_multiple_of(TensorType::BitnetT158.block_len());
            Ok(if whole_rows { TensorType::BitnetT158 } else { TensorType::BitnetT158Flat })
        }
    }
}

/// The meanings of a tensor's id that fit its span.
struct Fit {
    ternary: bool,
    bf16: bool,
}

impl Fit {
    fn of(info: &RawInfo, span: u64, alignment: u64) -> Fit {
        let fits = |bytes: u64| fits_span(bytes, span, alignment);
        let elements = info.elements();
        Fit { ternary: fits(bytes_as_ternary(elements)), bf16: fits(bytes_as_bf16(elements)) }
    }
}

fn bytes_as_ternary(elements: u64) -> u64 {
    elements.div_ceil(256).saturating_mul(66)
}

fn bytes_as_bf16(elements: u64) -> u64 {
    elements.saturating_mul(2)
}
