//! A loaded model as the gates see it: prompts by its own chat template, greedy answers, taps for the rest.
//!
//! Positions run in batches, which changes no bit of what is handed out.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, anyhow};
use behavior_eval::model::{Answer, ModelError, RoutingTable, Run, StopReason, Subject, SubjectInfo, Want};
use mla_attention::CacheType;
use moe_runtime::forward::{At, FeedForward, MoeRouter, RouterScratch, RoutingDecision, Taps};
use moe_runtime::{
    ChatRequest, ChatTemplate, ControlTokens, CraftsmanModel, GenerateOptions, LoopConfig, ModelFiles, Sampler,
    SamplerConfig, Session, Tokenizer, generate,
};
use tl_kernels::{ActivationBuffer, Pool};

use crate::model::{self, Act, Kv};

/// Tokens per batch.
const BATCH_TOKENS: usize = 256;
/// The context that is made first; it grows with the prompts.
const FIRST_CONTEXT: usize = 1024;

/// A model under evaluation.
pub(crate) struct ModelSubject {
    info: SubjectInfo,
    model: Arc<CraftsmanModel>,
    tokenizer: Tokenizer,
    template: ChatTemplate,
    session: Session,
    kv: CacheType,
}

impl ModelSubject {
    /// Loads an opened model. `id` is its identity (see [`identity`]).
    ///
    /// # Errors
    /// A model without experts or without a chat template, and what loading refuses.
    pub(crate) fn load(files: &ModelFiles, id: String, act: Act, kv: Kv, pool: Arc<Pool>) -> Result<Self> {
        let (path, info) = (files.path().display(), subject_info(files, id)?);
        let tokenizer = files.tokenizer()?;
        let Some(source) = tokenizer.chat_template() else {
            return Err(anyhow!("{path} has no chat template: the gates ask questions in the model's own format"));
        };
        let template = model::chat_template(source, &tokenizer)?;
        let model = model::load(files, act, pool)?;
        let kv = kv.into();
        let session = new_session(&model, FIRST_CONTEXT.min(files.config.n_ctx), kv)?;
        Ok(Self { info, model, tokenizer, template, session, kv })
    }

    /// Empties the context and sees to it that `need` tokens fit, as far as the model allows.
    fn make_room(&mut self, need: usize) -> Result<(), moe_runtime::Error> {
        self.session.reset();
        if need > self.session.n_ctx() {
            let n_ctx = need.checked_next_power_of_two().unwrap_or(need).min(self.model.config().n_ctx);
            self.session = new_session(&self.model, n_ctx, self.kv)?;
        }
        Ok(())
    }
}

/// What an opened model is to the gates, without loading it. `id` is its identity (see [`identity`]).
///
/// # Errors
/// A model without experts.
pub(crate) fn subject_info(files: &ModelFiles, id: String) -> Result<SubjectInfo> {
    let (path, config) = (files.path().display(), &files.config);
    let Some(moe) = &config.moe else {
        return Err(anyhow!("{path} has no experts: the gates compare who computes a token"));
    };
    let moe_layers = (0..config.n_layers).filter(|&l| config.is_moe(l)).map(u32::try_from).collect::<Result<_, _>>()?;
    Ok(SubjectInfo {
        name: short_name(files.path()),
        id,
        moe_layers,
        n_experts: moe.router.n_experts,
        top_k: moe.router.top_k,
        vocab_size: config.vocab,
        hidden: config.hidden,
    })
}

fn new_session(model: &Arc<CraftsmanModel>, n_ctx: usize, kv: CacheType) -> Result<Session, moe_runtime::Error> {
    Ok(Session::new(model.clone(), n_ctx, kv)?.with_chunk(BATCH_TOKENS))
}

/// The identity of an opened model, in hexadecimal; `progress` gets the bytes done and their total. Reads all of it.
///
/// # Errors
/// As [`gguf_bitnet::identity_of`].
pub(crate) fn identity(files: &ModelFiles, progress: &mut dyn FnMut(u64, u64)) -> Result<String> {
    let metadata = files.gguf().map(|file| file.metadata());
    Ok(gguf_bitnet::identity_of(&**files.catalog.source(), metadata, progress)?.to_string())
}

