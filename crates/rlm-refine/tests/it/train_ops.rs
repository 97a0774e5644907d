//! Every backward operation against differences of its forward one: eight random directions, the best of three steps.

use mla_attention::{Rope, RopeStyle};
use moe_runtime::forward::RoutingDecision;
use moe_runtime::models::{Activation, Gating, GroupScore, Presence, RouterConfig, WeightNorm};
use rlm_refine::train::ops::attend::{Heads, Qkv, attend, attend_backward};
use rlm_refine::train::ops::gate::{gated, gated_backward};
use rlm_refine::train::ops::loss::{Action, Target, cross_entropy, divergence, log_probability};
use rlm_refine::train::ops::norm::{NormGradients, rms_norm, rms_norm_backward};
use rlm_refine::train::ops::rope::{Turn, Turns};
use rlm_refine::train::ops::route::route_backward;
use tl_kernels::Pool;

use crate::directions::{assert_gradient, dot, samples};

#[test]
fn the_norm() {
    let (n, width, eps) = (5, 12, 1e-5);
    let (x, weight, out) = (samples(1, n * width), samples(2, width), samples(3, n * width));
    let pool = Pool::new(2).unwrap();
    let (mut d_x, mut d_weight) = (vec![0.0; n * width], vec![0.0; width]);
    let into = NormGradients { d_x: &mut d_x, d_weight: Some(&mut d_weight) };
    rms_norm_backward(&x, &weight, eps, &out, into);
    assert_gradient("x", &x, &d_x, |x| dot(&rms_norm(&pool, x, &weight, eps), &out));
    assert_gradient("weight", &weight, &d_weight, |weight| dot(&rms_norm(&pool, &x, weight, eps), &out));
}

#[test]
fn rotation_back_is_the_transpose_of_rotation() {
    for style in [RopeStyle::Interleaved, RopeStyle::Halves] {
        let turns = Turns::new(&Rope::new(100.0, 8, style).unwrap(), 6);
        let (x, out) = (samples(1, 8), samples(2, 8));
        let turned = |x: &[f32], turn| {
            let mut x = x.to_vec();
            turns.rotate(5, &mut x, turn);
            x
        };
        let d_x = turned(&out, Turn::Backward);
        assert_gradient("x", &x, &d_x, |x| dot(&turned(x, Turn::Forward), &out));
        assert!((dot(&d_x, &d_x) - dot(&out, &out)).abs() < 1e-5);
    }
}

#[test]
fn attention_of_shared_and_of_own_keys() {
    let pool = Pool::new(2).unwrap();
    // The second window of two is longer than two blocks of rows.
    for (n_heads, n_kv, windows) in [(4, 2, &[7, 1, 4][..]), (3, 3, &[7, 1, 4]), (2, 1, &[5, 150])] {
        let heads = Heads { n: n_heads, n_kv, key: 6, value: 5, scale: 0.4 };
        let tokens: usize = windows.iter().sum();
        let qkv = Qkv {
            q: samples(1, tokens * n_heads * 6),
            k: samples(2, tokens * n_kv * 6),
            v: samples(3, tokens * n_kv * 5),
        };
        let out = samples(4, tokens * n_heads * 5);
        let d = attend_backward(&pool, heads, windows, &qkv, &out);
        let loss = |qkv: Qkv| dot(&attend(&pool, heads, windows, &qkv), &out);
        assert_gradient("q", &qkv.q, &d.q, |q| loss(Qkv { q: q.to_vec(), ..qkv.clone() }));
        assert_gradient("k", &qkv.k, &d.k, |k| loss(Qkv { k: k.to_vec(), ..qkv.clone() }));
        assert_gradient("v", &qkv.v, &d.v, |v| loss(Qkv { v: v.to_vec(), ..qkv.clone() }));
        let serial = attend_backward(&Pool::serial(), heads, windows, &qkv, &out);
        assert_eq!([d.q, d.k, d.v], [serial.q, serial.k, serial.v], "threads do not matter");
    }
}

