//! The number types of cached values.

use std::fmt;

/// The number type of cached values. Values are rounded when they are appended, so every score, also a token's score
/// with itself, sees the rounded ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheType {
    /// Exact; for reference runs.
    F32,
    /// Half the memory of F32.
    #[default]
    F16,
    /// INT8 with one F32 scale per position: of a latent, whose rotated key stays F16, or of the key or value of a head.
    I8,
}

impl fmt::Display for CacheType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CacheType::F32 => "f32",
            CacheType::F16 => "f16",
            CacheType::I8 => "i8",
        })
    }
}
