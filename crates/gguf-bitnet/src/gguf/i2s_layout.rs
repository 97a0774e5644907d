//! The layout of I2_S codes, which the type id leaves open: bitnet.cpp writes one for x86 and another for ARM under one number.
//!
//! Files of this workspace state the layout for ARM under [`KEY`]; a file without the key has the layout that its opener names.

use ternary_core::I2sLayout;

use super::error::GgufError;
use super::metadata::Metadata;
use crate::error::Result;
use crate::formats::TensorType;

/// The key that states the layout: `x86` or `arm`.
pub(crate) const KEY: &str = "craftsman.bitnet.i2s_layout";
/// Value of [`KEY`] for the layout of ARM.
pub(crate) const ARM: &str = "arm";
const X86: &str = "x86";

/// The layout that a file states; `None` for files of other programs.
///
/// # Errors
/// [`GgufError::I2sLayout`] for another value than `x86` and `arm`.
pub(super) fn stated(metadata: &Metadata) -> Result<Option<I2sLayout>> {
    match metadata.str(KEY)? {
        None => Ok(None),
        Some(X86) => Ok(Some(I2sLayout::X86)),
        Some(ARM) => Ok(Some(I2sLayout::Arm)),
        Some(value) => Err(GgufError::I2sLayout { value: value.to_owned() }.into()),
    }
}

/// Checks that a file to be written states the layout of its I2_S tensors: a reader would scramble them otherwise.
///
/// # Errors
/// [`GgufError::I2sUnstated`].
pub(super) fn check(layout: Option<I2sLayout>, ty: TensorType) -> Result<()> {
    match (ty, layout) {
        (TensorType::I2sArm, None | Some(I2sLayout::X86)) => {
            Err(GgufError::I2sUnstated { ty, key: KEY, value: ARM }.into())
        }
        (TensorType::I2s, Some(I2sLayout::Arm)) => Err(GgufError::I2sUnstated { ty, key: KEY, value: X86 }.into()),
        _ => Ok(()),
    }
}
