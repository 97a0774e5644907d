//! The types that each class may have, their sizes, and the choice that fits a budget.

use gguf_bitnet::{GgufWriter, Metadata, TensorClass, TensorType};
use moe_runtime::ModelFiles;

use super::search::{Choice, ranked};
use super::table::{Candidate, ClassCandidates, PrecisionTable};
use crate::error::{Error, Result};
use crate::recipe::{Reason, Recipe, deciding_class};
use crate::student::StudentPlan;

/// The types, in ascending size.
const TYPES: [TensorType; 4] = [TensorType::Tq1_0, TensorType::Tq2_0, TensorType::Q6K, TensorType::Q8_0];
/// The classes; the first two are never ternary.
const CLASSES: [TensorClass; 6] = [
    TensorClass::Embedding,
    TensorClass::Head,
    TensorClass::Attention,
    TensorClass::DenseFfn,
    TensorClass::SharedExpert,
    TensorClass::RoutedExpert,
];
/// Files of two choices whose tensors have the same size differ by less: in the names of types in the recipe's line, and in
/// the keys that only a ternary student has.
const HEADER_DIFFERENCE: u64 = 1 << 10;

/// The classes of a model that have a choice, and a plan for each type.
#[derive(Debug)]
pub(crate) struct Candidates {
    recipe: Recipe,
    /// For each type, the plan in which every class has it that may.
    plans: Vec<(TensorType, StudentPlan)>,
    /// The classes, with errors of 0 until they are measured.
    pub(crate) table: PrecisionTable,
    /// Bytes of all other tensors.
    other_bytes: u64,
}

/// Returns the exact size of the file that a recipe gives, with a table in its metadata.
pub(crate) type FileBytes<'a> = dyn Fn(&Recipe, &PrecisionTable) -> Result<u64> + 'a;

impl Candidates {
    /// The candidates for the tensors that no override of `recipe` decides.
    pub(crate) fn new(files: &ModelFiles, recipe: &Recipe, target_bytes: u64, tokens: usize) -> Result<Self> {
        let plan = |ty: TensorType| {
            let of_class = |class| (class, if may_have(class, ty) { ty } else { TensorType::Q6K });
            let recipe = Recipe { classes: CLASSES.map(of_class).into(), ..recipe.clone() };
            Ok((ty, StudentPlan::of_source(files, &recipe)?))
        };
        let plans = TYPES.into_iter().map(plan).collect::<Result<Vec<_>>>()?;
        let mut classes = Vec::new();
        for class in CLASSES {
            let mut candidates = Vec::new();
            for (ty, plan) in plans.iter().filter(|(ty, plan)| may_have(class, *ty) && is_choice(plan, class, *ty)) {
                let bytes = bytes_of(plan, |of_tensor| of_tensor == class)?;
                candidates.push(Candidate { ty: *ty, bytes, error: 0.0, chosen: false });
            }
            if !candidates.is_empty() {
                classes.push(ClassCandidates { class, candidates });
            }
        }
        let has_choice = |class| classes.iter().any(|found| found.class == class);
        let other_bytes = plans.first().map_or(Ok(0), |(_, plan)| bytes_of(plan, |class| !has_choice(class)))?;
        let table = PrecisionTable { target_bytes, tokens, classes };
        Ok(Self { recipe: recipe.clone(), plans, table, other_bytes })
    }

    /// The types of a class whose errors are measured, with their plans. TQ1_0 is none: TQ2_0 holds the same trits and scales.
    pub(super) fn measured(&self, class: TensorClass) -> Vec<(TensorType, &StudentPlan)> {
        let found = self.table.classes.iter().filter(|found| found.class == class);
        let types = found.flat_map(|found| found.candidates.iter().map(|candidate| candidate.ty));
        let plan_of = |ty| self.plans.iter().find(|(of, _)| *of == ty).map(|(_, plan)| (ty, plan));
        types.filter(|ty| *ty != TensorType::Tq1_0).filter_map(plan_of).collect()
    }

    /// Adds to the error of a type.
    pub(super) fn add_error(&mut self, class: TensorClass, ty: TensorType, error: f64) {
        let found = self.table.classes.iter_mut().filter(|found| found.class == class);
        let mut candidates = found.flat_map(|found| &mut found.candidates);
        if let Some(candidate) = candidates.find(|candidate| candidate.ty == ty) {
            candidate.error += error;
        }
    }

