//! Which type each tensor of a student gets.
//!
//! One [`Recipe`] is shared by quantisation, synthetic models and inspection, so that the three can never disagree.
//! It holds the layer filter of the project: **routers, norms, biases, the embedding and the head are never ternary**,
//! whatever a preset or an override asks for.
//!
//! | preset | routed + shared experts | dense FFN | attention | `attn_k_b` | `attn_v_b` | embedding, head |
//! |---|---|---|---|---|---|---|
//! | `quality`  | TQ2_0 | TQ2_0 | Q8_0  | Q8_0 | Q8_0 | Q8_0 |
//! | `balanced` | TQ2_0 | TQ2_0 | Q6_K  | Q6_K | Q6_K | Q6_K |
//! | `8g`       | TQ1_0 | TQ1_0 | Q6_K  | Q6_K | Q6_K | Q6_K |
//! | `phase1`   | TQ2_0 | F16   | F16   | F16  | F16  | F16  |
//! | `phase2`   | TQ2_0 | TQ2_0 | TQ2_0 | Q8_0 | Q8_0 | F16  |
//!
//! A row that does not fill the blocks of its type falls back to Q8_0 (rows of 32) or F16, and the report names it:
//! `attn_k_b` of GLM-4.7-Flash has rows of 192 and becomes Q8_0 where the table says Q6_K.

use gguf_bitnet::{TensorClass, TensorType, UnknownTypeName};
use regex_lite::Regex;

use crate::{Error, Result};

/// A named choice of types; sizes are for GLM-4.7-Flash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Preset {
    /// 9.08 GB: everything that is not an expert at Q8_0.
    Quality,
    /// 8.70 GB: everything that is not an expert at Q6_K.
    #[default]
    Balanced,
    /// 7.37 GB: five trits per byte and Q6_K, for machines with 8 GB.
    EightGigabytes,
    /// 10.7 GB, the domain's Phase 1: experts ternary, all else F16.
    Phase1,
    /// The domain's Phase 2 and the speed yardstick (9.02 GB): every linear layer ternary.
    Phase2,
}

impl Preset {
    /// Every preset with its name on the command line and in metadata.
    pub const ALL: [(&'static str, Preset); 5] = [
        ("quality", Preset::Quality),
        ("balanced", Preset::Balanced),
        ("8g", Preset::EightGigabytes),
        ("phase1", Preset::Phase1),
        ("phase2", Preset::Phase2),
    ];

    /// The preset's name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, preset)| *preset == self).expect("ALL lists every preset").0
    }

    /// The type the preset wants for a matrix of `class`, before rows are looked at.
    fn wants(self, class: TensorClass) -> TensorType {
        use TensorClass as C;
        use TensorType::{F16, Q6K, Q8_0, Tq1_0, Tq2_0};
        match (self, class) {
            (Preset::EightGigabytes, C::RoutedExpert | C::SharedExpert | C::DenseFfn) => Tq1_0,
            (_, C::RoutedExpert | C::SharedExpert) => Tq2_0,
            (Preset::Phase1, _) => F16,
            (_, C::DenseFfn) => Tq2_0,
            (Preset::Phase2, C::Attention) => Tq2_0,
            (Preset::Phase2, C::AttentionKb | C::AttentionVb) => Q8_0,
            (Preset::Phase2, _) => F16,
            (Preset::Quality, _) => Q8_0,
            (Preset::Balanced | Preset::EightGigabytes, _) => Q6K,
        }
    }
}

/// What stands where a preset says "ternary".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Ternary {
    /// The preset's own ternary type.
    #[default]
    Preset,
    /// This ternary type in its place.
    Packed(TensorType),
    /// No ternary tensors at all: every matrix becomes F16.
    None,
}

/// `REGEX=TYPE`: tensors whose whole name matches get this type. Later overrides win.
#[derive(Clone, Debug)]
pub struct Override {
    pattern: String,
    regex: Regex,
    ty: TensorType,
}

impl Override {
    /// Parses `REGEX=TYPE`, for example `blk\.0\..*=Q8_0`.
    ///
    /// # Errors
    /// [`Error::Override`] when there is no `=`, the expression is invalid, or the type cannot be written.
    pub fn parse(text: &str) -> Result<Self> {
        let invalid = |reason: String| Error::Override { text: text.to_owned(), reason };
        let (pattern, ty) = text.rsplit_once('=').ok_or_else(|| invalid("there is no `=`".to_owned()))?;
        let regex = Regex::new(&format!("^(?:{pattern})$")).map_err(|e| invalid(e.to_string()))?;
        let ty: TensorType = ty.trim().parse().map_err(|e: UnknownTypeName| invalid(e.to_string()))?;
        if !ty.is_writable() {
            return Err(invalid(format!("{ty} can be read but not written")));
        }
        Ok(Self { pattern: pattern.to_owned(), regex, ty })
    }
}

/// Whether a tensor of this class may be ternary: the layer filter.
pub fn may_be_ternary(class: TensorClass) -> bool {
    use TensorClass as C;
    matches!(class, C::RoutedExpert | C::SharedExpert | C::DenseFfn | C::Attention | C::AttentionKb | C::AttentionVb)
}

