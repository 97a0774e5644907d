//! Many sequences in one step: each has the bits that it has alone, whatever arrives, ends or is interrupted beside it.

use std::path::PathBuf;
use std::sync::Arc;

use mla_attention::{CacheType, CompressedMlaCache};
use moe_runtime::forward::{At, Taps};
use moe_runtime::storage::{Tiles, WeightStorage};
use moe_runtime::{
    CraftsmanModel, Error, Interrupt, LoadOptions, Logits, MemoryPlan, ModelFiles, Session, SessionError, Step,
    StepSegment,
};
use ternary_core::ActMode;
use tl_kernels::Pool;

use crate::golden::{case, load_changed, read_case};

const TYPES: [CacheType; 3] = [CacheType::F32, CacheType::F16, CacheType::I8];

/// A sequence of tokens that are all known: how many come in each step, and which logits are asked for.
struct Script {
    tokens: Vec<u32>,
    /// Per step; 0 for a step without the sequence.
    sizes: Vec<usize>,
    logits: Logits,
}

/// Sequence `i`: prompts of other lengths in other chunks, which arrive in other steps; decoded tokens and drafts behind them.
fn script(i: usize, vocab: usize) -> Script {
    let sizes: &[usize] = match i % 8 {
        0 => &[1, 1, 1, 1, 1, 1, 1],
        1 => &[20, 30, 20, 1, 1, 1, 0],
        2 => &[0, 66, 1, 1, 4, 1, 1],
        3 => &[0, 0, 3, 8, 8, 0, 0],
        4 => &[64, 1, 1, 0, 0, 0, 0],
        5 => &[0, 0, 0, 0, 40, 30, 1],
        6 => &[2, 1, 4, 1, 1, 2, 1],
        _ => &[7, 0, 0, 7, 0, 0, 7],
    };
    let n: usize = sizes.iter().sum();
    let token = |p: usize| u32::try_from((p * 7 + i * 13 + p * p % 11) % vocab).expect("a small vocabulary");
    let logits = [Logits::Last, Logits::All][i / 2 % 2];
    Script { tokens: (0..n).map(token).collect(), sizes: sizes.to_vec(), logits }
}

fn bits(logits: &[f32]) -> Vec<u32> {
    logits.iter().map(|v| v.to_bits()).collect()
}

/// The logits of every position of a sequence that is alone.
fn alone(model: &Arc<CraftsmanModel>, ty: CacheType, tokens: &[u32]) -> Vec<Vec<u32>> {
    let mut rows = Vec::new();
    let mut session = Session::new(model.clone(), 256, ty).expect("a small cache fits");
    let mut sink = |_: usize, row: &[f32]| {
        rows.push(bits(row));
        Ok(())
    };
    session.step_rows(tokens, 0, &mut (), &mut sink).expect("the model runs");
    // One token after the other gives the same rows.
    session.reset();
    for (&token, row) in tokens.iter().zip(&rows) {
        assert!(bits(session.step(&[token], &mut ()).expect("one token fits")) == *row);
    }
    rows
}

/// Runs `scripts` in common steps and compares every row of logits with the ones of the sequences `alone`.
fn check(model: &Arc<CraftsmanModel>, ty: CacheType, scripts: &[Script], alone: &[Vec<Vec<u32>>], name: &str) {
    let mut step = Step::new(model.clone());
    let mut caches: Vec<_> = scripts.iter().map(|_| step.new_cache(128, ty).expect("a small cache fits")).collect();
    let never = Interrupt::default();
    let vocab = model.config().vocab;
    for at in 0..scripts[0].sizes.len() {
        let present: Vec<_> = (0..scripts.len()).rev().filter(|&i| scripts[i].sizes[at] > 0).collect();
        for &i in &present {
            let (first, Script { tokens, sizes, logits }) = (caches[i].len(), &scripts[i]);
            let tokens = &tokens[first..first + sizes[at]];
            step.add(&caches, &StepSegment { cache: i, tokens, logits: *logits, interrupt: &never }).expect("it fits");
        }
        step.run(&mut caches, &mut ()).expect("the model runs");
        assert_eq!(step.len(), present.len());
        for (segment, &i) in present.iter().enumerate() {
            let end = caches[i].len();
            let rows = if scripts[i].logits == Logits::All { scripts[i].sizes[at] } else { 1 };
            let got: Vec<_> = step.logits(segment).chunks(vocab).map(bits).collect();
            assert!(got == alone[i][end - rows..end], "{name}, {ty}: sequence {i} of {}, step {at}", scripts.len());
        }
    }
}

