//! Evidence taken away: the right chunks, the right labels, the right verdict.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use behavior_eval::labels::LabelError;
use std::collections::{BTreeMap, BTreeSet};

use behavior_eval::Error;
use behavior_eval::labels::{
    FigureMove, LabelReport, LabelThresholds, Perturbation, Perturbed, Removal, Stability, labels, perturb,
};
use behavior_eval::suite::{Label, Suite};

fn suite(name: &str) -> (Suite, LabelReport) {
    let dir = fixtures::path("suites");
    let suite = Suite::open(&dir.join(format!("{name}.jsonl")), &dir.join(format!("{name}.corpus.jsonl"))).unwrap();
    let before = labels(suite.prompts(), &LabelThresholds::default());
    (suite, before)
}

fn run((suite, before): &(Suite, LabelReport), removal: Removal, fraction: f64, seed: u64) -> Perturbed {
    perturb(suite, before, &LabelThresholds::default(), &Perturbation { fraction, removal, seed }).unwrap()
}

#[test]
fn a_tenth_is_a_tenth_and_the_seed_decides_which() {
    let whole = suite("suite-200");
    for removal in [Removal::Random, Removal::StratifiedBySource, Removal::MostFragileFirst] {
        let perturbed = run(&whole, removal, 0.1, 1);
        assert_eq!(perturbed.removed.len(), 129, "a tenth of 1293 chunks");
        assert_eq!(perturbed.removed, run(&whole, removal, 0.1, 1).removed);
        assert_ne!(perturbed.removed, run(&whole, removal, 0.1, 2).removed);
        let left: usize = perturbed.suite.prompts().iter().map(|prompt| prompt.chunks.len()).sum();
        assert_eq!(left, 1293 - 129);
        let touched: BTreeSet<&str> = perturbed.removed.iter().map(|key| key.prompt_id.as_str()).collect();
        let listed: BTreeSet<&str> = perturbed.touched.iter().map(|&i| whole.0.prompts()[i].id.as_str()).collect();
        assert_eq!(touched, listed);
    }
}

/// A label survives exactly where the true rule of the grammar says so: four agreeing sources, two against two, at most one.
#[test]
fn labels_survive_where_the_evidence_still_holds() {
    let whole = suite("suite-200");
    let perturbed = run(&whole, Removal::Random, 0.1, 3);
    let surviving: BTreeSet<usize> = perturbed.kept.iter().copied().collect();
    let (mut kept, mut lost) = (0, 0);
    for (i, (was, is)) in whole.0.prompts().iter().zip(perturbed.suite.prompts()).enumerate() {
        if was.chunks == is.chunks {
            assert!(surviving.contains(&i));
            assert_eq!(is.label, was.label);
            continue;
        }
        assert_eq!(is.label, None);
        let left = is.relevant.as_ref().unwrap().len();
        let holds = match was.label.unwrap().name() {
            "resolved" => left >= 4,
            // one against two is still a conflict, two against none is not
            "contested" => {
                let clusters = &perturbed.labels.prompts[i].clusters;
                clusters.len() == 2
            }
            _ => true,
        };
        assert_eq!(surviving.contains(&i), holds, "{}", was.id);
        *(if holds { &mut kept } else { &mut lost }) += 1;
    }
    assert!(kept > 20 && lost > 20, "{kept} {lost}");
}

#[test]
fn strata_lose_equal_shares() {
    let by_source = |suite: &Suite| {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for chunk in suite.prompts().iter().flat_map(|prompt| &prompt.chunks) {
            *counts.entry(chunk.source.clone()).or_default() += 1;
        }
        counts
    };
    for name in ["unseen-held-out", "unseen-training", "unseen-split"] {
        let whole = suite(name);
        let before = by_source(&whole.0);
        assert_eq!(before.len(), 12, "{name}");
        // The largest difference, over the sources, between the chunks that a source loses and a tenth of its chunks.
        let deviation = |removal, seed| {
            let after = by_source(&run(&whole, removal, 0.1, seed).suite);
            before.iter().map(|(s, &n)| ((n - after[s]) as f64 - 0.1 * n as f64).abs()).fold(0.0, f64::max)
        };
        for seed in 0..8 {
            let equal = deviation(Removal::StratifiedBySource, seed);
            assert!(equal <= 1.0, "{name}, seed {seed}: {equal}");
        }
        assert!((0..8).any(|seed| deviation(Removal::Random, seed) > 2.0), "{name}: random removal is never unequal");
    }
}

