//! The thresholds and the weights of the recursion, fitted by search over a grid.
//!
//! **Invariant:** a fit sees the split that it is given and no other, and the first of equal candidates wins.

use super::claims::{ClaimSet, Kind};
use super::flags::{compared, compared_with_distractors, count, count_distractors};
use super::measure::{ClaimFigures, measure_in_one_corpus};
use crate::encoder::BaseEmbedder;
use crate::error::Result;
use crate::graph::{RelationRules, Signals};
use crate::recursion::{MergeWeights, RecursionConfig};

/// A choice and the score that it reached on the split it was fitted on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fitted<T> {
    /// The choice with the highest score.
    pub best: T,
    /// The score that it reached.
    pub score: f64,
}

/// The thresholds with the highest score: the share of contradictions that are flagged, of paraphrases and unrelated claims that are
/// not, of distractors that are neither flagged nor seen to agree, less the share of paraphrases that are not seen to agree.
#[must_use]
pub fn fit_rules(set: &ClaimSet) -> Fitted<RelationRules> {
    let mut fitted = Fitted { best: RelationRules::default(), score: f64::NEG_INFINITY };
    let (pairs, distractors) = (compared(set), compared_with_distractors(set));
    for cosine in 2..=18 {
        for overlap in 0..=8 {
            let (least_cosine, least_overlap) = (cosine as f32 * 0.05, overlap as f32 * 0.1);
            let rules = RelationRules { least_cosine, least_overlap, signals: Signals::ALL };
            let (mut contradictions, mut flagged, mut others, mut clean, mut missed, mut same) = (0, 0, 0, 0, 0, 0);
            for (kind, count) in count(&pairs, &rules) {
                if kind.contradicts() {
                    (contradictions, flagged) = (contradictions + count.pairs, flagged + count.flagged);
                } else {
                    (others, clean) = (others + count.pairs, clean + count.pairs - count.flagged);
                }
                if kind == Kind::Paraphrase {
                    (same, missed) = (same + count.pairs, missed + count.pairs - count.agreeing);
                }
            }
            let share = |part: u64, whole: u64| part as f64 / whole.max(1) as f64;
            let apart = count_distractors(&distractors, &rules);
            let related = share(apart.flagged + apart.agreeing, apart.pairs);
            let score = share(flagged, contradictions) + share(clean, others) - share(missed, same) - related;
            if score > fitted.score {
                fitted = Fitted { best: rules, score };
            }
        }
    }
    fitted
}

/// The weights with the highest sum of separation, relevance to the query and top-1 accuracy, less the distance of paraphrases,
/// over a grid with `anti` from -0.5 to 0.5.
///
/// # Errors
/// A text that the encoder cannot take.
pub fn fit_weights<E: BaseEmbedder>(
    set: &ClaimSet,
    encoder: &mut E,
    config: RecursionConfig,
) -> Result<Fitted<MergeWeights>> {
    let mut fitted = Fitted { best: config.weights, score: f64::NEG_INFINITY };
    for context in [0.0, 0.2] {
        for anti in [-0.5, -0.35, -0.2, -0.1, 0.0, 0.1, 0.5] {
            let weights = MergeWeights { base: 1.0 - context, context, anti };
            let figures = measure_in_one_corpus(set, encoder, RecursionConfig { weights, ..config })?;
            let score = mean_score(&figures);
            if score > fitted.score {
                fitted = Fitted { best: weights, score };
            }
        }
    }
    Ok(fitted)
}

fn mean_score(figures: &[ClaimFigures]) -> f64 {
    let score = |f: &ClaimFigures| f.separation + f.relevance + f.top1 - f.paraphrase;
    figures.iter().map(score).sum::<f64>() / figures.len().max(1) as f64
}
