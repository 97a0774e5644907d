//! The state of a run between two steps, in a file that survives a kill.
//!
//! ```text
//! length of the JSON: u64 | JSON: step, history, lengths | F32 of values and moments, entry by entry | BLAKE3 of all before
//! ```
//!
//! **Invariant:** a file that is damaged, or belongs to other entries, restores nothing.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use gguf_bitnet::NewFile;
use serde::{Deserialize, Serialize};

use super::history::History;
use super::optim::Optimizer;
use super::params::Params;
use crate::error::{Error, Result};

/// Bytes that are read or written at a time.
const CHUNK_BYTES: usize = 1 << 20;
/// Most bytes of the JSON: a line for each of a million steps.
const MAX_HEADER_BYTES: u64 = 256 << 20;

#[derive(Serialize, Deserialize)]
struct Header {
    step: usize,
    /// Numbers of each run of F32.
    lengths: Vec<usize>,
    history: History,
}

/// The runs of numbers of a state, in the order of the file.
fn runs<'a>(params: &'a Params, optimizer: &'a Optimizer) -> Vec<&'a [f32]> {
    let entries = params.list().iter().zip(&optimizer.moments);
    entries.flat_map(|(param, [first, second])| [&param.values[..], first, second]).collect()
}

fn runs_mut<'a>(params: &'a mut Params, optimizer: &'a mut Optimizer) -> Vec<&'a mut [f32]> {
    let entries = params.list_mut().iter_mut().zip(&mut optimizer.moments);
    entries.flat_map(|(param, [first, second])| [&mut param.values[..], first, second]).collect()
}

/// Writes the state to `path`, whole or not at all.
///
/// # Errors
/// A disk that refuses.
pub(super) fn save(path: &Path, params: &Params, optimizer: &Optimizer, history: &History) -> Result<()> {
    let runs = runs(params, optimizer);
    let lengths = runs.iter().map(|run| run.len()).collect();
    let header = Header { step: optimizer.steps, lengths, history: history.clone() };
    let header = serde_json::to_vec(&header).map_err(|error| Error::io("write", path)(error.into()))?;
    let mut file = NewFile::create(path)?;
    let mut hasher = blake3::Hasher::new();
    let mut put = |bytes: &[u8]| {
        hasher.update(bytes);
        file.write_all(bytes).map_err(Error::io("write", path))
    };
    put(&(header.len() as u64).to_le_bytes())?;
    put(&header)?;
    let mut bytes = Vec::with_capacity(CHUNK_BYTES);
    for chunk in runs.iter().flat_map(|run| run.chunks(CHUNK_BYTES / 4)) {
        bytes.clear();
        bytes.extend(chunk.iter().flat_map(|value| value.to_le_bytes()));
        put(&bytes)?;
    }
    file.write_all(hasher.finalize().as_bytes()).map_err(Error::io("write", path))?;
    Ok(file.publish()?)
}

/// Bytes of the numbers of a state.
pub(super) fn bytes(params: &Params, optimizer: &Optimizer) -> u64 {
    runs(params, optimizer).iter().map(|run| 4 * run.len() as u64).sum()
}

/// The numbers of the states that lie beside each other, the last one first.
pub(super) fn saved(state: &dyn Fn(usize) -> PathBuf) -> Vec<usize> {
    let first = state(0);
    let entries = first.parent().and_then(|dir| fs::read_dir(dir).ok()).into_iter().flatten().flatten();
    let number = |path: PathBuf| {
        let number = path.extension()?.to_str()?.parse().ok()?;
        (state(number) == path).then_some(number)
    };
    let mut numbers: Vec<usize> = entries.filter_map(|entry| number(entry.path())).collect();
    numbers.sort_unstable_by(|a, b| b.cmp(a));
    numbers
}

/// Reads a state back into entries of the same lengths; `None` for a file that is missing, damaged or of other entries.
pub(super) fn restore(path: &Path, params: &mut Params, optimizer: &mut Optimizer) -> Option<History> {
    // The numbers are read only after the hash has been compared.
    let header = read_header(path).ok()?;
    let mut runs = runs_mut(params, optimizer);
    if !runs.iter().map(|run| run.len()).eq(header.lengths.iter().copied()) {
        return None;
    }
    read_numbers(path, &mut runs).ok()?;
    optimizer.steps = header.step;
    Some(header.history)
}

fn damaged() -> io::Error {
    io::Error::from(io::ErrorKind::InvalidData)
}

/// The file behind the length of its JSON, and that length.
fn open(path: &Path) -> io::Result<(File, u64)> {
    let mut file = gguf_bitnet::open_regular(path).map_err(io::Error::other)?;
    let mut length = [0; 8];
    file.read_exact(&mut length)?;
    Ok((file, u64::from_le_bytes(length)))
}

/// The JSON of a file that is whole.
fn read_header(path: &Path) -> io::Result<Header> {
    let (mut file, length) = open(path)?;
    let bytes = file.metadata()?.len();
    if length > MAX_HEADER_BYTES.min(bytes) {
        return Err(damaged());
    }
    let mut header = vec![0; length as usize];
    file.read_exact(&mut header)?;
    let mut hasher = blake3::Hasher::new();
    hasher.update(&length.to_le_bytes()).update(&header);
    let header: Header = serde_json::from_slice(&header)?;
    let n = header.lengths.iter().try_fold(0usize, |n, &len| n.checked_add(len)).ok_or_else(damaged)?;
    let mut left = (n as u64).checked_mul(4).ok_or_else(damaged)?;
    if left.checked_add(8 + length + 32) != Some(bytes) {
        return Err(damaged());
    }
    let mut chunk = vec![0; CHUNK_BYTES];
    while left > 0 {
        let chunk = &mut chunk[..left.min(CHUNK_BYTES as u64) as usize];
        file.read_exact(chunk)?;
        hasher.update(chunk);
        left -= chunk.len() as u64;
    }
    let mut hash = [0; 32];
    file.read_exact(&mut hash)?;
    if *hasher.finalize().as_bytes() == hash { Ok(header) } else { Err(damaged()) }
}

/// Reads the numbers of a file that is whole to their places.
fn read_numbers(path: &Path, runs: &mut [&mut [f32]]) -> io::Result<()> {
    let (mut file, length) = open(path)?;
    file.seek(SeekFrom::Start(8 + length))?;
    let mut bytes = vec![0; CHUNK_BYTES];
    for values in runs.iter_mut().flat_map(|run| run.chunks_mut(CHUNK_BYTES / 4)) {
        let bytes = &mut bytes[..4 * values.len()];
        file.read_exact(bytes)?;
        values.iter_mut().zip(bytes.as_chunks::<4>().0).for_each(|(value, bytes)| *value = f32::from_le_bytes(*bytes));
    }
    Ok(())
}
