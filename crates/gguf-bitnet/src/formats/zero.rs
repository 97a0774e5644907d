//! Whether stored weights are all zero, decided at the first weight that is not.

use super::format::Extent;
use super::tensor_type::TensorType;

/// The most elements of a block.
const LARGEST_BLOCK: usize = 256;

/// Whether every weight of `bytes` is 0 or -0. `bytes` are whole blocks, or the whole tensor where the type has no rows.
/// Bytes that are no valid weights count as not zero: the check of codes and scales reports them.
pub(crate) fn is_zero(ty: TensorType, bytes: &[u8]) -> bool {
    let format = ty.format();
    if let Extent::Tensor { tail_bytes } = format.extent() {
        // One scale for the whole tensor follows its codes, and four codes 1 are four weights of 0.
        let (codes, tail) = bytes.split_at(bytes.len().saturating_sub(tail_bytes as usize));
        let scale = tail.first_chunk().map_or(f32::NAN, |&b| f32::from_le_bytes(b));
        return scale == 0.0 || scale.is_finite() && codes.iter().all(|&code| code == 0b0101_0101);
    }
    if let Extent::HeadedRows { .. } = format.extent() {
        // The codes of 0 are no zero bytes, and the rows cannot be told apart here: only a hole counts.
        return is_zeroed(bytes);
    }
    if format.extent() == Extent::Planes {
        // Bytes of 0 are weights of -1; no matrix has nothing else, but a hole does.
        return is_zeroed(bytes) || bytes.iter().all(|&codes| codes == 0b0101_0101);
    }
    let layout = format.layout();
    let blocks = (LARGEST_BLOCK / layout.block_len).max(1);
    let mut values = [0.0; LARGEST_BLOCK];
    bytes.chunks(blocks * layout.block_bytes).all(|run| {
        let elements = run.len() / layout.block_bytes * layout.block_len;
        let values = &mut values[..elements];
        format.decode(run, values).is_ok() && values.iter().all(|&v| v == 0.0)
    })
}

/// The number of zero bytes at the end of `bytes`.
pub(crate) fn trailing_zeros(bytes: &[u8]) -> usize {
    let zero_runs = bytes.rchunks(4096).take_while(|run| is_zeroed(run));
    let whole: usize = zero_runs.map(<[u8]>::len).sum();
    whole + bytes[..bytes.len() - whole].iter().rev().take_while(|&&b| b == 0).count()
}

/// Whether all bytes are 0; looks at all of them with vector code.
pub(crate) fn is_zeroed(bytes: &[u8]) -> bool {
    bytes.iter().fold(0, |any, &b| any | b) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::encode_row;
    use ternary_core::Rounding;

    #[test]
    fn zeros_of_every_type_are_zero_and_one_weight_is_not() {
        for ty in TensorType::all() {
            let len = usize::try_from(ty.tensor_bytes(&[2, 512]).unwrap()).unwrap();
            assert!(is_zero(ty, &vec![0; len]), "{ty}: the bytes of a hole");
            if ty.is_writable() {
                let mut row = vec![0.0; 1024];
                let encoded = |row: &[f32]| {
                    let mut out = Vec::new();
                    encode_row(ty, Rounding::LeastSquares, row, None, &mut out).unwrap();
                    is_zero(ty, &out)
                };
                assert!(encoded(&row), "{ty}: encoded zeros");
                row[1023] = -1.0;
                assert!(!encoded(&row), "{ty}: the last weight");
            }
        }
        let mut unscaled = vec![0x55; 288];
        unscaled[256..260].copy_from_slice(&1f32.to_le_bytes());
        assert!(is_zero(TensorType::I2s, &unscaled), "codes of 0 below a scale");
        unscaled[3] = 0x56;
        assert!(!is_zero(TensorType::I2s, &unscaled));
        assert!(is_zero(TensorType::F32, &(-0.0f32).to_le_bytes()));
    }

    #[test]
    fn zeros_at_the_end_are_counted() {
        let mut bytes = vec![0; 10_000];
        assert_eq!(trailing_zeros(&bytes), 10_000);
        for at in [0, 1, 4096, 5_904, 9_998] {
            bytes[at] = 1;
            assert_eq!(trailing_zeros(&bytes), 9_999 - at);
        }
        bytes[9_999] = 1;
        assert_eq!((trailing_zeros(&bytes), trailing_zeros(&[])), (0, 0));
    }
}
