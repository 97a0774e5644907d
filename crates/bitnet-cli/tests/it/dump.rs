//! `bitnet dump` gives the numbers of transformers, for every size of a batch.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use safetensors::{Dtype, SafeTensors};

use crate::common::{bitnet, fixture, listing, text};

/// Every tensor as numbers with its shape.
fn read(path: &Path) -> BTreeMap<String, (Vec<usize>, Vec<f64>)> {
    let bytes = fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let one = |(name, view): (&str, safetensors::tensor::TensorView<'_>)| {
        let values = match view.dtype() {
            Dtype::F32 => view.data().as_chunks::<4>().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect(),
            Dtype::I64 => view.data().as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b) as f64).collect(),
            other => panic!("{name} is {other:?}"),
        };
        (name.to_owned(), (view.shape().to_vec(), values))
    };
    file.iter().map(one).collect()
}

fn tokens(golden: &BTreeMap<String, (Vec<usize>, Vec<f64>)>) -> String {
    golden["input_ids"].1.iter().map(f64::to_string).collect::<Vec<_>>().join(",")
}

/// Rows of `width` pairs (expert, weight), each in ascending order of the expert.
fn routing(ids: &(Vec<usize>, Vec<f64>), weights: &(Vec<usize>, Vec<f64>)) -> Vec<(i64, f64)> {
    assert_eq!(ids.0, weights.0);
    let pairs: Vec<(i64, f64)> = ids.1.iter().zip(&weights.1).map(|(id, w)| (*id as i64, *w)).collect();
    let width = *ids.0.last().unwrap();
    pairs
        .chunks(width)
        .flat_map(|row| {
            let mut row = row.to_vec();
            row.sort_by_key(|pair| pair.0);
            row
        })
        .collect()
}

#[test]
fn goldens_hold_through_the_command_and_every_chunk_gives_the_same_bits() {
    for case in ["glm-tiny", "glm4-moe-gqa"] {
        let dir = tempfile::tempdir().unwrap();
        let model = fixture(&format!("goldens/{case}"));
        let golden = read(&fixtures::path(format!("goldens/{case}/golden.safetensors")));
        let ids = tokens(&golden);
        let mut first: Option<Vec<u8>> = None;
        for (i, more) in [&[][..], &["--chunk", "1"], &["--chunk", "7", "--threads", "1"]].iter().enumerate() {
            let out = dir.path().join(format!("{i}.safetensors"));
            let ended = bitnet(["dump", "-m", &model, "--tokens", &ids, "-o", text(&out)].iter().chain(*more));
            assert!(ended.stderr.contains("positions in"), "{}", ended.stderr);
            assert_eq!(ended.done(), "");
            let bytes = fs::read(&out).unwrap();
            assert!(*first.get_or_insert_with(|| bytes.clone()) == bytes, "{case}: {more:?} changes the numbers");
        }
        let got = read(&dir.path().join("0.safetensors"));
        let shape = |tensors: &BTreeMap<String, (Vec<usize>, Vec<f64>)>, name: &str| {
            let shape = tensors[name].0.clone();
            if shape[0] == 1 { shape[1..].to_vec() } else { shape }
        };
        for (name, (_, want)) in &golden {
            let (_, have) = got.get(name).unwrap_or_else(|| panic!("{case}: {name} is missing"));
            assert_eq!(shape(&got, name), shape(&golden, name), "{case}: {name}");
            let worst = want.iter().zip(have).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            match name.split('.').next().unwrap() {
                "logits" => assert!(worst < 2e-3, "{case}: logits differ by {worst}"),
                "hidden" => {
                    let error: f64 = want.iter().zip(have).map(|(a, b)| (a - b) * (a - b)).sum();
                    let size: f64 = want.iter().map(|a| a * a).sum();
                    assert!((error / size).sqrt() < 1e-4, "{case}: {name} differs by {}", (error / size).sqrt());
                }
                "router_ids" => {
                    let weights = name.replace("ids", "weights");
                    let (want, have) = [&golden, &got].map(|t| routing(&t[name], &t[&weights])).into();
                    for (a, b) in std::iter::zip::<Vec<_>, Vec<_>>(want, have) {
                        assert!(a.0 == b.0 && (a.1 - b.1).abs() < 1e-4, "{case}: {name} {a:?} {b:?}");
                    }
                }
                "router_weights" => {}
                "input_ids" => assert_eq!(worst, 0.0),
                other => panic!("{case}: {other} is not compared"),
            }
        }
    }
}

