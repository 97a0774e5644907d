//! Encoders against the vectors of transformers (`fixtures/generators/gen_encoder.py`), and against themselves.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use moe_runtime::{CraftsmanBackend, InferenceBackend, LoadOptions};
use rlm_embed::encoder::{
    BaseEmbedder, BertEncoder, BertParts, HashEmbedder, LanguageModelEmbedder, Precision, cosine,
};
use safetensors::SafeTensors;
use tl_kernels::Pool;

const TINY: &str = "goldens/bert-tiny";
/// The limit of a word that the tokenizer of the small checkpoint states.
const WORD_CHARS: &str = "\"max_input_chars_per_word\":100";

fn tiny(precision: Precision, threads: usize) -> BertEncoder {
    BertEncoder::load(&fixtures::path(TINY), precision, Arc::new(Pool::new(threads).unwrap())).unwrap()
}

fn texts() -> Vec<String> {
    serde_json::from_str(&fs::read_to_string(fixtures::path("goldens/bert-tiny/texts.json")).unwrap()).unwrap()
}

fn golden(name: &str) -> Vec<f32> {
    let bytes = fs::read(fixtures::path("goldens/bert-tiny/vectors.safetensors")).unwrap();
    let tensor = SafeTensors::deserialize(&bytes).unwrap();
    let data = tensor.tensor(name).unwrap().data().to_vec();
    data.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

fn lowest_cosine(vectors: &[f32], golden: &[f32], dims: usize) -> f32 {
    assert_eq!(vectors.len(), golden.len());
    let pairs = vectors.chunks_exact(dims).zip(golden.chunks_exact(dims));
    pairs.map(|(a, b)| cosine(a, b)).fold(1.0, f32::min)
}

#[test]
fn vectors_equal_those_of_transformers() {
    let texts = texts();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let golden = golden("vectors");
    assert_eq!(texts.len(), 64);
    let vectors = tiny(Precision::F32, 1).embed(&texts).unwrap();
    assert!(lowest_cosine(&vectors, &golden, 96) >= 0.999_99, "{}", lowest_cosine(&vectors, &golden, 96));
    let rounded = tiny(Precision::Q8_0, 1).embed(&texts).unwrap();
    assert!(lowest_cosine(&rounded, &golden, 96) >= 0.999, "{}", lowest_cosine(&rounded, &golden, 96));
    assert_ne!(rounded, vectors, "the rounded weights are used");
    let int8 = tiny(Precision::Q8_0A8, 1).embed(&texts).unwrap();
    assert!(lowest_cosine(&int8, &golden, 96) >= 0.999, "{}", lowest_cosine(&int8, &golden, 96));
    assert_ne!(int8, rounded, "the inputs are rounded");
    // The bound can fail: the vectors of other texts are not those of these.
    let mut shifted = vectors.clone();
    shifted.rotate_left(96);
    assert!(lowest_cosine(&shifted, &golden, 96) < 0.9);
}

/// Fingerprints of the vectors whose accuracy the test above judges: every instruction set and processor gives the same bits.
#[test]
fn vectors_have_the_same_bits_on_every_processor() {
    let texts = texts();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let fingerprint = |precision| {
        let vectors = tiny(precision, 1).embed(&texts).unwrap();
        let bytes: Vec<u8> = vectors.iter().flat_map(|x| x.to_le_bytes()).collect();
        blake3::hash(&bytes).to_hex()[..16].to_owned()
    };
    let found = [Precision::F32, Precision::Q8_0, Precision::Q8_0A8].map(fingerprint);
    assert_eq!(found, ["3cc66b42aded7e5f", "bbbb422dc7e3f017", "c74eba408a0060e3"]);
}

#[test]
fn tokens_equal_those_of_tokenizers() {
    let bytes = fs::read(fixtures::path("goldens/bert-tiny/vectors.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let numbers = |name: &str| {
        let data = file.tensor(name).unwrap().data().to_vec();
        data.as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b)).collect::<Vec<u32>>()
    };
    let (counts, ids) = (numbers("counts"), numbers("ids"));
    let mut ids = ids.as_slice();
    let encoder = tiny(Precision::F32, 1);
    for (text, &count) in texts().iter().zip(&counts) {
        let (here, rest) = ids.split_at(count as usize);
        assert_eq!(encoder.token_ids(text).unwrap(), here, "{text}");
        assert!(here.len() <= encoder.max_tokens());
        ids = rest;
    }
    assert!(counts.contains(&256) && counts.contains(&2), "a cut text and an empty one are among them");
}

