//! Measurements of models that recite a table, against figures worked out by hand.

use behavior_eval::Error;
use behavior_eval::fidelity::{
    FidelityConfig, FidelityError, TextCut, compare, compare_record, fidelity_of, perplexity, perplexity_of,
    score_record,
};
use behavior_eval::model::{LanguageModel, ModelError, Role};

/// Gives the logits that a function of the last token (and its position) says.
struct Scripted<F> {
    vocab: usize,
    row: F,
}

impl<F: FnMut(usize, u32) -> Vec<f32>> LanguageModel for Scripted<F> {
    fn vocab_size(&self) -> usize {
        self.vocab
    }

    fn logits(&mut self, tokens: &[u32], from: usize, out: &mut dyn FnMut(usize, &[f32])) -> Result<(), ModelError> {
        for (position, &token) in tokens.iter().enumerate().skip(from) {
            out(position, &(self.row)(position, token));
        }
        Ok(())
    }
}

fn scripted<F: FnMut(usize, u32) -> Vec<f32>>(vocab: usize, row: F) -> Scripted<F> {
    Scripted { vocab, row }
}

/// Logits of given probabilities, shifted: a shift must not matter.
fn row(probabilities: &[f64], shift: f64) -> Vec<f32> {
    probabilities.iter().map(|p| (p.ln() + shift) as f32).collect()
}

fn config(n_ctx: usize) -> FidelityConfig {
    FidelityConfig { n_ctx, ..FidelityConfig::default() }
}

fn close(got: f64, want: f64) {
    assert!((got - want).abs() < 2e-6, "{got} is not {want}");
}

const TEACHER: [f64; 4] = [0.5, 0.25, 0.125, 0.125];
const STUDENT: [f64; 4] = [0.25, 0.5, 0.125, 0.125];

/// Two windows measured apart, in the wrong order, give the report of both together; a record of another length is refused.
#[test]
fn records_of_windows_give_the_report_of_the_text() {
    let text = [3, 3, 0, 1, 3, 3, 0, 2];
    let mut teacher = scripted(4, |position, token| row(&TEACHER, position as f64 + f64::from(token)));
    let mut student = scripted(4, |_, token| row(if token == 0 { &TEACHER } else { &STUDENT }, 0.5));
    let cut = TextCut::new(&text, &config(4), 4).unwrap();
    let mut record = |window| compare_record(&mut teacher, &mut student, &text, &config(4), window).unwrap();
    let (second, first) = (record(1), record(0));
    assert_ne!(first, second);
    let read = |window| Ok::<_, Error>(if window == 0 { first.clone() } else { second.clone() });
    let whole = compare(&mut teacher, &mut student, &text, &config(4), &mut |_, _| {}).unwrap();
    assert_eq!(fidelity_of(&cut, read).unwrap(), whole);
    let alone = perplexity(&mut student, &text, &config(4), &mut |_, _| {}).unwrap();
    let scores = [0, 1].map(|window| score_record(&mut student, &text, &config(4), window).unwrap());
    assert_eq!(perplexity_of(&cut, |window| Ok::<_, Error>(scores[window].clone())).unwrap(), alone);
    let short = fidelity_of(&cut, |window| Ok::<_, Error>(scores[window].clone())).unwrap_err();
    assert!(matches!(short, Error::Fidelity(FidelityError::Record { window: 0, .. })), "{short}");
}

