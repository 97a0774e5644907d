//! Rotary positions: the pairs of values and their angles.

use mla_attention::{Error, Rope, RopeStyle};
use proptest::prelude::*;

fn rope(theta: f32, dims: usize, style: RopeStyle) -> Rope {
    Rope::new(theta, dims, style).expect("a valid rope")
}

/// From 40-digit decimal arithmetic in Python: `e = f32(2i / 64)`, `p = f32(exp(e ln 1e6))`, `f32(1 / p)`. (Not
/// from NumPy: its float32 power is up to two units off.)
const GLM_FREQUENCIES: [u32; 32] = [
    0x3f800000, 0x3f263de0, 0x3ed7e89b, 0x3e8c3504, 0x3e361887, 0x3dec7fd6, 0x3d99940d, 0x3d47763f, 0x3d0186e3,
    0x3ca8398b, 0x3c5a7bf2, 0x3c0de12d, 0x3bb8449c, 0x3b6f520e, 0x3b1b690d, 0x3ac9d75c, 0x3a83126f, 0x3a2a3b44,
    0x39dd1725, 0x398f9272, 0x393a7753, 0x38f22ce2, 0x389d43a4, 0x384c3fbe, 0x3804a2b2, 0x37ac431d, 0x375fba4f,
    0x371148e3, 0x36bcb0c1, 0x36751070, 0x361f23e4, 0x35ceaf79,
];

#[test]
fn frequencies_are_rounded_as_the_formula_says() {
    let glm = rope(1e6, 64, RopeStyle::Interleaved);
    let bits: Vec<u32> = glm.inverse_frequencies().iter().map(|f| f.to_bits()).collect();
    assert_eq!(bits, GLM_FREQUENCIES);
    // The same for a width that is no power of two, base 1e4.
    let odd = rope(1e4, 6, RopeStyle::Halves);
    let bits: Vec<u32> = odd.inverse_frequencies().iter().map(|f| f.to_bits()).collect();
    assert_eq!(bits, [0x3f800000, 0x3d3e1e95, 0x3b0d3169]);
}

#[test]
fn neighbours_turn_together() {
    let mut head = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
    let rope = rope(1e4, 6, RopeStyle::Interleaved);
    rope.rotate(3, &mut head);
    assert_pairs(&rope, &[(1.0, 2.0), (3.0, 4.0), (5.0, 6.0)], &[(0, 1), (2, 3), (4, 5)], 3, &head);
}

#[test]
fn halves_turn_together() {
    let mut head = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
    let rope = rope(1e4, 6, RopeStyle::Halves);
    rope.rotate(3, &mut head);
    assert_pairs(&rope, &[(1.0, 4.0), (2.0, 5.0), (3.0, 6.0)], &[(0, 3), (1, 4), (2, 5)], 3, &head);
}

fn assert_pairs(rope: &Rope, before: &[(f64, f64)], at: &[(usize, usize)], position: usize, head: &[f32]) {
    for ((f, (x, y)), (a, b)) in rope.inverse_frequencies().iter().zip(before).zip(at) {
        let (sin, cos) = f64::from(position as f32 * f).sin_cos();
        assert!((f64::from(head[*a]) - (x * cos - y * sin)).abs() < 1e-5, "{head:?}");
        assert!((f64::from(head[*b]) - (x * sin + y * cos)).abs() < 1e-5, "{head:?}");
    }
}

#[test]
fn the_two_styles_differ() {
    let [mut a, mut b] = [[1.0, 2.0, 3.0, 4.0]; 2];
    rope(1e4, 4, RopeStyle::Interleaved).rotate(5, &mut a);
    rope(1e4, 4, RopeStyle::Halves).rotate(5, &mut b);
    assert!(a.iter().zip(&b).any(|(a, b)| (a - b).abs() > 0.5), "{a:?} and {b:?}");
}

#[test]
fn long_positions_turn_as_exactly_as_short_ones() {
    let rope = rope(1e6, 64, RopeStyle::Interleaved);
    for position in [1, 1023, 65_537, 202_751, 1 << 23] {
        let mut head = [1.0, 0.0].repeat(32);
        rope.rotate(position, &mut head);
        for (pair, f) in head.chunks_exact(2).zip(rope.inverse_frequencies()) {
            let (sin, cos) = f64::from(position as f32 * f).sin_cos();
            assert!((f64::from(pair[0]) - cos).abs() < 2e-7, "cos at position {position}, frequency {f}");
            assert!((f64::from(pair[1]) - sin).abs() < 2e-7, "sin at position {position}, frequency {f}");
        }
    }
}

#[test]
fn position_zero_and_no_dims_change_nothing() {
    let mut head = [0.1, -7.0, 1e-20, 3e20];
    rope(1e4, 4, RopeStyle::Interleaved).rotate(0, &mut head);
    assert_eq!(head, [0.1, -7.0, 1e-20, 3e20]);
    rope(1e4, 0, RopeStyle::Halves).rotate(9, &mut []);
}

proptest! {
    /// The purpose of the embedding: the product of a query and a key depends on their distance only.
    #[test]
    fn products_depend_on_the_distance_only(
        q in prop::array::uniform8(-1f32..1.0),
        k in prop::array::uniform8(-1f32..1.0),
        near in 0usize..1000,
        distance in 0usize..1000,
        shift in 0usize..1000,
        interleaved in any::<bool>(),
    ) {
        let style = if interleaved { RopeStyle::Interleaved } else { RopeStyle::Halves };
        let rope = rope(1e4, 8, style);
        let product = |start: usize| {
            let (mut q, mut k) = (q, k);
            rope.rotate(start + distance, &mut q);
            rope.rotate(start, &mut k);
            q.iter().zip(&k).map(|(q, k)| q * k).sum::<f32>()
        };
        prop_assert!((product(near) - product(near + shift)).abs() < 1e-3);
    }
}

#[test]
fn impossible_ropes_are_refused() {
    for (theta, dims, wanted) in [
        (1e4, 5, "rope dims"),
        (1e4, usize::MAX - 1, "rope dims"),
        (0.0, 4, "rope theta"),
        (-1.0, 4, "rope theta"),
        (f32::NAN, 4, "rope theta"),
        (f32::INFINITY, 4, "rope theta"),
    ] {
        match Rope::new(theta, dims, RopeStyle::Interleaved) {
            Err(Error::Config { field, .. }) => assert_eq!(field, wanted),
            other => panic!("theta {theta}, dims {dims} gave {other:?}"),
        }
    }
}
