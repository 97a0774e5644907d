//! Answers, with and without a conversation.

use anyhow::Result;
use moe_runtime::{Conversation, GenerateOptions, Generation, InferenceBackend, Prompt, Sampler};

use super::docs::Asked;
use super::stream::Stream;

/// One turn of a conversation.
pub(super) fn answer<B: InferenceBackend>(conversation: &mut Conversation<B>, asked: Asked) -> Result<Generation> {
    let mut stream = Stream::new();
    let answer = conversation.say(&asked.user, &mut |piece| stream.show(piece))?;
    stream.finish(&answer.generation)?;
    asked.note_citations(&answer.content);
    Ok(answer.generation)
}

/// Continues a text without a conversation.
pub(super) fn continue_text(
    mut backend: impl InferenceBackend,
    mut sampler: Sampler,
    options: &GenerateOptions,
    prompt: Prompt<'_>,
) -> Result<()> {
    let mut stream = Stream::new();
    let generation = backend.generate(prompt, &mut sampler, options, &mut |piece| stream.show(piece))?;
    stream.finish(&generation)
}