fn check_all(model: &Arc<CraftsmanModel>, name: &str) {
    for ty in TYPES {
        let scripts: Vec<_> = (0..16).map(|i| script(i, model.config().vocab)).collect();
        let alone: Vec<_> = scripts.iter().map(|script| alone(model, ty, &script.tokens)).collect();
        for n in [2, 4, 8, 16] {
            check(model, ty, &scripts[..n], &alone, name);
        }
    }
}

#[test]
fn float_models_give_each_sequence_the_bits_it_has_alone() {
    for name in ["glm-tiny", "groups", "odd", "glm4-moe-gqa", "deepseek-v2-groups", "llama-tied-odd"] {
        check_all(&load_changed(name, |_| {}), name);
    }
}

#[test]
fn ternary_models_do_too_in_every_layout_on_any_number_of_threads() {
    let path: PathBuf = case("ternary-forward").join("model.gguf");
    for (threads, act_mode) in [(1, ActMode::A8Block), (2, ActMode::A8Token), (7, ActMode::A8Block)] {
        for storage in [WeightStorage::File, WeightStorage::Tiles(Tiles { growth_bytes: u64::MAX, cache: None })] {
            let pool = Arc::new(Pool::new(threads).expect("threads start"));
            let name = format!("{act_mode:?}, {threads} threads, {storage:?}");
            let options = LoadOptions { act_mode: Some(act_mode), pool, storage, ..LoadOptions::default() };
            check_all(&Arc::new(CraftsmanModel::load(&path, &options).expect("the model loads")), &name);
        }
    }
}

/// The mini teacher has greedy answers that transformers computed; four of them run side by side, each from another step on.
#[test]
fn the_goldens_of_models_come_out_side_by_side() {
    for name in ["glm-tiny", "glm4-moe-gqa"] {
        let golden = read_case(name);
        let model = load_changed(name, |_| {});
        let vocab = model.config().vocab;
        let mut step = Step::new(model.clone());
        let mut caches: Vec<_> = (0..4).map(|_| step.new_cache(64, CacheType::F32).expect("it fits")).collect();
        let never = Interrupt::default();
        let mut worst = 0f32;
        for at in 0..golden.tokens.len() + 3 {
            let mut rows = Vec::new();
            for cache in 0..4 {
                let Some(token) = at.checked_sub(cache).and_then(|row| golden.tokens.get(row)) else { continue };
                let tokens = std::slice::from_ref(token);
                let segment = StepSegment { cache, tokens, logits: Logits::Last, interrupt: &never };
                step.add(&caches, &segment).expect("it fits");
                rows.push(at - cache);
            }
            step.run(&mut caches, &mut ()).expect("the model runs");
            for (segment, row) in rows.into_iter().enumerate() {
                let want = &golden.logits[row * vocab..][..vocab];
                worst = step.logits(segment).iter().zip(want).map(|(a, b)| (a - b).abs()).fold(worst, f32::max);
            }
        }
        assert!(worst > 0.0 && worst < crate::golden::LOGITS, "{name}: {worst}");
    }
}

/// Raises an interrupt behind a layer.
struct RaiseBehind<'a> {
    layer: usize,
    interrupt: &'a Interrupt,
    rows: Vec<usize>,
}

impl Taps for RaiseBehind<'_> {
    fn layer_out(&mut self, at: At, _x: &mut [f32]) {
        self.rows.push(at.n);
        if at.layer == self.layer {
            self.interrupt.raise();
        }
    }
}

