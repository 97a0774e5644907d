//! Updates of a student on the prompts of a suite, and its reward on prompts that are held out.
//!
//! ```text
//! overlay ──► answers ──► rewards ──► advantages ──► per epoch: gradients of the surrogate ──► step
//!                          │ judges of the gates, agreement with the teacher's routing on the same tokens
//! ```
//!
//! **Invariant:** without a group whose rewards differ no step is taken, so no number changes.

use std::sync::Arc;

use behavior_eval::gates::{PromptRecord, RefusalSignals};
use behavior_eval::stats::{Difference, paired_difference};
use behavior_eval::suite::{Prompt, Suite};
use moe_runtime::{ChatTemplate, CraftsmanModel, LoadOptions, ModelFiles, SamplerConfig, Tokenizer};
use serde::Serialize;
use ternary_core::ActMode;
use tl_kernels::{Pool, math};

use super::reward::reward;
use super::rollout::{Completion, Respondent, agreement};
use super::{GrpoFigures, GrpoOptimizer, GrpoOptions, PolicyRule, overlay};
use crate::error::Result;
use crate::measure::encode;
use crate::train::ops::loss::{Action, Target, log_probability};
use crate::train::{Batches, LossScale, Params, Targets, TrainError, TrainModel};

/// One of so many prompts is held out, up to [`MAX_HELD_OUT`] of them.
const HELD_OUT_SHARE: usize = 8;
const MAX_HELD_OUT: usize = 48;
/// Answers that are in memory at a time in passes of the training model.
const ANSWERS_AT_A_TIME: usize = 8;
/// Least number of answers in a group.
const LEAST_GROUP: usize = 4;

/// A prompt with its tokens.
struct Asked {
    prompt: Prompt,
    tokens: Vec<u32>,
}

/// A suite to practise on, with the models that a reward and a penalty need.
pub struct Practice<'a> {
    options: GrpoOptions,
    seed: u64,
    pool: &'a Pool,
    tokenizer: Tokenizer,
    load: LoadOptions,
    /// The student before the run.
    reference: TrainModel<'a>,
    teacher: Arc<CraftsmanModel>,
    top_k: usize,
    prompts: Vec<Asked>,
    held_out: Vec<Asked>,
    signals: RefusalSignals,
    /// BLAKE3 of the suite.
    pub suite: String,
}

impl std::fmt::Debug for Practice<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Practice").field("options", &self.options).field("suite", &self.suite).finish_non_exhaustive()
    }
}

/// Rewards of the prompts that are held out, before the run and behind it, with the interval of the mean difference over prompts.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HeldOutRewards {
    /// The number of prompts.
    pub prompts: usize,
    /// Mean reward of the greedy answers.
    pub greedy: [f64; 2],
    /// The mean difference of the greedy answers' rewards.
    pub greedy_gain: Option<Difference>,
    /// Mean reward of groups of sampled answers.
    pub sampled: [f64; 2],
    /// The mean difference of the groups' mean rewards.
    pub sampled_gain: Option<Difference>,
}

/// Rewards by prompt: of the greedy answer, and the mean of a sampled group.
#[derive(Clone, Debug, Default)]
pub(crate) struct PromptRewards {
    greedy: Vec<f64>,
    sampled: Vec<f64>,
}

impl PromptRewards {
    /// These rewards beside those behind the run.
    pub(crate) fn compare(&self, after: &PromptRewards) -> HeldOutRewards {
        let mean = |rewards: &[f64]| rewards.iter().sum::<f64>() / rewards.len().max(1) as f64;
        HeldOutRewards {
            prompts: self.greedy.len(),
            greedy: [mean(&self.greedy), mean(&after.greedy)],
            greedy_gain: paired_difference(&self.greedy, &after.greedy),
            sampled: [mean(&self.sampled), mean(&after.sampled)],
            sampled_gain: paired_difference(&self.sampled, &after.sampled),
        }
    }
}

/// An answer that counts in a step.
struct Kept {
    completion: Completion,
    advantage: f64,
    /// Log probability of each token of the answer, when it was sampled and by the student before the run.
    old: Vec<f64>,
    reference: Vec<f64>,
}

