//! Finding weights that are missing although their bytes can be read: matrices of zeros, holes in a matrix, and scales that
//! are all the same.
//!
//! ```text
//! hole   a run of zero bytes that holds a whole row and a block of the file system, and that cuts a row at one of its ends:
//!        |xxxx|xx00|0000|00xx|   a part of the file that was never written
//!        |xxxx|0000|0000|xxxx|   whole rows: tokens that no text has, or neurons that were pruned
//! ```

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::defect::{Defect, DefectKind};
use super::scan::TASK_BLOCKS;
use crate::error::Result;
use crate::formats::{Invalid, is_zero, is_zeroed, trailing_zeros};
use crate::source::{FILE_BLOCK_BYTES, TensorInfo, TensorSource, cuts_row};

/// Fewest blocks of which equal scales are worth a notice.
const FEW_BLOCKS: u64 = 16;
/// Distance of the places that are looked at for zeros: every run of a file block holds one of them and eight bytes more.
const STRIDE: usize = FILE_BLOCK_BYTES / 2;

/// Weights of one tensor that are missing.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ZeroFindings {
    defects: Vec<Defect>,
    /// Findings that a model may have been made with.
    notices: Vec<Defect>,
    /// For a ternary tensor, the one scale that all its blocks have, and the notice about it.
    ternary_scale: Option<(Option<[u8; 2]>, Defect)>,
}

/// The scan of a tensor whose chunks come in order.
#[derive(Default)]
pub(super) struct ZeroScan {
    holes: Holes,
    rows: ZeroRows,
    /// The scale of the first block, while all blocks have it.
    scale: Option<[u8; 2]>,
    findings: ZeroFindings,
}

impl ZeroScan {
    /// Takes the chunk that starts at byte `offset` of a tensor.
    ///
    /// # Errors
    /// When the tensor cannot be read.
    pub(super) fn chunk(
        &mut self,
        source: &dyn TensorSource,
        index: usize,
        (offset, chunk): (usize, &[u8]),
    ) -> Result<()> {
        let info = &source.tensors()[index];
        if offset == 0 {
            self.scale = first_scale(info, chunk);
            self.zeros(info, &source.bytes(index)?);
        }
        if !info.is_matrix() {
            return Ok(());
        }
        self.holes.take(info, offset, chunk);
        self.rows.take(info, offset, chunk);
        if let Some(scale) = self.scale
            && !all_scales_are(info, chunk, scale)
        {
            self.scale = None;
        }
        if (offset + chunk.len()) as u64 == info.bytes {
            self.finish(info);
        }
        Ok(())
    }

    /// The findings of a tensor all of whose chunks have come.
    pub(super) fn findings(self) -> ZeroFindings {
        self.findings
    }

    /// Matrices and norms of zeros.
    fn zeros(&mut self, info: &TensorInfo, bytes: &[u8]) {
        if !info.is_matrix() {
            if info.is_norm() && is_zero(info.ty, bytes) {
                let weights = info.elements() as u64;
                self.findings.defects.push(defect(info, DefectKind::ZeroNorm, weights, weights, 0));
            }
            return;
        }
        let stack = info.shape[..info.shape.len() - 2].iter().product::<usize>().max(1);
        let matrices = if info.ty.is_whole_tensor() { 1 } else { stack };
        let zero = |matrix: &&[u8]| is_zero(info.ty, matrix);
        let all: Vec<bool> = bytes.chunks((bytes.len() / matrices).max(1)).map(|matrix| zero(&matrix)).collect();
        let count = all.iter().filter(|&&zero| zero).count();
        // A head may be pruned by zeroing it; an expert without weights still gets its share of the tokens.
        if count == all.len() || count > 0 && info.name.contains("exp") {
            let first = all.iter().position(|&zero| zero).unwrap_or(0) * info.rows() / matrices;
            let zero = defect(info, DefectKind::ZeroMatrix, count as u64, matrices as u64, first as u64);
            self.findings.defects.push(zero);
        }
    }

