//! `eval_gates`: decides whether a student passes the behavioural gates.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use behavior_eval::gates::{BehavioralGate, GateThresholds};
use behavior_eval::model::{ModelError, Subject};
use behavior_eval::records::artifact::Columns;
use behavior_eval::report::{GateReport, write_files};
use behavior_eval::run::{GateRun, GateRunConfig, Stage};
use behavior_eval::suite::Suite;
use mla_attention::CacheType;
use moe_runtime::{LoadOptions, ModelFiles};
use pyo3::prelude::*;
use rlm_refine::measure::{ModelSubject, subject_info};
use rlm_refine::train::refuse_taught;
use ternary_core::ActMode;
use tl_kernels::Pool;

use crate::errors::{sentence, usage};
use crate::options::{act, kv, locate, pool};
use crate::worker::{Reporter, run_job};

/// The settings of a run.
#[derive(Clone, Debug, FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct GateArgs {
    teacher: PathBuf,
    student: PathBuf,
    suite: PathBuf,
    corpus: PathBuf,
    artifacts: PathBuf,
    report: Option<PathBuf>,
    strict: bool,
    thresholds: Vec<(String, f64)>,
    min_prompts: Option<u64>,
    router_inputs: bool,
    max_new_tokens: usize,
    act: String,
    kv: String,
    allow_zero: bool,
    threads: Option<usize>,
}

/// How a model computes.
#[derive(Clone, Copy)]
struct Compute {
    act: ActMode,
    kv: CacheType,
}

/// Runs the gates and returns the report as JSON, and whether the student passed.
#[pyfunction]
pub(crate) fn eval_gates(py: Python<'_>, args: GateArgs, on_progress: Option<Py<PyAny>>) -> PyResult<(String, bool)> {
    let mut thresholds = GateThresholds::default();
    for (gate, value) in &args.thresholds {
        let gate: BehavioralGate =
            gate.parse().map_err(|error: behavior_eval::gates::GateError| usage(error.to_string()))?;
        thresholds.set(gate, *value).map_err(|error| usage(error.to_string()))?;
    }
    thresholds.min_samples = args.min_prompts.unwrap_or(thresholds.min_samples);
    let config = GateRunConfig {
        max_new_tokens: args.max_new_tokens,
        strict: args.strict,
        thresholds,
        // The words of the command line, so that both use the recordings of each other.
        compute: format!("activations {}, cache {}", args.act, args.kv),
        teacher_compute: "activations f32, cache f32".to_owned(),
        columns: Columns { router_inputs: args.router_inputs, ..Columns::default() },
        ..GateRunConfig::default()
    };
    let student = Compute { act: act(&args.act)?, kv: kv(&args.kv)? };
    let paths = [locate(&args.teacher)?, locate(&args.student)?];
    let pool = pool(args.threads)?;
    let work = move |reporter: &Reporter| measure(&args, (config, student), &paths, &pool, reporter);
    let report = run_job(py, on_progress.as_ref(), work)?.map_err(sentence)?;
    Ok((report.json(), report.passed()))
}

/// Runs the teacher where its recordings are missing, then the student; one of them is in memory at a time.
fn measure(
    args: &GateArgs,
    (config, compute): (GateRunConfig, Compute),
    [teacher, student]: &[PathBuf; 2],
    pool: &Arc<Pool>,
    reporter: &Reporter,
) -> Result<GateReport, ModelError> {
    let suite = Suite::open(&args.suite, &args.corpus)?;
    let student = Side::open(student, "reading the student", args.allow_zero, reporter)?;
    refuse_taught(&student.files, suite.identity())?;
    let teacher = Side::open(teacher, "reading the teacher", args.allow_zero, reporter)?;
    let suite_name = args.suite.file_stem().map_or_else(|| "suite".into(), |name| name.to_string_lossy());
    let artifacts = gguf_bitnet::link_target(&args.artifacts)?;
    let folder = args.report.as_deref().map(gguf_bitnet::link_target).transpose()?;
    let run = GateRun::new(&suite, &suite_name, &artifacts, config)?;
    let mut tell = |stage: Stage, done: usize, total: usize| reporter.tell(stage.name(), done as u64, total as u64);
    let options = |act: ActMode| LoadOptions {
        act_mode: Some(act),
        allow_zero: args.allow_zero,
        pool: pool.clone(),
        ..LoadOptions::default()
    };
    let mut load = || -> Result<Box<dyn Subject>, ModelError> {
        let reference = Compute { act: ActMode::F32, kv: CacheType::F32 };
        Ok(Box::new(teacher.load(&options(reference.act), reference.kv)?))
    };
    let recorded = run.record_teacher(&subject_info(&teacher.files, teacher.id.clone())?, &mut load, &mut tell)?;
    let mut subject = student.load(&options(compute.act), compute.kv)?;
    let start = Instant::now();
    let measured = run.measure_student(&recorded, &mut subject, &mut || start.elapsed().as_secs_f64(), &mut tell)?;
    let mut report = run.report(&recorded, &measured, None)?;
    report.run.seconds = measured.seconds();
    report.run.seconds_per_prompt = measured.seconds() / (report.suite.prompts as f64).max(1.0);
    report.run.threads = pool.threads();
    report.run.teacher_reused = recorded.reused;
    report.run.resumed_prompts = measured.resumed();
    if let Some(folder) = &folder {
        write_files(&mut report, folder)?;
    }
    // This comes last, so that after a failure above the same call finds the answers of the student again.
    measured.discard()?;
    Ok(report)
}

/// An opened model and its identity.
struct Side {
    files: ModelFiles,
    id: String,
}

impl Side {
    fn open(path: &Path, what: &'static str, allow_zero: bool, reporter: &Reporter) -> Result<Side, ModelError> {
        let files = ModelFiles::open(path)?;
        if !allow_zero {
            files.weightless()?.refuse(files.path())?;
        }
        let id = files.identity(&mut |done, total| reporter.tell(what, done, total))?;
        Ok(Side { files, id })
    }

    fn load(&self, options: &LoadOptions, kv: CacheType) -> Result<ModelSubject, ModelError> {
        Ok(ModelSubject::load(&self.files, self.id.clone(), options, kv)?)
    }
}
