//! Another number of layers for a `config.json`.

use serde_json::Value;

use crate::error::Result;
use crate::models::error::ConfigError;
use crate::models::limits::bad;

/// Changes a `config.json` to a model with the first `n_layers` layers, and without the MTP blocks behind them. More layers
/// than it has are added as layers with experts.
///
/// # Errors
/// [`ConfigError::ConfigJson`] when it is no object, [`ConfigError::BadValue`] for 0 layers.
pub fn keep_layers(json: &mut Value, n_layers: usize) -> Result<()> {
    let not_an_object = || ConfigError::ConfigJson { reason: "it is not an object".to_owned() };
    let object = json.as_object_mut().ok_or_else(not_an_object)?;
    if n_layers == 0 {
        return Err(bad("num_hidden_layers", n_layers, "at least one layer is needed"));
    }
    object.insert("num_hidden_layers".into(), n_layers.into());
    object.insert("num_nextn_predict_layers".into(), 0.into());
    for (key, sparse) in [("mlp_layer_types", Value::from("sparse")), ("moe_layer_freq", Value::from(1))] {
        if let Some(Value::Array(list)) = object.get_mut(key) {
            list.truncate(n_layers);
            list.resize(n_layers, sparse);
        }
    }
    if let Some(dense) = object.get("first_k_dense_replace").and_then(Value::as_u64)
        && dense > n_layers as u64
    {
        object.insert("first_k_dense_replace".into(), n_layers.into());
    }
    Ok(())
}
