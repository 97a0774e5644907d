//! The index file: search against a plain computation, changes, kills at every byte, damage, hostile bytes.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proptest::prelude::*;
use rlm_embed::Error;
use rlm_embed::store::{FlatNeighborStore, IndexError, Neighbor, NeighborRetriever, NewChunk};
use tl_kernels::Pool;

const IDENTITY: [u8; 32] = [7; 32];

fn pool() -> Arc<Pool> {
    Arc::new(Pool::serial())
}

fn vectors(n: usize, dims: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    (0..n * dims).map(|_| next()).collect()
}

/// Adds chunks named `from .. from + n`.
fn add(store: &mut FlatNeighborStore, from: usize, n: usize) {
    let ids: Vec<String> = (from..from + n).map(|i| format!("chunk-{i}")).collect();
    let texts: Vec<String> = (from..from + n).map(|i| format!("Größe {i}")).collect();
    let chunks: Vec<NewChunk> =
        ids.iter().zip(&texts).map(|(id, text)| NewChunk { id, source: "a.txt", text }).collect();
    store.add(&chunks, &vectors(n, store.dims(), from as u64 + 1)).unwrap();
}

fn index(dir: &Path) -> PathBuf {
    dir.join("index.rlm")
}

fn plain(store: &FlatNeighborStore, query: &[f32], k: usize) -> Vec<Neighbor> {
    let score = |row| ternary_core::dot16(query, store.vector(row));
    let mut all: Vec<Neighbor> = store.live_rows().map(|row| Neighbor { row, score: score(row) }).collect();
    all.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.row.cmp(&b.row)));
    all.truncate(k);
    all
}

#[test]
fn the_search_is_exact_on_any_number_of_threads() {
    for threads in [1, 3] {
        let mut store = FlatNeighborStore::in_memory(37, IDENTITY, Arc::new(Pool::new(threads).unwrap()));
        add(&mut store, 0, 1200);
        add(&mut store, 1200, 1);
        add(&mut store, 1201, 700);
        store.remove(&["chunk-3", "chunk-1200", "chunk-1900"]).unwrap();
        let queries = vectors(5, 37, 99);
        let each = store.nearest_to_each(&queries, 10);
        for (query, found) in queries.chunks_exact(37).zip(each) {
            assert_eq!(found, plain(&store, query, 10));
            assert_eq!(found, store.nearest(query, 10));
        }
        assert!(store.nearest(&queries[..37], 0).is_empty());
        assert_eq!(store.nearest(&queries[..37], 5000).len(), 1898);
    }
}

#[test]
fn a_file_gives_back_what_was_added_and_not_removed() {
    let dir = tempfile::tempdir().unwrap();
    let path = index(dir.path());
    let mut store = FlatNeighborStore::open_or_create(&path, 6, IDENTITY, pool()).unwrap();
    add(&mut store, 0, 5);
    store.remove(&["chunk-1"]).unwrap();
    add(&mut store, 5, 2);
    let before: Vec<_> = store.live_rows().map(|row| (row, store.vector(row).to_vec())).collect();
    drop(store);
    let store = FlatNeighborStore::open(&path, pool()).unwrap();
    assert_eq!((store.len(), store.rows(), store.dims(), store.identity()), (6, 7, 6, IDENTITY));
    for (row, vector) in before {
        assert_eq!(store.vector(row), vector);
        let (id, text) = (format!("chunk-{row}"), format!("Größe {row}"));
        assert_eq!(store.chunk(row), NewChunk { id: &id, source: "a.txt", text: &text });
        assert_eq!(store.row_of(&id), Some(row));
    }
    assert!(store.row_of("chunk-1").is_none() && !store.is_live(1));
}

