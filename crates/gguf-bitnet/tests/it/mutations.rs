//! Valid files, damaged in seeded ways a fixed number of times: a reader refuses the file or reads it, and never panics.
//!
//! These tests run on stable Rust; `fuzz/` has the libFuzzer targets for the same body (`fuzz/exercise.rs`). A change
//! of the readers that accepts a damaged length shows up here as a panic or as a tensor outside its file.

#[path = "../../../../fuzz/exercise.rs"]
mod exercise;

use gguf_bitnet::{Array, GgufWriter, Metadata, TensorInfo, TensorType, Value};

const GGUF_RUNS: u32 = 20_000;
const SAFETENSORS_RUNS: u32 = 3_000;

/// The generator SplitMix64 (Steele, Lea, Flood 2014): the same numbers in each run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n.max(1) as u64).expect("below a usize")
    }
}

/// Damages `file` in one to four ways; `header` bytes at its start are hit most often.
fn mutate(random: &mut Random, file: &[u8], header: usize) -> Vec<u8> {
    const NUMBERS: [u64; 10] = [0, 1, 4, 5, 0xff, 0x7fff_ffff, 0xffff_ffff, 1 << 32, i64::MAX as u64, u64::MAX];
    let mut out = file.to_vec();
    for _ in 0..=random.below(4) {
        if out.is_empty() {
            break;
        }
        let reach = if random.below(8) == 0 { out.len() } else { header.min(out.len()) };
        let at = random.below(reach);
        match random.below(8) {
            0 => out[at] ^= 1 << random.below(8),
            1 => out[at] = random.next().to_le_bytes()[0],
            2 | 3 => {
                let width = [4, 8][random.below(2)];
                let number = NUMBERS[random.below(NUMBERS.len())].to_le_bytes();
                let end = (at + width).min(out.len());
                out[at..end].copy_from_slice(&number[..end - at]);
            }
            4 => out.truncate(at),
            5 => {
                let end = (at + 1 + random.below(16)).min(out.len());
                out.drain(at..end);
            }
            6 => {
                let end = (at + 1 + random.below(40)).min(out.len());
                let copy = out[at..end].to_vec();
                let to = random.below(out.len());
                out.splice(to..to, copy);
            }
            _ => out[at] = b'0' + random.next().to_le_bytes()[0] % 10,
        }
    }
    out
}

/// A small file with every kind of value and several types of tensors.
fn gguf_seed() -> Vec<u8> {
    let mut metadata = Metadata::default();
    for (key, value) in [
        ("general.architecture", Value::String("deepseek2".to_owned())),
        ("general.alignment", Value::U32(32)),
        ("a.u8", Value::U8(1)),
        ("a.i64", Value::I64(-1)),
        ("a.f32", Value::F32(0.5)),
        ("a.f64", Value::F64(0.25)),
        ("a.bool", Value::Bool(true)),
        ("a.strings", Value::Array(Array::String(vec!["x".to_owned(), String::new()]))),
        ("a.numbers", Value::Array(Array::U32(vec![1, 2, 3]))),
    ] {
        metadata.insert(key, value);
    }
    let infos: Vec<TensorInfo> = [
        ("token_embd.weight", vec![4, 256], TensorType::F16),
        ("blk.0.ffn_up_exps.weight", vec![2, 3, 256], TensorType::Tq2_0),
        ("blk.0.ffn_down_exps.weight", vec![2, 2, 256], TensorType::Tq1_0),
        ("blk.0.attn_norm.weight", vec![5], TensorType::F32),
        ("blk.0.attn_k_b.weight", vec![2, 2, 32], TensorType::Q8_0),
    ]
    .into_iter()
    .map(|(name, shape, ty)| {
        let bytes = ty.tensor_bytes(&shape).expect("a valid shape");
        TensorInfo { name: name.to_owned(), shape, ty, bytes }
    })
    .collect();
    let mut writer = GgufWriter::new(&metadata, infos.clone()).expect("a valid layout");
    let mut file = Vec::new();
    writer.begin(&mut file).expect("memory takes every byte");
    for (index, info) in infos.iter().enumerate() {
        let data = vec![0x15; usize::try_from(info.bytes).expect("small")];
        writer.write_tensor(&mut file, index, &data).expect("memory takes every byte");
    }
    writer.finish().expect("every tensor was written");
    file
}

fn safetensors_seed() -> Vec<u8> {
    let header = concat!(
        r#"{"__metadata__":{"format":"pt"},"#,
        r#""model.embed_tokens.weight":{"dtype":"BF16","shape":[4,8],"data_offsets":[0,64]},"#,
        r#""model.norm.weight":{"dtype":"F32","shape":[8],"data_offsets":[64,96]},"#,
        r#""model.layers.0.mlp.gate.weight":{"dtype":"F16","shape":[2,4],"data_offsets":[96,112]}}"#
    );
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.extend_from_slice(&[0x3c; 112]);
    file
}

/// Runs `exercise` on the seed and on `runs` damaged copies. Fails unless some copies are accepted and some refused.
fn run(seed: &[u8], header: usize, runs: u32, mut exercise: impl FnMut(&[u8]) -> bool) {
    assert!(exercise(seed), "the undamaged file is accepted");
    let mut random = Random(0x00c0_ffee);
    let accepted = (0..runs).filter(|_| exercise(&mutate(&mut random, seed, header))).count();
    let accepted = u32::try_from(accepted).expect("at most `runs`");
    assert!(accepted > runs / 1000, "only {accepted} of {runs} damaged files were accepted: the damage is too coarse");
    assert!(accepted < runs / 2, "{accepted} of {runs} damaged files were accepted: the reader checks too little");
}

#[test]
fn a_damaged_gguf_file_is_read_or_refused_but_never_panics() {
    let seed = gguf_seed();
    let data: usize = 4 * 256 * 2 + 6 * 66 + 4 * 54 + 5 * 4 + 4 * 34;
    run(&seed, seed.len().saturating_sub(data), GGUF_RUNS, exercise::gguf);
}

#[test]
fn a_damaged_safetensors_file_is_read_or_refused_but_never_panics() {
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    let seed = safetensors_seed();
    run(&seed, seed.len() - 112, SAFETENSORS_RUNS, |data| exercise::safetensors(dir.path(), data));
}
