//! The server of the `bitnet` program, whose crate is a binary and no library: its files become modules of a fuzz target, and
//! [`dialect!`] has the rest of it. The crates that these files use are named here.

use {
    anyhow as _, axum as _, base64 as _, blake3 as _, comfy_table as _, fixtures as _, hyper as _, hyper_util as _,
    indicatif as _, mla_attention as _, prometheus_client as _, serde as _, tempfile as _, tl_kernels as _, tokio as _,
    tower_http as _, tracing as _,
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

/// A fuzz target for one dialect. The files of the program look for each other at the root.
macro_rules! dialect {
    ($dialect:ident) => {
        use http::scripted::{Dialect, Exercise};
        use program::source::{http, load, output};

        thread_local! {
            static EXERCISE: Exercise = Exercise::start();
        }

        libfuzzer_sys::fuzz_target!(|data: &[u8]| {
            EXERCISE.with(|exercise| exercise.input(Dialect::$dialect, data));
        });
    };
}