/// Why a tensor has its type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The preset (or `--ternary`) says so.
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
    /// Why.
    pub reason: Reason,
}

/// A preset, a ternary type and overrides: maps every tensor to its type.
#[derive(Clone, Debug, Default)]
pub struct Recipe {
    /// The starting point.
    pub preset: Preset,
    /// Replaces the preset's ternary type.
    pub ternary: Ternary,
    /// Exceptions by name; the last match wins.
    pub overrides: Vec<Override>,
}

impl Recipe {
    /// The type of the tensor `name` with row-major `shape`.
    ///
    /// # Errors
    /// [`Error::NeverTernary`] when an override asks for a ternary router, norm, bias, embedding or head;
    /// [`Error::RowBlocks`] when an override asks for a type whose blocks the row does not fill.
    pub fn assign(&self, name: &str, class: TensorClass, shape: &[usize]) -> Result<Assignment> {
        let vector = shape.len() < 2;
        if vector
            || matches!(class, TensorClass::Router | TensorClass::RouterBias | TensorClass::Norm | TensorClass::Bias)
        {
            return match self.last_override(name) {
                Some(over) if over.ty.is_ternary() => Err(Error::NeverTernary { tensor: name.to_owned() }),
                _ => Ok(Assignment { ty: TensorType::F32, reason: Reason::AlwaysF32 }),
            };
        }
        let cols = shape.last().copied().unwrap_or(0);
        if let Some(over) = self.last_override(name) {
            if over.ty.is_ternary() && !may_be_ternary(class) {
                return Err(Error::NeverTernary { tensor: name.to_owned() });
            }
            if !fits(over.ty, cols) {
                return Err(Error::RowBlocks { tensor: name.to_owned(), ty: over.ty, cols });
            }
            return Ok(Assignment { ty: over.ty, reason: Reason::Override(over.pattern.clone()) });
        }
        let wanted = match self.ternary {
            Ternary::None => TensorType::F16,
            Ternary::Packed(ty) if self.preset.wants(class).is_ternary() => ty,
            _ => self.preset.wants(class),
        };
        debug_assert!(!wanted.is_ternary() || may_be_ternary(class));
        let ty = [wanted, TensorType::Q8_0, TensorType::F16]
            .into_iter()
            .find(|&ty| fits(ty, cols))
            .unwrap_or(TensorType::F16);
        let reason = if ty == wanted { Reason::Preset } else { Reason::RowLength { wanted } };
        Ok(Assignment { ty, reason })
    }

    /// One line that says the same thing for the same recipe: it goes into manifests and metadata.
    pub fn describe(&self) -> String {
        let mut text = self.preset.name().to_owned();
        match self.ternary {
            Ternary::Preset => {}
            Ternary::Packed(ty) => text.push_str(&format!(" ternary={}", ty.name())),
            Ternary::None => text.push_str(" ternary=none"),
        }
        for over in &self.overrides {
            text.push_str(&format!(" {}={}", over.pattern, over.ty.name()));
        }
        text
    }

    /// Checks that every override matches one of these tensors: one that matches none is a slip of the pen.
    ///
    /// # Errors
    /// [`Error::UnusedOverride`] with the first that does not.
    pub fn ensure_used<'a>(&self, names: impl Iterator<Item = &'a str> + Clone) -> Result<()> {
        let unused = self.overrides.iter().find(|over| !names.clone().any(|name| over.regex.is_match(name)));
        unused.map_or(Ok(()), |over| Err(Error::UnusedOverride { pattern: over.pattern.clone() }))
    }

    fn last_override(&self, name: &str) -> Option<&Override> {
        self.overrides.iter().rev().find(|over| over.regex.is_match(name))
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
        for name in ["token_embd.weight", "output.weight", "output_norm.weight", "blk.1.ffn_gate_inp.weight"] {
            let class = TensorClass::of(name);
            let mut recipe = recipe(Preset::Balanced);
            recipe.overrides.push(Override::parse(".*=TQ2_0").unwrap());
            let shape: &[usize] = if class == TensorClass::Norm { &[256] } else { &[64, 256] };
            assert!(matches!(recipe.assign(name, class, shape), Err(Error::NeverTernary { .. })), "{name}");
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
    fn the_last_matching_override_wins_on_the_whole_name() {
        let mut recipe = recipe(Preset::Balanced);
        recipe.overrides =
            vec![Override::parse(r"blk\..*=Q8_0").unwrap(), Override::parse(r"blk\.3\..*=bf16").unwrap()];
        let ty = |name: &str| recipe.assign(name, TensorClass::of(name), &[256, 256]).unwrap().ty;
        assert_eq!(ty("blk.2.attn_q_a.weight"), TensorType::Q8_0);
        assert_eq!(ty("blk.3.attn_q_a.weight"), TensorType::Bf16);
        assert_eq!(ty("output.weight"), TensorType::Q6K, "`blk` must not match inside another name");
        assert!(Override::parse("no-type").is_err());
        assert!(Override::parse("(=Q8_0").is_err());
        assert!(Override::parse("x=IQ2_XXS").is_err());
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
