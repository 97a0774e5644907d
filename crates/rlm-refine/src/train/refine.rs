//! The job that refines a student: training, then the student's file with the trained values, or the trained adapter.
//!
//! **Invariant:** the bytes of the output follow from both models, the windows and the settings in the manifest, so a job
//! that was killed at any moment ends with the same bytes.

use std::io;
use std::path::{Path, PathBuf};

use behavior_eval::suite::Suite;
use gguf_bitnet::{GgufWriter, Job, Metadata, output_path, require_space};
use moe_runtime::ModelFiles;
use serde::Serialize;
use serde_json::json;
use tl_kernels::Pool;

use super::adapter::{adapter_of, blake3_of, check_groups};
use super::distilled::announce_experts;
use super::error::TrainError;
use super::memory::{Run, TrainMemory};
use super::origin::refined_metadata;
use super::params::Group;
use super::product::Product;
use super::protection::{Protected, ProtectionReport};
use super::repair::{RouterMethod, RouterRepair};
use super::source::Source;
use super::taught::add_taught_suites;
use super::trainer::{StepReport, TrainOptions, Trainer};
use super::weights::changed_share;
use super::write::check_routers;
use crate::adapt::{GrpoOptions, HeldOutRewards, Practice};
use crate::error::{Error, Result};
use crate::ptq::Calibration;

/// The least distance of a latent weight from the edge of its trit at the start, in units of its scale.
pub(super) const LATENT_MARGIN: f32 = 0.02;

/// The stage of a job and how far it is.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum RefineProgress {
    /// The most memory that the run will hold, once nothing refuses it any more.
    Memory(TrainMemory),
    /// Bytes of both models read, and in all.
    Hash(u64, u64),
    /// A step is done.
    Step(StepReport),
    /// Bytes of the output written, and in all.
    Write(u64, u64),
}

/// The callback of a job.
pub type OnRefineProgress<'a> = dyn FnMut(RefineProgress) + 'a;

/// The outcome of a job.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RefineReport {
    /// Steps and tokens of the run.
    pub steps: usize,
    /// The number of tokens that were trained on.
    pub tokens: u64,
    /// Numbers that were trained, by group; a repair of the routers does not count.
    pub trained: Vec<(Group, usize)>,
    /// Mean divergence on the held-out windows before the first step, and behind the last; `None` without such windows.
    pub held_out_kl: [Option<f64>; 2],
    /// For distillation, the share of trits that are others than before.
    pub changed_trits: Option<f64>,
    /// The repair of the routers; `None` where they stay.
    pub repair: Option<RouterRepair>,
    /// The effect on protected texts; `None` where there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protection: Option<ProtectionReport>,
    /// The rewards on prompts that are held out; `None` where no answers were rewarded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rewards: Option<HeldOutRewards>,
    /// The share of groups that were dropped, because their rewards hardly differed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dropped_groups: Option<f64>,
    /// Size of the student or of the adapter.
    pub output_bytes: u64,
    /// The most memory that the run was to hold.
    pub memory: TrainMemory,
}

/// A student, its teacher and the texts, opened and checked.
#[derive(Debug)]
pub struct Refiner<'a> {
    student: &'a ModelFiles,
    source: Source<'a>,
    options: TrainOptions,
    pool: &'a Pool,
    protected: Option<&'a Calibration>,
    suite: Option<&'a Suite>,
}

impl<'a> Refiner<'a> {
    /// A job on opened models; reads no weights.
    #[must_use]
    pub fn new(
        student: &'a ModelFiles,
        teacher: &'a ModelFiles,
        calibration: &'a Calibration,
        options: TrainOptions,
        pool: &'a Pool,
    ) -> Self {
        Self::on(student, Source::Texts { teacher, calibration }, options, pool)
    }

    /// A job on an opened student and what it learns from; reads no weights.
    #[must_use]
    pub fn on(student: &'a ModelFiles, source: Source<'a>, options: TrainOptions, pool: &'a Pool) -> Self {
        Self { student, source, options, pool, protected: None, suite: None }
    }

    /// The same job with texts that it leaves as they are, as far as the penalty of its options says.
    #[must_use]
    pub fn protecting(mut self, texts: &'a Calibration) -> Self {
        self.protected = Some(texts);
        self
    }

    /// The same job with steps on the rewards of answers to a suite, where its options ask for them.
    #[must_use]
    pub fn practising(mut self, suite: &'a Suite) -> Self {
        self.suite = Some(suite);
        self
    }

