//! Benchmarks, each of which answers a question about speed. This library makes their inputs.
//!
//! Ids are `op/isa/shape/threads`; every run of `gemv` also measures `read/...`, the read bandwidth of the
//! machine, with which its speeds are compared.

pub mod model;

use std::thread;

use ternary_core::{ActMode, Bytes, Packing, Scales, TernaryTensor};
use tl_kernels::{DenseType, Isa, Linear, Pool};

/// The name of every stored type. Types that take INT8 activations take them with a scale per block.
pub const TYPES: [&str; 8] = ["TQ2_0", "TQ1_0", "BITNET_T158", "F16", "BF16", "Q8_0", "Q6_K", "F32"];

/// A layer of `[rows, cols]` with arbitrary weights of the named type.
///
/// # Panics
/// If there is no such type.
#[must_use]
pub fn layer(ty: &str, rows: usize, cols: usize) -> Linear {
    let made = if let Some(packing) = Packing::ALL.into_iter().find(|packing| packing.name() == ty) {
        let bytes = filled(rows * packing.row_bytes(cols).expect("whole blocks"));
        let tensor = TernaryTensor::new(packing, rows, cols, bytes, Scales::PerBlock);
        Linear::ternary(tensor.expect("the length fits"), ActMode::A8Block)
    } else {
        let ty = DenseType::ALL.into_iter().find(|dense| dense.name() == ty).expect("a known type");
        Linear::dense(ty, rows, cols, filled(rows * ty.row_bytes(cols).expect("whole blocks")))
    };
    made.expect("the shape is sound").with_act_mode(ActMode::A8Block)
}

/// Number of rows with which a matrix of the type takes about `bytes`.
#[must_use]
pub fn rows_for(ty: &str, cols: usize, bytes: usize) -> usize {
    (bytes / layer(ty, 1, cols).bytes().len()).next_multiple_of(4)
}

/// Activations between -2 and 2.
#[must_use]
pub fn activations(len: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 7919 + i / 13) % 4001) as f32 / 1000.0 - 2.0).collect()
}

/// The levels of this machine, lowest first.
pub fn levels() -> impl Iterator<Item = Isa> {
    Isa::ALL.into_iter().filter(|isa| isa.is_supported())
}

/// A pool of one thread and a pool of all threads of the machine.
///
/// # Panics
/// If the system starts no threads.
#[must_use]
pub fn pools() -> Vec<Pool> {
    let all = thread::available_parallelism().map_or(1, usize::from);
    let mut pools = vec![Pool::serial()];
    if all > 1 {
        pools.push(Pool::new(all).expect("the system has that many processors"));
    }
    pools
}

/// Sums `words`, so that every byte is read. A kernel that is bound by memory is compared with it.
#[must_use]
pub fn read_all(pool: &Pool, words: &mut [u64]) -> u64 {
    let part = words.len().div_ceil(pool.threads());
    let total = std::sync::atomic::AtomicU64::new(0);
    pool.chunks_mut(words, part, |_, words| {
        let (groups, _) = words.as_chunks::<16>();
        let mut sums = [0u64; 16];
        for group in groups {
            for (sum, word) in sums.iter_mut().zip(group) {
                *sum = sum.wrapping_add(*word);
            }
        }
        total.fetch_add(sums.iter().sum(), std::sync::atomic::Ordering::Relaxed);
    });
    total.into_inner()
}

/// Bytes without a pattern. Every f16 and f32 that they form is finite and of ordinary size, and no 2-bit code is 3, because
/// damaged codes would keep kernels from making token tables.
fn filled(len: usize) -> Bytes {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let bytes: Vec<u8> = (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8 & 0x99 | 0x10
        })
        .collect();
    Bytes::from(bytes)
}
