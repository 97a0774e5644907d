//! Conversations that are longer than the context.

use super::Conversation;
use crate::error::Result;
use crate::sessions::backend::{InferenceBackend, Prompt};

/// Whether the next message fits the context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// It fits with all turns.
    Whole,
    /// All turns and the message have `tokens`, too many for the context; without the oldest `turns` they fit.
    Without {
        /// Number of turns to drop.
        turns: usize,
        /// Tokens of the prompt with all turns.
        tokens: usize,
    },
    /// The message alone, with the system message, has `tokens`: too many for the context.
    TooLong {
        /// Tokens of the prompt without any turn.
        tokens: usize,
    },
}

/// The share of the context that is kept free for an answer, unless it may have fewer tokens.
const ANSWER_SHARE: usize = 8;

impl<B: InferenceBackend> Conversation<B> {
    /// Whether `text` fits the context as the next message, with room for an answer: an eighth of the context, or the most
    /// tokens of an answer where that is less. The first message fits without that room too.
    ///
    /// # Errors
    /// A template that refuses or fails, and text that cannot be encoded.
    pub fn fit(&self, text: &str) -> Result<Fit> {
        let n_ctx = self.backend.n_ctx();
        let room = self.options.generate.max_tokens.min(n_ctx / ANSWER_SHARE);
        let fits = |tokens: usize| tokens.saturating_add(room) <= n_ctx;
        let turns = self.turns();
        let whole = self.tokens_without(0, text)?;
        if fits(whole) {
            return Ok(Fit::Whole);
        }
        // Each dropped turn makes the prompt shorter: dropping `too_few` is not enough, dropping `drop` is.
        let (mut too_few, mut drop) = (0, turns);
        let alone = if turns == 0 { whole } else { self.tokens_without(turns, text)? };
        if alone > n_ctx {
            return Ok(Fit::TooLong { tokens: alone });
        }
        while too_few + 1 < drop {
            let middle = too_few.midpoint(drop);
            match fits(self.tokens_without(middle, text)?) {
                true => drop = middle,
                false => too_few = middle,
            }
        }
        Ok(if turns == 0 { Fit::Whole } else { Fit::Without { turns: drop, tokens: whole } })
    }

    /// Forgets the oldest `turns`, each a message and its answer; the system message stays.
    pub fn drop_oldest(&mut self, turns: usize) {
        let first = self.first_turn();
        self.messages.drain(first..first + 2 * turns.min(self.turns()));
    }

    /// Tokens of the context.
    #[must_use]
    pub fn n_ctx(&self) -> usize {
        self.backend.n_ctx()
    }

    /// Number of turns that the conversation holds.
    #[must_use]
    pub fn turns(&self) -> usize {
        (self.messages.len() - self.first_turn()) / 2
    }

    /// Tokens of the prompt for `text` without the oldest `turns`.
    fn tokens_without(&self, turns: usize, text: &str) -> Result<usize> {
        let mut messages = self.messages.clone();
        let first = self.first_turn();
        messages.drain(first..first + 2 * turns);
        messages.extend(self.next_messages(text));
        self.backend.count_tokens(Prompt::Rendered(&self.template.prompt(&self.request(messages))?))
    }
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use super::Fit;
    use crate::sessions::conversation::tests::conversation_within;
    use crate::sessions::conversation::{Conversation, ConversationOptions};
    use crate::sessions::scripted_backend::ScriptedBackend;

    #[test]
    fn a_full_context_tells_how_many_turns_are_too_many_and_the_system_message_stays() {
        let options = ConversationOptions { system: Some("Be brief.".to_owned()), ..Default::default() };
        let mut chat = conversation_within(160, &["one", "two", "three", "four"], options);
        let ask = |chat: &mut Conversation<ScriptedBackend>, text: &str| {
            chat.say(text, &mut |_| ControlFlow::Continue(())).expect("an answer")
        };
        // System 10 + 9 characters, a turn 8 + 13 and the answer, the start of the answer 13; 20 are kept for it.
        for text in ["1", "2", "3"] {
            assert_eq!(chat.fit(text).expect("it renders"), Fit::Whole);
            ask(&mut chat, text);
        }
        let long = "x".repeat(40);
        let whole = 19 + 3 * (8 + 1 + 13) + "onetwothree".len() + 8 + 40 + 13;
        assert_eq!(chat.fit(&long).expect("it renders"), Fit::Without { turns: 1, tokens: whole });
        let longer = "x".repeat(75);
        assert_eq!(chat.fit(&longer).expect("it renders"), Fit::Without { turns: 3, tokens: whole + 35 });
        // Without room for a long answer, but alone it fits; one character more does not.
        let longest = "x".repeat(120);
        assert_eq!(chat.fit(&longest).expect("it renders"), Fit::Without { turns: 3, tokens: whole + 80 });
        assert_eq!(chat.fit(&"x".repeat(121)).expect("it renders"), Fit::TooLong { tokens: 161 });

        chat.drop_oldest(2);
        assert_eq!(chat.turns(), 1);
        ask(&mut chat, &long);
        let last = chat.backend().prompts().last().expect("a prompt");
        assert_eq!(*last, format!("<|system|>Be brief.<|user|>3<|assistant|>three<|user|>{long}<|assistant|>"));
        chat.drop_oldest(9);
        assert_eq!((chat.turns(), chat.messages().len()), (0, 1), "the system message stays");
    }
}
