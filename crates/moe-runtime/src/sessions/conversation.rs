//! A conversation with a model: turns in, answers out, the history kept.
//!
//! ```text
//! text ──► messages ──template──► prompt ──backend──► answer ──► reasoning, content ──► messages
//! ```
//!
//! **Invariant:** after an error the conversation holds the messages it held before the turn.

mod fit;

pub use fit::Fit;

use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::sessions::backend::{InferenceBackend, OnText, Prompt};
use crate::sessions::generate::{GenerateOptions, Generation, Statistics, StopReason};
use crate::sessions::sampler::Sampler;
use crate::text::chat::{ChatRequest, ChatTemplate};
use crate::text::error::TextError;

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

    /// The message that comes before the first turn.
    #[must_use]
    pub fn system(&self) -> Option<&str> {
        self.options.system.as_deref()
    }

    /// Sets the message that comes before the first turn, also of the turns that were exchanged.
    pub fn set_system(&mut self, system: Option<String>) {
        if !self.messages.is_empty() {
            let message = system.iter().map(|text| json!({ "role": "system", "content": text }));
            self.messages.splice(..self.first_turn(), message.collect::<Vec<_>>());
        }
        self.options.system = system;
    }

    /// Whether the model thinks before it answers; `None` leaves the template's default.
    pub fn set_thinking(&mut self, thinking: Option<bool>) {
        self.options.thinking = thinking;
    }

    /// Puts other messages in place of those of the conversation: a system message or none, then turns of a user and an
    /// assistant. The next answer follows them.
    ///
    /// # Errors
    /// [`TextError::ChatMessage`] for a message of another role or without text. The conversation is then as before.
    pub fn set_messages(&mut self, messages: Vec<Value>) -> Result<()> {
        let system = usize::from(messages.first().is_some_and(|message| message["role"] == "system"));
        for (index, message) in messages.iter().enumerate() {
            let role = match index.checked_sub(system) {
                None => "system",
                Some(turn) if turn % 2 == 0 => "user",
                Some(_) => "assistant",
            };
            let reason = if message["role"] != role {
                format!("its role is not `{role}`")
            } else if !message["content"].is_string() {
                "its content is no text".to_owned()
            } else {
                continue;
            };
            return Err(Error::Text(TextError::ChatMessage { index, reason }));
        }
        if (messages.len() - system) % 2 == 1 {
            let reason = "a turn lacks its answer".to_owned();
            return Err(Error::Text(TextError::ChatMessage { index: messages.len() - 1, reason }));
        }
        self.options.system =
            messages[..system].first().and_then(|message| message["content"].as_str().map(str::to_owned));
        self.messages = messages;
        Ok(())
    }

    /// Tokens of the prompt of all turns so far, with the beginning of an answer; 0 without a turn.
    ///
    /// # Errors
    /// A template that refuses or fails, and text that cannot be encoded.
    pub fn count_tokens(&self) -> Result<usize> {
        match self.messages.is_empty() {
            true => Ok(0),
            false => {
                let prompt = self.template.prompt(&self.request(self.messages.clone()))?;
                self.backend.count_tokens(Prompt::Rendered(&prompt))
            }
        }
    }

    /// Adds the user's `text` and the answer to it. `on_text` gets each piece of the answer, a thought included, and may
    /// end it, as may the interrupt of the options; the conversation then keeps the answer up to there. An answer that ends
    /// so before its first token leaves the conversation as it was.
    ///
    /// # Errors
    /// A template that refuses or fails, a prompt that does not fit, and every failure of the backend.
    pub fn say(&mut self, text: &str, on_text: &mut OnText<'_>) -> Result<Answer> {
        let before = self.messages.len();
        self.messages.extend(self.next_messages(text));
        let answer = self.answer(on_text).inspect_err(|_| self.messages.truncate(before))?;
        let Answer { reasoning, content, generation } = &answer;
        let was_ended = matches!(generation.reason, StopReason::Interrupt | StopReason::Callback);
        if was_ended && generation.tokens.is_empty() {
            self.messages.truncate(before);
        } else {
            self.messages.push(json!({ "role": "assistant", "content": content, "reasoning_content": reasoning }));
        }
        Ok(answer)
    }

    /// Index of the message that begins the first turn.
    fn first_turn(&self) -> usize {
        usize::from(self.messages.first().is_some_and(|message| message["role"] == "system"))
    }

    /// The message of a user, behind the system message where it is the first.
    fn next_messages(&self, text: &str) -> Vec<Value> {
        match self.messages.len() {
            0 => ChatRequest::user(self.options.system.as_deref(), text).messages,
            _ => vec![json!({ "role": "user", "content": text })],
        }
    }

    fn request(&self, messages: Vec<Value>) -> ChatRequest {
        ChatRequest {
            messages,
            enable_thinking: self.options.thinking,
            now_unix_s: self.options.now_unix_s,
            add_generation_prompt: true,
            ..ChatRequest::default()
        }
    }

    fn answer(&mut self, on_text: &mut OnText<'_>) -> Result<Answer> {
        let rendered = self.template.prompt(&self.request(self.messages.clone()))?;
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
    use crate::sessions::generate::{GenerateOptions, StopReason};
    use crate::sessions::interrupt::Interrupt;
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
        conversation_within(usize::MAX, answers, options)
    }

    /// A character is a token.
    pub(super) fn conversation_within(
        n_ctx: usize,
        answers: &[&str],
        options: ConversationOptions,
    ) -> Conversation<ScriptedBackend> {
        let source = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}<|assistant|>\
                      {% if enable_thinking %}<think>{% endif %}";
        let template = ChatTemplate::from_source(source).expect("a template");
        let sampler = Sampler::new(SamplerConfig::greedy()).expect("valid settings");
        let backend = ScriptedBackend::new(answers.iter().copied()).with_context(n_ctx);
        Conversation::new(backend, template, sampler, options)
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
    fn the_system_message_and_the_turns_can_be_replaced() {
        let mut chat = conversation(&["one", "two", "three"], ConversationOptions::default());
        let ask = |chat: &mut Conversation<ScriptedBackend>, text: &str| {
            chat.say(text, &mut |_| ControlFlow::Continue(())).expect("an answer");
            chat.backend().prompts().last().expect("a prompt").clone()
        };
        chat.set_system(Some("A".to_owned()));
        assert_eq!(ask(&mut chat, "1"), "<|system|>A<|user|>1<|assistant|>");
        chat.set_system(Some("B".to_owned()));
        assert_eq!(ask(&mut chat, "2"), "<|system|>B<|user|>1<|assistant|>one<|user|>2<|assistant|>");
        assert_eq!(
            chat.count_tokens().expect("it renders"),
            "<|system|>B<|user|>1<|assistant|>one<|user|>2<|assistant|>two<|assistant|>".len()
        );
        let saved = chat.messages().to_vec();
        chat.set_messages(Vec::new()).expect("no turn");
        assert_eq!((chat.turns(), chat.system(), chat.count_tokens().expect("it renders")), (0, None, 0));
        chat.set_messages(saved.clone()).expect("whole turns");
        assert_eq!((chat.turns(), chat.system()), (2, Some("B")));
        chat.set_system(None);
        chat.set_thinking(Some(true));
        let all = "<|user|>1<|assistant|>one<|user|>2<|assistant|>two<|user|>3<|assistant|><think>";
        assert_eq!(ask(&mut chat, "3"), all);

        let before = chat.messages().to_vec();
        for (messages, index) in [
            (saved[..2].to_vec(), 1),
            (vec![saved[0].clone(), saved[0].clone()], 1),
            (vec![saved[2].clone(), saved[1].clone()], 0),
            (vec![serde_json::json!({"role": "user", "content": []})], 0),
            (vec![serde_json::json!("hi")], 0),
        ] {
            let error = chat.set_messages(messages).expect_err("no turns").to_string();
            assert!(error.contains(&format!("message {index}")), "{error}");
        }
        assert_eq!(chat.messages(), before);
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

    #[test]
    fn a_turn_without_any_answer_is_forgotten_when_it_was_interrupted() {
        let interrupt = Interrupt::new();
        let generate = GenerateOptions { interrupt: interrupt.clone(), ..GenerateOptions::default() };
        let mut chat = conversation(&["never said", "Yes."], ConversationOptions { generate, ..Default::default() });
        interrupt.raise();
        let answer = chat.say("One?", &mut |_| ControlFlow::Continue(())).expect("no failure");
        assert_eq!(answer.generation.reason, StopReason::Interrupt);
        assert!(chat.messages().is_empty());
        interrupt.lower();
        chat.say("Two?", &mut |_| ControlFlow::Continue(())).expect("an answer");
        assert_eq!(chat.backend().prompts()[1], "<|user|>Two?<|assistant|>");
    }
}
