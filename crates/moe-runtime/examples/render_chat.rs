//! Renders conversations with chat templates: one JSON object a line in, one a line out.
//!
//! In: `template` (the source), `now` (seconds since 1970) and `input` with `messages`, `tools`, `documents`,
//! `enable_thinking`, `clear_thinking` and `add_generation_prompt` (on unless it says otherwise). Out: `rendered`, or `refused` with the
//! reason. The begin and end tokens are `<s>` and `</s>`. `cargo xtask prove templates` compares the lines with Jinja2's.

use std::io::{BufRead, Write};

use moe_runtime::{ChatRequest, ChatTemplate};
use serde_json::{Value, json};

fn main() -> std::io::Result<()> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for line in std::io::stdin().lock().lines() {
        let case: Value = serde_json::from_str(&line?)?;
        let answer = match render(&case) {
            Ok(rendered) => json!({"rendered": rendered}),
            Err(error) => json!({"refused": error.to_string()}),
        };
        writeln!(out, "{answer}")?;
    }
    out.flush()
}

fn render(case: &Value) -> moe_runtime::Result<String> {
    let list = |key: &str| case["input"][key].as_array().cloned().unwrap_or_default();
    let flag = |key: &str| case["input"][key].as_bool();
    let request = ChatRequest {
        messages: list("messages"),
        tools: list("tools"),
        documents: list("documents"),
        enable_thinking: flag("enable_thinking"),
        clear_thinking: flag("clear_thinking"),
        add_generation_prompt: flag("add_generation_prompt").unwrap_or(true),
        now_unix_s: case["now"].as_i64(),
    };
    let template = ChatTemplate::from_source(case["template"].as_str().unwrap_or_default())?;
    template.with_tokens("<s>", "</s>").render(&request)
}
