//! Numbers to little-endian bytes and back. Lengths were checked before: a remainder is ignored, never read past.

use half::f16;

/// Rounds to F16; what is too large becomes the largest.
pub(super) fn round_f16(x: f32) -> f16 {
    f16::from_f32(x.clamp(-f16::MAX.to_f32(), f16::MAX.to_f32()))
}

pub(super) fn write_f16(values: &[f32], out: &mut Vec<u8>) {
    out.extend(values.iter().flat_map(|&x| round_f16(x).to_le_bytes()));
}

pub(super) fn write_f32(values: &[f32], out: &mut Vec<u8>) {
    out.extend(values.iter().flat_map(|x| x.to_le_bytes()));
}

pub(super) fn write_u32(values: &[u32], out: &mut Vec<u8>) {
    out.extend(values.iter().flat_map(|x| x.to_le_bytes()));
}

/// Writes ids below 65,536.
pub(super) fn write_u16(values: &[u32], out: &mut Vec<u8>) {
    out.extend(values.iter().flat_map(|&x| u16::try_from(x).unwrap_or(u16::MAX).to_le_bytes()));
}

pub(super) fn read_f16(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|&b| f16::from_le_bytes(b).to_f32()).collect()
}

pub(super) fn read_f32(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect()
}

pub(super) fn read_u32(bytes: &[u8]) -> Vec<u32> {
    bytes.as_chunks().0.iter().map(|&b| u32::from_le_bytes(b)).collect()
}

pub(super) fn read_u16(bytes: &[u8]) -> Vec<u32> {
    bytes.as_chunks().0.iter().map(|&b| u32::from(u16::from_le_bytes(b))).collect()
}
