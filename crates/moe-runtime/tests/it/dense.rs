//! Llama and BitNet: GGUF files give the numbers of their checkpoints, and ternary products are sums of integers.

use std::path::Path;
use std::sync::Arc;

use gguf_bitnet::{GgufWriter, Metadata, SafetensorsDir, TensorClass, TensorSource, TensorType, Value, verify};
use moe_runtime::forward::FeedForward;
use moe_runtime::models::{Activation, ModelConfig};
use moe_runtime::{CraftsmanModel, ModelFiles, SplitMix64};
use ternary_core::ActMode;
use tl_kernels::{ActivationBuffer, Linear, Pool};

use crate::golden::{case, options, read_case, run};
use crate::goldens::{is_close, load_as_trained, load_integers};
use crate::memory_source::MemorySource;

/// Writes the tensors of a case under their canonical names, matrices as BF16, and vectors as F32.
fn write_gguf(files: &ModelFiles, metadata: &Metadata, path: &Path, change: impl FnOnce(&mut MemorySource)) {
    let mut source = MemorySource::copy_of(&files.catalog, |tensor| match tensor.class {
        TensorClass::Norm => TensorType::F32,
        _ => TensorType::Bf16,
    });
    change(&mut source);
    let (infos, data) = source.into_parts();
    let tensors: Vec<_> = infos.into_iter().zip(data).collect();
    GgufWriter::write_file(path, metadata, &tensors).expect("it writes");
}

#[test]
fn a_gguf_of_each_dense_case_gives_the_numbers_of_its_checkpoint() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("model.gguf");
    for name in ["llama-tied-odd", "llama-one-kv", "mistral-no-window", "bitnet-plain", "bitnet-odd"] {
        let files = ModelFiles::open(&case(name)).expect("the case opens");
        let metadata = files.config.to_gguf_metadata().expect("it can be written");
        write_gguf(&files, &metadata, &path, |_| {});
        let from_gguf = ModelFiles::open(&path).expect("it opens");
        assert!(from_gguf.config.guesses.is_empty(), "{name}: {:?}", from_gguf.config.guesses);
        let model = Arc::new(CraftsmanModel::from_files(&from_gguf, &options()).expect("it loads"));
        let golden = read_case(name);
        let distance = run(&model, &golden.tokens, 64, ()).distance(&golden);
        assert!(distance.passes(), "{name}: {distance:?}");
        std::fs::remove_file(&path).expect("the file is there");
    }
}

/// llama.cpp's converter permutes the rows of queries and keys of a Llama: each head `[2, width / 2]` becomes
/// `[width / 2, 2]`. Rows of BitNet stay as they are.
#[test]
fn queries_and_keys_lie_as_converters_write_them() {
    for (name, heads, permuted) in [("llama-tied-odd", 6, true), ("llama-one-kv", 5, true), ("bitnet-odd", 6, false)] {
        let files = ModelFiles::open(&case(name)).expect("the case opens");
        let stored = SafetensorsDir::open(case(name).join("model.safetensors")).expect("the checkpoint opens");
        for (canonical, checkpoint) in [("attn_q", "q_proj"), ("attn_v", "v_proj")] {
            let tensor = files.catalog.find(&format!("blk.1.{canonical}.weight")).expect("the tensor exists");
            let bytes = stored.index_of(&format!("model.layers.1.self_attn.{checkpoint}.weight"));
            let bytes = stored.bytes(bytes.expect("the tensor exists")).expect("it has bytes");
            let (rows, row_bytes) = (tensor.rows(), 2 * tensor.cols());
            let width = rows / heads;
            let mut wanted = Vec::new();
            for row in 0..rows {
                let (head, at) = (row / width, row % width);
                let moved = head * width + (at % 2) * (width / 2) + at / 2;
                let row = if permuted && canonical == "attn_q" { moved } else { row };
                wanted.extend_from_slice(&bytes[row * row_bytes..(row + 1) * row_bytes]);
            }
            let matrix = files.catalog.matrix(tensor, 0).expect("the matrix exists");
            assert!(*matrix.bytes == *wanted, "{name}: {canonical}");
        }
    }
}

