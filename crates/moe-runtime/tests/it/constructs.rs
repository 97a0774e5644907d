//! Small templates, one per construct, against what Jinja2 makes of them (fixtures/generators/gen_jinja.py).
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use moe_runtime::{ChatRequest, ChatTemplate, Result};
use serde_json::Value as Json;

/// The constructs that differ, each with the reason.
const LIMITS: [(&str, &str); 23] = [
    ("{{ self }}", "the engine has no such variable"),
    ("{{ 'x'.encode('utf-8') }}", "templates have no bytes"),
    ("{{ 'a,b;c'.translate({44: ' '}) }}", "no template needs it"),
    ("{{ -true }}", "the engine's sign takes numbers only"),
    ("{{ range(2) | tojson }}", "a range is a list here"),
    ("{{ 1000 | filesizeformat }}", "no prompt shows file sizes"),
    ("{{ '<b>x</b>' | striptags }}", "no prompt is HTML"),
    ("{{ none[1:] }}", "the engine slices it as an empty list"),
    ("{{ nothing[1:] }}", "the engine slices it as an empty list"),
    ("{{ {'a': 1}[1:] }}", "the engine refuses it"),
    ("{{ namespace(a=1) is mapping }}", "the engine cannot tell it from a dict"),
    ("{% set ns = namespace({'a': 1}, b=2) %}{{ ns.a }}{{ ns.b }}", "the engine takes one argument"),
    ("{% macro f(a, b=a) %}{{ a }}{{ b }}{% endmacro %}{{ f(1) }}", "the engine knows no other parameter there"),
    ("{% macro f(a) %}{% endmacro %}{{ f.arguments }}{{ f.catch_varargs }}", "the engine says it otherwise"),
    ("{{ [1, 2] | random is number }}", "a prompt depends on no chance"),
    ("{{ messages | last | attr('role') }}", "the engine cannot tell a dict from an object"),
    ("{{ '{:.1%}'.format(0.25) }}", "the engine knows no such format"),
    ("{{ '{!r}'.format('a') }}", "the engine knows no such format"),
    ("{{ dict([['a', 1]]).a }}", "the engine takes names and dicts only"),
    ("{{ messages[0].items is defined }}", "the engine has methods only where they are called"),
    ("{{ ('<a>' | safe).upper() + '<' }}", "a method of a text that is safe for HTML gives a plain one"),
    ("{{ 2 ** 200 }}", "the engine's integers have 128 bits"),
    ("{{ namespace(_a=1)._a }}", "the engine hides no names with an underscore"),
];

#[test]
fn each_construct_gives_the_text_of_jinja2_or_both_refuse() {
    let path = fixtures::path("goldens/chat/constructs.json");
    let goldens: Json = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let request = ChatRequest {
        messages: goldens["input"]["messages"].as_array().unwrap().clone(),
        add_generation_prompt: true,
        now_unix_s: goldens["now"].as_i64(),
        ..ChatRequest::default()
    };
    let render = |source: &str| -> Result<String> {
        ChatTemplate::from_source(source)?.with_tokens("<s>", "</s>").render(&request)
    };
    let (mut different, mut limited) = (Vec::new(), 0);
    for case in goldens["cases"].as_array().unwrap() {
        let source = case["source"].as_str().unwrap();
        match (render(source), case["rendered"].as_str()) {
            (Ok(got), Some(want)) if got == want => {}
            (Err(_), None) => {}
            _ if LIMITS.iter().any(|(limit, _)| source == *limit) => limited += 1,
            (got, want) => different.push(format!("{source:?}\n   got {got:?}\n  want {want:?}")),
        }
    }
    assert_eq!(limited, LIMITS.len(), "a limit that no longer holds leaves the list");
    assert!(different.is_empty(), "{} differ:\n{}", different.len(), different.join("\n"));
}
