//! A teacher's answers kept on disk: the most likely tokens of every scored position and the mass of the rest.
//!
//! Full logits of a vocabulary of 154,880 are 620 kB per position; the best 256 with their probabilities are 2 kB.
//! The perplexity of the teacher, its most likely token and the probability of the right token stay exact; only the
//! divergence suffers, and its truncation error is reported as an interval that contains the true mean:
//!
//! - *lower*: the rest as one lump, `P ln(P / Q)` with the masses P, Q of the rest in teacher and student (merging
//!   outcomes never raises a divergence);
//! - *upper*: no token of the rest is likelier than the least likely one kept, nor than P, so the rest adds at most
//!   `P ln(min(p_last, P) / q_min)` with the student's least likely token of the rest.
//!
//! ```text
//!   header   magic "CRAFTBL1", then u64: vocab_size, n_ctx, windows, kept, prefix length; prefix as u32
//!   window   n_ctx tokens as u32, then for each scored position
//!     row    f64 ln p of the token that came, f64 mass of the rest, kept x (u32 token, f32 ln p), likeliest first
//! ```
//!
//! All numbers are little-endian. A file is read window by window and checked as it is read.

use std::io::{Read, Write};

use serde::Serialize;

use crate::error::{Error, Result, Role};
use crate::fidelity::{Comparison, Fidelity};
use crate::lockstep;
use crate::model::LanguageModel;
use crate::numeric::{exp, ln};
use crate::row::{Place, Prediction, log_sum_exp, prediction, top};
use crate::stats::{Estimate, Moments};
use crate::window::{FidelityConfig, Progress, Windows};

/// How many tokens are kept per position unless asked otherwise.
pub const KEPT: usize = 256;
const MAGIC: &[u8; 8] = b"CRAFTBL1";
/// Largest vocabulary and window a file may claim; both bound what is allocated.
const MAX_VOCAB: u64 = 1 << 24;
const MAX_CTX: u64 = 1 << 24;

/// What was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Recorded {
    /// Windows recorded.
    pub windows: usize,
    /// Positions recorded.
    pub predictions: u64,
    /// Tokens kept per position.
    pub kept: usize,
    /// Mean probability mass of the tokens not kept.
    pub tail_mass: Estimate,
    /// The largest of them.
    pub max_tail_mass: f64,
}

/// A student measured against a stored baseline.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SparseReport {
    /// Length of a window.
    pub n_ctx: usize,
    /// Windows scored.
    pub windows: usize,
    /// Predictions scored.
    pub predictions: u64,
    /// Tokens kept per position.
    pub kept: usize,
    /// All figures; the divergences are the lower bounds.
    #[serde(flatten)]
    pub figures: Fidelity,
    /// Upper bound of the mean divergence.
    pub kl_mean_upper: Estimate,
    /// Upper minus lower bound of the mean: what truncation may hide, at most.
    pub kl_truncation_error: f64,
    /// Mean mass of the teacher's tokens that were not kept.
    pub tail_mass: f64,
}

/// One stored position.
#[derive(Clone, Debug, Default, PartialEq)]
struct SparseRow {
    /// `ln p` of the token that came.
    log_prob: f64,
    /// Mass of the tokens not kept.
    tail: f64,
    /// Tokens and `ln p`, the likeliest first; equal ones by ascending token.
    kept: Vec<(u32, f32)>,
}

impl SparseRow {
    /// Keeps the `count` likeliest of a row of logits.
    fn of(logits: &[f32], target: usize, count: usize, place: Place) -> Result<Self> {
        let (best, largest) = top(logits, place)?;
        let total = log_sum_exp(logits, largest);
        let (kept, tail) = likeliest(logits, total, count);
        Ok(Self { log_prob: prediction(logits, target, best, total).log_prob, tail, kept })
    }

    fn prediction(&self, target: usize) -> Prediction {
        let top = self.kept.first().map_or(0, |&(token, _)| token as usize);
        Prediction { log_prob: self.log_prob, correct: top == target, top }
    }

    fn write(&self, out: &mut impl Write) -> Result<()> {
        out.write_all(&self.log_prob.to_le_bytes())?;
        out.write_all(&self.tail.to_le_bytes())?;
        for (token, log_prob) in &self.kept {
            out.write_all(&token.to_le_bytes())?;
            out.write_all(&log_prob.to_le_bytes())?;
        }
        Ok(())
    }

    /// Reads a row of `kept` tokens.
    fn read(&mut self, input: &mut impl Read, kept: usize, vocab_size: usize) -> Result<()> {
        self.log_prob = f64::from_le_bytes(bytes(input)?);
        self.tail = f64::from_le_bytes(bytes(input)?);
        if !(self.log_prob.is_finite() && self.log_prob <= 0.0 && (0.0..=1.0 + 1e-9).contains(&self.tail)) {
            return damaged("a probability is out of range");
        }
        self.kept.clear();
        for _ in 0..kept {
            let token = u32::from_le_bytes(bytes(input)?);
            let log_prob = f32::from_le_bytes(bytes(input)?);
            if token as usize >= vocab_size || !log_prob.is_finite() || log_prob > 1e-5 {
                return damaged("a kept token is out of range");
            }
            self.kept.push((token, log_prob));
        }
        Ok(())
    }
}

