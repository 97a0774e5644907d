//! The start, the stream and the end of answers.

use std::ops::ControlFlow;
use std::sync::Arc;

use mla_attention::CacheType;
use moe_runtime::{
    ChatPrompt, CraftsmanBackend, CraftsmanModel, GenerateOptions, InferenceBackend, Interrupt, LoadOptions,
    LoopConfig, Prompt, Sampler, SamplerConfig, Session, StopReason, forward::Taps,
};

use crate::golden::{load_changed, read_case, run, session};

fn greedy() -> Sampler {
    Sampler::new(SamplerConfig::greedy()).expect("greedy is a valid setting")
}

fn no_loops() -> LoopConfig {
    LoopConfig { max_period: 0, ..LoopConfig::default() }
}

fn answer(session: &mut Session, options: &GenerateOptions) -> moe_runtime::Generation {
    let mut sampler = greedy();
    session.generate(&[1, 2, 3], options, &mut sampler, &mut (), &mut |_| ControlFlow::Continue(())).expect("it runs")
}

#[test]
fn greedy_answers_follow_the_logits_and_end_for_every_reason() {
    let model = load_changed("glm-tiny", |_| {});
    let options = GenerateOptions { max_tokens: 6, loops: no_loops(), ..GenerateOptions::default() };
    let plain = answer(&mut session(&model, 64), &options);
    assert_eq!((plain.tokens.len(), plain.reason), (6, StopReason::MaxTokens));
    assert_eq!((plain.statistics.prompt_tokens, plain.statistics.generated_tokens), (3, 6));

    // Each token is the best one after all tokens before it.
    let mut sequence = vec![1, 2, 3];
    for &token in &plain.tokens {
        let logits = session(&model, 64).step(&sequence, &mut ()).expect("it runs").to_vec();
        assert_eq!(tl_kernels::math::argmax(&logits).map(|i| i as u32), Some(token));
        sequence.push(token);
    }

    let third = plain.tokens[2];
    let first_seen = plain.tokens.iter().position(|&t| t == third).expect("it is there");
    let stopped = answer(&mut session(&model, 64), &GenerateOptions { stop: vec![third], ..options.clone() });
    assert_eq!((stopped.tokens.len(), stopped.reason), (first_seen, StopReason::StopToken(third)));

    let mut tight = Session::new(model.clone(), 5, CacheType::F32).expect("a small cache fits");
    let full = answer(&mut tight, &options);
    assert_eq!(
        (full.tokens.len(), full.reason),
        (3, StopReason::ContextFull),
        "the third token needs no room of its own"
    );
    assert_eq!(full.tokens, plain.tokens[..3]);

    let mut seen = Vec::new();
    let mut on_token = |token| {
        seen.push(token);
        if seen.len() == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let mut fresh = session(&model, 64);
    let cut = fresh.generate(&[1, 2, 3], &options, &mut greedy(), &mut (), &mut on_token).expect("it runs");
    assert_eq!((cut.tokens.as_slice(), cut.reason), (&plain.tokens[..2], StopReason::Callback));
    assert_eq!(seen, plain.tokens[..2]);

    let long = GenerateOptions {
        max_tokens: 400,
        loops: LoopConfig { max_period: 64, min_repeats: 2, min_tokens: 2 },
        ..options
    };
    let looped = answer(&mut session(&model, 64), &long);
    assert!(matches!(looped.reason, StopReason::Loop(_)), "a random greedy model goes in circles: {:?}", looped.reason);
}

#[test]
fn a_seed_decides_a_sampled_answer() {
    let model = load_changed("glm-tiny", |_| {});
    let options = GenerateOptions { max_tokens: 12, loops: no_loops(), ..GenerateOptions::default() };
    let with_seed = |seed| {
        let config =
            SamplerConfig { temperature: 1.5, top_p: 1.0, min_p: 0.0, top_k: 0, seed, ..SamplerConfig::default() };
        let mut sampler = Sampler::new(config).expect("a valid setting");
        let mut on_token = |_| ControlFlow::Continue(());
        session(&model, 64).generate(&[1], &options, &mut sampler, &mut (), &mut on_token).expect("it runs").tokens
    };
    assert_eq!(with_seed(7), with_seed(7));
    assert_ne!(with_seed(7), with_seed(8));
}

#[test]
fn a_prompt_that_does_not_fit_is_an_error_not_a_short_answer() {
    let model = load_changed("glm-tiny", |_| {});
    let mut tight = Session::new(model, 2, CacheType::F32).expect("a small cache fits");
    let options = GenerateOptions::default();
    let mut on_token = |_| ControlFlow::Continue(());
    let error = tight.generate(&[1, 2, 3], &options, &mut greedy(), &mut (), &mut on_token).expect_err("too long");
    assert!(error.to_string().starts_with("3 tokens do not fit the context of 2"), "{error}");
}

#[test]
fn embeddings_are_the_mean_of_the_final_hidden_states() {
    let golden = read_case("glm-tiny");
    let model = load_changed("glm-tiny", |_| {});
    let hidden = model.config().hidden;
    let states = run(&model, &golden.tokens, 64, ()).hidden.pop().expect("there is a final state");
    let got = session(&model, 7).mean_hidden(&golden.tokens).expect("it runs");
    for (j, &got) in got.iter().enumerate() {
        let column = states.iter().skip(j).step_by(hidden).map(|&x| f64::from(x));
        let want = column.sum::<f64>() / golden.tokens.len() as f64;
        assert!((f64::from(got) - want).abs() < 1e-6);
    }
}

#[test]
fn the_backend_answers_with_the_teacher() {
    let path = fixtures::path("craftsman-mini");
    let mut backend = CraftsmanBackend::load(&path, 256, &LoadOptions::default()).expect("the teacher loads");
    let prompt = "A vector is";
    let options = GenerateOptions { max_tokens: 12, ..GenerateOptions::default() };
    let mut text = String::new();
    let mut on_text = |piece: &str| {
        text.push_str(piece);
        ControlFlow::Continue(())
    };
    let rendered = ChatPrompt::of_markup(prompt);
    let prompt = Prompt::Rendered(&rendered);
    let first = backend.generate(prompt, &mut greedy(), &options, &mut on_text).expect("it answers");
    assert!(!text.is_empty());
    let again = backend.generate(prompt, &mut greedy(), &options, &mut |_| ControlFlow::Continue(()));
    assert_eq!(again.expect("it answers").tokens, first.tokens, "calls do not influence each other");

    let near = backend.embed("the length of a vector").expect("it embeds");
    assert_eq!(near.len(), 256);
    assert_ne!(near, backend.embed("lifetimes of references").expect("it embeds"));
    assert!(CraftsmanBackend::supported_architectures().contains(&"glm4_moe_lite"));
    let model: &Arc<CraftsmanModel> = backend.model();
    assert_eq!(model.config().n_layers, 5);
}

/// Raises an interrupt when the first chunk of a prompt has been computed.
struct AfterFirstChunk(Interrupt);

impl Taps for AfterFirstChunk {
    fn final_hidden(&mut self, _: usize, _: &[f32]) {
        self.0.raise();
    }
}

#[test]
fn an_interrupt_ends_the_reading_of_a_prompt_between_chunks_and_an_answer_between_tokens() {
    let model = load_changed("glm-tiny", |_| {});
    let prompt: Vec<u32> = (0..20).map(|n| 1 + n % 7).collect();
    let options =
        GenerateOptions { max_tokens: 6, loops: no_loops(), interrupt: Interrupt::new(), ..GenerateOptions::default() };
    let whole = session(&model, 64)
        .generate(&prompt, &options, &mut greedy(), &mut (), &mut |_| ControlFlow::Continue(()))
        .expect("it runs");

    let mut cut = session(&model, 64).with_chunk(8);
    let mut raise = AfterFirstChunk(options.interrupt.clone());
    let ended = cut
        .generate(&prompt, &options, &mut greedy(), &mut raise, &mut |_| ControlFlow::Continue(()))
        .expect("an interrupt is no failure");
    assert_eq!((ended.reason, ended.tokens.len(), cut.len()), (StopReason::Interrupt, 0, 8));
    assert_eq!(ended.statistics.prompt_tokens, 8);

    // The session goes on where it was left.
    options.interrupt.lower();
    let rest = cut
        .generate(&prompt[8..], &options, &mut greedy(), &mut (), &mut |_| ControlFlow::Continue(()))
        .expect("it runs");
    assert_eq!(rest.tokens, whole.tokens);

    let mut seen = 0;
    let interrupt = options.interrupt.clone();
    let mut on_token = |_| {
        seen += 1;
        if seen == 2 {
            interrupt.raise();
        }
        ControlFlow::Continue(())
    };
    let ended =
        session(&model, 64).generate(&prompt, &options, &mut greedy(), &mut (), &mut on_token).expect("it runs");
    assert_eq!((ended.reason, &ended.tokens[..]), (StopReason::Interrupt, &whole.tokens[..2]));
}
