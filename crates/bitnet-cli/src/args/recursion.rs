//! `--recursion`: how a question becomes a vector that chunks are searched with.

use anyhow::Result;
use clap::ValueEnum;
use rlm_embed::encoder::BaseEmbedder;
use rlm_embed::recursion::{Corpus, RecursionConfig, RlmEmbedder, RlmEmbedding, Variant};
use rlm_embed::store::FlatNeighborStore;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Recursion {
    Off,
    /// Five chunks per pass
    On,
    /// Three chunks per pass, as for a Raspberry Pi 5
    Pi5,
    /// One pass with three chunks
    Pi5Streaming,
}

impl Recursion {
    fn config(self) -> Option<RecursionConfig> {
        match self {
            Recursion::Off => None,
            Recursion::On => Some(RecursionConfig::new(Variant::Query)),
            Recursion::Pi5 => Some(RecursionConfig::pi5(Variant::Query)),
            Recursion::Pi5Streaming => Some(RecursionConfig::pi5_streaming(Variant::Query)),
        }
    }

    /// The vector of a question, and what the loop did.
    ///
    /// # Errors
    /// A question that the embedder cannot take.
    pub(crate) fn embed(
        self,
        question: &str,
        mut embedder: &mut dyn BaseEmbedder,
        store: &FlatNeighborStore,
    ) -> Result<(Vec<f32>, Option<RlmEmbedding>)> {
        let Some(config) = self.config() else { return Ok((embedder.embed(&[question])?, None)) };
        let found = RlmEmbedder::new(&mut embedder, config).embed(question, None, Corpus::exact(store))?;
        Ok((found.vector.clone(), Some(found)))
    }
}
