//! The facts about one stored tensor that its file states before its data.

use crate::formats::{Invalid, TensorType};

/// Name, shape, type and size of a stored tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// The name as the file spells it.
    pub name: String,
    /// Row-major dimensions, outermost first (GGUF's `ne` is the reverse); empty for a scalar.
    pub shape: Vec<usize>,
    /// Storage type of the elements.
    pub ty: TensorType,
    /// Stored size in bytes.
    pub bytes: u64,
}

impl TensorInfo {
    /// Number of elements: the product of the shape (1 for a scalar).
    ///
    /// The product of a validated source's shape fits; of any other it saturates.
    pub fn elements(&self) -> usize {
        self.shape.iter().fold(1, |n, &d| n.saturating_mul(d))
    }

    /// Length of a row: the last dimension (1 for a scalar).
    pub fn cols(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// Number of rows of the tensor flattened to `[rows, cols]`: the product of the leading
    /// dimensions (1 for a vector or a scalar).
    pub fn rows(&self) -> usize {
        let lead = self.shape.len().saturating_sub(1);
        self.shape[..lead].iter().fold(1, |n, &d| n.saturating_mul(d))
    }

    /// Whether the tensor is a matrix of weights, or a stack of them, which no model has all zero. Vectors other than
    /// norms may be zero (biases, corrections), and so may integers (codes of other programs), the second factor of an
    /// adapter, and sums over experts that no text reached.
    pub(crate) fn is_matrix(&self) -> bool {
        const MAY_BE_ZERO: [&str; 4] = ["bias", "lora_", ".in_sum", ".counts"];
        self.cols() > 1
            && self.rows() > 1
            && !matches!(self.ty.format().invalid(), Invalid::Never)
            && !MAY_BE_ZERO.iter().any(|part| self.name.contains(part))
    }

    /// Whether the tensor is the weights of a norm, by its name. They multiply their input, so that no model has them all zero.
    pub(crate) fn is_norm(&self) -> bool {
        self.shape.len() == 1
            && self.cols() > 1
            && self.name.contains("norm")
            && self.name.ends_with("weight")
            && !matches!(self.ty.format().invalid(), Invalid::Never)
    }
}
