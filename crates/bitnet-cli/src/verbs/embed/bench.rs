//! `bitnet embed bench`: what the recursion is worth beside the encoder alone, on claims with contradictions.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Result, anyhow};
use behavior_eval::stats::{paired_difference, quantile};
use rlm_embed::bench::{
    CachedEmbedder, Claim, ClaimFigures, ClaimSet, Kind, fit_rules, fit_weights, flagged_distractors, flags, measure,
    parse_claims,
};
use rlm_embed::encoder::{BaseEmbedder, cosine};
use rlm_embed::graph::{RelationRules, Signals};
use rlm_embed::recursion::{Corpus, MergeWeights, RecursionConfig, RlmEmbedder, Variant};
use rlm_embed::store::cut;
use serde_json::{Value, json};

use crate::args::{EmbedderArgs, PrecisionArg, whole};
use crate::{load, output};

/// Tokens of a text whose latency is measured; words of one token each.
const LATENCY_WORDS: usize = 62;
const VARIANTS: [(&str, Variant); 3] = [("A", Variant::Query), ("B", Variant::Corpus), ("C", Variant::Twin)];
/// Most words of a distractor.
const SENTENCE_WORDS: usize = 25;

/// Measure the recursion beside the encoder alone.
///
/// The thresholds are fitted on fit.jsonl, the weights on tune.jsonl, and the figures are those of test.jsonl. The result is JSON.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    embedder: EmbedderArgs,
    /// Folder with fit.jsonl, tune.jsonl and test.jsonl
    #[arg(long, value_name = "DIR")]
    claims: PathBuf,
    /// A text whose sentences stand in the corpus beside the claims
    #[arg(long, value_name = "FILE")]
    distractors: Option<String>,
    /// Most sentences taken from it
    #[arg(long, default_value = "200", value_name = "N", value_parser = whole::<usize>(0..=100_000))]
    most_distractors: usize,
    /// Another precision of the same encoder, measured in turn with the first: times, and the lowest cosine over the texts
    #[arg(long, value_enum, value_name = "PRECISION")]
    beside: Option<PrecisionArg>,
    /// Times that a text of 64 tokens is encoded to measure latency; 0 measures none
    #[arg(long, default_value = "20", value_name = "N", value_parser = whole::<usize>(0..=10_000))]
    repeat: usize,
}

pub(super) fn execute(args: &Args) -> Result<()> {
    let (embedder, pool) = args.embedder.load()?;
    // Loaded before anything is measured, so that a precision that the encoder does not have costs no fits.
    let other = args.beside.map(|precision| args.embedder.load_in(precision, "--beside", pool.clone())).transpose()?;
    let mut encoder = CachedEmbedder::new(embedder);
    let distractors = match &args.distractors {
        Some(file) => {
            let chunks = cut(&load::read_text(file)?, SENTENCE_WORDS);
            chunks.into_iter().take(args.most_distractors).collect()
        }
        None => Vec::new(),
    };
    let set = |split: &str, encoder: &mut CachedEmbedder<_>| -> Result<ClaimSet> {
        let claims = read(&args.claims.join(format!("{split}.jsonl")))?;
        Ok(ClaimSet::new(claims, &distractors, encoder, pool.clone())?)
    };
    let (fit, tune, test) = (set("fit", &mut encoder)?, set("tune", &mut encoder)?, set("test", &mut encoder)?);
    let rules = fit_rules(&fit).best;
    let alone = measure(&test, &mut encoder, None)?;
    let mut report = json!({
        "claims": test.claims.len(), "texts": test.store.len(), "alone": means(&alone),
        "rules": { "least_cosine": rules.least_cosine, "least_overlap": rules.least_overlap },
        "flags": flag_report(&test, &rules), "variants": {}, "anti": {},
        "shipped": shipped_report(&test, &mut encoder, &alone)?,
    });
    for (name, variant) in VARIANTS {
        let base = RecursionConfig { rules, ..RecursionConfig::new(variant) };
        let weights = fit_weights(&tune, &mut encoder, base)?.best;
        let figures = measure(&test, &mut encoder, Some(RecursionConfig { weights, ..base }))?;
        report["variants"][name] = variant_report(weights, &alone, &figures);
    }
    for anti in [-0.5, -0.27, -0.2, 0.0, 0.1, 0.5] {
        let weights = MergeWeights { anti, ..MergeWeights::TOWARDS_ANTI };
        let config = RecursionConfig { rules, weights, ..RecursionConfig::new(Variant::Corpus) };
        report["anti"][format!("{anti}")] = means(&measure(&test, &mut encoder, Some(config))?);
    }
    let mut encoder = encoder.into_base();
    if let Some(mut other) = other {
        report["beside"] = beside(&mut *encoder, &mut *other, &test, args.repeat)?;
    }
    if args.repeat > 0 {
        report["latency_ms"] = latency(encoder, &test, args.repeat, rules)?;
    }
    output::json(&report)
}

fn read(path: &Path) -> Result<Vec<Claim>> {
    let text = load::read_text(&path.to_string_lossy())?;
    parse_claims(&text).map_err(|(line, error)| anyhow!("{}: line {line} is no claim ({error})", path.display()))
}

/// Names and means of all figures.
fn means(figures: &[ClaimFigures]) -> Value {
    let mean = |i: usize| figures.iter().map(|f| f.named()[i].1).sum::<f64>() / figures.len().max(1) as f64;
    let names = ClaimFigures::default().named();
    names.iter().enumerate().map(|(i, (name, _))| ((*name).to_owned(), json!(mean(i)))).collect()
}

