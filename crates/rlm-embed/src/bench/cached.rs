//! An encoder that remembers the vectors of its texts: a fit reads the same contexts with many weights.

use std::collections::HashMap;

use crate::encoder::BaseEmbedder;
use crate::error::Result;

/// An encoder that encodes no text twice. Its memory grows with every new text.
#[derive(Debug)]
pub struct CachedEmbedder<E> {
    base: E,
    vectors: HashMap<String, Vec<f32>>,
}

impl<E: BaseEmbedder> CachedEmbedder<E> {
    /// Remembers the vectors of `base`.
    #[must_use]
    pub fn new(base: E) -> CachedEmbedder<E> {
        CachedEmbedder { base, vectors: HashMap::new() }
    }

    /// The encoder, without the vectors.
    #[must_use]
    pub fn into_base(self) -> E {
        self.base
    }
}

impl<E: BaseEmbedder> BaseEmbedder for CachedEmbedder<E> {
    fn dims(&self) -> usize {
        self.base.dims()
    }

    fn identity(&self) -> [u8; 32] {
        self.base.identity()
    }

    fn embed(&mut self, texts: &[&str]) -> Result<Vec<f32>> {
        let mut new: Vec<&str> = texts.iter().copied().filter(|text| !self.vectors.contains_key(*text)).collect();
        new.sort_unstable();
        new.dedup();
        let vectors = self.base.embed(&new)?;
        for (text, vector) in new.iter().zip(vectors.chunks_exact(self.base.dims())) {
            self.vectors.insert((*text).to_owned(), vector.to_vec());
        }
        Ok(texts.iter().flat_map(|text| &self.vectors[*text]).copied().collect())
    }
}