/// The encoder that the files in memory give.
fn of_parts(edit: impl Fn(&mut Vec<u8>)) -> rlm_embed::Result<BertEncoder> {
    let read = |name: &str| fs::read(fixtures::path(TINY).join(name)).unwrap();
    let [config, mut tokenizer] = ["config.json", "tokenizer.json"].map(read);
    edit(&mut tokenizer);
    let [config, tokenizer] = [config, tokenizer].map(|bytes| String::from_utf8(bytes).unwrap());
    let weights = read("model.safetensors").into();
    let parts = BertParts { config: &config, tokenizer: &tokenizer, max_tokens: 256, weights };
    BertEncoder::of_parts(parts, Precision::F32, Arc::new(Pool::serial()))
}

#[test]
fn files_in_memory_give_the_same_encoder() {
    let texts = texts();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let (mut one, mut other) = (tiny(Precision::F32, 1), of_parts(|_| {}).unwrap());
    assert_eq!(one.identity(), other.identity());
    assert_eq!(one.embed(&texts).unwrap(), other.embed(&texts).unwrap());
    for (from, to, said) in [
        ("BertPreTokenizer", "Whitespace", "Whitespace"),
        ("\"normalized\":false", "\"normalized\":true", "added token"),
        ("\"unk_token\":\"[UNK]\"", "\"unk_token\":\"[NO]\"", "unknown words"),
        ("\"ids\":[2]", "\"ids\":[99999]", "token 99999"),
        ("\"ids\":[2]", "\"ids\":[]", "[CLS]"),
        (WORD_CHARS, "\"max_input_chars_per_word\":201", "more than 200"),
        ("{", "[", "tokenizer.json"),
    ] {
        let error = of_parts(|bytes| replace(bytes, from, to)).unwrap_err().to_string();
        assert!(error.contains(said), "{from} -> {to}: {error}");
    }
}

/// The tokenizer of the crate and `tokenizers` give the same ids for texts of characters that their rules treat in many ways.
#[test]
fn both_readers_of_the_tokenizer_give_the_same_ids() {
    let (library, own) = (tiny(Precision::F32, 1), of_parts(|_| {}).unwrap());
    let mut signs: Vec<String> = (0..0x3400)
        .step_by(7)
        .chain([0x4e00, 0x9fff, 0xf900, 0xac00, 0x1f600, 0x20000, 0x2b820, 0x2b920])
        .filter_map(char::from_u32)
        .map(String::from)
        .collect();
    let words = [
        "the",
        "bridge",
        "Bridges",
        "[SEP]",
        "[CLS",
        "[MASK]x",
        "##s",
        "e\u{301}",
        "ÄÖÜ",
        "İstanbul",
        "ΣΑΣ",
        "don't",
        "3.5",
        "\t\n",
        "  ",
    ];
    signs.extend(words.map(str::to_owned));
    signs.push("a".repeat(100));
    signs.push("a".repeat(101));
    let mut random = moe_runtime::SplitMix64::new(5);
    for n in 0..2000 {
        let length = if n % 100 == 0 { 300 } else { 1 + n % 12 };
        let text: String = (0..length)
            .map(|_| {
                let sign = &signs[random.next_u64() as usize % signs.len()];
                if random.next_u64().is_multiple_of(3) { format!("{sign} ") } else { sign.clone() }
            })
            .collect();
        assert_eq!(own.token_ids(&text).unwrap(), library.token_ids(&text).unwrap(), "{text:?}");
    }
    for sign in &signs {
        assert_eq!(own.token_ids(sign).unwrap(), library.token_ids(sign).unwrap(), "{sign:?}");
    }
    assert!(own.token_ids(&"a".repeat((1 << 20) + 1)).is_err());
}

