//! Reading position in untrusted bytes: every step is checked against the number of bytes left.

use super::error::GgufError;
use crate::error::Result;
use crate::source::SourceError;

/// The longest header that is read: several times the size of the largest vocabularies. Without the limit a
/// sparse file of zeros could claim metadata of any size.
pub(super) const HEADER_LIMIT: usize = 100_000_000;
/// The most metadata pairs, and the most tensors, that are read: each takes several times more
/// memory than the file spends on it.
pub(super) const ENTRY_LIMIT: usize = 1 << 20;

/// A position in the bytes of a file.
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Cursor<'a> {
        Cursor { bytes, at: 0 }
    }

    /// Bytes read so far.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// Bytes not read yet.
    pub(super) fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// The next `n` bytes; `what` names them in an error.
    pub(super) fn take(&mut self, n: usize, what: &'static str) -> Result<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        let Some((taken, _)) = rest.split_at_checked(n) else {
            return Err(SourceError::TruncatedHeader {
                what,
                at: self.at as u64,
                need: n as u64,
                have: rest.len() as u64,
            }
            .into());
        };
        if self.at + n > HEADER_LIMIT {
            return Err(GgufError::HeaderTooLong { limit: HEADER_LIMIT as u64 }.into());
        }
        self.at += n;
        Ok(taken)
    }

    /// The next `N` bytes as an array.
    pub(super) fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N, what)?);
        Ok(out)
    }

    pub(super) fn u32(&mut self, what: &'static str) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    pub(super) fn u64(&mut self, what: &'static str) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    /// The length of an array whose elements take at least `min_bytes` each. A length that the rest of the file or the
    /// longest header cannot hold is refused, so the caller may allocate that many elements.
    pub(super) fn array_len(&mut self, min_bytes: usize) -> Result<usize> {
        let count = self.u64("an array's length")?;
        let n = self.check_count(count, "array elements", min_bytes)?;
        // This cannot overflow: the check above has found that many bytes in the file.
        match self.at + n * min_bytes > HEADER_LIMIT {
            true => Err(GgufError::HeaderTooLong { limit: HEADER_LIMIT as u64 }.into()),
            false => Ok(n),
        }
    }

    /// A number of pairs or tensors, each of which takes at least `min_bytes`.
    pub(super) fn check_entries(&self, count: u64, what: &'static str, min_bytes: usize) -> Result<usize> {
        match self.check_count(count, what, min_bytes)? {
            n if n > ENTRY_LIMIT => Err(GgufError::CountTooLarge { what, count, max: ENTRY_LIMIT as u64 }.into()),
            n => Ok(n),
        }
    }

    fn check_count(&self, count: u64, what: &'static str, min_bytes: usize) -> Result<usize> {
        let max = self.left() / min_bytes;
        match usize::try_from(count) {
            Ok(n) if n <= max => Ok(n),
            _ => Err(GgufError::CountTooLarge { what, count, max: max as u64 }.into()),
        }
    }

    /// A string: a length of 8 bytes, then UTF-8.
    pub(super) fn string(&mut self, what: &'static str) -> Result<&'a str> {
        let at = self.at as u64;
        let len = self.u64(what)?;
        let have = self.left();
        let len = match usize::try_from(len) {
            Ok(n) if n <= have => n,
            _ => return Err(GgufError::StringTooLong { what, at, len, have: have as u64 }.into()),
        };
        std::str::from_utf8(self.take(len, what)?).map_err(|_| GgufError::NotUtf8 { what, at }.into())
    }
}