#[test]
fn the_function_that_a_bitnet_file_does_not_name_is_guessed_by_the_name_of_its_architecture() {
    let files = ModelFiles::open(&case("bitnet-plain")).expect("the case opens");
    let metadata = files.config.to_gguf_metadata().expect("it can be written");
    assert_eq!(metadata.str("bitnet-b1.58.hidden_activation").expect("a string"), Some("relu2"));
    let renamed = |arch: &str, activation: Option<&str>| {
        let mut out = Metadata::default();
        for (key, value) in metadata.iter().filter(|(key, _)| !key.ends_with("hidden_activation")) {
            out.insert(key.replace("bitnet-b1.58", arch), value.clone());
        }
        out.insert("general.architecture", arch);
        if let Some(activation) = activation {
            out.insert(format!("{arch}.hidden_activation"), activation);
        }
        ModelConfig::from_gguf(&out)
    };
    for (arch, guess) in [("bitnet-b1.58", Activation::SquaredRelu), ("bitnet", Activation::Silu)] {
        let mut config = renamed(arch, None).expect("it reads");
        assert_eq!(config.activation, guess, "{arch}");
        let [told] = &config.guesses[..] else { panic!("{arch}: {:?}", config.guesses) };
        assert_eq!((told.key.as_str(), told.value.as_str()), (&*format!("{arch}.hidden_activation"), guess.name()));
        config.set_activation(Activation::SquaredRelu);
        assert_eq!((config.activation, config.guesses.len()), (Activation::SquaredRelu, 0));
        for stated in Activation::ALL {
            let config = renamed(arch, Some(stated.name())).expect("it reads");
            assert_eq!((config.activation, config.guesses.len()), (stated, 0));
        }
        let message = renamed(arch, Some("gelu")).expect_err("it is not computed").to_string();
        assert!(message.contains("hidden_activation") && message.contains("gelu"), "{message}");
    }
}

/// `fixtures/generators/gen_dense_numpy.py --i2s` wrote the file from the packed checkpoint.
#[test]
fn an_i2_s_file_gives_the_bits_of_the_packed_checkpoint() {
    let path = case("bitnet-i2s").join("model.gguf");
    let files = ModelFiles::open(&path).expect("it opens");
    assert_eq!((files.config.activation, files.config.trained_act), (Activation::SquaredRelu, Some(ActMode::A8Token)));
    assert!(files.config.guesses.iter().any(|guess| guess.key == "bitnet-b1.58.hidden_activation"));
    let golden = read_case("bitnet-odd-packed");
    let got = run(&load_as_trained(&path), &golden.tokens, 64, ());
    assert!(is_close(&got, &golden), "{:?}", got.distance(&golden));
    for load in [load_as_trained, load_integers] {
        let [i2s, packed] =
            [path.as_path(), &case("bitnet-odd-packed")].map(|path| run(&load(path), &golden.tokens, 64, ()));
        assert!(i2s == packed);
    }
}

/// The trits `[rows, cols]` of a linear layer and their scale, by the definitions of transformers.
fn trits_of(name: &str, module: &str) -> (Vec<i8>, usize, f32) {
    let file = SafetensorsDir::open(case(name)).expect("the checkpoint opens");
    let bytes = |suffix: &str| {
        let index = file.index_of(&format!("model.layers.0.{module}.{suffix}"))?;
        Some((file.tensors()[index].shape.clone(), file.bytes(index).expect("it has bytes")))
    };
    let bf16 = |bytes: &[u8]| -> Vec<f32> {
        bytes.as_chunks::<2>().0.iter().map(|b| half::bf16::from_le_bytes(*b).to_f32()).collect()
    };
    let (shape, weight) = bytes("weight").expect("the layer exists");
    let [rows, cols] = shape[..] else { panic!("{name}: {module} is no matrix") };
    let Some((_, scale)) = bytes("weight_scale") else {
        let values = bf16(&weight);
        let mean = values.iter().map(|v| f64::from(v.abs())).sum::<f64>() / values.len() as f64;
        let trits = values.iter().map(|v| (f64::from(*v) / mean).round_ties_even().clamp(-1.0, 1.0) as i8);
        return (trits.collect(), cols, mean as f32);
    };
    let mut trits = vec![0; rows * cols];
    for (r, row) in weight.chunks_exact(cols).enumerate() {
        for field in 0..4 {
            let out = &mut trits[(field * (rows / 4) + r) * cols..][..cols];
            out.iter_mut().zip(row).for_each(|(trit, byte)| *trit = (byte >> (2 * field) & 3) as i8 - 1);
        }
    }
    let scale = bf16(&scale)[0];
    (trits, cols, if name.ends_with("div") { 1.0 / scale } else { scale })
}

/// `linear(x)` for one token by its definition: the activations as integers, and one fused addition per 256 columns.
fn by_integers((trits, cols, scale): &(Vec<i8>, usize, f32), x: &[f32]) -> Vec<f32> {
    let a = x.iter().fold(0f32, |max, x| max.max(x.abs())) / 127.0;
    let codes: Vec<i64> = x.iter().map(|x| (x / a).round_ties_even() as i64).collect();
    let row = |row: &[i8]| {
        let blocks = row.chunks(256).zip(codes.chunks(256));
        blocks.fold(0f32, |sum, (trits, codes)| {
            let whole: i64 = trits.iter().zip(codes).map(|(t, q)| i64::from(*t) * q).sum();
            (scale * a).mul_add(whole as f32, sum)
        })
    };
    trits.chunks_exact(*cols).map(row).collect()
}

