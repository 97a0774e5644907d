//! A reusable buffer whose first element lies on a cache line, so that vector loads never straddle two.
//!
//! **Invariant:** the buffer never shrinks, so a length that it had before costs no allocation.

use std::mem::size_of;

/// The unit in which memory is moved to and from the processor.
pub(crate) const CACHE_LINE_BYTES: usize = 64;

/// Elements of a plain number type, 64-byte aligned.
#[derive(Debug, Clone, Default)]
pub(crate) struct AlignedBuffer<T> {
    storage: Vec<T>,
    len: usize,
}

impl<T: Copy + Default> AlignedBuffer<T> {
    /// Sets the length; the elements are unspecified afterwards.
    pub(crate) fn resize(&mut self, len: usize) {
        let needed = len + CACHE_LINE_BYTES / size_of::<T>();
        if self.storage.len() < needed {
            // Not `resize`, which would copy the old elements: they are unspecified from here on.
            self.storage = Vec::new();
            self.storage = vec![T::default(); needed];
        }
        self.len = len;
    }

    /// Elements that fit without an allocation.
    pub(crate) fn capacity(&self) -> usize {
        self.storage.len().saturating_sub(CACHE_LINE_BYTES / size_of::<T>())
    }

    pub(crate) fn as_slice(&self) -> &[T] {
        let start = self.start();
        &self.storage[start..start + self.len]
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [T] {
        let start = self.start();
        &mut self.storage[start..start + self.len]
    }

    /// Index of the first element on a cache line (0 where the platform cannot tell).
    fn start(&self) -> usize {
        let offset = self.storage.as_ptr().align_offset(CACHE_LINE_BYTES);
        if offset <= self.storage.len() - self.len { offset } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_aligned_and_does_not_allocate_twice() {
        let mut buffer = AlignedBuffer::<f32>::default();
        assert!(buffer.as_slice().is_empty());
        buffer.resize(100);
        let first = buffer.as_slice().as_ptr();
        assert_eq!(first.align_offset(64), 0);
        buffer.resize(7);
        buffer.resize(100);
        assert_eq!(buffer.as_slice().as_ptr(), first);
        assert_eq!(buffer.as_mut_slice().len(), 100);
    }
}
