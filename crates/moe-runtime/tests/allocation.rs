//! A decoded token allocates nothing, on any thread: neither the forward pass nor the choice of the token, of one sequence
//! or of several in one step.
//!
//! One test, in a binary of its own, because the allocator counts all allocations of the process.
#![allow(unsafe_code, reason = "an allocator that counts has to be one")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};

use mla_attention::CacheType;
use moe_runtime::{
    CraftsmanModel, Interrupt, LoadOptions, Logits, LoopConfig, LoopDetector, Sampler, SamplerConfig, Session, Step,
    StepSegment,
};
use ternary_core::ActMode;
use tl_kernels::{ActivationBuffer, Linear, Pool};

/// Allocations since the start of the process.
static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, counted.
struct Counting;

// SAFETY: every call is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Tokens before the count starts.
const WARM_UP: usize = 8;
/// Steps of several sequences before the count starts: by then, the largest number of experts that a step uses was seen.
const WARM_UP_STEPS: usize = 40;
/// Tokens that are counted; they cross the borders of three spans of 64 cached positions.
const TOKENS: usize = 216;
/// Steps of four sequences that are counted.
const STEPS: usize = TOKENS / 3;

/// Lets each thread compute the largest products of these models, of 8 rows. A thread's buffers grow at its first task of
/// a shape, and a small model may give a thread no such task until after the warm-up.
fn wake(pool: &Pool) {
    let shapes = [[1024, 64], [512, 128], [256, 256], [128, 512]];
    let matrices = shapes.map(|[rows, cols]| Linear::from_f32(rows, cols, vec![0.5; rows * cols]).expect("a matrix"));
    let all = Barrier::new(pool.threads());
    pool.run(pool.threads(), &|_| {
        all.wait();
        let mut acts = ActivationBuffer::new();
        for (linear, [rows, cols]) in matrices.iter().zip(shapes) {
            acts.set(&vec![1.0; 8 * cols], 8, cols);
            linear.forward(&Pool::serial(), &acts, &mut vec![0.0; 8 * rows]);
        }
    });
}

/// Allocations of `TOKENS` decoded tokens.
fn allocations(path: &Path, threads: usize, ty: CacheType, act_mode: ActMode) -> usize {
    let pool = Arc::new(Pool::new(threads).expect("threads start"));
    wake(&pool);
    let model = CraftsmanModel::load(path, &LoadOptions { act_mode: Some(act_mode), pool, ..LoadOptions::default() })
        .expect("the model loads");
    let mut session = Session::new(Arc::new(model), 2 + WARM_UP + TOKENS, ty).expect("a session");
    let mut sampler = Sampler::new(SamplerConfig { top_k: 20, ..SamplerConfig::default() }).expect("settings");
    let mut detector = LoopDetector::new(LoopConfig::default());
    let mut before = 0;
    let mut pending = [1, 2].as_slice();
    let mut last;
    for step in 0..1 + WARM_UP + TOKENS {
        if step == 1 + WARM_UP {
            before = ALLOCATIONS.load(Ordering::Relaxed);
        }
        let token = sampler.sample(session.step(pending, &mut ()).expect("a step")).expect("a token");
        let _ = detector.push(token);
        last = [token];
        pending = &last;
    }
    ALLOCATIONS.load(Ordering::Relaxed) - before
}

/// Allocations of steps of four sequences, one of which verifies two tokens at a time.
fn allocations_of_steps(path: &Path, threads: usize, ty: CacheType) -> usize {
    let pool = Arc::new(Pool::new(threads).expect("threads start"));
    wake(&pool);
    let model = CraftsmanModel::load(path, &LoadOptions { pool, ..LoadOptions::default() }).expect("the model loads");
    let mut step = Step::new(Arc::new(model));
    let mut caches: Vec<_> =
        (0..4).map(|_| step.new_cache(2 * (WARM_UP_STEPS + STEPS), ty).expect("a cache")).collect();
    let interrupt = Interrupt::new();
    let mut round = 0;
    let mut allocations_of = |steps: usize| {
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        for _ in 0..steps {
            for cache in 0..4 {
                // Tokens vary, so that the number of rows per expert does.
                let token = |i: usize| u32::try_from((round * 5 + cache * 3 + i) % 29).expect("a small number");
                let (tokens, logits) = ([token(0), token(1)], [Logits::Last, Logits::All][cache / 3]);
                let tokens = &tokens[..1 + cache / 3];
                step.add(&caches, &StepSegment { cache, tokens, logits, interrupt: &interrupt }).expect("it fits");
            }
            step.run(&mut caches, &mut ()).expect("a step");
            assert!(step.logits(3).len() == 2 * step.logits(0).len());
            round += 1;
        }
        ALLOCATIONS.load(Ordering::Relaxed) - before
    };
    allocations_of(WARM_UP_STEPS);
    allocations_of(STEPS)
}

#[test]
fn a_decoded_token_allocates_nothing() {
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    drop(std::hint::black_box(Box::new(7)));
    assert_eq!(ALLOCATIONS.load(Ordering::Relaxed) - before, 1, "the allocator counts");

    let ternary = fixtures::path("goldens/ternary-forward").join("model.gguf");
    let dense = fixtures::path("goldens/glm-tiny");
    let grouped = fixtures::path("goldens/glm4-moe-gqa");
    for threads in [1, 2] {
        for (mode, ty) in [(ActMode::A8Block, CacheType::F16), (ActMode::A8Token, CacheType::F32)] {
            let counted = allocations(&ternary, threads, ty, mode);
            assert_eq!(counted, 0, "ternary weights, {mode:?}, {ty:?}, {threads} threads");
        }
        for (name, path) in [("latent attention", &dense), ("grouped attention", &grouped)] {
            let counted = allocations(path, threads, CacheType::F16, ActMode::A8Block);
            assert_eq!(counted, 0, "{name}, {threads} threads");
        }
        for (path, ty) in [(&ternary, CacheType::I8), (&dense, CacheType::F16), (&grouped, CacheType::I8)] {
            let counted = allocations_of_steps(path, threads, ty);
            assert_eq!(counted, 0, "steps of four sequences of {}, {ty}, {threads} threads", path.display());
        }
    }
}
