//! `prove calibrate`: a calibrated quantisation survives `kill -9` behind every layer and in the middle of each.
//!
//! The run is killed as soon as the streams behind a layer are on the disk, resumed, killed again halfway through the layer that
//! follows, and so on to the last one. It must end with the bytes of an undisturbed run on another number of threads.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::clock::{self, Ended};
use super::kill::{partial, same_bytes};
use super::proof::Proof;
use crate::bitnet::arg;
use crate::outcome::Outcome;
use crate::repo;

/// Layers of the mini teacher.
const LAYERS: u32 = 5;
const NOTE: &str = "calibration windows of the unfinished job";

pub(super) fn prove(proof: &mut Proof<'_>, binary: &Path) -> Outcome {
    proof.need_disk(500_000_000)?;
    let fixtures = repo::root().join("fixtures");
    let (teacher, text) = (fixtures.join("craftsman-mini"), fixtures.join("texts/calibration.txt"));
    let (whole, killed) = (proof.work.join("whole.gguf"), proof.work.join("killed.gguf"));
    let quantize = ["quantize", "--model", arg(&teacher)?, "--preset", "quality", "--method", "gptq"];
    let settings = ["--calibration-tokens", "4096", "--self-calibrate", "1024", "--kicks", "2"];
    let args = [&quantize[..], &["--calibration", arg(&text)?], &settings].concat();
    let undisturbed = [&args[..], &["--out", arg(&whole)?, "--threads", "1"]].concat();
    let disturbed = [&args[..], &["--out", arg(&killed)?, "--threads", "2"]].concat();
    let ended = clock::run(binary, &undisturbed, None)?;
    succeeded(&ended)?;
    // Half of a layer, as if the layers took all of the time: the kill comes no later than the end of one.
    let half = ended.wall / (2 * LAYERS);
    let kills = kill_everywhere(binary, &disturbed, &partial(&killed), half)?;
    let (behind, within) =
        (kills.iter().filter(|(_, middle)| !middle).count(), kills.iter().filter(|(_, m)| *m).count());
    proof.figure("kills behind a layer", behind.to_string(), format!("{LAYERS}"), behind == LAYERS as usize);
    let wanted = LAYERS as usize - 1;
    proof.figure("kills within a layer", within.to_string(), format!("{wanted}"), within == wanted);
    let mut last = Command::new(binary);
    let output = last.args(&disturbed).stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    let kept = output.status.success() && said.contains(NOTE);
    proof.figure("the resumed run generates no text anew", if kept { "it says so" } else { "it does not" }, NOTE, kept);
    let same = same_bytes(&whole, &killed)?;
    let figure = if same { "every byte" } else { "differs" };
    proof.figure("the resumed file equals the undisturbed one of one thread", figure, "equal", same);
    let rest = partial(&killed).exists();
    proof.figure("nothing is left behind", if rest { "OUT.partial remains" } else { "clean" }, "no OUT.partial", !rest);
    Ok(())
}

/// Kills the run behind each layer, and `half` a layer later; returns the layers that were behind it, and whether it
/// was in the middle of the next.
fn kill_everywhere(binary: &Path, args: &[&str], partial: &Path, half: Duration) -> Outcome<Vec<(u32, bool)>> {
    let mut kills = Vec::new();
    for layer in 1..=LAYERS {
        let (state, next) = (partial.join(format!("state.{layer}")), partial.join(format!("state.{}", layer + 1)));
        if !clock::run_until(binary, args, &mut |_| state.exists())?.killed {
            break;
        }
        kills.push((layer, false));
        if layer == LAYERS {
            break;
        }
        // The resumed run reads its inputs first; they are behind it when it has written the layer's tensors.
        let written = || std::fs::read_to_string(partial.join("journal.jsonl")).map_or(0, |journal| journal.len());
        let (before, mut since) = (written(), None);
        let ended = clock::run_until(binary, args, &mut |elapsed| {
            if written() > before {
                return elapsed >= *since.get_or_insert(elapsed) + half;
            }
            false
        })?;
        if ended.killed && !next.exists() {
            kills.push((layer, true));
        }
    }
    Ok(kills)
}

fn succeeded(ended: &Ended) -> Outcome {
    if ended.status.success() { Ok(()) } else { Err(format!("`bitnet quantize` ended with {}", ended.status).into()) }
}
