//! Dense vector products for attention: dot products with cached rows, and weighted sums of them.
//!
//! **Invariant:** a dot product has the bits of `ternary_core::dot16`; a weighted sum is one fused
//! multiply-add per element and row, rows in ascending order. Equal on every level.
//!
//! ```
//! use tl_kernels::dense::{axpy_f32, dot_f32};
//! assert_eq!(dot_f32(&[1.0, 2.0], &[3.0, 4.0]), 11.0);
//! let mut acc = [1.0, 1.0];
//! axpy_f32(2.0, &[3.0, 4.0], &mut acc);
//! assert_eq!(acc, [7.0, 9.0]);
//! ```

use half::f16;

use super::value::Value;
use crate::arch::{Isa, Level};
use crate::error::Result;
use crate::simd::{Kernel, LANES, Simd, fma};

/// `dot16(x, w)`.
///
/// # Panics
/// If the lengths differ.
#[must_use]
pub fn dot_f32(x: &[f32], w: &[f32]) -> f32 {
    dot(Level::current(), x, w)
}

/// `dot16(x, w widened)`.
///
/// # Panics
/// If the lengths differ.
#[must_use]
pub fn dot_f16(x: &[f32], w: &[f16]) -> f32 {
    dot(Level::current(), x, w)
}

/// `acc[i] = fma(p, v[i], acc[i])`.
///
/// # Panics
/// If the lengths differ.
pub fn axpy_f32(p: f32, v: &[f32], acc: &mut [f32]) {
    axpy(Level::current(), p, v, acc);
}

/// `acc[i] = fma(p, v[i] widened, acc[i])`.
///
/// # Panics
/// If the lengths differ.
pub fn axpy_f16(p: f32, v: &[f16], acc: &mut [f32]) {
    axpy(Level::current(), p, v, acc);
}

/// As [`dot_f32`], on a given level: for tests and benchmarks.
///
/// # Errors
/// [`crate::Error::UnsupportedIsa`].
pub fn dot_f32_on(isa: Isa, x: &[f32], w: &[f32]) -> Result<f32> {
    Ok(dot(isa.level()?, x, w))
}

/// As [`dot_f16`], on a given level: for tests and benchmarks.
///
/// # Errors
/// [`crate::Error::UnsupportedIsa`].
pub fn dot_f16_on(isa: Isa, x: &[f32], w: &[f16]) -> Result<f32> {
    Ok(dot(isa.level()?, x, w))
}

/// As [`axpy_f32`], on a given level: for tests and benchmarks.
///
/// # Errors
/// [`crate::Error::UnsupportedIsa`].
pub fn axpy_f32_on(isa: Isa, p: f32, v: &[f32], acc: &mut [f32]) -> Result<()> {
    axpy(isa.level()?, p, v, acc);
    Ok(())
}

/// As [`axpy_f16`], on a given level: for tests and benchmarks.
///
/// # Errors
/// [`crate::Error::UnsupportedIsa`].
pub fn axpy_f16_on(isa: Isa, p: f32, v: &[f16], acc: &mut [f32]) -> Result<()> {
    axpy(isa.level()?, p, v, acc);
    Ok(())
}

pub(crate) fn dot<T: Value>(level: Level, x: &[f32], w: &[T]) -> f32 {
    assert_eq!(x.len(), w.len(), "a dot product needs equal lengths");
    level.run(Dot { x, w })
}

fn axpy<T: Value>(level: Level, p: f32, v: &[T], acc: &mut [f32]) {
    assert_eq!(v.len(), acc.len(), "a sum needs equal lengths");
    level.run(Axpy { p, v, acc });
}

pub(crate) struct Dot<'a, T> {
    pub(crate) x: &'a [f32],
    pub(crate) w: &'a [T],
}

impl<T: Value> Kernel for Dot<'_, T> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let (x, x_rest) = self.x.as_chunks::<LANES>();
        let (w, w_rest) = self.w.as_chunks::<LANES>();
        let mut acc = s.splat(0.0);
        for (x, w) in x.iter().zip(w) {
            acc = s.fma(T::load(s, w), s.load(x), acc);
        }
        s.reduce(dot_rest(s, x_rest, w_rest, acc))
    }
}

/// Adds the products of the last, incomplete group to the lanes `acc`.
#[inline(always)]
pub(crate) fn dot_rest<S: Simd, T: Value>(s: S, x_rest: &[f32], w_rest: &[T], acc: S::F) -> S::F {
    if x_rest.is_empty() {
        return acc;
    }
    // Adding +0.0 times -0.0 changes no bit of a lane.
    let (mut x, mut w) = ([-0.0; LANES], [0.0; LANES]);
    for (i, (&from_x, &from_w)) in x_rest.iter().zip(w_rest).enumerate() {
        (x[i], w[i]) = (from_x, from_w.widen());
    }
    s.fma(s.load(&w), s.load(&x), acc)
}

struct Axpy<'a, T> {
    p: f32,
    v: &'a [T],
    acc: &'a mut [f32],
}

impl<T: Value> Kernel for Axpy<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let p = s.splat(self.p);
        let (v, v_rest) = self.v.as_chunks::<LANES>();
        let (acc, acc_rest) = self.acc.as_chunks_mut::<LANES>();
        for (v, acc) in v.iter().zip(acc) {
            s.store(s.fma(p, T::load(s, v), s.load(acc)), acc);
        }
        for (v, acc) in v_rest.iter().zip(acc_rest) {
            *acc = fma(self.p, v.widen(), *acc);
        }
    }
}
