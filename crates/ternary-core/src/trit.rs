//! The ternary digit and its stored code.
//!
//! ```text
//! trit   -1   0  +1    none
//! code    0   1   2       3
//! ```

/// The value that [`from_code`] gives for code 3, which is no trit.
const INVALID: i8 = 2;

/// The stored code of a trit.
#[inline]
pub(crate) fn to_code(trit: i8) -> u8 {
    (trit + 1) as u8
}

/// The trit of the two lowest bits of `code`; the caller then checks with [`first_invalid`].
#[inline]
pub(crate) fn from_code(code: u8) -> i8 {
    (code & 3) as i8 - 1
}

/// The first weight whose code was 3.
pub(crate) fn first_invalid(trits: &[i8]) -> Option<usize> {
    // Without an early exit the common case takes a few vector instructions.
    if trits.iter().fold(-1, |max, &t| max.max(t)) < INVALID {
        return None;
    }
    trits.iter().position(|&t| t == INVALID)
}

/// Panics unless every one of `trits` is -1, 0 or +1.
#[track_caller]
pub(crate) fn assert_ternary(trits: &[i8]) {
    let ternary = trits.iter().fold(true, |all, t| all & (-1..=1).contains(t));
    assert!(ternary, "a trit is -1, 0 or +1");
}
