//! The calls that an untrusted input goes through, shared by the fuzz targets and by the mutation test of gguf-bitnet.
//!
//! **Invariant**: no input makes these functions panic. They return whether the file was accepted.

use std::path::Path;

use gguf_bitnet::{GgufFile, SafetensorsDir, TensorSource};
use ternary_core::Bytes;

/// Opens the bytes as a GGUF file and looks at everything in it.
pub(crate) fn gguf(data: &[u8]) -> bool {
    let Ok(file) = GgufFile::from_bytes(Bytes::from(data.to_vec())) else { return false };
    let _ = format!("{:?}", file.metadata());
    tensors(&file);
    true
}

/// Writes the bytes as `model.safetensors` into `dir` and opens that.
pub(crate) fn safetensors(dir: &Path, data: &[u8]) -> bool {
    let path = dir.join("model.safetensors");
    std::fs::write(&path, data).expect("the temporary folder can be written");
    let Ok(file) = SafetensorsDir::open(&path) else { return false };
    tensors(&file);
    true
}

/// Every tensor of an accepted file can be found by name and read to its end.
fn tensors(source: &dyn TensorSource) {
    for (index, info) in source.tensors().iter().enumerate() {
        assert_eq!(source.index_of(&info.name), Some(index), "{}", info.name);
        let bytes = source.bytes(index).expect("an accepted file has its tensors");
        assert_eq!(bytes.len() as u64, info.bytes, "{}", info.name);
        let sum = bytes.iter().fold(0_u64, |sum, byte| sum.wrapping_add(u64::from(*byte)));
        std::hint::black_box(sum);
        source.release(index);
    }
}
