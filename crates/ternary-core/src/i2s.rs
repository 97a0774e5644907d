//! I2_S of bitnet.cpp: 2-bit codes of a whole tensor, then one f32 scale in a 32-byte tail.
//!
//! ```text
//! x86: groups of 128 weights in 32 bytes      ARM: groups of 64 weights in 16 bytes
//! byte p:  bit 7 6    5 4    3 2    1 0
//!          g = 0      1      2      3         weight  W g + p of the group, W = 32 or 16
//!
//! groups over the flattened tensor | scale: f32, little-endian | 28 bytes unused
//! ```
//!
//! Nothing in the data tells the two layouts apart; x86 is the published one.
//!
//! ```
//! use ternary_core::I2sLayout;
//!
//! let trits: Vec<i8> = (0..256).map(|i| (i % 3) as i8 - 1).collect();
//! let packed = I2sLayout::X86.encode(&trits, 0.5)?;
//! assert_eq!(packed.len(), 256 / 4 + 32);
//! assert_eq!(I2sLayout::X86.decode(&packed, 256)?, (trits, 0.5));
//! # Ok::<(), ternary_core::Error>(())
//! ```

use alloc::vec;
use alloc::vec::Vec;

use crate::trit::{assert_ternary, first_invalid, from_code, to_code};
use crate::{Error, Result};

/// Bytes after the packed codes; the first four are the scale.
const TAIL_BYTES: usize = 32;

/// The two incompatible layouts of I2_S codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum I2sLayout {
    /// Groups of 128 weights in 32 bytes: the layout of the published files.
    X86,
    /// Groups of 64 weights in 16 bytes.
    Arm,
}

impl I2sLayout {
    /// The two layouts, the published one first.
    pub const ALL: [Self; 2] = [Self::X86, Self::Arm];

    /// Weights per group: a tensor has a whole number of groups.
    #[must_use]
    pub const fn group(self) -> usize {
        4 * self.group_bytes()
    }

    /// Bytes of a tensor of `n` weights, the tail included.
    ///
    /// # Errors
    /// [`Error::NotBlocks`] where `n` is no multiple of [`group`](Self::group).
    pub fn tensor_bytes(self, n: usize) -> Result<usize> {
        if !n.is_multiple_of(self.group()) {
            return Err(Error::NotBlocks { weights: n, block: self.group() });
        }
        Ok(n / 4 + TAIL_BYTES)
    }

    /// Reads the `n` trits of a tensor and its scale.
    ///
    /// # Errors
    /// [`Error::NotBlocks`] and [`Error::Span`] where `n` and the length do not fit each other;
    /// [`Error::InvalidCode`] with the group as block; [`Error::BadScale`] with block 0.
    pub fn decode(self, bytes: &[u8], n: usize) -> Result<(Vec<i8>, f32)> {
        let expected_bytes = self.tensor_bytes(n)?;
        let span = Error::Span { expected_bytes, got_bytes: bytes.len() };
        if bytes.len() != expected_bytes {
            return Err(span);
        }
        let (codes, tail) = bytes.split_at(n / 4);
        let scale = f32::from_le_bytes(*tail.first_chunk().ok_or(span)?);
        if !scale.is_finite() {
            return Err(Error::BadScale { block: 0, scale });
        }
        let width = self.group_bytes();
        let mut trits = vec![0; n];
        for (block, (bytes, weights)) in codes.chunks_exact(width).zip(trits.chunks_exact_mut(4 * width)).enumerate() {
            for (g, plane) in weights.chunks_exact_mut(width).enumerate() {
                for (weight, byte) in plane.iter_mut().zip(bytes) {
                    *weight = from_code(byte >> (6 - 2 * g));
                }
            }
            if let Some(weight) = first_invalid(weights) {
                return Err(Error::InvalidCode { block, weight });
            }
        }
        Ok((trits, scale))
    }

    /// Packs the trits of a tensor and its scale.
    ///
    /// # Errors
    /// [`Error::NotBlocks`] where the trits are no whole number of groups.
    ///
    /// # Panics
    /// If a trit is not -1, 0 or +1.
    pub fn encode(self, trits: &[i8], scale: f32) -> Result<Vec<u8>> {
        assert_ternary(trits);
        let mut out = vec![0; self.tensor_bytes(trits.len())?];
        let (codes, tail) = out.split_at_mut(trits.len() / 4);
        let width = self.group_bytes();
        for (bytes, weights) in codes.chunks_exact_mut(width).zip(trits.chunks_exact(4 * width)) {
            for (g, plane) in weights.chunks_exact(width).enumerate() {
                for (byte, &weight) in bytes.iter_mut().zip(plane) {
                    *byte |= to_code(weight) << (6 - 2 * g);
                }
            }
        }
        tail[..4].copy_from_slice(&scale.to_le_bytes());
        Ok(out)
    }

    /// Bytes per group, which is also the distance between the weights of one byte.
    const fn group_bytes(self) -> usize {
        match self {
            Self::X86 => 32,
            Self::Arm => 16,
        }
    }
}
