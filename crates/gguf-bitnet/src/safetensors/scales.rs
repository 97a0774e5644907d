//! The scales of 8-bit and ternary weights: finds the tensor that holds them, and the block of weights for each.
//!
//! ```text
//! weights                 scales                                           of
//! NAME.weight             NAME.weight_scale  or  NAME.weight_scale_inv     a module
//! experts.gate_up_proj    experts.gate_up_proj_scale  or  ..._scale_inv    stacked experts
//!
//! weights [rows, cols]    scales [], [1]             one for the matrix
//!                         [rows], [rows, 1]          one per row
//!                         [ceil(rows / b0), ceil(cols / b1)]   one per block of `weight_block_size`
//! ```
//! Scales of a stack have its first dimension in front; one number alone is for all matrices. Both names mean a number that
//! multiplies the stored weight, but for trits that are [divided](TritWeights::Divided). `NAME.input_scale` concerns the activations of other engines and is left out.

use std::collections::{HashMap, HashSet};

use super::error::SafetensorsError;
use super::quantization::{Quantization, TritWeights};
use crate::formats::TensorType;
use crate::source::{Scales, TensorInfo};

/// The scales of the tensors of a checkpoint.
#[derive(Debug, Default)]
pub(super) struct ScaleTable {
    /// By index of the tensor of weights.
    scales: HashMap<usize, Scales>,
    /// Indices of the tensors that belong to another one.
    auxiliary: HashSet<usize>,
}

impl ScaleTable {
    /// Finds the scales of every tensor that needs them; `position` gives the index of a name.
    ///
    /// # Errors
    /// The index of the tensor of weights, and the defect of its scales.
    pub(super) fn of(
        tensors: &[TensorInfo],
        position: impl Fn(&str) -> Option<usize>,
        quantization: Quantization,
    ) -> Result<ScaleTable, (usize, SafetensorsError)> {
        let mut table = ScaleTable::default();
        for (index, weights) in tensors.iter().enumerate().filter(|(_, info)| needs_scales(info)) {
            let scales = scale_tensor(&weights.name, &position)
                .and_then(|tensor| scales_of(weights, tensor, &tensors[tensor], quantization.block))
                .and_then(|scales| Ok(Scales { divide: divides(weights, quantization)?, ..scales }))
                .map_err(|error| (index, error))?;
            table.scales.insert(index, scales);
            table.auxiliary.insert(scales.tensor);
            table.auxiliary.extend(position(&input_scale(&weights.name)));
        }
        Ok(table)
    }

    pub(super) fn get(&self, index: usize) -> Option<Scales> {
        self.scales.get(&index).copied()
    }

    pub(super) fn is_auxiliary(&self, index: usize) -> bool {
        self.auxiliary.contains(&index)
    }
}

/// Whether the numbers of a tensor mean nothing without scales.
pub(super) fn needs_scales(info: &TensorInfo) -> bool {
    matches!(info.ty, TensorType::F8E4M3 | TensorType::F8E5M2 | TensorType::U8Trits)
}

/// Whether weights are divided by their scales. Bytes are trits only where `quantization_config` says so.
fn divides(weights: &TensorInfo, quantization: Quantization) -> Result<bool, SafetensorsError> {
    match (weights.ty, quantization.trits) {
        (TensorType::U8Trits, Some(trits @ (TritWeights::Multiplied | TritWeights::Divided))) => {
            Ok(trits == TritWeights::Divided)
        }
        (TensorType::U8Trits, _) => Err(SafetensorsError::UnsupportedDtype { dtype: "U8".to_owned() }),
        _ => Ok(false),
    }
}

/// The index of the one tensor of scales.
fn scale_tensor(weights: &str, position: impl Fn(&str) -> Option<usize>) -> Result<usize, SafetensorsError> {
    let [plain, inverse] = ["_scale", "_scale_inv"].map(|suffix| format!("{weights}{suffix}"));
    match (position(&plain), position(&inverse)) {
        (Some(index), None) | (None, Some(index)) => Ok(index),
        (None, None) => Err(SafetensorsError::ScaleMissing { scale: plain }),
        (Some(_), Some(_)) => Err(SafetensorsError::ScaleTwice { scale: plain, other: inverse }),
    }
}