#[test]
fn ternary_products_of_bitnet_checkpoints_are_sums_of_integers() {
    let mut random = SplitMix64::new(11);
    let mut compared = 0;
    for name in ["bitnet-online", "bitnet-packed", "bitnet-packed-div", "bitnet-odd-online", "bitnet-odd-packed"] {
        let model = load_integers(&case(name));
        let FeedForward::Dense(ffn) = model.layers()[0].ffn() else { panic!("{name} is dense") };
        for (linear, module) in
            [(ffn.gate(), "mlp.gate_proj"), (ffn.up(), "mlp.up_proj"), (ffn.down(), "mlp.down_proj")]
        {
            assert!(matches!(linear, Linear::Ternary(_)), "{name}: {module}");
            let definition = trits_of(name, module);
            let cols = definition.1;
            for n in [1, 5, 40] {
                let x: Vec<f32> = (0..n * cols).map(|_| random.next_f64() as f32 - 0.4).collect();
                let (mut acts, mut y) = (ActivationBuffer::new(), vec![0.0; n * linear.rows()]);
                acts.set(&x, n, cols);
                acts.quantize(ActMode::A8Token);
                linear.forward(&Pool::serial(), &acts, &mut y);
                for (y, x) in y.chunks_exact(linear.rows()).zip(x.chunks_exact(cols)) {
                    assert_eq!(y, by_integers(&definition, x), "{name}: {module}, {n} tokens");
                    compared += y.len();
                }
            }
        }
    }
    assert!(compared > 100_000, "{compared}");
}

#[test]
fn scaled_rotations_and_experts_in_a_llama_file_are_refused_by_name() {
    let files = ModelFiles::open(&case("llama-tied-odd")).expect("the case opens");
    let metadata = files.config.to_gguf_metadata().expect("it can be written");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("model.gguf");
    write_gguf(&files, &metadata, &path, |source| source.push("rope_freqs.weight", &[16], TensorType::F32, &[1.0; 16]));
    let message = ModelFiles::open(&path).expect_err("it is refused").to_string();
    assert!(message.contains("`rope_freqs.weight`") && message.contains("llama3"), "{message}");

    let mut moe = metadata;
    moe.insert("llama.expert_count", Value::U32(8));
    let message = ModelConfig::from_gguf(&moe).expect_err("it is refused").to_string();
    assert!(message.contains("`llama.expert_count`") && message.contains("experts"), "{message}");
}

/// A copy of a packed case in a directory of its own.
fn copy_of(name: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(case(name).join(file), dir.path().join(file)).expect("a file is copied");
    }
    dir
}

#[test]
fn damaged_packed_checkpoints_are_refused_with_the_place() {
    let load = |dir: &Path| CraftsmanModel::load(dir, &options()).expect_err("it is refused").to_string();
    let name = "model.layers.1.mlp.up_proj.weight";
    let dir = copy_of("bitnet-odd-packed");
    let (config, weights) = (dir.path().join("config.json"), dir.path().join("model.safetensors"));
    let text = std::fs::read_to_string(&config).expect("config.json is read");
    let sound = std::fs::read(&weights).expect("the weights are read");
    assert!(verify(dir.path(), &mut |_, _| {}).expect("it opens").is_valid());

    // Without its section, nothing says that the bytes are trits.
    let mut json: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
    json.as_object_mut().expect("an object").remove("quantization_config");
    std::fs::write(&config, json.to_string()).expect("config.json is written");
    let message = load(dir.path());
    assert!(message.contains("U8") && message.contains(".weight"), "{message}");
    std::fs::write(&config, &text).expect("config.json is written");

    // Code 3 in the third quarter of the rows, in the eighth byte of the second row of bytes: row 2 x 48 + 1 of 192 rows.
    let header = 8 + usize::from(u16::from_le_bytes([sound[0], sound[1]]));
    let names: serde_json::Value = serde_json::from_slice(&sound[8..header]).expect("the header is JSON");
    let place = |name: &str| {
        let start = names[name]["data_offsets"][0].as_u64().expect("the tensor exists");
        header + usize::try_from(start).expect("the file is small")
    };
    let mut damaged = sound.clone();
    damaged[place(name) + 128 + 7] |= 0b0011_0000;
    std::fs::write(&weights, &damaged).expect("the weights are written");
    let report = verify(dir.path(), &mut |_, _| {}).expect("it opens");
    let [defect] = &report.defects[..] else { panic!("{:?}", report.defects) };
    assert_eq!((defect.tensor.as_str(), defect.count, defect.first_row), (name, 1, 97));
    let message = load(dir.path());
    assert!(message.contains("blk.1.ffn_up.weight"), "{message}");

    // A scale of 0, and none at all.
    let scale = format!("{name}_scale");
    let mut damaged = sound.clone();
    damaged[place(&scale)..][..2].fill(0);
    std::fs::write(&weights, &damaged).expect("the weights are written");
    let message = load(dir.path());
    assert!(message.contains(&scale) && message.contains("not a positive number"), "{message}");
    assert!(!verify(dir.path(), &mut |_, _| {}).expect("it opens").is_valid());
    let at =
        sound.windows(scale.len()).position(|window| window == scale.as_bytes()).expect("its name is in the header");
    let mut damaged = sound;
    damaged[at + scale.len() - 1] = b'x';
    std::fs::write(&weights, &damaged).expect("the weights are written");
    let message = load(dir.path());
    assert!(message.contains(&scale) && message.contains("needs a scale"), "{message}");
}
