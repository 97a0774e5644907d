//! A GGUF with experts of two bits and fewer, as llama.cpp makes them, goes through the verbs that read models.

use std::path::{Path, PathBuf};

use gguf_bitnet::{GgufFile, GgufWriter, TensorInfo, TensorSource, TensorType};
use ternary_core::Bytes;

use crate::common::{bitnet, fixture, student, teacher, text};

/// The mini teacher's student with random blocks of IQ2_XXS, IQ1_M and Q2_K as its experts.
fn low_bit_model(dir: &Path) -> PathBuf {
    let file = GgufFile::open(student()).unwrap();
    let mut state = 1u64;
    let mut random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    let mut tensors: Vec<(TensorInfo, Bytes)> = Vec::new();
    for (index, info) in file.tensors().iter().enumerate() {
        // Bytes of F16 scales in a block; the bits of IQ1_M's are the upper ones of four bytes.
        let (ty, scales): (_, &[(usize, u8)]) = match info.name.rsplit('.').nth(1) {
            Some("ffn_gate_exps") => (TensorType::Iq2Xxs, &[(0, 0x00), (1, 0x20)]),
            Some("ffn_up_exps") => (TensorType::Iq1M, &[(49, 0x00), (51, 0x00), (53, 0x00), (55, 0x20)]),
            Some("ffn_down_exps") => (TensorType::Q2K, &[(80, 0x00), (81, 0x20), (82, 0x00), (83, 0x20)]),
            _ => {
                tensors.push((info.clone(), file.bytes(index).unwrap()));
                continue;
            }
        };
        let bytes = ty.tensor_bytes(&info.shape).unwrap();
        let mut data: Vec<u8> = (0..bytes).map(|_| random()).collect();
        for block in data.chunks_exact_mut(ty.block_bytes()) {
            scales.iter().for_each(|&(at, byte)| block[at] = byte);
        }
        tensors.push((TensorInfo { ty, bytes, ..info.clone() }, Bytes::from(data)));
    }
    let path = dir.join("low-bits.gguf");
    GgufWriter::write_file(&path, file.metadata(), &tensors).unwrap();
    path
}

#[test]
fn a_gguf_of_two_bit_experts_is_shown_verified_run_and_scored() {
    let dir = tempfile::tempdir().unwrap();
    let path = low_bit_model(dir.path());
    let model = text(&path);
    let shown = bitnet(["inspect", model]).done();
    for ty in ["IQ2_XXS", "IQ1_M", "Q2_K"] {
        assert!(shown.contains(ty), "{ty}: {shown}");
    }
    bitnet(["verify", model]).done();
    bitnet(["run", "-m", model, "-p", "hello", "-n", "4", "--temp", "0"]).done();
    let base = ["eval", "fidelity", "--text", &fixture("texts/heldout.txt"), "--n-ctx", "64", "--windows", "2"];
    let score = bitnet(base.iter().chain(&["--teacher", &teacher(), "--student", model, "--json"])).json();
    let kl = score["kl"]["mean"]["value"].as_f64().unwrap();
    assert!(kl.is_finite() && kl > 0.01, "{score}");
    let out = dir.path().join("again.gguf");
    bitnet(["quantize", "-m", model, "-o", text(&out)]).done();
    assert!(bitnet(["inspect", text(&out)]).done().contains("TQ2_0"));
}
