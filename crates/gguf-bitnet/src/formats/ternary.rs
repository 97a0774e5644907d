//! TQ1_0, TQ2_0 and BITNET_T158: blocks of 256 trits with an F16 scale behind them, coded by `ternary-core`.

use ternary_core::{BLOCK, Error, Packing, TernaryBlock, f16};

use super::format::{Encoder, Encoding, Extent, Format, Invalid, Layout};
use super::trit_coder::{ScaleKind, TritCoder, TritGroup};

/// Ternary blocks of one packing, row by row.
pub(super) struct Ternary {
    id: u32,
    packing: Packing,
    /// Bytes of two-bit codes at the start of a block; 0 for a packing whose codes are not two bits wide.
    two_bit_codes: usize,
    /// Byte offset of the scale in a block, as a list of one.
    scale: &'static [usize],
}

pub(super) const TQ1_0: Ternary = Ternary { id: 34, packing: Packing::Tq1_0, two_bit_codes: 0, scale: &[52] };
pub(super) const TQ2_0: Ternary = Ternary { id: 35, packing: Packing::Tq2_0, two_bit_codes: 64, scale: &[64] };
pub(super) const BITNET_T158: Ternary =
    Ternary { id: 158, packing: Packing::BitnetT158, two_bit_codes: 64, scale: &[64] };

impl Format for Ternary {
    fn layout(&self) -> Layout {
        let packing = self.packing;
        Layout { id: Some(self.id), name: packing.name(), block_len: BLOCK, block_bytes: packing.block_bytes() }
    }

    fn is_ternary(&self) -> bool {
        true
    }

    fn packing(&self) -> Option<Packing> {
        Some(self.packing)
    }

    fn trits(&self) -> Option<&dyn TritCoder> {
        Some(self)
    }

    fn invalid(&self) -> Invalid {
        Invalid::Block { scales: self.scale, codes: self.two_bit_codes }
    }

    fn decode(&self, bytes: &[u8], out: &mut [f32]) -> Result<(), Error> {
        let mut block = TernaryBlock { trits: [0; BLOCK], scale: 0.0 };
        let blocks = bytes.chunks_exact(self.packing.block_bytes());
        for (i, (out, bytes)) in out.as_chunks_mut().0.iter_mut().zip(blocks).enumerate() {
            block.scale = self.packing.decode(bytes, &mut block.trits).map_err(|e| e.offset_block(i))?.to_f32();
            block.dequantize(out);
        }
        Ok(())
    }

    fn encoder(&self) -> Option<&dyn Encoder> {
        Some(self)
    }
}

impl Encoder for Ternary {
    fn encode(&self, row: &[f32], encoding: Encoding<'_>, out: &mut [u8]) -> Result<(), Error> {
        ternary_core::quantize_row(self.packing, encoding.rounding, row, encoding.importance, out)
    }
}

impl TritCoder for Ternary {
    fn group(&self) -> TritGroup {
        TritGroup::Block(BLOCK)
    }

    fn scale_kind(&self) -> ScaleKind {
        ScaleKind::F16
    }

    fn read(&self, bytes: &[u8], _cols: usize, trits: &mut [i8], scales: &mut [f32]) -> Result<(), Error> {
        let blocks = trits.as_chunks_mut().0.iter_mut().zip(bytes.chunks_exact(self.packing.block_bytes()));
        for (b, ((trits, bytes), scale)) in blocks.zip(scales).enumerate() {
            *scale = self.packing.decode(bytes, trits).map_err(|e| e.offset_block(b))?.to_f32();
        }
        Ok(())
    }

    fn write(&self, trits: &[i8], _cols: usize, scales: &[f32], out: &mut [u8]) -> Result<(), Error> {
        let blocks = trits.as_chunks().0.iter().zip(out.chunks_exact_mut(self.packing.block_bytes()));
        for ((trits, out), &scale) in blocks.zip(scales) {
            self.packing.encode(trits, f16::from_f32(scale), out);
        }
        Ok(())
    }
}

/// BITNET_T158 blocks over the flattened tensor, the last one padded.
pub(super) struct BitnetT158Flat;

impl Format for BitnetT158Flat {
    fn layout(&self) -> Layout {
        Layout { name: "BITNET_T158_FLAT", ..BITNET_T158.layout() }
    }

    fn extent(&self) -> Extent {
        Extent::PaddedTensor
    }

    fn is_ternary(&self) -> bool {
        true
    }

    fn invalid(&self) -> Invalid {
        BITNET_T158.invalid()
    }

    fn decode(&self, bytes: &[u8], out: &mut [f32]) -> Result<(), Error> {
        let packing = Packing::BitnetT158;
        let (whole, rest) = out.as_chunks_mut::<BLOCK>();
        let (head, tail) = bytes.split_at(whole.len() * packing.block_bytes());
        BITNET_T158.decode(head, whole.as_flattened_mut())?;
        if !rest.is_empty() {
            // Padding codes may be invalid, so zero trits replace them before the block is decoded.
            let mut padded: Vec<u8> = tail.to_vec();
            for i in rest.len()..BLOCK {
                let (byte, shift) = (i / 4, 2 * (i % 4));
                padded[byte] = padded[byte] & !(3 << shift) | 1 << shift;
            }
            let mut block = TernaryBlock { trits: [0; BLOCK], scale: 0.0 };
            let scale = packing.decode(&padded, &mut block.trits).map_err(|e| e.offset_block(whole.len()))?;
            for (out, trit) in rest.iter_mut().zip(block.trits) {
                *out = f32::from(trit) * scale.to_f32();
            }
        }
        Ok(())
    }
}
