//! Tells the two layouts apart that files store under type id 42: Q2_0 of llama.cpp, and of a fork of it.
//!
//! ```text
//! 64 weights in 18 bytes      llama.cpp
//! 128 weights in 34 bytes     the fork
//! ```
//! The bytes up to the next tensor decide, for all tensors of a file together. They fit both only where all tensors are so
//! small that padding hides the difference; `craftsman.bitnet.block_size` decides then.

use super::error::GgufError;
use super::header::{Header, RawInfo, fits_span};
use crate::error::{Locate, Result};
use crate::formats::TensorType;

/// The id of both.
const ID: u32 = 42;

/// The type that id 42 means in a file; `span` gives the bytes up to the next tensor.
///
/// # Errors
/// [`GgufError::AmbiguousType`] where the spans fit both layouts or neither, or some fit one and some the other.
pub(super) fn meaning(header: &Header, span: impl Fn(usize) -> u64) -> Result<TensorType> {
    let tensors = || header.infos.iter().enumerate().filter(|(_, info)| info.type_id == ID);
    let fits = |(i, info)| [TensorType::Q2_0, TensorType::Q2_0G128].map(|ty| fits(ty, info, span(i), header.alignment));
    let any = |fit: [bool; 2]| tensors().any(|tensor| fits(tensor) == fit);
    let ambiguous = |reading| match tensors().next() {
        None => Ok(TensorType::Q2_0),
        Some((i, info)) => {
            let (span, elements) = (span(i), info.elements());
            Err(GgufError::AmbiguousType { id: ID, span, elements, reading }.in_tensor(&info.name))
        }
    };
    match (any([true, false]), any([false, true])) {
        (true, false) => Ok(TensorType::Q2_0),
        (false, true) => Ok(TensorType::Q2_0G128),
        (true, true) => ambiguous("blocks of 64 weights in some tensors and of 128 in others"),
        (false, false) if any([true, true]) => match header.metadata.u32("craftsman.bitnet.block_size") {
            Ok(Some(64)) => Ok(TensorType::Q2_0),
            Ok(Some(128)) => Ok(TensorType::Q2_0G128),
            _ => ambiguous("Q2_0 with blocks of 64 and of 128 weights"),
        },
        // A file that was cut off is reported as such by the check of its sizes, and so are rows that fill no blocks.
        (false, false) if tensors().any(|(i, info)| is_cut(info, span(i))) => Ok(TensorType::Q2_0),
        (false, false) => ambiguous("Q2_0 neither with blocks of 64 nor of 128 weights"),
    }
}

/// Whether a tensor's data, with or without padding, fill its span.
fn fits(ty: TensorType, info: &RawInfo, span: u64, alignment: u64) -> bool {
    ty.tensor_bytes(&shape(info)).is_ok_and(|bytes| fits_span(bytes, span, alignment))
}

/// Whether a tensor has no size in either layout, or more bytes than its span in both.
fn is_cut(info: &RawInfo, span: u64) -> bool {
    [TensorType::Q2_0, TensorType::Q2_0G128]
        .into_iter()
        .all(|ty| ty.tensor_bytes(&shape(info)).map_or(true, |n| n > span))
}

/// The shape with rows before columns.
fn shape(info: &RawInfo) -> Vec<usize> {
    info.dims.iter().rev().copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{GgufFile, GgufWriter, Metadata, TensorInfo, TensorSource};
    use ternary_core::Bytes;

    fn file(ty: TensorType, shapes: &[[usize; 2]], block_size: Option<u32>) -> Vec<u8> {
        let mut metadata = Metadata::default();
        block_size.map(|size| metadata.insert("craftsman.bitnet.block_size", size));
        let infos: Vec<TensorInfo> = shapes
            .iter()
            .enumerate()
            .map(|(i, shape)| {
                let bytes = ty.tensor_bytes(shape).unwrap();
                TensorInfo { name: format!("t{i}"), shape: shape.to_vec(), ty, bytes }
            })
            .collect();
        let mut writer = GgufWriter::new(&metadata, infos.clone()).unwrap();
        let mut out = Vec::new();
        writer.begin(&mut out).unwrap();
        for (i, info) in infos.iter().enumerate() {
            writer.write_tensor(&mut out, i, &vec![0x55; info.bytes as usize]).unwrap();
        }
        out
    }

    fn read(bytes: Vec<u8>) -> Result<TensorType> {
        GgufFile::from_bytes(Bytes::from(bytes)).map(|file| file.tensors()[0].ty)
    }

    #[test]
    fn sizes_tell_the_layouts_apart() {
        for ty in [TensorType::Q2_0, TensorType::Q2_0G128] {
            assert_eq!(read(file(ty, &[[16, 256]], None)).unwrap(), ty);
            assert_eq!(read(file(ty, &[[1, 128], [40, 128]], None)).unwrap(), ty, "one tensor decides for all");
        }
        assert_eq!(read(file(TensorType::Q2_0, &[[1, 192]], None)).unwrap(), TensorType::Q2_0, "no blocks of 128");
    }

    #[test]
    fn small_tensors_are_refused_unless_the_file_says_its_blocks() {
        for (ty, size) in [(TensorType::Q2_0, 64), (TensorType::Q2_0G128, 128)] {
            let refused = read(file(ty, &[[1, 128]], None)).unwrap_err().to_string();
            assert!(refused.contains("t0") && refused.contains("blocks of 64 and of 128"), "{refused}");
            assert_eq!(read(file(ty, &[[1, 128]], Some(size))).unwrap(), ty);
        }
    }

    #[test]
    fn gaps_are_refused_and_a_cut_file_is_called_cut() {
        let whole = file(TensorType::Q2_0, &[[16, 256]], None);
        let mut gap = whole.clone();
        gap.extend([0; 64]);
        assert!(read(gap).unwrap_err().to_string().contains("neither with blocks of 64"));
        let cut = read(whole[..whole.len() - 200].to_vec()).unwrap_err().to_string();
        assert!(!cut.contains("42"), "{cut}");
    }
}
