//! A conversation with a model: turns in, answers out, the history kept.
//!
//! ```text
//! text ──► messages ──template──► prompt ──backend──► answer ──► reasoning, content ──► messages
//! ```
//!
//! **Invariant:** after an error the conversation holds the messages it held before the turn.

use serde_json::{Value, json};

use crate::error::Result;
use crate::sessions::backend::{InferenceBackend, OnText, Prompt};
use crate::sessions::generate::{GenerateOptions, Generation, Statistics, StopReason};
use crate::sessions::sampler::Sampler;
use crate::text::chat::{ChatRequest, ChatTemplate};

/// The options of a conversation.
#[derive(Clone, Debug, Default)]
pub struct ConversationOptions {
    /// The message that comes before the first turn.
    pub system: Option<String>,
    /// Whether the model thinks before it answers; `None` leaves the template's default.
    pub thinking: Option<bool>,
    /// The time that the template sees, as in [`ChatRequest::now_unix_s`].
    pub now_unix_s: Option<i64>,
    /// When an answer ends.
    pub generate: GenerateOptions,
}

/// A backend and the turns that were exchanged with it.
///
/// ```
/// use std::ops::ControlFlow;
/// use moe_runtime::{ChatTemplate, Conversation, ConversationOptions, Sampler, SamplerConfig, ScriptedBackend};
/// let template = ChatTemplate::from_source("{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}")?;
/// let sampler = Sampler::new(SamplerConfig::greedy())?;
/// let backend = ScriptedBackend::new(["Hello.", "Still here."]);
/// let mut chat = Conversation::new(backend, template, sampler, ConversationOptions::default());
/// let mut go_on = |_: &str| ControlFlow::Continue(());
/// assert_eq!(chat.say("Hi", &mut go_on)?.content, "Hello.");
/// chat.say("And now?", &mut go_on)?;
/// assert_eq!(chat.backend().prompts()[1], "<|user|>Hi<|assistant|>Hello.<|user|>And now?");
/// # Ok::<(), moe_runtime::Error>(())
/// ```
#[derive(Debug)]
pub struct Conversation<B> {
    backend: B,
    template: ChatTemplate,
    sampler: Sampler,
    options: ConversationOptions,
    messages: Vec<Value>,
}

/// The answer of a turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The thought before the answer; empty without one.
    pub reasoning: String,
    /// The answer itself; empty when it ended within the thought.
    pub content: String,
    /// Tokens, the reason of the end, and times.
    pub generation: Generation,
}

impl<B: InferenceBackend> Conversation<B> {
    /// A conversation without turns.
    #[must_use]
    pub fn new(backend: B, template: ChatTemplate, sampler: Sampler, options: ConversationOptions) -> Conversation<B> {
        Conversation { backend, template, sampler, options, messages: Vec::new() }
    }

    /// The backend that answers.
    #[must_use]
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// The messages so far, oldest first, in the shape of [`ChatRequest::messages`].
    #[must_use]
    pub fn messages(&self) -> &[Value] {
        &self.messages
    }

    /// Adds the user's `text` and the answer to it. `on_text` gets each piece of the answer, a thought included, and may
    /// end it; the conversation then keeps the answer up to there.
    ///
    /// # Errors
    /// A template that refuses or fails, a prompt that does not fit, and every failure of the backend.
    pub fn say(&mut self, text: &str, on_text: &mut OnText<'_>) -> Result<Answer> {
        let before = self.messages.len();
        self.messages.extend(match before {
            0 => ChatRequest::user(self.options.system.as_deref(), text).messages,
            _ => vec![json!({ "role": "user", "content": text })],
        });
        let answer = self.answer(on_text).inspect_err(|_| self.messages.truncate(before))?;
        let Answer { reasoning, content, .. } = &answer;
        self.messages.push(json!({ "role": "assistant", "content": content, "reasoning_content": reasoning }));
        Ok(answer)
    }

