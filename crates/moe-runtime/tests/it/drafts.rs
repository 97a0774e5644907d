//! Drafts: an answer has the tokens that it has without them, and its cache the positions, whatever a drafter proposes.

use std::ops::ControlFlow;
use std::sync::Arc;

use mla_attention::CacheType;
use moe_runtime::{
    Confidence, ControlTokens, CraftsmanBackend, CraftsmanModel, Drafter, GenerateOptions, Generation, Guesses,
    InferenceBackend, LoadOptions, LoopConfig, ModelFiles, NgramDrafter, Prompt, Sampler, SamplerConfig, Session,
    Speculation, SplitMix64, StepCosts, StopReason, Tokenizer,
};
use ternary_core::ActMode;

/// The negative control: its tokens have nothing to do with the sequence.
#[derive(Debug)]
struct RandomDrafter {
    rng: SplitMix64,
    vocab: u64,
}

impl Drafter for RandomDrafter {
    fn begin(&mut self) {}

    fn draft(&mut self, _sequence: &[u32], most: usize, draft: &mut Vec<u32>) -> Guesses {
        draft.extend((0..most).map(|_| u32::try_from(self.rng.next_u64() % self.vocab).expect("a small vocabulary")));
        Guesses { confidence: Confidence::new(Confidence::MAX), computed: draft.len() }
    }
}

/// Proposes the tokens of a known answer, but for every `wrong`th of them, which is another token.
#[derive(Debug)]
pub(crate) struct Oracle {
    pub(crate) answer: Vec<u32>,
    pub(crate) wrong: usize,
}

impl Drafter for Oracle {
    fn begin(&mut self) {}

    fn draft(&mut self, sequence: &[u32], most: usize, draft: &mut Vec<u32>) -> Guesses {
        // The longest beginning of the answer that the sequence ends with.
        let done = (1..=self.answer.len()).rev().find(|&n| sequence.ends_with(&self.answer[..n]));
        let rest = self.answer.iter().enumerate().skip(done.unwrap_or(self.answer.len())).take(most);
        draft.extend(rest.map(|(i, &token)| if (i + 1).is_multiple_of(self.wrong) { token ^ 1 } else { token }));
        Guesses { confidence: Confidence::new(Confidence::MAX), computed: draft.len() }
    }
}

struct Teacher {
    files: ModelFiles,
    model: Arc<CraftsmanModel>,
    tokenizer: Tokenizer,
    costs: StepCosts,
}

fn teacher() -> Teacher {
    let files = ModelFiles::open(&fixtures::path("craftsman-mini")).expect("the teacher opens");
    let options = LoadOptions { act_mode: Some(ActMode::A8Block), ..LoadOptions::default() };
    let model = Arc::new(CraftsmanModel::from_files(&files, &options).expect("the teacher loads"));
    let tokenizer = files.tokenizer().expect("it has a tokenizer");
    Teacher { model, tokenizer, costs: files.step_costs(), files }
}

/// Most tokens of an answer, and the context.
const LIMITS: (usize, usize) = (60, 512);

impl Teacher {
    fn speculation(&self, drafter: impl Drafter + 'static) -> Speculation {
        Speculation::new(Box::new(drafter), self.costs.clone(), self.model.config().vocab)
    }

    fn backend(&self, n_ctx: usize, ty: CacheType, drafts: Option<Speculation>) -> CraftsmanBackend {
        let session = Session::new(self.model.clone(), n_ctx, ty).expect("a small cache fits");
        CraftsmanBackend::new(session, self.files.tokenizer().expect("it has a tokenizer")).with_drafts(drafts)
    }

    /// A sampler that never ends an answer.
    fn endless(&self, config: SamplerConfig) -> Sampler {
        let bias = self.tokenizer.stop_ids().iter().map(|&id| (id, -100.0)).collect();
        Sampler::new(config).and_then(|sampler| sampler.with_logit_bias(bias)).expect("valid settings")
    }
}

fn options(max_tokens: usize) -> GenerateOptions {
    let loops = LoopConfig { max_period: 0, ..LoopConfig::default() };
    GenerateOptions { max_tokens, loops, ..GenerateOptions::default() }
}

