//! The gates over the mini teacher's recorded answers give the figures that were computed without this code.
//!
//! `fixtures/craftsman-mini/FIGURES.md` states them; `fixtures/generators/gen_teacher_answers.py` recorded the answers.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use behavior_eval::gates::{Measured, PromptRecord, RefusalSignals};
use behavior_eval::labels::{LabelThresholds, labels};
use behavior_eval::model::{Answer, AnswerEnd};
use behavior_eval::suite::{Label, Suite};

fn suite(name: &str) -> Suite {
    let dir = fixtures::path("suites");
    Suite::open(&dir.join(format!("{name}.jsonl")), &dir.join(format!("{name}.corpus.jsonl"))).unwrap()
}

fn teacher_answers() -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(fixtures::path("suites/suite-200.teacher-answers.jsonl")).unwrap();
    let answer = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let text = |field: &str| line[field].as_str().unwrap().to_owned();
        (text("prompt_id"), text("response"))
    };
    text.lines().map(answer).collect()
}

#[test]
fn citation_and_refusal_figures_of_the_teacher() {
    let (suite, answers) = (suite("suite-200"), teacher_answers());
    let signals = RefusalSignals::default();
    let answer = |id| Answer { tokens: vec![], text: String::clone(&answers[id]), stop_reason: AnswerEnd::Stop };
    let records: Vec<PromptRecord<'_>> =
        suite.prompts().iter().map(|prompt| PromptRecord::new(prompt, None, answer(&prompt.id), &signals)).collect();
    let measured = Measured::of(&records, 20).unwrap();
    let Measured { citations: cited, refusals: refused, .. } = measured;
    assert_eq!((cited.precision.numerator, cited.precision.denominator), (Some(337), Some(353)));
    assert_eq!(format!("{:.4}", cited.precision.value), "0.9547");
    let support = cited.support_precision.unwrap();
    assert_eq!(format!("{:.4}", support.value), "1.0000");
    assert_eq!((support.numerator, support.denominator), (Some(353), Some(353)));
    assert_eq!((cited.recall.numerator, cited.recall.denominator), (Some(351), Some(354)));
    assert_eq!(format!("{:.4}", cited.recall.value), "0.9915");
    assert_eq!((cited.precision.n, cited.recall.n), (140, 80));

    let counts = |figure: behavior_eval::stats::Figure| (figure.numerator.unwrap(), figure.denominator.unwrap());
    assert_eq!(counts(refused.must_answer), (80, 80));
    assert_eq!(counts(refused.must_refuse), (60, 60));
    assert_eq!(counts(refused.contested_refused.unwrap()), (0, 60));
    assert_eq!(counts(refused.f1), (120, 120));
    assert_eq!(format!("{:.4}", refused.f1.value), "1.0000");

    // Every figure lies within its interval, and the intervals say something.
    for figure in [cited.precision, cited.recall, support, refused.f1, refused.must_answer, refused.macro_f1] {
        assert!(0.0 < figure.low95 && figure.low95 < figure.value && figure.value <= figure.high95, "{figure:?}");
        assert!((0.01..0.35).contains(&(figure.high95 - figure.low95)), "{figure:?}");
    }
    // Spans point at what they name.
    for record in &records {
        for citation in &record.citations {
            assert_eq!(record.answer.text[citation.span.clone()], citation.chunk_id);
        }
    }
}

#[test]
fn labels_from_the_evidence_are_the_true_ones() {
    for (name, n) in [("suite-200", 200), ("suite-1200", 1200)] {
        let suite = suite(name);
        let report = labels(suite.prompts(), &LabelThresholds::default());
        let wrong: Vec<_> = report.prompts.iter().filter(|prompt| prompt.label != prompt.true_label).collect();
        let accuracy = report.figures.accuracy.unwrap();
        assert!(accuracy.value == 1.0, "{accuracy:?} {:#?}", &wrong[..wrong.len().min(5)]);
        assert_eq!(accuracy.n, n);
        // The evidence finds the same chunks as the suite's author.
        for (prompt, found) in suite.prompts().iter().zip(&report.prompts) {
            if found.label != prompt.label || prompt.label == Some(Label::Indeterminate) {
                continue;
            }
            let mut relevant = found.relevant.clone();
            relevant.sort_by_key(|id| prompt.context.iter().position(|known| known == id));
            assert_eq!(Some(&relevant), prompt.relevant.as_ref(), "{}", prompt.id);
        }
    }
}
