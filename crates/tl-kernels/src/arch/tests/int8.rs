//! Products of INT8 rows.

use crate::arch::Isa;
use crate::simd::{BLOCK_QUADS, Group, Kernel, ROWS, Simd, Vector};

/// Values between -127 and 127, with both extremes in long runs.
fn values(n: usize, seed: usize) -> Vec<i8> {
    (0..n)
        .map(|i| match (i / 96 + seed) % 4 {
            0 => 127,
            1 => -127,
            _ => ((i * 37 + i / 7 + 11 * seed) % 255) as i32 as u8 as i8,
        })
        .map(|v: i8| v.max(-127))
        .collect()
}

fn groups(n: usize, seed: usize) -> Vec<Group<[i8; 4]>> {
    let values = values(n * 4 * ROWS, seed);
    let quads = values.as_chunks::<4>().0.as_chunks::<ROWS>().0;
    quads.iter().map(|&quads| Group(quads)).collect()
}

struct Each {
    quads: usize,
    row_quads: usize,
}

impl Kernel for Each {
    type Output = (Vec<i32>, Vec<[i8; 4]>, Vec<u8>);
    const INTEGER: bool = true;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Self::Output {
        let x: Vec<Vec<i8>> = (0..3).map(|v| values(4 * self.quads, v)).collect();
        let vectors: [Vector<'_>; 3] = std::array::from_fn(|v| Vector::of(x[v].as_chunks().0));
        let (mut sums, mut one) = ([[0; ROWS]; 3], [[0; ROWS]]);
        let span = groups(self.quads, 1);
        s.dots_i8(vectors, &span, &mut sums);
        s.dots_i8([vectors[1]], &span, &mut one);
        let mut integers = [sums.as_flattened(), one.as_flattened()].concat();

        let block = groups(BLOCK_QUADS, 2);
        let mut turned = [Group([[0; 4]; ROWS]); BLOCK_QUADS];
        s.turn(block.as_array().expect("a block"), &mut turned);

        let codes: Vec<Vec<[u8; 4]>> =
            (0..4).map(|j| (0..self.row_quads).map(|q| [127, (q * 31 + j) as u8 % 128, 127, 0]).collect()).collect();
        s.quad_sums([[&codes[0][..]], [&codes[1]], [&codes[2]]], &turned, &mut sums);
        integers.extend(sums.as_flattened());
        s.quad_sums([[&codes[3][..], &codes[0]]], &turned, &mut one);
        integers.extend(one.as_flattened());

        let (mut high, mut low) = ([[0; 4]; ROWS / 4], [[0; 4]; ROWS / 4]);
        s.halve_codes(&std::array::from_fn(|j| (j * 260) as f32), &mut high, &mut low);
        let turned = turned.iter().flat_map(|group| group.0).collect();
        (integers, turned, [high.as_flattened(), low.as_flattened()].concat())
    }
}

#[test]
fn every_level_gives_the_integers_of_the_portable_form() {
    for (quads, row_quads) in [(0, 0), (1, 1), (31, 2), (16, 16), (128, 15)] {
        let level = |isa: Isa| isa.level().unwrap().run(Each { quads, row_quads });
        let expected = level(Isa::Scalar);
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_supported()) {
            assert_eq!(level(isa), expected, "{isa}, {quads} quads, {row_quads} quads of rows");
        }
    }
}
