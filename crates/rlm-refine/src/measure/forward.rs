//! The numbers inside one forward pass, for comparison with another implementation.
//!
//! The names are those of the golden files under `fixtures/goldens`: `input_ids` i64 `[T]`, `logits` f32 `[T, vocab]`,
//! `hidden.{i}` f32 `[T, hidden]` (the residual stream before layer i; the last one after the final norm),
//! `router_ids.{l}` i64 and `router_weights.{l}` f32 `[T, top_k]`.

use std::collections::BTreeMap;

use moe_runtime::Session;
use moe_runtime::forward::{At, RoutingDecision, Taps};

use super::error::Result;

/// Values of all positions, one after the other.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the variants are element types")]
pub enum Column {
    F32(Vec<f32>),
    I64(Vec<i64>),
}

/// The named columns of a forward pass.
#[derive(Clone, Debug, PartialEq)]
pub struct ForwardRecord {
    columns: BTreeMap<String, Column>,
    n_tokens: usize,
}

impl ForwardRecord {
    /// Runs `tokens` through an empty session and records every position.
    ///
    /// # Errors
    /// Tokens that do not fit or are not known.
    pub fn new(session: &mut Session, tokens: &[u32]) -> Result<Self> {
        let mut recorder = Recorder { n_layers: session.model().config().n_layers, columns: BTreeMap::new() };
        let mut logits = Vec::new();
        session.step_rows(tokens, 0, &mut recorder, &mut |_, row| {
            logits.extend_from_slice(row);
            Ok(())
        })?;
        let mut columns = recorder.columns;
        columns.insert("logits".to_owned(), Column::F32(logits));
        columns.insert("input_ids".to_owned(), Column::I64(tokens.iter().map(|&t| i64::from(t)).collect()));
        Ok(Self { columns, n_tokens: tokens.len() })
    }

    /// The columns by name, in ascending order, each with its shape.
    pub fn columns(&self) -> impl ExactSizeIterator<Item = (&str, Vec<usize>, &Column)> {
        self.columns.iter().map(|(name, column)| {
            let len = match column {
                Column::F32(values) => values.len(),
                Column::I64(values) => values.len(),
            };
            let shape = if name == "input_ids" { vec![len] } else { vec![self.n_tokens, len / self.n_tokens] };
            (name.as_str(), shape, column)
        })
    }

    /// Whether every logit is a finite number.
    #[must_use]
    pub fn is_finite(&self) -> bool {
        matches!(self.columns.get("logits"), Some(Column::F32(logits)) if logits.iter().all(|logit| logit.is_finite()))
    }
}

/// Appends each batch to its columns.
struct Recorder {
    n_layers: usize,
    columns: BTreeMap<String, Column>,
}

impl Recorder {
    fn add_f32(&mut self, name: String, values: &[f32]) {
        if let Column::F32(column) = self.columns.entry(name).or_insert_with(|| Column::F32(Vec::new())) {
            column.extend_from_slice(values);
        }
    }
}

impl Taps for Recorder {
    fn layer_in(&mut self, at: At, x: &mut [f32]) {
        self.add_f32(format!("hidden.{}", at.layer), x);
    }

    fn final_hidden(&mut self, _first: usize, x: &[f32]) {
        self.add_f32(format!("hidden.{}", self.n_layers), x);
    }

    fn routing(&mut self, at: At, decision: &mut RoutingDecision) {
        self.add_f32(format!("router_weights.{}", at.layer), &decision.weights);
        let ids = self.columns.entry(format!("router_ids.{}", at.layer)).or_insert_with(|| Column::I64(Vec::new()));
        if let Column::I64(column) = ids {
            column.extend(decision.ids.iter().map(|&id| i64::from(id)));
        }
    }
}