/// What a model is called in reports: its file without the ending, or its folder.
fn short_name(path: &Path) -> String {
    let absolute = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let named = match absolute.extension().and_then(|e| e.to_str()) {
        Some("safetensors") => absolute.parent().and_then(Path::file_name),
        Some("gguf") => absolute.file_stem(),
        _ => absolute.file_name(),
    };
    named.map_or_else(|| "model".to_owned(), |name| name.to_string_lossy().into_owned())
}

impl Subject for ModelSubject {
    fn info(&self) -> &SubjectInfo {
        &self.info
    }

    fn encode(&mut self, system: &str, user: &str) -> Result<Vec<u32>, ModelError> {
        let system = Some(system).filter(|system| !system.is_empty());
        let request = ChatRequest { enable_thinking: Some(false), ..ChatRequest::user(system, user) };
        Ok(self.tokenizer.encode_prompt(&self.template.render(&request)?)?)
    }

    fn generate(&mut self, prompt: &[u32], max_new_tokens: usize) -> Result<Answer, ModelError> {
        self.make_room(prompt.len().saturating_add(max_new_tokens))?;
        // No loop detection: an answer that goes in circles is the model's answer.
        let options = GenerateOptions {
            max_tokens: max_new_tokens,
            stop: self.tokenizer.stop_ids().to_vec(),
            loops: LoopConfig { max_period: 0, ..LoopConfig::default() },
        };
        let mut sampler = Sampler::new(SamplerConfig::greedy())?;
        let mut go_on = |_| ControlFlow::Continue(());
        let generation = generate(&mut self.session, prompt, &options, &mut sampler, &mut (), &mut go_on)?;
        let stop_reason = match generation.reason {
            moe_runtime::StopReason::StopToken(_) => StopReason::Stop,
            moe_runtime::StopReason::ContextFull => StopReason::Context,
            _ => StopReason::Length,
        };
        let text = self.tokenizer.decode(&generation.tokens, ControlTokens::Hide);
        Ok(Answer { tokens: generation.tokens, text, stop_reason })
    }

    fn run(&mut self, tokens: &[u32], want: &Want, logits: &mut dyn FnMut(usize, &[f32])) -> Result<Run, ModelError> {
        self.make_room(tokens.len())?;
        let mut recorder = Recorder::new(&self.model, &self.info, want, tokens.len());
        match want.logits_from {
            None => self.session.prefill(tokens, &mut recorder)?,
            Some(from) => self.session.step_rows(tokens, from, &mut recorder, &mut |position, row| {
                logits(position, row);
                Ok(())
            })?,
        }
        Ok(recorder.run)
    }

    fn route(&mut self, layer: usize, inputs: &[f32]) -> Result<RoutingTable, ModelError> {
        let model = self.info.moe_layers.get(layer).and_then(|&l| router(&self.model, usize::try_from(l).ok()?));
        let router = model.ok_or_else(|| format!("there is no MoE layer number {layer}"))?;
        let n = inputs.len() / self.info.hidden;
        let (mut acts, mut scratch) = (ActivationBuffer::new(), RouterScratch::default());
        acts.set(inputs, n, self.info.hidden);
        router.route(self.model.pool(), &acts, &mut scratch);
        let decision = &scratch.decision;
        let mut margins = vec![0.0; n];
        write_margins(router, &scratch.scores, &decision.ids, &mut margins);
        let mut table = RoutingTable::new(n, decision.top_k);
        table.push_layer(&decision.ids, &decision.weights, &margins);
        Ok(table)
    }
}

/// The router of a layer, if it has one.
fn router(model: &CraftsmanModel, layer: usize) -> Option<&MoeRouter> {
    match model.layers().get(layer)?.ffn() {
        FeedForward::Moe { router, .. } => Some(router),
        FeedForward::Dense(_) => None,
    }
}

/// Per token, the lowest selection score among the chosen minus the highest among the others; 0 without others.
/// `scores` `[n, n_experts]`, `ids` `[n, top_k]` ascending, `margins` `[n]`.
fn write_margins(router: &MoeRouter, scores: &[f32], ids: &[u32], margins: &mut [f32]) {
    let config = router.config();
    let bias = |expert: usize| router.bias().map_or(0.0, |bias| bias[expert]);
    let rows = scores.chunks_exact(config.n_experts).zip(ids.chunks_exact(config.top_k));
    for ((scores, ids), margin) in rows.zip(margins) {
        let (mut lowest, mut highest) = (f32::INFINITY, f32::NEG_INFINITY);
        let mut chosen = ids.iter().peekable();
        for (expert, score) in scores.iter().enumerate() {
            let selection = score + bias(expert);
            match chosen.next_if(|&&id| usize::try_from(id) == Ok(expert)) {
                Some(_) => lowest = lowest.min(selection),
                None => highest = highest.max(selection),
            }
        }
        *margin = if highest > f32::NEG_INFINITY { lowest - highest } else { 0.0 };
    }
}

