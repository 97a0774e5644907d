//! Traces: one JSON object per line for every token and MoE layer of a run.
//!
//! ```text
//! {"version":1,"prompt_id":"p-1","token_idx":0,"layer_idx":1,"routing":{"topk_expert_ids":[0,5],"topk_weights":[0.9,0.9],
//!  "teacher_expert_ids":[0,5],"teacher_weights":[1.0,0.8],"agreement":true},"citations":[],"refusal":null,
//!  "coherence_score":0.998,"stop_reason":null}
//! ```
//!
//! **Invariant:** the lines of a prompt stand together, ascending by (`token_idx`, `layer_idx`), and only its last one
//! has a `stop_reason`; there lie the citations and the refusal of the answer. So a reader that holds one line and the
//! ids of the prompts already seen finds every repeated, missing-at-the-end or misplaced line.
//!
//! Fields that this version does not know are kept from reading to writing. The whole schema is in `docs/formats.md`.

mod diff;
mod reader;
mod record;
mod summary;
mod writer;

pub use diff::{PromptDiff, TraceDiff, TracePosition, diff};
pub use reader::TraceReader;
pub use record::{CitationTrace, RefusalTrace, RoutingTrace, TraceRecord};
pub use summary::{PromptSummary, TraceSummary, summarize};
pub use writer::{TraceWriter, trace_file_name, trace_path};
