//! Small safetensors files for tests, written by hand so that malformed ones can be written too.

use std::fs;
use std::path::Path;

use gguf_bitnet::Error;
use half::{bf16, f16};

/// The defect that an error wraps, without the enum of its room: `EmptyFile` of `Source(EmptyFile)`.
pub(crate) fn defect_name(error: &Error) -> String {
    let root = format!("{:?}", error.root());
    let (_, defect) = root.split_once('(').unwrap_or_default();
    defect.chars().take_while(|c| c.is_alphanumeric()).collect()
}

/// A tensor with values that every storage type of the tests holds exactly.
#[derive(Clone, Debug)]
pub(crate) struct Tensor {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Vec<f32>,
}

pub(crate) fn tensor(name: impl Into<String>, shape: &[usize], values: Vec<f32>) -> Tensor {
    let name = name.into();
    assert_eq!(shape.iter().product::<usize>(), values.len(), "{name}");
    Tensor { name, shape: shape.to_vec(), values }
}

/// Bytes of values in `F32`, `F16` or `BF16`.
pub(crate) fn encode(dtype: &str, values: &[f32]) -> Vec<u8> {
    match dtype {
        "F32" => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        "F16" => values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect(),
        "BF16" => values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect(),
        other => panic!("{other} is not used by tests"),
    }
}

/// Writes a safetensors file.
pub(crate) fn write_safetensors(path: &Path, dtype: &str, tensors: &[Tensor]) {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for tensor in tensors {
        let begin = data.len();
        data.extend(encode(dtype, &tensor.values));
        header.insert(
            tensor.name.clone(),
            serde_json::json!({ "dtype": dtype, "shape": tensor.shape, "data_offsets": [begin, data.len()] }),
        );
    }
    let mut json = serde_json::Value::Object(header).to_string();
    while !json.len().is_multiple_of(8) {
        json.push(' ');
    }
    let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(json.as_bytes());
    bytes.extend_from_slice(&data);
    fs::write(path, bytes).unwrap();
}

/// Reproducible values: multiples of 1/64 with few bits, different for every seed.
pub(crate) fn values(seed: usize, n: usize) -> Vec<f32> {
    (0..n)
        .map(|i| {
            let mixed = (seed * 7919 + i).wrapping_mul(2_654_435_761) >> 7;
            ((mixed % 255) as f32 - 127.0) / 64.0
        })
        .collect()
}
