//! Which of several equal kernels is the fastest here: a timed trial on real rows, and the file that remembers it.
//!
//! ```text
//! kernels 2                             version of this file's meaning
//! machine x86_64 | AMD EPYC | ...       HardwareCaps::fingerprint
//! level avx512                          the level in force
//! file model.gguf 9034 1719             whatever the caller says
//! TQ2_0 2048 A8Block I2s I2s avx512     type, columns, activations, layout -> kernel, level
//! end 7f3a...                           FNV-1a of all lines above
//! ```
//!
//! **Invariant:** a trial changes speed, never results; a file that is damaged, or of another machine, level or model,
//! counts as absent. Any choice read from a file still has to exist and to pass the self-test.

use std::fs;
use std::path::{Path, PathBuf};

use ternary_core::ActMode;

use crate::activations::ActivationBuffer;
use crate::arch::Isa;
use crate::machine::HardwareCaps;
use crate::matmul::{KernelKind, Linear, TABLE_ROWS};
use crate::pool::Pool;

/// Repetitions of a candidate; the fastest counts.
const REPETITIONS: usize = 7;

/// How much faster than the default another kernel must be, so that noise does not choose.
const MARGIN: f64 = 1.08;

/// Tokens of the batch that stands for a prompt.
const BATCH: usize = 32;

/// Weights of the rows that are timed: enough for a stable time, at most a millisecond per token on one core.
const SAMPLE_WEIGHTS: usize = 1 << 20;

/// Version of the file's meaning; raise it when kernels change.
const VERSION: &str = "kernels 2";

/// Where trials are remembered, and for which model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrialCache {
    /// The file, which need not exist.
    pub path: PathBuf,
    /// What tells this model file from others and from its earlier versions.
    pub model: String,
}

/// A type of weights as trials tell them apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Question {
    /// Name of the weight type.
    pub(crate) weights: &'static str,
    /// Length of a row.
    pub(crate) cols: usize,
    /// Precision of the activations.
    pub(crate) mode: ActMode,
    /// The kernel of the layout that the weights lie in.
    pub(crate) layout: KernelKind,
}

/// A kernel on a level.
pub(crate) type Candidate = (KernelKind, Isa);

/// The rows of `linear` that a trial runs on.
pub(crate) fn sample(linear: &Linear) -> Option<Linear> {
    // With fewer rows no token tables would be made, and the trial would miss what they gain.
    let rows = (SAMPLE_WEIGHTS / linear.cols().max(1)).max(TABLE_ROWS).min(linear.rows());
    linear.slice_rows(0, rows).ok()
}

/// The first candidate, unless another one is faster by a margin with one token and not slower by that margin with a
/// batch. A candidate that cannot be made is left out.
pub(crate) fn fastest(sample: &Linear, candidates: &[Candidate]) -> Option<Candidate> {
    let times = candidates.iter().filter_map(|&candidate| {
        let (one, batch) = (time(sample, candidate, 1)?, time(sample, candidate, BATCH)?);
        Some(Times { candidate, one, batch })
    });
    pick(&times.collect::<Vec<_>>())
}

/// Seconds of the product with one token, and with a batch.
#[derive(Clone, Copy)]
struct Times {
    candidate: Candidate,
    one: f64,
    batch: f64,
}

fn pick(times: &[Times]) -> Option<Candidate> {
    let default = *times.first()?;
    let as_good = times.iter().filter(|times| times.batch < default.batch * MARGIN);
    let best = as_good.min_by(|a, b| a.one.total_cmp(&b.one)).unwrap_or(&default);
    Some(if best.one * MARGIN < default.one { best.candidate } else { default.candidate })
}

/// Seconds of the product with `n` tokens.
fn time(sample: &Linear, (kernel, isa): Candidate, n: usize) -> Option<f64> {
    let linear = sample.clone().with_kernel(kernel).and_then(|linear| linear.with_isa(isa)).ok()?;
    let x: Vec<f32> = (0..n * linear.cols()).map(|i| ((i * 37) % 101) as f32 - 50.0).collect();
    let mut acts = ActivationBuffer::new();
    acts.set(&x, n, linear.cols());
    acts.quantize(linear.act_mode());
    let mut y = vec![0.0; n * linear.rows()];
    let once = || {
        let start = std::time::Instant::now();
        linear.forward(&Pool::serial(), &acts, &mut y);
        start.elapsed().as_secs_f64()
    };
    // The first run warms the caches and makes the tables, which many products share.
    std::iter::repeat_with(once).take(1 + REPETITIONS).skip(1).min_by(f64::total_cmp)
}

/// Earlier answers, and those of this run.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    cache: Option<TrialCache>,
    header: String,
    lines: Vec<(String, Candidate)>,
}

impl Answers {
    /// The answers in the file, if it is whole and about this machine, level and model.
    pub(crate) fn open(cache: Option<TrialCache>, caps: &HardwareCaps, level: Isa) -> Answers {
        let model = cache.as_ref().map_or("", |cache| cache.model.as_str());
        let one_line = |text: &str| text.replace(['\n', '\r'], " ");
        let (machine, model) = (one_line(&caps.fingerprint()), one_line(model));
        let header = format!("{VERSION}\nmachine {machine}\nlevel {level}\nfile {model}\n");
        let read = cache.as_ref().and_then(|cache| fs::read_to_string(&cache.path).ok());
        let lines = read.and_then(|text| parse(&text, &header)).unwrap_or_default();
        Answers { cache, header, lines }
    }

    /// The answer to a question.
    pub(crate) fn get(&self, question: &Question) -> Option<Candidate> {
        let key = key(question);
        self.lines.iter().find(|(line, _)| *line == key).map(|(_, candidate)| *candidate)
    }

