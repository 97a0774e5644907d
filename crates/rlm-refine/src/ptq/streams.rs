//! The two residual streams of a calibration, and their file between layers.
//!
//! ```text
//! OUT.partial/state.L    teacher [n, hidden] F32 | student [n, hidden] F32 | BLAKE3 of both     in front of layer L
//! ```
//!
//! **Invariant:** the file in front of a layer exists before any tensor of that layer is in the job, and stays until all
//! are, so that a killed job finds it.

use std::fs;
use std::io::Write;
use std::path::Path;

use gguf_bitnet::{NewFile, TensorType, dequantize, encode_row};
use moe_runtime::ModelFiles;
use ternary_core::Rounding;

use super::error::PtqError;
use crate::error::{Error, Result};

/// Bytes of a BLAKE3.
const HASH_BYTES: usize = 32;

/// The residual streams of all windows.
#[derive(Clone, Debug)]
pub(super) struct Streams {
    /// Tokens of each window.
    pub(super) windows: Vec<usize>,
    /// Length of a row.
    pub(super) hidden: usize,
    /// `[n, hidden]`, of the teacher.
    pub(super) teacher: Vec<f32>,
    /// `[n, hidden]`, of the student.
    pub(super) student: Vec<f32>,
}

impl Streams {
    /// The embeddings of the windows: the teacher's, and the student's in its type `ty`.
    pub(super) fn embed(files: &ModelFiles, windows: &[Vec<u32>], ty: TensorType) -> Result<Self> {
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
        let mut bytes = Vec::new();
        for values in self.teacher.chunks(1 << 18).chain(self.student.chunks(1 << 18)) {
            bytes.clear();
            bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
            hasher.update(&bytes);
            file.write_all(&bytes).map_err(Error::io("write", path))?;
        }
        file.write_all(hasher.finalize().as_bytes()).map_err(Error::io("write", path))?;
        Ok(file.publish()?)
    }

    /// Replaces both streams by those at `path`; whether the file is there and whole.
    pub(super) fn restore(&mut self, path: &Path) -> bool {
        let Ok(content) = fs::read(path) else { return false };
        if content.len() != 8 * self.teacher.len() + HASH_BYTES {
            return false;
        }
        let (values, hash) = content.split_at(content.len() - HASH_BYTES);
        if blake3::hash(values).as_bytes() != hash {
            return false;
        }
        let (teacher, student) = values.split_at(values.len() / 2);
        for (out, bytes) in [(&mut self.teacher, teacher), (&mut self.student, student)] {
            for (value, bytes) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *value = f32::from_le_bytes(*bytes);
            }
        }
        true
    }
}