/// The figures of a variant and, for each, the difference from the encoder alone with its interval.
fn variant_report(weights: MergeWeights, alone: &[ClaimFigures], figures: &[ClaimFigures]) -> Value {
    let column = |figures: &[ClaimFigures], i: usize| figures.iter().map(|f| f.named()[i].1).collect::<Vec<f64>>();
    let names = ClaimFigures::default().named();
    let differences = names.iter().enumerate().map(|(i, (name, _))| {
        let difference = paired_difference(&column(alone, i), &column(figures, i));
        ((*name).to_owned(), json!(difference))
    });
    json!({
        "weights": [weights.base, weights.context, weights.anti],
        "figures": means(figures),
        "difference": differences.collect::<Value>(),
    })
}

/// The configurations that the product uses without a fit.
fn shipped_report<E: BaseEmbedder>(set: &ClaimSet, encoder: &mut E, alone: &[ClaimFigures]) -> Result<Value> {
    let rules = RelationRules::default();
    let mut report = json!({
        "rules": { "least_cosine": rules.least_cosine, "least_overlap": rules.least_overlap },
        "flags": flag_report(set, &rules)["all"], "variants": {},
    });
    for (name, variant) in VARIANTS {
        let config = RecursionConfig::new(variant);
        report["variants"][name] = variant_report(config.weights, alone, &measure(set, encoder, Some(config))?);
    }
    Ok(report)
}

/// Flags per kind of pair with all signals, and with each one left out.
fn flag_report(set: &ClaimSet, rules: &RelationRules) -> Value {
    let all = Signals::ALL;
    [
        ("all", all),
        ("without-negation", Signals { negation: false, ..all }),
        ("without-number", Signals { number: false, ..all }),
        ("without-antonym", Signals { antonym: false, ..all }),
        ("without-entity", Signals { entity: false, ..all }),
    ]
    .into_iter()
    .map(|(name, signals)| {
        let counts = flags(set, &RelationRules { signals, ..*rules });
        let (mut right, mut flagged) = (0, 0);
        let kinds = Kind::ALL.into_iter().filter_map(|kind| Some((kind, *counts.get(&kind)?)));
        let rows = kinds.map(|(kind, count)| {
            flagged += count.flagged;
            right += if kind.contradicts() { count.flagged } else { 0 };
            let row = json!({ "pairs": count.pairs, "flagged": count.flagged, "agreeing": count.agreeing });
            (kind.name().to_owned(), row)
        });
        let mut rows = rows.collect::<Value>();
        rows["precision"] = json!(right as f64 / f64::from(flagged.max(1) as u32));
        let apart = flagged_distractors(set, &RelationRules { signals, ..*rules });
        rows["distractor"] = json!({ "pairs": apart.pairs, "flagged": apart.flagged, "agreeing": apart.agreeing });
        (name.to_owned(), rows)
    })
    .collect()
}

/// The lowest cosine of the vectors of two encoders over the texts of the claims, and milliseconds of both for a text of 64 tokens
/// in turn, so that other work on the machine meets both.
fn beside(one: &mut dyn BaseEmbedder, other: &mut dyn BaseEmbedder, set: &ClaimSet, repeat: usize) -> Result<Value> {
    let mut lowest = 1.0f32;
    for row in set.store.live_rows() {
        let vector = other.embed(&[set.store.chunk(row).text])?;
        lowest = lowest.min(cosine(&vector, set.store.vector(row)));
    }
    let text = latency_text();
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for _ in 0..repeat {
        first.push(milliseconds(|| one.embed(&[&text]).map(drop))?);
        second.push(milliseconds(|| other.embed(&[&text]).map(drop))?);
    }
    let mut report = json!({ "texts": set.store.len(), "lowest_cosine": lowest });
    if repeat > 0 {
        report["latency_ms"] = json!({ "alone": quantiles(first), "beside": quantiles(second) });
    }
    Ok(report)
}

/// A text of 64 tokens.
fn latency_text() -> String {
    let words = ["time", "river", "house", "water", "city", "green", "music"];
    (0..LATENCY_WORDS).map(|i| words[i % words.len()]).collect::<Vec<_>>().join(" ")
}

/// Milliseconds for a text of 64 tokens, and for each query of the claims by the encoder alone and by two passes of variant A.
fn latency(mut embedder: Box<dyn BaseEmbedder>, set: &ClaimSet, repeat: usize, rules: RelationRules) -> Result<Value> {
    let text = latency_text();
    let queries = || set.claims.iter().map(|claim| claim.query.as_str());
    let alone = times((0..repeat).map(|_| &*text), |text| embedder.embed(&[text]).map(drop))?;
    let query = times(queries(), |query| embedder.embed(&[query]).map(drop))?;
    let config = RecursionConfig { rules, converged: 2.0, ..RecursionConfig::new(Variant::Query) };
    let mut embedder = RlmEmbedder::new(embedder, config);
    let corpus = Corpus::exact(&set.store);
    let looped = times(queries(), |query| embedder.embed(query, None, corpus).map(drop))?;
    Ok(json!({ "alone": alone, "query": query, "query-two-passes": looped }))
}

/// Quantiles of the milliseconds that `embed` takes for each text.
fn times<'t>(
    texts: impl Iterator<Item = &'t str>,
    mut embed: impl FnMut(&'t str) -> rlm_embed::Result<()>,
) -> Result<Value> {
    let mut times = Vec::new();
    for text in texts {
        times.push(milliseconds(|| embed(text))?);
    }
    Ok(quantiles(times))
}

fn milliseconds(work: impl FnOnce() -> rlm_embed::Result<()>) -> Result<f64> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed().as_secs_f64() * 1e3)
}

fn quantiles(mut times: Vec<f64>) -> Value {
    times.sort_by(f64::total_cmp);
    let at = |q: f64| quantile(&times, q);
    json!({ "p50": at(0.5), "p95": at(0.95), "p99": at(0.99) })
}