    /// Remembers an answer. A file that cannot be written costs a trial at the next start, nothing more.
    pub(crate) fn put(&mut self, question: &Question, candidate: Candidate) {
        self.lines.push((key(question), candidate));
        let Some(cache) = &self.cache else {
            return;
        };
        let mut text = self.header.clone();
        for (key, (kernel, isa)) in &self.lines {
            text += &format!("{key} {kernel:?} {isa}\n");
        }
        text += &format!("end {:016x}\n", fnv1a(text.as_bytes()));
        if let Err(error) = replace(&cache.path, &text) {
            tracing::warn!(path = %cache.path.display(), %error, "a kernel trial cannot be remembered");
        }
    }
}

fn key(question: &Question) -> String {
    format!("{} {} {:?} {:?}", question.weights, question.cols, question.mode, question.layout)
}

/// The answers of a file whose header and checksum are right.
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

/// Detects damage, not intent: a choice from a file cannot do harm.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Writes a file that appears complete or not at all.
fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.partial", std::process::id()));
    let partial = path.with_file_name(name);
    fs::write(&partial, text)?;
    fs::rename(&partial, path).inspect_err(|_| {
        let _ = fs::remove_file(&partial);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUESTION: Question =
        Question { weights: "TQ2_0", cols: 512, mode: ActMode::A8Block, layout: KernelKind::I2s };
    const I2S: Candidate = (KernelKind::I2s, Isa::Scalar);
    const TL1: Candidate = (KernelKind::Tl1, Isa::Scalar);

    fn cache(dir: &Path, model: &str) -> Option<TrialCache> {
        Some(TrialCache { path: dir.join("kernels/model.txt"), model: model.to_owned() })
    }

    #[test]
    fn the_default_stays_unless_another_is_clearly_faster_and_no_slower_with_many_tokens() {
        let choice = |one, batch| {
            let default = Times { candidate: I2S, one: 1.0, batch: 9.0 };
            pick(&[default, Times { candidate: TL1, one, batch }])
        };
        assert_eq!(choice(0.95, 9.0), Some(I2S));
        assert_eq!(choice(0.80, 9.0), Some(TL1));
        assert_eq!(choice(0.80, 12.0), Some(I2S));
        assert_eq!(choice(1.5, 5.0), Some(I2S));
        assert_eq!(pick(&[]), None);
    }

    #[test]
    fn answers_survive_and_are_forgotten_when_anything_changed() {
        let dir = tempfile::tempdir().unwrap();
        let caps = HardwareCaps::detect();
        let mut answers = Answers::open(cache(dir.path(), "a 1"), &caps, Isa::Scalar);
        assert_eq!(answers.get(&QUESTION), None);
        answers.put(&QUESTION, TL1);
        let other = Question { cols: 256, layout: KernelKind::Tiles, ..QUESTION };
        answers.put(&other, I2S);

        let reopened = Answers::open(cache(dir.path(), "a 1"), &caps, Isa::Scalar);
        assert_eq!((reopened.get(&QUESTION), reopened.get(&other)), (Some(TL1), Some(I2S)));
        assert_eq!(reopened.get(&Question { mode: ActMode::A8Token, ..QUESTION }), None);
        let changed = Answers::open(cache(dir.path(), "a 2"), &caps, Isa::Scalar);
        assert_eq!(changed.get(&QUESTION), None, "another version of the model");
        let lowered = Answers::open(cache(dir.path(), "a 1"), &caps, Isa::Avx2);
        assert_eq!(lowered.get(&QUESTION), None, "another level");
        let elsewhere = HardwareCaps { cpu: Some("another".to_owned()), ..caps.clone() };
        assert_eq!(Answers::open(cache(dir.path(), "a 1"), &elsewhere, Isa::Scalar).get(&QUESTION), None);
        assert_eq!(fs::read_dir(dir.path().join("kernels")).unwrap().count(), 1, "no partial file is left");
    }

    #[test]
    fn damaged_files_count_as_absent() {
        let dir = tempfile::tempdir().unwrap();
        let caps = HardwareCaps::detect();
        Answers::open(cache(dir.path(), "m"), &caps, Isa::Scalar).put(&QUESTION, TL1);
        let path = dir.path().join("kernels/model.txt");
        let whole = fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[cut] ^= 1;
            for bytes in [&whole[..cut], &damaged] {
                fs::write(&path, bytes).unwrap();
                let answers = Answers::open(cache(dir.path(), "m"), &caps, Isa::Scalar);
                // Only a flip in the white space at the end may pass.
                assert!(answers.get(&QUESTION).is_none() || cut + 1 >= whole.len(), "byte {cut}");
            }
        }
    }

    #[test]
    fn a_place_that_cannot_be_written_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("kernels"), "a file where a directory should be").unwrap();
        let mut answers = Answers::open(cache(dir.path(), "m"), &HardwareCaps::detect(), Isa::Scalar);
        answers.put(&QUESTION, I2S);
        assert_eq!(answers.get(&QUESTION), Some(I2S));
    }

    #[test]
    fn every_candidate_is_run_and_impossible_ones_are_out() {
        let tensor = ternary_core::TernaryTensor::quantize(
            ternary_core::Packing::Tq2_0,
            ternary_core::Rounding::AbsMean,
            3,
            256,
            &[0.5; 768],
            None,
        )
        .unwrap();
        let linear = sample(&Linear::ternary(tensor, ActMode::F32).unwrap()).unwrap();
        assert_eq!(linear.rows(), 3);
        assert_eq!(fastest(&linear, &[TL1]), None, "no look-ups with F32 activations");
        assert_eq!(fastest(&linear, &[TL1, I2S]), Some(I2S));
    }
}
