//! One batch of an index file: chunks that were added together, or ids that were removed together.
//!
//! ```text
//! header  32 bytes   "SEGM"  kind u32  body length u64  n u32  CRC-32 of the body u32  0 u32  CRC-32 of the 28 bytes before
//! body of kind 1     vectors f32 [n, dims] | lengths u32 [n, 3]: id, source, text | the texts, one after another | zeros
//! body of kind 2     lengths u32 [n] | the ids | zeros
//! body of kind 3     u64: the bytes of the file from this one to this segment are void | zeros
//! ```
//! A chunk of kind 1 whose id is there already takes its place.
//!
//! Numbers are little-endian. A body is padded to a multiple of 16 bytes, so every vector of a mapped file is aligned.
//!
//! **Invariant:** a segment exists only after both checksums, every length and every text were checked.

use ternary_core::Bytes;

use crate::crc32::crc32;

pub(super) const HEADER_BYTES: usize = 32;
/// Segments and their bodies begin at multiples of this.
pub(super) const ALIGN: usize = 16;
const MAGIC: &[u8; 4] = b"SEGM";
const ADD: u32 = 1;
const REMOVE: u32 = 2;
const VOID: u32 = 3;

/// Most chunks of a segment.
pub(super) const MAX_CHUNKS: usize = 1 << 20;

/// Texts of one chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewChunk<'a> {
    /// A name that no other chunk of the index has.
    pub id: &'a str,
    /// The file or document that the text comes from.
    pub source: &'a str,
    /// The words of the chunk.
    pub text: &'a str,
}

/// Chunks of one batch.
#[derive(Debug)]
pub(super) struct Added {
    body: Bytes,
    dims: usize,
    /// Start of each chunk's texts in the body, and the lengths of id, source and text.
    places: Vec<[usize; 4]>,
    /// A decoded copy of the vectors, where the bytes cannot be read as numbers in place.
    copy: Option<Vec<f32>>,
}

/// A segment after all checks.
#[derive(Debug)]
pub(super) enum Segment {
    Added(Added),
    Removed(Vec<String>),
    /// The bytes of the file from this place to the segment are void: a write was interrupted there.
    Void(u64),
}

/// The reason why no segment begins at a place.
pub(super) type Defect = &'static str;

impl Added {
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// The vectors `[n, dims]`.
    pub(super) fn vectors(&self) -> &[f32] {
        match &self.copy {
            Some(copy) => copy,
            None => in_place(&self.body[..self.len() * self.dims * 4]).unwrap_or_default(),
        }
    }

    /// The texts of chunk `i`.
    pub(super) fn chunk(&self, i: usize) -> NewChunk<'_> {
        let [start, id, source, text] = self.places[i];
        // Checked when the segment was read, so no part is missing.
        let part = |from: usize, len: usize| str::from_utf8(&self.body[from..from + len]).unwrap_or_default();
        NewChunk { id: part(start, id), source: part(start + id, source), text: part(start + id + source, text) }
    }
}

/// The numbers of `bytes` without a copy, where alignment and byte order allow it.
fn in_place(bytes: &[u8]) -> Option<&[f32]> {
    if cfg!(target_endian = "big") { None } else { bytemuck::try_cast_slice(bytes).ok() }
}

/// The bytes of a segment that adds chunks; `vectors` is `[chunks, dims]`.
pub(super) fn encode_added(chunks: &[NewChunk<'_>], vectors: &[f32]) -> Vec<u8> {
    let mut body: Vec<u8> = vectors.iter().flat_map(|x| x.to_le_bytes()).collect();
    for chunk in chunks {
        for part in [chunk.id, chunk.source, chunk.text] {
            body.extend((part.len() as u32).to_le_bytes());
        }
    }
    for chunk in chunks {
        [chunk.id, chunk.source, chunk.text].iter().for_each(|part| body.extend(part.as_bytes()));
    }
    framed(ADD, chunks.len(), body)
}

/// The bytes of a segment that says that the bytes of the file from `from` to it are void.
pub(super) fn encode_void(from: u64) -> Vec<u8> {
    framed(VOID, 0, from.to_le_bytes().to_vec())
}

/// The bytes of a segment that removes chunks.
pub(super) fn encode_removed(ids: &[&str]) -> Vec<u8> {
    let mut body: Vec<u8> = ids.iter().flat_map(|id| (id.len() as u32).to_le_bytes()).collect();
    ids.iter().for_each(|id| body.extend(id.as_bytes()));
    framed(REMOVE, ids.len(), body)
}

fn framed(kind: u32, n: usize, mut body: Vec<u8>) -> Vec<u8> {
    body.resize(body.len().next_multiple_of(ALIGN), 0);
    let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
    bytes.extend(MAGIC);
    bytes.extend(kind.to_le_bytes());
    bytes.extend((body.len() as u64).to_le_bytes());
    bytes.extend((n as u32).to_le_bytes());
    bytes.extend(crc32(&body).to_le_bytes());
    bytes.extend(0u32.to_le_bytes());
    bytes.extend(crc32(&bytes).to_le_bytes());
    bytes.append(&mut body);
    bytes
}

/// The first bytes of a segment, whose checksum was right.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    kind: u32,
    n: usize,
    body_crc: u32,
    /// Length of the segment in bytes, as stated: it may reach beyond the file.
    pub(super) length: u64,
}

