//! From the names in a file to canonical names and back, by the rows of one architecture.
//!
//! A checkpoint may hold the same model in several spellings: llama.cpp or Hugging Face names, experts one by one, stacked,
//! or with gate and up fused, the key/value expansion `kv_b` fused or split per head. The mapper tells which tensors of the
//! model a stored tensor holds; the [`Catalog`] assembles the tensors of the model from these places.
//!
//! **Invariant:** no two source tensors may feed the same rows of a canonical tensor: that is an error which names both,
//! never a silent choice.

use std::sync::Arc;

use super::catalog::Catalog;
use super::class::TensorClass;
use super::row::{Dialect, NameRow, Piece, Scope, split_number};
use super::wrappers::{is_other_sense, unwrapped};
use crate::error::Result;
use crate::source::TensorSource;

/// The dimensions that split a fused `kv_b` (rows per head: keys, then values), and those that order the rows of heads. Zero
/// where the model has no such tensor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SplitDims {
    /// Number of attention heads.
    pub n_heads: usize,
    /// Key rows of each head (the part without rotary position).
    pub qk_nope: usize,
    /// Value rows of each head.
    pub v_head: usize,
    /// Rows of each head whose halves become pairs ([`Piece::HeadPairs`]).
    pub paired: usize,
}

/// Maps the tensors of a source to canonical names.
#[derive(Clone, Debug)]
pub struct TensorNameMapper {
    rows: Vec<&'static NameRow>,
    dims: SplitDims,
    n_layers: usize,
}

impl TensorNameMapper {
    /// A mapper for a model of the architecture with these rows and with `n_layers` trunk layers; tensors of later layers
    /// (multi-token prediction) are listed as skipped.
    pub fn new(rows: impl IntoIterator<Item = &'static NameRow>, dims: SplitDims, n_layers: usize) -> TensorNameMapper {
        TensorNameMapper { rows: rows.into_iter().collect(), dims, n_layers }
    }

    /// Builds the catalog of canonical tensors over `source`. Reads no weights.
    ///
    /// # Errors
    /// When two tensors provide the same canonical one (fused and split at once), expert indices
    /// have gaps or differ in shape, a fused tensor cannot be split, or a tensor is empty.
    pub fn map(&self, source: Arc<dyn TensorSource>) -> Result<Catalog> {
        Catalog::assemble(source, self)
    }

    /// The dimensions that split a fused `kv_b`.
    pub fn dims(&self) -> SplitDims {
        self.dims
    }

    /// The class of a canonical tensor; [`TensorClass::Other`] for a name that no row has.
    pub fn class(&self, canonical: &str) -> TensorClass {
        self.row_of(canonical).map_or(TensorClass::Other, |found| found.class())
    }

    /// The name that a canonical tensor has in a GGUF of this architecture; a name that no row has stays as it is.
    pub fn gguf_name(&self, canonical: &str) -> String {
        let found = self.row_of(canonical);
        found.map_or_else(|| canonical.to_owned(), |found| found.named(|row, layer| row.gguf_name(layer)))
    }

    /// The name that a canonical tensor has in a checkpoint, or `None` when no row has the name.
    ///
    /// A stacked tensor needs the expert's number and gives that expert's own tensor. Both halves of a split `kv_b` give
    /// the name of the fused tensor.
    pub fn checkpoint_name(&self, canonical: &str, expert: Option<usize>) -> Option<String> {
        let found = self.row_of(canonical)?;
        if found.row.is_per_expert() && (expert.is_none() || found.bias) {
            return None;
        }
        Some(found.named(|row, layer| row.checkpoint_name(layer, expert)))
    }