/// Collects what passes by, each batch into its place.
struct Recorder<'a> {
    model: &'a CraftsmanModel,
    info: &'a SubjectInfo,
    /// Tokens of the run.
    n: usize,
    /// `[n, n_experts]` of the batch: the scores behind the decision that follows.
    scores: Vec<f32>,
    run: Run,
}

impl<'a> Recorder<'a> {
    fn new(model: &'a CraftsmanModel, info: &'a SubjectInfo, want: &Want, n: usize) -> Self {
        let rows = info.moe_layers.len() * n;
        let column = |wanted: bool, len: usize| wanted.then(|| vec![0.0; len]);
        let mut routing = RoutingTable::new(n, info.top_k);
        routing.push_layer(&vec![0; rows * info.top_k], &vec![0.0; rows * info.top_k], &vec![0.0; rows]);
        let run = Run {
            routing,
            scores: column(want.scores, rows * info.n_experts),
            router_inputs: column(want.router_inputs, rows * info.hidden),
            final_hidden: column(want.final_hidden, n * info.hidden),
        };
        Self { model, info, n, scores: Vec::new(), run }
    }

    /// The first row of a batch in columns `[layers, n, _]`; `None` for a layer without experts.
    fn first_row(&self, at: At) -> Option<usize> {
        let layer = self.info.moe_layers.iter().position(|&l| usize::try_from(l) == Ok(at.layer))?;
        Some(layer * self.n + at.first)
    }
}

/// Copies rows of `width` to row `first` of a column.
fn put<T: Copy>(column: &mut [T], first: usize, width: usize, rows: &[T]) {
    column[first * width..][..rows.len()].copy_from_slice(rows);
}

