//! The shapes of synthetic models: that of GLM-4.7-Flash, a small one, or any `config.json`.

use std::path::Path;

use gguf_bitnet::{MAX_CONFIG_BYTES, StoreError};
use moe_runtime::models::{ModelConfig, keep_layers};
use serde_json::Value;

use crate::error::{Error, Result};

/// A `config.json`, as JSON and as a configuration.
#[derive(Clone, Debug)]
pub struct Shape {
    /// The configuration as JSON, written beside a synthetic checkpoint.
    pub json: Value,
    /// The configuration read from it.
    pub config: ModelConfig,
    /// The name of the model.
    pub name: String,
}

/// The built-in shapes by name, as JSON.
const BUILT_IN: [(&str, &str); 2] =
    [("glm-4.7-flash", include_str!("shapes/glm-4.7-flash.json")), ("mini", include_str!("shapes/mini.json"))];

impl Shape {
    /// Whether `spec` names a shape that needs no file.
    #[must_use]
    pub fn is_built_in(spec: &str) -> bool {
        BUILT_IN.iter().any(|(name, _)| *name == spec)
    }

    /// The shape called `spec` (`glm-4.7-flash` or `mini`), or the one in the file `spec`; with `n_layers`, only that
    /// many layers of it.
    ///
    /// # Errors
    /// [`Error::Shape`] when the file cannot be read or is no configuration of a supported model.
    pub fn open(spec: &str, n_layers: Option<usize>) -> Result<Self> {
        let unusable = |reason: String| Error::Shape { path: spec.to_owned(), reason };
        let (text, name) = match BUILT_IN.iter().find(|(name, _)| *name == spec) {
            Some((name, text)) => ((*text).to_owned(), (*name).to_owned()),
            None => {
                let text = gguf_bitnet::read_text(Path::new(spec), MAX_CONFIG_BYTES).map_err(|error| {
                    let reason = match error.root() {
                        gguf_bitnet::Error::Store(StoreError::Io { source, .. }) => source.to_string(),
                        root => root.to_string(),
                    };
                    unusable(format!("{reason}; give glm-4.7-flash, mini or a config.json"))
                })?;
                let stem = Path::new(spec).file_stem().map_or_else(|| spec.into(), |s| s.to_string_lossy());
                (text, stem.into_owned())
            }
        };
        let mut json: Value = serde_json::from_str(&text).map_err(|e| unusable(e.to_string()))?;
        if let Some(n_layers) = n_layers {
            keep_layers(&mut json, n_layers).map_err(|e| unusable(e.to_string()))?;
        }
        let mut config = ModelConfig::from_hf(&json).map_err(|e| unusable(e.to_string()))?;
        config.reads_mtp = config.has_mtp();
        Ok(Self { json, config, name })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_shapes_are_the_published_ones() {
        let full = Shape::open("glm-4.7-flash", None).unwrap().config;
        assert_eq!((full.n_layers, full.hidden, full.vocab), (47, 2048, 154_880));
        assert_eq!(Shape::open("mini", None).unwrap().config.n_layers, 5);
    }

    #[test]
    fn layers_can_be_cut_and_stretched() {
        for n_layers in [1, 4, 60] {
            assert_eq!(Shape::open("glm-4.7-flash", Some(n_layers)).unwrap().config.n_layers, n_layers);
        }
        assert!(matches!(Shape::open("mini", Some(0)), Err(Error::Shape { .. })));
        assert!(matches!(Shape::open("no/such/file.json", None), Err(Error::Shape { .. })));
    }
}