impl<'a> Practice<'a> {
    /// A practice of `student` on the labelled prompts of a suite.
    ///
    /// # Errors
    /// [`TrainError::SmallGroup`], [`TrainError::NoPractice`], a model without a chat template, a prompt that does not fit.
    pub fn new(
        [student, teacher]: [&'a ModelFiles; 2],
        suite: &Suite,
        options: GrpoOptions,
        seed: u64,
        pool: &'a Pool,
    ) -> Result<Self> {
        if options.group < LEAST_GROUP {
            return Err(TrainError::SmallGroup { group: options.group, least: LEAST_GROUP }.into());
        }
        let tokenizer = student.tokenizer()?;
        let Some(template) = ChatTemplate::of_model(&tokenizer)? else {
            return Err(TrainError::NoTemplate { path: student.path().display().to_string() }.into());
        };
        let (mut prompts, mut held_out) = (Vec::new(), Vec::new());
        for (i, prompt) in suite.prompts().iter().filter(|prompt| prompt.label.is_some()).enumerate() {
            let tokens = encode(&tokenizer, &template, &prompt.system, &prompt.user)?;
            let asked = Asked { prompt: prompt.clone(), tokens };
            if i % HELD_OUT_SHARE == HELD_OUT_SHARE / 2 { held_out.push(asked) } else { prompts.push(asked) }
        }
        held_out.truncate(MAX_HELD_OUT);
        let (Some(moe), false) = (&student.config.moe, held_out.is_empty()) else {
            return Err(TrainError::NoPractice { needed: HELD_OUT_SHARE / 2 + 1 }.into());
        };
        let threads = Arc::new(Pool::new(pool.threads()).map_err(moe_runtime::Error::from)?);
        let load = LoadOptions { act_mode: Some(ActMode::F32), pool: threads, ..LoadOptions::default() };
        Ok(Self {
            options,
            seed,
            pool,
            tokenizer,
            reference: TrainModel::new(student, &[], pool)?,
            teacher: Arc::new(CraftsmanModel::from_files(teacher, &load)?),
            top_k: moe.router.top_k,
            load,
            prompts,
            held_out,
            signals: RefusalSignals::default(),
            suite: suite.identity().to_owned(),
        })
    }

    fn respondent(&self, model: Arc<CraftsmanModel>) -> Respondent<'_> {
        Respondent { model, tokenizer: &self.tokenizer, options: self.options }
    }

    /// The answers of `policy` to a prompt, one per sampler, and their rewards.
    fn rewarded(
        &self,
        policy: &Respondent<'_>,
        asked: &Asked,
        samplers: &[SamplerConfig],
    ) -> Result<(Vec<Completion>, Vec<f64>)> {
        let own = policy.read(&asked.tokens)?;
        let answers = samplers.iter().map(|sampler| own.answer(*sampler)).collect::<Result<Vec<Completion>>>()?;
        if self.options.rule == PolicyRule::ZeroRewards {
            let rewards = vec![0.0; answers.len()];
            return Ok((answers, rewards));
        }
        let judged = |answer: &Completion| {
            let record = PromptRecord::new(&asked.prompt, None, answer.answer.clone(), &self.signals);
            reward(&record).unwrap_or(0.0)
        };
        let mut rewards: Vec<f64> = answers.iter().map(judged).collect();
        if self.options.routing > 0.0 {
            let teacher = self.respondent(self.teacher.clone());
            let theirs = teacher.read(&asked.tokens)?;
            for (reward, answer) in rewards.iter_mut().zip(&answers) {
                // The first token is the last one of the prompt.
                let same = agreement([&own.experts(answer)?, &theirs.experts(answer)?], self.top_k, 1);
                *reward += self.options.routing * same;
            }
        }
        Ok((answers, rewards))
    }

    /// The rewards of the student as it is on the prompts that are held out.
    pub(crate) fn held_out(&self, model: &TrainModel<'_>) -> Result<PromptRewards> {
        let policy = self.respondent(overlay::load(model, self.pool, &self.load)?);
        let mut rewards = PromptRewards::default();
        for (i, asked) in self.held_out.iter().enumerate() {
            let samplers = [vec![SamplerConfig::greedy()], policy.samplers(!self.seed ^ i as u64)].concat();
            let (_, of_prompt) = self.rewarded(&policy, asked, &samplers)?;
            rewards.greedy.push(of_prompt[0]);
            rewards.sampled.push(of_prompt[1..].iter().sum::<f64>() / (of_prompt.len() - 1) as f64);
        }
        Ok(rewards)
    }

