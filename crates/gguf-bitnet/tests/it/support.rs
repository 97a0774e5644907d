//! Small safetensors files for tests, written by hand so that malformed ones can be written too.

use std::fs;
use std::path::Path;

use gguf_bitnet::{Error, NameRow, Piece, Spelling, TensorClass};
use half::{bf16, f16};

const KEYS: &[Spelling] = &[Spelling::gguf("attn_kv_b.weight", Piece::HeadKeys)];
const VALUES: &[Spelling] = &[Spelling::gguf("attn_kv_b.weight", Piece::HeadValues)];
const DENSE_GATE: &[Spelling] = &[Spelling::checkpoint("mlp.gate_up_proj.weight", Piece::FirstHalf)];
const DENSE_UP: &[Spelling] = &[Spelling::checkpoint("mlp.gate_up_proj.weight", Piece::SecondHalf)];
const SHARED_GATE: &[Spelling] = &[Spelling::checkpoint("mlp.shared_experts.gate_up_proj.weight", Piece::FirstHalf)];
const SHARED_UP: &[Spelling] = &[Spelling::checkpoint("mlp.shared_experts.gate_up_proj.weight", Piece::SecondHalf)];
const GATES: &[Spelling] = &[
    Spelling::gguf("ffn_gate.{}.weight", Piece::Whole),
    Spelling::gguf("ffn_gate_up_exps.weight", Piece::FirstHalf),
    Spelling::checkpoint("mlp.experts.gate_proj", Piece::Whole),
    Spelling::checkpoint("mlp.experts.gate_up_proj", Piece::FirstHalf),
    Spelling::checkpoint("mlp.experts.gate_up_proj.weight", Piece::FirstHalf),
    Spelling::checkpoint("mlp.experts.{}.gate_up_proj.weight", Piece::FirstHalf),
];
const UPS: &[Spelling] = &[
    Spelling::gguf("ffn_up.{}.weight", Piece::Whole),
    Spelling::gguf("ffn_gate_up_exps.weight", Piece::SecondHalf),
    Spelling::checkpoint("mlp.experts.up_proj", Piece::Whole),
    Spelling::checkpoint("mlp.experts.gate_up_proj", Piece::SecondHalf),
    Spelling::checkpoint("mlp.experts.gate_up_proj.weight", Piece::SecondHalf),
    Spelling::checkpoint("mlp.experts.{}.gate_up_proj.weight", Piece::SecondHalf),
];
const DOWNS: &[Spelling] =
    &[Spelling::gguf("ffn_down.{}.weight", Piece::Whole), Spelling::checkpoint("mlp.experts.down_proj", Piece::Whole)];

/// The tensors of an architecture with latent attention and experts, for tests of the mapper.
pub(crate) const ROWS: &[NameRow] = &[
    NameRow::model("token_embd.weight", "model.embed_tokens.weight", TensorClass::Embedding),
    NameRow::model("output_norm.weight", "model.norm.weight", TensorClass::Norm),
    NameRow::model("output.weight", "lm_head.weight", TensorClass::Head),
    NameRow::layer("attn_norm.weight", "input_layernorm.weight", TensorClass::Norm),
    NameRow::layer("attn_q_a.weight", "self_attn.q_a_proj.weight", TensorClass::Attention),
    NameRow::layer("attn_q_a_norm.weight", "self_attn.q_a_layernorm.weight", TensorClass::Norm),
    NameRow::layer("attn_q_b.weight", "self_attn.q_b_proj.weight", TensorClass::Attention),
    NameRow::layer("attn_q.weight", "self_attn.q_proj.weight", TensorClass::Attention),
    NameRow::layer("attn_kv_a_mqa.weight", "self_attn.kv_a_proj_with_mqa.weight", TensorClass::Attention),
    NameRow::layer("attn_kv_a_norm.weight", "self_attn.kv_a_layernorm.weight", TensorClass::Norm),
    NameRow::layer("attn_k_b.weight", "self_attn.kv_b_proj.weight", TensorClass::AttentionKb)
        .piece(Piece::HeadKeys)
        .also(KEYS),
    NameRow::layer("attn_v_b.weight", "self_attn.kv_b_proj.weight", TensorClass::AttentionVb)
        .piece(Piece::HeadValues)
        .also(VALUES),
    NameRow::layer("attn_output.weight", "self_attn.o_proj.weight", TensorClass::Attention),
    NameRow::layer("ffn_norm.weight", "post_attention_layernorm.weight", TensorClass::Norm)
        .written_as("post_attention_norm.weight"),
    NameRow::layer("ffn_gate_inp.weight", "mlp.gate.weight", TensorClass::Router),
    NameRow::layer("exp_probs_b.bias", "mlp.gate.e_score_correction_bias", TensorClass::RouterBias),
    NameRow::layer("ffn_gate.weight", "mlp.gate_proj.weight", TensorClass::DenseFfn).also(DENSE_GATE),
    NameRow::layer("ffn_up.weight", "mlp.up_proj.weight", TensorClass::DenseFfn).also(DENSE_UP),
    NameRow::layer("ffn_down.weight", "mlp.down_proj.weight", TensorClass::DenseFfn),
    NameRow::layer("ffn_gate_exps.weight", "mlp.experts.{}.gate_proj.weight", TensorClass::RoutedExpert).also(GATES),
    NameRow::layer("ffn_up_exps.weight", "mlp.experts.{}.up_proj.weight", TensorClass::RoutedExpert).also(UPS),
    NameRow::layer("ffn_down_exps.weight", "mlp.experts.{}.down_proj.weight", TensorClass::RoutedExpert).also(DOWNS),
    NameRow::layer("ffn_gate_shexp.weight", "mlp.shared_experts.gate_proj.weight", TensorClass::SharedExpert)
        .also(SHARED_GATE),
    NameRow::layer("ffn_up_shexp.weight", "mlp.shared_experts.up_proj.weight", TensorClass::SharedExpert)
        .also(SHARED_UP),
    NameRow::layer("ffn_down_shexp.weight", "mlp.shared_experts.down_proj.weight", TensorClass::SharedExpert),
];

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
