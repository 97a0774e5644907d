//! Hashed words and word pairs: the baseline that a trained encoder must beat.
//!
//! Each feature adds +1 or -1 to one value, both chosen by its 64-bit FNV-1a hash (Fowler, Noll, Vo; Weinberger et al. 2009).

use super::base::BaseEmbedder;
use super::vectors::normalise;
use crate::error::Result;
use crate::fnv::fnv1a;

/// An encoder without weights.
///
/// ```
/// use rlm_embed::encoder::{BaseEmbedder, HashEmbedder, cosine};
/// let mut encoder = HashEmbedder::new(256);
/// let vectors = encoder.embed(&["The gate is open", "the gate, is OPEN!", "a river"])?;
/// let row = |i: usize| &vectors[i * 256..][..256];
/// assert!(cosine(row(0), row(1)) > 0.999 && cosine(row(0), row(2)) < 0.5);
/// # Ok::<(), rlm_embed::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct HashEmbedder {
    dims: usize,
}

impl HashEmbedder {
    /// Values of a vector where none are asked for: as many as MiniLM's.
    pub const DEFAULT_DIMS: usize = 384;

    /// An encoder with vectors of `dims` values.
    ///
    /// # Panics
    /// If `dims` is 0.
    #[must_use]
    pub fn new(dims: usize) -> HashEmbedder {
        assert!(dims > 0, "a vector needs values");
        HashEmbedder { dims }
    }

    fn add(&self, feature: &[&str], out: &mut [f32]) {
        // Each word is followed by a byte that no text has.
        let hash = fnv1a(feature.iter().flat_map(|word| word.bytes().chain([0xff])));
        // The highest bit gives the sign, the others the place.
        let place = (hash << 1 >> 1) % self.dims as u64;
        out[place as usize] += if hash >> 63 == 0 { 1.0 } else { -1.0 };
    }
}

impl BaseEmbedder for HashEmbedder {
    fn dims(&self) -> usize {
        self.dims
    }

    fn identity(&self) -> [u8; 32] {
        *blake3::hash(format!("fnv1a words and pairs {}", self.dims).as_bytes()).as_bytes()
    }

    fn memory_bytes(&self, _tokens: usize) -> Option<u64> {
        Some(size_of::<HashEmbedder>() as u64)
    }

    fn embed(&mut self, texts: &[&str]) -> Result<Vec<f32>> {
        let mut vectors = vec![0.0; texts.len() * self.dims];
        for (text, out) in texts.iter().zip(vectors.chunks_exact_mut(self.dims)) {
            let lower = text.to_lowercase();
            let words: Vec<&str> =
                lower.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
            for word in &words {
                self.add(&[word], out);
            }
            for pair in words.windows(2) {
                self.add(pair, out);
            }
            normalise(out);
        }
        Ok(vectors)
    }
}