    /// Update `number`, counted from 0, with `beta` as the factor of the penalty. `step` changes the values by their gradients, knows
    /// the loss, and returns the length of the gradients. The events `GrpoRewardComputed` and `AdapterUpdated` have the outcome.
    ///
    /// # Errors
    /// Weights that cannot be read, an answer that cannot be computed, the errors of `step`.
    pub fn update(
        &self,
        model: &mut TrainModel<'_>,
        number: usize,
        beta: Option<f64>,
        step: &mut dyn FnMut(&mut Params, f64) -> Result<f64>,
    ) -> Result<GrpoFigures> {
        let mut grpo = GrpoOptimizer::new(self.options);
        grpo.beta = beta.unwrap_or(grpo.beta);
        let (mut kept, mut figures) = self.sample(model, number)?;
        self.score(model, &mut kept)?;
        if let Some(kl) = divergence(&kept) {
            figures.kl = kl;
        }
        tracing::info!(
            name: "GrpoRewardComputed",
            update = number + 1,
            groups = figures.groups,
            dropped = figures.dropped,
            reward = figures.reward,
            kl = figures.kl,
            beta = grpo.beta,
            "GrpoRewardComputed"
        );
        for epoch in 0..if kept.is_empty() { 0 } else { self.options.epochs } {
            let (loss, tokens) = self.gradients(model, &kept, grpo.beta)?;
            let gradient = step(&mut model.weights.params, loss)?;
            tracing::info!(
                name: "AdapterUpdated",
                update = number + 1,
                epoch = epoch + 1,
                answers = kept.len(),
                tokens,
                loss,
                gradient,
                "AdapterUpdated"
            );
        }
        if !kept.is_empty() && self.options.rule == PolicyRule::Grpo {
            grpo.adapt(figures.kl);
        }
        figures.beta = grpo.beta;
        Ok(figures)
    }

    /// The answers of an update that count, without their probabilities.
    fn sample(&self, model: &TrainModel<'_>, number: usize) -> Result<(Vec<Kept>, GrpoFigures)> {
        let policy = self.respondent(overlay::load(model, self.pool, &self.load)?);
        let batches = Batches { windows: self.prompts.len(), per_step: self.options.prompts, seed: self.seed };
        let (mut kept, mut figures, mut sum, mut answers) = (Vec::new(), GrpoFigures::default(), 0.0, 0usize);
        for (i, at) in batches.of_step(number).into_iter().enumerate() {
            let asked = &self.prompts[at];
            let seed = self
                .seed
                .wrapping_add((number * self.options.prompts + i + 1) as u64)
                .wrapping_mul(0xd134_2543_de82_ef95);
            let (group, rewards) = self.rewarded(&policy, asked, &policy.samplers(seed))?;
            sum += rewards.iter().sum::<f64>();
            answers += group.len();
            figures.groups += 1;
            figures.tokens += group.iter().map(|answer| (answer.tokens.len() - answer.prompt) as u64).sum::<u64>();
            let Some(advantages) = GrpoOptimizer::advantages(&rewards) else {
                figures.dropped += 1;
                continue;
            };
            for (completion, advantage) in group.into_iter().zip(advantages) {
                let is_accepted = self.options.rule == PolicyRule::Grpo || advantage > 0.0;
                if is_accepted && completion.tokens.len() > completion.prompt {
                    kept.push(Kept { completion, advantage, old: Vec::new(), reference: Vec::new() });
                }
            }
        }
        figures.reward = sum / answers.max(1) as f64;
        Ok((kept, figures))
    }

    /// Computes the log probabilities of the answers' tokens.
    fn score(&self, model: &TrainModel<'_>, kept: &mut [Kept]) -> Result<()> {
        for answers in kept.chunks_mut(ANSWERS_AT_A_TIME) {
            let [old, reference] = [log_probabilities(model, answers)?, log_probabilities(&self.reference, answers)?];
            for (answer, (old, reference)) in answers.iter_mut().zip(old.into_iter().zip(reference)) {
                (answer.old, answer.reference) = (old, reference);
            }
        }
        Ok(())
    }

    /// Sets the registry's gradients to those of the answers' mean loss per token; returns the loss and the number of tokens.
    fn gradients(&self, model: &mut TrainModel<'_>, kept: &[Kept], beta: f64) -> Result<(f64, usize)> {
        let n = kept.iter().map(|answer| answer.old.len()).sum::<usize>();
        model.weights.params.clear_gradients();
        let mut loss = 0.0;
        for answers in kept.chunks(ANSWERS_AT_A_TIME) {
            let mut targets = Actions { answers, options: self.options, beta };
            loss += model.loss_and_gradients(&windows(answers), &mut targets, LossScale::of_positions(n))?.kl;
        }
        Ok((loss / n.max(1) as f64, n))
    }
}

