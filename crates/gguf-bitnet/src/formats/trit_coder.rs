//! The trait of formats whose weights are trits times a scale, by which conversions read and write them.

use ternary_core::Error as Defect;

/// The weights that share a scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TritGroup {
    /// This many neighbours of one row.
    Block(usize),
    /// All weights of a row.
    Row,
    /// All weights of a tensor.
    Tensor,
}

impl TritGroup {
    /// Weights of a group in a tensor of `elements` weights with rows of `cols`.
    pub(super) fn weights(self, cols: usize, elements: usize) -> usize {
        match self {
            TritGroup::Block(n) => n,
            TritGroup::Row => cols,
            TritGroup::Tensor => elements,
        }
    }
}

/// The number format of scales.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ScaleKind {
    F16,
    F32,
}

/// Reads and writes the trits of a format.
pub(crate) trait TritCoder {
    /// The weights that share a scale.
    fn group(&self) -> TritGroup;

    /// The number format of scales.
    fn scale_kind(&self) -> ScaleKind;

    /// Reads whole rows, or the whole tensor where the format has no rows. The lengths fit each other.
    ///
    /// # Errors
    /// A code that is no trit, or a scale that is not finite.
    fn read(&self, bytes: &[u8], cols: usize, trits: &mut [i8], scales: &mut [f32]) -> Result<(), Defect>;

    /// Writes to `out`, which has the right length. Scales can be held in [`TritCoder::scale_kind`].
    ///
    /// # Errors
    /// Where the format cannot hold so many weights.
    fn write(&self, trits: &[i8], cols: usize, scales: &[f32], out: &mut [u8]) -> Result<(), Defect>;
}
