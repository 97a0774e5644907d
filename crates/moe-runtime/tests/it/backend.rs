//! The backend token by token: answers in parts, sequences that are continued, and sequences that are saved.

use std::ops::ControlFlow;
use std::sync::Arc;

use mla_attention::CacheType;
use moe_runtime::{
    ChatRequest, ChatTemplate, CraftsmanBackend, CraftsmanModel, GenerateOptions, InferenceBackend, Interrupt,
    LoadOptions, ModelFiles, OutputEvent, PartOptions, Prompt, Sampler, SamplerConfig, Session, SessionError,
    StopStrings, TokenConstraint,
};

fn teacher() -> CraftsmanBackend {
    CraftsmanBackend::load(&fixtures::path("craftsman-mini"), 512, &LoadOptions::default()).expect("the teacher loads")
}

fn greedy() -> Sampler {
    Sampler::new(SamplerConfig::greedy()).expect("valid settings")
}

fn options(max_tokens: usize, stops: &[&str]) -> PartOptions {
    let stops = stops.iter().map(|stop| (*stop).to_owned()).collect();
    PartOptions {
        generate: GenerateOptions { max_tokens, ..GenerateOptions::default() },
        stops: StopStrings::new(stops).expect("a short list"),
        tools: None,
    }
}

fn bits(logits: &[f32]) -> Vec<u32> {
    logits.iter().map(|logit| logit.to_bits()).collect()
}

#[test]
fn parts_of_a_continued_text_are_the_text_of_the_plain_call() {
    let (mut backend, prompt) = (teacher(), Prompt::Raw("A vector is"));
    let mut text = String::new();
    let mut on_text = |piece: &str| {
        text.push_str(piece);
        ControlFlow::Continue(())
    };
    let all = options(24, &[]);
    let plain = backend.generate(prompt, &mut greedy(), &all.generate, &mut on_text).expect("it answers");
    let mut streamed = String::new();
    let mut on_part = |part: &OutputEvent| {
        if let OutputEvent::Content(more) = part {
            streamed.push_str(more);
        }
        ControlFlow::Continue(())
    };
    let parted = backend.answer(prompt, &mut greedy(), &all, &mut on_part).expect("it answers");
    assert_eq!((&parted.output.content, &streamed, &parted.generation.tokens), (&text, &text, &plain.tokens));
    assert_eq!((parted.prompt_tokens, parted.stopped_by), (backend.count_tokens(prompt).expect("words"), None));

    let tokens = backend.encode(prompt).expect("words");
    let mut go_on = |_: &OutputEvent| ControlFlow::Continue(());
    let by_tokens = backend.answer_tokens(&tokens, &mut greedy(), &all, &mut go_on).expect("it answers");
    assert_eq!(by_tokens.output, parted.output);

    let stop: String = text.chars().skip(8).take(3).collect();
    let cut = backend.answer(prompt, &mut greedy(), &options(24, &["\u{7}", &stop]), &mut go_on).expect("it answers");
    assert_eq!((cut.stopped_by, cut.reason_name()), (Some(1), "stop"));
    assert_eq!((parted.reason_name(), parted.reason_name()), (parted.generation.reason.name(), "length"));
    assert_eq!(cut.output.content, text[..text.find(&stop).expect("it is in the text")]);
    assert!(cut.generation.tokens.len() < plain.tokens.len());

    let mut first = |_: &OutputEvent| ControlFlow::Break(());
    let ended = backend.answer(prompt, &mut greedy(), &all, &mut first).expect("it answers");
    assert!(ended.generation.tokens.len() < plain.tokens.len() && text.starts_with(&ended.output.content));
}

#[test]
fn backends_of_a_model_share_its_tokenizer() {
    let files = ModelFiles::open(&fixtures::path("craftsman-mini")).expect("the teacher");
    let model = Arc::new(CraftsmanModel::from_files(&files, &LoadOptions::default()).expect("its weights"));
    let tokenizer = Arc::new(files.tokenizer().expect("its words"));
    let backend = || {
        let session = Session::new(model.clone(), 64, CacheType::F16).expect("a short context");
        CraftsmanBackend::new(session, tokenizer.clone())
    };
    let both = [backend(), backend()];
    assert!(both.iter().all(|backend| std::ptr::eq(backend.tokenizer(), &*tokenizer)));
}

#[test]
fn an_answer_to_a_conversation_keeps_its_thought_apart() {
    let mut backend = teacher();
    let source = "{% for m in messages %}<|user|>{{ m.content }}{% endfor %}<|assistant|>\
                  {% if enable_thinking %}<think>{% endif %}";
    let template = ChatTemplate::for_tokenizer(source, backend.tokenizer()).expect("it compiles");
    let mut say = |enable_thinking| {
        let request = ChatRequest { enable_thinking, ..ChatRequest::user(None, "What is a vector?") };
        let prompt = template.prompt(&request).expect("it renders");
        let mut kinds = Vec::new();
        let mut on_part = |part: &OutputEvent| {
            kinds.push(matches!(part, OutputEvent::Reasoning(_)));
            ControlFlow::Continue(())
        };
        let answer = backend.answer(Prompt::Rendered(&prompt), &mut greedy(), &options(6, &[]), &mut on_part);
        (answer.expect("it answers").output, kinds)
    };
    let ((thinking, thoughts), (direct, words)) = (say(Some(true)), say(Some(false)));
    assert!(!thinking.reasoning.is_empty() && thoughts[0], "{thinking:?}");
    assert!(direct.reasoning.is_empty() && !direct.content.is_empty() && !words[0], "{direct:?}");
}

