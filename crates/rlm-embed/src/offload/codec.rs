//! Frames over a byte stream that loses, repeats and damages bytes.
//!
//! ```text
//! version u8 | kind u8 | sequence u32 | body | CRC-32 of all before      at most 65,536 bytes, little-endian
//! ```
//! in the code COBS (Cheshire and Baker, "Consistent overhead byte stuffing", 1999), followed by a byte 0. The code has no byte 0
//! itself, so after any garbage the next 0 begins a frame again.
//!
//! **Invariant:** no allocation, no panic on any input; a frame is given out only when its checksum is right.
//!
//! ```
//! use rlm_embed::offload::codec::{Collector, decode, encode};
//! let mut sent = [0; 64];
//! let n = encode(3, 7, b"a\0b", &mut sent)?;
//! let mut buffer = [0; 64];
//! let mut collector = Collector::new(&mut buffer[..]);
//! for &byte in [&b"garbage\0"[..], &sent[..n]].concat().iter() {
//!     if let Some(frame) = collector.push(byte) {
//!         if let Ok(frame) = decode(frame) {
//!             assert_eq!((frame.kind, frame.sequence, frame.body), (3, 7, &b"a\0b"[..]));
//!         }
//!     }
//! }
//! # Ok::<(), rlm_embed::offload::codec::CodecError>(())
//! ```

use crate::crc32::crc32;

/// Version of the frames.
pub const VERSION: u8 = 1;
/// Most bytes of a frame before it is coded.
pub const MAX_FRAME_BYTES: usize = 65_536;
const HEADER_BYTES: usize = 6;
const CRC_BYTES: usize = 4;
/// Most bytes of a body.
pub const MAX_BODY_BYTES: usize = MAX_FRAME_BYTES - HEADER_BYTES - CRC_BYTES;

/// A frame whose checksum was right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Kind of the message.
    pub kind: u8,
    /// Number of the request; its answer has the same.
    pub sequence: u32,
    /// Content of the message.
    pub body: &'a [u8],
}

/// The reason why bytes are no frame, or a message no bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CodecError {
    /// The body is longer than [`MAX_BODY_BYTES`], or the buffer is too short.
    TooLong,
    /// The bytes are no COBS code, or shorter than a header.
    Malformed,
    /// The checksum is wrong.
    Checksum,
    /// The frame has another version.
    Version,
    /// The body does not belong to a message of its kind.
    Message,
}

impl core::fmt::Display for CodecError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            CodecError::TooLong => "a frame is longer than its buffer or than 65536 bytes",
            CodecError::Malformed => "the bytes are no frame",
            CodecError::Checksum => "the checksum of a frame is wrong",
            CodecError::Version => "a frame has another version than 1",
            CodecError::Message => "the body of a frame does not belong to its kind",
        })
    }
}

impl core::error::Error for CodecError {}

/// Writes a frame to `out` and returns its length, the 0 at its end included.
///
/// # Errors
/// [`CodecError::TooLong`].
pub fn encode(kind: u8, sequence: u32, body: &[u8], out: &mut [u8]) -> Result<usize, CodecError> {
    if body.len() > MAX_BODY_BYTES {
        return Err(CodecError::TooLong);
    }
    let mut header = [0; HEADER_BYTES];
    header[..2].copy_from_slice(&[VERSION, kind]);
    header[2..].copy_from_slice(&sequence.to_le_bytes());
    let crc = crc32_of(&[&header, body]).to_le_bytes();
    let mut stuffer = Stuffer { out, code_at: 0, at: 1 };
    for part in [&header[..], body, &crc] {
        for &byte in part {
            stuffer.push(byte)?;
        }
    }
    stuffer.finish()
}

