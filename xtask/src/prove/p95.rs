//! `prove p95`: a long prompt arrives at `bitnet serve` while an answer streams.
//!
//! The times between the tokens of the answer are taken before the prompt comes and while it is read, and the time of the prompt
//! is taken beside the answer and alone. Both targets are ratios of one run. Where a step takes less than [`LEAST_STEP`], the fixed
//! costs of a request and of a common step would be judged instead, so the proof is skipped by name: take a larger model.
//! Prompts are random tokens, each prompt others, so that no prompt is found in the cache. The server is measured with each type
//! of cache: a prompt that is long spends most of its time on attention, which costs less with INT8.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::proof::{Judged, Proof};
use super::served::{Served, Stream};
use crate::outcome::Outcome;
use crate::repo;

/// Tokens of the answer before the prompt comes, the first of which do not count.
const UNDISTURBED: usize = 64;
const WARM_UP: usize = 8;
/// Tokens of the context that the answer and the prompt each leave free.
const ROOM: usize = 64;
/// Shortest undisturbed step that is judged.
const LEAST_STEP: Duration = Duration::from_millis(20);
/// Types of cache, the default first.
const CACHES: [&str; 2] = ["f16", "i8"];
/// Largest 95th percentile of the times between tokens while the prompt is read, in undisturbed steps.
const STEPS: f64 = 2.5;
/// Longest time of the prompt beside the answer, in times of the prompt alone.
const ALONE: f64 = 2.0;

pub(super) fn prove(proof: &mut Proof<'_>, binary: &Path) -> Outcome<Judged> {
    let Some(model) = &proof.options.model else {
        repo::say("SKIP p95: no model is named by --model; the mini student's steps are too short to judge");
        return Ok(Judged::Skipped);
    };
    let model = std::path::absolute(model)?;
    let name = model.file_name().map_or_else(|| "model".into(), |name| name.to_string_lossy().into_owned());
    for cache in CACHES {
        let name = format!("{name}, {cache} cache");
        if let Judged::Skipped = with_cache(proof, (binary, &model), cache, &name)? {
            return Ok(Judged::Skipped);
        }
    }
    Ok(Judged::Measured)
}

/// Both figures of a server with a type of cache.
fn with_cache(proof: &mut Proof<'_>, (binary, model): (&Path, &Path), cache: &str, name: &str) -> Outcome<Judged> {
    let n = proof.options.prompt_tokens;
    let context = (n + ROOM).to_string();
    let served = Served::start(binary, model, &["--slots", "2", "-c", &context, "--draft", "off", "--kv", cache])?;
    let (_, models) = served.get("/v1/models")?;
    let vocab = models["data"][0]["meta"]["n_vocab"].as_u64().ok_or("/v1/models tells no size of the vocabulary")?;

    let mut answer = Answer { stream: begin(&served)?, last: None };
    let before = answer.intervals(UNDISTURBED, &mut || false)?;
    let step = percentile(&before[WARM_UP..], 0.5).ok_or("the answer has no tokens")?;
    let ms = |time: Duration| 1e3 * time.as_secs_f64();
    if step < LEAST_STEP {
        let (step, least) = (ms(step), ms(LEAST_STEP));
        repo::say(&format!(
            "SKIP p95: {name} is too small to judge: its step takes {step:.1} ms, less than {least:.0} ms"
        ));
        return Ok(Judged::Skipped);
    }
    let (beside, during) = std::thread::scope(|scope| -> Outcome<_> {
        let long = scope.spawn(|| read_prompt(&served, &tokens(1, n, vocab)).map_err(|error| error.to_string()));
        let during = answer.intervals(usize::MAX, &mut || long.is_finished())?;
        Ok((long.join().map_err(|_| "the request panicked")??, during))
    })?;
    drop(answer);
    let alone = read_prompt(&served, &tokens(2, n, vocab))?;

    let disturbed = percentile(&during, 0.95).ok_or("the prompt was read before the next token: give a longer one")?;
    let ratio = disturbed.as_secs_f64() / step.as_secs_f64();
    let usual = percentile(&before[WARM_UP..], 0.95).unwrap_or_default();
    proof.figure(
        format!("p95: {name}: between tokens while a prompt of {n} is read"),
        format!(
            "{:.1} ms at the 95th percentile of {} tokens, {ratio:.2} undisturbed steps of {:.1} ms (95th percentile {:.1} ms)",
            ms(disturbed),
            during.len(),
            ms(step),
            ms(usual)
        ),
        format!("at most {STEPS} steps"),
        ratio <= STEPS,
    );
    let ratio = beside.as_secs_f64() / alone.as_secs_f64();
    proof.figure(
        format!("p95: {name}: a prompt of {n} beside an answer"),
        format!("{:.2} s, {ratio:.2} times the {:.2} s alone", beside.as_secs_f64(), alone.as_secs_f64()),
        format!("at most {ALONE} times"),
        ratio <= ALONE,
    );
    Ok(Judged::Measured)
}

