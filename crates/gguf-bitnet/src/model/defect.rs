//! Defects of stored weights. Opening a model does not find them; reading all weights does.

use std::fmt;

use serde::Serialize;

use crate::formats::TensorType;

/// The kinds of defects that stored weights can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DefectKind {
    /// A two-bit code 3.
    InvalidCode,
    /// A scale (or minimum) that is NaN or infinite.
    ScaleNotFinite,
    /// A weight that is NaN.
    NaN,
    /// A weight that is infinite.
    Infinite,
    /// A scale of 8-bit weights that is zero or negative.
    ScaleNotPositive,
}

/// One kind of defect in one tensor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Defect {
    /// Name of the tensor as the file spells it.
    pub tensor: String,
    /// Storage type of the tensor.
    #[serde(rename = "type")]
    pub ty: TensorType,
    /// The kind of defect.
    pub kind: DefectKind,
    /// How many codes, scales or weights of the tensor have it.
    pub count: u64,
    /// Row of the tensor flattened to `[rows, cols]` in which the first one lies, or its block starts.
    pub first_row: u64,
}

impl fmt::Display for Defect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            DefectKind::InvalidCode => "invalid codes (3 is no ternary weight)",
            DefectKind::ScaleNotFinite => "scales that are NaN or infinite",
            DefectKind::NaN => "weights that are NaN",
            DefectKind::Infinite => "weights that are infinite",
            DefectKind::ScaleNotPositive => "scales that are zero or negative",
        };
        write!(f, "tensor `{}` ({}): {} {what}, first in row {}", self.tensor, self.ty, self.count, self.first_row)
    }
}