#[test]
fn neither_the_batch_nor_the_threads_change_a_bit() {
    let texts = texts();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    for precision in [Precision::F32, Precision::Q8_0, Precision::Q8_0A8] {
        let mut one = tiny(precision, 1);
        let batched = one.embed(&texts).unwrap();
        let single: Vec<f32> = texts.iter().flat_map(|text| one.embed(&[text]).unwrap()).collect();
        assert_eq!(batched, single);
        let mut reversed_texts = texts.clone();
        reversed_texts.reverse();
        let reversed = tiny(precision, 3).embed(&reversed_texts).unwrap();
        let back: Vec<f32> = reversed.chunks_exact(96).rev().flatten().copied().collect();
        assert_eq!(batched, back);
    }
}

#[test]
fn the_ids_of_a_text_give_its_vector() {
    let mut encoder = tiny(Precision::F32, 1);
    let (long, short) = ("the northern bridge ".repeat(200), "the northern bridge");
    let (cut, all) = (encoder.token_ids(&long).unwrap(), encoder.all_token_ids(&long).unwrap());
    assert_eq!((cut.len(), &cut[..255], cut[255]), (256, &all[..255], all[all.len() - 1]));
    assert!(all.len() > 600);
    assert_eq!(encoder.all_token_ids(short).unwrap(), encoder.token_ids(short).unwrap());
    // More tokens than a batch has, so that the texts are divided.
    let texts = [&*long, short, &long, &long, "", &long, &long];
    let ids: Vec<Vec<u32>> = texts.iter().map(|text| encoder.token_ids(text).unwrap()).collect();
    assert!(encoder.embed_ids(&ids).unwrap() == encoder.embed(&texts).unwrap());
    assert!(encoder.embed_ids(&[]).unwrap().is_empty());
    for wrong in [vec![], vec![1], all, vec![0, 942]] {
        let sentence = encoder.embed_ids(&[wrong]).unwrap_err().to_string();
        assert!(sentence.contains("2 to 256 ids, all below 942"), "{sentence}");
    }
}

/// The numbers of the tensors of the checkpoint.
#[test]
fn an_encoder_states_its_weights_and_its_memory() {
    let encoder = tiny(Precision::F32, 1);
    assert_eq!((encoder.parameters(), encoder.weight_bytes(), encoder.vocabulary()), (252_608, 4 * 252_512, 942));
    let memory = |precision| tiny(precision, 1).memory_bytes(1).unwrap();
    // 256 tokens of 800 values, a table of 256 times 256 numbers, and the tokenizer beside the weights.
    assert!(memory(Precision::F32) > 4 * (252_512 + 256 * 800 + 65_536));
    assert!(memory(Precision::Q8_0) < memory(Precision::F32) && memory(Precision::Q8_0) < memory(Precision::Q8_0A8));
    assert!(
        encoder.memory_bytes(1024) > encoder.memory_bytes(1) && encoder.memory_bytes(1) == encoder.memory_bytes(256)
    );
    assert_eq!(HashEmbedder::new(8).memory_bytes(1), Some(8));
}

#[test]
fn identities_tell_embedders_apart() {
    let ids = [
        tiny(Precision::F32, 1).identity(),
        tiny(Precision::Q8_0, 1).identity(),
        tiny(Precision::Q8_0A8, 1).identity(),
        HashEmbedder::new(64).identity(),
        HashEmbedder::new(65).identity(),
    ];
    for (i, a) in ids.iter().enumerate() {
        assert!(ids[i + 1..].iter().all(|b| a != b));
    }
    assert_eq!(tiny(Precision::F32, 2).identity(), ids[0]);
    for (from, to) in [("\"num_attention_heads\": 3", "\"num_attention_heads\": 4"), ("1e-12", "1e-5")] {
        let other = edited("config.json", |bytes| replace(bytes, from, to));
        let other = BertEncoder::load(other.path(), Precision::F32, Arc::new(Pool::serial())).unwrap();
        assert_ne!(other.identity(), ids[0], "{to}");
    }
}

