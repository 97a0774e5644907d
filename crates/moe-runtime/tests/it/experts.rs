//! The experts of a layer: the output of each, the order in which outputs are added, and the call of the residency hook.

use std::sync::{Arc, Mutex};

use moe_runtime::SplitMix64;
use moe_runtime::forward::{
    At, ExpertBank, ExpertId, ExpertScratch, FfnBatch, FfnScratch, RoutedBatch, RoutingDecision, SwiGlu, Taps,
};
use moe_runtime::models::Activation;
use tl_kernels::{ActivationBuffer, Linear, Pool, math};

const HIDDEN: usize = 20;
const FF: usize = 12;

fn network(random: &mut SplitMix64, ff: usize) -> SwiGlu {
    let mut matrix = |rows: usize, cols: usize| {
        let weights = (0..rows * cols).map(|_| random.next_f64() as f32 - 0.5).collect();
        Linear::from_f32(rows, cols, weights).expect("a matrix")
    };
    SwiGlu::new(matrix(ff, HIDDEN), matrix(ff, HIDDEN), matrix(HIDDEN, ff)).expect("they fit")
}

/// Multiplies one matrix with one row.
fn apply(linear: &Linear, x: &[f32]) -> Vec<f32> {
    let mut acts = ActivationBuffer::new();
    acts.set(x, 1, x.len());
    let mut y = vec![0.0; linear.rows()];
    linear.forward(&Pool::serial(), &acts, &mut y);
    y
}

/// Computes one network on one row, by its definition.
fn alone(network: &SwiGlu, x: &[f32]) -> Vec<f32> {
    let (gate, up) = (apply(network.gate(), x), apply(network.up(), x));
    let hidden: Vec<f32> = gate.iter().zip(up).map(|(&g, u)| math::silu(g) * u).collect();
    apply(network.down(), &hidden)
}

#[derive(Default)]
struct Seen {
    order: Vec<(ExpertId, Vec<u32>)>,
    rows: Vec<Vec<f32>>,
    hidden_widths: Vec<usize>,
    outputs: Vec<(ExpertId, Vec<f32>)>,
}

impl Taps for Seen {
    fn expert_in(&mut self, _: At, expert: ExpertId, tokens: &[u32], x: &ActivationBuffer) {
        self.order.push((expert, tokens.to_vec()));
        self.rows.extend(tokens.iter().map(|&t| x.row(t as usize).to_vec()));
    }
    fn expert_hidden(&mut self, _: At, _: ExpertId, tokens: &[u32], rows: &[f32]) {
        self.hidden_widths.push(rows.len() / tokens.len());
    }
    fn expert_out(&mut self, _: At, expert: ExpertId, tokens: &[u32], y: &[f32]) {
        assert_eq!(y.len(), tokens.len() * HIDDEN);
        self.outputs.push((expert, y.to_vec()));
    }
}

#[test]
fn outputs_are_added_in_ascending_order_and_the_shared_expert_last() {
    let mut random = SplitMix64::new(3);
    let routed: Vec<SwiGlu> = (0..5).map(|_| network(&mut random, FF)).collect();
    let shared = network(&mut random, 2 * FF);
    let told = Arc::new(Mutex::new(Vec::new()));
    let mut bank = ExpertBank::new(routed.clone(), Some(shared.clone()));
    let log = told.clone();
    bank.set_residency_hook(Arc::new(move |layer, ids: &[u32]| {
        log.lock().expect("no panic holds it").push((layer, ids.to_vec()));
    }));

    let x: Vec<f32> = (0..3 * HIDDEN).map(|_| random.next_f64() as f32 - 0.5).collect();
    let decision =
        RoutingDecision { top_k: 2, ids: vec![1, 4, 0, 4, 1, 4], weights: vec![0.7, 1.1, 0.9, 0.3, 1.3, 0.2] };
    let (mut acts, mut scratch) = (ActivationBuffer::new(), ExpertScratch::default());
    let mut forward = |pool: &Pool, taps: &mut Seen, decision: &RoutingDecision| {
        acts.set(&x, 3, HIDDEN);
        let at = At { layer: 8, first: 0, n: 3 };
        let batch = RoutedBatch { pool, at, x: &mut acts, decision, adapter: None };
        bank.forward(batch, &mut scratch, taps).map(<[f32]>::to_vec)
    };
    let mut seen = Seen::default();
    let y = forward(&Pool::serial(), &mut seen, &decision).expect("the decision fits");
    for threads in [2, 7] {
        let pool = Pool::new(threads).expect("threads start");
        assert_eq!(forward(&pool, &mut Seen::default(), &decision).expect("the decision fits"), y);
    }

    for (t, x) in x.chunks(HIDDEN).enumerate() {
        let mut want = vec![0f32; HIDDEN];
        for (id, weight) in decision.token(t) {
            let out = alone(&routed[id as usize], x);
            want.iter_mut().zip(out).for_each(|(y, o)| *y = weight.mul_add(o, *y));
        }
        want.iter_mut().zip(alone(&shared, x)).for_each(|(y, o)| *y += o);
        assert_eq!(y[t * HIDDEN..][..HIDDEN], want, "token {t}");
    }
    let order = [
        (ExpertId::Routed(0), vec![1]),
        (ExpertId::Routed(1), vec![0, 2]),
        (ExpertId::Routed(4), vec![0, 1, 2]),
        (ExpertId::Shared, vec![0, 1, 2]),
    ];
    assert_eq!(seen.order, order);
    let tokens = order.iter().flat_map(|(_, tokens)| tokens.iter().map(|&t| &x[t as usize * HIDDEN..][..HIDDEN]));
    assert!(seen.rows.iter().eq(tokens), "each expert read its own tokens");
    assert_eq!(seen.hidden_widths, [FF, FF, FF, 2 * FF]);
    for (id, outputs) in &seen.outputs {
        let (network, tokens) = match id {
            ExpertId::Routed(e) => (&routed[*e], &order.iter().find(|(o, _)| o == id).expect("it is in order").1),
            _ => (&shared, &order[3].1),
        };
        for (&t, out) in tokens.iter().zip(outputs.chunks(HIDDEN)) {
            assert_eq!(alone(network, &x[t as usize * HIDDEN..][..HIDDEN]), out, "{id:?}, token {t}");
        }
    }
    assert_eq!(seen.outputs.len(), 4);
    assert_eq!(*told.lock().expect("no panic holds it"), vec![(8, vec![0, 1, 4]); 3]);

    // The same expert twice for one token, and none at all of the others, is a valid forced routing.
    let forced = RoutingDecision { ids: vec![2; 6], ..decision.clone() };
    assert!(forward(&Pool::serial(), &mut Seen::default(), &forced).is_ok());
    let short = RoutingDecision { top_k: 2, ids: vec![0, 1], weights: vec![1.0, 1.0] };
    assert!(forward(&Pool::serial(), &mut Seen::default(), &short).is_err());
}

