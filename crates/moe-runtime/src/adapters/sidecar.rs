//! The residual sidecar: a low-rank correction of the residual stream beside the feed-forward part of a layer.
//!
//! ```text
//! n  = rms_norm(x)                    the input of the feed-forward part
//! x += ffn(n)
//! x += s B (A n)                      A [rank, hidden], B [hidden, rank]
//! ```
//! It is an addition to a matrix of zeros `[hidden, hidden]`, `blk.N.ffn_sidecar.weight`, which no file of a model has: programs
//! that do not know the name find no such matrix, and refuse the adapter.

/// The name of the matrix of zeros within its layer.
pub const SIDECAR: &str = "ffn_sidecar.weight";

/// The name of the matrix of zeros of layer `index`.
#[must_use]
pub fn sidecar_name(index: usize) -> String {
    format!("blk.{index}.{SIDECAR}")
}

/// The layer of a sidecar; `None` for the name of another matrix.
#[must_use]
pub fn sidecar_layer(tensor: &str) -> Option<usize> {
    let index = tensor.strip_prefix("blk.")?.strip_suffix(SIDECAR)?.strip_suffix('.')?.parse().ok()?;
    // Numbers have one spelling, so that no layer has two names.
    (sidecar_name(index) == tensor).then_some(index)
}

#[cfg(test)]
mod tests {
    use super::{sidecar_layer, sidecar_name};

    #[test]
    fn a_layer_has_one_name() {
        for index in [0, 7, 46] {
            assert_eq!(sidecar_layer(&sidecar_name(index)), Some(index));
        }
        for other in ["blk.01.ffn_sidecar.weight", "blk.+1.ffn_sidecar.weight", "blk..ffn_sidecar.weight"] {
            assert_eq!(sidecar_layer(other), None);
        }
        for other in
            ["blk.1.ffn_up.weight", "ffn_sidecar.weight", "blk.1ffn_sidecar.weight", "blk.1.ffn_sidecar.weight.x"]
        {
            assert_eq!(sidecar_layer(other), None);
        }
    }
}
