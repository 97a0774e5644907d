//! The identity of a model: a BLAKE3 hash of its weights and metadata, independent of how the file arranges them.
//!
//! ```text
//! "craftsman model identity 1\n"
//! number of pairs: u64, then per pair, by ascending key: key, type, value as GGUF stores them
//! number of tensors: u64, then per tensor, by ascending name: name, n_dims: u32, dims: u64 each
//!     (outermost first), type name, bytes: u64
//! the data of every tensor, in the same order, without padding
//! ```
//! `craftsman.gates.*` does not count, so that writing a gate report into a model leaves it the same
//! model; neither do the order of tensors, padding, and whether a set is split. Of a safetensors
//! checkpoint only the tensors count.

use ternary_core::Bytes;

use crate::error::Result;
use crate::gguf::GgufFile;
use crate::gguf::Metadata;
use crate::gguf::value::encode_str;
use crate::source::TensorSource;

/// The bytes that are hashed first.
const DOMAIN: &[u8] = b"craftsman model identity 1\n";
/// Keys of reports about the model; they are not part of it.
const REPORT_PREFIX: &str = "craftsman.gates.";
/// Bytes of each end of a tensor that a sample covers.
const SAMPLE_BYTES: usize = 512;
/// Bytes that are read before their pages are handed back.
const CHUNK_BYTES: usize = 32 << 20;

/// The identity of a GGUF model; reads all of it.
///
/// # Errors
/// When a tensor of the source cannot be read, which happens only to a file that changes meanwhile.
pub fn identity(file: &GgufFile) -> Result<blake3::Hash> {
    identity_of(file, Some(file.metadata()), &mut |_, _| {})
}

/// The identity of any source. `progress` is called with the bytes done and their total.
///
/// # Errors
/// As [`identity`].
pub fn identity_of(
    source: &dyn TensorSource,
    metadata: Option<&Metadata>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<blake3::Hash> {
    let mut hasher = header_hasher(source, metadata);
    let total: u64 = source.tensors().iter().map(|info| info.bytes).sum();
    let mut done = 0;
    progress(done, total);
    for index in by_name(source) {
        chunks_of(source, index, CHUNK_BYTES, &mut |_, chunk| {
            hasher.update_rayon(chunk);
            done += chunk.len() as u64;
            progress(done, total);
            Ok(())
        })?;
    }
    Ok(hasher.finalize())
}

/// A hash of everything but the data, and of the first and last 512 bytes of each tensor. It tells models apart without reading
/// them; copies that differ elsewhere have the same sample.
///
/// # Errors
/// As [`identity`].
pub fn sample_of(source: &dyn TensorSource, metadata: Option<&Metadata>) -> Result<blake3::Hash> {
    let mut hasher = header_hasher(source, metadata);
    for index in by_name(source) {
        let bytes = source.bytes(index)?;
        hasher.update(&bytes[..SAMPLE_BYTES.min(bytes.len())]);
        hasher.update(&bytes[bytes.len().saturating_sub(SAMPLE_BYTES)..]);
    }
    Ok(hasher.finalize())
}

/// A hash that identifies a file in its present state without reading its weights: it covers everything but the data,
/// and the file system's record of each part (size, times of the last write and of the last change, inode number).
/// Unlike an [`identity`] it changes when the file is copied, and it is not comparable between machines. `None` for a
/// file in memory.
pub fn local_state(file: &GgufFile) -> Option<blake3::Hash> {
    let states = file.states()?;
    let mut hasher = header_hasher(file, Some(file.metadata()));
    states.iter().flatten().for_each(|number| {
        hasher.update(&number.to_le_bytes());
    });
    Some(hasher.finalize())
}

/// A hasher that has taken in everything but the data.
pub(crate) fn header_hasher(source: &dyn TensorSource, metadata: Option<&Metadata>) -> blake3::Hasher {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&header_bytes(source, metadata));
    hasher
}

/// Everything that is hashed before the data.
pub(super) fn header_bytes(source: &dyn TensorSource, metadata: Option<&Metadata>) -> Vec<u8> {
    let mut pairs: Vec<_> =
        metadata.map(|m| m.iter().filter(|(key, _)| !key.starts_with(REPORT_PREFIX)).collect()).unwrap_or_default();
    pairs.sort_by_key(|(key, _)| *key);
    let mut bytes = [DOMAIN, &(pairs.len() as u64).to_le_bytes()].concat();
    for (key, value) in pairs {
        encode_str(key, &mut bytes);
        bytes.extend_from_slice(&value.type_id().to_le_bytes());
        value.encode(&mut bytes);
    }
    bytes.extend_from_slice(&(source.tensors().len() as u64).to_le_bytes());
    for index in by_name(source) {
        let info = &source.tensors()[index];
        encode_str(&info.name, &mut bytes);
        bytes.extend_from_slice(&(info.shape.len() as u32).to_le_bytes());
        for &dim in &info.shape {
            bytes.extend_from_slice(&(dim as u64).to_le_bytes());
        }
        encode_str(info.ty.name(), &mut bytes);
        bytes.extend_from_slice(&info.bytes.to_le_bytes());
    }
    bytes
}

/// Calls `visit` with the data of a tensor: offset of the chunk in the tensor, chunk. Chunks are whole blocks; pages are
/// handed back behind each.
pub(super) fn chunks_of(
    source: &dyn TensorSource,
    index: usize,
    chunk_bytes: usize,
    visit: &mut dyn FnMut(usize, &[u8]) -> Result<()>,
) -> Result<()> {
    let data: Bytes = source.bytes(index)?;
    let block = source.tensors()[index].ty.block_bytes();
    let step = (chunk_bytes / block).max(1) * block;
    for (i, chunk) in data.chunks(step).enumerate() {
        visit(i * step, chunk)?;
        source.release(index);
    }
    Ok(())
}

/// Tensor indices by ascending name, the order in which data is hashed.
pub(super) fn by_name(source: &dyn TensorSource) -> Vec<usize> {
    let infos = source.tensors();
    let mut order: Vec<usize> = (0..infos.len()).collect();
    order.sort_by(|&a, &b| infos[a].name.cmp(&infos[b].name));
    order
}