#[test]
fn a_position_sees_no_later_one_and_no_other_window() {
    let heads = Heads { n: 1, n_kv: 1, key: 3, value: 2, scale: 1.0 };
    let qkv = Qkv { q: samples(1, 15), k: samples(2, 15), v: samples(3, 10) };
    let mut out = vec![0.0; 10];
    out[4] = 1.0;
    // Row 2 is the last of the first window, [0, 3).
    let d = attend_backward(&Pool::serial(), heads, &[3, 2], &qkv, &out);
    assert!(d.v[..6].iter().any(|d| *d != 0.0) && d.v[6..].iter().all(|d| *d == 0.0));
    let mut first = vec![0.0; 10];
    first[0] = 1.0;
    let d = attend_backward(&Pool::serial(), heads, &[3, 2], &qkv, &first);
    assert!(d.v[0] == 1.0 && d.v[2..].iter().all(|d| *d == 0.0), "the first row sees itself only");
}

#[test]
fn the_gate_of_either_kind() {
    for activation in Activation::ALL {
        let (gate, up, out) = (samples(1, 40), samples(2, 40), samples(3, 40));
        let [d_gate, d_up] = gated_backward(activation, &gate, &up, &out);
        assert_gradient("gate", &gate, &d_gate, |gate| dot(&gated(activation, gate, &up), &out));
        assert_gradient("up", &up, &d_up, |up| dot(&gated(activation, &gate, up), &out));
    }
}

/// Scores, and the weights of a fixed choice, in F64.
fn weights(config: &RouterConfig, logits: &[f32], ids: &[u32]) -> (Vec<f32>, Vec<f64>) {
    let (e, k) = (config.n_experts, config.top_k);
    let (mut scores, mut weights) = (Vec::new(), Vec::new());
    for (z, ids) in logits.chunks_exact(e).zip(ids.chunks_exact(k)) {
        let sum: f64 = z.iter().map(|&z| f64::from(z).exp()).sum();
        let s: Vec<f64> = z
            .iter()
            .map(|&z| match config.gating {
                Gating::Sigmoid => 1.0 / (1.0 + f64::from(-z).exp()),
                Gating::Softmax => f64::from(z).exp() / sum,
            })
            .collect();
        let divisor = match config.norm {
            WeightNorm::None => 1.0,
            WeightNorm::Sum { eps } => ids.iter().map(|&id| s[id as usize]).sum::<f64>() + f64::from(eps),
        };
        weights.extend(ids.iter().map(|&id| f64::from(config.scaling) * s[id as usize] / divisor));
        scores.extend(s.iter().map(|&s| s as f32));
    }
    (scores, weights)
}

#[test]
fn the_router_of_every_rule() {
    for gating in [Gating::Sigmoid, Gating::Softmax] {
        for norm in [WeightNorm::None, WeightNorm::Sum { eps: 1e-20 }] {
            let config = RouterConfig {
                gating,
                n_experts: 6,
                top_k: 2,
                n_group: 1,
                topk_group: 1,
                group_score: GroupScore::Max,
                norm,
                scaling: 1.8,
                selection_bias: Presence::Absent,
            };
            let (logits, out) = (samples(1, 18), samples(2, 6));
            let ids = vec![0, 3, 1, 5, 2, 4];
            let (scores, _) = weights(&config, &logits, &ids);
            let decision = RoutingDecision { top_k: 2, ids: ids.clone(), weights: vec![0.0; 6] };
            let d = route_backward(&config, &scores, &decision, &out);
            assert_gradient("logits", &logits, &d, |logits| {
                weights(&config, logits, &ids).1.iter().zip(&out).map(|(w, &o)| w * f64::from(o)).sum()
            });
        }
    }
}

