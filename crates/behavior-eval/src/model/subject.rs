//! A model as the gates see it: its shape, its answers, and the routing of given tokens.
//!
//! The runtime's models come in through an adapter of the command; [`crate::model::ScriptedSubject`] is the other
//! implementation, for tests.
//!
//! **Invariant:** the gates know a model only through [`Subject`], and the same calls give the same results.

use serde::{Deserialize, Serialize};

use super::error::SubjectError;
use super::language_model::ModelError;
use super::role::Role;
use super::routing_table::RoutingTable;
use crate::{Error, Result};

/// The shape and identity of a model, as far as the gates need them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "fields without a sentence speak for themselves")]
pub struct SubjectInfo {
    /// A short name for reports and file names.
    pub name: String,
    /// BLAKE3 of the model in lower-case hexadecimal: its identity, which does not depend on the name of its file.
    pub id: String,
    /// Indices of the layers that have a router, ascending.
    pub moe_layers: Vec<u32>,
    /// Routed experts per layer.
    pub n_experts: usize,
    pub top_k: usize,
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden: usize,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
#[allow(missing_docs, reason = "variants without a sentence speak for themselves")]
pub enum AnswerEnd {
    Stop,
    /// It has as many tokens as were allowed.
    Length,
    Context,
}

impl std::fmt::Display for AnswerEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.serialize(f)
    }
}

/// A greedy answer to one prompt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "fields without a sentence speak for themselves")]
pub struct Answer {
    /// Its tokens, without the one that ended it.
    pub tokens: Vec<u32>,
    /// The same as text, control tokens left out.
    pub text: String,
    pub stop_reason: AnswerEnd,
}

/// The columns that a teacher-forced run hands out besides the routing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "fields without a sentence speak for themselves")]
pub struct Want {
    pub scores: bool,
    /// The input of each router.
    pub router_inputs: bool,
    /// The residual stream after the final norm.
    pub final_hidden: bool,
    /// Logits of the positions from this one on; `None` for no logits.
    pub logits_from: Option<usize>,
}

/// The columns of a run over `n` given tokens. One prompt's columns are in memory at a time.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs, reason = "fields without a sentence speak for themselves")]
pub struct Run {
    /// The experts of every token in every MoE layer.
    pub routing: RoutingTable,
    /// `[layers, n, n_experts]`: after gating, before the selection bias.
    pub scores: Option<Vec<f32>>,
    /// `[layers, n, hidden]`: the normed input of each MoE layer's feed-forward part.
    pub router_inputs: Option<Vec<f32>>,
    pub final_hidden: Option<Vec<f32>>,
}

/// A model under evaluation.
///
/// ```
/// use behavior_eval::model::{ScriptedSubject, Subject, Want};
/// let mut subject = ScriptedSubject::new("parrot").answering(|prompt| format!("You said: {prompt}"));
/// let prompt = subject.encode("Repeat.", "hello")?;
/// let answer = subject.generate(&prompt, 64)?;
/// let run = subject.run(&[prompt, answer.tokens].concat(), &Want::default(), &mut |_, _| {})?;
/// assert_eq!(run.routing.n_layers(), subject.info().moe_layers.len());
/// # Ok::<(), behavior_eval::model::ModelError>(())
/// ```
pub trait Subject {
    /// The shape and identity of the model.
    fn info(&self) -> &SubjectInfo;

    /// The tokens of a prompt, exactly as the model's chat template renders a system message and a user turn that
    /// await the assistant, thinking off. An empty `system` means none.
    ///
    /// # Errors
    /// A text that cannot be rendered or tokenised.
    fn encode(&mut self, system: &str, user: &str) -> Result<Vec<u32>, ModelError>;

    /// Tells which prompts will be asked for, in order, and which columns: a model that computes many at a time can prepare
    /// them together. Others need not know.
    fn announce(&mut self, _prompts: Vec<Vec<u32>>, _want: &Want) {}

    /// The greedy answer to `prompt` from an empty context, of at most `max_new_tokens` tokens.
    ///
    /// # Errors
    /// A prompt that does not fit, and a model that cannot run.
    fn generate(&mut self, prompt: &[u32], max_new_tokens: usize) -> Result<Answer, ModelError>;

    /// Runs given tokens through an empty context and hands out what every router decided, and what else is wanted.
    /// `logits` gets the rows `[vocab_size]` of the positions from [`Want::logits_from`] on, in ascending order; the
    /// row of position `p` predicts token `p + 1`.
    ///
    /// # Errors
    /// Tokens that do not fit or are not known, and a model that cannot run.
    fn run(&mut self, tokens: &[u32], want: &Want, logits: &mut dyn FnMut(usize, &[f32])) -> Result<Run, ModelError>;

