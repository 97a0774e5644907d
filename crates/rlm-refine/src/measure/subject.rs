//! A model as the gates see it: prompts by its own chat template, greedy answers, taps for the rest.

use std::sync::Arc;

use behavior_eval::model::{Answer, ModelError, RoutingTable, Run, Subject, SubjectInfo, Want};
use mla_attention::CacheType;
use moe_runtime::adapters::AdapterSlot;
use moe_runtime::{ChatTemplate, CraftsmanModel, LoadOptions, ModelFiles, Sampler, SamplerConfig, Session, Tokenizer};

use super::answers::{Exchange, encode};
use super::error::{Error, Result};
use super::info::subject_info;
use super::recorder::{Recorder, route_rows, router};

/// Tokens that run at once.
const BATCH_TOKENS: usize = 256;
/// Tokens of the first context; it grows with the prompts.
const FIRST_CONTEXT: usize = 1024;

/// A model under evaluation.
#[derive(Debug)]
pub struct ModelSubject {
    info: SubjectInfo,
    model: Arc<CraftsmanModel>,
    tokenizer: Tokenizer,
    template: ChatTemplate,
    session: Session,
    kv: CacheType,
    adapters: AdapterSlot,
}

impl ModelSubject {
    /// Loads an opened model. `id` is its [`ModelFiles::identity`].
    ///
    /// # Errors
    /// [`Error::NoExperts`], [`Error::NoChatTemplate`], and the errors of loading.
    pub fn load(files: &ModelFiles, id: String, options: &LoadOptions, kv: CacheType) -> Result<Self> {
        let info = subject_info(files, id)?;
        let tokenizer = files.tokenizer()?;
        let Some(template) = ChatTemplate::of_model(&tokenizer)? else {
            return Err(Error::NoChatTemplate { path: files.path().display().to_string() });
        };
        let model = Arc::new(CraftsmanModel::from_files(files, options)?);
        let session = new_session(&model, FIRST_CONTEXT.min(files.config.n_ctx), kv)?;
        Ok(Self { info, model, tokenizer, template, session, kv, adapters: AdapterSlot::default() })
    }

    /// The same model with the adapters of `slot`, for which `id` of [`ModelSubject::load`] must stand too.
    #[must_use]
    pub fn with_adapters(mut self, slot: AdapterSlot) -> Self {
        self.session = self.session.with_adapters(slot.clone());
        self.adapters = slot;
        self
    }

    /// The loaded model, with its choice of kernels.
    #[must_use]
    pub fn model(&self) -> &CraftsmanModel {
        &self.model
    }

    /// Empties the context, and makes a larger one where `need` tokens do not fit, up to the limit of the model.
    fn make_room(&mut self, need: usize) -> Result<(), moe_runtime::Error> {
        self.session.reset();
        if need > self.session.n_ctx() {
            let n_ctx = need.checked_next_power_of_two().unwrap_or(need).min(self.model.config().n_ctx);
            self.session = new_session(&self.model, n_ctx, self.kv)?.with_adapters(self.adapters.clone());
        }
        Ok(())
    }
}

fn new_session(model: &Arc<CraftsmanModel>, n_ctx: usize, kv: CacheType) -> Result<Session, moe_runtime::Error> {
    Ok(Session::new(model.clone(), n_ctx, kv)?.with_chunk(BATCH_TOKENS))
}

impl Subject for ModelSubject {
    fn info(&self) -> &SubjectInfo {
        &self.info
    }

    fn encode(&mut self, system: &str, user: &str) -> Result<Vec<u32>, ModelError> {
        Ok(encode(&self.tokenizer, &self.template, system, user)?)
    }

    fn generate(&mut self, prompt: &[u32], max_new_tokens: usize) -> Result<Answer, ModelError> {
        self.make_room(prompt.len().saturating_add(max_new_tokens))?;
        let mut sampler = Sampler::new(SamplerConfig::greedy())?;
        let exchange = Exchange { session: &mut self.session, tokenizer: &self.tokenizer, max_new_tokens };
        Ok(exchange.answer(prompt, &mut sampler)?.0)
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
        Ok(recorder.into_run())
    }