/// Bounds of KL(teacher || student) from what is kept of the teacher (tokens and `ln p`, the likeliest first, and the
/// mass of the rest) and the student's whole row with its `ln sum exp`; `sorted` is scratch. `None` when a token is kept
/// twice.
pub(crate) fn divergence(
    kept: &[(u32, f32)],
    tail: f64,
    student: &[f32],
    total: f64,
    sorted: &mut Vec<u32>,
) -> Option<(f64, f64)> {
    let log_q = |token: usize| f64::from(student[token]) - total;
    let mut head = 0.0;
    for &(token, log_p) in kept {
        let log_p = f64::from(log_p);
        head += exp(log_p) * (log_p - log_q(token as usize));
    }
    sorted.clear();
    sorted.extend(kept.iter().map(|&(token, _)| token));
    sorted.sort_unstable();
    if sorted.windows(2).any(|pair| pair[0] == pair[1]) {
        return None;
    }
    let last = kept.last().map(|&(_, log_p)| f64::from(log_p));
    let (Some(last), true) = (last, tail > 0.0 && sorted.len() < student.len()) else {
        return Some((head.max(0.0), head.max(0.0)));
    };
    // The rest of the student, in ascending order: its mass relative to its largest, and its smallest.
    let rest = || {
        let mut skip = sorted.iter().peekable();
        student.iter().enumerate().filter_map(move |(token, &z)| {
            if skip.next_if(|&&kept| kept as usize == token).is_some() { None } else { Some(f64::from(z)) }
        })
    };
    let largest = rest().fold(f64::NEG_INFINITY, f64::max);
    let smallest = rest().fold(f64::INFINITY, f64::min);
    let log_mass = largest - total + ln(rest().map(|z| exp(z - largest)).sum());
    let log_tail = ln(tail);
    let lower = head + tail * (log_tail - log_mass);
    let upper = head + tail * (log_tail.min(last) - (smallest - total));
    Some((lower.max(0.0), upper.max(lower).max(0.0)))
}

/// The `count` likeliest tokens of finite logits with `ln p`, the likeliest first (of equals the lower id), and the mass
/// of the rest. `total` is `ln sum exp`.
pub(crate) fn likeliest(logits: &[f32], total: f64, count: usize) -> (Vec<(u32, f32)>, f64) {
    let mut order: Vec<(u32, f32)> = (0u32..).zip(logits.iter().copied()).collect();
    let likelier = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
    let rest = if count < order.len() {
        order.select_nth_unstable_by(count, likelier);
        let mut rest = order.split_off(count);
        rest.sort_unstable_by_key(|&(token, _)| token);
        rest
    } else {
        Vec::new()
    };
    order.sort_unstable_by(likelier);
    let tail = rest.iter().map(|&(_, z)| exp(f64::from(z) - total)).sum();
    let kept = order.into_iter().map(|(token, z)| (token, (f64::from(z) - total) as f32)).collect();
    (kept, tail)
}

fn damaged<T>(reason: &str) -> Result<T> {
    Err(Error::Baseline { reason: reason.to_owned() })
}

fn bytes<const N: usize>(input: &mut impl Read) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    match input.read_exact(&mut bytes) {
        Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => damaged("it ends too early"),
        read => read.map(|()| bytes).map_err(Error::from),
    }
}

/// Runs a teacher over a text and writes its baseline. `out` should be buffered.
///
/// # Errors
/// As [`crate::perplexity()`], and failures of writing.
pub fn record(
    teacher: &mut dyn LanguageModel,
    text: &[u32],
    config: &FidelityConfig,
    kept: usize,
    out: &mut impl Write,
    progress: &mut dyn FnMut(Progress),
) -> Result<Recorded> {
    let vocab_size = teacher.vocab_size();
    let windows = Windows::new(text, config, vocab_size)?;
    let kept = kept.clamp(1, vocab_size);
    out.write_all(MAGIC)?;
    for number in [vocab_size, config.n_ctx, windows.count(), kept, config.prefix.len()] {
        out.write_all(&(number as u64).to_le_bytes())?;
    }
    write_tokens(out, &config.prefix)?;
    let (mut mass, mut max_tail_mass, mut predictions) = (Moments::default(), 0f64, 0);
    for window in 0..windows.count() {
        let tokens = windows.tokens(window);
        write_tokens(out, &tokens)?;
        let (seen, from) = (&tokens[..tokens.len() - 1], windows.first_scored() - 1);
        lockstep::alone(Role::Teacher, teacher, window, seen, from, &mut |row, logits| {
            let position = row + 1;
            let place = Place { role: Role::Teacher, window, position };
            let row = SparseRow::of(logits, tokens[position] as usize, kept, place)?;
            mass.push(row.tail);
            max_tail_mass = max_tail_mass.max(row.tail);
            predictions += 1;
            row.write(out)
        })?;
        progress(Progress { windows_done: window + 1, windows: windows.count() });
    }
    out.flush()?;
    Ok(Recorded { windows: windows.count(), predictions, kept, tail_mass: mass.estimate(), max_tail_mass })
}