    /// The meaning of `name` as the name of a tensor in a file.
    pub(super) fn find(&self, name: &str) -> Found {
        let unwrapped = unwrapped(name);
        if let Some(position) = self.rows.iter().position(|row| row.is_model_name(name, &unwrapped)) {
            let of_row = RowOfTensor { row: self.rows[position], position, layer: None, bias: false };
            return Found::Places(vec![of_row.place(Piece::Whole, None)]);
        }
        // Old checkpoints store the frequencies of the rotation, which are computed here.
        if is_other_sense(&unwrapped) || unwrapped == "rotary_emb.inv_freq" {
            return Found::Skipped;
        }
        let Some((dialect, layer, stem)) = split_layer(name, &unwrapped) else { return Found::Unknown };
        if layer >= self.n_layers || (dialect == Dialect::Checkpoint && stem == "self_attn.rotary_emb.inv_freq") {
            return Found::Skipped;
        }
        let rows = || self.rows.iter().enumerate();
        let of_row =
            |(position, row): (usize, &&'static NameRow), bias| RowOfTensor { row, position, layer: Some(layer), bias };
        let mut places: Vec<Place> = rows()
            .filter_map(|at| at.1.find(dialect, stem).map(|(piece, expert)| of_row(at, false).place(piece, expert)))
            .collect();
        if places.is_empty()
            && let Some(stem) = stem.strip_suffix(".bias")
        {
            // A bias that the architecture does not have is mapped all the same: a report can then say which tensor it
            // would change, under its canonical name.
            let weight = format!("{stem}.weight");
            let whole = rows().filter(|at| at.1.find(dialect, &weight) == Some((Piece::Whole, None)));
            places.extend(whole.map(|at| of_row(at, true).place(Piece::Whole, None)));
        }
        if places.is_empty() { Found::Unknown } else { Found::Places(places) }
    }

    /// The row of a canonical name.
    fn row_of(&self, canonical: &str) -> Option<RowOfTensor> {
        let (scope, layer, stem) = match split_layer(canonical, "") {
            Some((_, layer, stem)) => (Scope::Layer, Some(layer), stem),
            _ => (Scope::Model, None, canonical),
        };
        let position = |name: &str| self.rows.iter().position(|row| row.scope() == scope && row.name() == name);
        let (position, bias) = match (position(stem), stem.strip_suffix(".bias")) {
            (Some(position), _) => (position, false),
            (None, Some(stem)) if scope == Scope::Layer => (position(&format!("{stem}.weight"))?, true),
            (None, _) => return None,
        };
        Some(RowOfTensor { row: self.rows[position], position, layer, bias })
    }
}

/// The meaning of a tensor's name in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// The tensors of the model that the stored tensor holds, in whole or in part.
    Places(Vec<Place>),
    /// A tensor of a layer beyond the trunk or of another part of a multimodal model, or a buffer that the runtime
    /// computes.
    Skipped,
    /// No row has this name.
    Unknown,
}

/// A tensor of the model, and the part of a stored tensor that belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Sorts tensors into the order in which files are written: the ones outside of the layers, then layer by layer in the
    /// order of the rows; a bias without a row of its own follows its weight.
    pub order: (Option<usize>, usize, bool),
    /// Its canonical name, with the layer.
    pub name: String,
    /// The role of the tensor in its model.
    pub class: TensorClass,
    /// The expert whose matrix is stored, where each has a tensor of its own.
    pub expert: Option<usize>,
    /// The part of the stored tensor.
    pub piece: Piece,
}

/// One tensor of the model: a row, in one layer.
struct RowOfTensor {
    row: &'static NameRow,
    position: usize,
    layer: Option<usize>,
    /// The bias beside the row's weight.
    bias: bool,
}

impl RowOfTensor {
    fn class(&self) -> TensorClass {
        if self.bias { TensorClass::Bias } else { self.row.class() }
    }

    fn named(&self, name: impl Fn(&NameRow, usize) -> String) -> String {
        let name = name(self.row, self.layer.unwrap_or(0));
        match name.strip_suffix(".weight") {
            Some(stem) if self.bias => format!("{stem}.bias"),
            _ => name,
        }
    }

    fn place(&self, piece: Piece, expert: Option<usize>) -> Place {
        let name = self.named(NameRow::canonical_name);
        Place { order: (self.layer, self.position, self.bias), name, class: self.class(), expert, piece }
    }
}

