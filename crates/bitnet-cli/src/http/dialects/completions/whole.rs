//! The answers in one piece.

use serde_json::{Value, json};

use super::request::{Echo, Shape};
use crate::http::answer::{ScoreLists, Whole};

pub(super) fn completion(shape: &Shape, answers: &[Whole]) -> Value {
    let choice = |(index, (answer, echo)): (usize, (&Whole, &Option<Echo>))| {
        let prompt = echo.as_ref().map_or("", |echo| &echo.text);
        let mut choice = json!({
            "text": format!("{prompt}{}", answer.output.content),
            "index": index,
            "logprobs": shape.logprobs.then(|| logprobs(answer, echo.as_ref())),
            "finish_reason": answer.ending.finish.openai(),
        });
        if let Some(detail) = answer.ending.finish.detail() {
            choice["x_stop_detail"] = detail.into();
        }
        choice
    };
    let choices: Value = answers.iter().zip(&shape.echoes).enumerate().map(choice).collect();
    shape.envelope.whole("text_completion", choices, answers)
}

/// The scores of an answer, behind those of the prompt that is part of it.
fn logprobs(answer: &Whole, echo: Option<&Echo>) -> Value {
    let mut lists = ScoreLists::default();
    if let Some(echo) = echo {
        // Only a token at the very start has no score.
        if echo.prefix == 0 && !echo.first.is_empty() {
            lists.push_unscored(&echo.first);
        }
        let own = answer.prompt_scores.iter().filter(|(position, _)| *position >= echo.prefix);
        own.for_each(|(_, score)| lists.push(score));
    }
    answer.scores.iter().for_each(|score| lists.push(score));
    lists.take()
}
