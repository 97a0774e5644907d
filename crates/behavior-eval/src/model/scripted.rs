//! A model without weights, for tests and examples of everything that sees models through [`Subject`].
//!
//! Its tokens are the bytes of the text and one that ends an answer. A function answers; routing, hidden states and
//! logits are hashes of layer, position and token, so two subjects agree except where one was told to misroute. The input of a
//! router holds token and position as small whole numbers, so that [`Subject::route`] decides the same on a copy of it,
//! rounded to F16 or not.

use super::language_model::ModelError;
use super::routing_table::RoutingTable;
use super::subject::{Answer, AnswerEnd, Run, Subject, SubjectInfo, Want};
use crate::stats::split_mix;

/// The token that ends an answer.
const STOP: u32 = 256;
/// Width of the residual stream; the first two columns say token and position.
const HIDDEN: usize = 4;
/// Numbers up to this one are exact in F16.
const EXACT: usize = 2048;

type AnswerRule = Box<dyn FnMut(&str) -> String + Send>;
type RouteRule = Box<dyn FnMut(usize, usize) -> bool + Send>;

/// A model that answers by a function and routes by hashes.
pub struct ScriptedSubject {
    info: SubjectInfo,
    answer: AnswerRule,
    misroute: RouteRule,
    runs: usize,
}

impl ScriptedSubject {
    /// A subject of this name with 8 experts, 2 per token, in the MoE layers 1 to 3. It answers with nothing.
    pub fn new(name: &str) -> Self {
        let info = SubjectInfo {
            name: name.to_owned(),
            id: blake3::hash(name.as_bytes()).to_string(),
            moe_layers: vec![1, 2, 3],
            n_experts: 8,
            top_k: 2,
            vocab_size: STOP as usize + 1,
            hidden: HIDDEN,
        };
        Self { info, answer: Box::new(|_| String::new()), misroute: Box::new(|_, _| false), runs: 0 }
    }

    /// Answers by a function of the prompt: the system message, a line end, the user turn, a line end.
    pub fn answering(mut self, answer: impl FnMut(&str) -> String + Send + 'static) -> Self {
        self.answer = Box::new(answer);
        self
    }

    /// Replaces one expert by a wrong one wherever `wrong` says so of a MoE layer (counted from 0) and a position.
    pub fn misrouting(mut self, wrong: impl FnMut(usize, usize) -> bool + Send + 'static) -> Self {
        self.misroute = Box::new(wrong);
        self
    }

    /// How often it ran or answered; tests count it to see that recordings are reused.
    pub fn runs(&self) -> usize {
        self.runs
    }

    /// Routes one token in MoE layer `layer`: returns the scores, appends experts with weights and margin to `table`.
    fn decide(&mut self, layer: usize, position: usize, token: u32, table: &mut RoutingTable) -> Vec<f32> {
        let (k, n_experts) = (self.info.top_k, self.info.n_experts);
        let mut state = (layer as u64) << 48 ^ (position as u64) << 24 ^ u64::from(token);
        let scores: Vec<f32> = (0..n_experts).map(|_| unit(&mut state)).collect();
        let mut order: Vec<usize> = (0..n_experts).collect();
        order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
        let margin = order.get(k).map_or(0.0, |&next| scores[order[k - 1]] - scores[next]);
        if (self.misroute)(layer, position) && k < n_experts {
            order.swap(k - 1, k);
        }
        let mut chosen: Vec<(u32, f32)> =
            order[..k].iter().map(|&e| (u32::try_from(e).unwrap_or(u32::MAX), scores[e])).collect();
        chosen.sort_by_key(|&(id, _)| id);
        let total: f32 = chosen.iter().map(|&(_, s)| s).sum();
        table.ids.extend(chosen.iter().map(|&(id, _)| id));
        table.weights.extend(chosen.iter().map(|&(_, s)| s / total));
        table.margins.push(margin);
        scores
    }
}

/// A number in (0, 1).
fn unit(state: &mut u64) -> f32 {
    let bits = u16::try_from(split_mix(state) >> 48).unwrap_or(0);
    (f32::from(bits) + 0.5) / 65536.0
}

impl Subject for ScriptedSubject {
    fn info(&self) -> &SubjectInfo {
        &self.info
    }

    fn encode(&mut self, system: &str, user: &str) -> Result<Vec<u32>, ModelError> {
        Ok(format!("{system}\n{user}\n").bytes().map(u32::from).collect())
    }

    fn generate(&mut self, prompt: &[u32], max_new_tokens: usize) -> Result<Answer, ModelError> {
        self.runs += 1;
        let bytes: Vec<u8> = prompt.iter().filter_map(|&token| u8::try_from(token).ok()).collect();
        let mut text = (self.answer)(&String::from_utf8_lossy(&bytes));
        let stop_reason = if text.len() > max_new_tokens { AnswerEnd::Length } else { AnswerEnd::Stop };
        let end = (0..=max_new_tokens.min(text.len())).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
        text.truncate(end);
        Ok(Answer { tokens: text.bytes().map(u32::from).collect(), text, stop_reason })
    }

    fn run(&mut self, tokens: &[u32], want: &Want, logits: &mut dyn FnMut(usize, &[f32])) -> Result<Run, ModelError> {
        self.runs += 1;
        if let Some(token) = tokens.iter().find(|&&token| token > STOP) {
            return Err(format!("token {token} is unknown").into());
        }
        let (layers, n) = (self.info.moe_layers.len(), tokens.len());
        let mut routing = RoutingTable::new(n, self.info.top_k);
        let (mut scores, mut inputs, mut hidden) = (Vec::new(), Vec::new(), Vec::new());
        for layer in 0..layers {
            for (position, &token) in tokens.iter().enumerate() {
                scores.extend(self.decide(layer, position % EXACT, token, &mut routing));
                inputs.extend([token as f32, (position % EXACT) as f32, 0.5, -1.0]);
            }
        }
        for (position, &token) in tokens.iter().enumerate() {
            let mut state = u64::from(token) ^ (position as u64) << 20;
            hidden.extend((0..HIDDEN).map(|_| unit(&mut state) - 0.5));
            if want.logits_from.is_some_and(|from| position >= from) {
                let row: Vec<f32> = (0..self.info.vocab_size).map(|_| 8.0 * unit(&mut state)).collect();
                logits(position, &row);
            }
        }
        Ok(Run {
            routing,
            scores: want.scores.then_some(scores),
            router_inputs: want.router_inputs.then_some(inputs),
            final_hidden: want.final_hidden.then_some(hidden),
        })
    }

    fn route(&mut self, layer: usize, inputs: &[f32]) -> Result<RoutingTable, ModelError> {
        let mut table = RoutingTable::new(inputs.len() / HIDDEN, self.info.top_k);
        for row in inputs.chunks_exact(HIDDEN) {
            // Both are small whole numbers that `run` wrote.
            let (token, position) = (row[0] as u32, row[1] as usize);
            self.decide(layer, position, token, &mut table);
        }
        Ok(table)
    }
}
