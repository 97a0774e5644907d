//! The MTP block: read only where it is asked for, and a source of drafts that changes no answer.

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mla_attention::CacheType;
use moe_runtime::models::expected_tensors;
use moe_runtime::{
    AnswerOptions, CraftsmanModel, Drafter, Guesses, Interrupt, Job, JobEvent, LoadOptions, LoopConfig, MemoryPlan,
    ModelFiles, MtpDrafter, Priority, QueueLimits, Sampler, SamplerConfig, Scheduler, SchedulerOptions, Speculation,
    SplitMix64, StepCosts, Work,
};

fn open(case: &str) -> ModelFiles {
    ModelFiles::open(&fixtures::path(format!("goldens/mtp/{case}"))).expect("the case opens")
}

fn load(case: &str) -> Arc<CraftsmanModel> {
    let files = open(case).with_mtp().expect("it has a block");
    Arc::new(CraftsmanModel::from_files(&files, &LoadOptions::default()).expect("the case loads"))
}

#[test]
fn the_block_is_left_out_unless_it_is_asked_for() {
    for (case, own) in [("own", 3), ("shared", 0)] {
        let plain = open(case);
        assert!(plain.report().is_exact() && !plain.report().skipped.is_empty());
        assert!(expected_tensors(&plain.config).iter().all(|tensor| !tensor.name.starts_with("blk.2.")));
        let whole = open(case).with_mtp().expect("it has a block");
        let report = whole.report();
        assert!(report.is_exact() && report.skipped.is_empty(), "{report:?}");
        let names: Vec<&str> = whole.catalog.tensors().iter().map(|tensor| &*tensor.name).collect();
        let of_block =
            |part: &str| names.iter().filter(|name| name.starts_with("blk.2.") && name.contains(part)).count();
        assert_eq!((of_block("nextn."), of_block("_exps."), of_block("attn_k_b")), (3 + own, 3, 1), "{names:?}");
        assert_eq!(plain.catalog.tensors().len() + of_block(""), names.len());
        // The layers' figures stay: what a decoded token reads, and the cost of a step.
        assert_eq!(plain.weight_bytes_per_token(), whole.weight_bytes_per_token());
        assert_eq!((plain.step_costs(), plain.mtp_cost()), (whole.step_costs(), 0.0));
        assert!(whole.mtp_cost() > 0.2 && whole.mtp_cost() < 1.0, "{}", whole.mtp_cost());
        let plan = |files: &ModelFiles| MemoryPlan::new(&files.config, &files.catalog, 128, CacheType::F16, 16);
        let (a, b) = (plan(&plain), plan(&whole));
        assert_eq!(a.cache_bytes * 3, b.cache_bytes * 2, "one more layer has a cache");
        assert!(a.mapped_weights_bytes < b.mapped_weights_bytes && a.scratch_bytes < b.scratch_bytes);
        // The model itself is the same, with the block and without.
        assert!(CraftsmanModel::from_files(&plain, &LoadOptions::default()).is_ok());
    }
}

#[test]
fn a_model_without_the_block_says_so_in_one_sentence() {
    for case in ["glm-tiny", "glm4-moe-gqa"] {
        let files = ModelFiles::open(&fixtures::path(format!("goldens/{case}"))).expect("the case opens");
        let message = files.with_mtp().expect_err("it has no block").to_string();
        assert!(message.contains("no MTP block") && !message.contains('\n'), "{message}");
    }
    // A configuration that promises a block, and weights that have none.
    let dir = tempfile::tempdir().expect("a temporary directory");
    let from = fixtures::path("goldens/theta");
    std::fs::copy(from.join("model.safetensors"), dir.path().join("model.safetensors"))
        .expect("the weights are copied");
    let config = std::fs::read_to_string(from.join("config.json")).expect("a text");
    let promised = config.replacen('{', "{\"num_nextn_predict_layers\": 1,", 1);
    std::fs::write(dir.path().join("config.json"), promised).expect("it is written");
    let files = ModelFiles::open(dir.path()).expect("it opens");
    assert_eq!(files.config.n_mtp, 1);
    assert!(files.with_mtp().is_err());
    let model = Arc::new(CraftsmanModel::load(&from, &LoadOptions::default()).expect("it loads"));
    assert!(MtpDrafter::new(model, 64, CacheType::F16, 0.1).is_err());
}

/// Hidden states and tokens that a model might have.
fn random(model: &CraftsmanModel, n: usize) -> (Vec<u32>, Vec<f32>) {
    let (mut rng, config) = (SplitMix64::new(11), model.config());
    let vocab = config.vocab as u64;
    let tokens = (0..n).map(|_| u32::try_from(rng.next_u64() % vocab).expect("a small vocabulary")).collect();
    let hidden = (0..n * config.hidden).map(|_| rng.next_f64() as f32 * 4.0 - 2.0).collect();
    (tokens, hidden)
}

/// The draft behind `tokens` of a drafter that sees all states at once.
fn fresh(model: &Arc<CraftsmanModel>, tokens: &[u32], hidden: &[f32]) -> (Vec<u32>, Guesses) {
    let mut drafter = MtpDrafter::new(model.clone(), 256, CacheType::F16, 0.1).expect("it has a block");
    drafter.begin();
    drafter.observe(tokens, 0, &hidden[..(tokens.len() - 1) * model.config().hidden]);
    let mut draft = Vec::new();
    let guesses = drafter.draft(tokens, 6, &mut draft);
    (draft, guesses)
}

