//! A recipe, and the type it gives to one tensor.

use std::collections::BTreeMap;

use gguf_bitnet::{TensorClass, TensorType};

use super::error::RecipeError;
use super::overrides::Override;
use super::preset::Preset;

/// The type of the tensors that a preset makes ternary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Ternary {
    /// The preset's own ternary type.
    #[default]
    Preset,
    /// This ternary type in its place.
    Packed(TensorType),
    /// No ternary tensors: every matrix becomes F16.
    None,
}

/// Whether a tensor of this class may be ternary: the layer filter.
fn may_be_ternary(class: TensorClass) -> bool {
    use TensorClass as C;
    matches!(class, C::RoutedExpert | C::SharedExpert | C::DenseFfn | C::Attention | C::AttentionKb | C::AttentionVb)
}

/// The class whose choice of a type a tensor of `class` follows: all matrices of the attention have one.
pub(crate) fn deciding_class(class: TensorClass) -> TensorClass {
    match class {
        TensorClass::AttentionKb | TensorClass::AttentionVb => TensorClass::Attention,
        class => class,
    }
}

/// The reason for a tensor's type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The preset, `--ternary` or the choice for its class says so.
    Preset,
    /// Routers, norms, biases and other vectors are always F32.
    AlwaysF32,
    /// This override says so.
    Override(String),
    /// The row does not fill the blocks of the wanted type.
    RowLength {
        /// The type that did not fit.
        wanted: TensorType,
    },
}

/// The type chosen for one tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The type on disk.
    pub ty: TensorType,
    /// The reason for this type.
    pub reason: Reason,
}

/// A preset, a ternary type, choices for classes and overrides: maps every tensor to its type.
#[derive(Clone, Debug, Default)]
pub struct Recipe {
    /// The types to start from.
    pub preset: Preset,
    /// Replaces the preset's ternary type.
    pub ternary: Ternary,
    /// Types of whole classes, in place of the preset's; `attn_k_b` and `attn_v_b` follow [`TensorClass::Attention`].
    pub classes: BTreeMap<TensorClass, TensorType>,
    /// Exceptions by name; the last match wins.
    pub overrides: Vec<Override>,
}

impl Recipe {
    /// The type of the tensor `name` with row-major `shape`.
    ///
    /// # Errors
    /// [`RecipeError::NeverTernary`] when an override or a choice asks for a ternary router, norm, bias, embedding or head;
    /// [`RecipeError::RowBlocks`] when an override asks for a type whose blocks the row does not fill.
    pub fn assign(&self, name: &str, class: TensorClass, shape: &[usize]) -> Result<Assignment, RecipeError> {
        let vector = shape.len() < 2;
        if vector
            || matches!(class, TensorClass::Router | TensorClass::RouterBias | TensorClass::Norm | TensorClass::Bias)
        {
            return match self.last_override(name) {
                Some(over) if over.ty.is_ternary() => Err(RecipeError::NeverTernary { tensor: name.to_owned() }),
                _ => Ok(Assignment { ty: TensorType::F32, reason: Reason::AlwaysF32 }),
            };
        }
        let cols = shape.last().copied().unwrap_or(0);
        if let Some(over) = self.last_override(name) {
            if over.ty.is_ternary() && !may_be_ternary(class) {
                return Err(RecipeError::NeverTernary { tensor: name.to_owned() });
            }
            if !fits(over.ty, cols) {
                return Err(RecipeError::RowBlocks { tensor: name.to_owned(), ty: over.ty, cols });
            }
            return Ok(Assignment { ty: over.ty, reason: Reason::Override(over.pattern.clone()) });
        }
        let wanted = self.wants(class);
        if wanted.is_ternary() && !may_be_ternary(class) {
            return Err(RecipeError::NeverTernary { tensor: name.to_owned() });
        }
        let ty = [wanted, TensorType::Q8_0, TensorType::F16]
            .into_iter()
            .find(|&ty| fits(ty, cols))
            .unwrap_or(TensorType::F16);
        let reason = if ty == wanted { Reason::Preset } else { Reason::RowLength { wanted } };
        Ok(Assignment { ty, reason })
    }

    /// The recipe for a model without experts: its feed-forward parts are the one expert of every token, so they get the type
    /// of routed experts where no type was chosen for them.
    pub(crate) fn of_dense_model(&self) -> Recipe {
        let mut recipe = self.clone();
        recipe.classes.entry(TensorClass::DenseFfn).or_insert_with(|| self.wants(TensorClass::RoutedExpert));
        recipe
    }

