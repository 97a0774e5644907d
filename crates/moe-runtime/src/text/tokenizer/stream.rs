//! Tokens to text, one token at a time, never ending in the middle of a character.

use super::{TokenType, Tokenizer};

/// The tokens that become text besides the ordinary ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ControlTokens {
    /// None: the text for a reader.
    #[default]
    Hide,
    /// `<think>`, `<tool_call>` and the like, which the parser of answers reads.
    Markup,
    /// All of them: for debugging, and to look at a prompt.
    Show,
}

/// A decoder that is fed one token at a time and holds back incomplete characters.
///
/// ```
/// use moe_runtime::{ControlTokens, TextStream, Tokenizer};
/// let tokenizer = Tokenizer::bytes();
/// let mut stream = TextStream::new(ControlTokens::Hide);
/// assert_eq!(stream.push(&tokenizer, 0xc3), "");
/// assert_eq!(stream.push(&tokenizer, 0xa9), "é");
/// ```
#[derive(Clone, Debug, Default)]
pub struct TextStream {
    control: ControlTokens,
    /// Bytes of a character that is not complete, at most 3.
    pending: Vec<u8>,
}

impl TextStream {
    /// A stream at the start of a text.
    #[must_use]
    pub fn new(control: ControlTokens) -> Self {
        Self { control, pending: Vec::new() }
    }

    /// Takes the next token; the text that is complete now, often all of the token's, sometimes none.
    pub fn push(&mut self, tokenizer: &Tokenizer, id: u32) -> String {
        if self.shows(tokenizer, id) {
            self.pending.extend_from_slice(tokenizer.piece(id));
        }
        self.take_complete()
    }

    /// The rest of the text: U+FFFD if a character stayed incomplete.
    pub fn finish(&mut self) -> String {
        let rest = String::from_utf8_lossy(&self.pending).into_owned();
        self.pending.clear();
        rest
    }

    fn shows(&self, tokenizer: &Tokenizer, id: u32) -> bool {
        match tokenizer.token_type(id) {
            None => false,
            Some(TokenType::Normal | TokenType::UserDefined | TokenType::Byte) => true,
            Some(TokenType::Control) => match self.control {
                ControlTokens::Hide => false,
                ControlTokens::Markup => tokenizer.is_markup(id),
                ControlTokens::Show => true,
            },
            Some(TokenType::Unknown | TokenType::Unused) => self.control == ControlTokens::Show,
        }
    }

    /// Removes the complete characters from `pending`; bytes that can become none are replaced by U+FFFD.
    fn take_complete(&mut self) -> String {
        let mut text = String::new();
        let mut done = 0;
        while done < self.pending.len() {
            let rest = &self.pending[done..];
            let Err(error) = std::str::from_utf8(rest) else {
                text.push_str(&String::from_utf8_lossy(rest));
                done = self.pending.len();
                break;
            };
            text.push_str(&String::from_utf8_lossy(&rest[..error.valid_up_to()]));
            done += error.valid_up_to();
            let Some(broken) = error.error_len() else { break };
            text.push('\u{fffd}');
            done += broken;
        }
        self.pending.drain(..done);
        text
    }
}

impl Tokenizer {
    /// The text of `ids`; broken UTF-8 becomes U+FFFD. An id outside the vocabulary has no text.
    #[must_use]
    pub fn decode(&self, ids: &[u32], control: ControlTokens) -> String {
        let mut stream = TextStream::new(control);
        let mut text: String = ids.iter().map(|&id| stream.push(self, id)).collect();
        text.push_str(&stream.finish());
        text
    }
}

#[cfg(test)]
mod tests {
    use super::{ControlTokens, TextStream};
    use crate::text::tokenizer::Tokenizer;
    use proptest::prelude::*;

    fn chunks(bytes: &[u8]) -> Vec<String> {
        let tokenizer = Tokenizer::bytes();
        let mut stream = TextStream::new(ControlTokens::Hide);
        let mut out: Vec<String> = bytes.iter().map(|&b| stream.push(&tokenizer, u32::from(b))).collect();
        out.push(stream.finish());
        out
    }

    #[test]
    fn characters_arrive_whole() {
        assert_eq!(chunks("a🚀é".as_bytes()), ["a", "", "", "", "🚀", "", "é", ""]);
    }

    #[test]
    fn an_unfinished_character_is_replaced_at_the_end() {
        assert_eq!(chunks(&[b'a', 0xf0, 0x9f]), ["a", "", "", "\u{fffd}"]);
    }

    #[test]
    fn control_tokens_are_hidden_unless_asked_for() {
        let tokenizer = Tokenizer::bytes();
        let ids = [256, 104, 105, 257, 9999];
        assert_eq!(tokenizer.decode(&ids, ControlTokens::Hide), "hi");
        assert_eq!(tokenizer.decode(&ids, ControlTokens::Markup), "hi");
        assert_eq!(tokenizer.decode(&ids, ControlTokens::Show), "<|bos|>hi<|eos|>");
    }

    proptest! {
        #[test]
        fn a_stream_ends_in_the_lossy_text(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            prop_assert_eq!(chunks(&bytes).concat(), String::from_utf8_lossy(&bytes));
        }
    }
}