/// A window of four: tokens 2 and 3 of it are scored, predicted by the rows of positions 1 and 2.
#[test]
fn a_table_by_hand() {
    // Two windows; the scored tokens are 0, 1 and 0, 2.
    let text = [3, 3, 0, 1, 3, 3, 0, 2];
    let mut teacher = scripted(4, |_, _| row(&TEACHER, 3.0));
    let mut student = scripted(4, |_, _| row(&STUDENT, -7.0));
    let mut seen = Vec::new();
    let report = compare(&mut teacher, &mut student, &text, &config(4), &mut |done, _| seen.push(done)).unwrap();
    assert_eq!(seen, [1, 2]);
    assert_eq!((report.windows, report.predictions, report.text_tokens), (2, 4, 8));

    let ln2 = std::f64::consts::LN_2;
    let f = &report.figures;
    // Surprise in units of ln 2: teacher 1, 2, 1, 3; student 2, 1, 2, 3.
    close(f.teacher.nll.value, 1.75 * ln2);
    close(f.student.nll.value, 2.0 * ln2);
    close(f.teacher.perplexity.value, 2f64.powf(1.75));
    close(f.student.perplexity.value, 4.0);
    // Squared distances from the mean: 0.5625 + 0.0625 + 0.5625 + 1.5625 = 2.75 for the teacher, 2 for the student.
    close(f.teacher.nll.standard_error, (2.75f64 / 3.0 / 4.0).sqrt() * ln2);
    close(f.student.perplexity.standard_error, 4.0 * (2.0f64 / 3.0 / 4.0).sqrt() * ln2);
    // Differences 1, -1, 1, 0 with mean 0.25 and squared distances 0.5625 + 1.5625 + 0.5625 + 0.0625 = 2.75.
    close(f.ln_ratio.value, 0.25 * ln2);
    close(f.ln_ratio.standard_error, (2.75f64 / 12.0).sqrt() * ln2);
    // KL = 0.5 ln 2 - 0.25 ln 2 at every position.
    for kl in [f.kl.mean.value, f.kl.median, f.kl.p90, f.kl.p99, f.kl.p999, f.kl.max] {
        close(kl, 0.25 * ln2);
    }
    assert_eq!(f.kl_by_position.len(), 2);
    assert_eq!(f.kl_by_window.len(), 2);
    f.kl_by_window.iter().for_each(|&kl| close(kl, 0.25 * ln2));
    // Probability of the right token: -0.25, +0.25, -0.25, 0.
    close(f.mean_delta_p.value, -0.0625);
    close(f.rms_delta_p.value, (0.1875f64 / 4.0).sqrt());
    // The squares 1, 1, 1, 0 (over 16) have squared distances 0.75 (over 256).
    let rms_error = (0.75f64 / 256.0 / 3.0 / 4.0).sqrt() / (2.0 * (0.1875f64 / 4.0).sqrt());
    close(f.rms_delta_p.standard_error, rms_error);
    assert_eq!((f.same_top1.count, f.same_top1.n), (0, 4));
    // The teacher is right about the zeros, the student about the one.
    assert_eq!((f.flips.lost, f.flips.gained, f.flips.share.count), (2, 1, 3));
    assert_eq!((f.teacher.top1_accuracy.count, f.student.top1_accuracy.count), (2, 1));
}

#[test]
fn quantiles_see_the_spread() {
    // Divergence grows with the position: the student's second logit is ever further off.
    let mut teacher = scripted(2, |_, _| vec![0.0, 0.0]);
    let mut student = scripted(2, |position, _| vec![0.0, position as f32 * 0.1]);
    let text = [0; 12];
    let report = compare(&mut teacher, &mut student, &text, &config(12), &mut |_, _| {}).unwrap();
    // KL of (1/2, 1/2) against logits (0, d): ln((1 + e^d) / 2) - d / 2.
    let kl = |row: usize| {
        let d = f64::from(row as f32 * 0.1);
        ((1.0 + d.exp()) / 2.0).ln() - d / 2.0
    };
    let rows: Vec<f64> = (5..=10).map(kl).collect();
    let f = &report.figures;
    for (got, want) in f.kl_by_position.iter().zip(&rows) {
        assert!((got - want).abs() < 1e-12);
    }
    assert!((f.kl.median - (rows[2] + rows[3]) / 2.0).abs() < 1e-12);
    assert!((f.kl.p90 - (rows[4] + rows[5]) / 2.0).abs() < 1e-12, "0.9 * 5 = 4.5");
    assert!((f.kl.max - rows[5]).abs() < 1e-12);
    assert_eq!(f.same_top1.count, 0, "a tie goes to the lower id");
}

#[test]
fn a_model_is_no_different_from_itself() {
    let make = || scripted(50, |p, t| (0..50u32).map(|i| ((i * 31 + t * 7 + p as u32) % 17) as f32 * 0.37).collect());
    let text: Vec<u32> = (0..600).map(|i| i * i % 47).collect();
    let config = FidelityConfig { n_ctx: 32, prefix: vec![48, 49], max_windows: None };
    let report = compare(&mut make(), &mut make(), &text, &config, &mut |_, _| {}).unwrap();
    assert_eq!(report.windows, 20);
    let f = &report.figures;
    assert_eq!((f.kl.max, f.rms_delta_p.value, f.ln_ratio.value), (0.0, 0.0, 0.0));
    assert_eq!((f.same_top1.value, f.flips.share.count), (1.0, 0));
    assert_eq!(f.teacher, f.student);
    let alone = perplexity(&mut make(), &text, &config, &mut |_, _| {}).unwrap();
    assert_eq!(alone.figures, f.teacher);
    assert_eq!(alone.predictions, 320);
    // The same inputs give the same bytes.
    let again = compare(&mut make(), &mut make(), &text, &config, &mut |_, _| {}).unwrap();
    assert_eq!(serde_json::to_string(&report).unwrap(), serde_json::to_string(&again).unwrap());
}

#[test]
fn the_second_half_is_scored_given_all_before_it() {
    // The model is certain of the token after the one it sees; the text counts up, so every prediction is right.
    let follow = |_: usize, token: u32| (0..10).map(|i| if i == (token + 1) % 10 { 30.0 } else { 0.0 }).collect();
    let text: Vec<u32> = (0..40).map(|i| i % 10).collect();
    let report = perplexity(&mut scripted(10, follow), &text, &config(20), &mut |_, _| {}).unwrap();
    assert_eq!(report.figures.top1_accuracy.value, 1.0);
    assert!((report.figures.perplexity.value - 1.0).abs() < 1e-9);

    let mut asked = Vec::new();
    let mut model = scripted(10, |position, _| {
        asked.push(position);
        vec![0.0; 10]
    });
    let report = perplexity(&mut model, &text, &config(20), &mut |_, _| {}).unwrap();
    assert_eq!(report.predictions, 20);
    close(report.figures.perplexity.value, 10.0);
    let window: Vec<usize> = (9..=18).collect();
    assert_eq!(asked, [window.clone(), window].concat(), "rows 9 to 18 predict positions 10 to 19");
}