fn write_tokens(out: &mut impl Write, tokens: &[u32]) -> Result<()> {
    tokens.iter().try_for_each(|token| out.write_all(&token.to_le_bytes())).map_err(Error::from)
}

/// The head of a baseline file.
struct Header {
    vocab_size: usize,
    n_ctx: usize,
    windows: usize,
    kept: usize,
    prefix: Vec<u32>,
}

impl Header {
    fn read(input: &mut impl Read) -> Result<Self> {
        if &bytes::<8>(input)? != MAGIC {
            return damaged("it does not begin with CRAFTBL1");
        }
        let mut number = |limit: u64, what: &str| -> Result<usize> {
            let n = u64::from_le_bytes(bytes(input)?);
            match usize::try_from(n) {
                Ok(n) if (n as u64) <= limit => Ok(n),
                _ => damaged(&format!("its {what} of {n} is out of range")),
            }
        };
        let vocab_size = number(MAX_VOCAB, "vocabulary")?;
        let n_ctx = number(MAX_CTX, "window length")?;
        let windows = number(u64::MAX, "number of windows")?;
        let kept = number(vocab_size as u64, "number of kept tokens")?;
        let prefix = number(n_ctx as u64, "prefix length")?;
        if n_ctx < 4 || windows == 0 || kept == 0 {
            return damaged("it holds no prediction");
        }
        let prefix = read_tokens(input, prefix, vocab_size)?;
        Ok(Self { vocab_size, n_ctx, windows, kept, prefix })
    }
}

/// Reads tokens one by one: nothing is allocated for tokens that are not there.
fn read_tokens(input: &mut impl Read, count: usize, vocab_size: usize) -> Result<Vec<u32>> {
    let mut tokens = Vec::new();
    for _ in 0..count {
        let token = u32::from_le_bytes(bytes(input)?);
        if token as usize >= vocab_size {
            return damaged("a token is out of range");
        }
        tokens.push(token);
    }
    Ok(tokens)
}

/// Measures a student against a stored baseline, on the baseline's own tokens. `input` should be buffered.
///
/// `text` is the text the caller believes the baseline was made of: another one is an error.
///
/// # Errors
/// A damaged file, another text, another vocabulary, and whatever the student fails with.
pub fn compare_to(
    input: &mut impl Read,
    student: &mut dyn LanguageModel,
    text: &[u32],
    progress: &mut dyn FnMut(Progress),
) -> Result<SparseReport> {
    let header = Header::read(input)?;
    let Header { vocab_size, n_ctx, windows: count, kept, prefix } = header;
    if student.vocab_size() != vocab_size {
        return Err(Error::VocabularyMismatch { teacher: vocab_size, student: student.vocab_size() });
    }
    let config = FidelityConfig { n_ctx, prefix, max_windows: Some(count) };
    let windows = Windows::new(text, &config, vocab_size)?;
    if windows.count() != count {
        return damaged(&format!("it holds {count} windows, but the text has {}", windows.count()));
    }
    let first = windows.first_scored();
    let mut comparison = Comparison::new(windows.scored());
    let (mut upper, mut tail) = (Moments::default(), Moments::default());
    let (mut row, mut sorted) = (SparseRow::default(), Vec::new());
    for window in 0..count {
        let tokens = read_tokens(input, n_ctx, vocab_size)?;
        if tokens != windows.tokens(window) {
            return damaged(&format!("window {window} was recorded from another text"));
        }
        let seen = &tokens[..n_ctx - 1];
        lockstep::alone(Role::Student, student, window, seen, first - 1, &mut |index, logits| {
            let position = index + 1;
            let target = tokens[position] as usize;
            row.read(input, kept, vocab_size)?;
            let place = Place { role: Role::Student, window, position };
            let (best, largest) = top(logits, place)?;
            let total = log_sum_exp(logits, largest);
            let Some((low, high)) = divergence(&row.kept, row.tail, logits, total, &mut sorted) else {
                return damaged("a token is kept twice in one position");
            };
            upper.push(high);
            tail.push(row.tail);
            comparison.push(position - first, &row.prediction(target), &prediction(logits, target, best, total), low);
            Ok(())
        })?;
        progress(Progress { windows_done: window + 1, windows: count });
    }
    if input.read(&mut [0])? != 0 {
        return damaged("something follows its last window");
    }
    let predictions = comparison.n();
    let figures = comparison.finish().ok_or(Error::NoWindows)?;
    let kl_truncation_error = (upper.mean() - figures.kl.mean.value).max(0.0);
    Ok(SparseReport {
        n_ctx,
        windows: count,
        predictions,
        kept,
        kl_mean_upper: upper.estimate(),
        kl_truncation_error,
        tail_mass: tail.mean(),
        figures,
    })
}
