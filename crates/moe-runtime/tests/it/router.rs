//! The router against its definition written out, and its corner cases.

use moe_runtime::SplitMix64;
use moe_runtime::forward::{MoeRouter, RouterScratch};
use moe_runtime::models::{Gating, GroupScore, Presence, RouterConfig, WeightNorm};
use proptest::prelude::*;
use tl_kernels::{ActivationBuffer, Linear, Pool};

fn config(n_experts: usize, top_k: usize) -> RouterConfig {
    RouterConfig {
        gating: Gating::Sigmoid,
        n_experts,
        top_k,
        n_group: 1,
        topk_group: 1,
        group_score: GroupScore::TopTwoSum,
        norm: WeightNorm::Sum { eps: 1e-20 },
        scaling: 1.8,
        selection_bias: Presence::Detect,
    }
}

/// Routes one token whose logits are `logits`: the weight is a single column read by the input 1.
fn route(config: &RouterConfig, logits: &[f32], bias: Option<&[f32]>) -> (Vec<u32>, Vec<f32>) {
    let weight = Linear::from_f32(logits.len(), 1, logits.to_vec()).expect("a column");
    let router = MoeRouter::new(config.clone(), weight, bias.map(<[f32]>::to_vec)).expect("it fits");
    let mut acts = ActivationBuffer::new();
    acts.set(&[1.0], 1, 1);
    let mut scratch = RouterScratch::default();
    router.route(&Pool::serial(), &acts, &mut scratch);
    (scratch.decision.ids, scratch.decision.weights)
}

/// The definition, with full sorts. `upwards` is the mistake of breaking ties towards the higher index.
fn definition(c: &RouterConfig, logits: &[f32], bias: &[f32], upwards: bool) -> (Vec<u32>, Vec<f64>) {
    let z: Vec<f64> = logits.iter().map(|&z| f64::from(z)).collect();
    let s: Vec<f64> = match c.gating {
        Gating::Sigmoid => z.iter().map(|z| 1.0 / (1.0 + (-z).exp())).collect(),
        Gating::Softmax => {
            let sum: f64 = z.iter().map(|z| z.exp()).sum();
            z.iter().map(|z| z.exp() / sum).collect()
        }
    };
    let best = |values: &[f64], k: usize| {
        let mut order: Vec<usize> = (0..values.len()).collect();
        order.sort_by(|&a, &b| {
            let ties = if upwards { b.cmp(&a) } else { a.cmp(&b) };
            values[b].total_cmp(&values[a]).then(ties)
        });
        order.truncate(k);
        order
    };
    let mut selection: Vec<f64> = s.iter().zip(bias).map(|(s, &b)| s + f64::from(b)).collect();
    let size = c.n_experts / c.n_group;
    let groups: Vec<f64> = selection
        .chunks(size)
        .map(|g| {
            let mut sorted = g.to_vec();
            sorted.sort_by(|a, b| b.total_cmp(a));
            let n = if c.group_score == GroupScore::TopTwoSum { 2 } else { 1 };
            sorted.iter().take(n).sum()
        })
        .collect();
    let kept = best(&groups, c.topk_group);
    for (i, value) in selection.iter_mut().enumerate() {
        if !kept.contains(&(i / size)) {
            *value = f64::NEG_INFINITY;
        }
    }
    let mut ids = best(&selection, c.top_k);
    ids.sort_unstable();
    let mut weights: Vec<f64> = ids.iter().map(|&i| s[i]).collect();
    if let WeightNorm::Sum { eps } = c.norm {
        let sum: f64 = weights.iter().sum::<f64>() + f64::from(eps);
        weights.iter_mut().for_each(|w| *w /= sum);
    }
    weights.iter_mut().for_each(|w| *w *= f64::from(c.scaling));
    (ids.into_iter().map(|i| u32::try_from(i).expect("small")).collect(), weights)
}

#[test]
fn ties_go_to_the_lower_index() {
    let c = config(6, 3);
    let logits = [0.5, 2.0, 0.5, 2.0, 2.0, 2.0];
    let (ids, _) = route(&c, &logits, None);
    assert_eq!(ids, [1, 3, 4]);
    assert_eq!(ids, definition(&c, &logits, &[0.0; 6], false).0);
    assert_ne!(ids, definition(&c, &logits, &[0.0; 6], true).0, "the mistake would be noticed");

    let grouped = RouterConfig { n_group: 3, topk_group: 1, top_k: 1, ..c };
    let (ids, _) = route(&grouped, &[1.0; 6], None);
    assert_eq!(ids, [0]);
    assert_eq!(definition(&grouped, &[1.0; 6], &[0.0; 6], true).0, [5]);
}

