//! Chat templates against goldens rendered by Jinja2 as `transformers` sets it up (fixtures/generators/gen_chat.py),
//! and against malicious templates.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use moe_runtime::TextError;
use moe_runtime::{ChatRequest, ChatTemplate, Error, Tokenizer};
use serde_json::{Value as Json, json};

fn read(name: &str) -> String {
    std::fs::read_to_string(fixtures::path(name)).unwrap()
}

/// A request in the shape of the goldens: `add_generation_prompt` is on unless it says otherwise.
pub(crate) fn request(input: &Json) -> ChatRequest {
    let flag = |key: &str| input.get(key).and_then(Json::as_bool);
    let list = |key: &str| input.get(key).and_then(Json::as_array).cloned().unwrap_or_default();
    ChatRequest {
        messages: list("messages"),
        tools: list("tools"),
        documents: list("documents"),
        enable_thinking: flag("enable_thinking"),
        clear_thinking: flag("clear_thinking"),
        add_generation_prompt: flag("add_generation_prompt").unwrap_or(true),
        now_unix_s: None,
    }
}

#[test]
fn the_model_s_template_renders_every_golden_byte_for_byte() {
    let template = ChatTemplate::from_source(&read("goldens/chat/glm-4.7-flash.jinja")).unwrap();
    let goldens: serde_json::Map<String, Json> = serde_json::from_str(&read("goldens/chat/goldens.json")).unwrap();
    assert_eq!(goldens.len(), 11);
    for (name, case) in &goldens {
        let got = template.render(&request(&case["input"])).unwrap();
        assert_eq!(got, case["rendered"].as_str().unwrap(), "{name}");
    }
}

#[test]
fn histories_as_clients_send_them_are_rendered_as_the_template_means_them() {
    let template = ChatTemplate::from_source(&read("goldens/chat/glm-4.7-flash.jinja")).unwrap();
    let goldens: serde_json::Map<String, Json> = serde_json::from_str(&read("goldens/chat/histories.json")).unwrap();
    assert_eq!(goldens.len(), 5);
    for (name, case) in &goldens {
        let got = template.render(&request(&case["input"])).unwrap();
        assert_eq!(got, case["rendered"].as_str().unwrap(), "{name}");
    }
}

fn glm(messages: Json) -> String {
    let template = ChatTemplate::from_source(&read("goldens/chat/glm-4.7-flash.jinja")).unwrap();
    template.render(&request(&json!({"messages": messages}))).unwrap()
}

#[test]
fn messages_are_brought_into_shape_first() {
    assert_eq!(
        glm(json!([{"role": "developer", "content": "D"}, {"role": "user", "content": "u"}])),
        "[gMASK]<sop><|system|>D<|user|>u<|assistant|><think>",
        "a developer is a system, not dropped"
    );
    let call = |arguments: Json, content: Json| {
        glm(json!([
            {"role": "user", "content": "w?"},
            {"role": "assistant", "content": content, "tool_calls": [{"function": {"name": "f", "arguments": arguments}}]},
            {"role": "tool", "content": [{"type": "text", "text": "{\"t\""}, {"type": "text", "text": ":1}"}]},
        ]))
    };
    let want = "[gMASK]<sop><|user|>w?<|assistant|></think><tool_call>f<arg_key>city</arg_key><arg_value>Zürich</arg_value>\
                <arg_key>n</arg_key><arg_value>[1, 2.0]</arg_value></tool_call><|observation|><tool_response>{\"t\":1}\
                </tool_response><|assistant|><think>";
    assert_eq!(call(json!({"city": "Zürich", "n": [1, 2.0]}), Json::Null), want);
    assert_eq!(call(json!("{\"city\": \"Zürich\", \"n\": [1, 2.0]}"), json!("")), want, "arguments as JSON text");
}

/// The template of the mini teacher, against the format string of the script that made its training prompts.
#[test]
fn the_teacher_s_template_gives_the_prompts_it_was_trained_on() {
    let tokenizer = Tokenizer::from_dir(&fixtures::path("craftsman-mini")).unwrap();
    let template = ChatTemplate::from_source(tokenizer.chat_template().unwrap()).unwrap();
    let mut n = 0;
    for line in read("suites/suite-200.jsonl").lines() {
        let case: Json = serde_json::from_str(line).unwrap();
        let (system, user) = (case["system"].as_str().unwrap(), case["user"].as_str().unwrap());
        let got = template.render(&ChatRequest::user(Some(system), user)).unwrap();
        assert_eq!(got, format!("[gMASK]<sop><|system|>\n{system}<|user|>\n{user}<|assistant|>\n"));
        n += 1;
    }
    assert_eq!(n, 200);
    let turns = json!({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
        "add_generation_prompt": false});
    let got = template.render(&request(&turns)).unwrap();
    assert_eq!(got, "[gMASK]<sop><|user|>\na<|assistant|>\nb<|endoftext|>");
}