impl Header {
    /// Reads the header at the start of `bytes`.
    pub(super) fn parse(bytes: &[u8]) -> Result<Header, Defect> {
        let header = bytes.first_chunk::<HEADER_BYTES>().ok_or("a header is cut")?;
        let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        if &header[..4] != MAGIC || crc32(&header[..28]) != word(28) {
            return Err("a header is damaged");
        }
        let body = u64::from(word(8)) | u64::from(word(12)) << 32;
        let length = body.checked_add(HEADER_BYTES as u64).ok_or("a segment is too large")?;
        Ok(Header { kind: word(4), n: word(16) as usize, body_crc: word(20), length })
    }

    /// Whether the segment says that bytes before it are void.
    pub(super) fn is_void(self) -> bool {
        self.kind == VOID
    }
}

/// The segment at the start of `bytes`, and its length.
pub(super) fn parse(bytes: &Bytes, dims: usize) -> Result<(Segment, usize), Defect> {
    let Header { kind, n, body_crc, length } = Header::parse(bytes)?;
    let body = usize::try_from(length).ok().and_then(|end| bytes.try_slice(HEADER_BYTES..end));
    let body = body.ok_or("a segment is cut")?;
    if !body.len().is_multiple_of(ALIGN) || crc32(&body) != body_crc {
        return Err("the checksum of a segment is wrong");
    }
    if n > MAX_CHUNKS {
        return Err("a segment has too many chunks");
    }
    let total = HEADER_BYTES + body.len();
    Ok((of_body(kind, body, n, dims)?, total))
}

/// The segment in `bytes`, which this process has just encoded: the checksum of the body is not computed again.
pub(super) fn of_own_bytes(bytes: &Bytes, dims: usize) -> Result<Segment, Defect> {
    let Header { kind, n, .. } = Header::parse(bytes)?;
    of_body(kind, bytes.slice(HEADER_BYTES..bytes.len()), n, dims)
}

fn of_body(kind: u32, body: Bytes, n: usize, dims: usize) -> Result<Segment, Defect> {
    match kind {
        ADD => Ok(Segment::Added(parse_added(body, n, dims)?)),
        REMOVE => Ok(Segment::Removed(parse_removed(&body, n)?)),
        VOID => Ok(Segment::Void(u64::from_le_bytes(*body.first_chunk().ok_or("a void has no start")?))),
        _ => Err("the kind of a segment is unknown"),
    }
}

fn parse_added(body: Bytes, n: usize, dims: usize) -> Result<Added, Defect> {
    let vector_bytes = n.checked_mul(dims).and_then(|n| n.checked_mul(4)).ok_or("a segment is too large")?;
    let lengths = numbers(&body, vector_bytes, 3 * n)?;
    let mut at = vector_bytes + 12 * n;
    let mut places = Vec::with_capacity(n);
    for part in lengths.as_chunks::<3>().0 {
        let [id, source, text] = part.map(|length| length as usize);
        let start = at;
        for length in [id, source, text] {
            text_at(&body, at, length)?;
            at += length;
        }
        places.push([start, id, source, text]);
    }
    let stored = &body[..vector_bytes];
    let decoded = || stored.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect::<Vec<f32>>();
    let copy = in_place(stored).is_none().then(decoded);
    let added = Added { body, dims, places, copy };
    match added.vectors().iter().all(|x| x.is_finite()) {
        true => Ok(added),
        false => Err("a vector holds a number that is not finite"),
    }
}

fn parse_removed(body: &Bytes, n: usize) -> Result<Vec<String>, Defect> {
    let mut at = 4 * n;
    let mut ids = Vec::with_capacity(n);
    for length in numbers(body, 0, n)? {
        ids.push(text_at(body, at, length as usize)?.to_owned());
        at += length as usize;
    }
    Ok(ids)
}

/// `n` numbers from byte `start` on.
fn numbers(body: &[u8], start: usize, n: usize) -> Result<Vec<u32>, Defect> {
    let bytes = start.checked_add(4 * n).and_then(|end| body.get(start..end)).ok_or("a table of lengths is cut")?;
    Ok(bytes.as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b)).collect())
}

fn text_at(body: &[u8], start: usize, length: usize) -> Result<&str, Defect> {
    let bytes = start.checked_add(length).and_then(|end| body.get(start..end)).ok_or("a text is cut")?;
    str::from_utf8(bytes).map_err(|_| "a text is not UTF-8")
}