    /// Gives TQ1_0 the errors of TQ2_0.
    pub(super) fn share_ternary_errors(&mut self) {
        for ClassCandidates { candidates, .. } in &mut self.table.classes {
            let twin = candidates.iter().find(|candidate| candidate.ty == TensorType::Tq2_0).map(|twin| twin.error);
            let ternary = candidates.iter_mut().find(|candidate| candidate.ty == TensorType::Tq1_0);
            if let (Some(ternary), Some(error)) = (ternary, twin) {
                ternary.error = error;
            }
        }
    }

    /// The recipe of a choice.
    fn recipe(&self, choice: &Choice) -> Recipe {
        let picks = self.table.classes.iter().zip(&choice.picks);
        let classes = picks.map(|(class, &pick)| (class.class, class.candidates[pick].ty)).collect();
        Recipe { classes, ..self.recipe.clone() }
    }

    /// Checks that a student of the target's size exists.
    ///
    /// # Errors
    /// [`Error::TargetSize`] with the exact size of the smallest.
    pub(crate) fn ensure_possible(&self, file_bytes: &FileBytes<'_>) -> Result<()> {
        let (target, smallest) = (self.table.target_bytes, self.smallest(file_bytes)?);
        if smallest > target { Err(Error::TargetSize { target, smallest }) } else { Ok(()) }
    }

    fn smallest(&self, file_bytes: &FileBytes<'_>) -> Result<u64> {
        let choices = ranked(&self.table.classes);
        let least = choices.iter().map(|choice| choice.bytes).min().unwrap_or(0);
        let small = choices.iter().filter(|choice| choice.bytes < least + HEADER_DIFFERENCE);
        let sizes = small.map(|choice| file_bytes(&self.recipe(choice), &self.table)).collect::<Result<Vec<_>>>()?;
        Ok(sizes.into_iter().min().unwrap_or(0))
    }

    /// The recipe of least error among those whose file has at most the target's size; marks its types as chosen.
    ///
    /// # Errors
    /// [`Error::TargetSize`] where there is none.
    pub(crate) fn choose(&mut self, file_bytes: &FileBytes<'_>) -> Result<Recipe> {
        let target = self.table.target_bytes;
        for choice in ranked(&self.table.classes) {
            // The header comes on top; files that are too large without one are not laid out.
            if self.other_bytes.saturating_add(choice.bytes) > target {
                continue;
            }
            let recipe = self.recipe(&choice);
            if file_bytes(&recipe, &self.table)? <= target {
                for (class, pick) in self.table.classes.iter_mut().zip(choice.picks) {
                    class.candidates[pick].chosen = true;
                }
                return Ok(recipe);
            }
        }
        Err(Error::TargetSize { target, smallest: self.smallest(file_bytes)? })
    }
}

/// Whether the layer filter lets a class have a type.
fn may_have(class: TensorClass, ty: TensorType) -> bool {
    !ty.is_ternary() || !matches!(class, TensorClass::Embedding | TensorClass::Head)
}

/// Whether a type is a choice of its own for a class: rows of a tensor fill its blocks, or it is the one that others fall back to.
fn is_choice(plan: &StudentPlan, class: TensorClass, ty: TensorType) -> bool {
    let mut tensors = plan.tensors.iter().filter(|tensor| deciding_class(tensor.class) == class);
    tensors.any(|tensor| match tensor.assignment.reason {
        Reason::Preset => true,
        Reason::RowLength { .. } => ty == TensorType::Q8_0,
        Reason::AlwaysF32 | Reason::Override(_) => false,
    })
}

/// Bytes of the tensors whose class is one of `classes`, with their padding.
fn bytes_of(plan: &StudentPlan, classes: impl Fn(TensorClass) -> bool) -> Result<u64> {
    let indices = plan.tensors.iter().enumerate().filter(|(_, tensor)| classes(deciding_class(tensor.class)));
    let infos = indices.map(|(index, _)| plan.info(index)).collect::<Result<Vec<_>>>()?;
    let file = GgufWriter::new(&Metadata::default(), infos)?;
    Ok(file.file_bytes() - file.header_bytes())
}
