//! BLAKE3 of a stream of bytes whose pieces are hashed apart, on any machines and in any order.
//!
//! ```text
//! stream   | chunk 0  | chunk 1  | chunk 2  | chunk 3  | chunk 4  |  5 |
//! piece          | head | tree of 1 |     tree of 2      |  tail |
//! ```
//! A chunk has 1024 bytes. A tree is an inner node of BLAKE3's tree over whole chunks: 2^k of them, the first of which has a
//! number that 2^k divides. The bytes at the ends of a piece belong to chunks that it shares with its neighbours, and are kept
//! as they are. Chunk 0 is never part of a tree, so that no tree is the root, which is hashed in another way.
//!
//! **Invariant:** the hash of all pieces of a stream, in order, is that of the stream.
//!
//! Source: section 2.1 of the BLAKE3 paper.

use blake3::hazmat::{ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};
use blake3::{CHUNK_LEN, Hash, Hasher};
use serde::{Deserialize, Serialize};

const CHUNK: u64 = CHUNK_LEN as u64;
/// More bytes than any model has; sums below it do not overflow.
const MOST_BYTES: u64 = 1 << 60;

/// A piece, as far as the hash of its stream depends on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Piece {
    /// Where the piece begins in the stream, in bytes.
    start: u64,
    bytes: u64,
    head: Vec<u8>,
    trees: Vec<ChainingValue>,
    tail: Vec<u8>,
}

impl Piece {
    /// Bytes of the piece.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// The trees of chunks `first..end`, each as its first chunk and its number of chunks.
fn trees(first: u64, end: u64) -> impl Iterator<Item = (u64, u64)> {
    let mut at = first;
    std::iter::from_fn(move || {
        let left = end.checked_sub(at).filter(|&left| left > 0)?;
        let tree = (at, (1 << at.trailing_zeros().min(62)).min(1 << left.ilog2()));
        at += tree.1;
        Some(tree)
    })
}

/// The whole chunks between the ends of a piece of `bytes` bytes at `start`, without chunk 0.
fn chunks(start: u64, bytes: u64) -> (u64, u64) {
    let first = start.div_ceil(CHUNK).max(1);
    (first, ((start + bytes) / CHUNK).max(first))
}

/// Hashes a piece whose bytes come in order.
pub(super) struct PieceHasher {
    piece: Piece,
    /// How many bytes of the piece were hashed or kept.
    done: u64,
    /// Trees that were not begun.
    left: Box<dyn Iterator<Item = (u64, u64)>>,
    /// The tree whose bytes come, and how many of them are missing.
    tree: Option<(Hasher, u64)>,
}

impl PieceHasher {
    pub(super) fn new(start: u64, bytes: u64) -> PieceHasher {
        let (first, end) = chunks(start, bytes);
        let piece = Piece { start, bytes, head: Vec::new(), trees: Vec::new(), tail: Vec::new() };
        PieceHasher { piece, done: 0, left: Box::new(trees(first, end)), tree: None }
    }

    /// Takes the next bytes of the piece.
    pub(super) fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let at = self.piece.start + self.done;
            let (first, end) = chunks(self.piece.start, self.piece.bytes);
            let room = if at < first * CHUNK {
                first * CHUNK - at
            } else if at >= end * CHUNK {
                u64::MAX
            } else {
                let next = || {
                    self.left.next().map(|(chunk, n)| {
                        let mut hasher = Hasher::new();
                        hasher.set_input_offset(chunk * CHUNK);
                        (hasher, n * CHUNK)
                    })
                };
                self.tree = self.tree.take().or_else(next);
                self.tree.as_ref().map_or(u64::MAX, |(_, missing)| *missing)
            };
            let (now, later) = bytes.split_at(usize::try_from(room).map_or(bytes.len(), |room| room.min(bytes.len())));
            match &mut self.tree {
                Some((hasher, missing)) => {
                    hasher.update_rayon(now);
                    *missing -= now.len() as u64;
                    if *missing == 0 {
                        self.piece.trees.push(hasher.finalize_non_root());
                        self.tree = None;
                    }
                }
                None if at < first * CHUNK => self.piece.head.extend_from_slice(now),
                None => self.piece.tail.extend_from_slice(now),
            }
            self.done += now.len() as u64;
            bytes = later;
        }
    }

    /// The piece, all of whose bytes have come.
    pub(super) fn finish(self) -> Piece {
        debug_assert_eq!(self.done, self.piece.bytes);
        self.piece
    }
}

/// Joins the pieces of a stream, which come in order.
#[derive(Default)]
pub(super) struct Joined {
    /// Bytes of the pieces that came.
    bytes: u64,
    /// The bytes of the last chunk.
    open: Vec<u8>,
    /// How many chunks are complete.
    chunks: u64,
    /// Their trees and single chunks, each with its number of chunks.
    nodes: Vec<(u64, ChainingValue)>,
}