#[test]
fn an_interrupted_segment_leaves_between_layers_and_the_others_do_not_notice() {
    for name in ["glm-tiny", "glm4-moe-gqa"] {
        let model = load_changed(name, |_| {});
        let tokens = [3u32, 7, 11].map(|seed| (0..20).map(|p| (p * seed + p * p) % 29).collect::<Vec<_>>());
        for leaver in 0..3 {
            let mut step = Step::new(model.clone());
            let mut caches: Vec<_> = (0..3).map(|_| step.new_cache(64, CacheType::F16).expect("it fits")).collect();
            let (never, interrupt) = (Interrupt::default(), Interrupt::new());
            let run = |step: &mut Step, caches: &mut [CompressedMlaCache], rows: std::ops::Range<usize>| {
                for (cache, tokens) in tokens.iter().enumerate() {
                    let interrupt = if cache == leaver { &interrupt } else { &never };
                    let tokens = &tokens[rows.clone()];
                    let segment = StepSegment { cache, tokens, logits: Logits::Last, interrupt };
                    step.add(caches, &segment).expect("it fits");
                }
                let mut taps = RaiseBehind { layer: 0, interrupt: &interrupt, rows: Vec::new() };
                step.run(caches, &mut taps).expect("the model runs");
                taps.rows
            };
            let last = alone(&model, CacheType::F16, &tokens[leaver]);
            let rows = run(&mut step, &mut caches, 0..8);
            assert_eq!(rows[..2], [24, 16], "{name}: its rows are not computed behind layer 0");
            for i in 0..3 {
                let want = if i == leaver { 0 } else { 8 };
                assert_eq!((caches[i].len(), step.is_interrupted(i)), (want, i == leaver), "{name}");
                assert_eq!(step.hidden(i).len(), want * model.config().hidden);
                if i != leaver {
                    let alone = alone(&model, CacheType::F16, &tokens[i]);
                    assert!(bits(step.logits(i)) == alone[7], "{name}: sequence {i} without {leaver}");
                }
            }
            assert!(step.logits(leaver).is_empty());

            // Begun again, it has the bits of a sequence that was never interrupted.
            interrupt.lower();
            let segment =
                StepSegment { cache: leaver, tokens: &tokens[leaver], logits: Logits::All, interrupt: &interrupt };
            step.add(&caches, &segment).expect("it fits");
            step.run(&mut caches, &mut ()).expect("the model runs");
            let got: Vec<_> = step.logits(0).chunks(model.config().vocab).map(bits).collect();
            assert!(got == last, "{name}: sequence {leaver} begun again");

            // All of them: the step ends early.
            let interrupt = Interrupt::new();
            interrupt.raise();
            let segment = StepSegment { cache: leaver, tokens: &[1], logits: Logits::All, interrupt: &interrupt };
            step.add(&caches, &segment).expect("it fits");
            step.run(&mut caches, &mut ()).expect("nothing to run");
            assert_eq!((step.n_rows(), caches[leaver].len()), (0, 20));
        }
    }
}

