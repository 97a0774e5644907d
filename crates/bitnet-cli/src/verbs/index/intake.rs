//! `--preset`: chunks on their way into an index as a small machine takes them in, one by one through the loop and the gate.

use std::path::Path;
#[cfg(unix)]
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use behavior_eval::stats::quantile;
use clap::ValueEnum;
use rlm_embed::appliance::{Candidate, Fate, Gate, Intake, IntakeMemory, Preset};
use rlm_embed::encoder::BaseEmbedder;
use rlm_embed::offload::{Coprocessor, Link, NullStm32, OffloadCounts, OffloadPolicy};
use rlm_embed::recursion::{RlmEmbedder, Variant};
use rlm_embed::store::FlatNeighborStore;

use crate::output::{self, Progress, size};
#[cfg(unix)]
use crate::verbs::offload;

/// Chunks whose order is asked for together.
const BATCH: usize = 32;
/// Tokens of a call of the encoder: a text at a time.
const TOKENS: usize = 1;

#[derive(clap::Args)]
pub(super) struct PresetArgs {
    /// Take the chunks in as a small machine does, within 128 MB: each alone, with the loop around the encoder. Texts that are there
    /// already, and chunks that a near one contradicts, are left out; lines with a higher `priority` come first
    #[arg(long, value_enum)]
    preset: Option<PresetArg>,
    /// Serial line of a coprocessor, such as /dev/ttyACM0, that hashes texts, filters neighbours, checks the gate and sorts by
    /// priority; the software does what it leaves undone
    #[cfg(unix)]
    #[arg(long, value_name = "DEVICE", requires = "preset")]
    device: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PresetArg {
    /// A Raspberry Pi 5: two passes of the loop with three neighbours
    Pi5,
    /// The same with one pass
    Pi5Streaming,
}

/// The fates of the chunks of an intake.
pub(super) struct Outcome {
    stored: usize,
    replaced: usize,
    repeated: usize,
    refused: usize,
    latencies_ms: Vec<f64>,
    counts: OffloadCounts,
}

/// The software in the place of a device, on the clock of this machine.
struct Software {
    start: Instant,
    answers: NullStm32,
}

impl Link for Software {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.answers.send(bytes)
    }

    fn receive(&mut self, until: Duration) -> std::io::Result<Vec<u8>> {
        self.answers.receive(until)
    }
}

impl PresetArgs {
    /// The preset, where one is asked for.
    pub(super) fn preset(&self) -> Option<Preset> {
        self.preset.map(|preset| match preset {
            PresetArg::Pi5 => Preset::Pi5,
            PresetArg::Pi5Streaming => Preset::Pi5Streaming,
        })
    }

    /// The device, or the software in its place.
    fn coprocessor(&self) -> Result<Coprocessor<Box<dyn Link>>> {
        #[cfg(unix)]
        if let Some(device) = &self.device {
            return offload::coprocessor(device, OffloadPolicy::default());
        }
        let software = Software { start: Instant::now(), answers: NullStm32::new() };
        Ok(Coprocessor::new(Box::new(software), OffloadPolicy::default(), 0))
    }

    /// Takes `candidates` into the store of `index`, within the memory of `preset`.
    ///
    /// # Errors
    /// Chunks and an encoder that take more memory, and a device that cannot be opened: the store is then as it was.
    pub(super) fn take(
        &self,
        preset: Preset,
        embedder: Box<dyn BaseEmbedder>,
        candidates: &[Candidate<'_>],
        (store, index): (&mut FlatNeighborStore, &Path),
    ) -> Result<Outcome> {
        check_memory(embedder.memory_bytes(TOKENS), candidates, (store, index))?;
        let embedder = RlmEmbedder::new(embedder, preset.recursion(Variant::Corpus));
        let mut intake = Intake::new(embedder, self.coprocessor()?, Gate::default(), store);
        let (mut stored, mut replaced, mut repeated, mut refused) = (0, 0, 0, 0);
        let mut latencies_ms = Vec::with_capacity(candidates.len());
        let progress = Progress::items("taking in");
        for batch in candidates.chunks(BATCH) {
            let there: Vec<bool> = batch.iter().map(|candidate| store.row_of(candidate.chunk.id).is_some()).collect();
            for taken in intake.take(batch, store)? {
                latencies_ms.push(taken.latency.as_secs_f64() * 1e3);
                match taken.fate {
                    Fate::Stored if there[taken.index] => replaced += 1,
                    Fate::Stored => stored += 1,
                    Fate::Repeated => repeated += 1,
                    Fate::Refused => {
                        refused += 1;
                        let id = output::name(batch[taken.index].chunk.id);
                        output::note(format_args!("{id}: refused, a near chunk contradicts it"));
                    }
                }
            }
            progress.show(latencies_ms.len() as u64, candidates.len() as u64);
        }
        drop(progress);
        latencies_ms.sort_by(f64::total_cmp);
        Ok(Outcome { stored, replaced, repeated, refused, latencies_ms, counts: intake.counts() })
    }
}

/// Says what the intake takes at most, and refuses more than a preset may take.
fn check_memory(
    encoder_bytes: Option<u64>,
    candidates: &[Candidate<'_>],
    (store, index): (&FlatNeighborStore, &Path),
) -> Result<()> {
    let Some(encoder_bytes) = encoder_bytes else {
        bail!("a preset takes a sentence encoder or `hash`: the memory of a language model is beyond it");
    };
    let chunks = candidates.iter().map(|candidate| candidate.chunk);
    let text_bytes = chunks.map(|chunk| (chunk.id.len() + chunk.source.len() + chunk.text.len()) as u64).sum();
    let file_bytes = std::fs::metadata(index)?.len();
    let need = IntakeMemory::new(encoder_bytes, store.dims());
    let need = need.with_store(store.rows(), file_bytes).with_new(candidates.len(), text_bytes);
    let (total, most) = (need.total_bytes(), Preset::MEMORY_BYTES);
    let parts = format!(
        "encoder {} + {} chunks {} + the program",
        size(encoder_bytes),
        store.rows() + candidates.len(),
        size(need.chunk_bytes)
    );
    if total > most {
        bail!(
            "{}: {parts} = {}, and a preset may take {}: choose --precision q8_0, or divide the texts between indexes",
            index.display(),
            size(total),
            size(most)
        );
    }
    output::note(format_args!("memory: {parts} = {} of {}", size(total), size(most)));
    Ok(())
}

impl Outcome {
    /// The numbers of the chunks that are new, and of those that take the place of another one.
    pub(super) fn stored(&self) -> [usize; 2] {
        [self.stored, self.replaced]
    }

    /// Prints the fates that an index without a preset does not know, times, answers and memory.
    pub(super) fn print(&self) -> Result<()> {
        let Outcome { repeated, refused, counts, latencies_ms, .. } = self;
        output::line(format_args!("{repeated} repeated, {refused} refused"))?;
        if let [Some(p50), Some(p95), Some(p99)] = [0.5, 0.95, 0.99].map(|q| quantile(latencies_ms, q)) {
            output::line(format_args!("per chunk: p50 {p50:.2} ms, p95 {p95:.2} ms, p99 {p99:.2} ms"))?;
        }
        let OffloadCounts { requests, by_device, .. } = counts;
        output::line(format_args!("small tasks: {requests}, {by_device} of them answered by the coprocessor"))?;
        if let Some(peak) = gguf_bitnet::peak_rss_bytes() {
            output::line(format_args!("peak memory: {} of {}", size(peak), size(Preset::MEMORY_BYTES)))?;
        }
        Ok(())
    }
}
