//! Chunks on their way into the store of an appliance, with the small tasks on a coprocessor.
//!
//! ```text
//! batch: ScheduleReorder (priorities)                    the order in which its chunks are looked at
//! chunk: ComputeHash (text)                              a text that the store has already is left out, unless it corrects another
//!        recursion                                       vector, confidence, neighbours
//!        FilterNeighbors (scores), GateCheck             contradictions of near neighbours decide whether it may enter
//!        store                                           before the next chunk is looked at
//! ```
//! **Invariant:** each chunk of a batch has one fate. The store depends on the chunks, their priorities, the embedder and the gate
//! alone: the faults of a line change nothing but the time. Firmware that gives other answers of the right form may let other chunks
//! in; `bitnet offload check` compares answers of each kind with those of the software.

mod preset;

use std::collections::HashMap;
use std::time::Duration;

use crate::encoder::BaseEmbedder;
use crate::error::Result;
use crate::fnv::fnv1a;
use crate::offload::codec::CodecError;
use crate::offload::message::{MAX_SCHEDULE, Request};
use crate::offload::{Coprocessor, Link, OffloadCounts};
use crate::recursion::{Corpus, RlmEmbedder, RlmEmbedding};
use crate::store::{FlatNeighborStore, IndexError, Neighbor, NeighborRetriever, NewChunk};

pub use preset::{IntakeMemory, Preset};

/// A chunk that waits.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// The chunk; one with an id of the store takes the place of that chunk.
    pub chunk: NewChunk<'a>,
    /// Chunks of higher priority are looked at first, equal ones in the order of the batch.
    pub priority: f32,
}

/// The conditions for a chunk to enter the store.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gate {
    /// Least confidence of its vector.
    pub least_confidence: f32,
    /// Most chunks that contradict it ...
    pub most_contradictions: u32,
    /// ... among the neighbours with at least this score.
    pub least_score: f32,
}

impl Default for Gate {
    /// Any vector, and no contradiction of a neighbour that the rules flag.
    fn default() -> Self {
        Gate { least_confidence: -1.0, most_contradictions: 0, least_score: -1.0 }
    }
}

/// The end of a chunk's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The store has it.
    Stored,
    /// The store had its text already. An older text under its id is removed, where the text stands under another id.
    Repeated,
    /// The gate was closed.
    Refused,
}

/// A chunk that has been looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Its place in the batch.
    pub index: usize,
    /// The end of its way.
    pub fate: Fate,
    /// The time for it alone, on the clock of the coprocessor's link.
    pub latency: Duration,
}

/// An embedder and a coprocessor that fill a store.
#[derive(Debug)]
pub struct Intake<E, L> {
    embedder: RlmEmbedder<E>,
    device: Coprocessor<L>,
    gate: Gate,
    /// Rows by the hash of their texts; some may have been removed.
    by_hash: HashMap<u64, Vec<usize>>,
}

impl<E: BaseEmbedder, L: Link> Intake<E, L> {
    /// An intake for `store`.
    #[must_use]
    pub fn new(embedder: RlmEmbedder<E>, device: Coprocessor<L>, gate: Gate, store: &FlatNeighborStore) -> Self {
        let mut by_hash: HashMap<u64, Vec<usize>> = HashMap::new();
        for row in store.live_rows() {
            by_hash.entry(fnv1a(store.chunk(row).text.bytes())).or_default().push(row);
        }
        Intake { embedder, device, gate, by_hash }
    }

    /// How often the coprocessor answered.
    #[must_use]
    pub fn counts(&self) -> OffloadCounts {
        self.device.counts()
    }

    /// Looks at the chunks of a batch in the order of their priorities, and says in this order what became of each.
    ///
    /// # Errors
    /// A text that the encoder or the store cannot take: the chunks before it in the order are stored, and the batch may be given
    /// again.
    pub fn take(&mut self, batch: &[Candidate<'_>], store: &mut FlatNeighborStore) -> Result<Vec<Taken>> {
        let priorities: Vec<[u8; 4]> = batch.iter().map(|candidate| candidate.priority.to_le_bytes()).collect();
        let too_many = |_| IndexError::TooMany { n: batch.len(), limit: MAX_SCHEDULE };
        let order = self.device.ask(&Request::ScheduleReorder(&priorities)).map_err(too_many)?.body;
        let mut taken = Vec::with_capacity(batch.len());
        for place in order.as_chunks::<2>().0 {
            let index = usize::from(u16::from_le_bytes(*place));
            let start = self.device.link().now();
            let fate = self.take_one(batch[index].chunk, store)?;
            taken.push(Taken { index, fate, latency: self.device.link().now() - start });
        }
        Ok(taken)
    }

    fn take_one(&mut self, chunk: NewChunk<'_>, store: &mut FlatNeighborStore) -> Result<Fate> {
        let hash = match self.device.ask(&Request::ComputeHash(chunk.text.as_bytes())) {
            Ok(reply) => u64::from_le_bytes(reply.body.try_into().expect("a hash has 8 bytes")),
            // A text that no frame holds.
            Err(_) => fnv1a(chunk.text.bytes()),
        };
        let corrected = store.row_of(chunk.id);
        let is_correction = corrected.is_some_and(|row| store.chunk(row).text != chunk.text);
        let mut same_hash = self.by_hash.get(&hash).into_iter().flatten();
        // A correction is stored although another chunk has its text, which that one may lose to a correction of its own.
        if !is_correction && same_hash.any(|&row| store.is_live(row) && store.chunk(row).text == chunk.text) {
            return Ok(Fate::Repeated);
        }
        // The text that this one takes the place of is no evidence against it.
        let others = Others { store, row: corrected };
        let embedding = self.embedder.embed(chunk.text, None, Corpus { store, retriever: &others })?;
        if !self.may_enter(&embedding).expect("the neighbours of a chunk fit a frame") {
            return Ok(Fate::Refused);
        }
        store.put(&[chunk], &embedding.vector)?;
        self.by_hash.entry(hash).or_default().push(store.rows() - 1);
        Ok(Fate::Stored)
    }

    fn may_enter(&mut self, embedding: &RlmEmbedding) -> Result<bool, CodecError> {
        let scores: Vec<[u8; 4]> = embedding.neighbors.iter().map(|found| found.score.to_le_bytes()).collect();
        let near = Request::FilterNeighbors { threshold: self.gate.least_score, scores: &scores };
        let near = self.device.ask(&near)?.body;
        let contradicts =
            embedding.neighbors.iter().zip(near).filter(|(found, near)| *near == 1 && found.contradicts());
        let check = Request::GateCheck {
            confidence: embedding.confidence,
            least_confidence: self.gate.least_confidence,
            contradictions: contradicts.count() as u32,
            most_contradictions: self.gate.most_contradictions,
        };
        Ok(self.device.ask(&check)?.body == [1])
    }
}

/// The chunks of a store without the one in `row`.
struct Others<'s> {
    store: &'s FlatNeighborStore,
    row: Option<usize>,
}

impl NeighborRetriever for Others<'_> {
    fn nearest(&self, query: &[f32], k: usize) -> Vec<Neighbor> {
        let found = self.store.nearest(query, k + usize::from(self.row.is_some()));
        found.into_iter().filter(|found| Some(found.row) != self.row).take(k).collect()
    }
}
