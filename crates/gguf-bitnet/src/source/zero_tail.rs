//! Files that end in zero bytes where weights should lie: a download reserves its space first, and stops before the end.
//!
//! A file may end in zeros and be whole: padding, biases, the last codes of a block, rows of an embedding that no token
//! uses. So the zeros must cover more than half of a norm, or weights of a matrix in a way that none of these does:
//!
//! ```text
//!   rows of a matrix  |xxxx|xxxx|xx00|0000|   a row is cut, and what is left of it and behind it is zero   damaged
//!                     |xxxx|xxxx|0000|0000|   whole rows, at most half of the matrix                      whole
//!                     |xxxx|0000|0000|0000|   whole rows, more than half of the matrix                    damaged
//! ```
//!
//! Ternary blocks (TQ1_0, TQ2_0, BITNET_T158) tell more: 0 has the code 1, so that a row of weights 0 holds bytes other than
//! zero, and a few zero bytes suffice. Q6_K and Q3_K blocks end in their scale, so that one whose end alone is zero is cut. Of the
//! other formats, and at the edge of a block, a cut cannot be told from rows of zeros.
//!
//! Zeros that begin where a tensor begins count only if they are a quarter of the file: a converter may have lost these tensors,
//! and [`Weightless`](crate::Weightless) names them.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::tensor_info::TensorInfo;
use crate::formats::{Invalid, TensorType, is_zeroed, trailing_zeros};

/// A block of a file system: a shorter run of zeros inside of a row proves nothing.
pub(crate) const FILE_BLOCK_BYTES: usize = 4096;
/// Zero bytes at the end of a block that no encoder writes: the scale, and codes that are all of them -1, or scales of runs that
/// are all of them 0 before codes that are not.
const UNWRITTEN_BYTES: usize = 16;
/// More bytes than any header has.
const MAX_HEADER_BYTES: usize = 128 << 20;
/// Places of a long file that are looked at.
const SAMPLES: usize = 64;

/// The zero bytes at the end of a file whose end was never written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZeroTail {
    /// The file; empty for one in memory.
    pub path: PathBuf,
    /// Zero bytes at its end.
    pub zero_bytes: u64,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// The tensors whose data lie there, wholly or in part, by the names in the file.
    pub tensors: Vec<String>,
    /// Number of tensors in the file; 0 where its header could not be read.
    pub of_tensors: usize,
}

impl ZeroTail {
    /// The zero tail of a file with these tensors at these places, if it covers weights.
    pub(crate) fn of_file<'a>(
        path: &Path,
        file: &[u8],
        tensors: impl Iterator<Item = (&'a TensorInfo, &'a Range<usize>)>,
    ) -> Option<ZeroTail> {
        let tensors: Vec<_> = tensors.collect();
        // Zeros behind the data of the last tensor are padding.
        let end = tensors.iter().map(|(_, place)| place.end).max().unwrap_or(0);
        let start = end - trailing_zeros(&file[..end]);
        let zeros = file.len() - start;
        let of_tensors = tensors.len();
        let (mut covers_matrix, mut cuts_tensor, mut names) = (false, false, Vec::new());
        for (info, place) in tensors {
            let zero = place.end.saturating_sub(start.max(place.start));
            if zero > 0 {
                names.push((place.start, info.name.clone()));
                covers_matrix |= covers_weights(info, place.len(), zero);
                cuts_tensor |= zero < place.len();
            }
        }
        // Whole tensors of zeros may as well have been written so, unless they are much of the file.
        let damaged = covers_matrix && (cuts_tensor || 4 * zeros >= file.len());
        names.sort();
        let tensors = names.into_iter().map(|(_, name)| name).collect();
        damaged.then(|| ZeroTail { tensors, of_tensors, ..ZeroTail::of_bytes(path, file, zeros) })
    }

    /// The zero tail of a file whose header cannot be read, if it is the reason: `is_cut_off` tells whether the bytes before
    /// the zeros end inside of a header.
    pub(crate) fn of_unreadable(path: &Path, file: &[u8], is_cut_off: impl Fn(&[u8]) -> bool) -> Option<ZeroTail> {
        // A header is shorter than this; behind it some places tell as much as all bytes, of which a sparse file has many.
        let (front, rest) = file.split_at(file.len().min(MAX_HEADER_BYTES));
        let stride = (rest.len() / SAMPLES).max(FILE_BLOCK_BYTES);
        if rest.chunks(stride).any(|run| !is_zeroed(&run[..run.len().min(FILE_BLOCK_BYTES)])) {
            return None;
        }
        let written = &front[..front.len() - trailing_zeros(front)];
        let zeros = file.len() - written.len();
        let is_reason = zeros >= FILE_BLOCK_BYTES && is_cut_off(written);
        is_reason.then(|| ZeroTail::of_bytes(path, file, zeros))
    }

    fn of_bytes(path: &Path, file: &[u8], zeros: usize) -> ZeroTail {
        let (zero_bytes, file_bytes) = (zeros as u64, file.len() as u64);
        ZeroTail { path: path.to_owned(), zero_bytes, file_bytes, tensors: Vec::new(), of_tensors: 0 }
    }
}

/// Whether `zero` bytes at the end of a tensor of `bytes` bytes are missing weights.
fn covers_weights(info: &TensorInfo, bytes: usize, zero: usize) -> bool {
    if !info.is_matrix() && !info.is_norm() {
        return false;
    }
    if 2 * zero > bytes {
        return true;
    }
    if info.is_norm() {
        return false;
    }
    let Ok(row) = info.ty.row_bytes(info.cols()) else { return zero >= FILE_BLOCK_BYTES };
    if info.ty.is_ternary() {
        return zero >= UNWRITTEN_BYTES;
    }
    if let Some(block) = block_that_ends_in_its_scale(info.ty)
        && zero % block >= UNWRITTEN_BYTES
    {
        return true;
    }
    let matrix = row.saturating_mul(info.shape[info.shape.len() - 2]);
    zero >= matrix || zero >= row.min(FILE_BLOCK_BYTES) && cuts_row(zero % row, row)
}

/// The bytes of a block, where its only scale stands at its end.
fn block_that_ends_in_its_scale(ty: TensorType) -> Option<usize> {
    let bytes = ty.block_bytes();
    match ty.format().invalid() {
        Invalid::Block { scales: [scale], .. } if scale + 2 == bytes => Some(bytes),
        _ => None,
    }
}

/// Whether a run of zeros that takes `part` bytes of a row cuts the row: the first and the last weights of a row may happen
/// to be zero, so an eighth of a row, or 64 bytes, counts for nothing.
pub(crate) fn cuts_row(part: usize, row: usize) -> bool {
    let chance = (row / 8).clamp(1, 64);
    part >= chance && part + chance <= row
}

impl fmt::Display for ZeroTail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ZeroTail { zero_bytes, file_bytes, tensors, of_tensors, .. } = self;
        let share = 100.0 * *zero_bytes as f64 / (*file_bytes).max(1) as f64;
        write!(f, "the last {zero_bytes} of {file_bytes} bytes are zero ({share:.1} %)")?;
        if let Some(first) = tensors.first() {
            write!(
                f,
                ", where {} of {of_tensors} tensors lie, from `{}` on",
                tensors.len(),
                crate::shown::Shown(first)
            )?;
        }
        f.write_str(": a download reserved the space of the file and stopped before its end; download it again")
    }
}
