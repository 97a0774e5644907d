//! Weights that no kernel reads as they are stored: they are decoded at load, and the model computes what a model of their
//! values computes, bit for bit.

use std::sync::Arc;

use gguf_bitnet::{GgufWriter, TensorClass, TensorType, dequantize, verify};
use mla_attention::CacheType;
use moe_runtime::models::mapper;
use moe_runtime::{CraftsmanModel, MemoryPlan, ModelFiles};

use crate::golden::{case, options, run};
use crate::memory_source::MemorySource;

const TOKENS: [u32; 9] = [1, 7, 3, 120, 11, 64, 5, 5, 90];

#[test]
fn eight_bit_checkpoints_compute_what_their_weights_in_bf16_compute() {
    let load = |name: &str| {
        let files = ModelFiles::open(&case("fp8").join(name)).expect("the case opens");
        files.report().ensure_exact().expect("scales are no tensors of the model");
        let model = CraftsmanModel::from_files(&files, &options()).expect("it loads");
        (run(&Arc::new(model), &TOKENS, 64, ()), files)
    };
    let (want, plain) = load("plain");
    assert!(want.logits.iter().all(|x| x.is_finite()) && want.logits.iter().any(|x| *x != 0.0));
    let plan = |files: &ModelFiles| MemoryPlan::new(&files.config, &files.catalog, 64, CacheType::F16, 64);
    for name in ["tensor", "row", "block", "stacked"] {
        let (got, files) = load(name);
        assert!(got == want, "{name}");
        // The plan counts four bytes for each weight that becomes F32.
        let eight_bits =
            files.report().classes.iter().filter(|c| c.ty == TensorType::F8E4M3).map(|c| c.params).sum::<u64>();
        assert!(eight_bits > 300_000, "{name}: {eight_bits}");
        let transposed = 2 * 2 * 32 * 64;
        assert_eq!(
            plan(&files).converted_weights_bytes,
            plan(&plain).converted_weights_bytes + 4 * eight_bits - 2 * transposed,
            "{name}"
        );
    }
}

/// Rows of random blocks whose scales are small numbers.
fn random_rows(ty: TensorType, rows: usize, cols: usize) -> Vec<u8> {
    // F16 0.0078, so that no product is large.
    const SMALL: [u8; 2] = [0x00, 0x20];
    let mut state = ty as u64 + 1;
    let mut bytes: Vec<u8> = (0..rows * ty.row_bytes(cols).expect("whole blocks"))
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .collect();
    for block in bytes.chunks_exact_mut(ty.block_bytes()) {
        match ty {
            TensorType::Mxfp4 => block[0] = 118,
            TensorType::Iq1M => {
                for (i, bits) in [0, 0, 0, 2].into_iter().enumerate() {
                    block[49 + 2 * i] = block[49 + 2 * i] & 15 | bits << 4;
                }
            }
            TensorType::Q2K => block[80..].copy_from_slice(&[SMALL, SMALL].concat()),
            TensorType::Q3K => block[108..].copy_from_slice(&SMALL),
            TensorType::Q4K => block[..4].copy_from_slice(&[SMALL, SMALL].concat()),
            _ => block[..2].copy_from_slice(&SMALL),
        }
    }
    bytes
}

#[test]
fn experts_of_every_low_bit_type_run_from_a_gguf() {
    let files = ModelFiles::open(&case("glm-tiny")).expect("the case opens");
    let metadata = files.config.to_gguf_metadata().expect("it can be written");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("model.gguf");
    use TensorType as T;
    for [gate, up, down] in [
        [T::Iq2Xxs, T::Iq1M, T::Q2K],
        [T::Iq2Xs, T::Iq2S, T::Iq3Xxs],
        [T::Iq3S, T::Iq4Nl, T::Iq4Xs],
        [T::Mxfp4, T::Iq1S, T::Q3K],
    ] {
        let stored = |name: &str| match name {
            name if name.contains("gate_exps") => Some(gate),
            name if name.contains("up_exps") => Some(up),
            name if name.contains("down_exps") => Some(down),
            _ => None,
        };
        // The same model twice: experts in blocks, and their values.
        let mut values = MemorySource::copy_of(&files.catalog, |t| match t.class {
            TensorClass::Embedding | TensorClass::Head => TensorType::Bf16,
            _ => TensorType::F32,
        });
        let mut blocks = values.clone();
        for tensor in files.catalog.tensors() {
            let Some(ty) = stored(&tensor.name) else { continue };
            let (bytes, mut decoded) = (random_rows(ty, tensor.rows(), tensor.cols()), vec![0.0; tensor.elements()]);
            dequantize(ty, &bytes, &mut decoded).expect("random blocks are weights");
            values.remove(&tensor.name);
            values.push(&tensor.name, &tensor.shape, TensorType::F32, &decoded);
            blocks.remove(&tensor.name);
            blocks.push_stored(&tensor.name, &tensor.shape, ty, bytes);
        }
        let (infos, data) = blocks.into_parts();
        let tensors: Vec<_> = infos.into_iter().zip(data).collect();
        GgufWriter::write_file(&path, &metadata, &tensors).expect("it writes");
        let from_gguf = ModelFiles::open(&path).expect("it opens");
        assert!(verify(&path, &mut |_, _| {}).expect("it reads").is_valid());
        let got =
            run(&Arc::new(CraftsmanModel::from_files(&from_gguf, &options()).expect("it loads")), &TOKENS, 64, ());
        let catalog = mapper(&files.config).map(Arc::new(values)).expect("the names are known");
        let want = CraftsmanModel::from_catalog(files.config.clone(), &catalog, &options()).expect("it loads");
        assert!(got == run(&Arc::new(want), &TOKENS, 64, ()), "{gate} {up} {down}");
        assert!(got.logits.iter().all(|x| x.is_finite()));
        std::fs::remove_file(&path).expect("the file is there");
    }
}
