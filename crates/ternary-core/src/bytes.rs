//! Shared, immutable bytes: a range of an owner that may be a file map, an arena or a vector.
//!
//! **Invariant**: the bytes of a `Bytes` never change and outlive every view of them. Cloning and slicing copy no
//! data; they add one reference to the owner.
//!
//! ```
//! use ternary_core::Bytes;
//!
//! let all = Bytes::from(vec![10, 20, 30, 40]);
//! let middle = all.slice(1..3);
//! drop(all);
//! assert_eq!(&middle[..], [20, 30]);
//! ```

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::ops::{Deref, Range};

/// A cheaply cloned view of shared, immutable bytes.
#[derive(Clone)]
pub struct Bytes {
    owner: Arc<dyn AsRef<[u8]> + Send + Sync>,
    range: Range<usize>,
}

impl Bytes {
    /// All bytes of `owner`, which is kept alive as long as any view of it.
    pub fn from_owner<T: AsRef<[u8]> + Send + Sync + 'static>(owner: T) -> Self {
        let range = 0..owner.as_ref().len();
        Self { owner: Arc::new(owner), range }
    }

    /// The bytes `range` of this view, sharing its owner.
    ///
    /// # Panics
    /// If `range` does not lie inside the view; use [`try_slice`](Self::try_slice) when the range comes from a file.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Self {
        let len = self.range.len();
        self.try_slice(range.clone()).unwrap_or_else(|| panic!("range {range:?} is outside of {len} bytes"))
    }

    /// The bytes `range` of this view, or `None` where it does not lie inside.
    #[must_use]
    pub fn try_slice(&self, range: Range<usize>) -> Option<Self> {
        if range.start > range.end || range.end > self.range.len() {
            return None;
        }
        let start = self.range.start + range.start;
        Some(Self { owner: Arc::clone(&self.owner), range: start..start + range.len() })
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &(*self.owner).as_ref()[self.range.clone()]
    }
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Default for Bytes {
    fn default() -> Self {
        Self::from_owner([])
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self::from_owner(bytes)
    }
}

impl PartialEq for Bytes {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Bytes {}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bytes({} bytes)", self.range.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    #[test]
    fn slices_of_slices_share_the_owner() {
        let all = Bytes::from(vec![0, 1, 2, 3, 4, 5, 6, 7]);
        let inner = all.slice(2..7).slice(1..4);
        assert_eq!(&inner[..], [3, 4, 5]);
        assert_eq!(inner.as_ptr(), all[3..].as_ptr());
    }

    #[test]
    fn ranges_outside_are_refused() {
        let view = Bytes::from(vec![0; 8]).slice(2..6);
        assert!(view.try_slice(0..4).is_some());
        assert!(view.try_slice(4..4).is_some());
        assert!(view.try_slice(0..5).is_none());
        assert!(view.try_slice(usize::MAX..usize::MAX).is_none());
        #[expect(clippy::reversed_empty_ranges, reason = "the reversed range is the defect tested")]
        let reversed = 3..1;
        assert!(view.try_slice(reversed).is_none());
        assert!(Bytes::default().is_empty());
    }
}