    /// Judges the whole tensor.
    fn finish(&mut self, info: &TensorInfo) {
        let found = &mut self.findings;
        let holes = std::mem::take(&mut self.holes).finish(info);
        if holes.bytes > 0 {
            let row = info.ty.row_bytes(info.cols()).map_or(0, |row| holes.first / row.max(1));
            found.defects.push(defect(info, DefectKind::ZeroRange, holes.bytes, info.bytes, row as u64));
        }
        let (rows, of) = (&self.rows, info.rows() as u64);
        // A matrix of zeros is a defect of its own.
        if 2 * rows.count > of && rows.count < of {
            found.notices.push(defect(info, DefectKind::ZeroRows, rows.count, of, rows.first));
        }
        let blocks = info.bytes / info.ty.block_bytes() as u64;
        let same = defect(info, DefectKind::ConstantScale, blocks, blocks, 0);
        let scale = self.scale.filter(|scale| *scale != [0, 0]);
        if info.ty.is_ternary() {
            found.ternary_scale = Some((scale, same));
        } else if scale.is_some() && blocks >= FEW_BLOCKS {
            found.notices.push(same);
        }
    }
}

/// Defects, and findings that a model may have been made with, of all tensors of a model, whose names are `names`.
pub(super) fn all_findings(names: &[String], tensors: Vec<ZeroFindings>) -> (Vec<Defect>, Vec<Defect>) {
    let (mut defects, mut notices, mut ternary_scales) = (Vec::new(), Vec::new(), Vec::new());
    for tensor in tensors {
        defects.extend(tensor.defects);
        notices.extend(tensor.notices);
        ternary_scales.extend(tensor.ternary_scale);
    }
    // One scale in all blocks of each ternary matrix is the rule of BitNet. The same one in most matrices is a scale that
    // was lost, and so is a single one among matrices whose blocks have scales of their own.
    let of = ternary_scales.len();
    let mut by_scale: BTreeMap<[u8; 2], Vec<&Defect>> = BTreeMap::new();
    for (scale, same) in &ternary_scales {
        scale.map(|scale| by_scale.entry(scale).or_default().push(same));
    }
    let constant = by_scale.values().map(Vec::len).sum::<usize>();
    if 2 * constant <= of {
        let few = by_scale.into_values().flatten().filter(|same| same.of >= FEW_BLOCKS);
        notices.extend(few.cloned());
    } else if let Some(same) = by_scale.into_values().find(|same| same.len() > 1 && 2 * same.len() > of) {
        let (count, of) = (same.len() as u64, of as u64);
        notices.push(Defect { kind: DefectKind::SharedScale, count, of, ..same[0].clone() });
    }
    (together(names, defects), notices)
}

fn defect(info: &TensorInfo, kind: DefectKind, count: u64, of: u64, first_row: u64) -> Defect {
    Defect { tensor: info.name.clone(), ty: info.ty, kind, count, of, first_row }
}

/// The scale of a tensor's first block, where its format has one per block.
fn first_scale(info: &TensorInfo, chunk: &[u8]) -> Option<[u8; 2]> {
    let at = scale_offset(info)?;
    chunk.get(at..)?.first_chunk().copied()
}

fn scale_offset(info: &TensorInfo) -> Option<usize> {
    match info.ty.format().invalid() {
        Invalid::Block { scales, .. } => scales.first().copied(),
        _ => None,
    }
}

fn all_scales_are(info: &TensorInfo, chunk: &[u8], scale: [u8; 2]) -> bool {
    let Some(at) = scale_offset(info) else { return false };
    let block_bytes = info.ty.block_bytes();
    let all = |task: &[u8]| task.chunks_exact(block_bytes).all(|block| block.get(at..at + 2) == Some(&scale));
    chunk.par_chunks(TASK_BLOCKS * block_bytes).all(all)
}

/// Joins the experts of a layer that are stored one by one, so that each finding has its share of the experts. It keeps the
/// name of the first tensor, by which the caller knows whether a model uses it.
fn together(names: &[String], defects: Vec<Defect>) -> Vec<Defect> {
    let mut experts: HashMap<String, u64> = HashMap::new();
    for pattern in names.iter().filter_map(|name| expert_pattern(name)) {
        *experts.entry(pattern).or_default() += 1;
    }
    let mut joined: Vec<Defect> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for defect in defects {
        let pattern = expert_pattern(&defect.tensor).filter(|_| defect.kind == DefectKind::ZeroMatrix);
        match pattern {
            Some(pattern) => {
                let of = experts.get(&pattern).copied().unwrap_or(1);
                let place = *places.entry(pattern).or_insert(joined.len());
                match joined.get_mut(place) {
                    Some(found) => found.count += 1,
                    None => joined.push(Defect { of, ..defect }),
                }
            }
            None => joined.push(defect),
        }
    }
    joined
}

