//! The presets of an appliance: the loop, and the memory that its process may take.

use crate::recursion::{RecursionConfig, Variant};

/// A small machine that takes chunks in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// A Raspberry Pi 5: two passes of the loop with three neighbours.
    Pi5,
    /// The same for streams: one pass.
    Pi5Streaming,
}

impl Preset {
    /// Most bytes of resident memory, mapped pages included: enough for all-MiniLM-L6-v2 in Q8_0 and 20,000 chunks.
    pub const MEMORY_BYTES: u64 = 128_000_000;

    /// The loop of the preset.
    #[must_use]
    pub fn recursion(self, variant: Variant) -> RecursionConfig {
        match self {
            Preset::Pi5 => RecursionConfig::pi5(variant),
            Preset::Pi5Streaming => RecursionConfig::pi5_streaming(variant),
        }
    }
}

/// Bytes that a process takes beside its encoder and its chunks: its code, its threads, the frames of a coprocessor.
const PROCESS_BYTES: u64 = 16 << 20;
/// Bytes that a chunk takes beside its vector and its texts: its places in the tables of the store and of the intake, while
/// these grow.
const ROW_BYTES: u64 = 640;

/// The memory of an intake, summed up before it begins.
///
/// **Invariant:** the sum is an upper bound of the resident memory: mapped pages count in full.
///
/// ```
/// use rlm_embed::appliance::{IntakeMemory, Preset};
/// let small = IntakeMemory::new(60_000_000, 384).with_new(20_000, 20_000 * 100);
/// assert!(small.total_bytes() < Preset::MEMORY_BYTES && small.with_new(20_000, 0).total_bytes() > Preset::MEMORY_BYTES);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IntakeMemory {
    /// Bytes of the encoder.
    pub encoder_bytes: u64,
    /// Bytes of the chunks: those of the store, and those that wait.
    pub chunk_bytes: u64,
    dims: usize,
}

impl IntakeMemory {
    /// The memory without any chunk, for an encoder that takes so many bytes and gives vectors of `dims` values.
    #[must_use]
    pub fn new(encoder_bytes: u64, dims: usize) -> IntakeMemory {
        IntakeMemory { encoder_bytes, chunk_bytes: 0, dims }
    }

    /// The same with the rows of a store, whose file has so many bytes.
    #[must_use]
    pub fn with_store(mut self, rows: usize, file_bytes: u64) -> IntakeMemory {
        self.chunk_bytes = self.chunk_bytes.saturating_add(file_bytes).saturating_add(rows as u64 * ROW_BYTES);
        self
    }

    /// The same with new chunks, whose ids, sources and texts have so many bytes.
    #[must_use]
    pub fn with_new(mut self, chunks: usize, text_bytes: u64) -> IntakeMemory {
        let rows = chunks as u64 * (4 * self.dims as u64 + ROW_BYTES);
        // The texts stand in the store beside those that wait.
        self.chunk_bytes = self.chunk_bytes.saturating_add(rows).saturating_add(2 * text_bytes);
        self
    }

    /// The sum of all parts.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.encoder_bytes.saturating_add(self.chunk_bytes).saturating_add(PROCESS_BYTES)
    }
}