/// A kill leaves some prefix of what was written: every prefix opens as the last complete state and can be continued.
#[test]
fn every_prefix_of_a_file_opens_as_its_last_complete_state() {
    let dir = tempfile::tempdir().unwrap();
    let path = index(dir.path());
    let mut states = Vec::new();
    let mut store = FlatNeighborStore::open_or_create(&path, 3, IDENTITY, pool()).unwrap();
    let mut note = |store: &FlatNeighborStore| {
        let live: Vec<usize> = store.live_rows().collect();
        states.push((fs::metadata(&path).unwrap().len() as usize, live));
    };
    note(&store);
    add(&mut store, 0, 2);
    note(&store);
    store.remove(&["chunk-0"]).unwrap();
    note(&store);
    add(&mut store, 2, 3);
    note(&store);
    drop(store);
    let whole = fs::read(&path).unwrap();
    for end in 64..=whole.len() {
        let cut = dir.path().join("cut.rlm");
        fs::write(&cut, &whole[..end]).unwrap();
        let (_, expected) = states.iter().rev().find(|(length, _)| *length <= end).unwrap();
        let read = FlatNeighborStore::open(&cut, pool()).unwrap();
        assert_eq!(&read.live_rows().collect::<Vec<_>>(), expected, "{end} bytes");
        let is_whole = states.iter().any(|(length, _)| *length == end);
        assert_eq!(read.void_bytes() == 0, is_whole, "{end} bytes");
        drop(read);
        let mut again = FlatNeighborStore::open_to_change(&cut, pool()).unwrap();
        add(&mut again, 100, 1);
        drop(again);
        assert_eq!(FlatNeighborStore::open(&cut, pool()).unwrap().len(), expected.len() + 1, "{end} bytes");
    }
}

/// After a power cut the end of a file may hold anything that is no whole segment.
#[test]
fn an_end_of_zeros_or_noise_is_no_damage_but_a_wrong_byte_before_a_whole_segment_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = index(dir.path());
    let mut store = FlatNeighborStore::open_or_create(&path, 3, IDENTITY, pool()).unwrap();
    add(&mut store, 0, 4);
    let first_end = fs::metadata(&path).unwrap().len() as usize;
    add(&mut store, 4, 4);
    drop(store);
    let whole = fs::read(&path).unwrap();
    for tail in [vec![0; 100], b"SEGM and noise and noise and noise and more".to_vec()] {
        fs::write(&path, [&whole[..], &tail].concat()).unwrap();
        assert_eq!(FlatNeighborStore::open(&path, pool()).unwrap().len(), 8);
    }
    for at in 64..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        fs::write(&path, &bytes).unwrap();
        let opened = FlatNeighborStore::open(&path, pool());
        match at < first_end {
            true => assert!(matches!(opened, Err(Error::Index(IndexError::Damaged { offset: 64, .. }))), "byte {at}"),
            false => assert_eq!(opened.unwrap().len(), 4, "byte {at}"),
        }
    }
}

#[test]
fn changes_that_do_not_fit_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = index(dir.path());
    let mut store = FlatNeighborStore::open_or_create(&path, 2, IDENTITY, pool()).unwrap();
    add(&mut store, 0, 2);
    let before = fs::read(&path).unwrap();
    let chunk = |id| NewChunk { id, source: "", text: "" };
    let long = "x".repeat((1 << 20) + 1);
    let cases: [(&[NewChunk], &[f32], &str); 6] = [
        (&[chunk("chunk-1")], &[0.0, 1.0], "remove it first"),
        (&[chunk("a"), chunk("a")], &[0.0; 4], "remove it first"),
        (&[chunk("a")], &[0.0; 3], "need 2 values"),
        (&[chunk("a")], &[0.0, f32::NAN], "not finite"),
        (&[NewChunk { text: &long, ..chunk("a") }], &[0.0; 2], "cut the text"),
        (&[chunk(&long)], &[0.0; 2], "the id of chunk"),
    ];
    for (chunks, vectors, said) in cases {
        let error = store.add(chunks, vectors).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
    assert!(store.remove(&["chunk-0", "nothing"]).unwrap_err().to_string().contains("`nothing`"));
    assert_eq!(store.len(), 2);
    assert_eq!(fs::read(&path).unwrap(), before);
    let second = FlatNeighborStore::open_to_change(&path, pool());
    assert!(matches!(second, Err(Error::Index(IndexError::Busy { .. }))));
    assert!(FlatNeighborStore::open_or_create(&path, 2, IDENTITY, pool()).is_err(), "an index in use is not taken");
    assert_eq!(FlatNeighborStore::open(&path, pool()).unwrap().len(), 2, "readers need no lock");
    drop(store);
    assert_eq!(FlatNeighborStore::open_or_create(&path, 2, IDENTITY, pool()).unwrap().len(), 2);
    for (dims, identity) in [(3, IDENTITY), (2, [8; 32])] {
        let other = FlatNeighborStore::open_or_create(&path, dims, identity, pool());
        assert!(matches!(other, Err(Error::Index(IndexError::OtherEmbedder { .. }))));
    }
    assert_eq!(fs::read(&path).unwrap(), before, "an index is not replaced");
}

