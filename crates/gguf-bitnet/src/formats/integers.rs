//! Signed integers of 8 to 64 bits, little-endian; the larger ones are rounded to F32 when they are read.

use ternary_core::Error;

use super::blocks::decode_numbers;
use super::format::{Format, Invalid, Layout};

macro_rules! integers {
    ($($name:ident: $number:ident, $id:literal, $label:literal;)*) => {$(
        #[doc = concat!("Little-endian `", stringify!($number), "`.")]
        pub(super) struct $name;

        impl Format for $name {
            fn layout(&self) -> Layout {
                Layout { id: Some($id), name: $label, block_len: 1, block_bytes: size_of::<$number>() }
            }

            fn invalid(&self) -> Invalid {
                Invalid::Never
            }

            fn decode(&self, bytes: &[u8], out: &mut [f32]) -> Result<(), Error> {
                decode_numbers(bytes, out, |b| $number::from_le_bytes(b) as f32);
                Ok(())
            }
        }
    )*};
}

integers! {
    I8: i8, 24, "I8";
    I16: i16, 25, "I16";
    I32: i32, 26, "I32";
    I64: i64, 27, "I64";
}