#[test]
fn the_most_fragile_evidence_goes_first() {
    let whole = suite("suite-200");
    let weight = |perturbed: &Perturbed| -> Vec<Option<u64>> {
        perturbed
            .removed
            .iter()
            .map(|key| {
                let prompt = whole.1.prompts.iter().find(|prompt| prompt.prompt_id == key.prompt_id).unwrap();
                prompt.clusters.iter().find(|c| c.chunk_ids.contains(&key.chunk_id)).map(|c| c.weight())
            })
            .collect()
    };
    // 18 single supporters of indeterminate prompts come first, then those of contested ones (two each).
    let weights = weight(&run(&whole, Removal::MostFragileFirst, 0.1, 5));
    assert_eq!(weights.iter().filter(|w| **w == Some(1)).count(), 18);
    assert_eq!(weights.iter().filter(|w| **w == Some(2)).count(), 129 - 18);
    // It takes the conflicts, where chance mostly leaves them.
    let contested = |removal| {
        let surviving = run(&whole, removal, 0.1, 5).kept;
        surviving.iter().filter(|&&i| whole.1.prompts[i].label == Some(Label::Contested)).count()
    };
    let (fragile, random) = (contested(Removal::MostFragileFirst), contested(Removal::Random));
    assert!(fragile < random, "{fragile} {random}");
}

#[test]
fn shares_that_cannot_be_removed() {
    let whole = suite("suite-200");
    for fraction in [0.0, 1.0, -0.1, 1.5, f64::NAN, f64::INFINITY] {
        let perturbation = Perturbation { fraction, ..Perturbation::default() };
        let error = perturb(&whole.0, &whole.1, &LabelThresholds::default(), &perturbation).unwrap_err();
        assert!(matches!(error, Error::Labels(LabelError::Fraction { .. })), "{error}");
    }
    let perturbation = Perturbation { fraction: 1e-6, ..Perturbation::default() };
    let error = perturb(&whole.0, &whole.1, &LabelThresholds::default(), &perturbation).unwrap_err();
    assert!(matches!(error, Error::Labels(LabelError::NothingToRemove { chunks: 1293, .. })), "{error}");
}

#[test]
fn the_verdict_needs_every_gate_and_every_figure() {
    let whole = suite("suite-200");
    let perturbed = run(&whole, Removal::Random, 0.1, 0);
    let verdict = |figures| Stability::new(&perturbed, figures);
    let steady = || FigureMove::new("citation_recall", 0.80, 0.76, true);
    assert!(verdict(vec![steady(), FigureMove::new("refusal_f1", 1.0, 0.95, true)]).stable);
    assert!(!verdict(vec![steady(), FigureMove::new("refusal_f1", 1.0, 0.949, true)]).stable);
    assert!(!verdict(vec![steady(), FigureMove::new("refusal_f1", 0.84, 0.84, false)]).stable);
    assert!(!verdict(vec![FigureMove::new("refusal_f1", f64::NAN, 0.9, true)]).stable);
    assert!(!verdict(vec![]).stable, "no figures, no stability");
    let one = verdict(vec![steady()]);
    assert_eq!((one.chunks_removed, one.prompts), (129, 200));
    assert_eq!(one.prompts_surviving, perturbed.kept.len() as u64);
    let text = serde_json::to_string(&one).unwrap();
    assert!(
        text.starts_with(r#"{"perturbation":{"fraction":0.1,"removal":"random","seed":0},"chunks_removed":129"#),
        "{text}"
    );
}
