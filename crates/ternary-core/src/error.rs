//! Everything that can be wrong with ternary data, one variant per defect.
//!
//! **Invariant**: a defect inside a tensor names its block, counted over the whole tensor from 0.

/// Result of the fallible functions of this crate.
pub type Result<T> = core::result::Result<T, Error>;

/// A defect of ternary data; its sentence ends in the remedy.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the sentence of a variant says what its fields are")]
pub enum Error {
    /// A row (or a whole tensor, for I2_S) does not divide into blocks.
    #[error(
        "{weights} weights do not divide into blocks of {block}: store this tensor in a type with \
         a smaller block, such as Q8_0"
    )]
    NotBlocks { weights: usize, block: usize },
    /// The shape is larger than the address space.
    #[error("a shape of [{rows}, {cols}] is too large for this machine: check the file's header")]
    TooLarge {
        /// Rows of the tensor.
        rows: usize,
        /// Columns of the tensor.
        cols: usize,
    },
    /// The data has another length than the shape needs.
    #[error(
        "expected {expected_bytes} bytes of packed weights but got {got_bytes}: the data is cut off or the shape is wrong"
    )]
    Span {
        /// Bytes that the shape and packing need.
        expected_bytes: usize,
        got_bytes: usize,
    },
    /// A 2-bit code is 3, which no weight has.
    #[error(
        "block {block}, weight {weight}: code 3 is no ternary weight; the data is damaged, fetch or quantise it again"
    )]
    InvalidCode {
        /// Block, counted over the tensor.
        block: usize,
        /// Weight within the block.
        weight: usize,
    },
    /// A scale is NaN or infinite.
    #[error("block {block}: scale {scale} is not finite; the data is damaged, fetch or quantise it again")]
    BadScale {
        /// Block, counted over the tensor.
        block: usize,
        scale: f32,
    },
    /// A weight to quantise is NaN or infinite.
    #[error("block {block}: a weight to quantise is NaN or infinite; repair the source checkpoint")]
    NotFinite {
        /// Block, counted over the given weights.
        block: usize,
    },
    /// An importance is negative, NaN or infinite.
    #[error("block {block}: an importance is negative or not finite; recompute the calibration statistics")]
    BadImportance {
        /// Block, counted over the given weights.
        block: usize,
    },
}

impl Error {
    /// The same defect with `base` added to its block: lifts a defect of a part to the whole.
    #[must_use]
    pub fn offset_block(mut self, base: usize) -> Self {
        match &mut self {
            Self::InvalidCode { block, .. }
            | Self::BadScale { block, .. }
            | Self::NotFinite { block }
            | Self::BadImportance { block } => *block += base,
            Self::NotBlocks { .. } | Self::TooLarge { .. } | Self::Span { .. } => {}
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn block_defects_are_lifted_and_others_are_not() {
        let code = Error::InvalidCode { block: 2, weight: 9 };
        assert_eq!(code.offset_block(40), Error::InvalidCode { block: 42, weight: 9 });
        let span = Error::Span { expected_bytes: 66, got_bytes: 65 };
        assert_eq!(span.clone().offset_block(40), span);
    }

    #[test]
    fn sentences_name_the_place_and_the_remedy() {
        let text = Error::InvalidCode { block: 2, weight: 9 }.to_string();
        assert!(text.contains("block 2") && text.contains("weight 9") && text.contains("quantise"));
    }
}