/// A kill while the file is made leaves a beginning of its header.
#[test]
fn a_file_with_the_beginning_of_a_header_is_completed() {
    let dir = tempfile::tempdir().unwrap();
    let path = index(dir.path());
    FlatNeighborStore::open_or_create(&path, 2, IDENTITY, pool()).unwrap();
    let header = fs::read(&path).unwrap();
    for end in 0..header.len() {
        fs::write(&path, &header[..end]).unwrap();
        assert!(FlatNeighborStore::open_or_create(&path, 2, IDENTITY, pool()).unwrap().is_empty(), "{end} bytes");
        assert_eq!(fs::read(&path).unwrap(), header);
    }
    fs::write(&path, "a note").unwrap();
    assert!(FlatNeighborStore::open_or_create(&path, 2, IDENTITY, pool()).is_err());
    assert_eq!(fs::read(&path).unwrap(), b"a note", "another file is left alone");
}

#[test]
fn a_chunk_that_is_put_takes_the_place_of_its_predecessor() {
    let dir = tempfile::tempdir().unwrap();
    let path = index(dir.path());
    let mut store = FlatNeighborStore::open_or_create(&path, 2, IDENTITY, pool()).unwrap();
    add(&mut store, 0, 3);
    let chunk = |id, text| NewChunk { id, source: "b.txt", text };
    store.put(&[chunk("chunk-1", "new"), chunk("chunk-9", "more")], &[1.0, 0.0, 0.0, 1.0]).unwrap();
    let check = |store: &FlatNeighborStore| {
        let ids: Vec<&str> = store.live_rows().map(|row| store.chunk(row).id).collect();
        assert_eq!(ids, ["chunk-0", "chunk-2", "chunk-1", "chunk-9"]);
        assert_eq!((store.len(), store.chunk(store.row_of("chunk-1").unwrap()).text), (4, "new"));
        assert!(store.nearest(&[1.0, 0.0], 9).iter().all(|found| found.row != 1));
    };
    check(&store);
    assert!(store.put(&[chunk("a", ""), chunk("a", "")], &[0.0; 4]).is_err());
    assert_eq!(store.remove(&["chunk-0", "chunk-9", "chunk-0"]).unwrap(), 2);
    add(&mut store, 0, 1);
    store.remove(&["chunk-0"]).unwrap();
    drop(store);
    let read = FlatNeighborStore::open(&path, pool()).unwrap();
    assert_eq!((read.len(), read.rows(), read.void_bytes()), (2, 6, 0));
}

