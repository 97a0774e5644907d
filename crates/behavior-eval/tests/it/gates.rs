//! The citation and the refusal gate over scripted answers: each figure falls for its own reason and only then.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use behavior_eval::gates::{CitationVerdict, GateError, Measured, PromptRecord, RefusalSignals};
use behavior_eval::labels::{LabelThresholds, PromptLabel, labels};
use behavior_eval::model::{Answer, AnswerEnd};
use behavior_eval::stats::Figure;
use behavior_eval::suite::{Chunk, Label, Prompt, Suite, render_user};

fn suite() -> Suite {
    let dir = fixtures::path("suites");
    Suite::open(&dir.join("suite-200.jsonl"), &dir.join("suite-200.corpus.jsonl")).unwrap()
}

fn judged<'a>(prompt: &'a Prompt, evidence: Option<&'a PromptLabel>, answer: &str) -> PromptRecord<'a> {
    let answer = Answer { tokens: vec![], text: answer.to_owned(), stop_reason: AnswerEnd::Stop };
    PromptRecord::new(prompt, evidence, answer, &RefusalSignals::default())
}

/// A model that answers every prompt by a rule: its figures, and its records.
fn figures(answer: impl Fn(&Prompt) -> String) -> (Measured, Vec<PromptRecord<'static>>) {
    let suite: &'static Suite = Box::leak(Box::new(suite()));
    let records: Vec<_> = suite.prompts().iter().map(|prompt| judged(prompt, None, &answer(prompt))).collect();
    (Measured::of(&records, 20).unwrap(), records)
}

fn gold(prompt: &Prompt) -> String {
    prompt.gold_answer.clone().unwrap()
}

/// The gold answer up to its first citation.
fn bare(prompt: &Prompt) -> String {
    gold(prompt).split(" [").next().unwrap().to_owned()
}