/// The name of an expert's matrix with `{}` for its number; `None` for another tensor.
fn expert_pattern(name: &str) -> Option<String> {
    let mut parts: Vec<&str> = name.split('.').collect();
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let at = (1..parts.len())
        .find(|&i| is_number(parts[i]) && (parts[i - 1] == "experts" || parts[i - 1].starts_with("ffn_")))?;
    parts[at] = "{}";
    Some(parts.join("."))
}

/// The holes of one tensor.
#[derive(Default)]
struct Holes {
    /// Start of the run of zeros at the end of the chunks so far.
    open: Option<usize>,
    /// Bytes of all holes.
    bytes: u64,
    /// Start of the first hole.
    first: usize,
}

impl Holes {
    /// Takes the chunk that starts at byte `offset` of a tensor.
    fn take(&mut self, info: &TensorInfo, offset: usize, chunk: &[u8]) {
        let mut at = 0;
        if let Some(start) = self.open {
            at = leading_zeros(chunk);
            if at == chunk.len() {
                return;
            }
            self.open = None;
            self.close(info, start..offset + at);
        }
        while let Some(probe) = chunk.get(at..).and_then(|rest| rest.get(..8)) {
            if !is_zeroed(probe) {
                at += STRIDE;
                continue;
            }
            let low = at.saturating_sub(STRIDE);
            let start = at - trailing_zeros(&chunk[low..at]);
            let end = at + leading_zeros(&chunk[at..]);
            if end == chunk.len() {
                break;
            }
            self.close(info, offset + start..offset + end);
            at = end.next_multiple_of(STRIDE);
        }
        let zeros = trailing_zeros(chunk);
        if zeros > 0 {
            self.open = Some(offset + chunk.len() - zeros);
        }
    }

    /// Counts a run of zeros that has ended, if it is a hole.
    fn close(&mut self, info: &TensorInfo, run: Range<usize>) {
        let is_hole = run.len() >= FILE_BLOCK_BYTES
            && info.ty.row_bytes(info.cols()).map_or(true, |row| {
                let holds_row = run.start.next_multiple_of(row) + row <= run.end;
                let head = run.start.next_multiple_of(row) - run.start;
                holds_row && (cuts_row(head, row) || cuts_row(run.end % row, row))
            });
        if is_hole {
            if self.bytes == 0 {
                self.first = run.start;
            }
            self.bytes += run.len() as u64;
        }
    }

    fn finish(mut self, info: &TensorInfo) -> Holes {
        if let Some(start) = self.open.take() {
            self.close(info, start..usize::try_from(info.bytes).unwrap_or(start));
        }
        self
    }
}

/// The rows of one tensor whose weights are all zero.
#[derive(Default)]
struct ZeroRows {
    count: u64,
    /// Index of the first one.
    first: u64,
    /// Whether the row that the last chunk ended in has weights in it.
    has_weights: bool,
}

impl ZeroRows {
    /// Takes the chunk of whole blocks that starts at byte `offset` of a tensor. A layout without rows has none.
    fn take(&mut self, info: &TensorInfo, offset: usize, chunk: &[u8]) {
        let Ok(row) = info.ty.row_bytes(info.cols()) else { return };
        let mut at = 0;
        while at < chunk.len() {
            let end = chunk.len().min(at + row - (offset + at) % row);
            self.has_weights = self.has_weights || !is_zero(info.ty, &chunk[at..end]);
            let ends_row = (offset + end).is_multiple_of(row);
            if ends_row && !std::mem::take(&mut self.has_weights) {
                if self.count == 0 {
                    self.first = ((offset + end) / row - 1) as u64;
                }
                self.count += 1;
            }
            at = end;
        }
    }
}

/// The number of zero bytes at the start of `bytes`.
fn leading_zeros(bytes: &[u8]) -> usize {
    let whole: usize = bytes.chunks(4096).take_while(|run| is_zeroed(run)).map(<[u8]>::len).sum();
    whole + bytes[whole..].iter().take_while(|&&b| b == 0).count()
}
