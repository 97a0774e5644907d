//! Finding invalid codes, scales and weights in the bytes of a tensor, without decoding them.
//!
//! ```text
//! 2-bit code 3 in a byte:   b & b >> 1 & 0b01010101 != 0
//! NaN or infinite F16:      all bits of the exponent are set
//! ```

use rayon::prelude::*;

use super::defect::DefectKind;
use crate::error::Result;
use crate::formats::{Extent, FloatBits, Format, Invalid, dequantize};
use crate::source::TensorInfo;

/// Blocks that one task scans.
pub(super) const TASK_BLOCKS: usize = 16 << 10;

/// The count of one kind of defect, and the place of the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) count: u64,
    /// Index in the tensor of the weight, or of the first weight of its block.
    pub(super) first_element: u64,
}

/// One finding per kind of defect, in the order of [`KINDS`].
type Findings = [Option<Finding>; 5];

const KINDS: [DefectKind; 5] = [
    DefectKind::InvalidCode,
    DefectKind::ScaleNotFinite,
    DefectKind::NaN,
    DefectKind::Infinite,
    DefectKind::ScaleNotPositive,
];

/// Scans a chunk of whole blocks that starts at byte `offset` of its tensor.
pub(super) fn chunk(info: &TensorInfo, offset: usize, chunk: &[u8]) -> Vec<(DefectKind, Finding)> {
    if let Extent::HeadedRows { .. } = info.ty.format().extent() {
        return found(row_scales(info, offset, chunk));
    }
    let block_bytes = info.ty.block_bytes();
    let findings = chunk
        .par_chunks(TASK_BLOCKS * block_bytes)
        .enumerate()
        .map(|(i, task)| {
            let first_block = offset / block_bytes + i * TASK_BLOCKS;
            let mut findings = Findings::default();
            if !is_suspect(info.ty.format(), task) {
                return findings;
            }
            for (b, block) in task.chunks(block_bytes).enumerate() {
                scan_block(info, first_block + b, block, &mut findings);
            }
            findings
        })
        .reduce(Findings::default, merge);
    found(findings)
}

/// As [`chunk`], for a tensor whose numbers are the scales of another one.
pub(super) fn scales(info: &TensorInfo, offset: usize, chunk: &[u8]) -> Result<Vec<(DefectKind, Finding)>> {
    let (width, mut findings) = (info.ty.block_bytes(), Findings::default());
    let mut values = vec![0.0; chunk.len() / width];
    dequantize(info.ty, chunk, &mut values)?;
    for (at, scale) in values.into_iter().enumerate() {
        let element = (offset / width + at) as u64;
        if !scale.is_finite() {
            note(&mut findings, DefectKind::ScaleNotFinite, 1, element);
        } else if scale <= 0.0 {
            note(&mut findings, DefectKind::ScaleNotPositive, 1, element);
        }
    }
    Ok(found(findings))
}

fn found(findings: Findings) -> Vec<(DefectKind, Finding)> {
    KINDS.into_iter().zip(findings).filter_map(|(kind, finding)| Some((kind, finding?))).collect()
}

/// How many codes, scales or weights a tensor has of which some may have the defect `kind`.
pub(super) fn total(info: &TensorInfo, kind: DefectKind) -> u64 {
    let blocks = info.bytes / info.ty.block_bytes() as u64;
    match (kind, info.ty.format().invalid()) {
        (DefectKind::ScaleNotFinite, Invalid::Block { scales, .. }) => (blocks * scales.len() as u64).max(1),
        (DefectKind::ScaleNotFinite, Invalid::Scale(_)) => blocks,
        (DefectKind::ScaleNotFinite, Invalid::RowScale) => info.rows() as u64,
        _ => info.elements() as u64,
    }
}

fn merge(a: Findings, b: Findings) -> Findings {
    std::array::from_fn(|i| match (a[i], b[i]) {
        (Some(a), Some(b)) => {
            Some(Finding { count: a.count + b.count, first_element: a.first_element.min(b.first_element) })
        }
        (a, b) => a.or(b),
    })
}

fn note(findings: &mut Findings, kind: DefectKind, count: u64, first_element: u64) {
    let slot = &mut findings[kind as usize];
    let before = slot.unwrap_or(Finding { count: 0, first_element });
    *slot = Some(Finding { count: before.count + count, first_element: before.first_element.min(first_element) });
}