fn generate(
    backend: &mut CraftsmanBackend,
    prompt: &str,
    sampler: &mut Sampler,
    options: &GenerateOptions,
) -> Generation {
    let mut on_text = |_: &str| ControlFlow::Continue(());
    backend.generate(Prompt::Raw(prompt), sampler, options, &mut on_text).expect("it runs")
}

/// A text that repeats names, as retrieval prompts do.
const PROMPT: &str = "The capital of gilded inlet is Sabopol. The capital of amber tower is Ranisol. The capital of \
                      gilded inlet is Sabopol. The capital of";

#[test]
fn answers_are_those_without_drafts_for_every_drafter_cache_and_seed() {
    let teacher = teacher();
    let (tokens, n_ctx) = LIMITS;
    let sampled = |seed| SamplerConfig { temperature: 0.8, repetition_penalty: 1.1, seed, ..SamplerConfig::default() };
    for (ty, config) in [
        (CacheType::F32, SamplerConfig::greedy()),
        (CacheType::F16, SamplerConfig::greedy()),
        (CacheType::I8, SamplerConfig::greedy()),
        (CacheType::F16, sampled(1)),
        (CacheType::I8, sampled(2)),
        (CacheType::F32, sampled(3)),
    ] {
        // Two answers in a row: the second prompt begins with the first one and its answer, which the session holds.
        let run = |drafts: Option<Speculation>| {
            let mut backend = teacher.backend(n_ctx, ty, drafts);
            let mut sampler = teacher.endless(config);
            let first = generate(&mut backend, PROMPT, &mut sampler, &options(tokens));
            let text = teacher.tokenizer.decode(&first.tokens, ControlTokens::Hide);
            let second = generate(&mut backend, &format!("{PROMPT}{text} And"), &mut sampler, &options(tokens));
            [first, second]
        };
        let plain = run(None);
        assert!(plain.iter().all(|answer| answer.statistics.drafts.steps == tokens - 1));
        let vocab = teacher.model.config().vocab as u64;
        let answer = plain[0].tokens.clone();
        let drafters: [(&str, Speculation); 4] = [
            ("n-gram", teacher.speculation(NgramDrafter::new())),
            ("random", teacher.speculation(RandomDrafter { rng: SplitMix64::new(5), vocab })),
            ("mostly right", teacher.speculation(Oracle { answer: answer.clone(), wrong: 5 })),
            ("right", teacher.speculation(Oracle { answer, wrong: 1000 })),
        ];
        for (name, drafts) in drafters {
            let got = run(Some(drafts));
            for (got, plain) in got.iter().zip(&plain) {
                let drafts = got.statistics.drafts;
                assert_eq!((&got.tokens, got.reason), (&plain.tokens, plain.reason), "{name}, {ty}, {config:?}");
                assert_eq!(
                    got.statistics.prompt_tokens, plain.statistics.prompt_tokens,
                    "{name}: the session holds the same"
                );
                assert_eq!(drafts.steps + drafts.accepted_tokens, tokens - 1, "{name}");
            }
            let drafts = got[0].statistics.drafts;
            match name {
                "right" => {
                    assert_eq!(drafts.accepted_tokens, drafts.drafted_tokens);
                    assert!(drafts.steps <= tokens / 4, "{drafts:?}");
                }
                "mostly right" => {
                    assert!(drafts.steps < tokens * 2 / 3 && drafts.accepted_tokens < drafts.drafted_tokens)
                }
                "random" => assert!(drafts.drafted_tokens > 0, "the negative control drafts"),
                _ => assert!(drafts.drafted_tokens > 0, "{drafts:?}"),
            }
        }
    }
}