/// A reader's map covers a byte for as long as it lives, so no byte of a file may change or go away.
#[test]
fn no_byte_of_a_file_changes_after_it_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = index(dir.path());
    let mut store = FlatNeighborStore::open_or_create(&path, 3, IDENTITY, pool()).unwrap();
    add(&mut store, 0, 2);
    drop(store);
    let whole = fs::read(&path).unwrap();
    for tail in [1, 30, 31, 32, 33, 100, whole.len() - 64] {
        // Interrupted twice, with a change after each.
        let mut before = [&whole[..], &whole[64..64 + tail]].concat();
        if tail == whole.len() - 64 {
            *before.last_mut().unwrap() ^= 1;
        }
        for turn in 0..2 {
            fs::write(&path, &before).unwrap();
            let mut store = FlatNeighborStore::open_to_change(&path, pool()).unwrap();
            assert!(store.void_bytes() >= tail as u64);
            assert_eq!(fs::read(&path).unwrap(), before, "opening changes nothing");
            add(&mut store, 10 + turn, 1);
            drop(store);
            let after = fs::read(&path).unwrap();
            assert!(after.starts_with(&before), "{tail} bytes");
            let read = FlatNeighborStore::open(&path, pool()).unwrap();
            assert_eq!(read.len(), 3 + turn, "{tail} bytes");
            before = [&after[..], &whole[64..64 + tail.min(100)]].concat();
        }
    }
}

/// Headers that each claim the rest of the file would cost the square of its length.
#[test]
fn a_file_of_nested_headers_is_refused_in_linear_time() {
    let dir = tempfile::tempdir().unwrap();
    let path = index(dir.path());
    FlatNeighborStore::open_or_create(&path, 3, IDENTITY, pool()).unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let total: usize = 8 << 20;
    bytes.extend([0; 16]);
    while bytes.len() + 32 <= total {
        let rest = total - bytes.len() - 32;
        bytes.extend(segment_header(1, rest, 0x0909_0909));
    }
    // A header that claims more than the file has costs nothing.
    bytes.resize(total, 0);
    fs::write(&path, bytes).unwrap();
    let opened = FlatNeighborStore::open(&path, pool());
    assert!(matches!(opened, Err(Error::Index(IndexError::Damaged { .. }))));
}

/// The same headers, each with a segment behind it that declares it void: the file would be read in the square of its length. The
/// header stands behind other bytes, or where a segment is looked for.
#[test]
fn a_file_of_nested_headers_and_voids_is_refused_in_linear_time() {
    let dir = tempfile::tempdir().unwrap();
    let path = index(dir.path());
    FlatNeighborStore::open_or_create(&path, 3, IDENTITY, pool()).unwrap();
    let start = fs::read(&path).unwrap();
    let file = |filling: usize, total: usize| {
        let mut bytes = start.clone();
        while bytes.len() + filling + 80 <= total {
            let mut void = (bytes.len() as u64).to_le_bytes().to_vec();
            void.extend([0; 8]);
            bytes.extend(vec![0; filling]);
            let rest = total - bytes.len() - 32;
            bytes.extend(segment_header(1, rest / 16 * 16, 0x0909_0909));
            bytes.extend(segment_header(3, void.len(), crc32(&void)));
            bytes.extend(void);
        }
        bytes.resize(total, 0);
        bytes
    };
    for filling in [0, 16] {
        fs::write(&path, file(filling, 1 << 20)).unwrap();
        let opened = FlatNeighborStore::open(&path, pool());
        assert!(matches!(opened, Err(Error::Index(IndexError::Damaged { .. }))), "{filling}");
        // A few interrupted writes look the same and are no damage.
        fs::write(&path, file(filling, 1000)).unwrap();
        assert_eq!(FlatNeighborStore::open(&path, pool()).unwrap().void_bytes(), 1000 - 64, "{filling}");
    }
}

/// The header of a segment of one chunk.
fn segment_header(kind: u8, body: usize, body_crc: u32) -> Vec<u8> {
    let mut header = b"SEGM".to_vec();
    header.extend([kind, 0, 0, 0]);
    header.extend((body as u64).to_le_bytes());
    header.extend([1, 0, 0, 0]);
    header.extend(body_crc.to_le_bytes());
    header.extend([0; 4]);
    header.extend(crc32(&header).to_le_bytes());
    header
}

/// CRC-32 bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |c, _| if c & 1 == 1 { 0xedb8_8320 ^ (c >> 1) } else { c >> 1 })
    })
}