#[test]
fn a_language_model_encodes_texts() {
    let model = fixtures::path("goldens/glm-tiny");
    let backend = CraftsmanBackend::load(&model, 256, &LoadOptions::default()).unwrap();
    let mut embedder = LanguageModelEmbedder::new(backend, [1; 32]).unwrap();
    let dims = embedder.dims();
    let vectors = embedder.embed(&["the bridge", "", "the bridge"]).unwrap();
    let (a, rest) = vectors.split_at(dims);
    let (empty, b) = rest.split_at(dims);
    assert_eq!(a, b);
    assert!((cosine(a, a) - 1.0).abs() < 1e-5 && empty.iter().all(|x| *x == 0.0));
}

/// A random network of one layer, 64 wide, with the tokenizer of the small one.
fn narrow() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut random = moe_runtime::SplitMix64::new(4);
    let mut tensors: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
    let mut add = |name: &str, shape: &[usize]| {
        let value = |_| match name.ends_with("LayerNorm.weight") {
            true => 1.0f32,
            // Twelve uniform numbers make nearly a normal one.
            false => ((0..12).map(|_| (random.next_u64() >> 40) as f32 / 16_777_216.0).sum::<f32>() - 6.0) * 0.1,
        };
        let bytes = (0..shape.iter().product()).map(value).flat_map(f32::to_le_bytes).collect();
        tensors.push((name.to_owned(), shape.to_vec(), bytes));
    };
    let [h, f] = [64, 128];
    add("embeddings.word_embeddings.weight", &[942, h]);
    add("embeddings.position_embeddings.weight", &[256, h]);
    add("embeddings.token_type_embeddings.weight", &[2, h]);
    let layer = |name: &str| format!("encoder.layer.0.{name}");
    let affine = |name: &str, rows: usize, cols: usize| [(layer(name), rows, cols)];
    for (name, rows, cols) in [
        affine("attention.self.query", h, h),
        affine("attention.self.key", h, h),
        affine("attention.self.value", h, h),
        affine("attention.output.dense", h, h),
        affine("intermediate.dense", f, h),
        affine("output.dense", h, f),
    ]
    .concat()
    {
        add(&format!("{name}.weight"), &[rows, cols]);
        add(&format!("{name}.bias"), &[rows]);
    }
    for name in ["embeddings.LayerNorm".to_owned(), layer("attention.output.LayerNorm"), layer("output.LayerNorm")] {
        add(&format!("{name}.weight"), &[h]);
        add(&format!("{name}.bias"), &[h]);
    }
    let views = tensors.iter().map(|(name, shape, bytes)| {
        (name, safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes).unwrap())
    });
    fs::write(dir.path().join("model.safetensors"), safetensors::serialize(views, None).unwrap()).unwrap();
    let mut config: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(fixtures::path(TINY).join("config.json")).unwrap()).unwrap();
    for (key, value) in
        [("hidden_size", h), ("intermediate_size", f), ("num_hidden_layers", 1), ("num_attention_heads", 2)]
    {
        config[key] = value.into();
    }
    fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    fs::copy(fixtures::path(TINY).join("tokenizer.json"), dir.path().join("tokenizer.json")).unwrap();
    dir
}

#[test]
fn ternary_layers_keep_the_direction_of_a_random_network() {
    let dir = narrow();
    let load = |precision| BertEncoder::load(dir.path(), precision, Arc::new(Pool::serial())).unwrap();
    let texts = texts();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let whole = load(Precision::F32).embed(&texts).unwrap();
    let mut encoder = load(Precision::Q2_0);
    let ternary = encoder.embed(&texts).unwrap();
    let lowest = lowest_cosine(&ternary, &whole, 64);
    assert!(lowest > 0.5 && lowest < 0.999, "trits are a part of the weights: {lowest}");
    let single: Vec<f32> = texts.iter().flat_map(|text| encoder.embed(&[text]).unwrap()).collect();
    assert_eq!(ternary, single);
    let rounded = load(Precision::Q8_0A8).embed(&texts).unwrap();
    assert!(lowest_cosine(&rounded, &whole, 64) > 0.999);
    let wide = BertEncoder::load(&fixtures::path(TINY), Precision::Q2_0, Arc::new(Pool::serial())).unwrap_err();
    assert!(wide.to_string().contains("block of 64"), "{wide}");
}