fn input_scale(weights: &str) -> String {
    match weights.strip_suffix(".weight") {
        Some(module) => format!("{module}.input_scale"),
        None => format!("{weights}_input_scale"),
    }
}

/// Checks the type and the shape of scales against those of their weights.
fn scales_of(
    weights: &TensorInfo,
    tensor: usize,
    scale: &TensorInfo,
    block: Option<[usize; 2]>,
) -> Result<Scales, SafetensorsError> {
    if !matches!(scale.ty, TensorType::F32 | TensorType::F16 | TensorType::Bf16) {
        return Err(SafetensorsError::ScaleType { scale: scale.name.clone(), ty: scale.ty });
    }
    let (matrix_rows, cols) = match weights.shape[..] {
        [.., rows, cols] => (rows, cols),
        _ => (1, weights.cols()),
    };
    let stack = &weights.shape[..weights.shape.len().saturating_sub(2)];
    let whole = |shared| Scales {
        tensor,
        matrix_rows,
        block: [matrix_rows.max(1), cols.max(1)],
        grid: [1, 1],
        shared,
        divide: false,
    };
    if scale.elements() == 1 {
        return Ok(whole(true));
    }
    // The dimensions behind those of the stack say what one matrix has.
    match scale.shape.strip_prefix(stack) {
        Some([] | [1] | [1, 1]) => Ok(whole(false)),
        Some([rows] | [rows, 1]) if *rows == matrix_rows => {
            Ok(Scales { block: [1, cols.max(1)], grid: [matrix_rows, 1], ..whole(false) })
        }
        Some(&[rows, columns]) if block.is_some_and(|b| [rows, columns] == grid(b, matrix_rows, cols)) => {
            Ok(Scales { block: block.unwrap_or([1, 1]), grid: [rows, columns], ..whole(false) })
        }
        _ => Err(SafetensorsError::ScaleShape {
            scale: scale.name.clone(),
            got: scale.shape.clone(),
            weights: weights.shape.clone(),
            block,
        }),
    }
}

