//! Latent attention equals its expanded form; every weight and setting changes its output.

use crate::expanded;
use crate::layers::{Rng, bits, distance, mla, mla_config, mla_weights, odd_mla, relative_error, run, tokens};
use mla_attention::{
    Attention, CacheType, Error, MlaAttention, MlaConfig, MlaWeights, QueryProjection, Rope, RopeStyle,
};
use proptest::prelude::*;
use ternary_core::{ActMode, Packing, Rounding, TernaryTensor};
use tl_kernels::{Linear, Pool};

/// F32 caches: the oracle takes its sums in another order and in f64. F16 caches: in addition, a value may round to
/// one F16 in the oracle and to its neighbour in the layer, which differ by 2^-10 of the value.
const TOLERANCES: [(CacheType, f64); 2] = [(CacheType::F32, 1e-5), (CacheType::F16, 5e-4)];

/// Worst relative error of a token against the oracle.
fn error_of(config: &MlaConfig, ty: CacheType, n: usize, chunk: usize, seed: u64) -> f64 {
    let layer = mla(config, seed);
    let x = tokens(&layer, n, seed + 1);
    let wanted = expanded::mla(config, &mla_weights(config, seed), ty, &x);
    relative_error(&run(&layer, &Pool::serial(), ty, &x, chunk), &wanted, config.hidden)
}

#[test]
fn absorbed_equals_expanded() {
    let shapes = [
        odd_mla(),
        mla_config(50, 3, None, [40, 5, 6, 7]),
        mla_config(64, 4, Some(32), [128, 24, 8, 32]),
        mla_config(33, 1, None, [8, 1, 2, 1]),
        mla_config(48, 5, Some(1), [17, 19, 16, 3]),
        mla_config(48, 2, Some(16), [24, 8, 0, 8]),
    ];
    for (i, config) in shapes.iter().enumerate() {
        for (ty, tolerance) in TOLERANCES {
            let error = error_of(config, ty, 150, 41, 100 + i as u64);
            assert!(error < tolerance, "{config:?} with {ty:?}: relative error {error}");
        }
    }
}