#[test]
fn the_bias_selects_and_never_weighs() {
    let c = config(4, 2);
    let (ids, weights) = route(&c, &[1.0, 0.9, 0.0, 0.0], Some(&[-5.0, 0.0, 0.0, 5.0]));
    assert_eq!(ids, [1, 3]);
    let s = [1.0 / (1.0 + (-0.9f32).exp()), 0.5];
    for (w, s_i) in weights.iter().zip(s) {
        assert!((w - 1.8 * s_i / (s[0] + s[1])).abs() < 1e-6);
    }
}

#[test]
fn group_rules_differ() {
    // Group 0 has the best expert, group 1 the best pair.
    let logits = [3.0, -3.0, 1.5, 1.5];
    let pair = RouterConfig { n_group: 2, topk_group: 1, top_k: 1, ..config(4, 1) };
    assert_eq!(route(&pair, &logits, None).0, [2]);
    let single = RouterConfig { group_score: GroupScore::Max, ..pair };
    assert_eq!(route(&single, &logits, None).0, [0]);
}

#[test]
fn groups_of_one_expert_and_groups_below_zero_work() {
    let c = RouterConfig { n_group: 4, topk_group: 2, ..config(4, 2) };
    assert_eq!(route(&c, &[0.0, 3.0, 1.0, 2.0], None).0, [1, 3]);
    // Biased scores below zero: a masked expert must not win by being set to zero.
    let c = RouterConfig { n_group: 2, topk_group: 1, ..config(4, 2) };
    assert_eq!(route(&c, &[2.0, 2.0, 0.0, 0.0], Some(&[-9.0; 4])).0, [0, 1]);
}

#[test]
fn damaged_logits_never_panic() {
    let c = config(4, 2);
    let (ids, _) = route(&c, &[f32::NAN, 1.0, f32::NAN, 2.0], None);
    assert_eq!(ids, [1, 3], "numbers win over NaN");
    let (ids, _) = route(&c, &[f32::NAN; 4], None);
    assert_eq!(ids, [0, 1]);
    let (ids, _) = route(&c, &[f32::NEG_INFINITY; 4], None);
    assert_eq!(ids, [0, 1]);
}

#[test]
fn weights_of_another_size_are_refused() {
    let weight = |rows| Linear::from_f32(rows, 1, vec![0.0; rows]).expect("a column");
    assert!(MoeRouter::new(config(4, 2), weight(5), None).is_err());
    assert!(MoeRouter::new(config(4, 2), weight(4), Some(vec![0.0; 3])).is_err());
}

proptest! {
    #[test]
    fn any_router_equals_its_definition(seed: u64, groups in 1usize..5, size in 1usize..6, softmax: bool, max: bool, norm: bool) {
        let mut random = SplitMix64::new(seed);
        let mut next = |n: u64| usize::try_from(random.next_u64() % n).expect("small");
        let n_experts = groups * size;
        let topk_group = 1 + next(groups as u64);
        let top_k = 1 + next((topk_group * size) as u64);
        let c = RouterConfig {
            gating: if softmax { Gating::Softmax } else { Gating::Sigmoid },
            n_group: groups,
            topk_group,
            group_score: if max { GroupScore::Max } else { GroupScore::TopTwoSum },
            norm: if norm { WeightNorm::Sum { eps: 1e-20 } } else { WeightNorm::None },
            ..config(n_experts, top_k)
        };
        // distinct multiples of 1/8 keep F32 and F64 in the same order.
        let mut logits: Vec<f32> = (0..n_experts).map(|i| i as f32 / 8.0 - 1.0).collect();
        for i in (1..n_experts).rev() {
            logits.swap(i, next(i as u64 + 1));
        }
        let bias: Vec<f32> = (0..n_experts).map(|_| next(64) as f32 / 300.0).collect();
        let (ids, weights) = route(&c, &logits, Some(&bias));
        let (want_ids, want) = definition(&c, &logits, &bias, false);
        prop_assert_eq!(ids, want_ids);
        for (got, want) in weights.iter().zip(want) {
            prop_assert!((f64::from(*got) - want).abs() < 1e-5);
        }
    }
}