    /// The type of a matrix of `class`, before the length of its rows is known.
    fn wants(&self, class: TensorClass) -> TensorType {
        if let Some(&ty) = self.classes.get(&deciding_class(class)) {
            return ty;
        }
        match self.ternary {
            Ternary::None => TensorType::F16,
            Ternary::Packed(ty) if self.preset.wants(class).is_ternary() => ty,
            _ => self.preset.wants(class),
        }
    }

    /// The recipe in one line, for manifests and metadata: equal recipes give equal lines.
    pub(crate) fn describe(&self) -> String {
        let mut text = self.preset.name().to_owned();
        match self.ternary {
            Ternary::Preset => {}
            Ternary::Packed(ty) => text.push_str(&format!(" ternary={}", ty.name())),
            Ternary::None => text.push_str(" ternary=none"),
        }
        for (class, ty) in &self.classes {
            text.push_str(&format!(" {class}={}", ty.name()));
        }
        for over in &self.overrides {
            text.push_str(&format!(" {}={}", over.pattern, over.ty.name()));
        }
        text
    }

    /// Checks that every override matches one of these tensors: one that matches none is a mistake.
    ///
    /// # Errors
    /// [`RecipeError::UnusedOverride`] with the first that does not.
    pub(crate) fn ensure_used<'a>(&self, names: impl Iterator<Item = &'a str> + Clone) -> Result<(), RecipeError> {
        let unused = self.overrides.iter().find(|over| !names.clone().any(|name| over.matches(name)));
        unused.map_or(Ok(()), |over| Err(RecipeError::UnusedOverride { pattern: over.pattern.clone() }))
    }

    fn last_override(&self, name: &str) -> Option<&Override> {
        self.overrides.iter().rev().find(|over| over.matches(name))
    }
}

