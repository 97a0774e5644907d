//! An answer on its way to standard output.

use std::io::{IsTerminal, Write};
use std::ops::ControlFlow;

use anyhow::Result;
use gguf_bitnet::peak_rss_bytes;
use moe_runtime::{DraftStatistics, Generation, StopReason};

use crate::output::{self, size};

/// Standard output, piece by piece. A terminal gets no control characters of the model.
pub(super) struct Stream {
    is_terminal: bool,
    failure: Option<std::io::Error>,
}

impl Stream {
    pub(super) fn new() -> Stream {
        Stream { is_terminal: std::io::stdout().is_terminal(), failure: None }
    }

    /// Writes a piece at once; ends the answer where that fails.
    pub(super) fn show(&mut self, piece: &str) -> ControlFlow<()> {
        let escaped = self.is_terminal.then(|| output::lines(piece));
        let mut out = std::io::stdout().lock();
        match out.write_all(escaped.as_deref().unwrap_or(piece).as_bytes()).and_then(|()| out.flush()) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                self.failure = Some(error);
                ControlFlow::Break(())
            }
        }
    }

    /// Ends the line and prints the statistics.
    pub(super) fn finish(mut self, generation: &Generation) -> Result<()> {
        let _ = self.show("\n");
        if let Some(error) = self.failure {
            return Err(output::not_written(error));
        }
        note_statistics(generation);
        Ok(())
    }
}

fn note_statistics(generation: &Generation) {
    let s = &generation.statistics;
    let why = end(generation.reason);
    let peak = peak_rss_bytes().map_or_else(String::new, |bytes| format!(", peak memory {}", size(bytes)));
    let drafts = drafts(s.drafts);
    output::note(format_args!(
        "prompt {} tokens at {:.1}/s, answer {} tokens at {:.1}/s{drafts}, ended by {why}{peak}",
        s.prompt_tokens,
        s.prefill_tokens_per_s(),
        s.generated_tokens,
        s.decode_tokens_per_s(),
    ));
}

/// The steps of answers and their drafts, as a part of a sentence; empty without drafts.
pub(super) fn drafts(drafts: DraftStatistics) -> String {
    let DraftStatistics { steps, drafted_tokens, accepted_tokens } = drafts;
    if drafted_tokens == 0 {
        return String::new();
    }
    let speed = drafts.tokens_per_step();
    format!(
        " in {steps} steps ({speed:.2} tokens per step, {accepted_tokens} of {drafted_tokens} drafted ones accepted)"
    )
}

/// The reason for the end of an answer, behind the words "ended by".
fn end(reason: StopReason) -> String {
    match reason {
        StopReason::Loop(found) => format!("a loop ({found})"),
        reason => reason.name().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use moe_runtime::{DraftStatistics, StopReason, TokenLoop};

    use super::{drafts, end};

    #[test]
    fn the_end_of_an_answer_is_told_in_words() {
        let found = TokenLoop { period: 1, repeats: 32 };
        assert_eq!(end(StopReason::Loop(found)), "a loop (the last 1 token came 32 times in a row)");
        assert_eq!(end(StopReason::MaxTokens), "length");
    }

    #[test]
    fn drafts_are_told_where_there_were_any() {
        let counts = DraftStatistics { steps: 8, drafted_tokens: 6, accepted_tokens: 4 };
        assert_eq!(drafts(counts), " in 8 steps (1.50 tokens per step, 4 of 6 drafted ones accepted)");
        assert_eq!(drafts(DraftStatistics { steps: 8, ..DraftStatistics::default() }), "");
    }
}
