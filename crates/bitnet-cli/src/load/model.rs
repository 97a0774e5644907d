//! Loading an opened model: the choice of kernels, and a warning where one failed its self-test.

use std::sync::Arc;

use anyhow::Result;
use moe_runtime::{CraftsmanModel, LoadOptions, ModelFiles};
use ternary_core::ActMode;
use tl_kernels::{KernelKind, KernelSelected, Pool, SelectorOptions};

use super::trials;
use crate::args::Act;
use crate::output;

/// How an opened model is loaded, with `act` in place of its own activations: kernels are chosen by a trial that is remembered
/// in the user's cache directory. With `allow_zero` it may lack weights.
pub(crate) fn options(
    files: &ModelFiles,
    act: Option<ActMode>,
    kernel: Option<KernelKind>,
    allow_zero: bool,
    pool: Arc<Pool>,
) -> LoadOptions {
    let kernels = SelectorOptions { kernel, trial: Some(trials::recall(files)) };
    LoadOptions { act_mode: act, allow_zero, pool, kernels, ..LoadOptions::default() }
}

/// How an opened model is loaded for a measurement: with the activations asked for, else as the model was trained, in
/// floating point, else with F32.
pub(crate) fn measured(files: &ModelFiles, asked: Option<Act>, allow_zero: bool, pool: Arc<Pool>) -> LoadOptions {
    let act = asked.map(Act::into).or(files.config.trained_act).unwrap_or(ActMode::F32);
    LoadOptions { float_products: asked.is_none(), ..options(files, Some(act), None, allow_zero, pool) }
}

/// Loads an opened model, and warns of kernels that failed their self-test.
pub(crate) fn load(files: &ModelFiles, options: &LoadOptions) -> Result<CraftsmanModel> {
    load_with_progress(files, options, &mut |_, _| {})
}

/// As [`load`]; `progress` gets the bytes done and their total while a file of tiles is made.
pub(super) fn load_with_progress(
    files: &ModelFiles,
    options: &LoadOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<CraftsmanModel> {
    let model = load_without_warnings(files, options, progress)?;
    note_zeros(files, options)?;
    model.kernels().iter().filter_map(self_test_warning).for_each(output::note);
    Ok(model)
}

/// Refuses a model without weights, as loading it would.
pub(crate) fn refuse_zeros(files: &ModelFiles) -> Result<()> {
    Ok(files.weightless()?.refuse(files.path())?)
}

/// Notes the missing weights of a model that was loaded in spite of them.
pub(crate) fn note_zeros(files: &ModelFiles, options: &LoadOptions) -> Result<()> {
    if options.allow_zero {
        let missing = files.weightless()?;
        let path = files.path().display();
        missing.tails.iter().for_each(|tail| output::note(format_args!("notice: {}: {tail}", tail.path.display())));
        missing.tensors.iter().for_each(|tensor| output::note(format_args!("notice: {path}: {tensor}")));
    }
    Ok(())
}

/// Loads an opened model and keeps the results of its kernel trials. The caller reports the kernels that failed their
/// self-test.
pub(crate) fn load_without_warnings(
    files: &ModelFiles,
    options: &LoadOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<CraftsmanModel> {
    let model = CraftsmanModel::from_files_with_progress(files, options, progress)?;
    keep_trials(files, options);
    Ok(model)
}

/// Keeps the results of the kernel trials of a model that was loaded with `options`, for the next start.
pub(crate) fn keep_trials(files: &ModelFiles, options: &LoadOptions) {
    if let Some(memory) = &options.kernels.trial {
        trials::keep(files, memory);
    }
}

/// The warning about a kernel that failed its self-test and was replaced; `None` for one that passed.
pub(crate) fn self_test_warning(choice: &KernelSelected) -> Option<String> {
    let reason = choice.refused.first()?;
    let KernelSelected { weights, kernel, isa, .. } = choice;
    Some(format!(
        "warning: a kernel failed its self-test ({reason}); {weights} runs on the {isa} {kernel} kernel instead. Results \
         are right, speed is lost: please report the output of `bitnet doctor --model FILE`"
    ))
}
