//! The prefixes that wrappers put before the names of a checkpoint, taken off.
//!
//! ```text
//! module.model.layers.0.x            DistributedDataParallel
//! model.layers.0._orig_mod.x         torch.compile, of the model or of a part of it
//! model.language_model.layers.0.x    the language model of a multimodal one
//! language_model.model.layers.0.x    the same, in its older form
//! ```

/// Segments that wrap a module anywhere in a name; no module of a model is called so.
const ANYWHERE: [&str; 4] = ["module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"];

/// Segments before the language model, in any order and number.
const IN_FRONT: [&str; 5] = ["model", "language_model", "text_model", "base_model", "transformer"];

/// First segments of the parts of a multimodal model that take pictures or sound.
const OTHER_SENSES: [&str; 8] = [
    "visual",
    "vision_tower",
    "vision_model",
    "vision_encoder",
    "multi_modal_projector",
    "mm_projector",
    "audio_tower",
    "image_newline",
];

/// The name without wrappers: `layers.0.input_layernorm.weight`, `embed_tokens.weight`, `lm_head.weight`.
pub(super) fn unwrapped(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for segment in name.split('.') {
        let wraps = ANYWHERE.contains(&segment) || (out.is_empty() && IN_FRONT.contains(&segment));
        if !wraps {
            if !out.is_empty() {
                out.push('.');
            }
            out.push_str(segment);
        }
    }
    out
}

/// Whether the tensor of this unwrapped name belongs to a part that the language model does without.
pub(super) fn is_other_sense(unwrapped: &str) -> bool {
    OTHER_SENSES.contains(&unwrapped.split('.').next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrappers_are_taken_off_in_every_combination() {
        for prefix in [
            "",
            "model.",
            "module.model.",
            "_orig_mod.model.",
            "module._orig_mod.model.",
            "_orig_mod.module.model.",
            "model.language_model.",
            "language_model.model.",
            "model.language_model.model.",
            "module.language_model.model.",
            "_fsdp_wrapped_module.model._orig_mod.",
            "base_model.model.model.",
        ] {
            assert_eq!(unwrapped(&format!("{prefix}layers.3.mlp.gate.weight")), "layers.3.mlp.gate.weight", "{prefix}");
        }
        assert_eq!(unwrapped("model.layers.0._orig_mod.mlp.module.gate.weight"), "layers.0.mlp.gate.weight");
        assert_eq!(unwrapped("language_model.lm_head.weight"), "lm_head.weight");
        assert_eq!(unwrapped("model.layers.0.model.weight"), "layers.0.model.weight", "only in front");
        assert_eq!(unwrapped("model.model"), "");
        assert!(is_other_sense("visual.blocks.0.attn.qkv.weight") && !is_other_sense("layers.0.visual.weight"));
    }
}
