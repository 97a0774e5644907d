//! The options of the verbs that train a student: models, texts, what is trained and how long.

use std::path::{Path, PathBuf};

use anyhow::Result;
use behavior_eval::suite::Suite;
use clap::ValueEnum;
use clap::builder::NonEmptyStringValueParser;
use moe_runtime::ModelFiles;
use rlm_refine::ptq::{Calibration, WindowOptions};
use rlm_refine::train::optim::{OptimizerOptions, Rule};
use rlm_refine::train::{Group, LossOptions, RouterMethod, SequentialOptions, TrainOptions};
use tl_kernels::Pool;

use super::protection::ProtectionArgs;
use super::rewards::RewardArgs;
use super::{ModelArg, STORE, Threads, positive, whole};
use crate::load;

const ARTIFACT: &str = "it is read at several places: write the name of a file";

/// Tokens of a window.
pub(crate) const WINDOW_TOKENS: usize = 256;
/// Windows of a step unless the options say otherwise.
pub(crate) const STEP_WINDOWS: usize = 4;
/// Most tokens of the texts that are used unless the options say otherwise.
pub(crate) const TEXT_TOKENS: usize = 1 << 20;
/// The highest rate of matrices unless the options say otherwise.
pub(crate) const RATE: f32 = 5e-4;

#[derive(clap::Args)]
pub(crate) struct TrainingArgs {
    #[command(flatten)]
    pub(crate) model: ModelArg,
    /// The teacher: model directory, GGUF file, or name in the local Hugging Face cache
    #[arg(long, value_name = "MODEL", value_parser = NonEmptyStringValueParser::new(), required_unless_present = "artifact")]
    pub(crate) teacher: Option<String>,
    /// The GGUF to write
    #[arg(short, long, value_name = "FILE", required = true, value_parser = super::path_not_stream(super::MODEL_OUT))]
    out: Option<PathBuf>,
    /// A text to train on: plain, or one JSON object with `messages` per line
    #[arg(long, value_name = "FILE", required_unless_present = "artifact", value_parser = NonEmptyStringValueParser::new())]
    calibration: Vec<String>,
    /// Learn from this recording of the teacher's answers (artifact.bin) in place of texts; the teacher is not needed
    #[arg(long, value_name = "FILE", conflicts_with_all = ["teacher", "calibration", "exclude", "calibration_tokens", "repair_routers", "grpo"], value_parser = super::path_not_stream(ARTIFACT))]
    pub(crate) artifact: Option<PathBuf>,
    /// How strongly the loss follows a reward: with --artifact, 1 for an answer that fits the label of its prompt and -1 for
    /// another; with --teacher, 1 for a position whose experts' outputs point where the teacher's do and -0.5 where they do not
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = super::share, conflicts_with = "grpo")]
    reward: f32,
    /// Add the divergence of the routes from the teacher's to the loss, so many times, in every layer with experts
    #[arg(long, value_name = "FACTOR", value_parser = positive, conflicts_with_all = ["artifact", "grpo", "reward"])]
    router_loss: Option<f32>,
    /// Leave out windows that share 64 tokens in a row with this text
    #[arg(long, value_name = "FILE", value_parser = NonEmptyStringValueParser::new())]
    exclude: Vec<String>,
    /// Most tokens of the texts, which share them equally [default: 1048576]
    #[arg(long, value_name = "N", value_parser = whole::<usize>(1..=u64::MAX))]
    calibration_tokens: Option<usize>,
    /// The groups to train, separated by commas: router, scales, norms, shared, dense, attention, head, embedding, trits; or
    /// those of an adapter: adapter, sidecar
    #[arg(long, value_name = "GROUPS", value_delimiter = ',')]
    pub(crate) train: Vec<Group>,
    /// Steps of the run; 0 trains nothing and goes on to --repair-routers [default: as many as --tokens needs]
    #[arg(long, value_name = "N", value_parser = whole::<usize>(0..=u64::from(u32::MAX)), conflicts_with = "tokens")]
    steps: Option<usize>,
    /// Tokens of the run, of which each text may be seen more than once
    #[arg(long, value_name = "N", default_value_t = 400_000, value_parser = whole::<usize>(1..=u64::MAX))]
    tokens: usize,
    /// Windows of 256 tokens in a step
    #[arg(long, value_name = "N", default_value_t = STEP_WINDOWS, value_parser = whole::<usize>(1..=1 << 16))]
    windows: usize,
    /// Windows that are in memory at a time
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = whole::<usize>(1..=1 << 16))]
    windows_at_a_time: usize,
    /// Limit on the resident memory, mapped pages included, for example 16GB
    #[arg(long, value_name = "SIZE", value_parser = super::size)]
    max_memory: Option<u64>,
    /// Highest rate of matrices; norms and scales take 3 times as much, latent trits 5 times
    #[arg(long, value_name = "RATE", default_value_t = RATE, value_parser = positive)]
    lr: f32,
    /// The rule of the steps of matrices; all else takes AdamW
    #[arg(long, value_enum, default_value = "adamw")]
    optimizer: OptimizerName,
    /// Share of cross entropy with the text that is added to the divergence from the teacher
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = super::share)]
    ce: f32,
    /// Fit the routers to the teacher's choices behind the last step: ridge, kl, hinge or contrastive
    #[arg(long, value_name = "METHOD")]
    repair_routers: Option<RouterMethod>,
    #[command(flatten)]
    protection: ProtectionArgs,
    #[command(flatten)]
    rewards: RewardArgs,
    /// Seed of the order of windows
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Steps between two states on the disk, from which a stopped run continues
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = whole::<usize>(1..=u64::MAX))]
    checkpoint_steps: usize,
    /// Steps between two measurements on windows that are held out
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = whole::<usize>(1..=u64::MAX))]
    eval_steps: usize,
    /// Keep what the run teaches about the student in this store, which `bitnet lessons` shows
    #[arg(long, value_name = "FILE", value_parser = super::path_not_stream(STORE))]
    pub(crate) lessons: Option<PathBuf>,
    /// Take steps so many times as large for the scales and trits of the experts that the lessons name
    #[arg(long, value_name = "FACTOR", value_parser = positive, requires = "lessons")]
    pub(crate) focus: Option<f32>,
    /// Write one JSON line per step to this file, and the curve beside it as SVG
    #[arg(long, value_name = "FILE")]
    pub(crate) log: Option<PathBuf>,
    /// Replace an existing file
    #[arg(long)]
    pub(crate) force: bool,
    /// Print the report as JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) threads: Threads,
}

