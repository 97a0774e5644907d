//! I2_S of bitnet.cpp: groups of two-bit codes over the whole tensor, then its F32 scale, coded by `ternary-core`.

use ternary_core::{Error, I2sLayout};

use super::format::{Extent, Format, Invalid, Layout};
use super::trit_coder::{ScaleKind, TritCoder, TritGroup};

/// Bytes after the packed codes of an I2_S tensor; the first four are its F32 scale.
pub(crate) const I2S_TAIL_BYTES: u64 = 32;

/// I2_S in one of its two layouts; a file does not say which of them it holds.
pub(super) struct I2s {
    name: &'static str,
    layout: I2sLayout,
}

pub(super) const X86: I2s = I2s { name: "I2_S", layout: I2sLayout::X86 };
pub(super) const ARM: I2s = I2s { name: "I2_S_ARM", layout: I2sLayout::Arm };

impl Format for I2s {
    fn layout(&self) -> Layout {
        let group = self.layout.group();
        Layout { id: Some(36), name: self.name, block_len: group, block_bytes: group / 4 }
    }

    fn extent(&self) -> Extent {
        Extent::Tensor { tail_bytes: I2S_TAIL_BYTES }
    }

    fn is_ternary(&self) -> bool {
        true
    }

    fn trits(&self) -> Option<&dyn TritCoder> {
        Some(self)
    }

    fn invalid(&self) -> Invalid {
        Invalid::Block { scales: &[], codes: self.layout.group() / 4 }
    }

    fn decode(&self, bytes: &[u8], out: &mut [f32]) -> Result<(), Error> {
        let (trits, scale) = self.layout.decode(bytes, out.len())?;
        for (out, trit) in out.iter_mut().zip(trits) {
            *out = f32::from(trit) * scale;
        }
        Ok(())
    }
}

impl TritCoder for I2s {
    fn group(&self) -> TritGroup {
        TritGroup::Tensor
    }

    fn scale_kind(&self) -> ScaleKind {
        ScaleKind::F32
    }

    fn read(&self, bytes: &[u8], _cols: usize, trits: &mut [i8], scales: &mut [f32]) -> Result<(), Error> {
        let (read, scale) = self.layout.decode(bytes, trits.len())?;
        trits.copy_from_slice(&read);
        scales.fill(scale);
        Ok(())
    }

    fn write(&self, trits: &[i8], _cols: usize, scales: &[f32], out: &mut [u8]) -> Result<(), Error> {
        out.copy_from_slice(&self.layout.encode(trits, scales[0])?);
        Ok(())
    }
}
