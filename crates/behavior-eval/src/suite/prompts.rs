//! The prompts of a suite, and what is left of them when chunks are removed.

use std::collections::{BTreeMap, BTreeSet};

use super::prompt::{Chunk, ChunkKey, Prompt, render_user};

/// Prompts in the order of their file, checked.
#[derive(Clone, Debug)]
pub struct Suite {
    pub(super) prompts: Vec<Prompt>,
    pub(super) identity: String,
}

impl Suite {
    /// The prompts, in the order of the file.
    pub fn prompts(&self) -> &[Prompt] {
        &self.prompts
    }

    /// BLAKE3 of both files' content, in hexadecimal; after [`without`](Self::without) also of what was removed.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// The suite without some chunks. Prompts that lose one are worded anew and lose their label, which was true of the
    /// whole evidence; the others stay as they are. Keys of chunks that do not exist change nothing but the identity.
    pub fn without(&self, removed: &BTreeSet<ChunkKey>) -> Self {
        let mut by_prompt: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for key in removed {
            by_prompt.entry(&key.prompt_id).or_default().insert(&key.chunk_id);
        }
        let prompts = self.prompts.iter().map(|prompt| {
            let gone = by_prompt.remove(prompt.id.as_str()).unwrap_or_default();
            if !prompt.chunks.iter().any(|chunk| gone.contains(chunk.id.as_str())) {
                return prompt.clone();
            }
            let kept = |ids: &[String]| ids.iter().filter(|id| !gone.contains(id.as_str())).cloned().collect();
            let chunks: Vec<Chunk> =
                prompt.chunks.iter().filter(|chunk| !gone.contains(chunk.id.as_str())).cloned().collect();
            Prompt {
                label: None,
                user: render_user(&chunks, &prompt.question),
                context: kept(&prompt.context),
                relevant: prompt.relevant.as_deref().map(kept),
                chunks,
                ..prompt.clone()
            }
        });
        let mut hash = blake3::Hasher::new();
        hash.update(self.identity.as_bytes());
        for key in removed {
            for part in [&key.prompt_id, &key.chunk_id] {
                hash.update(&(part.len() as u64).to_le_bytes());
                hash.update(part.as_bytes());
            }
        }
        Self { prompts: prompts.collect(), identity: hash.finalize().to_hex().to_string() }
    }
}