/// An answer that neither a stop token nor a repetition ends, token by token.
fn begin(served: &Served) -> Outcome<Stream> {
    let stops = json!({ "content": "<|endoftext|><|user|><|observation|>", "parse_special": true });
    let (_, stops) = served.post("/tokenize", &stops)?;
    let stops = stops["tokens"].as_array().ok_or("/tokenize gave no tokens")?.iter();
    let bias: serde_json::Map<String, Value> = stops.map(|token| (token.to_string(), json!(-100))).collect();
    // A score comes with each token, also with one whose text is not complete.
    let body = json!({
        "prompt": "The", "max_tokens": 1 << 20, "stream": true, "temperature": 2, "seed": 1, "logit_bias": bias, "logprobs": 0,
    });
    served.open("/v1/completions", &body)
}

/// An answer that the server is still writing.
struct Answer {
    stream: Stream,
    /// When its last token came.
    last: Option<Instant>,
}

impl Answer {
    /// The times between its next tokens, at most `most`, or fewer once `ends` holds. The first of them begins at the token
    /// before, which an earlier call may have read.
    fn intervals(&mut self, most: usize, ends: &mut dyn FnMut() -> bool) -> Outcome<Vec<Duration>> {
        let mut times = Vec::new();
        while times.len() < most && !ends() {
            let (time, event) =
                self.stream.event()?.ok_or("the answer ended before the prompt was read: lower --prompt-tokens")?;
            if event["choices"][0]["logprobs"]["tokens"].as_array().is_some_and(|tokens| !tokens.is_empty()) {
                times.extend(self.last.map(|last| time - last));
                self.last = Some(time);
            }
        }
        Ok(times)
    }
}

/// The time from a prompt to its first token.
fn read_prompt(served: &Served, prompt: &[u64]) -> Outcome<Duration> {
    let begun = Instant::now();
    let (status, answer) = served.post("/v1/completions", &json!({ "prompt": prompt, "max_tokens": 1 }))?;
    match (status, answer["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64()) {
        (200, Some(0)) => Ok(begun.elapsed()),
        _ => Err(format!("the prompt was answered with status {status}: {answer}").into()),
    }
}

/// Random tokens, by SplitMix64 (Steele, Lea, Flood 2014).
fn tokens(seed: u64, n: usize, vocab: u64) -> Vec<u64> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % vocab.max(1)
    };
    (0..n).map(|_| next()).collect()
}

/// The smallest value that so many of the values, as a share, do not exceed; `None` without values.
fn percentile(values: &[Duration], share: f64) -> Option<Duration> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{percentile, tokens};

    #[test]
    fn percentiles_are_values_of_the_list() {
        let values: Vec<Duration> = (1..=20).rev().map(Duration::from_millis).collect();
        let ms = |share| percentile(&values, share).map(|time| time.as_millis());
        assert_eq!((ms(0.5), ms(0.95), ms(1.0), ms(0.0)), (Some(10), Some(19), Some(20), Some(1)));
        assert_eq!(percentile(&values[..1], 0.95), Some(Duration::from_millis(20)));
        assert_eq!(percentile(&[], 0.5), None);
    }

    #[test]
    fn prompts_of_other_seeds_begin_differently() {
        assert_eq!(tokens(1, 100, 50).len(), 100);
        assert!(tokens(1, 100, 50).iter().all(|&token| token < 50));
        assert_ne!(tokens(1, 8, 50), tokens(2, 8, 50));
    }
}
