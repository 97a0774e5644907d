//! A prompt as tokens, and the answer behind it: the same for the gates and for rewards of sampled answers.
//!
//! **Invariant:** an answer follows from the state of the session and of the sampler.

use std::ops::ControlFlow;

use behavior_eval::model::{Answer, AnswerEnd};
use moe_runtime::{
    ChatRequest, ChatTemplate, ControlTokens, Error, GenerateOptions, LoopConfig, Sampler, Session, StopReason,
    Tokenizer,
};

/// The tokens of a system message and a user turn that await the assistant, thinking off.
pub(crate) fn encode(
    tokenizer: &Tokenizer,
    template: &ChatTemplate,
    system: &str,
    user: &str,
) -> Result<Vec<u32>, Error> {
    let system = Some(system).filter(|system| !system.is_empty());
    let request = ChatRequest {
        enable_thinking: Some(false),
        // A prompt that shows the date of the run would give another report on every day.
        now_unix_s: Some(ChatRequest::MEASURED_NOW_UNIX_S),
        ..ChatRequest::user(system, user)
    };
    tokenizer.encode_prompt(&template.prompt(&request)?)
}

/// A session whose next answer is asked for.
pub(crate) struct Exchange<'a> {
    /// The session, which may hold the first tokens of the prompt already.
    pub(crate) session: &'a mut Session,
    pub(crate) tokenizer: &'a Tokenizer,
    pub(crate) max_new_tokens: usize,
}

impl Exchange<'_> {
    /// The answer to a prompt of which `rest` is not in the session yet; with it the token that ended the answer, if one did.
    ///
    /// # Errors
    /// A prompt that does not fit, and the failures of a step.
    pub(crate) fn answer(self, rest: &[u32], sampler: &mut Sampler) -> Result<(Answer, Option<u32>), Error> {
        // No loop detection: an answer that goes in circles is the model's answer.
        let options = GenerateOptions {
            max_tokens: self.max_new_tokens,
            stop: self.tokenizer.stop_ids().to_vec(),
            loops: LoopConfig { max_period: 0, ..LoopConfig::default() },
            ..GenerateOptions::default()
        };
        let mut go_on = |_| ControlFlow::Continue(());
        let made = self.session.generate(rest, &options, sampler, &mut (), &mut go_on)?;
        let (end, stop_reason) = match made.reason {
            StopReason::StopToken(token) => (Some(token), AnswerEnd::Stop),
            StopReason::ContextFull => (None, AnswerEnd::Context),
            _ => (None, AnswerEnd::Length),
        };
        let text = self.tokenizer.decode(&made.tokens, ControlTokens::Hide);
        Ok((Answer { tokens: made.tokens, text, stop_reason }, end))
    }
}