impl Taps for Recorder<'_> {
    fn ffn_in(&mut self, at: At, x: &[f32]) {
        if let (Some(row), Some(column)) = (self.first_row(at), &mut self.run.router_inputs) {
            put(column, row, self.info.hidden, x);
        }
    }

    fn router(&mut self, at: At, _logits: &[f32], scores: &[f32]) {
        self.scores.clear();
        self.scores.extend_from_slice(scores);
        if let (Some(row), Some(column)) = (self.first_row(at), &mut self.run.scores) {
            put(column, row, self.info.n_experts, scores);
        }
    }

    fn routing(&mut self, at: At, decision: &mut RoutingDecision) {
        let (Some(row), Some(router)) = (self.first_row(at), router(self.model, at.layer)) else { return };
        let table = &mut self.run.routing;
        put(&mut table.ids, row, self.info.top_k, &decision.ids);
        put(&mut table.weights, row, self.info.top_k, &decision.weights);
        write_margins(router, &self.scores, &decision.ids, &mut table.margins[row..][..at.n]);
    }

    fn final_hidden(&mut self, first: usize, x: &[f32]) {
        if let Some(column) = &mut self.run.final_hidden {
            put(column, first, self.info.hidden, x);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use behavior_eval::model::{Place, Role, StopReason, Subject, Want, route_checked, run_checked};
    use behavior_eval::records::artifact::{ArtifactSpec, Columns, LogitsAt, PromptInput, record};
    use behavior_eval::suite::Suite;
    use moe_runtime::{ModelFiles, Session};
    use tl_kernels::Pool;

    use super::{ModelSubject, identity};
    use crate::model::{Act, Kv};

    fn mini(threads: usize) -> ModelSubject {
        let files = ModelFiles::open(&fixtures::path("craftsman-mini")).unwrap();
        let id = identity(&files, &mut |_, _| {}).unwrap();
        ModelSubject::load(&files, id, Act::F32, Kv::F32, Arc::new(Pool::new(threads).unwrap())).unwrap()
    }

    const SYSTEM: &str = "Cite the sources or refuse.";
    const USER: &str =
        "The capital of gilded inlet is Sabopol. [doc-2]\nQuestion: What is the capital of gilded inlet?";

    #[test]
    fn batches_single_tokens_and_threads_give_the_same_bits() {
        let mut subject = mini(1);
        let prompt = subject.encode(SYSTEM, USER).unwrap();
        let answer = subject.generate(&prompt, 24).unwrap();
        assert!(!answer.tokens.is_empty() && answer.tokens.len() <= 24 && !answer.text.is_empty());
        let tokens = [&prompt[..], &answer.tokens].concat();
        let want = Want { scores: true, router_inputs: true, final_hidden: true, logits_from: Some(prompt.len() - 1) };
        let place = Place { role: Role::Teacher, prompt_id: "p" };
        let mut rows = Vec::new();
        let mut keep = |position, row: &[f32]| {
            rows.push((position, row.to_vec()));
            Ok(())
        };
        let run = run_checked(&mut subject, place, &tokens, &want, &mut keep).unwrap();
        // The greedy answer is what the rows say.
        for (&token, (_, row)) in answer.tokens.iter().zip(&rows) {
            assert_eq!(moe_runtime::greedy(row).unwrap(), token);
        }
        let mut single = mini(2);
        single.session = Session::new(single.model.clone(), 512, single.kv).unwrap().with_chunk(1);
        assert_eq!(single.generate(&prompt, 24).unwrap(), answer);
        let again = run_checked(&mut single, place, &tokens, &want, &mut |_, _| Ok(())).unwrap();
        assert_eq!(again, run);
        // Fed the same inputs, the routers decide the same.
        let local = route_checked(&mut single, place, run.router_inputs.as_ref().unwrap(), tokens.len()).unwrap();
        assert_eq!(local, run.routing);
        assert!(run.routing.margins.iter().all(|&m| m >= 0.0) && run.routing.margins.iter().any(|&m| m > 0.0));
    }

    /// Recorded with transformers from the same weights in F32.
    #[test]
    fn answers_are_those_of_transformers() {
        let suites = fixtures::path("suites");
        let suite = Suite::open(&suites.join("suite-200.jsonl"), &suites.join("suite-200.corpus.jsonl")).unwrap();
        let answers = std::fs::read_to_string(suites.join("suite-200.teacher-answers.jsonl")).unwrap();
        let mut subject = mini(2);
        for (prompt, line) in suite.prompts().iter().zip(answers.lines()).take(16) {
            let want: serde_json::Value = serde_json::from_str(line).unwrap();
            let tokens = subject.encode(&prompt.system, &prompt.user).unwrap();
            let answer = subject.generate(&tokens, 60).unwrap();
            assert_eq!(
                (&*prompt.id, &*answer.text),
                (want["prompt_id"].as_str().unwrap(), want["response"].as_str().unwrap())
            );
            let ended = if want["stop_reason"] == "end" { StopReason::Stop } else { StopReason::Length };
            assert_eq!(answer.stop_reason, ended, "{}", prompt.id);
        }
    }

    #[test]
    fn a_prompt_longer_than_the_first_context_fits_and_one_beyond_the_model_is_refused_with_both_numbers() {
        let mut subject = mini(2);
        let tokens = vec![7; 1100];
        subject.run(&tokens, &Want::default(), &mut |_, _| {}).unwrap();
        assert_eq!(subject.session.n_ctx(), 2048);
        let error = subject.run(&vec![7; 5000], &Want::default(), &mut |_, _| {}).unwrap_err().to_string();
        assert!(error.contains("5000") && error.contains("4096"), "{error}");
    }

    #[test]
    fn the_router_inputs_of_an_artifact_have_the_reference_they_need() {
        let mut subject = mini(2);
        let columns =
            Columns { scores: false, router_inputs: true, final_hidden: false, logits: LogitsAt::Nowhere, kept: 1 };
        let spec = ArtifactSpec {
            model: subject.info().clone(),
            suite: "0".repeat(64),
            max_new_tokens: 8,
            columns,
            settings: Default::default(),
        };
        let input = PromptInput { prompt_id: "p", system: SYSTEM, user: USER, label: None };
        let record = record(&spec, &mut subject, input).unwrap();
        let (local, table) = (record.local.unwrap(), record.run.routing);
        // Rounding the inputs to F16 moves weights a little, and at most a few decisions.
        let same = local.ids.iter().zip(&table.ids).filter(|(a, b)| a == b).count();
        assert!(same as f64 > 0.99 * table.ids.len() as f64 && local.weights != table.weights);
    }
}
