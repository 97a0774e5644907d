//! Groups of lines through the scheduler.

use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use mla_attention::CacheType;
use serde_json::{Value, json};

use super::answer::{Collector, Reply};
use super::error::BatchError;
use super::request::BatchRequest;
use crate::adapters::set::AdapterSet;
use crate::error::Error;
use crate::forward::model::CraftsmanModel;
use crate::sessions::interrupt::Interrupt;
use crate::sessions::loops::LoopConfig;
use crate::sessions::sampler::{Sampler, SamplerConfig};
use crate::sessions::scheduler::{AnswerOptions, Job, Priority, QueueLimits, Scheduler, SchedulerOptions, Work};
use crate::sessions::session::Session;
use crate::text::chat::ChatTemplate;
use crate::text::output::{AnswerReader, Output, OutputFormat, OutputParser, OutputStart, StopStrings, ToolSchemas};
use crate::text::tokenizer::Tokenizer;

/// Settings of all lines.
#[derive(Clone, Copy, Debug)]
pub struct BatchOptions {
    /// Sequences that share a step, at least 1. Answers do not depend on it.
    pub slots: usize,
    /// Tokens of a prompt and its answer together.
    pub n_ctx: usize,
    /// Type of the numbers in the caches.
    pub cache_type: CacheType,
    /// Tokens are chosen so where a line does not say otherwise.
    pub sampling: SamplerConfig,
    /// Most tokens of an answer where a line does not say otherwise.
    pub max_tokens: usize,
}

/// A line and its number in the file, from 1, for messages about it.
#[derive(Clone, Copy, Debug)]
pub struct BatchLine<'a> {
    /// Number of the line.
    pub number: usize,
    /// Its JSON, which need not be right.
    pub text: &'a str,
}

/// The answer to a line.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchAnswer {
    /// The JSON object: `id`; then `text` or `message`, `finish_reason` and `usage`; or `error` with `line` and `message`.
    pub line: Value,
    /// The reason why there is no answer.
    pub error: Option<String>,
}

impl BatchAnswer {
    fn unanswered(id: Option<&Value>, line: &BatchLine<'_>, reason: String) -> BatchAnswer {
        let line = json!({ "id": id, "error": { "line": line.number, "message": reason } });
        BatchAnswer { line, error: Some(reason) }
    }
}

/// Answers lines of JSON with one model.
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
/// use mla_attention::CacheType;
/// use moe_runtime::batch::{BatchLine, BatchOptions, BatchRunner};
/// use moe_runtime::{CraftsmanModel, LoadOptions, ModelFiles, SamplerConfig};
///
/// let files = ModelFiles::open(&fixtures::path("craftsman-mini"))?;
/// let model = Arc::new(CraftsmanModel::from_files(&files, &LoadOptions::default())?);
/// let sampling = SamplerConfig::greedy();
/// let options = BatchOptions { slots: 2, n_ctx: 128, cache_type: CacheType::F16, sampling, max_tokens: 4 };
/// let mut runner = BatchRunner::new(model, files.tokenizer()?, options)?;
/// let lines = [r#"{"id":"a","prompt":"the the"}"#, r#"{"id":"b"}"#];
/// let lines: Vec<_> = lines.iter().zip(1..).map(|(text, number)| BatchLine { number, text }).collect();
/// let answers = runner.run(&lines, &mut || Duration::ZERO);
/// assert_eq!(answers[0].line["usage"]["completion_tokens"], 4);
/// assert!(answers[1].error.as_ref().unwrap().contains("neither `prompt` nor `messages`"));
/// # Ok::<(), moe_runtime::Error>(())
/// ```
#[derive(Debug)]
pub struct BatchRunner {
    scheduler: Scheduler,
    tokenizer: Arc<Tokenizer>,
    template: Option<ChatTemplate>,
    format: OutputFormat,
    options: BatchOptions,
}

/// A request that is ready to be submitted.
struct Ready {
    prompt: Vec<u32>,
    options: AnswerOptions,
    reader: AnswerReader,
    is_chat: bool,
}

impl BatchRunner {
    /// A runner with empty slots.
    ///
    /// # Errors
    /// A chat template that does not compile, a context that the model was not made for, and memory that cannot be had.
    pub fn new(model: Arc<CraftsmanModel>, tokenizer: Tokenizer, options: BatchOptions) -> Result<BatchRunner, Error> {
        let limits = QueueLimits { waiting: usize::MAX, ..QueueLimits::default() };
        let scheduler = SchedulerOptions {
            slots: options.slots,
            n_ctx: options.n_ctx,
            cache_type: options.cache_type,
            chunk: Session::DEFAULT_CHUNK,
            prompt_rows: Session::DEFAULT_CHUNK,
            decode_share: 0.5,
            limits,
        };
        let scheduler = Scheduler::new(model, scheduler)?;
        let template = ChatTemplate::of_model(&tokenizer)?;
        let format = OutputFormat::of_model(&tokenizer);
        Ok(BatchRunner { scheduler, tokenizer: Arc::new(tokenizer), template, format, options })
    }

