//! Answers in parts: thought, content and tool calls, up to a stop string.

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::error::Result;
use crate::sessions::backend::Prompt;
use crate::sessions::craftsman_backend::CraftsmanBackend;
use crate::sessions::generate::{GenerateOptions, Generation};
use crate::sessions::sampler::Sampler;
use crate::text::output::{AnswerReader, Output, OutputEvent, OutputFormat, OutputParser, StopStrings, ToolSchemas};

/// Receives the parts of an answer as they arrive, and may end it.
pub type OnPart<'a> = dyn FnMut(&OutputEvent) -> ControlFlow<()> + 'a;

/// How an answer is read and when it ends.
#[derive(Clone, Debug, Default)]
pub struct PartOptions {
    /// Tokens, loops and interrupts that end the answer.
    pub generate: GenerateOptions,
    /// Texts that end the content; they are not part of it.
    pub stops: StopStrings,
    /// The tools of the request; without them the markup of calls is content.
    pub tools: Option<Arc<ToolSchemas>>,
}

/// An answer in parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartedAnswer {
    /// Thought, content and calls.
    pub output: Output,
    /// Tokens, the reason of the end, and times.
    pub generation: Generation,
    /// Index of the stop string that ended the answer.
    pub stopped_by: Option<usize>,
    /// Tokens of the whole prompt, those that were computed before included.
    pub prompt_tokens: usize,
}

impl PartedAnswer {
    /// A word for the reason of the end; an answer that a stop string ended has that of one which the model ended.
    #[must_use]
    pub fn reason_name(&self) -> &'static str {
        if self.stopped_by.is_some() { "stop" } else { self.generation.reason.name() }
    }
}

impl CraftsmanBackend {
    /// Answers a prompt in parts. The answer to a rendered conversation is parsed by the markup of the model; the
    /// continuation of a text is content alone.
    ///
    /// ```
    /// use std::ops::ControlFlow;
    /// use moe_runtime::{CraftsmanBackend, InferenceBackend, LoadOptions, PartOptions, Prompt, Sampler, SamplerConfig};
    /// let path = fixtures::path("craftsman-mini");
    /// let mut backend = CraftsmanBackend::load(&path, 256, &LoadOptions::default())?;
    /// let mut sampler = Sampler::new(SamplerConfig::greedy())?;
    /// let mut options = PartOptions::default();
    /// options.generate.max_tokens = 4;
    /// let mut streamed = String::new();
    /// let answer = backend.answer(Prompt::Raw("A river"), &mut sampler, &options, &mut |part| {
    ///     if let moe_runtime::OutputEvent::Content(text) = part { streamed.push_str(text) }
    ///     ControlFlow::Continue(())
    /// })?;
    /// assert_eq!(answer.output.content, streamed);
    /// # Ok::<(), moe_runtime::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`InferenceBackend::generate`](crate::InferenceBackend::generate).
    pub fn answer(
        &mut self,
        prompt: Prompt<'_>,
        sampler: &mut Sampler,
        options: &PartOptions,
        on_part: &mut OnPart<'_>,
    ) -> Result<PartedAnswer> {
        let tokens = self.encode(prompt)?;
        sampler.begin_answer(self.thought_end(prompt));
        let reader = match prompt {
            Prompt::Raw(_) | Prompt::RawWithMarkers(_) => AnswerReader::plain(options.stops.clone()),
            Prompt::Rendered(chat) => {
                let format = OutputFormat::of_model(self.tokenizer());
                let parser = OutputParser::new(&format, format.start_of(chat));
                let parser = options.tools.iter().fold(parser, |parser, tools| parser.with_tools(tools.clone()));
                AnswerReader::new(parser, options.stops.clone())
            }
        };
        self.read(&tokens, reader, sampler, (&options.generate, on_part))
    }

    /// Continues tokens; the answer is content alone.
    ///
    /// # Errors
    /// As [`CraftsmanBackend::answer`].
    pub fn answer_tokens(
        &mut self,
        prompt: &[u32],
        sampler: &mut Sampler,
        options: &PartOptions,
        on_part: &mut OnPart<'_>,
    ) -> Result<PartedAnswer> {
        sampler.begin_answer(None);
        let reader = AnswerReader::plain(options.stops.clone());
        self.read(prompt, reader, sampler, (&options.generate, on_part))
    }

    fn read(
        &mut self,
        tokens: &[u32],
        mut reader: AnswerReader,
        sampler: &mut Sampler,
        (options, on_part): (&GenerateOptions, &mut OnPart<'_>),
    ) -> Result<PartedAnswer> {
        let (mut output, mut events) = (Output::default(), Vec::new());
        let mut pass_on = |events: &mut Vec<OutputEvent>, output: &mut Output| {
            let ended = events.iter().any(|event| on_part(event).is_break());
            output.extend(events.drain(..));
            if ended { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let generation = self.generate_tokens(tokens, sampler, options, &mut |tokenizer, token| {
            let is_stopped = reader.push(tokenizer, token, &mut events).is_break();
            let passed = pass_on(&mut events, &mut output);
            if is_stopped { ControlFlow::Break(()) } else { passed }
        })?;
        let stopped_by = reader.finish(&mut events);
        // The answer has ended, so a request of the callback to end it has no effect.
        let _ = pass_on(&mut events, &mut output);
        Ok(PartedAnswer { output, generation, stopped_by, prompt_tokens: tokens.len() })
    }
}