fn fits(ty: TensorType, cols: usize) -> bool {
    cols.is_multiple_of(ty.block_len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe(preset: Preset) -> Recipe {
        Recipe { preset, ..Recipe::default() }
    }

    #[test]
    fn no_preset_makes_a_router_norm_embedding_or_head_ternary() {
        let protected = [
            ("token_embd.weight", TensorClass::Embedding, vec![512, 256]),
            ("output.weight", TensorClass::Head, vec![512, 256]),
            ("output_norm.weight", TensorClass::Norm, vec![256]),
            ("blk.1.ffn_gate_inp.weight", TensorClass::Router, vec![64, 256]),
            ("blk.1.exp_probs_b.bias", TensorClass::RouterBias, vec![64]),
        ];
        for (preset_name, preset) in Preset::ALL {
            for (name, class, shape) in &protected {
                let ty = recipe(preset).assign(name, *class, shape).unwrap().ty;
                assert!(!ty.is_ternary(), "{preset_name} makes {name} {}", ty.name());
            }
            let expert = recipe(preset).assign("blk.1.ffn_up_exps.weight", TensorClass::RoutedExpert, &[8, 256, 256]);
            assert!(expert.unwrap().ty.is_ternary(), "{preset_name} leaves experts dense");
        }
    }

    #[test]
    fn an_override_cannot_pass_the_layer_filter() {
        for (name, class) in [
            ("token_embd.weight", TensorClass::Embedding),
            ("output.weight", TensorClass::Head),
            ("output_norm.weight", TensorClass::Norm),
            ("blk.1.ffn_gate_inp.weight", TensorClass::Router),
        ] {
            let mut recipe = recipe(Preset::Balanced);
            recipe.overrides.push(Override::parse(".*=TQ2_0").unwrap());
            let shape: &[usize] = if class == TensorClass::Norm { &[256] } else { &[64, 256] };
            assert!(matches!(recipe.assign(name, class, shape), Err(RecipeError::NeverTernary { .. })), "{name}");
        }
    }

    #[test]
    fn rows_that_fill_no_block_fall_back_and_say_so() {
        let k_b = recipe(Preset::Balanced)
            .assign("blk.0.attn_k_b.weight", TensorClass::AttentionKb, &[20, 512, 192])
            .unwrap();
        assert_eq!(k_b, Assignment { ty: TensorType::Q8_0, reason: Reason::RowLength { wanted: TensorType::Q6K } });
        let odd = recipe(Preset::Phase2).assign("blk.0.ffn_up.weight", TensorClass::DenseFfn, &[100, 72]).unwrap();
        assert_eq!(odd.ty, TensorType::F16);
    }

    #[test]
    fn q2_0_takes_rows_of_64_weights() {
        let recipe = Recipe { ternary: Ternary::Packed(TensorType::Q2_0), ..recipe(Preset::Phase2) };
        for (class, cols, ty) in [
            (TensorClass::DenseFfn, 576, TensorType::Q2_0),
            (TensorClass::Attention, 640, TensorType::Q2_0),
            (TensorClass::DenseFfn, 512, TensorType::Q2_0),
            (TensorClass::DenseFfn, 96, TensorType::Q8_0),
        ] {
            let found = recipe.assign("blk.0.x.weight", class, &[100, cols]).unwrap();
            assert_eq!(found.ty, ty, "{cols}");
        }
    }

    #[test]
    fn a_dense_model_has_its_feed_forward_parts_ternary_and_keeps_its_choices() {
        let ty = |recipe: &Recipe| recipe.assign("blk.0.ffn_up.weight", TensorClass::DenseFfn, &[512, 256]).unwrap().ty;
        for (name, preset) in Preset::ALL {
            assert!(ty(&recipe(preset).of_dense_model()).is_ternary(), "{name}");
        }
        assert_eq!(ty(&recipe(Preset::Balanced)), TensorType::Q6K, "of a model with experts");
        let plain = Recipe { ternary: Ternary::None, ..Recipe::default() };
        assert_eq!(ty(&plain.of_dense_model()), TensorType::F16);
        let classes = BTreeMap::from([(TensorClass::DenseFfn, TensorType::Q8_0)]);
        assert_eq!(ty(&Recipe { classes, ..Recipe::default() }.of_dense_model()), TensorType::Q8_0);
    }

    #[test]
    fn the_last_matching_override_wins_on_the_whole_name() {
        let mut recipe = recipe(Preset::Balanced);
        recipe.overrides =
            vec![Override::parse(r"blk\..*=Q8_0").unwrap(), Override::parse(r"blk\.3\..*=bf16").unwrap()];
        let ty = |name: &str, class| recipe.assign(name, class, &[256, 256]).unwrap().ty;
        assert_eq!(ty("blk.2.attn_q_a.weight", TensorClass::Attention), TensorType::Q8_0);
        assert_eq!(ty("blk.3.attn_q_a.weight", TensorClass::Attention), TensorType::Bf16);
        assert_eq!(ty("output.weight", TensorClass::Head), TensorType::Q6K, "`blk` must not match inside another name");
        assert!(Override::parse("no-type").is_err());
        assert!(Override::parse("(=Q8_0").is_err());
        assert!(Override::parse("x=IQ2_XXS").is_err());
    }

    #[test]
    fn a_choice_for_a_class_replaces_the_preset_and_yields_to_overrides() {
        let classes = BTreeMap::from([(TensorClass::Attention, TensorType::Tq2_0)]);
        let mut recipe = Recipe { classes, ternary: Ternary::None, ..recipe(Preset::Quality) };
        let ty = |recipe: &Recipe, name, class| recipe.assign(name, class, &[4, 256, 256]).unwrap().ty;
        for class in [TensorClass::Attention, TensorClass::AttentionKb, TensorClass::AttentionVb] {
            assert_eq!(ty(&recipe, "blk.0.attn_x.weight", class), TensorType::Tq2_0, "{class}");
        }
        assert_eq!(ty(&recipe, "output.weight", TensorClass::Head), TensorType::F16, "no choice was made");
        let plain = recipe.describe();
        recipe.overrides.push(Override::parse("blk.0.attn_x.weight=Q8_0").unwrap());
        assert_eq!(ty(&recipe, "blk.0.attn_x.weight", TensorClass::Attention), TensorType::Q8_0);
        recipe.classes.insert(TensorClass::Attention, TensorType::Tq1_0);
        assert!(!recipe.describe().starts_with(&plain), "manifests tell choices apart: {}", recipe.describe());
        recipe.classes.insert(TensorClass::Head, TensorType::Tq1_0);
        let refused = recipe.assign("output.weight", TensorClass::Head, &[512, 256]);
        assert!(matches!(refused, Err(RecipeError::NeverTernary { .. })), "{refused:?}");
    }

    #[test]
    fn none_means_f16_everywhere_but_the_vectors_and_the_router() {
        let recipe = Recipe { ternary: Ternary::None, ..Recipe::default() };
        assert_eq!(
            recipe.assign("blk.1.ffn_up_exps.weight", TensorClass::RoutedExpert, &[8, 256, 256]).unwrap().ty,
            TensorType::F16
        );
        assert_eq!(
            recipe.assign("blk.1.ffn_gate_inp.weight", TensorClass::Router, &[8, 256]).unwrap().ty,
            TensorType::F32
        );
    }
}
