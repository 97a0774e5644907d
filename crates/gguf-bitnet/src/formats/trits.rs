//! Ternary tensors as trits and the scales that groups of them share: what a conversion between ternary formats keeps.
//!
//! **Invariant:** trits and scales go in and out of a format unchanged, or not at all: a code that is no trit, a scale that
//! the format cannot hold and scales that differ where the format has one are errors.

use ternary_core::{Error as Defect, f16};

use super::error::FormatError;
use super::tensor_type::TensorType;
use super::trit_coder::{ScaleKind, TritCoder, TritGroup};
use crate::error::Result;

/// The trits of a tensor and their scales.
#[derive(Clone, Debug, PartialEq)]
pub struct Trits {
    /// Length of a row.
    cols: usize,
    /// Each -1, 0 or +1, row after row.
    trits: Vec<i8>,
    /// One scale per group.
    scales: Vec<f32>,
}

impl Trits {
    /// Trits `[rows, cols]`, and the scales of equally long groups of them.
    ///
    /// # Panics
    /// If the trits are no whole rows, or if a scale is shared by other weights than a part of a row or whole rows.
    #[must_use]
    pub fn new(cols: usize, trits: Vec<i8>, scales: Vec<f32>) -> Trits {
        assert!(cols > 0 && trits.len().is_multiple_of(cols), "whole rows");
        assert!(!scales.is_empty() && trits.len().is_multiple_of(scales.len()), "whole groups");
        let group = trits.len() / scales.len();
        assert!(cols.is_multiple_of(group) || group.is_multiple_of(cols), "groups within rows or of whole rows");
        Trits { cols, trits, scales }
    }

    /// The trits and scales of a stored tensor with rows of `cols` weights.
    ///
    /// # Errors
    /// [`FormatError::NotTernary`] for a type that has none, [`FormatError::DataLength`], and
    /// [`FormatError::NotATrit`] or [`FormatError::Ternary`] for weights that are none.
    pub fn read(ty: TensorType, shape: &[usize], bytes: &[u8]) -> Result<Trits> {
        let coder = ty.format().trits().ok_or(FormatError::NotTernary { ty })?;
        // The check of the size comes first: a product of dimensions that overflows is an error of it.
        let expected = ty.tensor_bytes(shape)?;
        let elements = shape.iter().product::<usize>();
        let got = bytes.len() as u64;
        if got != expected {
            return Err(FormatError::DataLength { ty, elements, expected, got }.into());
        }
        let cols = shape.last().copied().unwrap_or(1);
        if elements == 0 {
            return Err(FormatError::NotTernary { ty }.into());
        }
        let groups = elements / coder.group().weights(cols, elements);
        let (mut trits, mut scales) = (vec![0; elements], vec![0.0; groups]);
        coder.read(bytes, cols, &mut trits, &mut scales).map_err(|defect| match defect {
            // A code 3 of these types is a weight, but no trit.
            Defect::InvalidCode { block, weight } if matches!(coder.group(), TritGroup::Row) || is_q2_0(ty) => {
                FormatError::NotATrit { ty, at: (block * ty.block_len() + weight) as u64 }
            }
            defect => FormatError::Ternary(defect),
        })?;
        Ok(Trits { cols, trits, scales })
    }

    /// The bytes of the tensor in type `ty`.
    ///
    /// # Errors
    /// [`FormatError::NotTernary`]; [`FormatError::RowNotBlocks`] and [`FormatError::NotGroups`] for shapes that the type
    /// cannot hold; [`FormatError::ScalesDiffer`] and [`FormatError::ScaleNotF16`] for scales that it cannot.
    pub fn write(&self, ty: TensorType) -> Result<Vec<u8>> {
        let coder = ty.format().trits().ok_or(FormatError::NotTernary { ty })?;
        let elements = self.trits.len();
        let bytes = ty.tensor_bytes(&[elements / self.cols, self.cols])?;
        let scales = self.scales_of(ty, elements / coder.group().weights(self.cols, elements))?;
        if coder.scale_kind() == ScaleKind::F16
            && let Some(at) = scales.iter().position(|&s| f16::from_f32(s).to_f32().to_bits() != s.to_bits())
        {
            return Err(FormatError::ScaleNotF16 { ty, scale: scales[at] }.into());
        }
        let bytes = usize::try_from(bytes).map_err(|_| FormatError::ShapeOverflow { shape: vec![elements as u64] })?;
        let mut out = vec![0; bytes];
        coder.write(&self.trits, self.cols, &scales, &mut out).map_err(FormatError::Ternary)?;
        Ok(out)
    }

