//! The read bandwidth of this machine's memory, which bounds the speed of every decoding step.
//!
//! All threads of a pool read disjoint parts of one buffer, far larger than the caches, from end to end; the
//! fastest of several passes counts, because other work on the machine can only slow a pass down.
//!
//! **Invariant:** the figure is for reports only. No kernel is chosen by it and no result depends on it.
//!
//! ```
//! use tl_kernels::{Pool, bandwidth};
//! // This small buffer fits the caches, so the figure is not that of the memory.
//! assert!(bandwidth::read_bytes_per_s(&Pool::serial(), 1 << 20)? > 0.0);
//! # Ok::<(), tl_kernels::Error>(())
//! ```

use std::hint::black_box;
use std::time::Instant;

use crate::arch::{Isa, Level};
use crate::error::{Error, Result};
use crate::pool::Pool;
use crate::simd::{Kernel, Simd};

/// Size of a buffer of which the caches of present processors hold a small part at most.
pub const BUFFER_BYTES: usize = 512 << 20;

/// Passes over the buffer; the fastest counts.
const PASSES: usize = 6;

/// Bytes a thread reads before it asks for more work.
const CHUNK_BYTES: usize = 4 << 20;

/// Sums under way at a time: eight 256-bit registers, enough to hide the latency of the additions.
const SUMS: usize = 32;

/// Bytes per second that the threads of `pool` read together from a buffer of `buffer_bytes`, which is allocated
/// for the call. Takes about a quarter of a second at [`BUFFER_BYTES`] and 12 GB/s.
///
/// # Errors
/// [`Error::ProbeMemory`] when there is no memory for the buffer.
pub fn read_bytes_per_s(pool: &Pool, buffer_bytes: usize) -> Result<f64> {
    let words = (buffer_bytes / size_of::<u64>()).max(SUMS);
    let mut buffer: Vec<u64> = Vec::new();
    buffer.try_reserve_exact(words).map_err(|_| Error::ProbeMemory { bytes: buffer_bytes })?;
    // The words are written, so that every page has memory of its own instead of the system's page of zeros.
    buffer.resize(words, 1);
    let chunks: Vec<&[u64]> = buffer.chunks((CHUNK_BYTES / size_of::<u64>()).min(words)).collect();
    // Loads of 256 bits reach the limit of the memory everywhere; NEON and SIMD128 are in every build for them.
    let level = Level::of(Isa::Avx2).unwrap_or(Isa::Scalar.level()?);
    let pass = || {
        let start = Instant::now();
        pool.run(chunks.len(), &|i| {
            black_box(level.run(Read(chunks[i])));
        });
        start.elapsed().as_secs_f64()
    };
    let fastest = (0..PASSES).map(|_| pass()).fold(f64::INFINITY, f64::min);
    Ok((words * size_of::<u64>()) as f64 / fastest.max(1e-9))
}

/// A pass over some words.
struct Read<'a>(&'a [u64]);

impl Kernel for Read<'_> {
    type Output = u64;

    #[inline(always)]
    fn run<S: Simd>(self, _s: S) -> u64 {
        let (groups, rest) = self.0.as_chunks::<SUMS>();
        let mut sums = [0u64; SUMS];
        for group in groups {
            for (sum, word) in sums.iter_mut().zip(group) {
                *sum = sum.wrapping_add(*word);
            }
        }
        sums.iter().chain(rest).fold(0, |total, sum| total.wrapping_add(*sum))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A probe that skipped part of the buffer would report too much.
    #[test]
    fn every_word_is_read() {
        for len in [0, 1, SUMS - 1, SUMS, 5 * SUMS + 3] {
            let words: Vec<u64> = (1..=len as u64).collect();
            let expected = (len * (len + 1) / 2) as u64;
            for isa in Isa::ALL.into_iter().filter(|isa| isa.is_supported()) {
                assert_eq!(isa.level().unwrap().run(Read(&words)), expected, "{isa}");
            }
        }
    }

    #[test]
    fn absurd_buffers_are_refused_and_small_ones_measured() {
        let refused = read_bytes_per_s(&Pool::serial(), usize::MAX);
        assert!(matches!(refused, Err(Error::ProbeMemory { .. })));
        let pool = Pool::new(2).unwrap();
        for bytes in [0, 1000, (CHUNK_BYTES + 8) * 2] {
            assert!(read_bytes_per_s(&pool, bytes).unwrap().is_finite());
        }
    }
}
