//! Memory for packed weights: aligned to huge pages, and asking for them where the system grants them on request.
//!
//! **Invariant:** the bytes start on a cache line. A huge page spares the address translation that a stream of weights
//! would otherwise wait for at every 4 KiB.

use ternary_core::Bytes;

use crate::error::{Error, Result};

/// Zeroed bytes that are filled once and then shared.
#[derive(Debug)]
pub struct Arena(imp::Memory);

impl Arena {
    /// Room for `len` bytes. The system takes memory for it when it is written.
    ///
    /// # Errors
    /// [`Error::ArenaMemory`] when the system refuses.
    pub fn new(len: usize) -> Result<Arena> {
        imp::Memory::new(len).map(Arena).map_err(|source| Error::ArenaMemory { bytes: len, source })
    }

    /// All bytes, to be written.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        self.0.as_mut_slice()
    }

    /// The bytes, from now on immutable and shared.
    #[must_use]
    pub fn freeze(self) -> Bytes {
        Bytes::from_owner(self.0)
    }
}

#[cfg(unix)]
mod imp {
    use memmap2::MmapMut;

    /// The size that the pages of both supported kinds of processors share.
    const HUGE_PAGE_BYTES: usize = 2 << 20;

    #[derive(Debug)]
    pub(super) struct Memory {
        map: MmapMut,
        start: usize,
        len: usize,
    }

    impl Memory {
        pub(super) fn new(len: usize) -> std::io::Result<Memory> {
            let room = len.checked_add(HUGE_PAGE_BYTES).ok_or(std::io::ErrorKind::OutOfMemory)?;
            let map = MmapMut::map_anon(room)?;
            let start = map.as_ptr().align_offset(HUGE_PAGE_BYTES).min(HUGE_PAGE_BYTES);
            #[cfg(target_os = "linux")]
            if let Err(error) = map.advise_range(memmap2::Advice::HugePage, start, len) {
                tracing::debug!(%error, "the system has no huge pages on request");
            }
            Ok(Memory { map, start, len })
        }

        pub(super) fn as_mut_slice(&mut self) -> &mut [u8] {
            &mut self.map[self.start..self.start + self.len]
        }
    }

    impl AsRef<[u8]> for Memory {
        fn as_ref(&self) -> &[u8] {
            &self.map[self.start..self.start + self.len]
        }
    }
}

#[cfg(not(unix))]
mod imp {
    use super::super::aligned::AlignedBuffer;

    #[derive(Debug)]
    pub(super) struct Memory(AlignedBuffer<u8>);

    impl Memory {
        pub(super) fn new(len: usize) -> std::io::Result<Memory> {
            if len > isize::MAX as usize / 2 {
                return Err(std::io::ErrorKind::OutOfMemory.into());
            }
            let mut bytes = AlignedBuffer::default();
            bytes.resize(len);
            Ok(Memory(bytes))
        }

        pub(super) fn as_mut_slice(&mut self) -> &mut [u8] {
            self.0.as_mut_slice()
        }
    }

    impl AsRef<[u8]> for Memory {
        fn as_ref(&self) -> &[u8] {
            self.0.as_slice()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_shared_from_an_aligned_address() {
        for len in [0, 1, 64, 5000, 3 << 20] {
            let mut arena = Arena::new(len).unwrap();
            assert!(arena.as_mut_slice().iter().all(|&b| b == 0));
            arena.as_mut_slice().fill(7);
            let bytes = arena.freeze();
            assert_eq!(bytes.len(), len);
            assert_eq!(bytes.as_ptr().align_offset(64), 0);
            assert!(bytes.iter().all(|&b| b == 7));
        }
        assert!(matches!(Arena::new(usize::MAX - 5), Err(Error::ArenaMemory { .. })));
    }
}