/// Values of precision, recall, F1, must-refuse, must-answer.
fn gating((measured, _): &(Measured, Vec<PromptRecord<'_>>)) -> [f64; 5] {
    let (cited, refused) = (&measured.citations, &measured.refusals);
    [&cited.precision, &cited.recall, &refused.f1, &refused.must_refuse, &refused.must_answer].map(|f| f.value)
}

#[test]
fn the_right_answers_are_right_in_every_figure() {
    let both = figures(gold);
    assert_eq!(gating(&both), [1.0; 5]);
    let (Measured { citations: cited, refusals: refused, .. }, records) = both;
    assert_eq!((cited.precision_macro.value, cited.recall_macro.value), (1.0, 1.0));
    assert_eq!(cited.support_precision.unwrap().value, 1.0);
    let contested = cited.contested.unwrap();
    assert_eq!([contested.precision, contested.disclosed, contested.one_sided].map(|f| f.value), [1.0, 1.0, 0.0]);
    assert_eq!((refused.macro_f1.value, refused.over_refusal.value, refused.precision.value), (1.0, 0.0, 1.0));
    assert!(records.iter().all(|record| record.refusal_is_right() != Some(false)));
    assert!(cited.precision.low95 > 0.9 && cited.precision.low95 < 1.0, "certainty is never complete");
}

#[test]
fn citing_a_missing_chunk_costs_precision_alone() {
    let both = figures(|prompt| match prompt.label {
        Some(Label::Resolved) => format!("{} [doc-99]", gold(prompt)),
        _ => gold(prompt),
    });
    let cited = &both.0.citations;
    // 80 resolved prompts with 354 relevant chunks and one invented each
    assert_eq!((cited.precision.numerator, cited.precision.denominator), (Some(354), Some(434)));
    assert_eq!(gating(&both)[1..], [1.0; 4]);
    let verdicts = both.1.iter().flat_map(|p| &p.citations).filter(|c| c.chunk_id == "doc-99");
    assert!(verdicts.clone().all(|c| c.verdict == CitationVerdict::NoSuchChunk && !c.valid && !c.relevant));
    assert_eq!(verdicts.count(), 80);
}

#[test]
fn citing_an_irrelevant_chunk_costs_precision_and_recall() {
    let both = figures(|prompt| match prompt.label {
        Some(Label::Resolved) => {
            let relevant = prompt.relevant.as_deref().unwrap();
            let beside = prompt.chunks.iter().find(|chunk| !relevant.contains(&chunk.id)).unwrap();
            format!("It is something else entirely. [{}]", beside.id)
        }
        _ => gold(prompt),
    });
    assert_eq!(gating(&both), [0.0, 0.0, 1.0, 1.0, 1.0]);
    let is_unsupported = |p: &&PromptRecord<'_>| p.label == Some(Label::Resolved);
    assert!(both.1.iter().filter(is_unsupported).all(|p| p.citations[0].verdict == CitationVerdict::NotSupported));
}

#[test]
fn never_citing_is_a_recall_of_zero_and_shows_no_precision() {
    let both = figures(bare);
    assert_eq!(gating(&both), [0.0, 0.0, 1.0, 1.0, 1.0]);
    assert_eq!((both.0.citations.precision.denominator, both.0.citations.precision.high95), (Some(0), 1.0));
    assert_eq!((both.0.citations.recall.numerator, both.0.citations.recall.denominator), (Some(0), Some(354)));
}

#[test]
fn citing_where_there_is_nothing_to_cite_is_invalid() {
    let both = figures(|prompt| match prompt.label {
        Some(Label::Indeterminate) => format!("{} [{}]", prompt.chunks[0].text, prompt.chunks[0].id),
        _ => gold(prompt),
    });
    assert_eq!((both.0.citations.precision.numerator, both.0.citations.precision.denominator), (Some(354), Some(414)));
    assert_eq!(gating(&both)[1..], [1.0, 0.0, 0.0, 1.0]);
}

#[test]
fn refusing_everything_and_nothing() {
    let everything = figures(|_| "I cannot determine this.".to_owned());
    // 60 right refusals, 80 wrong ones: F1 = 120 / 200
    assert_eq!(gating(&everything), [0.0, 0.0, 0.6, 1.0, 0.0]);
    assert_eq!(everything.0.refusals.over_refusal.value, 1.0);
    assert_eq!(everything.0.refusals.contested_refused.unwrap().value, 1.0);
    assert_eq!(everything.0.refusals.macro_f1.value, 0.3);

    let nothing = figures(|prompt| match prompt.label {
        Some(Label::Indeterminate) => "The answer is forty-two.".to_owned(),
        _ => gold(prompt),
    });
    assert_eq!(gating(&nothing), [1.0, 1.0, 0.0, 0.0, 1.0]);
    // answering: 80 right, 60 wrong: F1 = 160 / 220
    assert!((nothing.0.refusals.macro_f1.value - 80.0 / 220.0).abs() < 1e-15);
}

#[test]
fn saying_nothing_is_neither_an_answer_nor_a_refusal() {
    let both = figures(|_| " \n".to_owned());
    assert_eq!(gating(&both), [0.0; 5]);
    assert_eq!((both.0.refusals.over_refusal.value, both.0.refusals.macro_f1.value), (0.0, 0.0));
    assert_eq!((both.0.refusals.counts.answer_missing, both.0.refusals.counts.empty_where_refusal_due), (80, 60));
}

#[test]
fn one_sided_answers_to_contested_prompts_are_reported_and_gate_nothing() {
    let both = figures(|prompt| match prompt.label {
        Some(Label::Contested) => gold(prompt).split(" or ").next().unwrap().to_owned() + ".",
        _ => gold(prompt),
    });
    assert_eq!(gating(&both), [1.0; 5]);
    let contested = both.0.citations.contested.unwrap();
    assert_eq!([contested.precision, contested.disclosed, contested.one_sided].map(|f| f.value), [1.0, 0.0, 1.0]);
    assert!(both.1.iter().all(|p| p.sides == (p.label == Some(Label::Contested)).then_some(1)));
}

/// A small table by hand: three resolved, two indeterminate prompts, one contested.
#[test]
fn a_table_worked_out_by_hand() {
    let chunk = |id: &str, text: &str| Chunk { id: id.into(), source: format!("s-{id}"), text: text.into() };
    let prompt = |id: &str, label, relevant: &[&str]| {
        let chunks = vec![
            chunk("a", "The river of Oz is Ozo."),
            chunk("b", "Records say the river of Oz is Ozo."),
            chunk("c", "The anthem of Oz is Uzu."),
            chunk("d", "The river of Oz is Izi."),
        ];
        let question = "What is the river of Oz?".to_owned();
        Prompt {
            id: id.into(),
            label: Some(label),
            system: String::new(),
            user: render_user(&chunks, &question),
            question,
            context: vec![],
            relevant: Some(relevant.iter().map(|&id| id.to_owned()).collect()),
            gold_answer: None,
            chunks,
        }
    };
    use Label::{Contested, Indeterminate, Resolved};
    let rows = [
        // valid: a, b (6 words of 8: 0.75); c (4 of 8) is not. recall 2 of 2
        (prompt("r1", Resolved, &["a", "b"]), "The river of Oz is Ozo. [a] [b] [c]"),
        // a twice, both count, one relevant chunk: recall 1 of 2
        (prompt("r2", Resolved, &["a", "b"]), "Yes. The river of Oz is Ozo [a, a]."),
        // refused: recall 0 of 1
        (prompt("r3", Resolved, &["a"]), "Insufficient evidence!"),
        (prompt("i1", Indeterminate, &[]), "The river of Oz is Ozo. [a]"),
        (prompt("i2", Indeterminate, &[]), "I don’t know."),
        // the first clause states Ozo: valid for a, not for d; the second Izi: valid for d
        (prompt("c1", Contested, &["a", "b", "d"]), "Some say Ozo [a] [d], others Izi [d]."),
    ];
    let records: Vec<_> = rows.iter().map(|(prompt, text)| judged(prompt, None, text)).collect();
    let Measured { citations: cited, refusals: refused, .. } = Measured::of(&records, 2).unwrap();
    let counts = |figure: &Figure| (figure.numerator.unwrap(), figure.denominator.unwrap(), figure.n);
    assert_eq!(counts(&cited.precision), (4, 6, 5));
    assert_eq!(counts(&cited.recall), (3, 5, 3));
    // c of r1 and a of i1 are not
    assert_eq!(counts(cited.support_precision.as_ref().unwrap()), (4, 6, 5));
    // r1 2/3, r2 1, i1 0
    assert!((cited.precision_macro.value - 5.0 / 9.0).abs() < 1e-15 && cited.precision_macro.n == 3);
    // 1, 1/2, 0
    assert_eq!((cited.recall_macro.value, cited.recall_macro.n), (0.5, 3));
    let contested = cited.contested.unwrap();
    assert_eq!(counts(&contested.precision), (2, 3, 1));
    assert_eq!(contested.disclosed.value, 1.0);
    assert_eq!(counts(&refused.f1), (2, 4, 5));
    assert_eq!(counts(&refused.must_refuse), (1, 2, 2));
    assert_eq!(counts(&refused.must_answer), (2, 3, 3));
    assert_eq!(counts(&refused.precision), (1, 2, 2));
    // answering: 2 right, 1 refused wrongly, 1 answered wrongly: F1 4/6
    assert!((refused.macro_f1.value - (0.5 + 4.0 / 6.0) / 2.0).abs() < 1e-15);
    let c = &records[0].citations[2];
    assert_eq!((&*c.chunk_id, &c.span, c.verdict, c.relevant), ("c", &(33..34), CitationVerdict::NotSupported, false));
}

#[test]
fn suites_no_verdict_can_rest_on() {
    let suite = suite();
    let of = |label: Label, n: usize| {
        let prompts = suite.prompts().iter().filter(move |prompt| prompt.label == Some(label));
        prompts.take(n).map(|prompt| judged(prompt, None, "x")).collect::<Vec<_>>()
    };
    let error = |records: &[PromptRecord<'_>]| Measured::of(records, 20).unwrap_err();
    let resolved = of(Label::Resolved, 80);
    let refused = of(Label::Indeterminate, 60);
    assert!(matches!(error(&[]), GateError::OneSided { resolved: 0, indeterminate: 0 }));
    assert!(matches!(error(&resolved), GateError::OneSided { resolved: 80, indeterminate: 0 }));
    assert!(matches!(error(&refused), GateError::OneSided { resolved: 0, indeterminate: 60 }));
    let contested = of(Label::Contested, 60);
    assert!(matches!(error(&contested), GateError::OneSided { .. }));
    let few = [of(Label::Resolved, 19), refused].concat();
    assert!(matches!(error(&few), GateError::TooFewPrompts { label: Label::Resolved, have: 19, need: 20 }));
    let few = [resolved, of(Label::Indeterminate, 3)].concat();
    assert!(error(&few).to_string().contains("3 indeterminate"));
    // Twenty of each are enough.
    let enough = [of(Label::Resolved, 20), of(Label::Indeterminate, 20)].concat();
    assert!(Measured::of(&enough, 20).is_ok());
}

#[test]
fn signals_are_read_line_by_line_and_a_line_that_matches_nothing_is_refused() {
    let signals = RefusalSignals::parse("\n  # ours\n out of scope \r\n<declined>\n").unwrap();
    assert_eq!(signals.all().collect::<Vec<_>>(), ["<declined>", "out of scope"]);
    assert_eq!(signals.find("Out of SCOPE!"), Some("out of scope"));
    assert_eq!(signals.find("I cannot determine this."), None, "instead of the built-in ones");
    for (text, line) in [("out of scope\n?!\n", 2), ("", 1), ("# only this\n\n", 2), ("ok\n<>", 2)] {
        let error = RefusalSignals::parse(text).unwrap_err();
        assert!(matches!(error, GateError::RefusalSignal { line: at, .. } if at == line), "{text:?}: {error}");
    }
}

#[test]
fn signals_are_configuration() {
    let signals = RefusalSignals::new(["No  Comment!", "..."], ["<no/>", ""]);
    assert_eq!(signals.find("No comment, sorry."), Some("No  Comment!"));
    assert_eq!(signals.find("A <no/> B"), Some("<no/>"));
    for text in ["I cannot determine this.", "no commentary", "", "...", "<NO/>"] {
        assert_eq!(signals.find(text), None, "{text}");
    }
    let signals = RefusalSignals::default();
    for text in [
        "I don't know.",
        "I DON’T KNOW",
        "There is insufficient\nevidence.",
        "The answer cannot be determined from the sources.",
        "<refusal>no</refusal>",
        "I'm unable to answer that.",
    ] {
        assert!(signals.find(text).is_some(), "{text}");
    }
    for text in ["The capital is known.", "I know: Ozo.", "There is sufficient evidence.", "Cannot is a verb."] {
        assert_eq!(signals.find(text), None, "{text}");
    }
}

/// Prompts without label and attribution are judged by the evidence, and with it the figures stay what they are.
#[test]
fn the_evidence_stands_in_for_labels_and_attribution() {
    let suite = suite();
    let blank: Vec<Prompt> =
        suite.prompts().iter().map(|p| Prompt { label: None, relevant: None, ..p.clone() }).collect();
    let labels = labels(&blank, &LabelThresholds::default());
    let answers: Vec<String> = suite.prompts().iter().map(gold).collect();
    let evidence = blank.iter().zip(&labels.prompts).zip(&answers);
    let blind: Vec<_> = evidence.map(|((prompt, label), answer)| judged(prompt, Some(label), answer)).collect();
    let figures = Measured::of(&blind, 20).unwrap().citations;
    assert_eq!((figures.precision.value, figures.recall.value), (1.0, 1.0));
    assert_eq!((figures.precision.n, figures.recall.denominator), (140, Some(354)));
    assert!(figures.support_precision.is_none(), "the evidence is no gold attribution");
    let ungated: Vec<_> = blank.iter().zip(&answers).map(|(p, a)| judged(p, None, a)).collect();
    assert!(matches!(Measured::of(&ungated, 20), Err(GateError::OneSided { .. })));
}

/// `fixtures/generators/gen_gates.py` computes the same figures with other code.
#[test]
fn figures_equal_an_independent_computation() {
    let golden = std::fs::read_to_string(fixtures::path("goldens/gates/answers.json")).unwrap();
    let golden: serde_json::Value = serde_json::from_str(&golden).unwrap();
    let answers: BTreeMap<String, String> = serde_json::from_value(golden["answers"].clone()).unwrap();
    let want = &golden["figures"];
    let (Measured { citations: cited, refusals: refused, .. }, _) = figures(|prompt| answers[&prompt.id].clone());
    let contested = cited.contested.unwrap();
    for (name, figure) in [
        ("precision", cited.precision),
        ("recall", cited.recall),
        ("support_precision", cited.support_precision.unwrap()),
        ("f1", refused.f1),
        ("must_refuse", refused.must_refuse),
        ("must_answer", refused.must_answer),
        ("over_refusal", refused.over_refusal),
        ("refusal_precision", refused.precision),
    ] {
        let counts = serde_json::json!([figure.numerator.unwrap(), figure.denominator.unwrap()]);
        assert_eq!(counts, want[name], "{name}");
    }
    for (name, figure) in [
        ("precision_macro", cited.precision_macro),
        ("recall_macro", cited.recall_macro),
        ("macro_f1", refused.macro_f1),
    ] {
        assert!((figure.value - want[name].as_f64().unwrap()).abs() < 1e-12, "{name}: {figure:?}");
    }
    for (name, figure) in [("precision_interval", cited.precision), ("f1_interval", refused.f1)] {
        for (i, end) in [figure.low95, figure.high95].into_iter().enumerate() {
            assert!((end - want[name][i].as_f64().unwrap()).abs() < 1e-12, "{name}: {figure:?}");
        }
    }
    let got = serde_json::json!({
        "n": contested.disclosed.denominator, "cited": contested.precision.denominator,
        "valid": contested.precision.numerator, "disclosed": contested.disclosed.numerator,
        "one_sided": contested.one_sided.numerator, "refused": refused.contested_refused.unwrap().numerator,
    });
    assert_eq!(got, want["contested"]);
}
