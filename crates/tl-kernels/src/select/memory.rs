//! The results of kernel trials, as a text that the caller keeps from one start to the next.
//!
//! ```text
//! kernels 2                             version of the text's meaning
//! machine x86_64 | AMD EPYC | ...       HardwareCaps::fingerprint
//! level avx512                          the level in force
//! file model.gguf 9034 1719             the name of the model, from the caller
//! TQ2_0 2048 A8Block I2s I2s avx512     type, columns, activations, layout -> kernel, level
//! end 7f3a...                           FNV-1a of all lines above
//! ```
//!
//! **Invariant:** a text that is damaged, or of another machine, level or model, counts as absent. A choice from a text
//! still has to be a candidate and to pass the self-test, so it can cost speed and nothing else.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::trial::{Candidate, Question};
use crate::arch::Isa;
use crate::machine::HardwareCaps;
use crate::matmul::KernelKind;

/// Version of the text's meaning. A change of the kernels must raise it, because old times would choose among new
/// kernels.
const VERSION: &str = "kernels 2";

/// The results of trials for one model on this machine. Clones share them.
#[derive(Debug, Clone)]
pub struct TrialMemory(Arc<Mutex<Results>>);

#[derive(Debug)]
struct Results {
    /// The first lines of the text.
    header: String,
    lines: Vec<(String, Candidate)>,
    /// Whether a result was added that [`TrialMemory::unsaved`] has not returned.
    changed: bool,
}

impl TrialMemory {
    /// The results in `text`, which [`TrialMemory::unsaved`] gave in an earlier run; `None` at the first start. `model`
    /// tells the model file from others and from its earlier versions.
    #[must_use]
    pub fn new(model: &str, text: Option<&str>) -> TrialMemory {
        TrialMemory::of(model, text, &HardwareCaps::detect(), Isa::current())
    }

    /// The same for a given machine and level.
    fn of(model: &str, text: Option<&str>, caps: &HardwareCaps, level: Isa) -> TrialMemory {
        let one_line = |text: &str| text.replace(['\n', '\r'], " ");
        let (machine, model) = (one_line(&caps.fingerprint()), one_line(model));
        let header = format!("{VERSION}\nmachine {machine}\nlevel {level}\nfile {model}\n");
        let lines = text.and_then(|text| parse(text, &header)).unwrap_or_default();
        TrialMemory(Arc::new(Mutex::new(Results { header, lines, changed: false })))
    }

    /// The text to keep for the next start, if a trial has added to it since the last call.
    #[must_use]
    pub fn unsaved(&self) -> Option<String> {
        let mut results = self.results();
        if !std::mem::take(&mut results.changed) {
            return None;
        }
        let mut text = results.header.clone();
        for (key, (kernel, isa)) in &results.lines {
            text += &format!("{key} {kernel:?} {isa}\n");
        }
        text += &format!("end {:016x}\n", fnv1a(text.as_bytes()));
        Some(text)
    }

    /// The kernel and level that are remembered for a type of weights.
    pub(crate) fn get(&self, question: &Question) -> Option<Candidate> {
        let key = key(question);
        self.results().lines.iter().find(|(line, _)| *line == key).map(|(_, candidate)| *candidate)
    }

    /// Remembers the kernel and level for a type of weights.
    pub(crate) fn put(&self, question: &Question, candidate: Candidate) {
        let mut results = self.results();
        results.lines.push((key(question), candidate));
        results.changed = true;
    }

    fn results(&self) -> MutexGuard<'_, Results> {
        // A panic cannot leave the results half-changed, so a poisoned lock is usable.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(question: &Question) -> String {
    format!("{} {} {:?} {:?}", question.weights, question.cols, question.mode, question.layout)
}

/// The results in a text whose header and checksum are right.
fn parse(text: &str, header: &str) -> Option<Vec<(String, Candidate)>> {
    let (signed, sum) = text.split_at_checked(text.rfind("end ")?)?;
    let sum = u64::from_str_radix(sum.strip_prefix("end ")?.trim_end(), 16).ok()?;
    if sum != fnv1a(signed.as_bytes()) {
        return None;
    }
    signed.strip_prefix(header)?.lines().map(answer).collect()
}

fn answer(line: &str) -> Option<(String, Candidate)> {
    let (rest, isa) = line.rsplit_once(' ')?;
    let (key, kernel) = rest.rsplit_once(' ')?;
    let kernel = KernelKind::ALL.into_iter().find(|k| format!("{k:?}") == kernel)?;
    Some((key.to_owned(), (kernel, Isa::from_name(isa).ok()?)))
}

/// The checksum FNV-1a. It detects damage and no forgery, which could cost speed and nothing else.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ternary_core::ActMode;

    const QUESTION: Question =
        Question { weights: "TQ2_0", cols: 512, mode: ActMode::A8Block, layout: KernelKind::I2s };
    const I2S: Candidate = (KernelKind::I2s, Isa::Scalar);
    const TL1: Candidate = (KernelKind::Tl1, Isa::Scalar);

    #[test]
    fn answers_survive_and_are_forgotten_when_anything_changed() {
        let caps = HardwareCaps::detect();
        let memory = TrialMemory::of("a 1", None, &caps, Isa::Scalar);
        assert_eq!((memory.get(&QUESTION), memory.unsaved()), (None, None));
        memory.put(&QUESTION, TL1);
        let other = Question { cols: 256, layout: KernelKind::Tiles, ..QUESTION };
        memory.clone().put(&other, I2S);
        let text = memory.unsaved().unwrap();
        assert_eq!(memory.unsaved(), None, "it is given once");

        let read = |model: &str, caps: &HardwareCaps, level| TrialMemory::of(model, Some(&text), caps, level);
        let again = read("a 1", &caps, Isa::Scalar);
        assert_eq!((again.get(&QUESTION), again.get(&other)), (Some(TL1), Some(I2S)));
        assert_eq!(again.unsaved(), None, "nothing is new");
        assert_eq!(again.get(&Question { mode: ActMode::A8Token, ..QUESTION }), None);
        assert_eq!(read("a 2", &caps, Isa::Scalar).get(&QUESTION), None, "another version of the model");
        assert_eq!(read("a 1", &caps, Isa::Avx2).get(&QUESTION), None, "another level");
        let elsewhere = HardwareCaps { cpu: Some("another".to_owned()), ..caps.clone() };
        assert_eq!(read("a 1", &elsewhere, Isa::Scalar).get(&QUESTION), None);
    }

    #[test]
    fn damaged_texts_count_as_absent() {
        let caps = HardwareCaps::detect();
        let memory = TrialMemory::of("m", None, &caps, Isa::Scalar);
        memory.put(&QUESTION, TL1);
        let whole = memory.unsaved().unwrap().into_bytes();
        for cut in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[cut] ^= 1;
            for bytes in [&whole[..cut], &damaged] {
                let text = std::str::from_utf8(bytes).ok();
                let memory = TrialMemory::of("m", text, &caps, Isa::Scalar);
                // Only a flip in the white space at the end may pass.
                assert!(memory.get(&QUESTION).is_none() || cut + 1 >= whole.len(), "byte {cut}");
            }
        }
    }
}