/// The dialect of a layer's tensor, the layer's number, and the name without them. In checkpoints the name without wrappers
/// counts; GGUF files have none.
fn split_layer<'a>(name: &'a str, unwrapped: &'a str) -> Option<(Dialect, usize, &'a str)> {
    let (dialect, rest) = match name.strip_prefix("blk.") {
        Some(rest) => (Dialect::Gguf, rest),
        None => (Dialect::Checkpoint, unwrapped.strip_prefix("layers.")?),
    };
    let (layer, stem) = split_number(rest)?;
    Some((dialect, layer, stem))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::row::Spelling;

    /// A small architecture with one row of every kind.
    const ROWS: &[NameRow] = &[
        NameRow::model("token_embd.weight", "model.embed_tokens.weight", TensorClass::Embedding),
        NameRow::model("output_norm.weight", "model.norm.weight", TensorClass::Norm),
        NameRow::model("output.weight", "lm_head.weight", TensorClass::Head),
        NameRow::layer("attn_norm.weight", "input_layernorm.weight", TensorClass::Norm),
        NameRow::layer("attn_q.weight", "self_attn.q_proj.weight", TensorClass::Attention),
        NameRow::layer("attn_q.bias", "self_attn.q_proj.bias", TensorClass::Bias),
        NameRow::layer("attn_k_b.weight", "self_attn.kv_b_proj.weight", TensorClass::AttentionKb)
            .piece(Piece::HeadKeys)
            .also(&[Spelling::gguf("attn_kv_b.weight", Piece::HeadKeys)]),
        NameRow::layer("attn_v_b.weight", "self_attn.kv_b_proj.weight", TensorClass::AttentionVb)
            .piece(Piece::HeadValues)
            .also(&[Spelling::gguf("attn_kv_b.weight", Piece::HeadValues)]),
        NameRow::layer("attn_output.weight", "self_attn.o_proj.weight", TensorClass::Attention),
        NameRow::layer("ffn_norm.weight", "post_attention_layernorm.weight", TensorClass::Norm)
            .written_as("post_attention_norm.weight"),
        NameRow::layer("exp_probs_b.bias", "mlp.gate.e_score_correction_bias", TensorClass::RouterBias),
        NameRow::layer("ffn_gate_exps.weight", "mlp.experts.{}.gate_proj.weight", TensorClass::RoutedExpert).also(&[
            Spelling::checkpoint("mlp.experts.gate_up_proj", Piece::FirstHalf),
            Spelling::checkpoint("mlp.experts.{}.gate_up_proj.weight", Piece::FirstHalf),
        ]),
        NameRow::layer("ffn_up_exps.weight", "mlp.experts.{}.up_proj.weight", TensorClass::RoutedExpert).also(&[
            Spelling::gguf("ffn_up.{}.weight", Piece::Whole),
            Spelling::checkpoint("mlp.experts.up_proj", Piece::Whole),
            Spelling::checkpoint("mlp.experts.gate_up_proj", Piece::SecondHalf),
            Spelling::checkpoint("mlp.experts.{}.gate_up_proj.weight", Piece::SecondHalf),
        ]),
        NameRow::layer("ffn_down_shexp.weight", "mlp.shared_experts.down_proj.weight", TensorClass::SharedExpert),
    ];

    fn mapper() -> TensorNameMapper {
        TensorNameMapper::new(ROWS, SplitDims { n_heads: 4, qk_nope: 8, v_head: 8, paired: 0 }, 47)
    }

    /// Name, expert and piece of each place of a stored tensor.
    fn places(name: &str) -> Vec<(String, Option<usize>, Piece)> {
        match mapper().find(name) {
            Found::Places(places) => places.into_iter().map(|p| (p.name, p.expert, p.piece)).collect(),
            other => panic!("{name}: {other:?}"),
        }
    }

    fn whole(name: &str) -> Vec<(String, Option<usize>, Piece)> {
        vec![(name.to_owned(), None, Piece::Whole)]
    }

    #[test]
    fn both_spellings_of_every_plain_tensor_meet() {
        for row in ROWS {
            let canonical = row.canonical_name(46);
            assert_eq!(places(&canonical), whole(&canonical));
            assert_eq!(places(&row.gguf_name(46)), whole(&canonical));
            assert_eq!(mapper().gguf_name(&canonical), row.gguf_name(46));
            assert_eq!(mapper().class(&canonical), row.class());
            let stored = mapper().checkpoint_name(&canonical, Some(5)).expect("every row has a name in checkpoints");
            assert!(places(&stored).iter().any(|place| place.0 == canonical), "{stored}");
        }
        assert_eq!(places("embed_tokens.weight"), whole("token_embd.weight"));
        assert_eq!(places("layers.0.input_layernorm.weight"), whole("blk.0.attn_norm.weight"));
        // The prefixes of wrappers do not count, in names of checkpoints.
        for prefix in ["module.model.", "_orig_mod.model.", "model.language_model.", "language_model.model."] {
            assert_eq!(places(&format!("{prefix}embed_tokens.weight")), whole("token_embd.weight"), "{prefix}");
            let norm = format!("{prefix}layers.0.input_layernorm.weight");
            assert_eq!(places(&norm), whole("blk.0.attn_norm.weight"), "{prefix}");
        }
        assert_eq!(places("language_model.lm_head.weight"), whole("output.weight"));
        assert_eq!(mapper().find("module.blk.0.attn_norm.weight"), Found::Unknown);
        assert_eq!(mapper().find("model.token_embd.weight"), Found::Unknown);
        assert_eq!(mapper().gguf_name("blk.5.ffn_norm.weight"), "blk.5.post_attention_norm.weight");
        assert_eq!(mapper().checkpoint_name("blk.1.ffn_up_exps.weight", None), None);
        assert_eq!(mapper().checkpoint_name("blk.1.no_such.weight", None), None);
        assert_eq!(mapper().class("no_such_thing"), TensorClass::Other);
    }

    #[test]
    fn a_stored_tensor_may_hold_one_expert_a_stack_or_parts_of_two_tensors() {
        let gate = |expert, piece| ("blk.2.ffn_gate_exps.weight".to_owned(), expert, piece);
        let up = |expert, piece| ("blk.2.ffn_up_exps.weight".to_owned(), expert, piece);
        for (spelling, expected) in [
            ("model.layers.2.mlp.experts.9.up_proj.weight", vec![up(Some(9), Piece::Whole)]),
            ("blk.2.ffn_up.9.weight", vec![up(Some(9), Piece::Whole)]),
            ("model.layers.2.mlp.experts.up_proj", vec![up(None, Piece::Whole)]),
            (
                "model.layers.2.mlp.experts.gate_up_proj",
                vec![gate(None, Piece::FirstHalf), up(None, Piece::SecondHalf)],
            ),
            (
                "model.layers.2.mlp.experts.3.gate_up_proj.weight",
                vec![gate(Some(3), Piece::FirstHalf), up(Some(3), Piece::SecondHalf)],
            ),
            (
                "blk.2.attn_kv_b.weight",
                vec![
                    ("blk.2.attn_k_b.weight".to_owned(), None, Piece::HeadKeys),
                    ("blk.2.attn_v_b.weight".to_owned(), None, Piece::HeadValues),
                ],
            ),
        ] {
            assert_eq!(places(spelling), expected, "{spelling}");
        }
    }

    #[test]
    fn a_bias_without_a_row_is_found_beside_its_weight() {
        let name = "blk.2.attn_output.bias";
        for stored in [name, "model.layers.2.self_attn.o_proj.bias"] {
            assert_eq!(places(stored), whole(name), "{stored}");
        }
        assert_eq!(mapper().class(name), TensorClass::Bias);
        assert_eq!(mapper().class("blk.2.attn_q.bias"), TensorClass::Bias);
        let stored = mapper().checkpoint_name(name, None);
        assert_eq!(stored.as_deref(), Some("model.layers.2.self_attn.o_proj.bias"));
    }

    #[test]
    fn layers_beyond_the_trunk_are_skipped_and_other_names_are_unknown() {
        for name in [
            "blk.47.nextn.eh_proj.weight",
            "blk.47.attn_norm.weight",
            "model.layers.47.eh_proj.weight",
            "model.layers.48.mlp.experts.0.up_proj.weight",
            "model.layers.0.self_attn.rotary_emb.inv_freq",
            "model.rotary_emb.inv_freq",
            "model.visual.patch_embed.weight",
            "vision_tower.blocks.0.attn.qkv.weight",
            "module.multi_modal_projector.linear_1.weight",
        ] {
            assert_eq!(mapper().find(name), Found::Skipped, "{name}");
        }
        for name in [
            "",
            "blk.",
            "blk.0",
            "blk.0.",
            "blk.00.attn_norm.weight",
            "blk.-1.attn_norm.weight",
            "blk.0.nextn.eh_proj.weight",
            "blk.0.attn_norm.scale",
            "blk.0.ffn_up.01.weight",
            "blk.0.self_attn.o_proj.weight",
            "rope_freqs.weight",
            "model.layers.0.attn_output.weight",
            "model.layers.0.mlp.experts.0.up_proj.scales",
            "model.layers.0.mlp.experts.0.up_proj.bias",
            "model.layers.0.mlp.experts",
            "blk.99999999999999999999999.attn_norm.weight",
        ] {
            assert_eq!(mapper().find(name), Found::Unknown, "{name}");
        }
    }

    #[test]
    fn the_order_is_that_of_the_rows_layer_by_layer() {
        let sorted = [
            "token_embd.weight",
            "output_norm.weight",
            "output.weight",
            "blk.2.attn_norm.weight",
            "blk.2.attn_q.weight",
            "blk.2.attn_q.bias",
            "blk.2.attn_output.weight",
            "blk.2.attn_output.bias",
            "blk.2.ffn_down_shexp.weight",
            "blk.10.attn_norm.weight",
        ];
        let order = |name: &&str| match mapper().find(name) {
            Found::Places(places) => places[0].order,
            other => panic!("{name}: {other:?}"),
        };
        let mut names = sorted;
        names.reverse();
        names.sort_by_key(order);
        assert_eq!(names, sorted);
    }

    proptest::proptest! {
        #[test]
        fn no_name_panics(name in "(blk|model\\.layers|layers)?\\.?[0-9]{0,22}\\.?[a-z._0-9]{0,30}") {
            let _ = mapper().find(&name);
            let _ = mapper().checkpoint_name(&name, Some(3));
            let _ = mapper().gguf_name(&name);
        }
    }
}