impl Joined {
    /// Takes the next piece; `None` for one that does not follow the last, or whose parts do not fit its place.
    pub(super) fn add(&mut self, piece: &Piece) -> Option<()> {
        let end = piece.start.checked_add(piece.bytes).filter(|&end| piece.start == self.bytes && end <= MOST_BYTES)?;
        let (first, last) = chunks(piece.start, piece.bytes);
        let fits = piece.head.len() as u64 == end.min(first * CHUNK) - piece.start
            && piece.tail.len() as u64 == end.saturating_sub(last * CHUNK)
            && piece.trees.len() == trees(first, last).count();
        fits.then_some(())?;
        self.extend(&piece.head);
        for ((_, n), tree) in trees(first, last).zip(&piece.trees) {
            self.close();
            self.nodes.push((n, *tree));
            self.chunks += n;
        }
        self.extend(&piece.tail);
        self.bytes = end;
        Some(())
    }

    /// Adds bytes that end in the last chunk, or in the one behind it if that is full.
    fn extend(&mut self, bytes: &[u8]) {
        if self.open.len() == CHUNK_LEN && !bytes.is_empty() {
            self.close();
        }
        self.open.extend_from_slice(bytes);
    }

    /// Makes a node of the last chunk.
    fn close(&mut self) {
        if !self.open.is_empty() {
            let mut hasher = Hasher::new();
            hasher.set_input_offset(self.chunks * CHUNK).update(&self.open);
            self.nodes.push((1, hasher.finalize_non_root()));
            self.chunks += 1;
            self.open.clear();
        }
    }

    /// The hash of the stream.
    pub(super) fn hash(mut self) -> Option<Hash> {
        if self.nodes.is_empty() {
            return Some(blake3::hash(&self.open));
        }
        self.close();
        let (left, mut nodes) = (left_of(self.chunks), self.nodes.iter());
        let children = [node(&mut nodes, left)?, node(&mut nodes, self.chunks - left)?];
        Some(merge_subtrees_root(&children[0], &children[1], Mode::Hash))
    }
}

/// Chunks of the left child of a node over `chunks` chunks: the largest power of two below that number.
fn left_of(chunks: u64) -> u64 {
    chunks.div_ceil(2).next_power_of_two()
}

/// The inner node over the next `chunks` chunks.
fn node(nodes: &mut std::slice::Iter<'_, (u64, ChainingValue)>, chunks: u64) -> Option<ChainingValue> {
    let (n, value) = nodes.as_slice().first()?;
    if *n >= chunks {
        nodes.next();
        return (*n == chunks).then_some(*value);
    }
    let left = left_of(chunks);
    let children = [node(nodes, left)?, node(nodes, chunks - left)?];
    Some(merge_subtrees_non_root(&children[0], &children[1], Mode::Hash))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(bytes: usize) -> Vec<u8> {
        (0..bytes).map(|i| (i % 251) as u8).collect()
    }

    /// Pieces of a stream that end at `cuts`, each of which comes in runs of `run` bytes.
    fn pieces(stream: &[u8], cuts: &[usize], run: usize) -> Vec<Piece> {
        let ends = cuts.iter().copied().chain([stream.len()]);
        let starts = std::iter::once(0).chain(cuts.iter().copied());
        let piece = |(start, end): (usize, usize)| {
            let mut hasher = PieceHasher::new(start as u64, (end - start) as u64);
            stream[start..end].chunks(run).for_each(|run| hasher.update(run));
            hasher.finish()
        };
        starts.zip(ends).map(piece).collect()
    }

    fn joined(pieces: &[Piece]) -> Option<Hash> {
        let mut joined = Joined::default();
        pieces.iter().try_for_each(|piece| joined.add(piece))?;
        joined.hash()
    }

    #[test]
    fn pieces_have_the_hash_of_their_stream() {
        for bytes in [0, 1, 1023, 1024, 1025, 2048, 2049, 4096, 5000, 16_384, 33_000] {
            let stream = stream(bytes);
            for cuts in
                [&[][..], &[0], &[1], &[1024], &[1500, 1501], &[1025, 3072, 9000], &[2048, 4096, 4096], &[27, 32_768]]
            {
                let cuts: Vec<usize> = cuts.iter().copied().filter(|&cut| cut <= bytes).collect();
                for run in [1, 700, 4096] {
                    let hash = joined(&pieces(&stream, &cuts, run));
                    assert_eq!(hash, Some(blake3::hash(&stream)), "{bytes} bytes cut at {cuts:?}, in runs of {run}");
                }
            }
        }
    }

    #[test]
    fn a_piece_holds_few_bytes_of_its_own() {
        let stream = stream(1 << 20);
        let pieces = pieces(&stream, &[5000, 900_000], 4096);
        assert!(pieces.iter().all(|piece| piece.head.len() <= CHUNK_LEN && piece.tail.len() < CHUNK_LEN));
        assert!(pieces.iter().all(|piece| piece.trees.len() < 40));
    }

    #[test]
    fn pieces_that_do_not_fit_have_no_hash() {
        let good = pieces(&stream(9000), &[3000], 4096);
        let mut swapped = good.clone();
        swapped.reverse();
        let mut short = good.clone();
        short[1].tail.pop();
        let mut fewer = good.clone();
        fewer[1].trees.pop();
        let mut huge = good.clone();
        huge[1].bytes = u64::MAX - 3000;
        for wrong in [swapped, short, fewer, huge] {
            assert_eq!(joined(&wrong), None);
        }
        assert!(joined(&good).is_some());
    }
}