#[test]
fn appended_tokens_have_the_logits_of_one_step_and_can_be_taken_back() {
    let (mut backend, never) = (teacher(), Interrupt::default());
    let tokens = backend.tokenizer().encode("A vector is an array that grows at its end", false).expect("words");
    let whole = bits(backend.append(&tokens, &never).expect("it runs").expect("not interrupted"));
    backend.truncate(3);
    assert_eq!(backend.tokens(), &tokens[..3]);
    backend.append(&tokens[3..5], &never).expect("it runs");
    assert_eq!(bits(backend.append(&tokens[5..], &never).expect("it runs").expect("not interrupted")), whole);
    assert_eq!(backend.tokens(), tokens);
    let raised = Interrupt::new();
    raised.raise();
    assert!(backend.append(&tokens, &raised).expect("no failure").is_none());
    assert_eq!(backend.tokens(), tokens, "an interrupted chunk is no part of the sequence");
    backend.append(&[u32::MAX], &never).expect_err("no such token");
    assert_eq!(backend.tokens().len(), backend.session().len());
}

/// Allows every token, and fails at the third.
#[derive(Debug)]
struct FailsAtTheThird {
    allowed: Vec<u32>,
    taken: usize,
}

impl TokenConstraint for FailsAtTheThird {
    fn restart(&mut self) {
        self.taken = 0;
    }

    fn allowed(&mut self) -> moe_runtime::Result<&[u32]> {
        Ok(&self.allowed)
    }

    fn take(&mut self, token: u32) -> moe_runtime::Result<()> {
        self.taken += 1;
        if self.taken < 3 { Ok(()) } else { Err(SessionError::Token { token, vocab: 0 }.into()) }
    }
}

#[test]
fn an_answer_that_fails_leaves_no_position_without_its_token() {
    let (mut backend, never) = (teacher(), Interrupt::default());
    let begun = backend.tokenizer().encode("A vector is", false).expect("words");
    let prompt = [&begun[..], &backend.tokenizer().encode(" an array that grows", false).expect("words")].concat();
    backend.append(&begun, &never).expect("it runs");
    let words = backend.model().config().vocab.div_ceil(32);
    let constraint = FailsAtTheThird { allowed: vec![u32::MAX; words], taken: 0 };
    let mut sampler = greedy().with_constraint(Box::new(constraint));
    let options = GenerateOptions { max_tokens: 9, ..GenerateOptions::default() };
    let mut n = 0;
    let mut on_token = |_: &_, _| {
        n += 1;
        ControlFlow::Continue(())
    };
    backend.generate_tokens(&prompt, &mut sampler, &options, &mut on_token).expect_err("the constraint fails");
    assert_eq!(n, 2, "it failed midway");
    assert_eq!((backend.session().len(), backend.tokens()), (begun.len(), &begun[..]));
    // A token that is appended now follows the tokens that the sequence shows.
    let next = bits(backend.append(&[33], &never).expect("it runs").expect("not interrupted"));
    let mut other = teacher();
    let whole = [&begun[..], &[33]].concat();
    assert_eq!(bits(other.append(&whole, &never).expect("it runs").expect("not interrupted")), next);
}

#[test]
fn a_saved_sequence_goes_on_with_the_same_bits_and_other_bytes_are_refused() {
    let (mut backend, never) = (teacher(), Interrupt::default());
    let identity = [7; 32];
    for n in [1usize, 64, 150] {
        let tokens: Vec<u32> = (0..n).map(|i| u32::try_from(20 + i % 300).expect("a small number")).collect();
        backend.truncate(0);
        backend.append(&tokens, &never).expect("it runs");
        let saved = backend.save(&identity);
        let next = bits(backend.append(&[33], &never).expect("it runs").expect("not interrupted"));
        let mut other = teacher();
        other.load_saved(&saved, &identity).expect("the same model");
        assert_eq!(other.tokens(), tokens);
        assert_eq!(bits(other.append(&[33], &never).expect("it runs").expect("not interrupted")), next);

        let mut damaged = saved.clone();
        damaged[n] ^= 1;
        for (bytes, identity, word) in [
            (&saved[..saved.len() - 1], identity, "damaged"),
            (&damaged[..], identity, if n < 8 { "no saved sequence" } else { "damaged" }),
            (&saved[..], [8; 32], "another model"),
            (&saved[..20], identity, "cut off"),
            (&[][..], identity, "cut off"),
        ] {
            let error = other.load_saved(bytes, &identity).expect_err(word).to_string();
            assert!(error.contains(word), "{error}");
            assert!(other.tokens().is_empty());
        }
    }
    let files = ModelFiles::open(&fixtures::path("craftsman-mini")).expect("it opens");
    for (n_ctx, ty, word) in [(100, CacheType::F16, "context of 100"), (512, CacheType::F32, "cache type")] {
        let session = Session::new(Arc::clone(backend.model()), n_ctx, ty).expect("a small cache");
        let mut other = CraftsmanBackend::new(session, files.tokenizer().expect("words"));
        let error = other.load_saved(&backend.save(&identity), &identity).expect_err(word).to_string();
        assert!(error.contains(word), "{error}");
    }
}
