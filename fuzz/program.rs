//! The server of the `bitnet` program, whose crate is a binary and no library: its files become modules of a fuzz target, whose
//! root has `use program::source::{http, load, output}` for their paths. The crates that these files use are named here.

use {
    anyhow as _, axum as _, base64 as _, blake3 as _, comfy_table as _, fixtures as _, hyper as _, hyper_util as _,
    indicatif as _, mla_attention as _, prometheus_client as _, serde as _, tempfile as _, tokio as _, tower_http as _,
    tracing as _,
};

#[path = "../crates/bitnet-cli/src"]
pub(crate) mod source {
    pub(crate) mod http;
    pub(crate) mod load {
        mod drafts;

        pub(crate) use drafts::Drafts;
    }
    pub(crate) mod output;
}
