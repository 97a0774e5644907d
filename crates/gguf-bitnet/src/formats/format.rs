//! The traits of a storage format. A format is a file of this folder that implements [`Format`], or is a value of
//! [`Blocks`](super::blocks::Blocks), and a line of the table in `tensor_type.rs`; a format that is written too implements
//! [`Encoder`].

use ternary_core::{Error, Packing, Rounding};

use super::trit_coder::TritCoder;

/// Identity and block size of a format.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    /// The GGML type id that GGUF files hold; `None` for a format that only checkpoints use.
    pub(crate) id: Option<u32>,
    /// The format's name, such as `TQ2_0`.
    pub(crate) name: &'static str,
    /// Elements per block (per group for I2_S).
    pub(crate) block_len: usize,
    /// Bytes per block (per group for I2_S).
    pub(crate) block_bytes: usize,
}

/// The run of elements that a format divides into blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Each row is a whole number of blocks, so a row can be cut out of the tensor.
    Rows,
    /// As `Rows`, with `head_bytes` more bytes in front of each row; [`Format::decode`] takes one row.
    HeadedRows { head_bytes: usize },
    /// The flattened tensor is a whole number of blocks, and `tail_bytes` more bytes follow the last one.
    Tensor { tail_bytes: u64 },
    /// Blocks run over the flattened tensor; the last one is padded.
    PaddedTensor,
    /// Byte `b` of the tensor holds weight `b` of each quarter of the flattened tensor, two bits each, the first quarter in
    /// the lowest bits.
    Planes,
}

/// The bit patterns of a block that are no weights; a check of a model looks for them.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Invalid {
    /// Every bit pattern is a weight: integers.
    Never,
    /// NaN and infinities of floating-point numbers.
    Float(FloatBits),
    /// F16 scales or minima at these offsets that are NaN or infinite, and two-bit codes 3 in the first `codes` bytes.
    Block { scales: &'static [usize], codes: usize },
    /// An F32 at the head of each row that is NaN or infinite.
    RowScale,
    /// A scale that is NaN or infinite, for blocks that store it as something else than an F16.
    Scale(fn(block: &[u8]) -> f32),
}

/// The fields of a floating-point number below its sign.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FloatBits {
    /// Bits of the mantissa.
    pub(crate) mantissa: u32,
    /// Bits of the exponent.
    pub(crate) exponent: u32,
    /// Whether the largest exponent means infinity or NaN, as IEEE 754 has it. Otherwise the format has no infinities, and
    /// NaN is the one magnitude whose bits are all set.
    pub(crate) infinities: bool,
}

impl FloatBits {
    /// The bits that are all set in a number exactly if it is NaN or infinite. Where the format has infinities, they are
    /// the magnitude of infinity.
    pub(crate) fn not_finite(self) -> u64 {
        if self.infinities { ((1 << self.exponent) - 1) << self.mantissa } else { self.magnitude() }
    }

    /// The bits of a number that are not its sign.
    pub(crate) fn magnitude(self) -> u64 {
        (1 << (self.exponent + self.mantissa)) - 1
    }
}

/// One storage format of weights.
pub(crate) trait Format: Sync {
    /// Identity and block size.
    fn layout(&self) -> Layout;

    /// The run of elements that a format divides into blocks.
    fn extent(&self) -> Extent {
        Extent::Rows
    }

    /// Whether every weight is -1, 0 or +1 times a scale.
    fn is_ternary(&self) -> bool {
        false
    }

    /// The packing of a format whose rows are ternary blocks of 256 weights.
    fn packing(&self) -> Option<Packing> {
        None
    }

    /// The coder of trits, for a ternary format that can be converted without loss.
    fn trits(&self) -> Option<&dyn TritCoder> {
        None
    }

    /// The bit patterns that are no weights.
    fn invalid(&self) -> Invalid;

    /// Writes the values of `bytes` to `out`. The caller has checked that the two lengths fit each other.
    ///
    /// # Errors
    /// For ternary formats, an invalid code or scale.
    fn decode(&self, bytes: &[u8], out: &mut [f32]) -> Result<(), Error>;

    /// The encoder of the format; `None` for a format that is only read.
    fn encoder(&self) -> Option<&dyn Encoder> {
        None
    }
}

/// The options of an encoder.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Encoding<'a> {
    /// The rule by which a ternary format chooses its trits.
    pub(crate) rounding: Rounding,
    /// The weight of each element's squared error.
    pub(crate) importance: Option<&'a [f32]>,
}

/// The encoder of a format that can be written.
pub(crate) trait Encoder {
    /// Values of this magnitude or more do not fit.
    fn limit(&self) -> f32 {
        f32::INFINITY
    }

    /// Writes whole rows to `out`, which holds zeros and has the right length. The caller has checked that every value
    /// is finite and below [`Encoder::limit`], and that importances are finite, not negative, and one per value.
    ///
    /// # Errors
    /// For ternary formats, weights that cannot be made ternary.
    fn encode(&self, row: &[f32], encoding: Encoding<'_>, out: &mut [u8]) -> Result<(), Error>;
}