#[test]
fn defects_are_errors_that_name_the_model() {
    let text = [0; 16];
    let fine = || scripted(4, |_, _| vec![0.0; 4]);
    let bad_logit = |bad: f32| scripted(4, move |p, _| if p == 5 { vec![0.0, bad, 0.0, 0.0] } else { vec![0.0; 4] });
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let e = compare(&mut bad_logit(value), &mut fine(), &text, &config(8), &mut |_, _| {}).unwrap_err();
        assert!(
            matches!(
                e,
                Error::Fidelity(FidelityError::NotFinite { role: Role::Teacher, window: 0, position: 6, token: 1, .. })
            ),
            "{e}"
        );
        let e = compare(&mut fine(), &mut bad_logit(value), &text, &config(8), &mut |_, _| {}).unwrap_err();
        assert!(matches!(e, Error::Fidelity(FidelityError::NotFinite { role: Role::Student, .. })), "{e}");
        let e = perplexity(&mut bad_logit(value), &text, &config(8), &mut |_, _| {}).unwrap_err();
        assert!(matches!(e, Error::Fidelity(FidelityError::NotFinite { role: Role::Model, .. })), "{e}");
    }
    let mut other = scripted(5, |_, _| vec![0.0; 5]);
    let e = compare(&mut other, &mut fine(), &text, &config(8), &mut |_, _| {}).unwrap_err();
    assert!(matches!(e, Error::Fidelity(FidelityError::VocabularyMismatch { teacher: 5, student: 4 })), "{e}");
    let mut short_rows = scripted(4, |_, _| vec![0.0; 3]);
    let e = compare(&mut fine(), &mut short_rows, &text, &config(8), &mut |_, _| {}).unwrap_err();
    assert!(matches!(e, Error::Fidelity(FidelityError::Contract { role: Role::Student, .. })), "{e}");
    let e = compare(&mut short_rows, &mut fine(), &text, &config(8), &mut |_, _| {}).unwrap_err();
    assert!(matches!(e, Error::Fidelity(FidelityError::Contract { role: Role::Teacher, .. })), "{e}");
    for text in [&[][..], &[0; 7]] {
        let e = compare(&mut fine(), &mut fine(), text, &config(8), &mut |_, _| {}).unwrap_err();
        assert!(matches!(e, Error::Fidelity(FidelityError::TextTooShort { need: 8, .. })), "{e}");
        let e = perplexity(&mut fine(), text, &config(8), &mut |_, _| {}).unwrap_err();
        assert!(matches!(e, Error::Fidelity(FidelityError::TextTooShort { need: 8, .. })), "{e}");
    }
}

/// Stops or fails after some rows.
struct Quitter {
    rows: usize,
    fails: bool,
}

impl LanguageModel for Quitter {
    fn vocab_size(&self) -> usize {
        2
    }

    fn logits(&mut self, tokens: &[u32], from: usize, out: &mut dyn FnMut(usize, &[f32])) -> Result<(), ModelError> {
        (from..tokens.len()).take(self.rows).for_each(|p| out(p, &[0.0, 1.0]));
        if self.fails { Err("out of memory".into()) } else { Ok(()) }
    }
}

#[test]
fn a_model_that_quits_ends_the_measurement_and_hangs_nobody() {
    let text = [0; 16];
    let run = |teacher: (usize, bool), student: (usize, bool)| {
        let [mut teacher, mut student] = [teacher, student].map(|(rows, fails)| Quitter { rows, fails });
        compare(&mut teacher, &mut student, &text, &config(8), &mut |_, _| {})
    };
    assert!(run((9, false), (9, false)).is_ok());
    for rows in 0..4 {
        let e = run((rows, true), (9, false)).unwrap_err();
        assert!(matches!(e, Error::Fidelity(FidelityError::Model { role: Role::Teacher, .. })), "{e}");
        let e = run((9, false), (rows, true)).unwrap_err();
        assert!(matches!(e, Error::Fidelity(FidelityError::Model { role: Role::Student, .. })), "{e}");
        let e = run((rows, false), (9, false)).unwrap_err();
        assert!(matches!(e, Error::Fidelity(FidelityError::Contract { role: Role::Teacher, .. })), "{e}");
        let e = run((9, false), (rows, false)).unwrap_err();
        assert!(matches!(e, Error::Fidelity(FidelityError::Contract { role: Role::Student, .. })), "{e}");
    }
}
