//! Ternary rows that are no multiple of 256 weights long: padded with zeros, they give the sums of their own weights.

use ternary_core::{ActMode, Bytes, Packing, Scales, TernaryTensor, f16, quantize_a8};
use tl_kernels::{ActivationBuffer, Error, Isa, KernelKind, Linear, Pool, selftest};

const ROWS: usize = 37;
const SCALE: f32 = 0.37;

fn trit(row: usize, column: usize) -> i8 {
    ((row * 7 + column * column * 3 + column / 5) % 3) as i8 - 1
}

fn packed(cols: usize) -> TernaryTensor {
    let (packing, padded) = (Packing::Tq2_0, cols.next_multiple_of(256));
    let mut bytes = vec![0; ROWS * packing.row_bytes(padded).unwrap()];
    for (at, out) in bytes.chunks_exact_mut(packing.block_bytes()).enumerate() {
        let (row, first) = (at / (padded / 256), at % (padded / 256) * 256);
        let trits = std::array::from_fn(|i| if first + i < cols { trit(row, first + i) } else { 0 });
        packing.encode(&trits, f16::ONE, out);
    }
    TernaryTensor::new(packing, ROWS, padded, Bytes::from(bytes), Scales::PerTensor(SCALE)).unwrap()
}

/// The products by their definition, with one scale per token.
fn wanted(cols: usize, x: &[f32]) -> Vec<f32> {
    let mut codes = vec![0; cols];
    let a = quantize_a8(x, &mut codes);
    let block = |row: usize, first: usize| -> i32 {
        (first..cols.min(first + 256)).map(|column| i32::from(trit(row, column)) * i32::from(codes[column])).sum()
    };
    let row = |row| (0..cols).step_by(256).fold(0f32, |sum, first| (SCALE * a).mul_add(block(row, first) as f32, sum));
    (0..ROWS).map(row).collect()
}

#[test]
fn padded_rows_give_the_sums_of_their_own_weights_on_every_level_and_kernel() {
    for cols in [1, 100, 255, 257, 320, 500] {
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_supported()) {
            for kernel in [KernelKind::I2s, KernelKind::Tiles, KernelKind::Tl1, KernelKind::Tl2] {
                let linear = Linear::ternary_padded(packed(cols), cols, ActMode::A8Token).unwrap();
                let linear = linear.with_isa(isa).unwrap().with_kernel(kernel).unwrap();
                assert_eq!((linear.rows(), linear.cols()), (ROWS, cols));
                selftest::check(&linear).unwrap();
                for n in [1, 6, 20] {
                    let x: Vec<f32> = (0..n * cols).map(|i| ((i * 37) % 101) as f32 * 0.3 - 14.0).collect();
                    let (mut acts, mut y) = (ActivationBuffer::new(), vec![0.0; n * ROWS]);
                    acts.set(&x, n, cols);
                    acts.quantize(ActMode::A8Token);
                    linear.forward(&Pool::serial(), &acts, &mut y);
                    for (y, x) in y.chunks_exact(ROWS).zip(x.chunks_exact(cols)) {
                        assert_eq!(y, wanted(cols, x), "{cols} columns, {isa}, {kernel}, {n} tokens");
                    }
                }
            }
        }
    }
}

#[test]
fn padded_rows_keep_their_width_in_slices_and_values() {
    let linear = Linear::ternary_padded(packed(300), 300, ActMode::A8Block).unwrap();
    let part = linear.slice_rows(3, 9).unwrap();
    assert_eq!((part.rows(), part.cols()), (6, 300));
    let mut values = vec![0.0; 300];
    part.dequantize_row(2, &mut values).unwrap();
    assert!(values.iter().enumerate().all(|(column, &value)| value == SCALE * f32::from(trit(5, column))));
}

#[test]
fn columns_must_end_in_the_last_block_and_activations_must_be_rounded() {
    for (cols, mode) in [(256, ActMode::A8Token), (513, ActMode::A8Token), (0, ActMode::A8Block), (300, ActMode::F32)] {
        let refused = Linear::ternary_padded(packed(300), cols, mode);
        assert!(matches!(refused, Err(Error::PaddedColumns { padded: 512, .. })), "{cols} {mode:?}");
    }
}
