//! The names of blocks.

use std::fmt::{self, Write};
use std::sync::Arc;

use mla_attention::{CacheLayout, CompressedMlaCache};

use crate::adapters::set::AdapterSet;
use crate::forward::model::CraftsmanModel;
use crate::models::config::ModelConfig;

/// The bytes that are hashed first. The number is that of the layout of blocks in `mla_attention`.
const DOMAIN: &str = "craftsman prompt cache 2";

/// The name of a block of a prompt: a hash of the name before it and of the block's tokens.
///
/// The default is a root that stands for no model: names that follow it compare prompts of one model alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockName(pub(super) [u8; 32]);

impl BlockName {
    /// The name of the block of `tokens` behind this one.
    #[must_use]
    pub fn next(&self, tokens: &[u32]) -> BlockName {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.0);
        tokens.iter().for_each(|token| {
            hasher.update(&token.to_le_bytes());
        });
        BlockName(*hasher.finalize().as_bytes())
    }

    /// The names of the full blocks of `tokens` behind this one, in order.
    pub fn names<'a>(self, tokens: &'a [u32]) -> impl Iterator<Item = BlockName> + use<'a> {
        tokens.chunks_exact(CompressedMlaCache::BLOCK).scan(self, |name, tokens| {
            *name = name.next(tokens);
            Some(*name)
        })
    }

    /// The name that [`fmt::Display`] writes.
    pub(super) fn from_hex(text: &str) -> Option<BlockName> {
        blake3::Hash::from_hex(text).ok().map(|hash| BlockName(*hash.as_bytes()))
    }
}

impl fmt::Display for BlockName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

/// Everything but the tokens that decides the bits of a cache.
#[derive(Clone, Debug)]
pub struct PromptKey {
    /// The name that stands for all but the adapters.
    plain: BlockName,
    root: BlockName,
    layout: Arc<CacheLayout>,
}

impl PromptKey {
    /// The key of a model with this identity (a hash that changes when the weights do), run with caches of this layout and
    /// these adapters.
    #[must_use]
    pub fn new(
        identity: &[u8; 32],
        model: &CraftsmanModel,
        layout: &Arc<CacheLayout>,
        adapters: Option<&AdapterSet>,
    ) -> PromptKey {
        // The configuration counts although the identity covers the file: options change parts of it.
        // The MTP block changes no position of the layers.
        let config = ModelConfig { reads_mtp: false, ..model.config().clone() };
        let products = model.products();
        let mut text = format!("{DOMAIN} {}\n{config:?}\n{products:?}\n", env!("CARGO_PKG_VERSION"));
        let shapes = layout.shapes().try_for_each(|shape| writeln!(text, "{shape} {}", layout.cache_type()));
        shapes.expect("writing to a string succeeds");
        let mut hasher = blake3::Hasher::new();
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
        hasher.update(identity);
        let plain = BlockName(*hasher.finalize().as_bytes());
        PromptKey { plain, root: plain, layout: layout.clone() }.with_adapters(adapters)
    }

    /// The key of the same model and caches, run with these adapters in place of others.
    #[must_use]
    pub fn with_adapters(self, adapters: Option<&AdapterSet>) -> PromptKey {
        let root = match adapters {
            None => self.plain,
            Some(set) => {
                let mut hasher = blake3::Hasher::new();
                hasher.update(&self.plain.0).update(&set.identity());
                BlockName(*hasher.finalize().as_bytes())
            }
        };
        PromptKey { root, ..self }
    }

    /// The layout of the blocks.
    #[must_use]
    pub fn layout(&self) -> &Arc<CacheLayout> {
        &self.layout
    }

    /// The name that the first block follows: a hash of everything but the tokens.
    pub(crate) fn root(&self) -> [u8; 32] {
        self.root.0
    }

    /// The names of the full blocks of `tokens`, in order.
    pub fn names<'a>(&self, tokens: &'a [u32]) -> impl Iterator<Item = BlockName> + use<'a> {
        self.root.names(tokens)
    }
}
