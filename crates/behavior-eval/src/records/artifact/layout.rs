//! Names, lengths and the two JSON parts of an artifact.

use serde::{Deserialize, Serialize};

use super::spec::{ArtifactSpec, LogitsAt};
use crate::model::AnswerEnd;
use crate::records::ArtifactDefect;
use crate::suite::Label;

pub(super) const HEAD_BYTES: u64 = 16;
pub(super) const TRAILER_BYTES: u64 = 8 + 32 + 8;
pub(super) const MAX_HEADER_BYTES: u64 = 16 << 20;
/// The index of 100,000 prompts.
pub(super) const MAX_INDEX_BYTES: u64 = 256 << 20;
/// Ids of experts are stored in 16 bits.
const MAX_EXPERTS: usize = 1 << 16;
/// Bound of vocabularies, widths and layers; products of lengths are checked all the same.
const MAX_SIZE: usize = 1 << 24;

/// A column of a prompt's block. The order is that of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Column {
    /// u32 `[n]`: prompt and answer.
    Tokens,
    Answer,
    /// u16 `[layers, n, top_k]`.
    Ids,
    /// f32 `[layers, n, top_k]`.
    Weights,
    Margins,
    /// f16 `[layers, n, n_experts]`.
    Scores,
    /// f16 `[layers, n, hidden]`.
    RouterInputs,
    /// As `Ids`: what the teacher's routers decide on the rounded `RouterInputs`.
    LocalIds,
    LocalWeights,
    LocalMargins,
    FinalHidden,
    /// Rows of u32 position, f64 tail, kept x (u32 token, f32 ln p).
    Logits,
}

impl std::fmt::Display for Column {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.serialize(f)
    }
}

impl Column {
    /// The defect of this column of a prompt.
    pub(super) fn defect(self, prompt_id: &str, reason: String) -> ArtifactDefect {
        ArtifactDefect::Column { prompt_id: prompt_id.to_owned(), column: self.to_string(), reason }
    }

    /// The columns that a recording has, in the order of the file.
    pub(super) fn of(spec: &ArtifactSpec) -> Vec<Self> {
        let columns = &spec.columns;
        let mut all = vec![Self::Tokens, Self::Answer, Self::Ids, Self::Weights, Self::Margins];
        if columns.scores {
            all.push(Self::Scores);
        }
        if columns.router_inputs {
            all.extend([Self::RouterInputs, Self::LocalIds, Self::LocalWeights, Self::LocalMargins]);
        }
        if columns.final_hidden {
            all.push(Self::FinalHidden);
        }
        if columns.logits != LogitsAt::Nowhere {
            all.push(Self::Logits);
        }
        all
    }

    /// The length of the column of a prompt of `n` tokens, of which the first `prompt` are the question; `None` for a
    /// text of any length, and for a length that no file has.
    pub(super) fn bytes(self, spec: &ArtifactSpec, prompt: usize, n: usize) -> Option<u64> {
        let (layers, model) = (spec.model.moe_layers.len(), &spec.model);
        let factors: [usize; 3] = match self {
            Self::Tokens => [4, n, 1],
            Self::Answer => return None,
            Self::Ids | Self::LocalIds => [2 * model.top_k, layers, n],
            Self::Weights | Self::LocalWeights => [4 * model.top_k, layers, n],
            Self::Margins | Self::LocalMargins => [4, layers, n],
            Self::Scores => [2 * model.n_experts, layers, n],
            Self::RouterInputs => [2 * model.hidden, layers, n],
            Self::FinalHidden => [2 * model.hidden, n, 1],
            Self::Logits => [row_bytes(kept(spec)), n - first_logits(spec, prompt)?.min(n), 1],
        };
        factors.iter().try_fold(1u64, |product, &factor| product.checked_mul(u64::try_from(factor).ok()?))
    }
}

/// The most that a prompt's block takes when its answer has as many tokens as it may.
pub(super) fn most_bytes(spec: &ArtifactSpec, prompt: usize) -> u64 {
    let n = prompt.saturating_add(spec.max_new_tokens);
    // Of the text it is not known; a token is seldom longer than this.
    let text = u64::try_from(spec.max_new_tokens).unwrap_or(u64::MAX).saturating_mul(16);
    let bytes = |column: Column| match column {
        Column::Answer => text,
        column => column.bytes(spec, prompt, n).unwrap_or(u64::MAX),
    };
    Column::of(spec).into_iter().map(bytes).fold(0, u64::saturating_add)
}

/// Tokens kept per row of logits.
pub(super) fn kept(spec: &ArtifactSpec) -> usize {
    spec.columns.kept.clamp(1, spec.model.vocab_size)
}

/// Length of a row of logits.
pub(super) fn row_bytes(kept: usize) -> usize {
    12 + 8 * kept
}

/// The first position with logits; `None` where there are none.
pub(super) fn first_logits(spec: &ArtifactSpec, prompt: usize) -> Option<usize> {
    match spec.columns.logits {
        LogitsAt::Nowhere => None,
        LogitsAt::Answer => Some(prompt.saturating_sub(1)),
        LogitsAt::Everywhere => Some(0),
    }
}

/// The first defect of a specification that came from a file or a caller.
pub(super) fn check_spec(spec: &ArtifactSpec) -> Result<(), ArtifactDefect> {
    let damaged = |reason: String| Err(ArtifactDefect::damaged("header", reason));
    let model = &spec.model;
    let is_hash =
        |text: &str| text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if !is_hash(&model.id) || !is_hash(&spec.suite) {
        return damaged("an identity is no BLAKE3 hash".to_owned());
    }
    if model.n_experts > MAX_EXPERTS || model.top_k == 0 || model.top_k > model.n_experts {
        return damaged(format!("{} of {} experts per token", model.top_k, model.n_experts));
    }
    let sizes = [model.vocab_size, model.hidden, spec.columns.kept];
    if sizes.iter().any(|size| !(1..=MAX_SIZE).contains(size)) {
        return damaged(format!("vocabulary, width and kept tokens {sizes:?} must lie in 1..={MAX_SIZE}"));
    }
    let layers = &model.moe_layers;
    if layers.is_empty() || layers.len() > MAX_SIZE || layers.windows(2).any(|pair| pair[0] >= pair[1]) {
        return damaged("the MoE layers must be there and ascend".to_owned());
    }
    Ok(())
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Header {
    pub(super) artifact: u32,
    #[serde(flatten)]
    pub(super) spec: ArtifactSpec,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Index {
    /// BLAKE3 of the header's JSON.
    pub(super) header: String,
    pub(super) prompts: Vec<PromptEntry>,
}

/// A prompt of an artifact: an entry of its index, and the payload of its unit in the job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "fields without a sentence speak for themselves")]
pub struct PromptEntry {
    pub prompt_id: String,
    pub label: Option<Label>,
    pub prompt_tokens: usize,
    /// Tokens of the prompt and the teacher's answer.
    pub tokens: usize,
    pub stop_reason: AnswerEnd,
    pub(super) columns: Vec<ColumnEntry>,
}

impl PromptEntry {
    /// Bytes of all columns together; `None` for a sum that no file has.
    pub(crate) fn block_bytes(&self) -> Option<usize> {
        let bytes = self.columns.iter().try_fold(0u64, |sum, column| sum.checked_add(column.bytes))?;
        usize::try_from(bytes).ok()
    }
}

/// A column in the index.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct ColumnEntry {
    pub(super) name: Column,
    pub(super) bytes: u64,
    pub(super) blake3: String,
}
