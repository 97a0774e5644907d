//! The 256-weight block packings of the file formats, as codes `c = w + 1` and an f16 scale.
//!
//! | packing | bytes | weights per byte | bits per weight |
//! |---|---|---|---|
//! | [`Tq2_0`](Packing::Tq2_0) | 66 | 4 | 2.0625 |
//! | [`Tq1_0`](Packing::Tq1_0) | 54 | 5 | 1.6875 |
//! | [`BitnetT158`](Packing::BitnetT158) | 66 | 4 | 2.0625 |
//!
//! **Invariant**: the last two bytes of a block are its scale, little-endian. Decoding is strict:
//! code 3 and a NaN or infinite scale are errors.
//!
//! ```
//! use ternary_core::{Packing, f16};
//!
//! let mut trits = [0; 256];
//! trits[7] = -1;
//! let mut packed = [0; 54];
//! Packing::Tq1_0.encode(&trits, f16::from_f32(0.25), &mut packed);
//!
//! let mut back = [0; 256];
//! assert_eq!(Packing::Tq1_0.decode(&packed, &mut back)?, f16::from_f32(0.25));
//! assert_eq!(back, trits);
//! # Ok::<(), ternary_core::Error>(())
//! ```

mod bitnet_t158;
mod tq1_0;
mod tq2_0;

use half::f16;

use crate::{BLOCK, Error, Result, trit};

/// Bytes of the f16 scale at the end of a block.
const SCALE_BYTES: usize = 2;

/// A layout of 256 ternary weights and their scale in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Packing {
    /// GGML type 35: four codes per byte, of weights that lie 32 apart.
    Tq2_0,
    /// GGML type 34: five codes per byte, base 3.
    Tq1_0,
    /// `BITNET_T158`: four neighbouring codes per byte.
    BitnetT158,
}

impl Packing {
    /// Every packing of this crate.
    pub const ALL: [Self; 3] = [Self::Tq2_0, Self::Tq1_0, Self::BitnetT158];