/// Rows and columns of blocks that cover a matrix.
fn grid([block_rows, block_cols]: [usize; 2], rows: usize, cols: usize) -> [usize; 2] {
    [rows.div_ceil(block_rows), cols.div_ceil(block_cols)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(name: &str, shape: &[usize], ty: TensorType) -> TensorInfo {
        TensorInfo { name: name.to_owned(), shape: shape.to_vec(), ty, bytes: ty.tensor_bytes(shape).unwrap() }
    }

    /// The table of one tensor of weights and other tensors beside it.
    fn table(
        weights: &[usize],
        beside: &[(&str, &[usize], TensorType)],
        block: Option<[usize; 2]>,
    ) -> Result<ScaleTable, SafetensorsError> {
        let mut tensors = vec![info("m.weight", weights, TensorType::F8E4M3)];
        tensors.extend(beside.iter().map(|(name, shape, ty)| info(name, shape, *ty)));
        let position = |name: &str| tensors.iter().position(|t| t.name == name);
        ScaleTable::of(&tensors, position, Quantization { block, trits: None }).map_err(|(index, error)| {
            assert_eq!(index, 0, "the defect lies in the tensor of weights");
            error
        })
    }

    fn scales(weights: &[usize], scale: &[usize], block: Option<[usize; 2]>) -> Option<Scales> {
        table(weights, &[("m.weight_scale", scale, TensorType::F32)], block).ok()?.get(0)
    }

    #[test]
    fn the_shape_of_scales_says_what_each_is_for() {
        let of = |block, grid, shared| Some(Scales { tensor: 1, matrix_rows: 6, block, grid, shared, divide: false });
        for scalar in [&[][..], &[1], &[1, 1]] {
            assert_eq!(scales(&[6, 10], scalar, None), of([6, 10], [1, 1], true));
            assert_eq!(scales(&[3, 6, 10], scalar, None), of([6, 10], [1, 1], true));
        }
        for rows in [&[6][..], &[6, 1]] {
            assert_eq!(scales(&[6, 10], rows, None), of([1, 10], [6, 1], false));
        }
        for stack in [&[3][..], &[3, 1], &[3, 1, 1]] {
            assert_eq!(scales(&[3, 6, 10], stack, None), of([6, 10], [1, 1], false), "{stack:?}");
        }
        for stack in [&[3, 6][..], &[3, 6, 1]] {
            assert_eq!(scales(&[3, 6, 10], stack, None), of([1, 10], [6, 1], false), "{stack:?}");
        }
        assert_eq!(scales(&[6, 10], &[2, 3], Some([4, 4])), of([4, 4], [2, 3], false));
        assert_eq!(scales(&[3, 6, 10], &[3, 2, 3], Some([4, 4])), of([4, 4], [2, 3], false));
        // Rows and matrices have scales in checkpoints of blocks too.
        assert_eq!(scales(&[6, 10], &[6, 1], Some([4, 4])), of([1, 10], [6, 1], false));
    }

    #[test]
    fn other_shapes_are_refused_with_all_shapes() {
        for (weights, scale, block) in [
            (&[6, 10][..], &[5][..], None),
            (&[6, 10], &[10], None),
            (&[6, 10], &[1, 10], None),
            (&[6, 10], &[2, 3], None),
            (&[6, 10], &[3, 2], Some([4, 4])),
            (&[6, 10], &[2, 3, 1], Some([4, 4])),
            (&[6, 10], &[0], Some([4, 4])),
            (&[3, 6, 10], &[2, 3], Some([4, 4])),
            (&[3, 6, 10], &[4, 2, 3], Some([4, 4])),
            (&[3, 6, 10], &[6, 1], None),
            (&[10], &[10], None),
        ] {
            let beside = [("m.weight_scale_inv", scale, TensorType::Bf16)];
            let text = table(weights, &beside, block).expect_err(&format!("{weights:?} {scale:?}")).to_string();
            let named = ["m.weight_scale_inv", &format!("{scale:?}"), &format!("{weights:?}"), "fetch"];
            assert!(named.iter().all(|part| text.contains(part)), "{text}");
        }
    }

    #[test]
    fn each_tensor_of_weights_has_one_tensor_of_scales() {
        let error = |beside: &[(&str, &[usize], TensorType)]| table(&[6, 10], beside, None).unwrap_err().to_string();
        let text = error(&[("m.weight_zero_point", &[1], TensorType::F32)]);
        assert!(text.contains("`m.weight_scale`") && text.contains("fetch"), "{text}");
        let text = error(&[("m.weight_scale", &[1], TensorType::F32), ("m.weight_scale_inv", &[1], TensorType::F32)]);
        assert!(text.contains("`m.weight_scale`") && text.contains("`m.weight_scale_inv`"), "{text}");
        let text = error(&[("m.weight_scale", &[1], TensorType::I8)]);
        assert!(text.contains("`m.weight_scale`") && text.contains("I8"), "{text}");
    }

    #[test]
    fn scales_and_input_scales_are_no_tensors_of_the_model() {
        let beside = [
            ("m.input_scale", &[][..], TensorType::F32),
            ("m.weight_scale", &[6, 1], TensorType::F32),
            ("other.input_scale", &[], TensorType::F32),
        ];
        let table = table(&[6, 10], &beside, None).unwrap();
        assert_eq!((0..5).map(|i| table.is_auxiliary(i)).collect::<Vec<_>>(), [false, true, true, false, false]);
        assert_eq!(input_scale("experts.gate_up_proj"), "experts.gate_up_proj_input_scale");
    }
}