/// INT8 caches add the rounding of the queries and of the weights to that of the latents, which the oracle has as well.
/// Against an exact cache the errors of all three add up.
#[test]
fn int8_caches_stay_near_the_expanded_form() {
    for (i, (heads, kv_lora)) in [(3, 512), (2, 256), (4, 96)].into_iter().enumerate() {
        let config = mla_config(64, heads, Some(48), [kv_lora, 48, 16, 32]);
        let (layer, weights) = (mla(&config, 7 + i as u64), mla_weights(&config, 7 + i as u64));
        let x = tokens(&layer, 300, 3);
        let got = run(&layer, &Pool::serial(), CacheType::I8, &x, 70);
        for (oracle, at_most) in [(CacheType::I8, 0.03), (CacheType::F32, 0.05)] {
            let error = relative_error(&got, &expanded::mla(&config, &weights, oracle, &x), config.hidden);
            assert!(error > 1e-4 && error < at_most, "{kv_lora} values against {oracle:?}: relative error {error}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn absorbed_equals_expanded_for_any_size(
        hidden in 1usize..40,
        n_heads in 1usize..6,
        q_lora in prop::option::of(1usize..30),
        kv_lora in 1usize..70,
        qk_nope in 1usize..40,
        rope_pairs in 0usize..20,
        v_head in 1usize..40,
        n in 1usize..80,
        chunk in 1usize..80,
        seed in any::<u32>(),
    ) {
        let config = mla_config(hidden, n_heads, q_lora, [kv_lora, qk_nope, 2 * rope_pairs, v_head]);
        let error = error_of(&config, CacheType::F32, n, chunk, u64::from(seed));
        prop_assert!(error < 1e-4, "relative error {}", error);
    }
}

/// The output of 70 tokens under a configuration, with the weights of `odd_mla`.
fn output_of(config: &MlaConfig, weights: MlaWeights) -> Vec<f32> {
    let layer = Attention::Mla(MlaAttention::new(config.clone(), weights).expect("weights that fit"));
    let x = tokens(&layer, 70, 5);
    run(&layer, &Pool::serial(), CacheType::F32, &x, 70)
}

#[test]
fn rotating_halves_instead_of_neighbours_gives_another_result() {
    let neighbours = odd_mla();
    let mut halves = neighbours.clone();
    halves.rope = Rope::new(1e4, 6, RopeStyle::Halves).expect("an even width");
    let [a, b] = [&neighbours, &halves].map(|c| output_of(c, mla_weights(c, 4)));
    let width = neighbours.hidden;
    assert!(distance(&b[..width], &a[..width], width) == 0.0, "at position 0 nothing turns");
    assert!(distance(&b, &a, width) > 0.05, "the pair layout must matter");
}

#[test]
fn another_rope_base_gives_another_result() {
    let base = odd_mla();
    let mut other = base.clone();
    other.rope = Rope::new(1e6, 6, RopeStyle::Interleaved).expect("an even width");
    let [a, b] = [&base, &other].map(|c| output_of(c, mla_weights(c, 4)));
    assert!(distance(&b, &a, base.hidden) > 0.01);
}

/// `linear` with its first `rows` rows times `factor`.
fn scaled(linear: &Linear, rows: usize, factor: f32) -> Linear {
    let cols = linear.cols();
    let mut values = vec![0.0; linear.rows() * cols];
    for (r, row) in values.chunks_exact_mut(cols).enumerate() {
        linear.dequantize_row(r, row).expect("an undamaged matrix");
        if r < rows {
            row.iter_mut().for_each(|w| *w *= factor);
        }
    }
    Linear::from_f32(linear.rows(), cols, values).expect("the same shape")
}

#[test]
fn the_value_is_the_normalised_latent() {
    let config = odd_mla();
    let weights = mla_weights(&config, 4);
    let plain = output_of(&config, mla_weights(&config, 4));
    let scaled = MlaWeights { kv_a: scaled(&weights.kv_a, config.kv_lora, 16.0), ..weights };
    let error = distance(&output_of(&config, scaled), &plain, config.hidden);
    assert!(error < 1e-4, "a norm removes the size of its input, yet the output moved by {error}");
}

#[test]
fn the_norms_use_their_own_epsilon() {
    let config = odd_mla();
    let mut other = config.clone();
    other.latent_norm_eps = 1e-2;
    // Small latents: against an epsilon of 1e-6 they are large, against 1e-2 they are not.
    let tiny = || {
        let weights = mla_weights(&config, 4);
        MlaWeights { kv_a: scaled(&weights.kv_a, config.kv_lora, 0.05), ..weights }
    };
    assert!(distance(&output_of(&other, tiny()), &output_of(&config, tiny()), config.hidden) > 0.5);
}

#[test]
fn every_weight_of_another_shape_is_refused_by_name() {
    let config = odd_mla();
    let bad = || Rng(1).linear(2, 3, 1.0);
    type Damage<'a> = (&'a str, Box<dyn Fn(&mut MlaWeights) + 'a>);
    let damages: Vec<Damage<'_>> = vec![
        (
            "q.b",
            Box::new(|w| {
                if let QueryProjection::LowRank { b, .. } = &mut w.q {
                    *b = bad()
                }
            }),
        ),
        (
            "q.a",
            Box::new(|w| {
                if let QueryProjection::LowRank { a, .. } = &mut w.q {
                    *a = bad()
                }
            }),
        ),
        (
            "q.a_norm",
            Box::new(|w| {
                if let QueryProjection::LowRank { a_norm, .. } = &mut w.q {
                    a_norm.clear()
                }
            }),
        ),
        ("kv_a", Box::new(|w| w.kv_a = bad())),
        ("kv_a_norm", Box::new(|w| w.kv_a_norm.push(0.0))),
        ("k_b", Box::new(|w| w.k_b[2] = bad())),
        ("k_b", Box::new(|w| drop(w.k_b.pop()))),
        ("v_b", Box::new(|w| w.v_b[0] = bad())),
        ("v_b", Box::new(|w| w.v_b.push(bad()))),
        ("out", Box::new(|w| w.out = bad())),
    ];
    for (wanted, damage) in damages {
        let mut weights = mla_weights(&config, 4);
        damage(&mut weights);
        match MlaAttention::new(config.clone(), weights) {
            Err(Error::WeightShape { name, .. }) => assert_eq!(name, wanted),
            other => panic!("damaged {wanted} gave {other:?}"),
        }
    }
    let direct = MlaWeights { q: QueryProjection::Direct(bad()), ..mla_weights(&config, 4) };
    assert!(matches!(MlaAttention::new(config, direct), Err(Error::Config { field: "q_lora", .. })));
}

#[test]
fn impossible_settings_are_refused_by_name() {
    type Damage = (&'static str, fn(&mut MlaConfig));
    let damages: [Damage; 9] = [
        ("hidden", |c| c.hidden = 0),
        ("n_heads", |c| c.n_heads = 0),
        ("n_heads", |c| c.n_heads = usize::MAX / 2),
        ("q_lora", |c| c.q_lora = Some(0)),
        ("kv_lora", |c| c.kv_lora = usize::MAX),
        ("qk_nope", |c| c.qk_nope = 0),
        ("qk_rope", |c| c.qk_rope = 8),
        ("v_head", |c| c.v_head = 0),
        ("latent_norm_eps", |c| c.latent_norm_eps = f32::NAN),
    ];
    for (wanted, damage) in damages {
        let mut config = odd_mla();
        damage(&mut config);
        match MlaAttention::new(config, mla_weights(&odd_mla(), 4)) {
            Err(Error::Config { field, .. }) => assert_eq!(field, wanted),
            other => panic!("damaged {wanted} gave {other:?}"),
        }
    }
}

/// A ternary `[rows, cols]` matrix for activations in `mode`.
fn ternary(rng: &mut Rng, rows: usize, cols: usize, mode: ActMode) -> Linear {
    let weights = rng.matrix(rows, cols, 1.0);
    let tensor = TernaryTensor::quantize(Packing::Tq2_0, Rounding::AbsMean, rows, cols, &weights, None);
    Linear::ternary(tensor.expect("rows of whole blocks"), mode).expect("a matrix with elements")
}

#[test]
fn ternary_projections_read_activations_in_their_own_mode() {
    let config = mla_config(256, 2, Some(256), [256, 256, 32, 128]);
    let weights = |mode| {
        let (mut rng, c) = (Rng(3), &config);
        let q_width = 2 * (256 + 32);
        MlaWeights {
            q: QueryProjection::LowRank {
                a: ternary(&mut rng, 256, c.hidden, mode),
                a_norm: rng.values(256, 1.0, 0.3),
                b: ternary(&mut rng, q_width, 256, mode),
            },
            kv_a: ternary(&mut rng, 256 + 32, c.hidden, mode),
            kv_a_norm: rng.values(256, 1.0, 0.3),
            k_b: (0..2).map(|_| ternary(&mut rng, 256, 256, mode)).collect(),
            v_b: (0..2).map(|_| ternary(&mut rng, 128, 256, mode)).collect(),
            out: ternary(&mut rng, c.hidden, 2 * 128, mode),
        }
    };
    let of_mode = |mode, chunk| {
        let layer = Attention::Mla(MlaAttention::new(config.clone(), weights(mode)).expect("weights that fit"));
        run(&layer, &Pool::serial(), CacheType::F32, &tokens(&layer, 70, 5), chunk)
    };
    let layer = Attention::Mla(MlaAttention::new(config.clone(), weights(ActMode::F32)).expect("weights that fit"));
    let wanted = expanded::mla(&config, &weights(ActMode::F32), CacheType::F32, &tokens(&layer, 70, 5));

    let error = relative_error(&of_mode(ActMode::F32, 70), &wanted, config.hidden);
    assert!(error < 1e-5, "unquantised activations: {error}");
    for mode in [ActMode::A8Block, ActMode::A8Token] {
        let whole = of_mode(mode, 70);
        let error = relative_error(&whole, &wanted, config.hidden);
        assert!(error > 1e-4 && error < 0.2, "{mode:?} activations: {error}");
        for chunk in [1, 7, 64] {
            assert_eq!(bits(&of_mode(mode, chunk)), bits(&whole), "{mode:?} in chunks of {chunk}");
        }
    }
}
