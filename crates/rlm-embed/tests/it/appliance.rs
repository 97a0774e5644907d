//! Chunks through the intake of an appliance, whose coprocessor has every kind of fault.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use rlm_embed::appliance::{Candidate, Fate, Gate, Intake, Taken};
use rlm_embed::encoder::{BaseEmbedder, HashEmbedder};
use rlm_embed::offload::answer::answer;
use rlm_embed::offload::codec::{Collector, MAX_BODY_BYTES, coded_bytes, decode, encode};
use rlm_embed::offload::message::{ANSWER, Request};
use rlm_embed::offload::{Coprocessor, Faults, Link, NullStm32, OffloadCounts, OffloadPolicy, SimulatedStm32};
use rlm_embed::recursion::{RecursionConfig, RlmEmbedder, Variant};
use rlm_embed::store::{FlatNeighborStore, NewChunk};
use tl_kernels::Pool;

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
    let device = Coprocessor::new(link, OffloadPolicy::default(), 0);
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
    for faults in Faults::EACH {
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
        let device = Coprocessor::new(NullStm32::new(), OffloadPolicy::default(), 0);
        let mut intake = Intake::new(embedder, device, Gate::default(), &store);
        let taken = intake.take(&batch, &mut store).unwrap();
        assert_eq!(taken.iter().map(|taken| taken.fate).collect::<Vec<_>>(), fates);
    }
    assert_eq!(ids(&store), ["a", "c", "d"]);
    let mut closed = Intake::new(
        RlmEmbedder::new(encoder, RecursionConfig::pi5_streaming(Variant::Corpus)),
        Coprocessor::new(NullStm32::new(), OffloadPolicy::default(), 0),
        Gate { least_confidence: 1.5, ..Gate::default() },
        &store,
    );
    let taken = closed.take(&[chunk("e", "Another text.")], &mut store).unwrap();
    assert_eq!(taken[0].fate, Fate::Refused);
}

/// A device that computes hashes rightly. Its other answers have the right kind, number and length, and one byte throughout.
struct Wrong {
    byte: u8,
    now: Duration,
    requests: Collector<Vec<u8>>,
    answers: Vec<u8>,
}

impl Wrong {
    fn new(byte: u8) -> Wrong {
        let requests = Collector::new(vec![0; coded_bytes(MAX_BODY_BYTES)]);
        Wrong { byte, now: Duration::ZERO, requests, answers: Vec::new() }
    }
}

impl Link for Wrong {
    fn now(&self) -> Duration {
        self.now
    }

    fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        for &byte in bytes {
            let Some(Ok(frame)) = self.requests.push(byte).map(decode) else { continue };
            let request = Request::parse(frame.kind, frame.body).unwrap();
            let mut body = vec![self.byte; request.answer_bytes()];
            if let Request::ComputeHash(_) = request {
                answer(&request, &mut body).unwrap();
            }
            let mut code = vec![0; coded_bytes(body.len())];
            let n = encode(frame.kind | ANSWER, frame.sequence, &body, &mut code).unwrap();
            self.answers.extend(&code[..n]);
        }
        Ok(())
    }

    fn receive(&mut self, until: Duration) -> std::io::Result<Vec<u8>> {
        if self.answers.is_empty() {
            self.now = self.now.max(until);
        }
        Ok(std::mem::take(&mut self.answers))
    }
}

#[test]
fn answers_without_the_form_of_one_are_given_by_the_software() {
    let (expected, fates, _) = fill(NullStm32::new());
    // Places beyond the batch, and bytes that are neither 0 nor 1.
    let (store, taken, counts) = fill(Wrong::new(9));
    assert_eq!(ids(&store), ids(&expected));
    assert!(taken.iter().zip(&fates).all(|(a, b)| (a.index, a.fate) == (b.index, b.fate)));
    assert!(counts.by_device > 0 && counts.by_software > 0 && counts.stray_frames > 0, "{counts:?}");
    // The same place for every chunk, neighbours that are all far, gates that are all closed: the device decides the fates,
    // but each chunk of a batch has one.
    let (store, taken, counts) = fill(Wrong::new(0));
    assert!(
        counts.by_device > counts.by_software && counts.stray_frames > 0 && store.len() < expected.len(),
        "{counts:?}"
    );
    let indices: HashSet<usize> = taken.iter().map(|taken| taken.index).collect();
    assert_eq!((taken.len(), indices.len()), (CHUNKS, CHUNKS));
}

#[test]
fn a_correction_takes_the_place_of_the_text_that_it_corrects() {
    let encoder = HashEmbedder::new(DIMS);
    let mut store = FlatNeighborStore::in_memory(DIMS, encoder.identity(), Arc::new(Pool::serial()));
    let mut config = RecursionConfig::pi5_streaming(Variant::Corpus);
    config.rules.least_cosine = 0.5;
    let device = Coprocessor::new(NullStm32::new(), OffloadPolicy::default(), 0);
    let mut intake = Intake::new(RlmEmbedder::new(encoder, config), device, Gate::default(), &store);
    let [twelve, fourteen] = [12, 14].map(|n| format!("The Orra bridge carries {n} carts."));
    let mut take = |id: &str, text: &str, store: &mut FlatNeighborStore| {
        let chunk = NewChunk { id, source: "test", text };
        intake.take(&[Candidate { chunk, priority: 0.0 }], store).unwrap()[0].fate
    };
    let texts = |store: &FlatNeighborStore| -> Vec<(String, String)> {
        let chunks = store.live_rows().map(|row| store.chunk(row));
        chunks.map(|chunk| (chunk.id.to_owned(), chunk.text.to_owned())).collect()
    };
    let row = |id: &str, text: &str| (id.to_owned(), text.to_owned());
    assert_eq!(take("a", &twelve, &mut store), Fate::Stored);
    // Under another id the text contradicts the one that is there; under its id it corrects it.
    assert_eq!(take("b", &fourteen, &mut store), Fate::Refused);
    assert_eq!(take("a", &fourteen, &mut store), Fate::Stored);
    assert_eq!(texts(&store), [row("a", &fourteen)]);
    assert_eq!(take("a", &fourteen, &mut store), Fate::Repeated);
    assert_eq!(texts(&store), [row("a", &fourteen)]);
    // Two chunks that take each other's text: none is lost on the way.
    let violin = "A violin has four strings.";
    assert_eq!(take("c", violin, &mut store), Fate::Stored);
    assert_eq!(take("c", &fourteen, &mut store), Fate::Stored);
    assert_eq!(texts(&store), [row("a", &fourteen), row("c", &fourteen)]);
    assert_eq!(take("a", violin, &mut store), Fate::Stored);
    assert_eq!(texts(&store), [row("c", &fourteen), row("a", violin)]);
}
