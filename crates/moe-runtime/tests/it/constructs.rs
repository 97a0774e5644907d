//! Small templates, one per construct, against what Jinja2 makes of them (fixtures/generators/gen_jinja.py).
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use moe_runtime::{ChatRequest, ChatTemplate, Result};
use serde_json::Value as Json;

/// How the templates begin that differ: tuples, `kwargs`, `joiner`, `cycler`, and filters and methods that the engine has not.
const LIMITS: [&str; 26] = [
    r#"{{ {1: 2, none: 3, true: 4} | tojson }}"#,
    r#"{{ 'a-b-c'.partition('-') }} {{ 'a-b-c'.rpar"#,
    r#"{{ 'ab'.center(6) }}|{{ 'ab'.ljust(4) }}|{{ "#,
    r#"{{ '{} {}'.format('a', 1) }} {{ '{0}{1}{0}'."#,
    r#"{{ [1, 2, 3, 4][1:3] }} {{ [1, 2, 3, 4][::-1"#,
    r#"{{ 'x' * 3 }} {{ [1] * 2 }} {{ 3 * 'ab' }} {"#,
    r#"{{ 'x' if false }}|{{ 'x' if true }}|{{ 'x' "#,
    r#"{{ [1, 2, 3] | first }} {{ [1, 2, 3] | last "#,
    r#"{{ 'a\nb\n\nc' | indent }}|{{ 'a\nb' | inden"#,
    r#"{{ '3' | int }} {{ 'x' | int }} {{ 'x' | int"#,
    r#"{{ 'abcdefghij klm' | truncate(8) }} {{ '%s-"#,
    r#"{{ {'a': 1}.get('a') }} {{ {'a': 1}.get('b')"#,
    r#"{% macro f(a) %}{{ a }}{{ varargs }}{% endma"#,
    r#"{% macro f(a) %}{{ a }}{{ kwargs }}{% endmac"#,
    r#"{{ self }}"#,
    r#"{{ lipsum is defined }} {{ cycler is defined"#,
    r#"{% set j = joiner(', ') %}{{ j() }}a{{ j() }"#,
    r#"{% set c = cycler('a', 'b') %}{{ c.next() }}"#,
    r#"{{ 'x'.encode('utf-8') }}"#,
    r#"{{ [1, 2].index(2) }} {{ [1, 2, 1].count(1) "#,
    r#"{{ 'abc'.isidentifier() }} {{ 'a\tb'.expandt"#,
    r#"{{ 3.0.is_integer() }} {{ (5).bit_length() }"#,
    r#"{{ true + 1 }} {{ -true }} {{ 2 * true }} {{"#,
    r#"{{ [] | tojson }} {{ {} | tojson(indent=2) }"#,
    r#"{{ {'a': 2, 'b': 1} | dictsort(by='value') }"#,
    r#"{{ 1000 | filesizeformat }} {{ 'a b c d' | w"#,
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
            _ if LIMITS.iter().any(|limit| source.starts_with(limit)) => limited += 1,
            (got, want) => different.push(format!("{source:?}\n   got {got:?}\n  want {want:?}")),
        }
    }
    assert_eq!(limited, LIMITS.len(), "a limit that no longer holds leaves the list");
    assert!(different.is_empty(), "{} differ:\n{}", different.len(), different.join("\n"));
}
