//! Names: from whatever a file calls its tensors to llama.cpp's canonical `blk.*` names and back.
//!
//! A checkpoint may hold the same model in several spellings: llama.cpp or Hugging Face names,
//! experts one by one, stacked, or with gate and up fused, the key/value expansion `kv_b` fused or
//! split per head. Each source tensor has one [`Role`]; the [`Catalog`](crate::Catalog) assembles
//! the canonical tensors from the roles.
//!
//! **Invariant:** no two source tensors may feed the same rows of a canonical tensor: that is an
//! error which names both, never a silent choice.
//!
//! Sources: the tensor names of llama.cpp's architectures `deepseek2` and `glm4moe`, and the module
//! names of transformers' `glm4_moe_lite`, `glm4_moe` and `deepseek_v2`.

use std::sync::Arc;

use crate::error::Result;
use crate::names::catalog::Catalog;
use crate::source::TensorSource;

/// What is needed to split a fused `kv_b` (rows per head: keys, then values). All zero for a
/// model without latent attention.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SplitDims {
    /// Number of attention heads.
    pub n_heads: usize,
    /// Key rows of each head (the part without rotary position).
    pub qk_nope: usize,
    /// Value rows of each head.
    pub v_head: usize,
}

/// Maps the tensors of a source to canonical names.
#[derive(Clone, Debug)]
pub struct TensorNameMapper {
    dims: SplitDims,
    n_layers: usize,
}

impl TensorNameMapper {
    /// A mapper for a model with `n_layers` trunk layers; tensors of later layers (multi-token
    /// prediction) are listed as skipped.
    pub fn new(dims: SplitDims, n_layers: usize) -> TensorNameMapper {
        TensorNameMapper { dims, n_layers }
    }

    /// Builds the catalog of canonical tensors over `source`. Reads no weights.
    ///
    /// # Errors
    /// When two tensors provide the same canonical one (fused and split at once), expert indices
    /// have gaps or differ in shape, a fused tensor cannot be split, or a tensor is empty.
    pub fn map(&self, source: Arc<dyn TensorSource>) -> Result<Catalog> {
        Catalog::assemble(source, self)
    }

    /// Dimensions used to split a fused `kv_b`.
    pub fn dims(&self) -> SplitDims {
        self.dims
    }

    /// What the tensor called `name` in a file is.
    pub(crate) fn role(&self, name: &str) -> Role {
        if let Some(canonical) = global_role(name) {
            return canonical;
        }
        let (layer, stem, hugging_face) = if let Some(rest) = name.strip_prefix("blk.") {
            let Some((layer, stem)) = split_number(rest) else { return Role::Unknown };
            (layer, stem, false)
        } else {
            let rest = name.strip_prefix("model.").unwrap_or(name);
            let Some(rest) = rest.strip_prefix("layers.") else { return Role::Unknown };
            let Some((layer, stem)) = split_number(rest) else { return Role::Unknown };
            (layer, stem, true)
        };
        if layer >= self.n_layers || stem == "self_attn.rotary_emb.inv_freq" {
            return Role::Skipped;
        }
        if hugging_face { hf_block_role(layer, stem) } else { gguf_block_role(layer, stem) }
    }
}

/// The part a source tensor plays in the canonical model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The canonical tensor itself.
    Whole(String),
    /// One expert of a stacked canonical tensor.
    Expert { name: String, expert: usize },
    /// One expert's gate and up halves, gate rows first.
    ExpertGateUp { gate: String, up: String, expert: usize },
    /// Gate and up halves of one matrix or of every matrix of a stack, gate rows first.
    GateUp { gate: String, up: String },
    /// Per head key rows, then value rows.
    KvB { key: String, value: String },
    /// Beyond the trunk, or a buffer that is computed.
    Skipped,
    /// Not a name we know.
    Unknown,
}

/// Tensors outside of the blocks: canonical name, Hugging Face name.
const GLOBAL: [(&str, &str); 3] = [
    ("token_embd.weight", "model.embed_tokens.weight"),
    ("output_norm.weight", "model.norm.weight"),
    ("output.weight", "lm_head.weight"),
];