#[test]
fn python_s_ways_of_printing_and_stripping() {
    let render = |source: &str| {
        let template = ChatTemplate::from_source(source).unwrap().with_tokens("<s>", "</s>");
        template.render(&request(&json!({"messages": [{"role": "user", "content": "x"}]}))).unwrap()
    };
    for (source, want) in [
        ("{{ none }} {{ true }} {{ 1.0 }} {{ 1e16 }} {{ 3 }}", "None True 1.0 1e+16 3"),
        ("{{ ['a', \"it's\", none, 2.5] }}", "['a', \"it's\", None, 2.5]"),
        ("{{ {'k': [true]} }}", "{'k': [True]}"),
        ("{{ nothing }}|{{ nothing is defined }}", "|False"),
        ("{{ '\u{1c} a \\n'.strip() }}|{{ 'xxaxx'.strip('x') }}|{{ 'a,b'.split(',')[-1] }}", "a|a|b"),
        ("{{ bos_token }}{{ eos_token }}", "<s></s>"),
        ("{{ {'b': 1, 'a': '<é>'} | tojson }}", "{\"b\": 1, \"a\": \"<é>\"}"),
        ("{{ 'é' | tojson(ensure_ascii=True) }}", "\"\\u00e9\""),
        ("{{ [1] | tojson(indent=2) }}", "[\n  1\n]"),
        ("{% for m in messages %}{{ m.get('name', 'none') }}{% break %}{% endfor %}", "none"),
        ("a\n{% if true %}\n  b\n  {% endif %}\nc\n", "a\n  b\nc"),
        ("{{ strftime_now is defined }}", "False"),
        ("{{ 'abc'.count('') }} {{ 'aXbX'.count('X') }} {{ [1, 2, 1].count(1) }}", "4 2 2"),
        ("{{ 'a\nb' | indent(width=2, first=true) }}", "  a\n  b"),
        ("{{ '%05d' | format(3) }} {{ '{:>4}'.format(1) }} {{ '%d' | format(123456789) }}", "00003    1 123456789"),
        ("{{ [3, 1, 2] | sort(reverse=true) | join('-') }} {{ [1, 2, 3] | batch(2) | list }}", "3-2-1 [[1, 2], [3]]"),
        ("{{ ['a'] | map('upper') | list }} {{ [1, 900000] | select('gt', 800000) | list }}", "['A'] [900000]"),
    ] {
        assert_eq!(render(source), want, "{source}");
    }
}

#[test]
fn a_refusal_speaks_in_the_template_s_words() {
    let template = ChatTemplate::from_source("{{ raise_exception('roles must alternate') }}").unwrap();
    let error = template.render(&ChatRequest::default()).unwrap_err();
    assert!(
        matches!(&error, Error::Text(TextError::ChatRefused { message }) if message == "roles must alternate"),
        "{error}"
    );
}

