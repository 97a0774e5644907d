//! Reading position in untrusted bytes: every step is checked against what is left.

use crate::error::{Error, Result};

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

    /// The next `n` bytes, which are `what`.
    pub(super) fn take(&mut self, n: usize, what: &'static str) -> Result<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        let Some((taken, _)) = rest.split_at_checked(n) else {
            return Err(Error::TruncatedHeader { what, at: self.at as u64, need: n as u64, have: rest.len() as u64 });
        };
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

    /// A count of `what`, each of which takes at least `min_bytes`: refused when the rest of the
    /// file cannot hold so many, so that it may size an allocation.
    pub(super) fn count(&mut self, what: &'static str, min_bytes: usize) -> Result<usize> {
        let count = self.u64(what)?;
        self.check_count(count, what, min_bytes)
    }

    /// As [`Cursor::count`], for a count that has been read.
    pub(super) fn check_count(&self, count: u64, what: &'static str, min_bytes: usize) -> Result<usize> {
        let max = self.left() / min_bytes;
        match usize::try_from(count) {
            Ok(n) if n <= max => Ok(n),
            _ => Err(Error::CountTooLarge { what, count, max: max as u64 }),
        }
    }

    /// A string: a length of 8 bytes, then UTF-8.
    pub(super) fn string(&mut self, what: &'static str) -> Result<&'a str> {
        let at = self.at as u64;
        let len = self.u64(what)?;
        let have = self.left();
        let len = match usize::try_from(len) {
            Ok(n) if n <= have => n,
            _ => return Err(Error::StringTooLong { what, at, len, have: have as u64 }),
        };
        std::str::from_utf8(self.take(len, what)?).map_err(|_| Error::NotUtf8 { what, at })
    }
}
