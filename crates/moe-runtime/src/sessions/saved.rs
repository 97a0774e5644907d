//! A sequence as bytes, to go on with it later or in another process.
//!
//! ```text
//! magic 8 | hash of model, cache type and adapters 32 | n u64 | n tokens u32 | full blocks of the cache | BLAKE3 32
//! ```
//!
//! Numbers are little-endian. The tokens behind the last full block are computed again when the bytes are loaded.
//!
//! **Invariant:** a loaded sequence has the bits of the one that was saved. Bytes that are damaged, or belong to another
//! model, cache type or adapter, are refused, and leave the sequence empty.

use std::sync::Arc;

use mla_attention::{CacheBlock, CompressedMlaCache};

use crate::error::{Error, Result};
use crate::prompt_cache::PromptKey;
use crate::sessions::craftsman_backend::CraftsmanBackend;
use crate::sessions::error::SessionError;
use crate::sessions::interrupt::Interrupt;

const MAGIC: &[u8; 8] = b"CRAFTSQ1";
const HASH_BYTES: usize = 32;
/// Magic, hash and number of tokens.
const HEADER_BYTES: usize = MAGIC.len() + HASH_BYTES + 8;

impl CraftsmanBackend {
    /// The tokens of the sequence and their cache. `identity` is that of the model's files
    /// ([`ModelFiles::identity_bytes`](crate::ModelFiles::identity_bytes)).
    #[must_use]
    pub fn save(&self, identity: &[u8; 32]) -> Vec<u8> {
        let (tokens, blocks) = (self.tokens(), self.session().cache().full_blocks());
        let block_bytes: usize = blocks.iter().map(|block| block.n_bytes()).sum();
        let mut bytes = Vec::with_capacity(HEADER_BYTES + 4 * tokens.len() + block_bytes + HASH_BYTES);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&self.key(identity).root());
        bytes.extend_from_slice(&(tokens.len() as u64).to_le_bytes());
        bytes.extend(tokens.iter().flat_map(|token| token.to_le_bytes()));
        blocks.iter().for_each(|block| block.write_bytes(&mut bytes));
        let hash = blake3::hash(&bytes);
        bytes.extend_from_slice(hash.as_bytes());
        bytes
    }

    /// Replaces the sequence by the one that [`CraftsmanBackend::save`] wrote for the same model.
    ///
    /// # Errors
    /// [`SessionError::Saved`] for other bytes, [`SessionError::ContextFull`] for more tokens than the context holds. The
    /// sequence is then empty.
    pub fn load_saved(&mut self, bytes: &[u8], identity: &[u8; 32]) -> Result<()> {
        self.truncate(0);
        let (tokens, blocks) = self.read_saved(bytes, identity)?;
        let (have, need) = (self.session().n_ctx(), tokens.len());
        if need > have {
            return Err(Error::Session(SessionError::ContextFull { have, need }));
        }
        let held = blocks.len() * CompressedMlaCache::BLOCK;
        self.take_blocks(&blocks, &tokens[..held])?;
        if held < tokens.len() {
            let appended = self.append(&tokens[held..], &Interrupt::default()).map(drop);
            return appended.inspect_err(|_| self.truncate(0));
        }
        Ok(())
    }

    fn key(&self, identity: &[u8; 32]) -> PromptKey {
        let (session, adapters) = (self.session(), self.session().adapters().current());
        PromptKey::new(identity, self.model(), session.cache().layout(), adapters.as_deref())
    }

    /// The tokens and the blocks of saved bytes.
    fn read_saved(&self, bytes: &[u8], identity: &[u8; 32]) -> Result<(Vec<u32>, Vec<Arc<CacheBlock>>)> {
        let refuse = |reason| Error::Session(SessionError::Saved { reason });
        let cut = || refuse("it is cut off or no saved sequence at all");
        let content = bytes.len().checked_sub(HASH_BYTES).filter(|&end| end >= HEADER_BYTES).ok_or_else(cut)?;
        let (content, hash) = bytes.split_at(content);
        if !content.starts_with(MAGIC) {
            return Err(cut());
        }
        if blake3::hash(content).as_bytes() != hash {
            return Err(refuse("it is damaged"));
        }
        if content[MAGIC.len()..][..HASH_BYTES] != self.key(identity).root() {
            return Err(refuse("it is of another model, cache type, activation type, adapter or version"));
        }
        let (header, rest) = content.split_at(HEADER_BYTES);
        let n = header.last_chunk().map(|n| u64::from_le_bytes(*n)).and_then(|n| usize::try_from(n).ok());
        let n = n.filter(|&n| n <= rest.len() / 4).ok_or_else(cut)?;
        let (tokens, rest) = rest.split_at(4 * n);
        let tokens = tokens.as_chunks().0.iter().map(|token| u32::from_le_bytes(*token)).collect();
        let layout = self.session().cache().layout();
        let mut blocks = Vec::new();
        for block in rest.chunks(layout.block_bytes().max(1)) {
            blocks.push(Arc::new(CacheBlock::from_bytes(layout, block).ok_or_else(cut)?));
        }
        if blocks.len() != n / CompressedMlaCache::BLOCK {
            return Err(cut());
        }
        Ok((tokens, blocks))
    }
}
