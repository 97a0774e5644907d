//! Facts about the model that clients ask for.

use serde_json::{Value, json};

/// A model, as `/v1/models` describes it.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) id: String,
    /// Seconds since 1970 of the file.
    pub(crate) created_s: u64,
    /// Tokens that the model was made for, and tokens of a slot.
    pub(crate) n_ctx_train: usize,
    pub(crate) n_ctx: usize,
    pub(crate) n_params: u64,
    pub(crate) size_bytes: u64,
    /// Type of most weights.
    pub(crate) ftype: String,
    /// The verdict of the gates that is written in the file.
    pub(crate) gates: Option<String>,
    /// A hash that changes when the model does.
    pub(crate) identity: [u8; 32],
    pub(crate) hidden: usize,
    pub(crate) vocab: usize,
}

impl Facts {
    /// The first 12 characters of the identity.
    pub(crate) fn fingerprint(&self) -> String {
        self.identity[..6].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The numbers beside the fields that both vendors know.
    pub(crate) fn meta(&self) -> Value {
        json!({
            "n_ctx_train": self.n_ctx_train,
            "n_ctx": self.n_ctx,
            "n_params": self.n_params,
            "size": self.size_bytes,
            "ftype": self.ftype,
            "n_embd": self.hidden,
            "n_vocab": self.vocab,
            "gates": self.gates,
        })
    }
}