/// Scans block `index` of a tensor.
fn scan_block(info: &TensorInfo, index: usize, block: &[u8], findings: &mut Findings) {
    let format = info.ty.format();
    let element = index as u64 * info.ty.block_len() as u64;
    let left = (info.elements() as u64).saturating_sub(element);
    match format.invalid() {
        // Rows with heads have a scan of their own.
        Invalid::Never | Invalid::RowScale => {}
        Invalid::Float(bits) => {
            if let Some(kind) = float_defect(bits, block) {
                note(findings, kind, 1, element);
            }
        }
        Invalid::Scale(scale) => {
            if !scale(block).is_finite() {
                note(findings, DefectKind::ScaleNotFinite, 1, element);
            }
        }
        Invalid::Block { scales, codes } => {
            if let Extent::Tensor { tail_bytes } = format.extent()
                && left == 0
            {
                // The first run of the tail starts with the scale of the whole tensor.
                let is_first = index as u64 * info.ty.block_bytes() as u64 == info.bytes - tail_bytes;
                let scale = block.first_chunk().map_or(f32::NAN, |&b| f32::from_le_bytes(b));
                if is_first && !scale.is_finite() {
                    note(findings, DefectKind::ScaleNotFinite, 1, 0);
                }
                return;
            }
            for &at in scales {
                if block.get(at..at + 2).is_some_and(|b| b[1] & 0x7c == 0x7c) {
                    note(findings, DefectKind::ScaleNotFinite, 1, element);
                }
            }
            let invalid = match format.extent() {
                Extent::PaddedTensor => invalid_codes_of(block, left),
                Extent::Rows | Extent::HeadedRows { .. } | Extent::Tensor { .. } | Extent::Planes => {
                    invalid_codes(&block[..codes])
                }
            };
            if invalid > 0 {
                let first =
                    if format.extent() == Extent::Planes { first_of_planes(info, index, block) } else { element };
                note(findings, DefectKind::InvalidCode, invalid, first);
            }
        }
    }
}

/// Scans the scales at the heads of rows. A chunk holds each of them whole, as it starts and ends with a block.
fn row_scales(info: &TensorInfo, offset: usize, chunk: &[u8]) -> Findings {
    let mut findings = Findings::default();
    let row_bytes = info.ty.row_bytes(info.cols()).map_or(usize::MAX, |bytes| bytes.max(1));
    for row in offset.div_ceil(row_bytes).. {
        let head = row.checked_mul(row_bytes).and_then(|at| chunk.get(at - offset..)).and_then(|row| row.first_chunk());
        let Some(&head) = head else { break };
        if !f32::from_le_bytes(head).is_finite() {
            note(&mut findings, DefectKind::ScaleNotFinite, 1, (row * info.cols()) as u64);
        }
    }
    findings
}

/// The first weight with code 3 in byte `index` of a tensor in planes, which has one.
fn first_of_planes(info: &TensorInfo, index: usize, byte: &[u8]) -> u64 {
    let plane = (0..4).find(|plane| byte[0] >> (2 * plane) & 3 == 3).unwrap_or(0);
    plane * info.bytes + index as u64
}

/// Number of codes 3 in bytes of four codes each.
fn invalid_codes(bytes: &[u8]) -> u64 {
    let threes = |b: u8| b & b >> 1 & 0x55;
    // Most chunks hold no code 3; this test of all bytes is vector code and answers for them.
    if bytes.iter().fold(0, |any, &b| any | threes(b)) == 0 {
        return 0;
    }
    bytes.iter().map(|&b| u64::from(threes(b).count_ones())).sum()
}

/// As [`invalid_codes`], for a block of which only the first `left` codes count.
fn invalid_codes_of(block: &[u8], left: u64) -> u64 {
    let used = left.min(256) as usize;
    (0..used).filter(|i| block[i / 4] >> (2 * (i % 4)) & 3 == 3).count() as u64
}

/// Whether a run of bytes must be scanned block by block. For floating-point types of up to 32 bits vector code looks
/// for a number that is not finite; for the other formats the answer is always yes.
fn is_suspect(format: &dyn Format, bytes: &[u8]) -> bool {
    match format.invalid() {
        Invalid::Never | Invalid::RowScale => false,
        Invalid::Float(bits) => {
            let set = bits.not_finite();
            match format.layout().block_bytes {
                1 => any(bytes, |[b]| b & set as u8 == set as u8),
                2 => any(bytes, |b| u16::from_le_bytes(b) & set as u16 == set as u16),
                4 => any(bytes, |b| u32::from_le_bytes(b) & set as u32 == set as u32),
                _ => true,
            }
        }
        Invalid::Block { .. } | Invalid::Scale(_) => true,
    }
}

/// Whether a number of `N` bytes satisfies the test; looks at all of them.
fn any<const N: usize>(bytes: &[u8], test: impl Fn([u8; N]) -> bool) -> bool {
    bytes.as_chunks().0.iter().fold(false, |found, &b| found | test(b))
}

/// The defect of a stored floating-point number, if it has one.
fn float_defect(bits: FloatBits, bytes: &[u8]) -> Option<DefectKind> {
    let number = bytes.iter().rev().fold(0u64, |n, &b| n << 8 | u64::from(b));
    match number & bits.magnitude() {
        m if m & bits.not_finite() != bits.not_finite() => None,
        m if bits.infinities && m == bits.not_finite() => Some(DefectKind::Infinite),
        _ => Some(DefectKind::NaN),
    }
}