    /// The type's name in files and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tq2_0 => "TQ2_0",
            Self::Tq1_0 => "TQ1_0",
            Self::BitnetT158 => "BITNET_T158",
        }
    }

    /// Bytes of one block, its scale included.
    #[must_use]
    pub const fn block_bytes(self) -> usize {
        SCALE_BYTES
            + match self {
                Self::Tq2_0 => tq2_0::CODE_BYTES,
                Self::Tq1_0 => tq1_0::CODE_BYTES,
                Self::BitnetT158 => bitnet_t158::CODE_BYTES,
            }
    }

    /// Bytes of a row of `cols` weights.
    ///
    /// # Errors
    /// [`Error::NotBlocks`] where `cols` is 0 or no multiple of 256.
    pub fn row_bytes(self, cols: usize) -> Result<usize> {
        if cols == 0 || !cols.is_multiple_of(BLOCK) {
            return Err(Error::NotBlocks { weights: cols, block: BLOCK });
        }
        // A block is shorter than its 256 weights, so this cannot overflow.
        Ok(cols / BLOCK * self.block_bytes())
    }

    /// Reads one block: the trits into `trits`, the scale as the result.
    ///
    /// # Errors
    /// [`Error::Span`] where `block` is not [`block_bytes`](Self::block_bytes) long;
    /// [`Error::InvalidCode`] and [`Error::BadScale`], both with block 0.
    pub fn decode(self, block: &[u8], trits: &mut [i8; BLOCK]) -> Result<f16> {
        let (codes, scale) = self.parts(block)?;
        match self {
            Self::Tq2_0 => tq2_0::decode(as_array(codes), trits),
            Self::Tq1_0 => tq1_0::decode(as_array(codes), trits),
            Self::BitnetT158 => bitnet_t158::decode(as_array(codes), trits),
        }
        if let Some(weight) = trit::first_invalid(trits) {
            return Err(Error::InvalidCode { block: 0, weight });
        }
        if !scale.is_finite() {
            return Err(Error::BadScale { block: 0, scale: scale.to_f32() });
        }
        Ok(scale)
    }

    /// Whether [`decode`](Self::decode) would accept every one of `blocks`. Codes and scales are tested without being
    /// unpacked, so that a check of weights costs little more than reading them.
    ///
    /// # Panics
    /// If `blocks` is not a whole number of blocks.
    #[must_use]
    pub fn is_valid(self, blocks: &[u8]) -> bool {
        match self {
            Self::Tq2_0 | Self::BitnetT158 => are_valid::<{ 64 + SCALE_BYTES }>(blocks, has_code_three),
            // Every byte decodes to five valid codes.
            Self::Tq1_0 => are_valid::<{ tq1_0::CODE_BYTES + SCALE_BYTES }>(blocks, |_| false),
        }
    }

    /// Writes one block to `out`.
    ///
    /// # Panics
    /// If a trit is not -1, 0 or +1, or `out` is not [`block_bytes`](Self::block_bytes) long.
    pub fn encode(self, trits: &[i8; BLOCK], scale: f16, out: &mut [u8]) {
        trit::assert_ternary(trits);
        assert_eq!(out.len(), self.block_bytes(), "bytes of one {} block", self.name());
        let (codes, scale_out) = out.split_at_mut(out.len() - SCALE_BYTES);
        match self {
            Self::Tq2_0 => tq2_0::encode(trits, as_array_mut(codes)),
            Self::Tq1_0 => tq1_0::encode(trits, as_array_mut(codes)),
            Self::BitnetT158 => bitnet_t158::encode(trits, as_array_mut(codes)),
        }
        scale_out.copy_from_slice(&scale.to_le_bytes());
    }

    /// Splits a block into its codes and its scale.
    fn parts(self, block: &[u8]) -> Result<(&[u8], f16)> {
        let span = Error::Span { expected_bytes: self.block_bytes(), got_bytes: block.len() };
        match block.split_last_chunk::<SCALE_BYTES>() {
            Some((codes, &scale)) if block.len() == self.block_bytes() => Ok((codes, f16::from_le_bytes(scale))),
            _ => Err(span),
        }
    }
}

/// Whether all blocks of `N` bytes have codes that are not `invalid`, and finite scales.
fn are_valid<const N: usize>(blocks: &[u8], invalid: impl Fn(&[u8; N]) -> bool) -> bool {
    /// The exponent of an f16; all ones in infinities and NaN.
    const EXPONENT: u16 = 0x7c00;
    let (blocks, rest) = blocks.as_chunks::<N>();
    assert!(rest.is_empty(), "blocks of {N} bytes and {} more", rest.len());
    // The loop over a run has no early exit, so a valid block takes a few vector instructions.
    blocks.chunks(64).all(|run| {
        let mut sound = true;
        for block in run {
            let scale = u16::from_le_bytes([block[N - 2], block[N - 1]]);
            sound &= !invalid(block) & (scale & EXPONENT != EXPONENT);
        }
        sound
    })
}

/// Whether one of 256 two-bit codes has both bits set.
#[inline(always)]
fn has_code_three(block: &[u8; 64 + SCALE_BYTES]) -> bool {
    let mut both = 0;
    for word in block.as_chunks::<8>().0 {
        let word = u64::from_le_bytes(*word);
        both |= word & (word >> 1) & 0x5555_5555_5555_5555;
    }
    both != 0
}

/// The codes of a block whose length has been checked.
fn as_array<const N: usize>(codes: &[u8]) -> &[u8; N] {
    codes.try_into().expect("the block length was checked")
}

/// The codes of a block whose length has been checked.
fn as_array_mut<const N: usize>(codes: &mut [u8]) -> &mut [u8; N] {
    codes.try_into().expect("the block length was checked")
}