    /// Routes `inputs` `[n, hidden]` that come from elsewhere through the router of one MoE layer: the local mode. `layer` counts within [`SubjectInfo::moe_layers`]. The result has one layer.
    ///
    /// # Errors
    /// A router that cannot run.
    fn route(&mut self, layer: usize, inputs: &[f32]) -> Result<RoutingTable, ModelError>;
}

/// Calls [`Subject::run`] and checks what came back against the contract: every length, every id, every number.
///
/// # Errors
/// [`SubjectError::Failed`] when the model fails, [`SubjectError::Contract`] when it hands out something impossible.
pub fn run_checked(
    subject: &mut dyn Subject,
    place: AskedPrompt<'_>,
    tokens: &[u32],
    want: &Want,
    logits: &mut dyn FnMut(usize, &[f32]) -> Result<()>,
) -> Result<Run> {
    let info = subject.info().clone();
    let (mut next, mut failure) = (want.logits_from.unwrap_or(usize::MAX), None);
    let ran = subject.run(tokens, want, &mut |position, row| {
        if failure.is_some() {
            return;
        }
        let expected = position == next && position < tokens.len() && row.len() == info.vocab_size;
        let outcome = match row.iter().position(|x| !x.is_finite()) {
            None if expected => logits(position, row),
            None => Err(place.broken("a row of logits", format!("position {position} with {} logits", row.len()))),
            Some(at) => Err(place.broken("a logit", format!("{} for token {at}", row[at]))),
        };
        failure = outcome.err();
        next = next.saturating_add(1);
    });
    let run = ran.map_err(|source| place.failed(source))?;
    if let Some(failure) = failure {
        return Err(failure);
    }
    if want.logits_from.is_some_and(|from| from < tokens.len()) && next != tokens.len() {
        return Err(place.broken("the rows of logits", format!("an end before position {next}")));
    }
    check_routing(&run.routing, &info, info.moe_layers.len(), tokens.len(), place)?;
    let (layers, n) = (info.moe_layers.len(), tokens.len());
    let columns = [
        ("router scores", want.scores, &run.scores, layers * n * info.n_experts),
        ("router inputs", want.router_inputs, &run.router_inputs, layers * n * info.hidden),
        ("final hidden states", want.final_hidden, &run.final_hidden, n * info.hidden),
    ];
    for (what, wanted, column, len) in columns {
        let got = match column {
            None => wanted.then(|| "nothing".to_owned()),
            Some(values) if values.len() != len => Some(format!("{} numbers instead of {len}", values.len())),
            Some(values) => values.iter().find(|x| !x.is_finite()).map(f32::to_string),
        };
        if let Some(got) = got {
            return Err(place.broken(what, got));
        }
    }
    Ok(run)
}

/// Calls [`Subject::route`] on every layer of `inputs` `[layers, n, hidden]` and checks what came back.
///
/// # Errors
/// As [`run_checked`].
pub fn route_checked(
    subject: &mut dyn Subject,
    place: AskedPrompt<'_>,
    inputs: &[f32],
    n: usize,
) -> Result<RoutingTable> {
    let info = subject.info().clone();
    if inputs.len() != info.moe_layers.len() * n * info.hidden {
        return Err(place.broken("the layer inputs", format!("{} numbers for {n} tokens", inputs.len())));
    }
    let mut layers = RoutingTable::new(n, info.top_k);
    for (layer, rows) in inputs.chunks_exact((n * info.hidden).max(1)).enumerate() {
        let table = subject.route(layer, rows).map_err(|source| place.failed(source))?;
        check_routing(&table, &info, 1, n, place)?;
        layers.push_layer(&table.ids, &table.weights, &table.margins);
    }
    Ok(layers)
}

/// The table has the shape and holds the numbers that the model's own figures allow.
fn check_routing(
    table: &RoutingTable,
    info: &SubjectInfo,
    layers: usize,
    n: usize,
    place: AskedPrompt<'_>,
) -> Result<()> {
    let got = if table.has_shape(layers, n, info.top_k) {
        table.defect(info.n_experts)
    } else {
        Some(format!("{} ids for {} tokens", table.ids.len(), table.n))
    };
    got.map_or(Ok(()), |got| Err(place.broken("the routing", got)))
}

/// Which model is asked about which prompt, for messages.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "fields without a sentence speak for themselves")]
pub struct AskedPrompt<'a> {
    pub role: Role,
    pub prompt_id: &'a str,
}

impl AskedPrompt<'_> {
    /// The error of a model that failed.
    pub fn failed(self, source: ModelError) -> Error {
        Error::Subject(SubjectError::Failed { role: self.role, prompt_id: self.prompt_id.to_owned(), source })
    }

    /// The model handed out `got` as `what`.
    fn broken(self, what: &'static str, got: String) -> Error {
        Error::Subject(SubjectError::Contract { role: self.role, prompt_id: self.prompt_id.to_owned(), what, got })
    }
}