/// The tokens of each answer with its prompt.
fn windows(answers: &[Kept]) -> Vec<Vec<u32>> {
    answers.iter().map(|answer| answer.completion.tokens.clone()).collect()
}

/// Mean divergence per token from the student before the run, by the unbiased estimate of positive terms.
fn divergence(kept: &[Kept]) -> Option<f64> {
    let away = kept.iter().flat_map(|answer| answer.reference.iter().zip(&answer.old)).map(|(r, old)| r - old);
    let terms: Vec<f64> = away.map(|away| math::exp_f64(away) - away - 1.0).collect();
    (!terms.is_empty()).then(|| terms.iter().sum::<f64>() / terms.len() as f64)
}

/// The log probability of each token of each answer.
fn log_probabilities(model: &TrainModel<'_>, answers: &[Kept]) -> Result<Vec<Vec<f64>>> {
    let predictions = model.targets(&windows(answers))?;
    let mut start = 0;
    let of_answer = |answer: &Kept| {
        let Completion { tokens, prompt, .. } = &answer.completion;
        let first = prompt.saturating_sub(1);
        let logits = predictions.logits(start + first, tokens.len() - 1 - first);
        start += tokens.len();
        let rows = logits.chunks_exact(model.files().config.vocab).zip(&tokens[first + 1..]);
        rows.map(|(row, &token)| log_probability(row, token)).collect::<Vec<f64>>()
    };
    Ok(answers.iter().map(of_answer).collect())
}

/// The tokens of some answers as targets; the positions of their prompts have none.
struct Actions<'k> {
    answers: &'k [Kept],
    options: GrpoOptions,
    beta: f64,
}

