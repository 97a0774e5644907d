//! Checks that both kinds of attention share: they refuse impossible settings, and weights and buffers of the wrong
//! size.
//!
//! The numbers come from a model file, so every product of two of them is checked once, before anything is allocated or
//! multiplied.

use tl_kernels::Linear;

use crate::error::Error;
use crate::rope::Rope;

pub(crate) fn positive(field: &'static str, value: usize) -> Result<(), Error> {
    if value > 0 {
        return Ok(());
    }
    Err(Error::Config { field, expected: "at least 1".into(), got: value.to_string() })
}

pub(crate) fn sum(field: &'static str, a: usize, b: usize) -> Result<usize, Error> {
    a.checked_add(b).ok_or_else(|| Error::Config {
        field,
        expected: format!("small enough that {b} can be added"),
        got: a.to_string(),
    })
}

pub(crate) fn product(field: &'static str, a: usize, b: usize) -> Result<usize, Error> {
    a.checked_mul(b).ok_or_else(|| Error::Config {
        field,
        expected: format!("small enough to be multiplied by {b}"),
        got: a.to_string(),
    })
}

pub(crate) fn epsilon(field: &'static str, value: f32) -> Result<(), Error> {
    if value.is_finite() && value >= 0.0 {
        return Ok(());
    }
    Err(Error::Config { field, expected: "finite and not negative".into(), got: value.to_string() })
}

pub(crate) fn rotary(field: &'static str, dims: usize, rope: &Rope) -> Result<(), Error> {
    if dims == rope.dims() {
        return Ok(());
    }
    Err(Error::Config {
        field,
        expected: format!("the width of its position embedding, {}", rope.dims()),
        got: dims.to_string(),
    })
}

/// Refuses a matrix that is not `[rows, cols]`.
pub(crate) fn linear(name: &'static str, linear: &Linear, rows: usize, cols: usize) -> Result<(), Error> {
    if (linear.rows(), linear.cols()) == (rows, cols) {
        return Ok(());
    }
    let got = vec![linear.rows(), linear.cols()];
    Err(Error::WeightShape { name, expected: vec![rows, cols], got })
}

/// Refuses a vector, or a list of heads, that does not hold `len` elements.
pub(crate) fn list<T>(name: &'static str, list: &[T], len: usize) -> Result<(), Error> {
    if list.len() == len {
        return Ok(());
    }
    Err(Error::WeightShape { name, expected: vec![len], got: vec![list.len()] })
}

/// The number of tokens in `x` `[n, width]`; refuses a length that is no multiple of `width`, and an `out` of another
/// length.
pub(crate) fn tokens(x: &[f32], out: &[f32], width: usize) -> Result<usize, Error> {
    if !x.len().is_multiple_of(width) {
        return Err(Error::BufferLength { name: "x", expected: x.len().next_multiple_of(width), got: x.len() });
    }
    if out.len() != x.len() {
        return Err(Error::BufferLength { name: "out", expected: x.len(), got: out.len() });
    }
    Ok(x.len() / width)
}
