//! The texts that users read, as files under `cmd/`: help pages, messages about wrong command lines, and small results.
//!
//! After an intended change, this writes them again:
//! `TRYCMD=overwrite cargo test --profile checked -p bitnet-cli --test it texts`.

use std::path::Path;

#[test]
fn help_messages_and_small_results_are_those_on_file() {
    trycmd::TestCases::new()
        .register_bin("bitnet", Path::new(env!("CARGO_BIN_EXE_bitnet")))
        .env("COLUMNS", "100")
        .env("HF_HUB_CACHE", "no/such/cache")
        .case("tests/it/cmd/*.trycmd")
        .run();
}
