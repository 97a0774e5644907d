//! Defects of stored weights, which only reading them finds.

use std::fmt;

use serde::Serialize;

use crate::formats::TensorType;

/// What can be wrong with stored weights.
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
}

/// One kind of defect in one tensor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Defect {
    /// The tensor.
    pub tensor: String,
    /// Its type.
    #[serde(rename = "type")]
    pub ty: TensorType,
    /// What is wrong.
    pub kind: DefectKind,
    /// How often.
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
        };
        write!(f, "tensor `{}` ({}): {} {what}, first in row {}", self.tensor, self.ty, self.count, self.first_row)
    }
}
