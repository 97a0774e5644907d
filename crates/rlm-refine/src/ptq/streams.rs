//! The two residual streams of a calibration, and their file between layers.
//!
//! ```text
//! OUT.partial/state.L    teacher [n, hidden] F32 | student [n, hidden] F32 | BLAKE3 of both     in front of layer L
//! ```
//!
//! **Invariant:** the file in front of a layer exists before any tensor of that layer is in the job, and stays until all
//! are, so that a killed job finds it.

use std::fs;
use std::io::{self, Read, Write};
use std::path::Path;

use gguf_bitnet::{NewFile, TensorType, dequantize, encode_row};
use moe_runtime::ModelFiles;
use ternary_core::Rounding;

use super::error::PtqError;
use crate::error::{Error, Result};

/// Bytes that are read or written at a time.
const CHUNK_BYTES: usize = 1 << 20;
/// Bytes of a BLAKE3.
const HASH_BYTES: usize = 32;

/// The residual streams of all windows.
#[derive(Clone, Debug)]
pub(crate) struct Streams {
    /// Tokens of each window.
    pub(super) windows: Vec<usize>,
    /// Length of a row.
    pub(super) hidden: usize,
    /// `[n, hidden]`, of the teacher.
    pub(crate) teacher: Vec<f32>,
    /// `[n, hidden]`, of the student.
    pub(crate) student: Vec<f32>,
}

impl Streams {
    /// The embeddings of the windows: the teacher's, and the student's in its type `ty`.
    pub(crate) fn embed(files: &ModelFiles, windows: &[Vec<u32>], ty: TensorType) -> Result<Self> {
        let (hidden, vocab) = (files.config.hidden, files.config.vocab);
        let Some(embedding) = files.catalog.find("token_embd.weight") else { return Err(PtqError::NoTokens.into()) };
        let n: usize = windows.iter().map(Vec::len).sum();
        let (mut teacher, mut student) = (vec![0.0; n * hidden], vec![0.0; n * hidden]);
        let mut bytes = Vec::new();
        let rows = teacher.chunks_exact_mut(hidden).zip(student.chunks_exact_mut(hidden));
        for (&token, (teacher, student)) in windows.iter().flatten().zip(rows) {
            let row = token as usize;
            if row >= vocab {
                return Err(PtqError::Token { token, vocab }.into());
            }
            files.catalog.read_rows(embedding, row..row + 1, teacher)?;
            bytes.clear();
            encode_row(ty, Rounding::LeastSquares, teacher, None, &mut bytes)?;
            dequantize(ty, &bytes, student)?;
        }
        files.catalog.release(embedding);
        Ok(Self { windows: windows.iter().map(Vec::len).collect(), hidden, teacher, student })
    }

    /// Length of the difference over the length of the teacher's stream, and the cosine between the streams.
    pub(super) fn drift(&self) -> (f64, f64) {
        let (mut difference, mut teacher, mut student, mut product) = (0.0, 0.0, 0.0, 0.0);
        for (&f, &q) in self.teacher.iter().zip(&self.student) {
            let (f, q) = (f64::from(f), f64::from(q));
            difference += (f - q) * (f - q);
            teacher += f * f;
            student += q * q;
            product += f * q;
        }
        let share = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 0.0 };
        (share(difference, teacher).sqrt(), share(product, (teacher * student).sqrt()))
    }

    /// Writes both streams to `path`, whole or not at all.
    pub(super) fn save(&self, path: &Path) -> Result<()> {
        let mut file = NewFile::create(path)?;
        let mut hasher = blake3::Hasher::new();
        let mut write = |bytes: &[u8]| {
            hasher.update(bytes);
            file.write_all(bytes)
        };
        self.for_chunks(&mut write).map_err(Error::io("write", path))?;
        file.write_all(hasher.finalize().as_bytes()).map_err(Error::io("write", path))?;
        Ok(file.publish()?)
    }

    /// BLAKE3 of both streams, as the file has it.
    pub(super) fn blake3(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        let _ = self.for_chunks(&mut |bytes| {
            hasher.update(bytes);
            Ok(())
        });
        hasher.finalize().to_string()
    }

    /// Hands the bytes of both streams to `take`, some at a time.
    fn for_chunks(&self, take: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut bytes = Vec::new();
        for values in self.teacher.chunks(CHUNK_BYTES / 4).chain(self.student.chunks(CHUNK_BYTES / 4)) {
            bytes.clear();
            bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
            take(&bytes)?;
        }
        Ok(())
    }

    /// The streams of `windows` of these lengths that were saved at `path`; `None` for a file that is missing, of another
    /// length, or with another hash.
    pub(super) fn restore(path: &Path, windows: &[usize], hidden: usize) -> Option<Self> {
        let n = windows.iter().sum::<usize>() * hidden;
        let [teacher, student] = read(path, n).ok().flatten()?;
        Some(Self { windows: windows.to_vec(), hidden, teacher, student })
    }
}

/// Two streams of `n` numbers each.
fn read(path: &Path, n: usize) -> io::Result<Option<[Vec<f32>; 2]>> {
    if fs::symlink_metadata(path)?.len() != (8 * n + HASH_BYTES) as u64 {
        return Ok(None);
    }
    let mut file = gguf_bitnet::open_regular(path).map_err(io::Error::other)?;
    let (mut hasher, mut bytes) = (blake3::Hasher::new(), vec![0; CHUNK_BYTES]);
    let mut streams = [Vec::with_capacity(n), Vec::with_capacity(n)];
    for stream in &mut streams {
        while stream.len() < n {
            let len = CHUNK_BYTES.min(4 * (n - stream.len()));
            file.read_exact(&mut bytes[..len])?;
            hasher.update(&bytes[..len]);
            stream.extend(bytes[..len].as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)));
        }
    }
    let mut hash = [0; HASH_BYTES];
    file.read_exact(&mut hash)?;
    Ok((*hasher.finalize().as_bytes() == hash).then_some(streams))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blake3_at_the_end_of(path: &Path) -> String {
        let bytes = fs::read(path).unwrap();
        blake3::Hash::from_slice(&bytes[bytes.len() - HASH_BYTES..]).unwrap().to_string()
    }

    #[test]
    fn streams_come_back_from_a_whole_file_and_from_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.1");
        let values = |from: f32| (0..700_000).map(|i| from + i as f32).collect::<Vec<_>>();
        let saved = Streams { windows: vec![70_000], hidden: 10, teacher: values(0.5), student: values(-3.0) };
        saved.save(&path).unwrap();
        let restore = |path: &Path| Streams::restore(path, &[70_000], 10);
        assert!(restore(&dir.path().join("state.2")).is_none());
        let found = restore(&path).unwrap();
        assert!(found.teacher == saved.teacher && found.student == saved.student);
        assert_eq!(found.blake3().as_bytes(), blake3_at_the_end_of(&path).as_bytes());
        assert!(Streams::restore(&path, &[69_999], 10).is_none(), "other windows");
        let mut bytes = fs::read(&path).unwrap();
        bytes[3_000_000] ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert!(restore(&path).is_none(), "a damaged file");
        fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        assert!(restore(&path).is_none(), "a short file");
    }
}