#[test]
fn drafts_do_not_depend_on_the_way_in_which_the_sequence_came() {
    for case in ["own", "shared"] {
        let model = load(case);
        let width = model.config().hidden;
        let (tokens, hidden) = random(&model, 200);
        let mut drafter = MtpDrafter::new(model.clone(), 256, CacheType::F16, 0.1).expect("it has a block");
        // Steps that confirm one row or several, as verified drafts do; 70 of them at the start, as a prompt has.
        let (mut done, mut i, mut lengths) = (0, 0, [0usize; 7]);
        while done + 6 < tokens.len() {
            let n = if done == 0 { 70 } else { [1, 1, 4, 2, 1, 5][i % 6] };
            let known = &tokens[..done + n + 1];
            // A prompt's states come before the token behind it is chosen.
            let at_time = if done == 0 { &known[..done + n] } else { known };
            drafter.observe(at_time, done, &hidden[done * width..(done + n) * width]);
            done += n;
            i += 1;
            // Not every step asks for a draft, and for a while none does.
            if i % 4 != 3 && !(90..165).contains(&done) {
                let mut draft = Vec::new();
                let guesses = drafter.draft(known, 6, &mut draft);
                assert!((draft.len()..=6).contains(&guesses.computed), "{guesses:?}");
                assert_eq!((draft.clone(), guesses), fresh(&model, known, &hidden), "{case}, {done} positions");
                lengths[draft.len()] += 1;
            }
        }
        assert!(lengths[0] == 0 && lengths[1..].iter().filter(|&&n| n > 0).count() > 1, "{lengths:?}");
        // Another sequence, and one whose beginning comes without states.
        drafter.begin();
        let mut draft = Vec::new();
        assert_eq!(drafter.draft(&tokens[..9], 3, &mut draft), Guesses::default());
        assert!(draft.is_empty(), "no state has come");
        drafter.observe(&tokens[..41], 30, &hidden[30 * width..40 * width]);
        drafter.draft(&tokens[..41], 6, &mut draft);
        assert_eq!(draft, fresh(&model, &tokens[30..41], &hidden[30 * width..]).0, "distances alone count");
    }
}

/// The tokens of answers to prompts that run beside each other, and the drafted and accepted tokens.
fn answers(model: &Arc<CraftsmanModel>, config: SamplerConfig, drafts: bool) -> (Vec<Vec<u32>>, [usize; 2]) {
    let limits = QueueLimits { waiting: 9, account_waiting: 9, account_running: 9, account_tokens_per_minute: None };
    let (slots, n_ctx, cache_type) = (2, 160, CacheType::F16);
    let options = SchedulerOptions { slots, n_ctx, cache_type, chunk: 16, prompt_rows: 8, decode_share: 0.5, limits };
    let mut scheduler = Scheduler::new(model.clone(), options).expect("small caches fit");
    let vocab = u32::try_from(model.config().vocab).expect("a small vocabulary");
    let owners: Vec<Arc<Mutex<Vec<u32>>>> = (0..3).map(|_| Arc::default()).collect();
    for (i, owner) in (0u32..).zip(&owners) {
        let speculation = || {
            let drafter = MtpDrafter::new(model.clone(), n_ctx, cache_type, 0.01).expect("it has a block");
            // A step of several rows costs little, so that drafts are made although few are right.
            Speculation::new(Box::new(drafter), StepCosts::new(1000, 0, 1.0), model.config().vocab)
        };
        let work = AnswerOptions {
            sampler: Sampler::new(config).expect("valid settings"),
            max_tokens: 60,
            stop: Vec::new(),
            loops: LoopConfig { max_period: 0, min_repeats: 2, min_tokens: 0 },
            prompt_logits: false,
            drafts: drafts.then(speculation),
        };
        let seen = owner.clone();
        let job = Job {
            prompt: (0..40 + 9 * i).map(|p| (p * 7 + p * p % 5 + i) % vocab).collect(),
            work: Work::Answer(Box::new(work)),
            priority: Priority::Interactive,
            affinity: String::new(),
            account: String::new(),
            interrupt: Interrupt::new(),
            on_event: Box::new(move |event| {
                if let JobEvent::Token { token, .. } = event {
                    seen.lock().expect("no test panics inside").push(token);
                }
                ControlFlow::Continue(())
            }),
        };
        scheduler.queue().submit(job, Duration::ZERO).expect("the queue has room");
    }
    let mut counts = [0; 2];
    while let Some(report) = scheduler.advance(Duration::ZERO) {
        counts[0] += report.draft_rows;
        counts[1] += report.accepted_rows;
    }
    (owners.iter().map(|owner| owner.lock().expect("no test panics inside").clone()).collect(), counts)
}

#[test]
fn answers_beside_each_other_are_those_without_drafts_greedy_and_sampled() {
    let mut accepted = 0;
    for case in ["own", "shared"] {
        let model = load(case);
        for seed in 0..4 {
            let sampled = SamplerConfig { temperature: 0.7, seed, ..SamplerConfig::default() };
            for config in [SamplerConfig::greedy(), sampled] {
                let (plain, none) = answers(&model, config, false);
                let (got, [drafted, right]) = answers(&model, config, true);
                assert!(plain.iter().all(|answer| answer.len() == 60));
                assert_eq!(got, plain, "{case}, {config:?}");
                assert_eq!(none, [0, 0]);
                assert!(drafted > 0, "the block drafts");
                accepted += right;
            }
        }
    }
    assert!(accepted > 0, "some step gave a token more than one without drafts");
}
