//! The blocks of prompts in memory and on disk.

use std::path::PathBuf;
use std::sync::Arc;

use mla_attention::{CacheBlock, CompressedMlaCache};

use super::disk::DiskBlocks;
use super::gone::Gone;
use super::lru::Lru;
use super::name::{BlockName, PromptKey};
use crate::error::Result;

/// The place of a prompt cache, and the bytes that it may take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PromptCacheOptions {
    /// Most bytes in memory. Blocks that a sequence holds too take no further memory, and count all the same.
    pub memory_bytes: u64,
    /// Files, which outlive the process; `None` for memory only.
    pub disk: Option<DiskOptions>,
}

/// The files of a prompt cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskOptions {
    /// The folder, which is made if it does not exist.
    pub dir: PathBuf,
    /// Most bytes of all files.
    pub bytes: u64,
}

/// The computed beginning of a prompt.
#[derive(Debug, Default)]
pub struct CachedPrefix {
    /// The blocks from the first position on, for [`CompressedMlaCache::resume`].
    pub blocks: Vec<Arc<CacheBlock>>,
    /// How many of them were read from files.
    pub from_disk: usize,
    /// Whether the next block was computed before and had to give way to others.
    pub is_evicted: bool,
}

impl CachedPrefix {
    /// Number of tokens whose positions the blocks hold.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.blocks.len() * CompressedMlaCache::BLOCK
    }
}

/// The computed beginnings of prompts, of any number of models.
///
/// Within its bounds, the least recently used block gives way; of one prompt, the last block first, since a block is of
/// use only together with all blocks before it.
#[derive(Debug)]
pub struct PromptCache {
    memory: Lru<Arc<CacheBlock>>,
    disk: Option<DiskBlocks>,
    /// Blocks that had to give way.
    gone: Gone,
}

impl PromptCache {
    /// A cache with the blocks that are in its folder.
    ///
    /// # Errors
    /// [`StorageError::PromptCache`](crate::storage::StorageError::PromptCache) for a folder that cannot be made or listed.
    pub fn open(options: &PromptCacheOptions) -> Result<PromptCache> {
        let disk = options.disk.as_ref().map(|disk| DiskBlocks::open(&disk.dir, disk.bytes)).transpose()?;
        Ok(PromptCache { memory: Lru::new(options.memory_bytes), disk, gone: Gone::default() })
    }

    /// Bytes in memory and on disk.
    #[must_use]
    pub fn bytes(&self) -> [u64; 2] {
        [self.memory.bytes(), self.disk.as_ref().map_or(0, DiskBlocks::bytes)]
    }

    /// Blocks in memory and on disk.
    #[must_use]
    pub fn n_blocks(&self) -> [usize; 2] {
        [self.memory.len(), self.disk.as_ref().map_or(0, DiskBlocks::len)]
    }

    /// The longest beginning of `tokens` that is held, without the last token: its logits have to be computed.
    ///
    /// `own` are the first blocks of `tokens`, which the caller has already; they are not looked up.
    #[must_use]
    pub fn prefix(&mut self, key: &PromptKey, tokens: &[u32], own: &[Arc<CacheBlock>]) -> CachedPrefix {
        let most = &tokens[..tokens.len().saturating_sub(1)];
        let names: Vec<_> = key.names(most).collect();
        let own = own[..own.len().min(names.len())].to_vec();
        let mut prefix = CachedPrefix { blocks: own, ..CachedPrefix::default() };
        for name in &names[prefix.blocks.len()..] {
            let block = match (self.memory.get(name).cloned(), &mut self.disk) {
                (Some(block), _) => block,
                (None, Some(disk)) => {
                    let Some(block) = disk.read(name, key.layout()) else { break };
                    prefix.from_disk += 1;
                    Arc::new(block)
                }
                (None, None) => break,
            };
            prefix.blocks.push(block);
        }
        prefix.is_evicted = names.get(prefix.blocks.len()).is_some_and(|name| self.gone.contains(name));
        self.keep(&names[..prefix.blocks.len()], &prefix.blocks);
        prefix
    }

    /// Holds `blocks`, the first full blocks of a sequence of `tokens`.
    ///
    /// # Panics
    /// When there are more blocks than full blocks of tokens.
    pub fn insert(&mut self, key: &PromptKey, tokens: &[u32], blocks: &[Arc<CacheBlock>]) {
        let names: Vec<_> = key.names(&tokens[..blocks.len() * CompressedMlaCache::BLOCK]).collect();
        self.keep(&names, blocks);
    }

    /// Holds blocks of one prompt, as many as fit, and counts a use of each, the first one last.
    fn keep(&mut self, names: &[BlockName], blocks: &[Arc<CacheBlock>]) {
        let bytes = blocks.first().map_or(0, |block| block.n_bytes()) as u64;
        let most = self.memory.room_for(bytes);
        for (name, block) in names.iter().zip(blocks).take(most).rev() {
            if self.memory.get(name).is_none() {
                self.memory.insert(*name, block.clone(), bytes);
            }
        }
        // A block that is in neither place now was computed in vain.
        let mut without_place: Vec<BlockName> = names.iter().skip(most).copied().collect();
        without_place.extend(std::iter::from_fn(|| self.memory.pop_excess()));
        if let Some(disk) = &mut self.disk {
            disk.keep(names, blocks);
            without_place.append(&mut disk.removed);
        }
        for name in without_place {
            let has_place = self.memory.contains(&name) || self.disk.as_ref().is_some_and(|disk| disk.contains(&name));
            if !has_place {
                self.gone.insert(name);
            }
        }
    }
}