/// A copy of the small checkpoint in which `edit` has changed a file.
fn edited(file: &str, edit: impl Fn(&mut Vec<u8>)) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for name in ["config.json", "model.safetensors", "tokenizer.json"] {
        let mut bytes = fs::read(fixtures::path(TINY).join(name)).unwrap();
        if name == file {
            edit(&mut bytes);
        }
        fs::write(dir.path().join(name), bytes).unwrap();
    }
    dir
}

fn replace(bytes: &mut Vec<u8>, from: &str, to: &str) {
    let text = String::from_utf8(bytes.clone()).unwrap();
    assert!(text.contains(from), "{from}");
    *bytes = text.replace(from, to).into_bytes();
}

fn failure(dir: &Path) -> String {
    BertEncoder::load(dir, Precision::F32, Arc::new(Pool::serial())).unwrap_err().to_string()
}

#[test]
fn damaged_checkpoints_are_refused_with_a_sentence() {
    let replaced = |file: &str, from: &str, to: &str| failure(edited(file, |bytes| replace(bytes, from, to)).path());
    for (from, to, said) in [
        ("\"gelu\"", "\"relu\"", "hidden_act"),
        ("\"bert\"", "\"roberta\"", "model_type"),
        ("\"hidden_size\": 96", "\"hidden_size\": 97", "num_attention_heads"),
        ("\"hidden_size\": 96", "\"hidden_size\": 0", "hidden_size"),
        ("\"hidden_size\": 96", "\"hidden_size\": 192", "shape"),
        ("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3", "missing"),
        ("\"vocab_size\": 942", "\"vocab_size\": 60", "token 941"),
        ("\"num_attention_heads\": 3", "\"num_attention_heads\": 0", "num_attention_heads"),
        ("1e-12", "-1", "layer_norm_eps"),
        ("\"max_position_embeddings\": 256", "\"max_position_embeddings\": 8193", "2 to 8192"),
        ("{", "[", "cannot be read"),
    ] {
        let sentence = replaced("config.json", from, to);
        assert!(sentence.contains(said), "{from} -> {to}: {sentence}");
    }
    assert!(replaced("tokenizer.json", "WordPiece", "Nonsense").contains("tokenizer.json"));
    let long_words = replaced("tokenizer.json", WORD_CHARS, "\"max_input_chars_per_word\":201");
    assert!(long_words.contains("more than 200"), "{long_words}");
    let special = |edit: fn(&mut serde_json::Value)| {
        failure(
            edited("tokenizer.json", |bytes| {
                let mut json = serde_json::from_slice(bytes).unwrap();
                edit(&mut json);
                *bytes = serde_json::to_vec(&json).unwrap();
            })
            .path(),
        )
    };
    let none = special(|json| json["post_processor"] = serde_json::Value::Null);
    assert!(none.contains("adds 0 special tokens"), "{none}");
    let far = special(|json| json["post_processor"]["special_tokens"]["[CLS]"]["ids"] = [99_999].into());
    assert!(far.contains("token 99999"), "{far}");
    let nan = edited("model.safetensors", |bytes| {
        let n = bytes.len();
        bytes[n - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    });
    assert!(failure(nan.path()).contains("not finite"));
    let cut = edited("model.safetensors", |bytes| bytes.truncate(bytes.len() / 2));
    assert!(failure(cut.path()).contains("model.safetensors"));
    assert!(!failure(&fixtures::path("goldens/glm-tiny")).is_empty());
}

#[test]
fn hostile_texts_cost_bounded_time() {
    let mut encoder = tiny(Precision::F32, 1);
    let error = encoder.embed(&[&"a".repeat((1 << 20) + 1)]).unwrap_err().to_string();
    assert!(error.contains("cut it into chunks"), "{error}");
    for text in ["\u{0}", &"\u{301}".repeat(1000), &"a".repeat(1 << 16), &"a ".repeat(1 << 16)] {
        assert!(encoder.embed(&[text]).unwrap().iter().all(|x| x.is_finite()));
    }
    let mut hash = HashEmbedder::new(8);
    assert_eq!(hash.embed(&["", "?"]).unwrap(), [0.0; 16]);
}
