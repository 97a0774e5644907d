//! A chat on a terminal: it ends when the user leaves, not when a turn fails.

use std::path::Path;

use anyhow::Result;
use moe_runtime::{Conversation, Error, Fit, InferenceBackend, SessionError, StopReason};
use rlm_embed::encoder::EncoderError;

use super::answer::answer;
use super::commands::{ChatStatistics, carry_out};
use super::docs::{Asked, Docs};
use super::history;
use crate::exit::Interrupted;
use crate::output;
use crate::terminal::{Console, Entry};

/// A message that the user wants to send, or a reason to ask for another one.
enum Message {
    Send(Asked),
    Withdrawn,
    Leave,
}

/// How a turn ended.
enum Turn {
    Over,
    Leave,
}

/// Takes turns until the user leaves. Messages are kept in the file `history`, and answered from `docs`.
///
/// # Errors
/// [`Interrupted`] after Ctrl-C twice, an output that cannot be written, and a model that cannot be computed.
pub(super) fn chat<B: InferenceBackend>(
    console: &mut Console,
    conversation: &mut Conversation<B>,
    mut docs: Option<&mut Docs>,
    history: Option<&Path>,
) -> Result<()> {
    output::note("chat: Ctrl-C stops an answer, Ctrl-D leaves, Alt-Enter starts a new line, /help lists commands");
    let mut statistics = ChatStatistics::default();
    loop {
        let text = match console.ask("> ") {
            Entry::Text(text) => text,
            Entry::Interrupt { again: false } => {
                output::note("press Ctrl-C again to leave");
                continue;
            }
            Entry::Interrupt { again: true } => return Err(Interrupted.into()),
            Entry::End => return Ok(()),
        };
        let text = text.trim_end_matches('\n');
        if text.trim().is_empty() {
            continue;
        }
        console.remember(text);
        if let Some(path) = history {
            history::write(path, console.history());
        }
        match carry_out(text, conversation, &statistics) {
            Ok(false) => {}
            Ok(true) => continue,
            Err(error) => {
                output::note(format_args!("error: {error:#}"));
                continue;
            }
        }
        match turn(console, conversation, (docs.as_deref_mut(), &mut statistics), text.to_owned()) {
            Ok(Turn::Leave) => return Ok(()),
            Ok(Turn::Over) => {}
            Err(error) if concerns_message(&error) => output::note(format_args!("error: {error}")),
            Err(error) => return Err(error),
        }
    }
}

/// Sends a message once it fits the context, and shows the answer.
fn turn<B: InferenceBackend>(
    console: &mut Console,
    conversation: &mut Conversation<B>,
    (docs, statistics): (Option<&mut Docs>, &mut ChatStatistics),
    text: String,
) -> Result<Turn> {
    let asked = match make_room(console, conversation, docs, text)? {
        Message::Send(asked) => asked,
        Message::Withdrawn => return Ok(Turn::Over),
        Message::Leave => return Ok(Turn::Leave),
    };
    let answer = answer(conversation, asked)?;
    statistics.add(&answer.statistics);
    if answer.reason == StopReason::ContextFull {
        output::note(format_args!("the context of {} tokens is full: the answer ends here", conversation.n_ctx()));
    }
    Ok(Turn::Over)
}

/// Offers to drop turns where the context is full. A reply that is neither yes nor no takes the place of the message.
fn make_room<B: InferenceBackend>(
    console: &mut Console,
    conversation: &mut Conversation<B>,
    mut docs: Option<&mut Docs>,
    mut text: String,
) -> Result<Message> {
    loop {
        let n_ctx = conversation.n_ctx();
        let asked = Asked::new(&text, docs.as_deref_mut())?;
        let (turns, tokens) = match conversation.fit(&asked.user)? {
            Fit::Whole => return Ok(Message::Send(asked)),
            Fit::TooLong { tokens } => {
                output::note(format_args!(
                    "the message has {tokens} tokens with its template and does not fit the context of {n_ctx}: shorten \
                     it, or start with a larger context (-c)"
                ));
                return Ok(Message::Withdrawn);
            }
            Fit::Without { turns, tokens } => (turns, tokens),
        };
        let oldest = if turns == 1 { "the oldest turn".to_owned() } else { format!("the {turns} oldest turns") };
        let question = format_args!(
            "the context of {n_ctx} tokens is full, the conversation with this message has {tokens}: drop {oldest} and \
             go on?"
        );
        match console.confirm(question, "[Y/n] ") {
            Entry::Text(reply) => match reply.trim().to_lowercase().as_str() {
                "" | "y" | "yes" => {
                    conversation.drop_oldest(turns);
                    return Ok(Message::Send(asked));
                }
                "n" | "no" => break,
                _ => {
                    text = reply.trim_end_matches('\n').to_owned();
                    console.remember(&text);
                }
            },
            Entry::Interrupt { .. } => break,
            Entry::End => return Ok(Message::Leave),
        }
    }
    output::note("not sent; the key Up brings the message back");
    Ok(Message::Withdrawn)
}

/// Whether a failure is about this message, so that another one may succeed. It is one of the model or of the embedder.
fn concerns_message(error: &anyhow::Error) -> bool {
    let is_about_text = |error: &Error| {
        matches!(error, Error::Text(_) | Error::Session(SessionError::ContextFull { .. } | SessionError::NoTokens))
    };
    match error.downcast_ref() {
        Some(rlm_embed::Error::Encoder(error)) => {
            matches!(error, EncoderError::TextTooLong { .. } | EncoderError::Tokens { .. })
        }
        Some(rlm_embed::Error::Model(error)) => is_about_text(error),
        Some(_) => false,
        None => error.downcast_ref().is_some_and(is_about_text),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use moe_runtime::{Error, SessionError};
    use rlm_embed::encoder::EncoderError;

    use super::concerns_message;

    #[test]
    fn a_refused_text_is_told_from_a_model_that_fails() {
        let full = || Error::Session(SessionError::ContextFull { have: 4, need: 5 });
        let embedder = rlm_embed::Error::Encoder;
        for error in [
            full().into(),
            rlm_embed::Error::Model(full()).into(),
            embedder(EncoderError::TextTooLong { bytes: 2, limit: 1 }).into(),
            embedder(EncoderError::Tokens { reason: String::new() }).into(),
        ] {
            assert!(concerns_message(&error), "{error}");
        }
        for error in [
            Error::Session(SessionError::ScriptEnded { calls: 1 }).into(),
            rlm_embed::Error::Model(Error::Session(SessionError::ScriptEnded { calls: 1 })).into(),
            embedder(EncoderError::Parse { path: PathBuf::new(), reason: String::new() }).into(),
            anyhow::anyhow!("another failure"),
        ] {
            assert!(!concerns_message(&error), "{error}");
        }
    }
}