    fn route(&mut self, layer: usize, inputs: &[f32]) -> Result<RoutingTable, ModelError> {
        let model = self.info.moe_layers.get(layer).and_then(|&l| router(&self.model, usize::try_from(l).ok()?));
        let router = model.ok_or_else(|| format!("there is no MoE layer number {layer}"))?;
        Ok(route_rows(self.model.pool(), router, inputs, self.info.hidden))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use behavior_eval::model::{AnswerEnd, AskedPrompt, Role, Subject, Want, route_checked, run_checked};
    use behavior_eval::records::artifact::{ArtifactSpec, Columns, LogitsAt, open_or_record, record};
    use behavior_eval::suite::{Prompt, Suite};
    use mla_attention::CacheType;
    use moe_runtime::LoadOptions;
    use moe_runtime::{ModelFiles, Sampler, SamplerConfig, Session};
    use ternary_core::ActMode;
    use tl_kernels::Pool;

    use super::super::streamed::{GroupReport, StreamedOptions, StreamedSubject};
    use super::ModelSubject;

    fn mini(threads: usize) -> ModelSubject {
        let files = ModelFiles::open(&fixtures::path("craftsman-mini")).unwrap();
        let id = files.identity(&mut |_, _| {}).unwrap();
        let pool = Arc::new(Pool::new(threads).unwrap());
        let options = LoadOptions { act_mode: Some(ActMode::F32), pool, ..LoadOptions::default() };
        ModelSubject::load(&files, id, &options, CacheType::F32).unwrap()
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
        let place = AskedPrompt { role: Role::Teacher, prompt_id: "p" };
        let mut rows = Vec::new();
        let mut keep = |position, row: &[f32]| {
            rows.push((position, row.to_vec()));
            Ok(())
        };
        let run = run_checked(&mut subject, place, &tokens, &want, &mut keep).unwrap();
        // The answer has the most likely token of each row.
        let mut greedy = Sampler::new(SamplerConfig::greedy()).unwrap();
        for (&token, (_, row)) in answer.tokens.iter().zip(&rows) {
            assert_eq!(greedy.sample(row).unwrap(), token);
        }
        let mut single = mini(2);
        single.session = Session::new(single.model.clone(), 512, single.kv).unwrap().with_chunk(1);
        assert_eq!(single.generate(&prompt, 24).unwrap(), answer);
        let again = run_checked(&mut single, place, &tokens, &want, &mut |_, _| Ok(())).unwrap();
        assert_eq!(again, run);
        // Routers that get the same inputs decide the same.
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
            let ended = if want["stop_reason"] == "end" { AnswerEnd::Stop } else { AnswerEnd::Length };
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
        let (id, system, user) = ("p".to_owned(), SYSTEM.to_owned(), USER.to_owned());
        let input = &Prompt { id, system, user, ..Prompt::default() };
        let record = record(&spec, &mut subject, input).unwrap();
        let (local, table) = (record.local.unwrap(), record.run.routing);
        // Rounding the inputs to F16 moves weights a little, and at most a few decisions.
        let same = local.ids.iter().zip(&table.ids).filter(|(a, b)| a == b).count();
        assert!(same as f64 > 0.99 * table.ids.len() as f64 && local.weights != table.weights);
    }

    /// Prompts of different lengths in groups that the memory cuts, against the model that is in memory as a whole.
    #[test]
    fn a_streamed_model_records_the_same_bytes() {
        let suites = fixtures::path("suites");
        let suite = Suite::open(&suites.join("suite-200.jsonl"), &suites.join("suite-200.corpus.jsonl")).unwrap();
        let prompts: Vec<&Prompt> = suite.prompts().iter().take(5).collect();
        let mut whole = mini(1);
        let spec = ArtifactSpec {
            model: whole.info().clone(),
            suite: suite.identity().to_owned(),
            max_new_tokens: 12,
            columns: Columns { scores: true, ..Columns::default() },
            settings: std::collections::BTreeMap::new(),
        };
        let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
        let record = |dir: &tempfile::TempDir, subject: &mut dyn Subject| {
            let artifact = open_or_record(dir.path(), &spec, subject, &prompts, &mut |_, _| {}).unwrap();
            std::fs::read(artifact.path()).unwrap()
        };
        let want = record(&dirs[0], &mut whole);
        let streamed = |memory_bytes| {
            let files = ModelFiles::open(&fixtures::path("craftsman-mini")).unwrap();
            let (pool, cache_type) = (Arc::new(Pool::new(2).unwrap()), CacheType::F32);
            let options = StreamedOptions { pool, act_mode: ActMode::F32, cache_type, memory_bytes };
            let groups = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
            let seen = groups.clone();
            let on_group = Box::new(move |group: &GroupReport| seen.borrow_mut().push(*group));
            (StreamedSubject::open(files, spec.model.id.clone(), options, on_group).unwrap(), groups)
        };
        let (mut subject, groups) = streamed(None);
        assert!(record(&dirs[1], &mut subject) == want, "one group");
        let all = groups.borrow()[0];
        assert_eq!((groups.borrow().len(), all.prompts), (1, 5));
        assert!(all.passes <= 13 && all.weight_bytes > 0, "{all:?}");
        // Layers 1 to 4 of model.safetensors have 4,413,472 bytes each. Beside one are four norms, the router and its bias as F32,
        // the transposed keys of four heads in BF16, and the last norm twice; embedding and head are not.
        let [floats, keys, norm] = [4 * (4 * 256 + 8 * 256 + 8), 2 * 4 * 64 * 256, (4 + 2) * 256];
        assert_eq!(subject.memory_bytes(0), (256 << 20) + 4_413_472 + floats + keys + norm);
        let limit = subject.memory_bytes(800);
        let (mut subject, groups) = streamed(Some(limit));
        assert!(record(&dirs[2], &mut subject) == want, "several groups");
        assert!(groups.borrow().len() > 1, "{groups:?}");
        let (mut subject, _) = streamed(Some(1000));
        let error = subject.generate(&[1, 2, 3], 4).unwrap_err().to_string();
        assert!(error.contains("--teacher-memory"), "{error}");
    }
}