#[derive(Clone, Copy, ValueEnum)]
enum OptimizerName {
    /// Running means of gradients and of their squares
    Adamw,
    /// Orthogonal momentum, for the matrices of networks and attention
    Muon,
}

impl TrainingArgs {
    /// The GGUF to write; the options demand one wherever a GGUF is written.
    pub(crate) fn out(&self) -> &Path {
        self.out.as_deref().unwrap_or(Path::new(""))
    }

    /// The settings of a distillation of the experts one after the other.
    pub(crate) fn sequential(&self) -> SequentialOptions {
        let TrainOptions { steps, windows_per_step, lr, seed, .. } = self.options(&[], 0.0);
        SequentialOptions { steps, windows_per_step, lr, seed }
    }

    /// The texts, cut into windows by the student's tokenizer.
    pub(crate) fn windows(&self, student: &ModelFiles, pool: &Pool) -> Result<Calibration> {
        let windows = WindowOptions {
            window_tokens: WINDOW_TOKENS,
            max_tokens: self.calibration_tokens.unwrap_or(TEXT_TOKENS),
            ..WindowOptions::default()
        };
        Ok(Calibration::new(
            student,
            pool,
            &load::read_texts(&self.calibration)?,
            &load::read_texts(&self.exclude)?,
            windows,
        )?)
    }

    /// The texts that the run leaves as they are, if there are any.
    pub(crate) fn protected(&self, student: &ModelFiles, pool: &Pool) -> Result<Option<Calibration>> {
        self.protection.windows(student, pool, WINDOW_TOKENS)
    }

    /// The suite whose answers are rewarded, if there is one.
    pub(crate) fn suite(&self) -> Result<Option<Suite>> {
        self.rewards.suite()
    }

    /// The settings of the run; `groups` are trained unless the options say otherwise.
    pub(crate) fn options(&self, groups: &[Group], soft_share: f32) -> TrainOptions {
        let rule = match self.optimizer {
            OptimizerName::Adamw => Rule::AdamW,
            OptimizerName::Muon => Rule::Muon,
        };
        let mut groups = if self.train.is_empty() { groups.to_vec() } else { self.train.clone() };
        groups.sort_unstable();
        groups.dedup();
        let steps = self.rewards.grpo.or(self.steps);
        if steps == Some(0) {
            // Values that are not trained keep their bytes.
            groups.clear();
        }
        TrainOptions {
            groups,
            steps: steps.unwrap_or_else(|| self.tokens.div_ceil(self.windows * WINDOW_TOKENS)),
            windows_per_step: self.windows,
            windows_at_a_time: self.windows_at_a_time,
            lr: self.lr,
            optimizer: OptimizerOptions { rule, ..OptimizerOptions::default() },
            loss: LossOptions { kl: 1.0, ce: self.ce },
            seed: self.seed,
            checkpoint_steps: self.checkpoint_steps,
            eval_steps: self.eval_steps,
            soft_share,
            repair: self.repair_routers,
            ewc: self.protection.options(self.seed),
            grpo: self.rewards.options(),
            reward_scale: self.reward,
            max_memory_bytes: self.max_memory,
            router_loss: self.router_loss.unwrap_or(0.0),
            ..TrainOptions::default()
        }
    }

    /// The file that receives a line per step, if one is wanted.
    pub(crate) fn log(&self) -> Option<&Path> {
        self.log.as_deref()
    }
}