    /// The same runner with adapters for all lines.
    #[must_use]
    pub fn with_adapters(self, adapters: Option<Arc<AdapterSet>>) -> BatchRunner {
        BatchRunner { scheduler: self.scheduler.with_adapters(adapters), ..self }
    }

    /// Answers a group of lines, as many at a time as there are slots. Each line has an answer, in the order of the lines; a
    /// line that cannot be answered does not disturb the others. `now` gives the time since some start, which decides how
    /// prompts and answers share the steps, never a token.
    pub fn run(&mut self, lines: &[BatchLine<'_>], now: &mut dyn FnMut() -> Duration) -> Vec<BatchAnswer> {
        let (to, answers) = channel();
        let (mut ids, mut done): (Vec<Option<Value>>, Vec<Option<BatchAnswer>>) = Default::default();
        for (place, line) in lines.iter().enumerate() {
            let (id, request) = BatchRequest::read(line.text);
            let submitted = request
                .and_then(|request| self.ready(request))
                .map(|ready| self.submit((place, ready), to.clone(), now()));
            done.push(submitted.err().map(|error| BatchAnswer::unanswered(id.as_ref(), line, error.to_string())));
            ids.push(id);
        }
        while self.scheduler.advance(now()).is_some() {}
        for (place, answer) in answers.try_iter() {
            let id = ids[place].as_ref();
            done[place] = Some(match answer {
                Ok(finished) => BatchAnswer { line: finished.line(id), error: None },
                Err(reason) => BatchAnswer::unanswered(id, &lines[place], reason),
            });
        }
        let lost = || "the engine gave no answer to this line: please report it".to_owned();
        let asked = done.into_iter().zip(lines.iter().zip(&ids));
        asked
            .map(|(done, (line, id))| done.unwrap_or_else(|| BatchAnswer::unanswered(id.as_ref(), line, lost())))
            .collect()
    }

    /// The prompt in tokens, and the rules of its answer.
    fn ready(&self, mut request: BatchRequest) -> Result<Ready, BatchError> {
        let sampling = request.sampling(self.options.sampling)?;
        let (prompt, start) = match &request.prompt {
            Some(text) => {
                let mut tokens = self.tokenizer.raw_prefix();
                tokens.extend(self.tokenizer.encode(text, false)?);
                (tokens, OutputStart::Content)
            }
            None => {
                let template = self.template.as_ref().ok_or(BatchError::NoTemplate)?;
                let rendered = template.prompt(&request.conversation())?;
                (self.tokenizer.encode_prompt(&rendered)?, self.format.start_of(&rendered))
            }
        };
        let (n, n_ctx) = (prompt.len(), self.options.n_ctx);
        let max_tokens = request.max_tokens.unwrap_or(self.options.max_tokens);
        if n > n_ctx || (n == n_ctx && max_tokens > 0) {
            return Err(BatchError::Context { prompt: n, n_ctx });
        }
        let mut parser = OutputParser::new(&self.format, start);
        if let Some(tools) = request.tools.as_deref().filter(|tools| !tools.is_empty()) {
            parser = parser.with_tools(Arc::new(ToolSchemas::new(tools)));
        }
        let reader = AnswerReader::new(parser, StopStrings::new(request.stops())?);
        let mut sampler = Sampler::new(sampling)?;
        sampler.begin_answer(self.format.thought_end().filter(|_| start == OutputStart::Reasoning));
        let options = AnswerOptions {
            sampler,
            max_tokens,
            stop: self.tokenizer.stop_ids().to_vec(),
            loops: LoopConfig::default(),
            prompt_logits: false,
            // Full steps have no room for guesses.
            drafts: None,
        };
        Ok(Ready { prompt, options, reader, is_chat: request.prompt.is_none() })
    }

    fn submit(&self, (place, ready): (usize, Ready), to: Sender<Reply>, now: Duration) {
        let Ready { prompt, options, reader, is_chat } = ready;
        let mut collector = Collector {
            tokenizer: self.tokenizer.clone(),
            reader,
            place,
            to,
            prompt_tokens: prompt.len(),
            is_chat,
            answer_tokens: 0,
            output: Output::default(),
        };
        let job = Job {
            prompt,
            work: Work::Answer(Box::new(options)),
            priority: Priority::Batch,
            affinity: String::new(),
            account: String::new(),
            interrupt: Interrupt::new(),
            on_event: Box::new(move |event| collector.take(event)),
        };
        // The queue takes any number of jobs and is never closed; a job that it refused all the same has no answer, which
        // `run` reports.
        let _ = self.scheduler.queue().submit(job, now);
    }
}