/// Tensors of a block in the order we write them: canonical stem, Hugging Face stem.
/// Projections may have a `.bias` beside the `.weight`.
const BLOCK: [(&str, &str); 27] = [
    ("attn_norm", "input_layernorm"),
    ("attn_q_a", "self_attn.q_a_proj"),
    ("attn_q_a_norm", "self_attn.q_a_layernorm"),
    ("attn_q_b", "self_attn.q_b_proj"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_q_norm", "self_attn.q_norm"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_k_norm", "self_attn.k_norm"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_kv_a_mqa", "self_attn.kv_a_proj_with_mqa"),
    ("attn_kv_a_norm", "self_attn.kv_a_layernorm"),
    ("attn_kv_b", "self_attn.kv_b_proj"),
    ("attn_k_b", "self_attn.kv_b_proj"),
    ("attn_v_b", "self_attn.kv_b_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_gate_inp", "mlp.gate"),
    ("exp_probs_b", "mlp.gate.e_score_correction_bias"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
    ("ffn_gate_exps", "mlp.experts"),
    ("ffn_up_exps", "mlp.experts"),
    ("ffn_down_exps", "mlp.experts"),
    ("ffn_gate_shexp", "mlp.shared_experts.gate_proj"),
    ("ffn_up_shexp", "mlp.shared_experts.up_proj"),
    ("ffn_down_shexp", "mlp.shared_experts.down_proj"),
];

/// The name a canonical tensor has in a GGUF of the given `general.architecture`.
///
/// llama.cpp's `glm4moe` calls the norm before the feed-forward part `post_attention_norm`; every
/// other architecture we write uses the canonical name. Both are understood on reading.
///
/// ```
/// use gguf_bitnet::gguf_name;
/// assert_eq!(gguf_name("deepseek2", "blk.0.ffn_norm.weight"), "blk.0.ffn_norm.weight");
/// assert_eq!(gguf_name("glm4moe", "blk.0.ffn_norm.weight"), "blk.0.post_attention_norm.weight");
/// ```
pub fn gguf_name(architecture: &str, canonical: &str) -> String {
    if architecture == "glm4moe"
        && let Some(block) = canonical.strip_suffix(".ffn_norm.weight")
    {
        return format!("{block}.post_attention_norm.weight");
    }
    canonical.to_owned()
}

/// The Hugging Face name of a canonical tensor, or `None` when there is none.
///
/// A stacked tensor needs the expert index and gives that expert's own tensor. Both halves of a
/// split `kv_b` give the name of the fused tensor.
///
/// ```
/// use gguf_bitnet::hf_name;
/// let name = hf_name("blk.1.ffn_up_exps.weight", Some(7));
/// assert_eq!(name.as_deref(), Some("model.layers.1.mlp.experts.7.up_proj.weight"));
/// assert_eq!(hf_name("output.weight", None).as_deref(), Some("lm_head.weight"));
/// ```
pub fn hf_name(canonical: &str, expert: Option<usize>) -> Option<String> {
    if let Some((_, hf)) = GLOBAL.iter().find(|(gguf, _)| *gguf == canonical) {
        return Some((*hf).to_owned());
    }
    let (layer, stem) = split_number(canonical.strip_prefix("blk.")?)?;
    let (stem, suffix) = stem.rsplit_once('.')?;
    if let Some(proj) = expert_projection(stem) {
        let expert = expert?;
        return (suffix == "weight").then(|| format!("model.layers.{layer}.mlp.experts.{expert}.{proj}_proj.weight"));
    }
    let (_, hf) = BLOCK.iter().find(|(gguf, _)| *gguf == stem)?;
    match (stem, suffix) {
        ("exp_probs_b", "bias") => Some(format!("model.layers.{layer}.{hf}")),
        ("exp_probs_b", _) => None,
        (_, "weight" | "bias") => Some(format!("model.layers.{layer}.{hf}.{suffix}")),
        _ => None,
    }
}

/// Sort key of a canonical name: the order in which tensors are listed and written.
pub(crate) fn order_key(canonical: &str) -> (usize, usize, usize, String) {
    if let Some(position) = GLOBAL.iter().position(|(gguf, _)| *gguf == canonical) {
        return (0, 0, position, String::new());
    }
    match canonical.strip_prefix("blk.").and_then(split_number) {
        Some((layer, stem)) => {
            let bare = stem.rsplit_once('.').map_or(stem, |(bare, _)| bare);
            let place = BLOCK.iter().position(|(gguf, _)| *gguf == bare).unwrap_or(BLOCK.len());
            // A bias follows its weight: "weight" must sort first.
            (1, layer, place, if stem.ends_with(".weight") { String::new() } else { stem.into() })
        }
        None => (2, 0, 0, canonical.to_owned()),
    }
}

/// Splits `12.rest` into the number and the rest. Leading zeros, signs and overlong numbers are
/// no numbers of ours.
fn split_number(text: &str) -> Option<(usize, &str)> {
    let (digits, rest) = text.split_once('.')?;
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    if !plain || (digits.len() > 1 && digits.starts_with('0')) || rest.is_empty() {
        return None;
    }
    Some((digits.parse().ok()?, rest))
}

fn expert_projection(stem: &str) -> Option<&'static str> {
    match stem {
        "ffn_gate_exps" => Some("gate"),
        "ffn_up_exps" => Some("up"),
        "ffn_down_exps" => Some("down"),
        _ => None,
    }
}

fn global_role(name: &str) -> Option<Role> {
    for (gguf, hf) in GLOBAL {
        // A checkpoint of the bare trunk leaves out the leading `model.`; a bare `output...` is
        // llama.cpp's.
        if name == gguf || name == hf || hf.strip_prefix("model.") == Some(name) {
            return Some(Role::Whole(gguf.to_owned()));
        }
    }
    None
}

fn gguf_block_role(layer: usize, stem: &str) -> Role {
    let name = |stem: &str| format!("blk.{layer}.{stem}.weight");
    match stem {
        "attn_kv_b.weight" => {
            return Role::KvB { key: name("attn_k_b"), value: name("attn_v_b") };
        }
        "ffn_gate_up_exps.weight" => {
            return Role::GateUp { gate: name("ffn_gate_exps"), up: name("ffn_up_exps") };
        }
        "post_attention_norm.weight" => return Role::Whole(name("ffn_norm")),
        "exp_probs_b.bias" | "exp_probs_b.weight" | "exp_probs_b" => {
            return Role::Whole(format!("blk.{layer}.exp_probs_b.bias"));
        }
        _ => {}
    }
    let Some((bare, suffix)) = stem.rsplit_once('.') else { return Role::Unknown };
    if suffix != "weight" && suffix != "bias" {
        return Role::Unknown;
    }
    if BLOCK.iter().any(|(gguf, _)| *gguf == bare) {
        return Role::Whole(format!("blk.{layer}.{stem}"));
    }
    // Old files keep experts apart: `blk.1.ffn_up.7.weight`.
    for (proj, stacked) in [("ffn_gate.", "ffn_gate_exps"), ("ffn_up.", "ffn_up_exps"), ("ffn_down.", "ffn_down_exps")]
    {
        if let Some((expert, "weight")) = stem.strip_prefix(proj).and_then(split_number) {
            return Role::Expert { name: name(stacked), expert };
        }
    }
    Role::Unknown
}

fn hf_block_role(layer: usize, stem: &str) -> Role {
    let name = |stem: &str| format!("blk.{layer}.{stem}.weight");
    match stem {
        "self_attn.kv_b_proj.weight" => {
            return Role::KvB { key: name("attn_k_b"), value: name("attn_v_b") };
        }
        "mlp.gate.e_score_correction_bias" => {
            return Role::Whole(format!("blk.{layer}.exp_probs_b.bias"));
        }
        "mlp.gate_up_proj.weight" => {
            return Role::GateUp { gate: name("ffn_gate"), up: name("ffn_up") };
        }
        "mlp.shared_experts.gate_up_proj.weight" => {
            return Role::GateUp { gate: name("ffn_gate_shexp"), up: name("ffn_up_shexp") };
        }
        _ => {}
    }
    if let Some(rest) = stem.strip_prefix("mlp.experts.") {
        return hf_expert_role(layer, rest);
    }
    let Some((bare, suffix)) = stem.rsplit_once('.') else { return Role::Unknown };
    if suffix != "weight" && suffix != "bias" {
        return Role::Unknown;
    }
    match BLOCK.iter().find(|(_, hf)| *hf == bare) {
        Some((gguf, _)) => Role::Whole(format!("blk.{layer}.{gguf}.{suffix}")),
        None => Role::Unknown,
    }
}

/// `rest` is what follows `mlp.experts.`: `7.up_proj.weight`, or a stack such as `gate_up_proj`,
/// saved as a bare parameter or as a module's `.weight`.
fn hf_expert_role(layer: usize, rest: &str) -> Role {
    let name = |proj: &str| format!("blk.{layer}.ffn_{proj}_exps.weight");
    if let Some((expert, proj)) = split_number(rest) {
        return match proj {
            "gate_proj.weight" => Role::Expert { name: name("gate"), expert },
            "up_proj.weight" => Role::Expert { name: name("up"), expert },
            "down_proj.weight" => Role::Expert { name: name("down"), expert },
            "gate_up_proj.weight" => Role::ExpertGateUp { gate: name("gate"), up: name("up"), expert },
            _ => Role::Unknown,
        };
    }
    match rest.strip_suffix(".weight").unwrap_or(rest) {
        "gate_up_proj" => Role::GateUp { gate: name("gate"), up: name("up") },
        "gate_proj" => Role::Whole(name("gate")),
        "up_proj" => Role::Whole(name("up")),
        "down_proj" => Role::Whole(name("down")),
        _ => Role::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapper() -> TensorNameMapper {
        TensorNameMapper::new(SplitDims { n_heads: 4, qk_nope: 8, v_head: 8 }, 47)
    }

    fn whole(name: &str) -> Role {
        Role::Whole(name.to_owned())
    }

    #[test]
    fn both_spellings_of_every_plain_tensor_meet() {
        let mut seen = 0;
        for (gguf, _) in BLOCK {
            for suffix in ["weight", "bias"] {
                let canonical = format!("blk.46.{gguf}.{suffix}");
                let Some(hf) = hf_name(&canonical, None) else { continue };
                if gguf.starts_with("attn_") && hf.contains("kv_b_proj") {
                    continue;
                }
                assert_eq!(mapper().role(&hf), whole(&canonical), "{hf}");
                assert_eq!(mapper().role(&canonical), whole(&canonical));
                seen += 1;
            }
        }
        assert!(seen > 30, "{seen}");
        for (gguf, hf) in GLOBAL {
            assert_eq!(mapper().role(gguf), whole(gguf));
            assert_eq!(mapper().role(hf), whole(gguf));
            assert_eq!(hf_name(gguf, None).as_deref(), Some(hf));
        }
        assert_eq!(mapper().role("embed_tokens.weight"), whole("token_embd.weight"));
        assert_eq!(mapper().role("layers.0.input_layernorm.weight"), whole("blk.0.attn_norm.weight"));
    }

    #[test]
    fn experts_come_one_by_one_stacked_or_fused() {
        let name = || "blk.2.ffn_up_exps.weight".to_owned();
        let gate = || "blk.2.ffn_gate_exps.weight".to_owned();
        for (spelling, role) in [
            ("model.layers.2.mlp.experts.9.up_proj.weight", Role::Expert { name: name(), expert: 9 }),
            ("blk.2.ffn_up.9.weight", Role::Expert { name: name(), expert: 9 }),
            ("blk.2.ffn_up_exps.weight", Role::Whole(name())),
            ("model.layers.2.mlp.experts.up_proj", Role::Whole(name())),
            ("model.layers.2.mlp.experts.up_proj.weight", Role::Whole(name())),
            ("model.layers.2.mlp.experts.gate_up_proj", Role::GateUp { gate: gate(), up: name() }),
            ("blk.2.ffn_gate_up_exps.weight", Role::GateUp { gate: gate(), up: name() }),
            (
                "model.layers.2.mlp.experts.3.gate_up_proj.weight",
                Role::ExpertGateUp { gate: gate(), up: name(), expert: 3 },
            ),
        ] {
            assert_eq!(mapper().role(spelling), role, "{spelling}");
        }
    }

    #[test]
    fn layers_beyond_the_trunk_are_skipped_and_strangers_are_unknown() {
        for name in [
            "blk.47.nextn.eh_proj.weight",
            "blk.47.attn_norm.weight",
            "model.layers.47.eh_proj.weight",
            "model.layers.48.mlp.experts.0.up_proj.weight",
            "model.layers.0.self_attn.rotary_emb.inv_freq",
        ] {
            assert_eq!(mapper().role(name), Role::Skipped, "{name}");
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
            "rope_freqs.weight",
            "model.layers.0.mlp.experts.0.up_proj.scales",
            "model.layers.0.mlp.experts",
            "model.visual.patch_embed.weight",
            "blk.99999999999999999999999.attn_norm.weight",
        ] {
            assert_eq!(mapper().role(name), Role::Unknown, "{name}");
        }
    }

    #[test]
    fn the_norm_of_glm4moe_is_read_in_both_spellings() {
        let canonical = "blk.5.ffn_norm.weight";
        let written = gguf_name("glm4moe", canonical);
        assert_eq!(written, "blk.5.post_attention_norm.weight");
        assert_eq!(mapper().role(&written), whole(canonical));
        assert_eq!(mapper().role(canonical), whole(canonical));
    }

    #[test]
    fn order_is_globals_then_blocks_then_parts() {
        let mut names = vec![
            "blk.10.attn_norm.weight",
            "blk.2.ffn_down_shexp.weight",
            "blk.2.attn_q.bias",
            "blk.2.attn_q.weight",
            "blk.2.attn_norm.weight",
            "output.weight",
            "output_norm.weight",
            "token_embd.weight",
        ];
        names.sort_by_key(|name| order_key(name));
        assert_eq!(
            names,
            [
                "token_embd.weight",
                "output_norm.weight",
                "output.weight",
                "blk.2.attn_norm.weight",
                "blk.2.attn_q.weight",
                "blk.2.attn_q.bias",
                "blk.2.ffn_down_shexp.weight",
                "blk.10.attn_norm.weight",
            ]
        );
    }

    proptest::proptest! {
        #[test]
        fn no_name_panics(name in "(blk|model\\.layers|layers)?\\.?[0-9]{0,22}\\.?[a-z._0-9]{0,30}") {
            let _ = mapper().role(&name);
            let _ = hf_name(&name, Some(3));
            let _ = order_key(&name);
        }
    }
}