#[test]
fn texts_are_dumped_too_and_files_are_not_lost() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("text.safetensors");
    let base = ["dump", "-m", &fixture("craftsman-mini"), "-o", text(&out)];
    let with = |more: &[&str]| bitnet(base.iter().chain(more));
    with(&["--text", "Hello, world!"]).done();
    let ids = read(&out)["input_ids"].1.clone();
    assert_eq!(ids, [39.0, 742.0, 78.0, 11.0, 289.0, 270.0, 539.0, 0.0]);
    with(&["--tokens", "1", "--act", "a8-token", "--kv", "f16"]).done();
    assert_eq!(read(&out)["input_ids"].1, [1.0], "an earlier dump is replaced");
    std::fs::write(&out, "a letter").unwrap();
    assert!(with(&["--tokens", "1"]).refusal().contains("--force"));
    assert_eq!(std::fs::read(&out).unwrap(), b"a letter");
    with(&["--tokens", "1", "--force"]).done();
    assert_eq!(read(&out)["input_ids"].1, [1.0]);
    assert_eq!(listing(dir.path()), ["text.safetensors"]);
}

#[test]
fn tokens_and_places_that_do_not_exist_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("x.safetensors");
    let model = fixture("goldens/glm-tiny");
    let with = |more: &[&str]| bitnet(["dump", "-m", &model].iter().chain(more));
    let sentence = with(&["--tokens", "1,9999", "-o", text(&out)]).refusal();
    assert!(sentence.contains("9999") && sentence.contains("512"), "{sentence}");
    assert!(with(&["--text", "", "-o", text(&out)]).usage().contains("--text"));
    assert!(with(&["--tokens", "1", "-o", text(dir.path())]).refusal().contains("directory"));
    with(&["--tokens", "1,,2", "-o", text(&out)]).usage();
    with(&["--tokens", "-1", "-o", text(&out)]).usage();
    with(&["--tokens", "1", "--chunk", "0", "-o", text(&out)]).usage();
    with(&["--tokens", "1", "--text", "a", "-o", text(&out)]).usage();
    with(&["-o", text(&out)]).usage();
    if cfg!(unix) {
        assert!(with(&["--tokens", "1", "-o", "/dev/null", "--force"]).refusal().contains("device"));
    }
    assert!(listing(dir.path()).is_empty());
}

#[test]
fn no_verb_writes_over_the_model_or_the_shape_that_it_reads() {
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("model");
    std::fs::create_dir(&copy).unwrap();
    for name in listing(&fixtures::path("goldens/glm-tiny")) {
        std::fs::copy(fixtures::path("goldens/glm-tiny").join(&name), copy.join(&name)).unwrap();
    }
    let model = text(&copy).to_owned();
    let gguf = dir.path().join("student.gguf");
    bitnet(["quantize", "-m", &model, "-o", text(&gguf)]).done();
    let shard = listing(&copy).into_iter().find(|name| name.ends_with(".safetensors")).unwrap();
    let (shard, config) = (copy.join(shard), copy.join("config.json"));
    for (model, out) in [(&*model, &shard), (&*model, &config), (text(&gguf), &gguf)] {
        let before = std::fs::read(out).unwrap();
        let sentence = bitnet(["dump", "-m", model, "--tokens", "1", "-o", text(out), "--force"]).usage();
        assert!(sentence.contains("--out") && sentence.contains("belongs to the model that is read"), "{sentence}");
        assert_eq!(std::fs::read(out).unwrap(), before);
    }
    let before = std::fs::read(&config).unwrap();
    let sentence = bitnet(["synth", "--shape", text(&config), "-o", text(&config), "--force"]).usage();
    assert!(sentence.contains("--out") && sentence.contains("belongs to the model that is read"), "{sentence}");
    assert_eq!(std::fs::read(&config).unwrap(), before);
}

#[cfg(unix)]
#[test]
fn packed_weights_never_replace_a_socket_or_a_link_to_a_device() {
    let dir = tempfile::tempdir().unwrap();
    let (student, socket, link) = (dir.path().join("s.gguf"), dir.path().join("socket"), dir.path().join("link"));
    bitnet(["quantize", "-m", &fixture("goldens/wide"), "-o", text(&student)]).done();
    let _held = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    std::os::unix::fs::symlink("/dev/null", &link).unwrap();
    for place in [&socket, &link] {
        let cache = format!("--layout-cache={}", place.display());
        let ran = bitnet(["run", "-m", text(&student), "-p", "hi", "-n", "1", "--layout", "packed", &cache]);
        assert!(ran.stderr.contains("name a"), "{}", ran.stderr);
        assert!(!std::fs::symlink_metadata(place).unwrap().is_file(), "{} was replaced", place.display());
    }
}