#[test]
fn templates_that_mean_harm_end_in_errors() {
    let deep = format!("{}{}", "{{ ".to_owned() + &"(".repeat(5000), ")".repeat(5000) + " }}");
    // A value a hundred thousand levels deep: using or freeing it by recursion needs far more than a usual stack.
    let many = |c: &str| c.repeat(100);
    let deeper = format!(
        "{{% set ns = namespace(v=[]) %}}{{% for a in range(1000) %}}{{% set ns.v = {}ns.v{} %}}{{% endfor %}}",
        many("["),
        many("]")
    );
    for source in [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% set c = a * b %}{% endfor %}{% endfor %}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% set ns = namespace(s='x' * 100000) %}{% for a in range(99999) %}{{ ns.s }}{% endfor %}",
        "{% set ns = namespace(v=[]) %}{% for a in range(3000) %}{% set ns.v = [ns.v] %}{% endfor %}{{ ns.v | tojson }}",
        "{% set ns = namespace(v=[]) %}{% for a in range(3000) %}{% set ns.v = [ns.v] %}{% endfor %}{{ ns.v }}",
        &format!("{deeper}{{{{ ns.nothing.x }}}}"),
        &format!("{deeper}{{{{ (ns.v == [ns.v]) ~ (ns.v | string | length) }}}}{{{{ ns.nothing.x }}}}"),
        &format!("{deeper}{{% for a in range(99999) %}}{{% set b = a * a * a %}}{{% endfor %}}"),
        "{{ 'a' | indent(99999999999) }}",
        "{{ 'a' | indent(width=99999999999) }}",
        "{{ [1, 2] | batch(99999999999, 1) | list }}",
        "{{ [1, 2] | slice(99999999999) | list }}",
        "{{ '%9999999999d' | format(1) }}",
        "{{ '%*d' | format(9999999999, 1) }}",
        "{{ '{:>99999999999}'.format(1) }}",
        "{{ '{:>{}}'.format(1, 99999999999) }}",
        "{{ [1] * 1000000000 }}",
        "{{ ([1] * 1000000000) | tojson }}",
        "{{ ([1] * 1000000000) | list | length }}",
        "{{ ([1] * 1000000000) | sum }}",
        "{{ ([1] * 1000000000) | join('x') }}",
        "{{ ([1] * 1000000000).count(1) }}",
        "{{ ([1] * 99999999) == ([1] * 99999999) }}",
        "{{ ([1] * 99999999) < ([1] * 99999999) }}",
        "{{ 2 in [1] * 99999999 }}",
        "{{ ([1] * 99999999) is eq([1]) }}",
        "{{ [1] * 99999999 | reverse | first }}",
        "{{ ([1] * 99999999) | reverse | first }}",
        "{{ ([1] * 99999999) | list | length }}",
        "{{ ([1] * 99999999) ~ '' }}",
        "{{ ','.join(['a'] * 99999999) }}",
        "{% for x in [1] * 99999999 %}{% endfor %}",
        "{% set ns = namespace(v=[1]) %}{% for a in range(60) %}{% set ns.v = [ns.v, ns.v] %}{% endfor %}{{ ns.v == [1] }}",
        "{% set ns = namespace(v=[1]) %}{% for a in range(60) %}{% set ns.v = [ns.v, ns.v] %}{% endfor %}{{ ns.v }}",
        "{% set ns = namespace(v=[1]) %}{% for a in range(60) %}{% set ns.v = [ns.v, ns.v] %}{% endfor %}{{ [ns.v] | unique | list }}",
        "{% set ns = namespace(s='x') %}{% for a in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
        "{% set ns = namespace(s='x') %}{% for a in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
        "{% set ns = namespace(s='x') %}{% for a in range(60) %}{% set ns.s = ns.s.replace('x', 'xx') %}{% endfor %}",
        "{{ ('x\n' * 100000) | indent(60000) | length }}",
        "{{ 'a'.center(60000, 'long') }}",
        "{{ 'a'.ljust(60000, '') }}",
        "{{ range(1000) | list | tojson(indent='x' * 100000) | length }}",
        "{{ range(1000) | list | tojson(separators=('x' * 100000, ':')) | length }}",
        "{{ [[[[[[[[[]]]]]]]]] | tojson(indent='x' * 1000000) | length }}",
        "{{ ('x' * 1000000) | wordwrap(1) | length }}",
        "{{ ('x ' * 1000000).split(' ') | length }}",
        "{{ ('x ' * 1000000).rsplit(none, 999999) | length }}",
        "{{ ('\n' * 1000000).splitlines() | length }}",
        "{% set ns = namespace(v=[1]) %}{% for a in range(60) %}{% set ns.v = [ns.v, ns.v] %}{% endfor %}{{ ns.v in {1: 2} }}",
        "{{ ('\t' * 100000).expandtabs(60000) | length }}",
        "{{ ('{0:>9999}' * 100000).format(1) }}",
        "{{ ('{0}' * 100000).format('x' * 10000) }}",
        "{{ ('%(a)9999d' * 100000) | format(a=1) }}",
        "{{ ('%s' * 10000) % ((('x' * 10000),) * 10000) }}",
        "{% set s = 'é' * 5000000 %}{% set t = 'é' * 5000000 %}{% for i in range(99999) %}{% set u = s == t %}{% endfor %}",
        "{{ debug() }}",
        "{% include '/etc/passwd' %}",
        "{% include 'chat_template' %}",
        "{% include 'chat_template' ignore missing %}",
        "{% extends 'chat_template' %}",
        "{% import 'other' as o %}",
        "{{ nothing.at.all }}",
        "{{ nothing | tojson }}",
        "{% if %}",
        &deep,
        &" ".repeat((1 << 20) + 1),
    ] {
        let outcome = ChatTemplate::from_source(source).and_then(|t| t.render(&ChatRequest::default()));
        let shown = &source[..source.len().min(60)];
        assert!(matches!(outcome, Err(Error::Text(TextError::ChatTemplate { .. }))), "{shown}: {outcome:?}");
    }
}

#[test]
fn documents_reach_the_templates_that_write_them() {
    let source = "{% for d in documents or [] %}[{{ loop.index0 }} {{ d.title }}: {{ d['text'] }}]{% endfor %}{{ documents is none }}";
    let template = ChatTemplate::from_source(source).unwrap();
    let input = json!({"messages": [], "documents": [{"title": "A", "text": "a"}, {"title": "B", "text": "b"}]});
    assert_eq!(template.render(&request(&input)).unwrap(), "[0 A: a][1 B: b]False");
    assert_eq!(template.render(&request(&json!({"messages": []}))).unwrap(), "True");
}

#[test]
fn messages_that_are_none_are_named() {
    let template = ChatTemplate::from_source("x").unwrap();
    let error = template.render(&request(&json!({"messages": [{"content": "x"}]}))).unwrap_err();
    assert!(matches!(error, Error::Text(TextError::ChatMessage { index: 0, .. })), "{error}");
}

/// The budget of instructions is far above the needs of a real template.
#[test]
fn a_long_conversation_with_tools_stays_within_the_budget() {
    let call = json!([{"function": {"name": "f", "arguments": {"a": 1, "b": "x", "c": [1, 2, 3]}}}]);
    let turns = (0..500).flat_map(|i| {
        [
            json!({"role": "user", "content": format!("question {i}")}),
            json!({"role": "assistant", "content": "<think>why</think>answer", "tool_calls": call}),
            json!({"role": "tool", "content": "result"}),
        ]
    });
    let got = glm(turns.collect());
    assert_eq!(got.matches("<|user|>").count(), 500);
}
