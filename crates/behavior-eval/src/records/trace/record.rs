//! One line of a trace.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::records::TraceDefect;
use crate::records::format::TRACE_VERSION;
use crate::text::{Fields, LineFault};

/// One token in one MoE layer. `other`, here and below, are fields that this version does not know.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fields without a sentence speak for themselves")]
pub struct TraceRecord {
    pub version: u32,
    pub prompt_id: String,
    /// Position in prompt + the teacher's answer.
    pub token_idx: u64,
    /// Index of the layer in the model.
    pub layer_idx: u32,
    /// The experts that computed the token.
    pub routing: RoutingTrace,
    /// The citations of the student's answer; on the last line of a prompt only.
    pub citations: Vec<CitationTrace>,
    /// Whether the student refused; on the last line of a prompt only.
    pub refusal: Option<RefusalTrace>,
    /// Cosine of the final hidden states of teacher and student at this token; absent when they were not recorded.
    pub coherence_score: Option<f64>,
    /// Why the student's answer ended; on the last line of a prompt only.
    pub stop_reason: Option<String>,
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// The experts of a token in teacher and student.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[allow(missing_docs, reason = "fields without a sentence speak for themselves")]
pub struct RoutingTrace {
    pub topk_expert_ids: Vec<u32>,
    pub topk_weights: Vec<f32>,
    pub teacher_expert_ids: Vec<u32>,
    pub teacher_weights: Vec<f32>,
    /// Whether both are the same set.
    pub agreement: bool,
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// A citation in an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "fields without a sentence speak for themselves")]
pub struct CitationTrace {
    pub chunk_id: String,
    /// The text it stands for: the sentence or clause that cites.
    pub span: String,
    pub valid: bool,
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// Whether an answer refuses, and whether it should.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "fields without a sentence speak for themselves")]
pub struct RefusalTrace {
    /// Whether the prompt asks for a refusal; absent where nothing is gated (contested and unlabelled prompts).
    pub should_refuse: Option<bool>,
    pub did_refuse: bool,
    /// Whether that is right; absent as `should_refuse`.
    pub correct: Option<bool>,
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl RefusalTrace {
    /// The record of an answer.
    pub fn new(should_refuse: Option<bool>, did_refuse: bool) -> Self {
        let correct = should_refuse.map(|should| should == did_refuse);
        Self { should_refuse, did_refuse, correct, other: Map::new() }
    }
}

impl TraceRecord {
    /// A line about a token in a layer, with the experts `(ids, weights)` of both sides, ids ascending.
    pub fn new(
        prompt_id: &str,
        token_idx: u64,
        layer_idx: u32,
        teacher: (&[u32], &[f32]),
        student: (&[u32], &[f32]),
    ) -> Self {
        let routing = RoutingTrace {
            topk_expert_ids: student.0.to_vec(),
            topk_weights: student.1.to_vec(),
            teacher_expert_ids: teacher.0.to_vec(),
            teacher_weights: teacher.1.to_vec(),
            agreement: teacher.0 == student.0,
            other: Map::new(),
        };
        Self {
            version: TRACE_VERSION,
            prompt_id: prompt_id.to_owned(),
            token_idx,
            layer_idx,
            routing,
            citations: Vec::new(),
            refusal: None,
            coherence_score: None,
            stop_reason: None,
            other: Map::new(),
        }
    }

    /// Whether it is the last line of its prompt.
    pub fn is_final(&self) -> bool {
        self.stop_reason.is_some()
    }

    /// Reads a line from JSON.
    ///
    /// # Errors
    /// The first field that is missing or not what the schema says, by name.
    pub(super) fn from_json(line: &str) -> Result<Self, TraceDefect> {
        let mut fields = Fields::parse(line)?;
        let version: u32 = fields.take("version")?;
        if version != TRACE_VERSION {
            return Err(TraceDefect::Version { version });
        }
        let record = Self {
            version,
            prompt_id: fields.take_text("prompt_id")?,
            token_idx: fields.take("token_idx")?,
            layer_idx: fields.take("layer_idx")?,
            routing: routing(fields.take("routing")?)?,
            citations: citations(fields.take("citations")?)?,
            refusal: fields.take::<Option<Value>>("refusal")?.map(refusal).transpose()?,
            coherence_score: fields.take_optional("coherence_score")?,
            stop_reason: fields.take_optional("stop_reason")?,
            other: fields.rest(),
        };
        if record.coherence_score.is_some_and(|score| !(-1.0 - 1e-6..=1.0 + 1e-6).contains(&score)) {
            return Err(LineFault::field("coherence_score", "a cosine lies between -1 and 1").into());
        }
        if !record.is_final() && (record.refusal.is_some() || !record.citations.is_empty()) {
            return Err(LineFault::field("stop_reason", "citations and refusal belong to the line that has one").into());
        }
        Ok(record)
    }
}

fn routing(value: Value) -> Result<RoutingTrace, LineFault> {
    let mut fields = Fields::of(value, "routing")?;
    let routing = RoutingTrace {
        topk_expert_ids: fields.take("topk_expert_ids")?,
        topk_weights: fields.take("topk_weights")?,
        teacher_expert_ids: fields.take("teacher_expert_ids")?,
        teacher_weights: fields.take("teacher_weights")?,
        agreement: fields.take("agreement")?,
        other: fields.rest(),
    };
    let sides = [
        ("topk_expert_ids", "topk_weights", &routing.topk_expert_ids, &routing.topk_weights),
        ("teacher_expert_ids", "teacher_weights", &routing.teacher_expert_ids, &routing.teacher_weights),
    ];
    for (ids_name, weights_name, ids, weights) in sides {
        if ids.is_empty() || ids.windows(2).any(|pair| pair[0] >= pair[1]) {
            return Err(fields.wrong(ids_name, "expert ids must be there and ascend"));
        }
        if weights.len() != ids.len() {
            return Err(fields.wrong(weights_name, &format!("{} weights for {} experts", weights.len(), ids.len())));
        }
        if weights.iter().any(|weight| !weight.is_finite()) {
            return Err(fields.wrong(weights_name, "a weight is too large for a number"));
        }
    }
    if routing.agreement != (routing.topk_expert_ids == routing.teacher_expert_ids) {
        return Err(fields.wrong("agreement", "it contradicts the expert ids"));
    }
    Ok(routing)
}

fn citations(values: Vec<Value>) -> Result<Vec<CitationTrace>, LineFault> {
    let citation = |(i, value)| {
        let mut fields = Fields::of(value, &format!("citations.{i}"))?;
        Ok(CitationTrace {
            chunk_id: fields.take("chunk_id")?,
            span: fields.take("span")?,
            valid: fields.take("valid")?,
            other: fields.rest(),
        })
    };
    values.into_iter().enumerate().map(citation).collect()
}

fn refusal(value: Value) -> Result<RefusalTrace, LineFault> {
    let mut fields = Fields::of(value, "refusal")?;
    let refusal = RefusalTrace {
        should_refuse: fields.take_optional("should_refuse")?,
        did_refuse: fields.take("did_refuse")?,
        correct: fields.take_optional("correct")?,
        other: fields.rest(),
    };
    if refusal.correct != refusal.should_refuse.map(|should| should == refusal.did_refuse) {
        return Err(fields.wrong("correct", "it contradicts should_refuse and did_refuse"));
    }
    Ok(refusal)
}