#[test]
fn answers_end_at_the_same_token_for_the_same_reason() {
    let teacher = teacher();
    let (long, nothing) = (options(40), options(0));
    let run = |n_ctx, options: &GenerateOptions, drafts: Option<Vec<u32>>| {
        let drafts = drafts.map(|answer| teacher.speculation(Oracle { answer, wrong: 1000 }));
        let mut sampler = teacher.endless(SamplerConfig::greedy());
        let mut backend = teacher.backend(n_ctx, CacheType::F16, drafts);
        let first = generate(&mut backend, PROMPT, &mut sampler, options);
        // The prompt of a second answer finds as many tokens in the session.
        let text = format!(
            "{PROMPT}{}",
            teacher.tokenizer.decode(&first.tokens[..first.tokens.len() - 1], ControlTokens::Hide)
        );
        let held = generate(&mut backend, &text, &mut sampler, &nothing).statistics.prompt_tokens;
        (first.tokens, first.reason, held)
    };
    let (answer, ..) = run(512, &long, None);
    let prompt = teacher.tokenizer.raw_prefix().len() + teacher.tokenizer.encode(PROMPT, false).expect("a text").len();
    let stop = answer[17];
    for (n_ctx, options) in [
        (512, options(1)),
        (512, options(2)),
        (512, options(9)),
        (512, GenerateOptions { stop: vec![stop], ..long.clone() }),
        (prompt + 8, long.clone()),
        (512, GenerateOptions { loops: LoopConfig { max_period: 64, min_repeats: 2, min_tokens: 2 }, ..long.clone() }),
    ] {
        let plain = run(n_ctx, &options, None);
        assert_eq!(run(n_ctx, &options, Some(answer.clone())), plain, "{options:?}");
    }
    let (_, full, _) = run(prompt + 8, &long, Some(answer.clone()));
    assert_eq!(full, StopReason::ContextFull);

    // The callback ends an answer in the middle of an accepted draft.
    let mut ends = Vec::new();
    for drafts in [None, Some(answer)] {
        let drafts = drafts.map(|answer| teacher.speculation(Oracle { answer, wrong: 1000 }));
        let mut backend = teacher.backend(512, CacheType::F16, drafts);
        let mut pieces = 0;
        let mut on_text = |_: &str| {
            pieces += 1;
            if pieces == 6 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let mut sampler = teacher.endless(SamplerConfig::greedy());
        ends.push(backend.generate(Prompt::Raw(PROMPT), &mut sampler, &long, &mut on_text).expect("it runs"));
    }
    assert_eq!((&ends[0].tokens, ends[0].reason), (&ends[1].tokens, StopReason::Callback));
    assert_eq!(ends[0].reason, ends[1].reason);
}

#[test]
fn a_drafter_of_random_tokens_costs_at_most_eight_steps_and_changes_nothing() {
    let teacher = teacher();
    let vocab = teacher.model.config().vocab as u64;
    for seed in 0..3 {
        let run = |drafts| {
            let mut sampler = teacher.endless(SamplerConfig { seed, ..SamplerConfig::default() });
            generate(&mut teacher.backend(1024, CacheType::F16, drafts), "A vector is", &mut sampler, &options(257))
        };
        let plain = run(None);
        let got = run(Some(teacher.speculation(RandomDrafter { rng: SplitMix64::new(seed), vocab })));
        assert_eq!(got.tokens, plain.tokens);
        let drafts = got.statistics.drafts;
        // The first token of a draft is the dearest one, since it shares the fewest experts.
        let dearest = teacher.costs.of(2) - 1.0;
        assert!(drafts.drafted_tokens > 0);
        assert!(drafts.drafted_tokens as f64 * dearest <= 8.0, "{drafts:?}, {dearest} each");
    }
}

#[test]
fn a_token_outside_of_the_vocabulary_is_no_draft() {
    #[derive(Debug)]
    struct Outside;
    impl Drafter for Outside {
        fn begin(&mut self) {}
        fn draft(&mut self, _sequence: &[u32], most: usize, draft: &mut Vec<u32>) -> Guesses {
            draft.resize(most, u32::MAX);
            Guesses { computed: most, ..Guesses::default() }
        }
    }
    let teacher = teacher();
    let drafts = Some(teacher.speculation(Outside));
    let mut sampler = teacher.endless(SamplerConfig::greedy());
    let got = generate(&mut teacher.backend(64, CacheType::F16, drafts), "A", &mut sampler, &options(8));
    assert_eq!((got.tokens.len(), got.statistics.drafts.drafted_tokens), (8, 0));
}