#[test]
fn the_losses() {
    let (logits, teacher) = (samples(1, 20), samples(2, 20));
    let gradient = |loss: &dyn Fn(&[f32], &mut [f32]) -> f64| {
        let mut d = vec![0.0; 20];
        loss(&logits, &mut d);
        assert_gradient("logits", &logits, &d, |logits| loss(logits, &mut [0.0; 20]));
        assert!(d.iter().sum::<f32>().abs() < 1e-5, "a constant added to all logits changes nothing");
    };
    gradient(&|logits, d| divergence(logits, Target::Full(&teacher), 1.0, d));
    let sparse = Target::Sparse { tokens: &[3, 7, 11], probabilities: &[0.4, 0.2, 0.1] };
    gradient(&|logits, d| divergence(logits, sparse, 1.0, d));
    gradient(&|logits, d| cross_entropy(logits, 4, 1.0, d));
}

#[test]
fn the_surrogate_of_a_sampled_token_follows_its_differences_and_stops_beyond_the_clip() {
    let logits = samples(1, 20);
    let now = log_probability(&logits, 4);
    let action = Action { token: 4, advantage: 1.0, old: now, reference: now, clip: 0.2, beta: 0.0 };
    let gradient = |action: Action| {
        let mut d = vec![0.0; 20];
        divergence(&logits, Target::Action(action), 1.0, &mut d);
        d
    };
    for (advantage, old, beta) in [(1.5, now, 0.0), (-0.7, now + 0.1, 0.0), (0.5, now - 0.1, 0.5), (0.0, now, 2.0)] {
        let action = Action { advantage, old, reference: now + 0.3, beta, ..action };
        assert_gradient("action", &logits, &gradient(action), |logits| {
            divergence(logits, Target::Action(action), 1.0, &mut [0.0; 20])
        });
    }
    // Steps raise a token with an advantage and lower one with a disadvantage.
    assert!(gradient(action)[4] < 0.0 && gradient(Action { advantage: -1.0, ..action })[4] > 0.0);
    // A token that is likelier already than the clip allows earns nothing, and one that became less likely is still pushed up.
    assert_eq!(gradient(Action { old: now - 0.3, ..action }), [0.0; 20]);
    assert!(gradient(Action { old: now + 0.3, ..action })[4] < 0.0);
    assert_eq!(gradient(Action { advantage: -1.0, old: now + 0.3, ..action }), [0.0; 20]);
    // The penalty is 0 at the reference and grows to both sides.
    let penalty = |reference| {
        let action = Action { advantage: 0.0, reference, beta: 1.0, ..action };
        divergence(&logits, Target::Action(action), 1.0, &mut [0.0; 20])
    };
    assert!(penalty(now).abs() < 1e-12 && penalty(now + 0.2) > 0.01 && penalty(now - 0.2) > 0.01);
}

#[test]
fn the_divergence_of_equal_logits_is_zero_and_a_sparse_teacher_that_knows_all_is_a_full_one() {
    let (logits, teacher) = (samples(1, 9), samples(2, 9));
    let mut d = vec![0.0; 9];
    assert!(divergence(&logits, Target::Full(&logits), 1.0, &mut d).abs() < 1e-12);
    assert!(d.iter().all(|d| d.abs() < 1e-7));
    let sum: f64 = teacher.iter().map(|&z| f64::from(z).exp()).sum();
    let probabilities: Vec<f32> = teacher.iter().map(|&z| (f64::from(z).exp() / sum) as f32).collect();
    let tokens: Vec<u32> = (0..9).collect();
    let sparse = Target::Sparse { tokens: &tokens, probabilities: &probabilities };
    let (mut full, mut all) = (vec![0.0; 9], vec![0.0; 9]);
    let a = divergence(&logits, Target::Full(&teacher), 0.5, &mut full);
    let b = divergence(&logits, sparse, 0.5, &mut all);
    assert!((a - b).abs() < 1e-5 && full.iter().zip(&all).all(|(a, b)| (a - b).abs() < 1e-5), "{a} {b}");
}
