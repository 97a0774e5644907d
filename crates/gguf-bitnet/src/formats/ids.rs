//! From ids and names to types.

use std::str::FromStr;

use super::error::FormatError;
use super::tensor_type::TensorType;
use crate::error::Result;

/// Types of the GGML format that this crate does not decode, with their ids, so that errors can name them.
const UNSUPPORTED: &[(u32, &str)] = &[
    (4, "Q4_2"),
    (5, "Q4_3"),
    (9, "Q8_1"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (29, "IQ1_M"),
    (31, "Q4_0_4_4"),
    (32, "Q4_0_4_8"),
    (33, "Q4_0_8_8"),
    (39, "MXFP4"),
    (40, "NVFP4"),
    (41, "Q1_0"),
    (42, "Q2_0"),
];

impl TensorType {
    /// The type with a GGML id. The id of I2_S gives the x86 layout, the id of BITNET_T158 the layout by rows.
    ///
    /// # Errors
    /// [`FormatError::UnsupportedType`] for a type of the format that is not decoded here,
    /// [`FormatError::UnknownType`] for any other id.
    pub(crate) fn from_id(id: u32) -> Result<TensorType> {
        if let Some(ty) = TensorType::all().find(|ty| ty.id() == Some(id)) {
            return Ok(ty);
        }
        Err(match UNSUPPORTED.iter().find(|entry| entry.0 == id) {
            Some(&(id, name)) => FormatError::UnsupportedType { id, name },
            // bitnet.cpp's ids 37 and 38 mean different layouts in different builds, so no layout is assumed for them.
            None => FormatError::UnknownType { id },
        }
        .into())
    }
}

/// A name that is no tensor type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is no tensor type: use a GGUF name such as F16, BF16, Q8_0, Q6_K, TQ1_0 or TQ2_0")]
pub struct UnknownTypeName {
    /// The name as it was given.
    pub name: String,
}

impl FromStr for TensorType {
    type Err = UnknownTypeName;

    /// Reads a name in either case, with `-` for `_` allowed.
    fn from_str(name: &str) -> Result<TensorType, UnknownTypeName> {
        let plain = name.replace('-', "_");
        TensorType::all()
            .find(|ty| ty.name().eq_ignore_ascii_case(&plain))
            .ok_or_else(|| UnknownTypeName { name: name.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn ids_read_back_to_their_type() {
        for (ty, id) in TensorType::all().filter_map(|ty| Some((ty, ty.id()?))) {
            let back = TensorType::from_id(id).unwrap();
            match ty {
                TensorType::I2sArm => assert_eq!(back, TensorType::I2s),
                TensorType::BitnetT158Flat => assert_eq!(back, TensorType::BitnetT158),
                _ => assert_eq!(back, ty),
            }
        }
        assert_eq!(TensorType::from_id(30).unwrap(), TensorType::Bf16);
    }

    #[test]
    fn ids_of_known_but_unsupported_types_are_named() {
        for (id, name) in [(16, "IQ2_XXS"), (21, "IQ3_S"), (23, "IQ4_XS"), (39, "MXFP4"), (40, "NVFP4"), (41, "Q1_0")] {
            let error = TensorType::from_id(id).unwrap_err();
            assert!(matches!(error, Error::Format(FormatError::UnsupportedType { .. })));
            assert!(error.to_string().contains(name), "{error}");
        }
        for id in [37, 38, 43, 157, 159, u32::MAX] {
            assert!(matches!(TensorType::from_id(id), Err(Error::Format(FormatError::UnknownType { .. }))), "{id}");
        }
    }

    #[test]
    fn no_id_is_both_decoded_and_unsupported() {
        for &(id, name) in UNSUPPORTED {
            assert!(TensorType::all().all(|ty| ty.id() != Some(id)), "{name}: delete its row");
        }
    }
}
