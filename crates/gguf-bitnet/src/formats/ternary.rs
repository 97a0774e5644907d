//! Ternary types, decoded by `ternary-core`.

use ternary_core::{BLOCK, I2sLayout, Packing, TernaryBlock};

use crate::error::Result;
use crate::formats::TensorType;

/// As [`dequantize`](crate::dequantize), whose checks of the lengths have been made.
pub(super) fn dequantize(ty: TensorType, bytes: &[u8], out: &mut [f32]) -> Result<()> {
    let packing = match ty {
        TensorType::Tq1_0 => Packing::Tq1_0,
        TensorType::I2s => return whole_tensor(I2sLayout::X86, bytes, out),
        TensorType::I2sArm => return whole_tensor(I2sLayout::Arm, bytes, out),
        TensorType::BitnetT158 => Packing::BitnetT158,
        TensorType::BitnetT158Flat => return flat(bytes, out),
        _ => Packing::Tq2_0,
    };
    let mut block = TernaryBlock { trits: [0; BLOCK], scale: 0.0 };
    let blocks = bytes.chunks_exact(packing.block_bytes());
    for (i, (out, bytes)) in out.as_chunks_mut().0.iter_mut().zip(blocks).enumerate() {
        block.scale = packing.decode(bytes, &mut block.trits).map_err(|e| e.offset_block(i))?.to_f32();
        block.dequantize(out);
    }
    Ok(())
}

fn whole_tensor(layout: I2sLayout, bytes: &[u8], out: &mut [f32]) -> Result<()> {
    let (trits, scale) = layout.decode(bytes, out.len())?;
    for (out, trit) in out.iter_mut().zip(trits) {
        *out = f32::from(trit) * scale;
    }
    Ok(())
}

/// BITNET_T158 blocks whose last one may be padded.
fn flat(bytes: &[u8], out: &mut [f32]) -> Result<()> {
    let packing = Packing::BitnetT158;
    let (whole, rest) = out.as_chunks_mut::<BLOCK>();
    let (head, tail) = bytes.split_at(whole.len() * packing.block_bytes());
    dequantize(TensorType::BitnetT158, head, whole.as_flattened_mut())?;
    if !rest.is_empty() {
        // Padding codes mean nothing; zero trits in their place are always valid.
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
