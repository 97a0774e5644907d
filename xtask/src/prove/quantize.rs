//! `prove quantize`: a full-width checkpoint in bounded memory, fast, and safe from kills.
//!
//! Targets: VmHWM below 1.5 GB and at least 100M weights/s with least squares on two cores, for 5.25 GB of BF16.

use std::path::Path;

use super::proof::Proof;
use super::{clock, kill};
use crate::bitnet::{self, arg};
use crate::outcome::Outcome;
use crate::repo;

const PEAK_BYTES: u64 = 1_500_000_000;
const WEIGHTS_PER_SECOND: f64 = 1e8;
/// BF16 bytes of the embedding and the head, and of one layer, with room for the shards' headers.
const ENDS_BYTES: u64 = 1_300_000_000;
const LAYER_BYTES: u64 = 1_300_000_000;

pub(super) fn prove(proof: &mut Proof<'_>, binary: &Path) -> Outcome {
    let layers = proof.options.layers;
    let input = ENDS_BYTES + u64::from(layers) * LAYER_BYTES;
    proof.need_disk(input + input)?;
    let model = proof.work.join("checkpoint");
    let count = layers.to_string();
    bitnet::output(
        binary,
        &[
            "synth",
            "--shape",
            "glm-4.7-flash",
            "--layers",
            &count,
            "--format",
            "safetensors-bf16",
            "--out",
            arg(&model)?,
        ],
    )?;
    let bytes = tensor_bytes(&model)?;
    let whole = proof.work.join("whole.gguf");
    let ended = clock::run(binary, &kill::arguments(&model, &whole)?, None)?;
    if !ended.status.success() {
        return Err(format!("`bitnet quantize` ended with {}", ended.status).into());
    }
    proof.figure("checkpoint", repo::bytes(bytes), "5.25 GB for 4 layers", layers != 4 || bytes > 5_000_000_000);
    match ended.peak_bytes {
        Some(peak) => proof.figure("peak VmHWM", repo::bytes(peak), "below 1.5 GB", peak < PEAK_BYTES),
        None => proof.figure("peak VmHWM", "unknown: no /proc", "below 1.5 GB", false),
    }
    let speed = (bytes / 2) as f64 / ended.wall.as_secs_f64();
    let figure = format!("{:.0}M weights/s, {:.1} s with verification", speed / 1e6, ended.wall.as_secs_f64());
    proof.figure("speed with least squares", figure, "at least 100M weights/s", speed >= WEIGHTS_PER_SECOND);
    kill::survive(proof, binary, &model, &whole, ended.wall)
}

/// Bytes of all weight files of a checkpoint folder.
fn tensor_bytes(dir: &Path) -> Outcome<u64> {
    let mut total = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.path().extension().is_some_and(|e| e == "safetensors") {
            total += entry.metadata()?.len();
        }
    }
    Ok(total)
}