    fn answer(&mut self, on_text: &mut OnText<'_>) -> Result<Answer> {
        let request = ChatRequest {
            messages: self.messages.clone(),
            enable_thinking: self.options.thinking,
            now_unix_s: self.options.now_unix_s,
            add_generation_prompt: true,
            ..ChatRequest::default()
        };
        let rendered = self.template.prompt(&request)?;
        let prompt = Prompt::Rendered(&rendered);
        let mut text = String::new();
        if let Some([start, _]) = prompt.thought()
            && on_text(start).is_break()
        {
            let generation =
                Generation { tokens: Vec::new(), reason: StopReason::Callback, statistics: Statistics::default() };
            return Ok(Answer { reasoning: String::new(), content: String::new(), generation });
        }
        let mut on_piece = |piece: &str| {
            text.push_str(piece);
            on_text(piece)
        };
        let generation = self.backend.generate(prompt, &mut self.sampler, &self.options.generate, &mut on_piece)?;
        let (reasoning, content) = parts(text.trim_end_matches('\n'), prompt.thought());
        Ok(Answer { reasoning: reasoning.to_owned(), content: content.to_owned(), generation })
    }
}

/// Reasoning and content of an answer: only an answer that began inside a thought reasons, up to the first end of one.
fn parts<'a>(answer: &'a str, thought: Option<[&str; 2]>) -> (&'a str, &'a str) {
    match thought {
        None => ("", answer),
        Some([_, end]) => answer.split_once(end).unwrap_or((answer, "")),
    }
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use super::{Conversation, ConversationOptions, parts};
    use crate::sessions::sampler::{Sampler, SamplerConfig};
    use crate::sessions::scripted_backend::ScriptedBackend;
    use crate::text::chat::ChatTemplate;

    #[test]
    fn only_an_answer_that_began_as_a_thought_has_reasoning() {
        let thought = Some(["<think>", "</think>"]);
        assert_eq!(parts("a</think>b</think>", thought), ("a", "b</think>"));
        assert_eq!(parts("never ends", thought), ("never ends", ""));
        assert_eq!(parts("1 </think> 2", None), ("", "1 </think> 2"));
    }

    fn conversation(answers: &[&str], options: ConversationOptions) -> Conversation<ScriptedBackend> {
        let source = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}<|assistant|>\
                      {% if enable_thinking %}<think>{% endif %}";
        let template = ChatTemplate::from_source(source).expect("a template");
        let sampler = Sampler::new(SamplerConfig::greedy()).expect("valid settings");
        Conversation::new(ScriptedBackend::new(answers.iter().copied()), template, sampler, options)
    }

    #[test]
    fn a_thought_is_streamed_and_kept_apart_from_the_content() {
        let options =
            ConversationOptions { system: Some("Be brief.".to_owned()), thinking: Some(true), ..Default::default() };
        let mut chat = conversation(&["Hm.</think>Yes.\n", "No."], options);
        let mut streamed = String::new();
        let mut on_text = |piece: &str| {
            streamed.push_str(piece);
            ControlFlow::Continue(())
        };
        let answer = chat.say("Well?", &mut on_text).expect("an answer");
        assert_eq!((answer.reasoning.as_str(), answer.content.as_str()), ("Hm.", "Yes."));
        assert_eq!(streamed, "<think>Hm.</think>Yes.\n");
        chat.say("Sure?", &mut |_| ControlFlow::Continue(())).expect("an answer");
        let second = "<|system|>Be brief.<|user|>Well?<|assistant|>Yes.<|user|>Sure?<|assistant|><think>";
        assert_eq!(chat.backend().prompts()[1], second);
    }

    #[test]
    fn a_failed_turn_leaves_the_messages_as_they_were() {
        let mut chat = conversation(&["Yes."], ConversationOptions::default());
        chat.say("One?", &mut |_| ControlFlow::Continue(())).expect("an answer");
        let before = chat.messages().to_vec();
        chat.say("Two?", &mut |_| ControlFlow::Continue(())).expect_err("the script has ended");
        assert_eq!(chat.messages(), before);
    }

    #[test]
    fn an_answer_that_is_cut_off_is_kept_up_to_there() {
        let mut chat = conversation(&["Yes, always."], ConversationOptions::default());
        let mut left = 3;
        let mut on_text = |_: &str| {
            left -= 1;
            if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        assert_eq!(chat.say("Well?", &mut on_text).expect("an answer").content, "Yes");
    }
}
