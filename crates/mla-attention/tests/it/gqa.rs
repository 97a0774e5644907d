//! Grouped-query attention equals the oracle; every weight and setting changes its output.

use crate::expanded;
use crate::layers::{distance, gqa, gqa_config, gqa_weights, relative_error, run, tokens};
use mla_attention::{Attention, CacheType, Error, GqaAttention, GqaConfig, GqaWeights, Rope, RopeStyle};
use proptest::prelude::*;
use tl_kernels::Pool;

/// F32 caches: the oracle takes its sums in another order and in f64. F16 caches: in addition, a value may round to
/// one F16 in the oracle and to its neighbour in the layer, which differ by 2^-10 of the value.
const TOLERANCES: [(CacheType, f64); 2] = [(CacheType::F32, 1e-5), (CacheType::F16, 5e-4)];

fn error_of(config: &GqaConfig, options: [bool; 2], ty: CacheType, n: usize, chunk: usize) -> f64 {
    let [bias, norm] = options;
    let layer = gqa(config, bias, norm, 9);
    let x = tokens(&layer, n, 10);
    let wanted = expanded::gqa(config, &gqa_weights(config, bias, norm, 9), ty, &x);
    relative_error(&run(&layer, &Pool::serial(), ty, &x, chunk), &wanted, config.hidden)
}

#[test]
fn it_equals_the_oracle_with_and_without_biases_and_norms() {
    // All heads of one key head, groups, one key head per head; no, partial and full rotation.
    for shape in [[6, 2, 10, 6], [4, 4, 16, 8], [3, 1, 7, 0], [5, 5, 4, 4]] {
        let [n_heads, n_kv_heads, head_dim, rotary_dims] = shape;
        let config = gqa_config(n_heads, n_kv_heads, head_dim, rotary_dims);
        for bias in [false, true] {
            for norm in [false, true] {
                for (ty, tolerance) in TOLERANCES {
                    let error = error_of(&config, [bias, norm], ty, 140, 37);
                    assert!(error < tolerance, "{shape:?} bias {bias} norm {norm} {ty:?}: relative error {error}");
                }
            }
        }
    }
}

/// INT8 caches add the rounding of the queries and of the weights to that of keys and values, which the oracle has as well.
/// Against an exact cache the errors of all three add up.
#[test]
fn int8_caches_stay_near_the_oracle() {
    for [n_heads, n_kv_heads, head_dim, rotary_dims] in [[6, 2, 64, 64], [4, 4, 128, 64], [3, 1, 30, 0]] {
        let config = gqa_config(n_heads, n_kv_heads, head_dim, rotary_dims);
        let (layer, weights) = (gqa(&config, true, true, 9), gqa_weights(&config, true, true, 9));
        let x = tokens(&layer, 300, 10);
        let got = run(&layer, &Pool::serial(), CacheType::I8, &x, 70);
        for (oracle, at_most) in [(CacheType::I8, 0.03), (CacheType::F32, 0.05)] {
            let error = relative_error(&got, &expanded::gqa(&config, &weights, oracle, &x), config.hidden);
            assert!(error > 1e-4 && error < at_most, "heads of {head_dim} against {oracle}: relative error {error}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn it_equals_the_oracle_for_any_size(
        n_kv_heads in 1usize..4,
        group in 1usize..4,
        head_dim in 1usize..40,
        rotary in 0usize..20,
        n in 1usize..80,
        chunk in 1usize..80,
        options in any::<[bool; 2]>(),
    ) {
        let rotary_dims = (2 * rotary).min(head_dim / 2 * 2);
        let config = gqa_config(n_kv_heads * group, n_kv_heads, head_dim, rotary_dims);
        let error = error_of(&config, options, CacheType::F32, n, chunk);
        prop_assert!(error < 1e-4, "relative error {}", error);
    }
}

/// The output of 70 tokens with damaged weights or settings.
fn output_of(damage: impl Fn(&mut GqaConfig, &mut GqaWeights)) -> Vec<f32> {
    let mut config = gqa_config(6, 2, 10, 6);
    let mut weights = gqa_weights(&config, true, true, 9);
    damage(&mut config, &mut weights);
    let layer = Attention::Gqa(GqaAttention::new(config, weights).expect("weights that fit"));
    let x = tokens(&layer, 70, 10);
    run(&layer, &Pool::serial(), CacheType::F32, &x, 70)
}

#[test]
fn every_part_makes_a_difference() {
    let plain = output_of(|_, _| ());
    type Damage = (&'static str, fn(&mut GqaConfig, &mut GqaWeights));
    let damages: [Damage; 9] = [
        ("no query bias", |_, w| w.q_bias = None),
        ("no key bias", |_, w| w.k_bias = None),
        ("no value bias", |_, w| w.v_bias = None),
        ("no query norm", |_, w| w.q_norm = None),
        ("no key norm", |_, w| w.k_norm = None),
        ("no output norm", |_, w| w.out_norm = None),
        ("neighbours instead of halves", |c, _| {
            c.rope = Rope::new(1e4, 6, RopeStyle::Interleaved).expect("an even width");
        }),
        ("the whole head rotated", |c, _| {
            c.rotary_dims = 10;
            c.rope = Rope::new(1e4, 10, RopeStyle::Halves).expect("an even width");
        }),
        ("another epsilon", |c, _| c.norm_eps = 0.5),
    ];
    for (what, damage) in damages {
        let change = distance(&output_of(damage), &plain, 45);
        assert!(change > 0.01, "{what} changes the output by {change} only");
    }
}

#[test]
fn wrong_weights_and_settings_are_refused_by_name() {
    let refusal = |damage: fn(&mut GqaConfig, &mut GqaWeights)| {
        let mut config = gqa_config(6, 2, 10, 6);
        let mut weights = gqa_weights(&config, true, true, 9);
        damage(&mut config, &mut weights);
        match GqaAttention::new(config, weights) {
            Err(Error::WeightShape { name, .. }) => name,
            Err(Error::Config { field, .. }) => field,
            other => panic!("nothing was refused: {other:?}"),
        }
    };
    assert_eq!(refusal(|_, w| std::mem::swap(&mut w.q, &mut w.k)), "q");
    assert_eq!(refusal(|_, w| w.q_bias = w.k_bias.clone()), "q_bias");
    assert_eq!(refusal(|_, w| w.k_bias = Some(vec![])), "k_bias");
    assert_eq!(refusal(|_, w| w.v_bias = Some(vec![])), "v_bias");
    assert_eq!(refusal(|_, w| w.q_norm = w.q_bias.clone()), "q_norm");
    assert_eq!(refusal(|_, w| w.k_norm = Some(vec![])), "k_norm");
    assert_eq!(refusal(|_, w| w.out_norm = w.q_norm.clone()), "out_norm");
    assert_eq!(refusal(|c, _| c.n_kv_heads = 4), "n_kv_heads");
    assert_eq!(refusal(|c, _| c.n_kv_heads = 0), "n_kv_heads");
    assert_eq!(refusal(|c, _| c.rotary_dims = 12), "rotary_dims");
    assert_eq!(refusal(|c, _| c.rotary_dims = 4), "rotary_dims");
    assert_eq!(refusal(|c, _| c.head_dim = usize::MAX / 2), "n_heads");
    assert_eq!(refusal(|c, _| c.norm_eps = f32::INFINITY), "norm_eps");
}
