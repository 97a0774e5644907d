//! Sizes of rows and tensors in bytes.

use super::error::FormatError;
use super::format::Extent;
use super::tensor_type::TensorType;
use crate::error::Result;

impl TensorType {
    /// Bytes of one row of `cols` elements.
    ///
    /// ```
    /// # use gguf_bitnet::TensorType;
    /// assert_eq!(TensorType::Tq2_0.row_bytes(512)?, 132);
    /// assert!(TensorType::Tq2_0.row_bytes(192).is_err());
    /// # Ok::<(), gguf_bitnet::Error>(())
    /// ```
    ///
    /// # Errors
    /// When the row does not divide into blocks, the type has no rows, or the size overflows.
    pub fn row_bytes(self, cols: usize) -> Result<usize> {
        if self.is_whole_tensor() {
            return Err(FormatError::NoRows { ty: self }.into());
        }
        let block = self.block_len();
        if !cols.is_multiple_of(block) {
            return Err(FormatError::RowNotBlocks { cols, ty: self, block }.into());
        }
        let head = match self.format().extent() {
            Extent::HeadedRows { head_bytes } => head_bytes,
            _ => 0,
        };
        let blocks = (cols / block).checked_mul(self.block_bytes());
        blocks.and_then(|bytes| bytes.checked_add(head)).ok_or_else(|| overflow(&[cols]).into())
    }

    /// Bytes of a whole tensor of a row-major shape (empty for a scalar).
    ///
    /// # Errors
    /// When a row does not divide into blocks, or the size overflows.
    pub fn tensor_bytes(self, shape: &[usize]) -> Result<u64> {
        let elements = shape
            .iter()
            .try_fold(1u64, |n, &d| n.checked_mul(u64::try_from(d).ok()?))
            .filter(|&n| i64::try_from(n).is_ok())
            .ok_or_else(|| overflow(shape))?;
        let block = self.block_len() as u64;
        let (blocks, tail) = match self.format().extent() {
            Extent::PaddedTensor => (elements.div_ceil(block), 0),
            Extent::Tensor { tail_bytes } => {
                if !elements.is_multiple_of(block) {
                    return Err(FormatError::NotGroups { elements, ty: self, group: block }.into());
                }
                (elements / block, tail_bytes)
            }
            Extent::Planes => {
                if !elements.is_multiple_of(block) {
                    return Err(FormatError::NotGroups { elements, ty: self, group: block }.into());
                }
                (elements / block, 0)
            }
            Extent::HeadedRows { head_bytes } => {
                let cols = shape.last().copied().unwrap_or(1);
                self.row_bytes(cols)?;
                (elements / block, elements / cols.max(1) as u64 * head_bytes as u64)
            }
            Extent::Rows => {
                let cols = shape.last().copied().unwrap_or(1);
                self.row_bytes(cols)?;
                (elements / block, 0)
            }
        };
        blocks
            .checked_mul(self.block_bytes() as u64)
            .and_then(|bytes| bytes.checked_add(tail))
            .filter(|&bytes| isize::try_from(bytes).is_ok())
            .ok_or_else(|| overflow(shape).into())
    }
}

fn overflow(shape: &[usize]) -> FormatError {
    FormatError::ShapeOverflow { shape: shape.iter().map(|&d| d as u64).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error::Format;

    #[test]
    fn sizes_follow_the_blocks() {
        assert_eq!(TensorType::Q8_0.row_bytes(64).unwrap(), 68);
        assert_eq!(TensorType::Tq1_0.bits_per_weight(), 1.6875);
        assert_eq!(TensorType::Tq2_0.bits_per_weight(), 2.0625);
        assert_eq!(TensorType::Tq2_0.tensor_bytes(&[3, 2, 512]).unwrap(), 6 * 132);
        assert_eq!(TensorType::F32.tensor_bytes(&[]).unwrap(), 4);
        assert_eq!(TensorType::I2s.tensor_bytes(&[4, 64]).unwrap(), 256 / 4 + 32);
        assert_eq!(TensorType::BitnetT158Flat.tensor_bytes(&[3, 100]).unwrap(), 2 * 66);
    }

    #[test]
    fn sizes_that_do_not_fit_are_refused() {
        assert!(matches!(TensorType::Tq2_0.tensor_bytes(&[4, 192]), Err(Format(FormatError::RowNotBlocks { .. }))));
        assert!(matches!(TensorType::I2s.tensor_bytes(&[1, 100]), Err(Format(FormatError::NotGroups { .. }))));
        assert!(matches!(TensorType::I2s.row_bytes(128), Err(Format(FormatError::NoRows { .. }))));
        assert!(matches!(
            TensorType::F32.tensor_bytes(&[usize::MAX, 2]),
            Err(Format(FormatError::ShapeOverflow { .. }))
        ));
        assert!(matches!(
            TensorType::F64.tensor_bytes(&[1 << 31, 1 << 31]),
            Err(Format(FormatError::ShapeOverflow { .. }))
        ));
    }
}
