//! Seeded random weights: any row of any tensor on its own.
//!
//! **Invariant:** a row depends on the seed, the tensor's name and the row's index alone, so that files are the same
//! in any cut of the work and on any number of threads.
//!
//! Matrices have a standard deviation of `1 / sqrt(cols)`, which keeps activations near 1; norms lie around 1.

use gguf_bitnet::TensorClass;
use moe_runtime::SplitMix64;
use ternary_core::{BLOCK, Packing, f16};

/// The random weights of one tensor.
#[derive(Clone, Copy, Debug)]
pub(super) struct RandomTensor {
    seed: u64,
    mean: f32,
    std: f32,
}

impl RandomTensor {
    /// Weights for the tensor `name` with rows of `cols`.
    pub(super) fn new(seed: u64, name: &str, class: TensorClass, cols: usize) -> Self {
        let (mean, std) = match class {
            TensorClass::Norm => (1.0, 0.1),
            TensorClass::RouterBias | TensorClass::Bias => (0.0, 0.05),
            _ => (0.0, 1.0 / (cols.max(1) as f32).sqrt()),
        };
        // FNV-1a. Similar names give similar hashes; SplitMix64 spreads their difference over all bits.
        let hash =
            name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
        Self { seed: hash ^ seed.rotate_left(32), mean, std }
    }

    /// Row `row`: nearly normal values (the sum of four uniform ones).
    pub(super) fn row(&self, row: usize, out: &mut [f32]) {
        let mut rng = self.rng(row);
        // Four uniform values on [0, 65535] have the mean 2 * 65535 and, summed, the deviation 65536 / sqrt(3).
        let scale = self.std * 3f32.sqrt() / 65536.0;
        for value in out {
            let bits = rng.next_u64();
            let sum = (0..4).map(|i| (bits >> (16 * i)) & 0xffff).sum::<u64>() as f32;
            *value = self.mean + (sum - 131_070.0) * scale;
        }
    }

    /// Row `row` as ternary blocks: each trit equally likely, one scale that gives the same deviation as [`Self::row`].
    ///
    /// # Panics
    /// When `out` is not a whole number of blocks.
    pub(super) fn ternary_row(&self, row: usize, packing: Packing, out: &mut [u8]) {
        assert!(out.len().is_multiple_of(packing.block_bytes()), "whole blocks");
        let mut rng = self.rng(row);
        // A trit has the variance 2/3.
        let scale = f16::from_f32(self.std * 1.5f32.sqrt());
        let mut trits = [0i8; BLOCK];
        for block in out.chunks_exact_mut(packing.block_bytes()) {
            for eight in trits.chunks_exact_mut(8) {
                for (trit, byte) in eight.iter_mut().zip(rng.next_u64().to_le_bytes()) {
                    *trit = ((u16::from(byte) * 3) >> 8) as i8 - 1;
                }
            }
            packing.encode(&trits, scale, block);
        }
    }

    fn rng(&self, row: usize) -> SplitMix64 {
        let mut mix = SplitMix64::new(self.seed ^ row as u64);
        SplitMix64::new(mix.next_u64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_near_normal_and_all_different() {
        let tensor = RandomTensor::new(1, "blk.0.ffn_up.weight", TensorClass::DenseFfn, 4096);
        let (mut a, mut b) = (vec![0.0; 4096], vec![0.0; 4096]);
        tensor.row(0, &mut a);
        tensor.row(1, &mut b);
        assert_ne!(a, b);
        let variance = a.iter().map(|v| v * v).sum::<f32>() / 4096.0;
        assert!((variance * 4096.0 - 1.0).abs() < 0.1, "{variance}");
        let other = RandomTensor::new(1, "blk.1.ffn_up.weight", TensorClass::DenseFfn, 4096);
        other.row(0, &mut b);
        assert_ne!(a, b);
    }

    #[test]
    fn ternary_rows_hold_every_trit_about_equally() {
        let tensor = RandomTensor::new(7, "x", TensorClass::RoutedExpert, 2560);
        let mut packed = vec![0; 10 * Packing::Tq2_0.block_bytes()];
        tensor.ternary_row(3, Packing::Tq2_0, &mut packed);
        let mut counts = [0; 3];
        let mut trits = [0; BLOCK];
        for block in packed.chunks_exact(Packing::Tq2_0.block_bytes()) {
            Packing::Tq2_0.decode(block, &mut trits).unwrap();
            trits.iter().for_each(|&t| counts[(t + 1) as usize] += 1);
        }
        assert!(counts.iter().all(|&n| (700..1010).contains(&n)), "{counts:?}");
    }
}
