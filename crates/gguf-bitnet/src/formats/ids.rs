//! From ids and names to types.

use std::str::FromStr;

use super::error::FormatError;
use super::tensor_type::TensorType;
use crate::error::Result;

/// A type that files of today do not have, or that has other layouts in them.
const OLD: &str = "it is of an old or temporary layout: convert the original model again with the present tools";

/// A type of the present format.
const OTHER: &str = "requantise the model from its F16 or BF16 original to Q4_K, Q6_K, Q8_0, TQ1_0 or TQ2_0";

/// Types of the GGML format that this crate does not decode: id, name and remedy, so that errors can name them.
const UNSUPPORTED: &[(u32, &str, &str)] = &[
    (4, "Q4_2", OLD),
    (5, "Q4_3", OLD),
    // Q8_1 and Q8_K hold activations while a program computes; no file should have them.
    (9, "Q8_1", OLD),
    (15, "Q8_K", OLD),
    (31, "Q4_0_4_4", OLD),
    (32, "Q4_0_4_8", OLD),
    (33, "Q4_0_8_8", OLD),
    (40, "NVFP4", OTHER),
    (41, "Q1_0", OTHER),
];

impl TensorType {
    /// The type with a GGML id. The id of I2_S gives the x86 layout, the id of BITNET_T158 the layout by rows, the id of
    /// Q2_0 blocks of 64.
    ///
    /// # Errors
    /// [`FormatError::UnsupportedType`] for a type of the format that is not decoded here,
    /// [`FormatError::UnknownType`] for any other id.
    pub(crate) fn from_id(id: u32) -> Result<TensorType> {
        if let Some(ty) = TensorType::all().find(|ty| ty.id() == Some(id)) {
            return Ok(ty);
        }
        Err(match UNSUPPORTED.iter().find(|entry| entry.0 == id) {
            Some(&(id, name, remedy)) => FormatError::UnsupportedType { id, name, remedy },
            // bitnet.cpp's ids 37 and 38 mean different layouts in different builds, so no layout is assumed for them.
            None => FormatError::UnknownType { id },
        }
        .into())
    }
}

/// `general.file_type` of a file most of whose weights have a type.
const FILE_TYPES: &[(TensorType, u32)] = &[
    (TensorType::F32, 0),
    (TensorType::F16, 1),
    (TensorType::Q8_0, 7),
    (TensorType::Q6K, 18),
    (TensorType::Bf16, 32),
    (TensorType::Tq1_0, 36),
    (TensorType::Tq2_0, 37),
    (TensorType::Q2_0, 41),
    // The numbers of bitnet.cpp and of ik_llama.cpp; another program may give them another meaning.
    (TensorType::I2s, 40),
    (TensorType::I2sArm, 40),
    (TensorType::Iq2Bn, 137),
];

impl TensorType {
    /// `general.file_type` of a file most of whose weights have this type; `None` for a type without a number.
    pub fn file_type(self) -> Option<u32> {
        FILE_TYPES.iter().find(|entry| entry.0 == self).map(|entry| entry.1)
    }
}

/// A name that is no tensor type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is no tensor type: use a GGUF name such as F16, BF16, Q8_0, Q6_K, Q2_0, TQ1_0 or TQ2_0")]
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
                TensorType::Q2_0G128 => assert_eq!(back, TensorType::Q2_0),
                TensorType::BitnetT158Flat => assert_eq!(back, TensorType::BitnetT158),
                _ => assert_eq!(back, ty),
            }
        }
        assert_eq!(TensorType::from_id(30).unwrap(), TensorType::Bf16);
    }

    #[test]
    fn ids_of_known_but_unsupported_types_are_named() {
        for &(id, name, remedy) in UNSUPPORTED {
            let error = TensorType::from_id(id).unwrap_err();
            assert!(matches!(error, Error::Format(FormatError::UnsupportedType { .. })));
            let text = error.to_string();
            assert!(text.contains(name) && text.contains(&format!("id {id}")) && text.contains(remedy), "{text}");
        }
        for id in [37, 38, 43, 157, 159, u32::MAX] {
            assert!(matches!(TensorType::from_id(id), Err(Error::Format(FormatError::UnknownType { .. }))), "{id}");
        }
    }

    #[test]
    fn no_id_is_both_decoded_and_unsupported() {
        for &(id, name, _) in UNSUPPORTED {
            assert!(TensorType::all().all(|ty| ty.id() != Some(id)), "{name}: delete its row");
        }
    }
}
