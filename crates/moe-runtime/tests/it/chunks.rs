//! The bits of a sequence do not depend on its batches or on the number of threads.

use std::sync::Arc;

use mla_attention::CacheType;
use moe_runtime::SessionError;
use moe_runtime::{CraftsmanModel, Error, LoadOptions, Session};
use ternary_core::ActMode;
use tl_kernels::Pool;

use crate::golden::{Run, case, load_changed, read_case, run, session};

fn bits(run: &Run) -> (Vec<u32>, Vec<Vec<u32>>) {
    let of = |x: &[f32]| x.iter().map(|v| v.to_bits()).collect::<Vec<u32>>();
    (of(&run.logits), run.hidden.iter().map(|h| of(h)).collect())
}

#[test]
fn chunks_of_any_size_give_the_same_bits() {
    for name in ["glm-tiny", "groups", "odd", "glm4-moe-gqa", "deepseek-v2-groups"] {
        let tokens = read_case(name).tokens;
        let model = load_changed(name, |_| {});
        let whole = run(&model, &tokens, 300, ());
        for chunk in [1, 7, 64] {
            let cut = run(&model, &tokens, chunk, ());
            assert!(bits(&cut) == bits(&whole), "{name}: chunks of {chunk}");
            assert_eq!(cut.routing, whole.routing, "{name}: chunks of {chunk}");
        }
    }
}

#[test]
fn int8_activations_and_threads_give_the_same_bits_too() {
    let path = case("ternary-forward").join("model.gguf");
    let load = |threads: usize| {
        let pool = Arc::new(if threads == 1 { Pool::serial() } else { Pool::new(threads).expect("threads start") });
        let options = LoadOptions { act_mode: Some(ActMode::A8Block), pool, ..LoadOptions::default() };
        Arc::new(CraftsmanModel::load(&path, &options).expect("the model loads"))
    };
    let tokens: Vec<u32> = (0..20).map(|i| i * 3 % 29).collect();
    let one = run(&load(1), &tokens, 300, ());
    let three = load(3);
    for chunk in [1, 7, 64] {
        assert!(bits(&run(&three, &tokens, chunk, ())) == bits(&one), "chunks of {chunk}");
    }
}

#[test]
fn steps_forks_and_truncation_continue_exactly() {
    let tokens = read_case("glm-tiny").tokens;
    let model = load_changed("glm-tiny", |_| {});
    let mut straight = session(&model, 64);
    let want = straight.step(&tokens, &mut ()).expect("the prompt fits").to_vec();

    let mut fed = session(&model, 5);
    fed.prefill(&tokens[..20], &mut ()).expect("the prompt fits");
    let mut fork = fed.fork().expect("memory for a fork");
    fed.prefill(&[1, 2, 3], &mut ()).expect("more tokens fit");
    fed.truncate(20);
    for session in [&mut fed, &mut fork] {
        let mut last = Vec::new();
        for &token in &tokens[20..] {
            last = session.step(&[token], &mut ()).expect("one token fits").to_vec();
        }
        assert_eq!(last, want);
        assert_eq!(session.len(), tokens.len());
    }
    fed.reset();
    assert!(fed.is_empty());
    assert_eq!(fed.step(&tokens, &mut ()).expect("the prompt fits"), want);
}

#[test]
fn what_does_not_fit_is_refused_with_both_numbers_and_changes_nothing() {
    let model = load_changed("glm-tiny", |_| {});
    let mut small = Session::new(model.clone(), 8, CacheType::F16).expect("a small cache fits").with_chunk(2);
    small.prefill(&[1, 2, 3], &mut ()).expect("three tokens fit");
    match small.prefill(&[1; 6], &mut ()) {
        Err(Error::Session(SessionError::ContextFull { have: 8, need: 9 })) => {}
        other => panic!("{other:?}"),
    }
    assert!(matches!(
        small.prefill(&[512], &mut ()),
        Err(Error::Session(SessionError::Token { token: 512, vocab: 512 }))
    ));
    assert!(matches!(small.prefill(&[], &mut ()), Err(Error::Session(SessionError::NoTokens))));
    assert_eq!(small.len(), 3);
    match Session::new(model, 1025, CacheType::F16) {
        Err(Error::Session(SessionError::ContextTooLong { asked: 1025, made_for: 1024 })) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_error_in_the_middle_of_a_prompt_takes_the_whole_prompt_back() {
    let model = load_changed("glm-tiny", |_| {});
    let mut session = session(&model, 4);
    session.prefill(&[1, 2, 3], &mut ()).expect("three tokens fit");
    let mut sink =
        |position: usize, _: &[f32]| if position < 9 { Ok(()) } else { Err(Error::Session(SessionError::NoLogits)) };
    assert!(session.step_rows(&[1; 12], 0, &mut (), &mut sink).is_err());
    assert_eq!(session.len(), 3);
}

#[test]
fn an_f16_cache_stays_close() {
    let golden = read_case("glm-tiny");
    let model = load_changed("glm-tiny", |_| {});
    let mut half = Session::new(model.clone(), 64, CacheType::F16).expect("a small cache fits");
    let vocab = model.config().vocab;
    let mut worst = 0f32;
    let mut sink = |position: usize, row: &[f32]| {
        let want = &golden.logits[position * vocab..][..vocab];
        worst = row.iter().zip(want).map(|(a, b)| (a - b).abs()).fold(worst, f32::max);
        Ok(())
    };
    half.step_rows(&golden.tokens, 0, &mut (), &mut sink).expect("the model runs");
    assert!(worst > 0.0 && worst < 2e-2, "{worst}");
}