#[test]
fn matrices_that_do_not_fit_each_other_are_refused() {
    let matrix = |rows: usize, cols: usize| Linear::from_f32(rows, cols, vec![0.0; rows * cols]).expect("a matrix");
    assert!(SwiGlu::new(matrix(4, 3), matrix(4, 3), matrix(3, 4)).is_ok());
    assert!(SwiGlu::new(matrix(4, 3), matrix(5, 3), matrix(3, 4)).is_err());
    let message = SwiGlu::new(matrix(4, 3), matrix(4, 3), matrix(4, 3)).expect_err("down is wrong").to_string();
    assert!(message.contains("feed-forward down"), "{message}");
}

#[test]
fn a_squared_relu_is_computed_by_its_definition() {
    let network = network(&mut SplitMix64::new(5), FF).with_activation(Activation::SquaredRelu);
    let x: Vec<f32> = (0..HIDDEN).map(|i| i as f32 / 7.0 - 1.0).collect();
    let (gate, up) = (apply(network.gate(), &x), apply(network.up(), &x));
    assert!(gate.iter().any(|&g| g < 0.0) && gate.iter().any(|&g| g > 0.0));
    let hidden: Vec<f32> = gate.iter().zip(up).map(|(&g, u)| g.max(0.0) * g.max(0.0) * u).collect();
    let expected = apply(network.down(), &hidden);

    let mut acts = ActivationBuffer::new();
    acts.set(&x, 1, HIDDEN);
    let mut got = vec![0.0; HIDDEN];
    let batch = FfnBatch { pool: &Pool::serial(), x: &mut acts, adapter: None };
    network.forward(batch, &mut FfnScratch::default(), &mut got, |seen| assert_eq!(seen, hidden));
    assert_eq!(got, expected);
}

#[test]
fn hidden_rows_are_the_input_of_down_also_with_other_gates() {
    let (mut random, pool) = (SplitMix64::new(8), Pool::new(2).expect("two threads"));
    let (network, other) = (network(&mut random, FF), network(&mut random, FF));
    let mixed = network.with_gate_and_up(other.gate().clone(), other.up().clone()).expect("they fit");
    assert_eq!(apply(mixed.down(), &[1.0; FF]), apply(network.down(), &[1.0; FF]));
    let x: Vec<f32> = (0..5 * HIDDEN).map(|i| (i % 13) as f32 / 6.0 - 1.0).collect();
    let mut acts = ActivationBuffer::new();
    for network in [&network, &mixed] {
        acts.set(&x, 5, HIDDEN);
        let (mut rows, mut y, mut seen) = (vec![0.0; 5 * FF], vec![0.0; 5 * HIDDEN], Vec::new());
        network.hidden_rows(&pool, &mut acts, &mut rows);
        let batch = FfnBatch { pool: &pool, x: &mut acts, adapter: None };
        network.forward(batch, &mut FfnScratch::default(), &mut y, |hidden| seen = hidden.to_vec());
        assert_eq!(rows, seen);
        assert_eq!(y[..HIDDEN], alone(network, &x[..HIDDEN])[..]);
    }
    assert!(network.with_gate_and_up(other.down().clone(), other.up().clone()).is_err());
}