#[test]
fn other_files_are_refused_with_a_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let path = index(dir.path());
    FlatNeighborStore::open_or_create(&path, 2, IDENTITY, pool()).unwrap();
    let good = fs::read(&path).unwrap();
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    for (bytes, said) in [
        (vec![], "no index"),
        (good[..63].to_vec(), "no index"),
        (with(0, b'X'), "no index"),
        (with(8, 9), "version 9"),
        (with(12, 9), "no index"),
        (with(40, 9), "no index"),
    ] {
        fs::write(&path, bytes).unwrap();
        let error = FlatNeighborStore::open(&path, pool()).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
    assert!(FlatNeighborStore::open(dir.path(), pool()).is_err());
}

proptest! {
    /// No bytes behind a good header make the reader panic.
    #[test]
    fn noise_is_read_without_a_panic(noise in prop::collection::vec(any::<u8>(), 0..400), at in 0usize..300) {
        let dir = tempfile::tempdir().unwrap();
        let path = index(dir.path());
        let mut store = FlatNeighborStore::open_or_create(&path, 3, IDENTITY, pool()).unwrap();
        add(&mut store, 0, 3);
        drop(store);
        let mut bytes = fs::read(&path).unwrap();
        let start = 64 + at.min(bytes.len() - 64);
        bytes.truncate(start);
        bytes.extend(noise);
        fs::write(&path, bytes).unwrap();
        let _ = FlatNeighborStore::open(&path, pool()).map(|store| store.len());
    }
}

#[cfg(feature = "hnsw")]
mod hnsw {
    use rlm_embed::encoder::{HashEmbedder, normalise};
    use rlm_embed::recursion::{Corpus, RecursionConfig, RlmEmbedder, Variant};
    use rlm_embed::store::HnswNeighborStore;

    use super::*;

    #[test]
    fn the_graph_finds_the_neighbours_and_sees_changes() {
        let dims = 24;
        let mut flat = FlatNeighborStore::in_memory(dims, IDENTITY, pool());
        let mut rows = vectors(2000, dims, 5);
        rows.chunks_exact_mut(dims).for_each(normalise);
        let ids: Vec<String> = (0..2000).map(|i| i.to_string()).collect();
        let chunks: Vec<NewChunk> = ids.iter().map(|id| NewChunk { id, source: "", text: "" }).collect();
        flat.add(&chunks[..1900], &rows[..1900 * dims]).unwrap();
        let mut graph = HnswNeighborStore::build(flat);
        let mut queries = vectors(50, dims, 77);
        queries.chunks_exact_mut(dims).for_each(normalise);
        let mut hits = 0;
        for query in queries.chunks_exact(dims) {
            let exact: Vec<usize> = graph.flat().nearest(query, 10).iter().map(|n| n.row).collect();
            hits += graph.nearest(query, 10).iter().filter(|n| exact.contains(&n.row)).count();
        }
        assert!(hits >= 490, "recall@10 is {hits} of 500");

        let own = &rows[7 * dims..][..dims];
        assert_eq!(graph.nearest(own, 1)[0].row, 7);
        graph.flat_mut().remove(&["7"]).unwrap();
        assert!(graph.nearest(own, 50).iter().all(|n| n.row != 7));
        graph.flat_mut().add(&chunks[1900..], &rows[1900 * dims..]).unwrap();
        assert_eq!(graph.tail(), 100);
        graph.flat_mut().remove(&["1999"]).unwrap();
        assert_eq!(graph.tail(), 99, "removed rows do not count");
        assert_eq!(graph.nearest(&rows[1950 * dims..][..dims], 1)[0].row, 1950);
        assert_eq!(graph.nearest(own, 1998).len(), 1998);

        // The loop reads the chunks that the graph finds.
        let mut embedder = RlmEmbedder::new(HashEmbedder::new(dims), RecursionConfig::new(Variant::Query));
        let corpus = Corpus { store: graph.flat(), retriever: &graph };
        let found = embedder.embed("a text", None, corpus).unwrap();
        let exact = embedder.embed("a text", None, Corpus::exact(graph.flat())).unwrap();
        assert_eq!(found.neighbors.len(), 5);
        assert_eq!(found.neighbors[0].row, exact.neighbors[0].row);
    }
}
