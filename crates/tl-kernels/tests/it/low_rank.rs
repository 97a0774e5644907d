//! Low-rank additions against their definition, in parts and at once, on every number of threads.

use ternary_core::dot16;
use tl_kernels::{ActivationBuffer, LowRank};

use crate::common::{Random, pool_of};

const INPUTS: usize = 37;
const OUTPUTS: usize = 29;

/// The definition: `y[o] = fma(s * dot16(A[r], x), B[o][r], y[o])` over ascending ranks.
fn by_definition(a: &[f32], b: &[f32], scale: f32, x: &[f32], y: &mut [f32]) {
    let rank = a.len() / INPUTS;
    for r in 0..rank {
        let u = scale * dot16(&a[r * INPUTS..][..INPUTS], x);
        for (o, y) in y.iter_mut().enumerate() {
            *y = u.mul_add(b[o * rank + r], *y);
        }
    }
}

fn factors(rank: usize, seed: u64) -> (Vec<f32>, Vec<f32>) {
    let mut random = Random(seed);
    (random.floats(rank * INPUTS), random.floats(OUTPUTS * rank))
}

#[test]
fn additions_follow_their_definition_in_every_cut() {
    for rank in [1, 2, 5] {
        let (a, b) = factors(rank, 3);
        let low_rank = LowRank::new(INPUTS, OUTPUTS, &a, &b, 0.75).expect("the factors fit");
        assert_eq!((low_rank.rank(), low_rank.inputs(), low_rank.outputs()), (rank, INPUTS, OUTPUTS));
        let (x, before) = (Random(9).floats(4 * INPUTS), Random(11).floats(4 * OUTPUTS));
        let mut want = before.clone();
        for (x, y) in x.chunks(INPUTS).zip(want.chunks_mut(OUTPUTS)) {
            by_definition(&a, &b, 0.75, x, y);
        }
        assert_ne!(want, before);
        let mut acts = ActivationBuffer::new();
        acts.set(&x, 4, INPUTS);
        for threads in [1, 3] {
            let mut y = before.clone();
            low_rank.add(&pool_of(threads), &acts, &mut y);
            assert_eq!(y, want, "rank {rank}, {threads} threads");
        }
        let mut row = before[..OUTPUTS].to_vec();
        for columns in [0..5, 5..6, 6..OUTPUTS] {
            low_rank.add_row(&x[..INPUTS], columns.clone(), &mut row[columns.clone()]);
            let (mut ranks, mut again) = (vec![f32::NAN; low_rank.rank()], before[..OUTPUTS][columns.clone()].to_vec());
            low_rank.ranks(&x[..INPUTS], &mut ranks);
            low_rank.add_ranks(&ranks, columns.clone(), &mut again);
            assert_eq!(again, row[columns], "in two steps");
        }
        assert_eq!(row, want[..OUTPUTS]);
    }
}

#[test]
fn a_sum_adds_one_after_the_other() {
    let ((a, b), (c, d)) = (factors(2, 5), factors(1, 7));
    let first = LowRank::new(INPUTS, OUTPUTS, &a, &b, 0.5).expect("the factors fit");
    let second = LowRank::new(INPUTS, OUTPUTS, &c, &d, 2.0).expect("the factors fit");
    let (x, mut want) = (Random(9).floats(INPUTS), Random(11).floats(OUTPUTS));
    let mut got = want.clone();
    first.add_row(&x, 0..OUTPUTS, &mut want);
    second.add_row(&x, 0..OUTPUTS, &mut want);
    let sum = first.clone().plus(&second);
    sum.add_row(&x, 0..OUTPUTS, &mut got);
    assert_eq!(got, want);
    assert_eq!((sum.rank(), sum.bytes()), (3, first.bytes() + second.bytes()));
}

#[test]
fn zeros_are_known_and_misfits_are_refused() {
    let (a, b) = factors(2, 5);
    let zero = |a: &[f32], b: &[f32], s| LowRank::new(INPUTS, OUTPUTS, a, b, s).expect("they fit").is_zero();
    assert!(zero(&a, &vec![0.0; b.len()], 1.0) && zero(&vec![-0.0; a.len()], &b, 1.0) && zero(&a, &b, 0.0));
    assert!(!zero(&a, &b, 1e-6));
    for (inputs, outputs, a, b) in [
        (INPUTS, OUTPUTS, &a[1..], &b[..]),
        (INPUTS, OUTPUTS, &a[..], &b[1..]),
        (INPUTS, OUTPUTS, &a[..INPUTS], &b[..]),
        (INPUTS, OUTPUTS, &[][..], &[][..]),
        (0, OUTPUTS, &[][..], &b[..]),
        (INPUTS, 0, &a[..], &[][..]),
        (INPUTS, usize::MAX, &a[..], &b[..]),
    ] {
        let refused = LowRank::new(inputs, outputs, a, b, 1.0).expect_err("they do not fit").to_string();
        assert!(refused.contains("rank"), "{refused}");
    }
}
