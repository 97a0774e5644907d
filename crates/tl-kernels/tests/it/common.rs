//! Functions that the tests of kernels share: the levels of the machine, random inputs, products, comparison by bits.

use tl_kernels::{ActivationBuffer, Isa, Linear, Pool};

/// The levels of this machine. Prints a line for each level that it lacks.
#[allow(clippy::print_stdout, reason = "a missing level must be seen in the test's output")]
pub(crate) fn levels() -> Vec<Isa> {
    let (supported, missing): (Vec<_>, Vec<_>) = Isa::ALL.into_iter().partition(|isa| isa.is_supported());
    for isa in missing {
        println!("SKIP {isa}");
    }
    supported
}

/// A pool of `threads` threads; WASM has no more than one.
pub(crate) fn pool_of(threads: usize) -> Pool {
    Pool::new(if cfg!(target_family = "wasm") { 1 } else { threads }).unwrap()
}

/// The generator SplitMix64: the same numbers in each run, so that a failure can be repeated.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number between -2 and 2.
    pub(crate) fn float(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1 << 22) as f32 - 2.0
    }

    /// `n` numbers between -2 and 2.
    pub(crate) fn floats(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.float()).collect()
    }
}

/// The layer's product with `n` tokens `x`.
pub(crate) fn product(linear: &Linear, pool: &Pool, x: &[f32], n: usize) -> Vec<f32> {
    let mut acts = ActivationBuffer::new();
    acts.set(x, n, linear.cols());
    acts.quantize(linear.act_mode());
    let mut y = vec![f32::NAN; n * linear.rows()];
    linear.forward(pool, &acts, &mut y);
    y
}

#[track_caller]
pub(crate) fn assert_same_bits(got: &[f32], expected: &[f32], what: &str) {
    assert_eq!(got.len(), expected.len());
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        assert_eq!(got.to_bits(), expected.to_bits(), "{what}: value {i} is {got:?}, not {expected:?}");
    }
}