    /// The most memory that the job will hold, within the limit of its options.
    ///
    /// # Errors
    /// [`TrainError::Memory`] where the limit is too low; scales or trits of a type in which they are not trained.
    pub fn memory(&self) -> Result<TrainMemory> {
        let run = Run {
            student: self.student,
            source: &self.source,
            options: &self.options,
            protected: self.protected.filter(|_| self.options.ewc.is_some()).map_or(&[], Calibration::windows),
            has_rewards: self.practised().is_some(),
            threads: self.pool.threads(),
        };
        Ok(TrainMemory::plan(&run, self.options.max_memory_bytes)?)
    }

    /// The suite whose answers are rewarded, and how.
    fn practised(&self) -> Option<(&'a Suite, GrpoOptions)> {
        self.suite.zip(self.options.grpo)
    }

    /// The practice of the run, with the prompts read and the teacher loaded.
    fn practice(&self) -> Result<Option<Practice<'a>>> {
        let Some((suite, options)) = self.practised() else { return Ok(None) };
        let teacher = self.source.checkpoint("rewards of answers")?;
        Practice::new([self.student, teacher], suite, options, self.options.seed, self.pool).map(Some)
    }

    /// Writes the refined student, or the trained adapter, to `out`, or continues an earlier call that was stopped. `log` receives
    /// a JSON line per step, and the curve beside it. Where trits were trained, the events `ExpertDistilled` and
    /// `DistillationPhaseComplete` have the outcome.
    ///
    /// # Errors
    /// An existing `out` without `force`, an `out` or a log that belongs to a model, models that do not fit each other, a number
    /// that is not finite (the state before it stays), too little disk.
    pub fn run(
        &self,
        out: &Path,
        force: bool,
        log: Option<&Path>,
        progress: &mut OnRefineProgress<'_>,
    ) -> Result<RefineReport> {
        Job::check(out, force)?;
        self.check_outputs(out, log)?;
        self.check_adapter()?;
        let memory = self.memory()?;
        let mut trainer = Trainer::new(self.student, &self.source, self.options.clone(), self.pool)?;
        trainer.hold(memory.keeps_activations, memory.keeps_pages);
        let product = self.check(&trainer)?;
        let practice = self.practice()?;
        progress(RefineProgress::Memory(memory.clone()));
        if self.options.groups.contains(&Group::LatentTrits) {
            trainer.model.weights.start_latents(self.source.checkpoint("training of trits")?, LATENT_MARGIN)?;
        }
        let identities =
            self.source.identities(self.student, &mut |done, total| progress(RefineProgress::Hash(done, total)))?;
        let mut writer = GgufWriter::new(&self.metadata(&product, &identities)?, product.tensors().to_vec())?;
        let output_bytes = writer.file_bytes();
        let mut job = Job::open(out, &self.manifest(&identities, output_bytes), force)?;
        let states = job.states();
        let protected = self.protect(&mut trainer)?;
        let rewards_before = practice.map(|practice| trainer.practise(practice)).transpose()?;
        // A job that was stopped while it was committed still has its last state, which the report needs.
        trainer.restore(&states);
        if !job.is_committed() {
            require_space(
                out,
                output_bytes.saturating_sub(job.data_len()).saturating_add(trainer.bytes_of_states(&states)),
            )?;
            if job.units().is_empty() {
                job.append(json!({ "header": true }), |to| writer.begin(to).map_err(io::Error::other))?;
            } else {
                writer.resume(job.data_len())?;
            }
            self.train(&mut trainer, &states, log, progress)?;
            let repair = trainer.repair()?;
            if job.units().len() == 1 {
                job.append(json!({ "repair": repair }), |_| Ok(()))?;
            }
            self.write(&trainer, &mut writer, &mut job, progress)?;
            let report = gguf_bitnet::verify(&job.data_path(), &mut |_, _| {})?;
            if let Some(defect) = report.defects.first() {
                return Err(Error::NotAsPlanned { defect: defect.to_string() });
            }
        }
        // A run that was stopped behind its last state, or that got another log, has none of it yet.
        if let Some(log) = log {
            trainer.history.write(log)?;
        }
        // Weights that cannot be read must stop the job in front of its commit.
        let changed = trainer.model.weights.changed_matrices()?;
        let mut report = self.report(&trainer, repair_of(&job), output_bytes, memory);
        report.changed_trits = changed_share(&changed);
        let rewards_after = trainer.rewards()?;
        report.rewards = rewards_before.zip(rewards_after).map(|(before, after)| before.compare(&after));
        report.protection = protected.map(|protected| protected.report(&trainer)).transpose()?;
        job.commit(out)?;
        if self.options.groups.contains(&Group::LatentTrits) {
            announce_experts(&changed);
            announce_phase(&report);
        }
        Ok(report)
    }

    /// Refuses what the options ask for and the models or the source do not allow, before any weights of the teacher are read for it.
    fn check(&self, trainer: &Trainer<'_>) -> Result<Product<'a>> {
        let has_trits = self.options.groups.contains(&Group::LatentTrits);
        for (is_asked, what) in [
            (self.practised().is_some(), "rewards of answers"),
            (has_trits, "training of trits"),
            (self.options.repair.is_some(), "a repair of routers"),
            (self.options.router_loss > 0.0, "a term of the routers"),
        ] {
            if is_asked {
                self.source.checkpoint(what)?;
            }
        }
        let product = Product::of(self.student, &trainer.model.weights, self.options.adapter.as_deref())?;
        if self.options.repair.is_some() {
            check_routers(self.student)?;
        }
        Ok(product)
    }

    /// Refuses an adapter beside anything that would change the model that it belongs to, or that the gates would not know of.
    fn check_adapter(&self) -> Result<(), TrainError> {
        let o = &self.options;
        let is_asked = o.groups.iter().any(|group| group.is_of_adapter());
        if is_asked || o.adapter.is_some() {
            check_groups(&o.groups, o.adapter.as_deref())?;
        }
        let others = [
            (!o.groups.iter().all(|group| group.is_of_adapter()), "other groups"),
            (o.repair.is_some(), "--repair-routers"),
            (self.practised().is_some(), "--grpo"),
            (matches!(self.source, Source::Recordings(_)), "--artifact"),
        ];
        match others.into_iter().find(|(is_given, _)| is_asked && *is_given) {
            Some((_, what)) => Err(TrainError::AdapterAlone { what }),
            None => Ok(()),
        }
    }

    /// Measures the protected windows on the student as it is before its first step.
    fn protect(&self, trainer: &mut Trainer<'_>) -> Result<Option<Protected>> {
        let Some(texts) = self.protected.filter(|_| self.options.ewc.is_some()) else { return Ok(None) };
        Ok(Some(Protected::measure(trainer, texts.windows())?))
    }

    /// Refuses outputs that would replace a model or each other.
    fn check_outputs(&self, out: &Path, log: Option<&Path>) -> Result<()> {
        let is_model = |path: &Path| self.student.holds(path) || self.source.holds(path);
        if is_model(out) {
            return Err(Error::OutputIsSource { path: out.display().to_string() });
        }
        let Some(log) = log else { return Ok(()) };
        let (out, curve) = (output_path(out)?, log.with_extension("svg"));
        for path in [log, &curve] {
            if is_model(path) || output_path(path)? == out || log == curve {
                return Err(TrainError::LogIsModel { path: path.display().to_string() }.into());
            }
        }
        Ok(())
    }

    fn train(
        &self,
        trainer: &mut Trainer<'_>,
        states: &dyn Fn(usize) -> PathBuf,
        log: Option<&Path>,
        progress: &mut OnRefineProgress<'_>,
    ) -> Result<()> {
        while trainer.steps() < self.options.steps {
            progress(RefineProgress::Step(trainer.step(states)?));
            if trainer.is_at_checkpoint() {
                trainer.save(states)?;
                if let Some(log) = log {
                    trainer.history.write(log)?;
                }
            }
        }
        Ok(())
    }

    /// Appends the units of the file that the job lacks.
    fn write(
        &self,
        trainer: &Trainer<'_>,
        writer: &mut GgufWriter,
        job: &mut Job,
        progress: &mut OnRefineProgress<'_>,
    ) -> Result<()> {
        // A repair has added routers to what is trained.
        let product = Product::of(self.student, &trainer.model.weights, self.options.adapter.as_deref())?;
        // The first units of the job are the header and the report of the repair.
        for unit in product.units().skip(job.units().len() - 2) {
            let bytes = product.bytes(self.pool, &trainer.model.weights, &unit)?;
            job.append(json!({ "tensor": unit.tensor }), |to| {
                writer.write_tensor(to, unit.tensor, &bytes).map_err(io::Error::other)
            })?;
            progress(RefineProgress::Write(job.data_len(), writer.file_bytes()));
        }
        Ok(())
    }

    /// The settings that decide about the bytes.
    #[must_use]
    pub fn settings(&self) -> serde_json::Value {
        let o = &self.options;
        let mut settings = json!({
            "train": o.groups.iter().map(|group| group.name()).collect::<Vec<_>>(),
            "steps": o.steps,
            "windows_per_step": o.windows_per_step,
            "windows_at_a_time": o.windows_at_a_time,
            "lr": o.lr,
            "optimizer": format!("{:?}", o.optimizer.rule).to_lowercase(),
            "weight_decay": o.optimizer.adamw.weight_decay,
            "clip": o.clip,
            "kl": o.loss.kl,
            "ce": o.loss.ce,
            "soft_share": o.soft_share,
            "repair_routers": o.repair.map(RouterMethod::name),
            "reward_scale": o.reward_scale,
            "focus": o.focus,
            "seed": o.seed,
        });
        if let Some((ewc, texts)) = o.ewc.zip(self.protected) {
            settings["ewc"] = json!({ "options": ewc, "texts_blake3": texts.blake3 });
        }
        if let Some((suite, grpo)) = self.practised() {
            settings["grpo"] = json!({ "options": grpo, "suite_blake3": suite.identity() });
        }
        if o.router_loss > 0.0 {
            settings["router_loss"] = o.router_loss.into();
        }
        if let Some(adapter) = &o.adapter {
            settings["adapter"] = blake3_of(adapter).into();
        }
        settings
    }

    fn manifest(&self, [student, teacher]: &[String; 2], output_bytes: u64) -> serde_json::Value {
        json!({
            "job": "refine",
            "tool_version": env!("CARGO_PKG_VERSION"),
            "student_blake3": student,
            "teacher_blake3": teacher,
            "calibration_blake3": self.source.blake3(),
            "settings": self.settings(),
            "checkpoint_steps": self.options.checkpoint_steps,
            "eval_steps": self.options.eval_steps,
            "output_bytes": output_bytes,
        })
    }

    /// The metadata of the file with the origin of the trained values. A verdict of gates was about the student before.
    fn metadata(&self, product: &Product<'_>, [student, teacher]: &[String; 2]) -> Result<Metadata> {
        let Product::Student(file, _) = product else {
            let mut metadata = adapter_of(self.student, Some(student)).metadata();
            metadata.insert("craftsman.provenance.teacher_blake3", teacher.as_str());
            metadata.insert("craftsman.provenance.refinement_blake3", self.source.blake3());
            metadata.insert("craftsman.provenance.refinement", self.settings().to_string());
            return Ok(metadata);
        };
        let has_trits = self.options.groups.contains(&Group::LatentTrits);
        let mut metadata = refined_metadata(file, &self.source, [student, teacher], &self.settings(), has_trits)?;
        add_taught_suites(&mut metadata, self.practised().map(|(suite, _)| suite.identity()).into_iter())?;
        Ok(metadata)
    }

    fn report(
        &self,
        trainer: &Trainer<'_>,
        repair: Option<RouterRepair>,
        output_bytes: u64,
        memory: TrainMemory,
    ) -> RefineReport {
        let params = &trainer.model.weights.params;
        let numbers = |group| params.list().iter().filter(|p| p.group == group).map(|p| p.values.len()).sum::<usize>();
        let groups = Group::ALL.into_iter().filter(|group| self.options.groups.contains(group));
        let trained = groups.map(|group| (group, numbers(group))).filter(|(_, n)| *n > 0);
        let points = &trainer.history.points;
        RefineReport {
            steps: trainer.steps(),
            tokens: points.last().map_or(0, |point| point.tokens),
            trained: trained.collect(),
            held_out_kl: [points.first().and_then(|point| point.held_out_kl), trainer.history.held_out_kl()],
            changed_trits: None,
            repair,
            protection: None,
            rewards: None,
            dropped_groups: trainer.history.dropped_groups(),
            output_bytes,
            memory,
        }
    }
}

/// The event at the end of a distillation.
fn announce_phase(report: &RefineReport) {
    let [held_out_kl_before, held_out_kl] = report.held_out_kl;
    tracing::info!(
        name: "DistillationPhaseComplete",
        steps = report.steps,
        tokens = report.tokens,
        held_out_kl_before,
        held_out_kl,
        changed_trits = report.changed_trits,
        output_bytes = report.output_bytes,
        "DistillationPhaseComplete"
    );
}

/// The report of the repair, as an earlier call may have recorded it.
fn repair_of(job: &Job) -> Option<RouterRepair> {
    job.units().iter().find_map(|unit| serde_json::from_value(unit.payload.get("repair")?.clone()).ok())
}
