//! Defects of stored weights. Opening a model does not find them; reading all weights does.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::formats::TensorType;
use crate::shown::Shown;

/// The kinds of defects that stored weights can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
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
    /// A matrix whose weights are all zero, or such a matrix in a stack: an expert without weights.
    ZeroMatrix,
    /// Zero bytes inside of a matrix that cut a row: a part of the file that was never written.
    ZeroRange,
    /// A norm whose weights are all zero, which leaves nothing of its input.
    ZeroNorm,
    /// More than half of the rows of a matrix are zero. A notice: a vocabulary that is padded or pruned, or a file whose
    /// rows were not all written.
    ZeroRows,
    /// One scale in all blocks of a matrix. A notice: weights of one magnitude, or a scale that was never set.
    ConstantScale,
    /// One scale in all blocks of most ternary matrices. A notice: BitNet has one scale per matrix, but not the same.
    SharedScale,
}

impl DefectKind {
    /// Whether the weights are missing rather than damaged.
    pub fn is_zero(self) -> bool {
        matches!(self, DefectKind::ZeroMatrix | DefectKind::ZeroRange | DefectKind::ZeroNorm)
    }
}

/// One kind of defect in one tensor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Defect {
    /// Name of the tensor as the file spells it.
    pub tensor: String,
    /// Storage type of the tensor.
    #[serde(rename = "type")]
    pub ty: TensorType,
    /// The kind of defect.
    pub kind: DefectKind,
    /// How many codes, scales, weights, matrices or bytes of the tensor have it.
    pub count: u64,
    /// How many of these the tensor has.
    pub of: u64,
    /// Row of the tensor flattened to `[rows, cols]` in which the first one lies, or its block starts.
    pub first_row: u64,
}

impl fmt::Display for Defect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Defect { tensor, ty, kind, count, of, first_row } = self;
        write!(f, "tensor `{}` ({ty}): ", Shown(tensor))?;
        let share = 100.0 * *count as f64 / (*of).max(1) as f64;
        let damaged = match kind {
            DefectKind::InvalidCode => "invalid codes (3 is no ternary weight)",
            DefectKind::ScaleNotFinite => "scales that are NaN or infinite",
            DefectKind::NaN => "weights that are NaN",
            DefectKind::Infinite => "weights that are infinite",
            DefectKind::ScaleNotPositive => "scales that are zero or negative",
            DefectKind::ZeroMatrix if *of == 1 => return f.write_str("all its weights are zero"),
            DefectKind::ZeroMatrix => {
                let what = if tensor.contains("exp") { "experts" } else { "matrices" };
                return write!(f, "{count} of {of} {what} have no weights: all of theirs are zero ({share:.1} %)");
            }
            DefectKind::ZeroRange => {
                return write!(
                    f,
                    "{count} of {of} bytes are a hole of zeros ({share:.1} %) that cuts rows, from row {first_row} on: this \
                     part of the file was never written"
                );
            }
            DefectKind::ZeroNorm => return write!(f, "all {of} weights of this norm are zero"),
            DefectKind::ZeroRows => {
                return write!(f, "{count} of {of} rows are zero ({share:.1} %), the first is row {first_row}");
            }
            DefectKind::ConstantScale => return write!(f, "all {of} blocks have the same scale"),
            DefectKind::SharedScale => {
                return write!(f, "{count} of {of} ternary matrices have the same scale in all blocks ({share:.1} %)");
            }
        };
        write!(f, "{count} {damaged} among {of}, first in row {first_row}")
    }
}