#[test]
fn a_segment_that_does_not_fit_is_refused_and_the_others_run() {
    let model = load_changed("glm-tiny", |_| {});
    let mut step = Step::new(model.clone());
    assert!(matches!(
        step.new_cache(1025, CacheType::F16),
        Err(Error::Session(SessionError::ContextTooLong { asked: 1025, made_for: 1024 }))
    ));
    let files = ModelFiles::open(&fixtures::path("goldens/glm-tiny")).expect("it opens");
    assert_eq!(files.config.default_context(), 1024);
    assert!(MemoryPlan::of_context(&files, 1024, CacheType::F16, 64).is_ok());
    assert!(matches!(
        MemoryPlan::of_context(&files, 1025, CacheType::F16, 64),
        Err(Error::Session(SessionError::ContextTooLong { asked: 1025, made_for: 1024 }))
    ));
    let mut caches: Vec<_> = [8, 3].into_iter().map(|n| step.new_cache(n, CacheType::I8).expect("it fits")).collect();
    let never = Interrupt::default();
    let segment = |cache, tokens| StepSegment { cache, tokens, logits: Logits::Last, interrupt: &never };
    assert_eq!(step.add(&caches, &segment(0, &[1, 2])).expect("it fits"), 0);
    let refused = |result| match result {
        Err(Error::Session(error)) => error.to_string(),
        other => panic!("{other:?}"),
    };
    assert!(refused(step.add(&caches, &segment(1, &[1; 4]))).contains("4 tokens do not fit the context of 3"));
    assert!(refused(step.add(&caches, &segment(1, &[512]))).contains("token 512"));
    assert!(refused(step.add(&caches, &segment(1, &[]))).contains("no tokens"));
    assert!(refused(step.add(&caches, &segment(2, &[1]))).contains("sequence 2 of 2"));
    assert!(refused(step.add(&caches, &segment(0, &[1]))).contains("sequence 0 of 2"), "one segment for each sequence");
    assert_eq!((step.len(), step.n_rows()), (1, 2));
    step.run(&mut caches, &mut ()).expect("the model runs");
    assert_eq!([caches[0].len(), caches[1].len()], [2, 0]);
    assert!(bits(step.logits(0)) == alone(&model, CacheType::I8, &[1, 2])[1]);
    step.add(&caches, &segment(1, &[5])).expect("a new step has begun");
    assert_eq!(step.len(), 1);
}

#[test]
fn an_error_in_a_step_takes_back_the_tokens_of_all_sequences() {
    let model = load_changed("glm-tiny", |_| {});
    let mut step = Step::new(model.clone());
    let mut caches: Vec<_> = (0..2).map(|_| step.new_cache(8, CacheType::F16).expect("it fits")).collect();
    let never = Interrupt::default();
    for cache in 0..2 {
        let segment = StepSegment { cache, tokens: &[1, 2], logits: Logits::Last, interrupt: &never };
        step.add(&caches, &segment).expect("it fits");
    }
    struct WrongExpert;
    impl Taps for WrongExpert {
        fn routing(&mut self, _at: At, decision: &mut moe_runtime::forward::RoutingDecision) {
            decision.ids[0] = 1000;
        }
    }
    assert!(step.run(&mut caches, &mut WrongExpert).is_err());
    assert!(caches.iter().all(|cache| cache.is_empty() && cache.layer_len(0) == 0));
}

#[test]
fn the_memory_plan_counts_every_sequence() {
    let files = ModelFiles::open(&case("glm-tiny")).expect("the case opens");
    let one = MemoryPlan::new(&files.config, &files.catalog, 100, CacheType::I8, 64);
    let many = one.with_sequences(&files.config, 20);
    // A step of more sequences than a chunk has tokens has a row of each.
    let narrow = |chunk| MemoryPlan::new(&files.config, &files.catalog, 100, CacheType::I8, chunk);
    let (rows, sequences) = (narrow(300), narrow(16).with_sequences(&files.config, 300));
    assert!(
        sequences.scratch_bytes > rows.scratch_bytes,
        "the rows of a step of 300, and more logits than of a prompt"
    );
    let cache = CompressedMlaCache::new(vec![files.config.cache_shape(); files.config.n_layers], 100, CacheType::I8)
        .expect("a small cache fits");
    let blocks = 2 * cache.layout().block_bytes() as u64;
    assert!(one.cache_bytes >= blocks && one.cache_bytes < 2 * blocks, "{} for {blocks}", one.cache_bytes);
    assert_eq!(many.cache_bytes, 20 * one.cache_bytes);
    assert_eq!(
        many.scratch_bytes,
        one.scratch_bytes + 4 * (files.config.vocab as u64) * 4,
        "16 rows are counted anyway"
    );
    assert_eq!(many.mapped_weights_bytes, one.mapped_weights_bytes);
}
