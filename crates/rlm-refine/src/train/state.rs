//! The state of a run between two steps, in a file that survives a kill.
//!
//! ```text
//! length of the JSON: u64 | JSON: step, history, lengths | F32 of values and moments, entry by entry | BLAKE3 of all before
//! ```
//!
//! **Invariant:** a file that is damaged, or belongs to other entries, restores nothing.

use std::fs;
use std::io::{self, Read, Write};
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
    // The numbers are copied only after the hash has been compared.
    let (header, values) = read(path).ok()?;
    let mut runs = runs_mut(params, optimizer);
    if !runs.iter().map(|run| run.len()).eq(header.lengths.iter().copied()) {
        return None;
    }
    let mut rest = &values[..];
    for run in &mut runs {
        let (head, tail) = rest.split_at_checked(run.len())?;
        run.copy_from_slice(head);
        rest = tail;
    }
    optimizer.steps = header.step;
    Some(header.history)
}

fn read(path: &Path) -> io::Result<(Header, Vec<f32>)> {
    let damaged = || io::Error::from(io::ErrorKind::InvalidData);
    let mut file = gguf_bitnet::open_regular(path).map_err(io::Error::other)?;
    let bytes = file.metadata()?.len();
    let mut hasher = blake3::Hasher::new();
    let mut length = [0; 8];
    file.read_exact(&mut length)?;
    hasher.update(&length);
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER_BYTES.min(bytes) {
        return Err(damaged());
    }
    let mut header = vec![0; length as usize];
    file.read_exact(&mut header)?;
    hasher.update(&header);
    let header: Header = serde_json::from_slice(&header)?;
    let n = header.lengths.iter().try_fold(0usize, |n, &len| n.checked_add(len)).ok_or_else(damaged)?;
    let expected = (n as u64).checked_mul(4).and_then(|n| n.checked_add(8 + length + 32));
    if expected != Some(bytes) {
        return Err(damaged());
    }
    let (mut values, mut chunk) = (Vec::with_capacity(n), vec![0; CHUNK_BYTES]);
    while values.len() < n {
        let len = CHUNK_BYTES.min(4 * (n - values.len()));
        file.read_exact(&mut chunk[..len])?;
        hasher.update(&chunk[..len]);
        values.extend(chunk[..len].as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)));
    }
    let mut hash = [0; 32];
    file.read_exact(&mut hash)?;
    if *hasher.finalize().as_bytes() == hash { Ok((header, values)) } else { Err(damaged()) }
}
