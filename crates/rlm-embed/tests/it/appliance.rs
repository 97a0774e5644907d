//! Chunks through the intake of an appliance, whose coprocessor has every kind of fault.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use rlm_embed::appliance::{Candidate, Fate, Gate, Intake, Taken};
use rlm_embed::encoder::{BaseEmbedder, HashEmbedder};
use rlm_embed::offload::{Coprocessor, Link, NullStm32, OffloadCounts, OffloadPolicy, SimulatedStm32};
use rlm_embed::recursion::{RecursionConfig, RlmEmbedder, Variant};
use rlm_embed::store::{FlatNeighborStore, NewChunk};
use tl_kernels::Pool;

use crate::offload::FAULTS;

const DIMS: usize = 32;
const BATCH: usize = 16;
/// With three requests each and one per batch, more than 10,000 requests.
const CHUNKS: usize = 3600;

/// Ids and texts. Every seventh text repeats the one before it, and every eleventh denies it.
fn texts() -> Vec<(String, String)> {
    let of = |i: usize| format!("The bridge B{} over the river R{} carries {} carts.", i * 7 % 613, i % 97, i);
    let text = |i: usize| match i {
        _ if i % 7 == 6 => of(i - 1),
        _ if i % 11 == 10 => of(i - 1).replace("carries", "does not carry"),
        _ => of(i),
    };
    (0..CHUNKS).map(|i| (format!("c{i}"), text(i))).collect()
}

/// The store after all chunks, what became of each, and the counts of the coprocessor.
fn fill<L: Link>(link: L) -> (FlatNeighborStore, Vec<Taken>, OffloadCounts) {
    let encoder = HashEmbedder::new(DIMS);
    let mut store = FlatNeighborStore::in_memory(DIMS, encoder.identity(), Arc::new(Pool::serial()));
    let mut config = RecursionConfig::pi5_streaming(Variant::Corpus);
    config.rules.least_cosine = 0.5;
    let device = Coprocessor::new(link, OffloadPolicy::default());
    let mut intake = Intake::new(RlmEmbedder::new(encoder, config), device, Gate::default(), &store);
    let texts = texts();
    let chunks: Vec<Candidate<'_>> = texts
        .iter()
        .enumerate()
        .map(|(i, (id, text))| Candidate { chunk: NewChunk { id, source: "test", text }, priority: (i % 3) as f32 })
        .collect();
    let mut all = Vec::new();
    for (n, batch) in chunks.chunks(BATCH).enumerate() {
        let taken = intake.take(batch, &mut store).unwrap();
        all.extend(taken.into_iter().map(|taken| Taken { index: n * BATCH + taken.index, ..taken }));
    }
    (store, all, intake.counts())
}

fn ids(store: &FlatNeighborStore) -> Vec<&str> {
    store.live_rows().map(|row| store.chunk(row).id).collect()
}

#[test]
fn no_fault_of_a_coprocessor_loses_or_doubles_a_chunk() {
    let (expected, fates, counts) = fill(NullStm32::new());
    assert!(counts.requests > 10_000 && counts.by_device == counts.requests, "{counts:?}");
    let of = |fate: Fate| fates.iter().filter(|taken| taken.fate == fate).count();
    assert_eq!(fates.iter().map(|taken| taken.index).collect::<HashSet<_>>().len(), CHUNKS, "each has one fate");
    let (repeated, refused) = (of(Fate::Repeated), of(Fate::Refused));
    assert!(repeated > CHUNKS / 10 && refused > CHUNKS / 50, "{repeated} repeated, {refused} refused");
    assert_eq!(of(Fate::Stored), expected.len());
    assert_eq!(
        fates.iter().take(BATCH).map(|taken| taken.index).collect::<Vec<_>>(),
        [2, 5, 8, 11, 14, 1, 4, 7, 10, 13, 0, 3, 6, 9, 12, 15]
    );
    for faults in FAULTS {
        let (store, taken, counts) = fill(SimulatedStm32::new(faults, 18));
        assert!(counts.requests > 10_000 && counts.by_device > 5000, "{faults:?}: {counts:?}");
        assert_eq!(ids(&store), ids(&expected), "{faults:?}");
        assert!(store.live_rows().all(|row| store.vector(row) == expected.vector(row)), "{faults:?}");
        assert!(taken.iter().zip(&fates).all(|(a, b)| (a.index, a.fate) == (b.index, b.fate)), "{faults:?}");
        // Hash, filter and gate each have the deadline of a request.
        let most = 3 * OffloadPolicy::default().deadline;
        assert!(taken.iter().all(|taken| taken.latency <= most), "{faults:?}");
        assert!(taken.iter().any(|taken| taken.latency > Duration::ZERO), "the virtual clock goes on");
    }
}

#[test]
fn a_batch_that_is_given_again_is_a_repetition() {
    let encoder = HashEmbedder::new(DIMS);
    let mut store = FlatNeighborStore::in_memory(DIMS, encoder.identity(), Arc::new(Pool::serial()));
    let text = "The gate is open.";
    let chunk = |id, text| Candidate { chunk: NewChunk { id, source: "test", text }, priority: 0.0 };
    for (batch, fates) in [
        (vec![chunk("a", text), chunk("b", text)], vec![Fate::Stored, Fate::Repeated]),
        (vec![chunk("a", text), chunk("c", "A violin.")], vec![Fate::Repeated, Fate::Stored]),
        (vec![chunk("c", "Two violins.")], vec![Fate::Stored]),
        (vec![chunk("d", "A violin.")], vec![Fate::Stored]),
    ] {
        // A new intake each time reads the texts of the store.
        let embedder = RlmEmbedder::new(HashEmbedder::new(DIMS), RecursionConfig::pi5_streaming(Variant::Corpus));
        let device = Coprocessor::new(NullStm32::new(), OffloadPolicy::default());
        let mut intake = Intake::new(embedder, device, Gate::default(), &store);
        let taken = intake.take(&batch, &mut store).unwrap();
        assert_eq!(taken.iter().map(|taken| taken.fate).collect::<Vec<_>>(), fates);
    }
    assert_eq!(ids(&store), ["a", "c", "d"]);
    let mut closed = Intake::new(
        RlmEmbedder::new(encoder, RecursionConfig::pi5_streaming(Variant::Corpus)),
        Coprocessor::new(NullStm32::new(), OffloadPolicy::default()),
        Gate { least_confidence: 1.5, ..Gate::default() },
        &store,
    );
    let taken = closed.take(&[chunk("e", "Another text.")], &mut store).unwrap();
    assert_eq!(taken[0].fate, Fate::Refused);
}
