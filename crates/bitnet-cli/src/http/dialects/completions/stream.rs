//! The answers in chunks.

use moe_runtime::OutputEvent;
use serde_json::{Value, json};

use super::request::Shape;
use crate::http::answer::{Ending, Happening, ScoreLists};
use crate::http::failure::Vendor;
use crate::http::stream::{Encoder, Frames};

const OBJECT: &str = "text_completion";

pub(super) struct ChunkWriter {
    shape: Shape,
    /// Scores that were not sent yet, of each answer.
    scores: Vec<ScoreLists>,
    endings: Vec<Option<Ending>>,
}

impl ChunkWriter {
    pub(super) fn new(shape: Shape) -> ChunkWriter {
        let n = shape.echoes.len();
        ChunkWriter { shape, scores: vec![ScoreLists::default(); n], endings: vec![None; n] }
    }

    fn chunk(&self, choices: Value) -> Value {
        self.shape.envelope.chunk(OBJECT, choices)
    }

    /// A chunk of text, with the scores that came since the last one where `scored`.
    fn text(&mut self, choice: usize, text: &str, finish: Option<&str>, scored: bool) -> Value {
        let logprobs = (self.shape.logprobs && scored).then(|| self.scores[choice].take());
        let choice = json!({ "text": text, "index": choice, "logprobs": logprobs, "finish_reason": finish });
        self.chunk(json!([choice]))
    }
}

impl Encoder for ChunkWriter {
    fn take(&mut self, choice: usize, happening: Happening, out: &mut Frames) {
        match happening {
            Happening::Started(..) => {
                let Some(echo) = self.shape.echoes[choice].clone() else { return };
                if self.shape.logprobs && echo.prefix == 0 && !echo.first.is_empty() {
                    self.scores[choice].push_unscored(&echo.first);
                }
                out.data(&self.text(choice, &echo.text, None, false));
            }
            Happening::Prompt { .. } => {}
            Happening::PromptScore { position, score } => {
                let prefix = self.shape.echoes[choice].as_ref().map_or(0, |echo| echo.prefix);
                if position >= prefix {
                    self.scores[choice].push(&score);
                }
            }
            Happening::Output(events, score) => {
                if let Some(score) = &score {
                    self.scores[choice].push(score);
                }
                let mut text = String::new();
                for event in events {
                    if let OutputEvent::Content(more) = event {
                        text.push_str(&more);
                    }
                }
                if !text.is_empty() || score.is_some() {
                    let chunk = self.text(choice, &text, None, true);
                    out.data(&chunk);
                }
            }
            Happening::Ended(ending) => {
                let mut chunk = self.text(choice, "", Some(ending.finish.openai()), true);
                if let Some(detail) = ending.finish.detail() {
                    chunk["choices"][0]["x_stop_detail"] = detail.into();
                }
                out.data(&chunk);
                self.endings[choice] = Some(ending);
            }
            Happening::Failed(failure) => out.data(&json!({ "error": failure.error(Vendor::OpenAi) })),
        }
    }

    fn finish(&mut self, out: &mut Frames) {
        if let Some(chunk) = self.shape.envelope.usage_chunk(OBJECT, self.endings.iter().flatten()) {
            out.data(&chunk);
        }
        out.text("[DONE]");
    }
}
