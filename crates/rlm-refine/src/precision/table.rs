//! The types that a search compared and chose, for reports and for the metadata of the student.

use gguf_bitnet::{Array, TensorClass, TensorType, Value};
use serde::Serialize;

/// The types of a search, with their sizes and errors.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PrecisionTable {
    /// Most bytes of the student.
    pub target_bytes: u64,
    /// Tokens that the errors were measured on.
    pub tokens: usize,
    /// The classes that have a choice.
    pub classes: Vec<ClassCandidates>,
}

/// The types that a class may have, in ascending size.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClassCandidates {
    /// The class; all matrices of the attention are one.
    pub class: TensorClass,
    /// One row per type, of which one is chosen.
    pub candidates: Vec<Candidate>,
}

/// One type for the tensors of a class.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Candidate {
    /// The type; a tensor whose rows do not fill its blocks has another.
    #[serde(rename = "type")]
    pub ty: TensorType,
    /// Bytes of the class in the file, padding included.
    pub bytes: u64,
    /// Squared difference that the type causes, over the squared length of the stream: mean over tokens, sum over layers.
    pub error: f64,
    /// Whether the student has it.
    pub chosen: bool,
}

impl PrecisionTable {
    /// The sum of the errors of the chosen types.
    #[must_use]
    pub fn error(&self) -> f64 {
        let candidates = self.classes.iter().flat_map(|class| &class.candidates);
        candidates.filter(|candidate| candidate.chosen).map(|candidate| candidate.error).sum()
    }

    /// The keys and values of the metadata, one row per candidate. Their size does not depend on errors and choices.
    pub(crate) fn entries(&self) -> [(&'static str, Value); 7] {
        let rows = || self.classes.iter().flat_map(|class| class.candidates.iter().map(|row| (class.class, *row)));
        [
            ("precision.target_bytes", Value::U64(self.target_bytes)),
            ("precision.tokens", Value::U64(self.tokens as u64)),
            (
                "precision.classes",
                Value::Array(Array::String(rows().map(|(class, _)| class.name().to_owned()).collect())),
            ),
            ("precision.types", Value::Array(Array::String(rows().map(|(_, row)| row.ty.name().to_owned()).collect()))),
            ("precision.bytes", Value::Array(Array::U64(rows().map(|(_, row)| row.bytes).collect()))),
            ("precision.errors", Value::Array(Array::F64(rows().map(|(_, row)| row.error).collect()))),
            ("precision.chosen", Value::Array(Array::Bool(rows().map(|(_, row)| row.chosen).collect()))),
        ]
    }
}