impl Targets for Actions<'_> {
    fn targets(&mut self, first: usize, n: usize, take: &mut dyn FnMut(usize, Target<'_>)) -> Result<()> {
        let mut start = 0;
        for Kept { completion, advantage, old, reference } in self.answers {
            for (i, (&old, &reference)) in old.iter().zip(reference).enumerate() {
                let at = completion.prompt + i;
                let (position, token) = (start + at - 1, completion.tokens[at]);
                if !(first..first + n).contains(&position) {
                    continue;
                }
                let (advantage, clip, beta) = (*advantage, f64::from(self.options.clip), self.beta);
                let target = match self.options.rule {
                    PolicyRule::Supervised => Target::Sparse { tokens: &[token], probabilities: &[1.0] },
                    PolicyRule::Grpo | PolicyRule::ZeroRewards => {
                        Target::Action(Action { token, advantage, old, reference, clip, beta })
                    }
                };
                take(position, target);
            }
            start += completion.tokens.len();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use behavior_eval::model::{Subject, Want};
    use mla_attention::CacheType;

    use super::*;
    use crate::measure::ModelSubject;
    use crate::train::Group;
    use crate::train::mini::teacher_and_student;

    /// A student of the mini teacher by least squares, and what it practises on.
    struct Case {
        _dir: tempfile::TempDir,
        teacher: ModelFiles,
        student: ModelFiles,
        suite: Suite,
        pool: Pool,
    }

    fn case() -> Case {
        let dir = tempfile::tempdir().unwrap();
        let pool = Pool::new(2).unwrap();
        let [teacher, student] = teacher_and_student(dir.path(), &pool);
        let suites = fixtures::path("suites");
        let [prompts, corpus] = ["unseen-training.jsonl", "unseen-training.corpus.jsonl"].map(|name| suites.join(name));
        let suite = Suite::open(&prompts, &corpus).unwrap();
        Case { _dir: dir, teacher, student, suite, pool }
    }

    impl Case {
        fn practice(&self, rule: PolicyRule) -> Practice<'_> {
            let options = GrpoOptions { prompts: 4, max_new_tokens: 24, rule, ..GrpoOptions::default() };
            Practice::new([&self.student, &self.teacher], &self.suite, options, 0, &self.pool).unwrap()
        }

        fn model(&self) -> TrainModel<'_> {
            TrainModel::new(&self.student, &[Group::Norms, Group::SharedExperts], &self.pool).unwrap()
        }
    }

    /// Moves the values of a model against its gradients, all together by a length of 0.02.
    fn descend(model: &mut TrainModel<'_>) {
        let squares: f32 = model.weights.params.list().iter().flat_map(|p| &p.gradient).map(|g| g * g).sum();
        let rate = 0.02 / squares.sqrt();
        for param in model.weights.params.list_mut() {
            param.values.iter_mut().zip(&param.gradient).for_each(|(value, g)| *value -= rate * g);
        }
    }

    /// The sum of the answers' gains in log probability, each times `weight`.
    fn gain(model: &TrainModel<'_>, kept: &[Kept], weight: impl Fn(&Kept) -> f64) -> f64 {
        let now = log_probabilities(model, kept).unwrap();
        let of_answer = |(answer, now): (&Kept, &Vec<f64>)| -> f64 {
            weight(answer) * now.iter().zip(&answer.old).map(|(now, old)| now - old).sum::<f64>()
        };
        kept.iter().zip(&now).map(of_answer).sum()
    }

    #[test]
    fn a_step_makes_answers_above_the_mean_of_their_group_likelier_than_those_below() {
        let case = case();
        let practice = case.practice(PolicyRule::Grpo);
        let mut model = case.model();
        let (mut kept, figures) = practice.sample(&model, 0).unwrap();
        practice.score(&model, &mut kept).unwrap();
        assert!(kept.len() == 4 * (figures.groups - figures.dropped) && !kept.is_empty());
        assert!(divergence(&kept).unwrap().abs() < 1e-9, "nothing has changed yet");
        practice.gradients(&mut model, &kept, 0.0).unwrap();
        descend(&mut model);
        let total = gain(&model, &kept, |answer| answer.advantage);
        assert!(total > 0.1, "{total}");
        practice.score(&model, &mut kept).unwrap();
        assert!(divergence(&kept).unwrap() > 1e-6, "the student has moved away from itself");
    }

    #[test]
    fn the_supervised_control_takes_the_same_samples_and_learns_those_above_the_mean() {
        let case = case();
        let (practice, of_grpo) = (case.practice(PolicyRule::Supervised), case.practice(PolicyRule::Grpo));
        let mut model = case.model();
        let (mut kept, figures) = practice.sample(&model, 0).unwrap();
        let (all, same) = of_grpo.sample(&model, 0).unwrap();
        assert_eq!(figures, same, "groups, rewards and tokens do not depend on the rule");
        let tokens = |kept: &[Kept]| kept.iter().map(|answer| answer.completion.tokens.clone()).collect::<Vec<_>>();
        let above: Vec<Kept> = all.into_iter().filter(|answer| answer.advantage > 0.0).collect();
        assert!(!kept.is_empty() && tokens(&kept) == tokens(&above));

        practice.score(&model, &mut kept).unwrap();
        let (loss, n) = practice.gradients(&mut model, &kept, 0.0).unwrap();
        let entropy = kept.iter().flat_map(|answer| &answer.old).map(|log| -log).sum::<f64>() / n as f64;
        assert!((loss - entropy).abs() < 1e-4 * entropy, "cross entropy with the answers: {loss} {entropy}");
        descend(&mut model);
        let total = gain(&model, &kept, |_| 1.0);
        assert!(total > 0.1, "{total}");
    }

    /// The answers and routes of a prompt that is read once for all of them.
    #[test]
    fn answers_are_those_of_the_gates_and_routes_those_of_the_whole_text() {
        let case = case();
        let practice = case.practice(PolicyRule::Grpo);
        let id = case.teacher.identity(&mut |_, _| {}).unwrap();
        let mut subject = ModelSubject::load(&case.teacher, id, &practice.load, CacheType::F32).unwrap();
        let teacher = practice.respondent(practice.teacher.clone());
        for asked in &practice.prompts[..2] {
            assert_eq!(subject.encode(&asked.prompt.system, &asked.prompt.user).unwrap(), asked.tokens);
            let reading = teacher.read(&asked.tokens).unwrap();
            let samplers = [SamplerConfig::greedy(), SamplerConfig { seed: 7, ..SamplerConfig::default() }];
            let answers = samplers.map(|sampler| reading.answer(sampler).unwrap());
            assert_eq!(answers[0].answer, subject.generate(&asked.tokens, 24).unwrap());
            for answer in answers {
                let run = subject.run(&answer.tokens, &Want::default(), &mut |_, _| {}).unwrap();
                let ids = run.routing.ids.chunks_exact(answer.tokens.len() * practice.top_k);
                let behind: Vec<&[u32]> = ids.map(|ids| &ids[(answer.prompt - 1) * practice.top_k..]).collect();
                let experts = reading.experts(&answer).unwrap();
                let routed: Vec<&[u32]> = experts.iter().map(Vec::as_slice).filter(|ids| !ids.is_empty()).collect();
                assert!(routed == behind && !routed.is_empty());
            }
        }
    }
}