/// Takes the code of one frame, without the 0 at its end, apart in place.
///
/// # Errors
/// The reason why it is no frame.
pub fn decode(code: &mut [u8]) -> Result<Frame<'_>, CodecError> {
    let n = unstuff(code)?;
    let frame = code.get(..n).ok_or(CodecError::Malformed)?;
    let (content, crc) = frame.split_last_chunk::<CRC_BYTES>().ok_or(CodecError::Malformed)?;
    let ([version, kind, sequence @ ..], body) =
        content.split_first_chunk::<HEADER_BYTES>().ok_or(CodecError::Malformed)?;
    if crc32(content) != u32::from_le_bytes(*crc) {
        return Err(CodecError::Checksum);
    }
    if *version != VERSION {
        return Err(CodecError::Version);
    }
    if body.len() > MAX_BODY_BYTES {
        return Err(CodecError::TooLong);
    }
    Ok(Frame { kind: *kind, sequence: u32::from_le_bytes(*sequence), body })
}

/// Most bytes that the code of a frame with `body` bytes takes, the 0 at its end included.
#[must_use]
pub const fn coded_bytes(body: usize) -> usize {
    let n = body + HEADER_BYTES + CRC_BYTES;
    n + n / 254 + 2
}

/// Gathers bytes of a stream up to the end of a frame. A code longer than the buffer is dropped as a whole.
#[derive(Debug)]
pub struct Collector<B> {
    buffer: B,
    len: usize,
    overflowed: bool,
}

impl<B: AsMut<[u8]>> Collector<B> {
    /// Gathers in `buffer`, which limits the length of frames.
    pub const fn new(buffer: B) -> Self {
        Self { buffer, len: 0, overflowed: false }
    }

    /// Takes the next byte; gives the code of a frame when it ends one.
    pub fn push(&mut self, byte: u8) -> Option<&mut [u8]> {
        if byte != 0 {
            match self.buffer.as_mut().get_mut(self.len) {
                Some(place) => {
                    *place = byte;
                    self.len += 1;
                }
                None => self.overflowed = true,
            }
            return None;
        }
        let (len, dropped) = (self.len, self.overflowed);
        (self.len, self.overflowed) = (0, false);
        if dropped || len == 0 { None } else { self.buffer.as_mut().get_mut(..len) }
    }
}

/// Writes COBS: a byte n before each run of n - 1 bytes that are not 0; a 0 follows the run unless n is 255.
struct Stuffer<'o> {
    out: &'o mut [u8],
    code_at: usize,
    at: usize,
}

impl Stuffer<'_> {
    fn set(&mut self, at: usize, byte: u8) -> Result<(), CodecError> {
        *self.out.get_mut(at).ok_or(CodecError::TooLong)? = byte;
        Ok(())
    }

    fn push(&mut self, byte: u8) -> Result<(), CodecError> {
        if byte != 0 {
            self.set(self.at, byte)?;
            self.at += 1;
        }
        if byte == 0 || self.at - self.code_at == 255 {
            self.end_run()?;
        }
        Ok(())
    }

    fn end_run(&mut self) -> Result<(), CodecError> {
        self.set(self.code_at, (self.at - self.code_at) as u8)?;
        self.code_at = self.at;
        self.at += 1;
        Ok(())
    }

    fn finish(mut self) -> Result<usize, CodecError> {
        self.end_run()?;
        let end = self.at - 1;
        self.set(end, 0)?;
        Ok(end + 1)
    }
}

/// Decodes COBS in place and returns the length.
fn unstuff(code: &mut [u8]) -> Result<usize, CodecError> {
    let (mut from, mut to) = (0, 0);
    while from < code.len() {
        let run = usize::from(code[from]);
        let end = from + run;
        if run == 0 || end > code.len() {
            return Err(CodecError::Malformed);
        }
        code.copy_within(from + 1..end, to);
        to += run - 1;
        if run < 255 && end < code.len() {
            code[to] = 0;
            to += 1;
        }
        from = end;
    }
    Ok(to)
}

/// The checksum of several parts as if they were one.
fn crc32_of(parts: &[&[u8]]) -> u32 {
    !parts.iter().fold(!0, |crc, part| crate::crc32::update(crc, part))
}
