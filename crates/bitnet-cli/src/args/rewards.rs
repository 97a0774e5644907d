//! `--grpo` and what goes with it: steps on the rewards of sampled answers.

use std::path::PathBuf;

use anyhow::Result;
use behavior_eval::suite::Suite;
use clap::ValueEnum;
use rlm_refine::adapt::{GrpoOptions, PolicyRule};

use super::{SUITE_FILE, path_not_stream, whole};

#[derive(clap::Args)]
pub(crate) struct RewardArgs {
    /// Take N steps on the rewards of answers to --grpo-suite, in place of steps on the divergence from the teacher
    #[arg(long, value_name = "N", value_parser = whole::<usize>(1..=u64::from(u32::MAX)), requires_all = ["grpo_suite", "grpo_corpus"], conflicts_with_all = ["steps", "tokens"])]
    pub(super) grpo: Option<usize>,
    /// The prompts to practise on, one JSON object per line; one of 8 is held out
    #[arg(long, value_name = "FILE", requires = "grpo", value_parser = path_not_stream(SUITE_FILE))]
    grpo_suite: Option<PathBuf>,
    /// The chunks of text that these prompts quote, one JSON object per line
    #[arg(long, value_name = "FILE", requires = "grpo", value_parser = path_not_stream(SUITE_FILE))]
    grpo_corpus: Option<PathBuf>,
    /// Prompts of a step
    #[arg(long, value_name = "N", default_value_t = GrpoOptions::default().prompts, requires = "grpo", value_parser = whole::<usize>(1..=1 << 12))]
    grpo_prompts: usize,
    /// Answers that are sampled per prompt
    #[arg(long, value_name = "N", default_value_t = GrpoOptions::default().group, requires = "grpo", value_parser = whole::<usize>(4..=1 << 10))]
    grpo_group: usize,
    /// The rule by which answers become steps
    #[arg(long, value_enum, value_name = "RULE", default_value = "grpo", requires = "grpo")]
    grpo_rule: RuleName,
}

#[derive(Clone, Copy, ValueEnum)]
enum RuleName {
    /// Advantages within groups of answers, a clipped ratio, a penalty on the divergence
    Grpo,
    /// Cross entropy on the answers above the mean of their group, as a control
    Supervised,
    /// Every reward is 0, as a control: no number changes
    ZeroRewards,
}

impl RewardArgs {
    /// The settings of the rewards, if there are any.
    pub(super) fn options(&self) -> Option<GrpoOptions> {
        self.grpo?;
        let rule = match self.grpo_rule {
            RuleName::Grpo => PolicyRule::Grpo,
            RuleName::Supervised => PolicyRule::Supervised,
            RuleName::ZeroRewards => PolicyRule::ZeroRewards,
        };
        Some(GrpoOptions { prompts: self.grpo_prompts, group: self.grpo_group, rule, ..GrpoOptions::default() })
    }

    /// The suite to practise on, if there is one.
    pub(super) fn suite(&self) -> Result<Option<Suite>> {
        let paths = self.grpo.and(self.grpo_suite.as_deref().zip(self.grpo_corpus.as_deref()));
        Ok(paths.map(|(suite, corpus)| Suite::open(suite, corpus)).transpose()?)
    }
}