    /// Whether the other tensor has the same trits, and each weight the same scale.
    #[must_use]
    pub fn is_same(&self, other: &Trits) -> bool {
        let scales = self.scales.len().max(other.scales.len());
        let scale = |of: &Trits, i: usize| of.scales[i * of.scales.len() / scales].to_bits();
        self.cols == other.cols && self.trits == other.trits && (0..scales).all(|i| scale(self, i) == scale(other, i))
    }

    /// The scales of `n` groups.
    fn scales_of(&self, ty: TensorType, n: usize) -> Result<Vec<f32>, FormatError> {
        let have = self.scales.len();
        if n >= have {
            return Ok((0..n).map(|i| self.scales[i * have / n]).collect());
        }
        let groups = self.scales.chunks(have / n);
        let merged = groups.enumerate().map(|(i, group)| {
            let other = group.iter().find(|scale| scale.to_bits() != group[0].to_bits());
            let row = (i * self.trits.len() / n / self.cols) as u64;
            other.map_or(Ok(group[0]), |&b| Err(FormatError::ScalesDiffer { ty, row, a: group[0], b }))
        });
        merged.collect()
    }
}

fn is_q2_0(ty: TensorType) -> bool {
    matches!(ty, TensorType::Q2_0 | TensorType::Q2_0G128)
}

impl TensorType {
    /// The weights that share a scale in a type of trits that can be converted without loss; `None` for all others.
    pub fn trit_group(self) -> Option<TritGroup> {
        self.format().trits().map(TritCoder::group)
    }

    /// The number of neighbouring weights that share a scale, for types whose rows are blocks of trits.
    pub fn trit_block(self) -> Option<usize> {
        match self.trit_group() {
            Some(TritGroup::Block(n)) => Some(n),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trits(n: usize) -> Vec<i8> {
        (0..n).map(|i| ((i * i + i / 7) % 3) as i8 - 1).collect()
    }

    fn format_error(result: Result<Vec<u8>>) -> FormatError {
        match result.unwrap_err() {
            crate::Error::Format(error) => error,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn every_type_of_trits_gives_back_what_it_took() {
        let types: Vec<_> = TensorType::all().filter(|ty| ty.trit_group().is_some()).collect();
        assert_eq!(types.len(), 8, "{types:?}");
        let one = Trits::new(512, trits(1024), vec![0.5]);
        for &ty in &types {
            let bytes = one.write(ty).unwrap();
            let back = Trits::read(ty, &[2, 512], &bytes).unwrap();
            assert!(back.is_same(&one), "{ty}");
            for &other in &types {
                assert_eq!(back.write(other).unwrap(), one.write(other).unwrap(), "{ty} to {other}");
            }
        }
    }

    #[test]
    fn what_a_type_cannot_hold_is_refused() {
        let rows = Trits::new(512, trits(1024), vec![0.5, 0.25]);
        rows.write(TensorType::Iq2Bn).unwrap();
        rows.write(TensorType::Tq1_0).unwrap();
        let differ = format_error(rows.write(TensorType::I2s));
        assert!(matches!(differ, FormatError::ScalesDiffer { row: 0, .. }), "{differ}");
        let third = Trits::new(512, trits(1024), vec![1.0 / 3.0]);
        assert!(matches!(format_error(third.write(TensorType::Q2_0)), FormatError::ScaleNotF16 { .. }));
        third.write(TensorType::I2sArm).unwrap();
        let narrow = Trits::new(192, trits(1152), vec![0.5]);
        narrow.write(TensorType::Q2_0).unwrap();
        for ty in [TensorType::Tq2_0, TensorType::Q2_0G128] {
            assert!(matches!(format_error(narrow.write(ty)), FormatError::RowNotBlocks { .. }), "{ty}");
        }
        assert!(matches!(format_error(narrow.write(TensorType::Q8_0)), FormatError::NotTernary { .. }));
    }

    #[test]
    fn the_weight_two_is_named_and_no_trit() {
        for (ty, at) in [(TensorType::Q2_0, 2), (TensorType::Iq2Bn, 4)] {
            let mut bytes = Trits::new(128, vec![0; 128], vec![1.0]).write(ty).unwrap();
            bytes[at] |= 3;
            let refused = match Trits::read(ty, &[1, 128], &bytes).unwrap_err() {
                crate::Error::Format(error) => error,
                other => panic!("{other}"),
            };
            assert!(matches!(refused, FormatError::NotATrit { at: 0, .. }), "{ty}: {refused}");
            let mut values = vec![0.0; 128];
            crate::dequantize(ty, &bytes, &mut values).unwrap();
            assert_eq!(values[..2], [2.0, 0.0], "{ty}");
        }
    }
}
