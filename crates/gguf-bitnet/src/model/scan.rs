//! Finding invalid codes, scales and weights in the bytes of a tensor, without decoding them.
//!
//! ```text
//! 2-bit code 3 in a byte:   b & b >> 1 & 0b01010101 != 0
//! NaN or infinite F16:      all bits of the exponent are set
//! ```

use rayon::prelude::*;

use super::verify::DefectKind;
use crate::formats::{I2S_TAIL_BYTES, TensorType};
use crate::source::TensorInfo;

/// Blocks that one task scans.
const TASK_BLOCKS: usize = 16 << 10;

/// How often a defect was found, and where first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) count: u64,
    /// Index in the tensor of the weight, or of the first weight of its block.
    pub(super) first_element: u64,
}

/// What was found of each kind, in the order of [`KINDS`].
type Findings = [Option<Finding>; 4];

const KINDS: [DefectKind; 4] =
    [DefectKind::InvalidCode, DefectKind::ScaleNotFinite, DefectKind::NaN, DefectKind::Infinite];

/// Scans a chunk of whole blocks that starts at byte `offset` of its tensor.
pub(super) fn chunk(info: &TensorInfo, offset: usize, chunk: &[u8]) -> Vec<(DefectKind, Finding)> {
    let block_bytes = info.ty.block_bytes();
    let findings = chunk
        .par_chunks(TASK_BLOCKS * block_bytes)
        .enumerate()
        .map(|(i, task)| {
            let first_block = offset / block_bytes + i * TASK_BLOCKS;
            let mut findings = Findings::default();
            if !is_suspect(info.ty, task) {
                return findings;
            }
            for (b, block) in task.chunks(block_bytes).enumerate() {
                scan_block(info, first_block + b, block, &mut findings);
            }
            findings
        })
        .reduce(Findings::default, merge);
    KINDS.into_iter().zip(findings).filter_map(|(kind, finding)| Some((kind, finding?))).collect()
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
    *slot = merge([*slot, None, None, None], [Some(Finding { count, first_element }), None, None, None])[0];
}

/// Scans block `index` of a tensor.
fn scan_block(info: &TensorInfo, index: usize, block: &[u8], findings: &mut Findings) {
    let ty = info.ty;
    let element = index as u64 * ty.block_len() as u64;
    match ty {
        TensorType::F32 | TensorType::F16 | TensorType::Bf16 | TensorType::F64 => {
            if let Some(kind) = float_defect(ty, block) {
                note(findings, kind, 1, element);
            }
        }
        TensorType::I2s | TensorType::I2sArm => {
            let elements = info.elements() as u64;
            if element < elements {
                let invalid = invalid_codes(block);
                if invalid > 0 {
                    note(findings, DefectKind::InvalidCode, invalid, element);
                }
            } else if index as u64 * ty.block_bytes() as u64 == info.bytes - I2S_TAIL_BYTES {
                // The first block of the tail starts with the scale of the whole tensor.
                let scale = block.first_chunk().map_or(f32::NAN, |&b| f32::from_le_bytes(b));
                if !scale.is_finite() {
                    note(findings, DefectKind::ScaleNotFinite, 1, 0);
                }
            }
        }
        _ => {
            for &at in scale_offsets(ty) {
                if block.get(at..at + 2).is_some_and(|b| b[1] & 0x7c == 0x7c) {
                    note(findings, DefectKind::ScaleNotFinite, 1, element);
                }
            }
            let invalid = match ty {
                TensorType::Tq2_0 | TensorType::BitnetT158 => invalid_codes(&block[..64]),
                TensorType::BitnetT158Flat => flat_invalid_codes(info, element, block),
                _ => 0,
            };
            if invalid > 0 {
                note(findings, DefectKind::InvalidCode, invalid, element);
            }
        }
    }
}

/// How many of the codes, four to a byte, are 3.
fn invalid_codes(bytes: &[u8]) -> u64 {
    let threes = |b: u8| b & b >> 1 & 0x55;
    // Vector code for the usual answer, none.
    if bytes.iter().fold(0, |any, &b| any | threes(b)) == 0 {
        return 0;
    }
    bytes.iter().map(|&b| u64::from(threes(b).count_ones())).sum()
}

/// As above for a block whose codes may end before it does.
fn flat_invalid_codes(info: &TensorInfo, element: u64, block: &[u8]) -> u64 {
    let used = (info.elements() as u64).saturating_sub(element).min(256);
    (0..used as usize).filter(|i| block[i / 4] >> (2 * (i % 4)) & 3 == 3).count() as u64
}

/// Where the F16 scales and minima of a block lie.
fn scale_offsets(ty: TensorType) -> &'static [usize] {
    match ty {
        TensorType::Q4_0 | TensorType::Q5_0 | TensorType::Q8_0 | TensorType::Iq1S => &[0],
        TensorType::Q4_1 | TensorType::Q5_1 | TensorType::Q4K | TensorType::Q5K => &[0, 2],
        TensorType::Q2K => &[80, 82],
        TensorType::Q3K => &[108],
        TensorType::Q6K => &[208],
        TensorType::Tq1_0 => &[52],
        TensorType::Tq2_0 | TensorType::BitnetT158 | TensorType::BitnetT158Flat => &[64],
        _ => &[],
    }
}

/// Whether anything in a run of bytes needs a look: for floating-point types whether an exponent
/// has all bits set, found by vector code; for the others always.
fn is_suspect(ty: TensorType, bytes: &[u8]) -> bool {
    match ty {
        TensorType::F32 => any(bytes, |b| u32::from_le_bytes(b) & 0x7f80_0000 == 0x7f80_0000),
        TensorType::F16 => any(bytes, |b| u16::from_le_bytes(b) & 0x7c00 == 0x7c00),
        TensorType::Bf16 => any(bytes, |b| u16::from_le_bytes(b) & 0x7f80 == 0x7f80),
        TensorType::I8 | TensorType::I16 | TensorType::I32 | TensorType::I64 => false,
        _ => true,
    }
}

/// Whether a number of `N` bytes satisfies the test; looks at all of them.
fn any<const N: usize>(bytes: &[u8], test: impl Fn([u8; N]) -> bool) -> bool {
    bytes.as_chunks().0.iter().fold(false, |found, &b| found | test(b))
}

/// What is wrong with a stored floating-point number.
fn float_defect(ty: TensorType, bytes: &[u8]) -> Option<DefectKind> {
    let wide = |bytes: &[u8]| bytes.iter().rev().fold(0u64, |n, &b| n << 8 | u64::from(b));
    // Bits of the mantissa, bits of the exponent.
    let (mantissa, exponent) = match ty {
        TensorType::F16 => (10, 5),
        TensorType::Bf16 => (7, 8),
        TensorType::F32 => (23, 8),
        _ => (52, 11),
    };
    let infinity = ((1u64 << exponent) - 1) << mantissa;
    let magnitude = wide(bytes) & ((1 << (mantissa + exponent)) - 1);
    match magnitude {
        m if m < infinity => None,
        m if m == infinity => Some(DefectKind::Infinite),
        _ => Some(DefectKind::NaN),
    }
}
