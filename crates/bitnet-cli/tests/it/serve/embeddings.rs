//! `/v1/embeddings`: by the hidden states of the model, and by a sentence encoder beside it.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use safetensors::SafeTensors;
use serde_json::{Value, json};

use super::client::Server;
use super::running::long_answer;
use crate::common::{bitnet, fixture, student, text};

const ROUTE: &str = "/v1/embeddings";
const ENCODER: &str = "bert-tiny";
/// Texts of several lengths; the last has 240 tokens.
const TEXTS: [&str; 5] = ["the northern bridge", "", "Größe, naïve café 日本語 😀", "b", "LONG"];

fn texts() -> Vec<String> {
    TEXTS.map(|text| text.replace("LONG", &"a ferry to the harbor ".repeat(14))).to_vec()
}

fn until(server: &Server, metric: &str, is: impl Fn(f64) -> bool) {
    let begun = Instant::now();
    while !is(server.metric(metric)) {
        assert!(begun.elapsed() < Duration::from_secs(60), "{metric} stays at {}", server.metric(metric));
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn folder() -> String {
    fixture("goldens/bert-tiny")
}

/// The bits of the vectors of an answer, whose floats or base64 they are.
fn bits(answer: &Value) -> Vec<Vec<u32>> {
    let of = |(i, object): (usize, &Value)| {
        assert_eq!((&object["object"], &object["index"]), (&json!("embedding"), &json!(i)));
        match &object["embedding"] {
            Value::String(code) => {
                let bytes = STANDARD.decode(code).unwrap();
                bytes.as_chunks::<4>().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect()
            }
            floats => {
                floats.as_array().unwrap().iter().map(|x| (x.as_f64().unwrap() as f32).to_bits()).collect::<Vec<u32>>()
            }
        }
    };
    answer["data"].as_array().unwrap_or_else(|| panic!("{answer}")).iter().enumerate().map(of).collect()
}

/// The bits of the vectors that `bitnet embed` gives.
fn by_command(precision: &str) -> Vec<Vec<u32>> {
    let dir = tempfile::tempdir().unwrap();
    let (file, out) = (dir.path().join("texts.json"), dir.path().join("v.safetensors"));
    std::fs::write(&file, json!(texts()).to_string()).unwrap();
    let args = ["embed", "-m", &folder(), "--precision", precision, "--file", text(&file), "-o", text(&out)];
    bitnet(args).done();
    let bytes = std::fs::read(&out).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let values = tensors.tensor("vectors").unwrap().data().as_chunks::<4>().0.to_vec();
    values.chunks(96).map(|row| row.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect()).collect()
}

#[test]
fn vectors_are_those_of_the_command_bit_for_bit() {
    let expected = by_command("q8_0");
    let server = Server::start(&["--embedder", &folder(), "--embedder-precision", "q8_0", "--alias", "mini"]);
    for format in ["float", "base64"] {
        for model in [json!(ENCODER), json!(null), json!(""), json!("text-embedding-3-small")] {
            let body = json!({"input": texts(), "encoding_format": format, "model": model, "dimensions": 96});
            let answer = server.post(ROUTE, &body).json();
            assert!(bits(&answer) == expected, "{format} {model}");
            assert_eq!((&answer["model"], &answer["object"]), (&json!(ENCODER), &json!("list")));
            let usage = &answer["usage"];
            assert!(usage["prompt_tokens"].as_u64().unwrap() > 100 && usage["prompt_tokens"] == usage["total_tokens"]);
        }
    }
    let alone = server.post("/embeddings", &json!({"input": texts()[0]})).json();
    assert!(bits(&alone) == expected[..1]);
    // [CLS], three pieces of a word, [SEP].
    let usage = |input: &str| server.post(ROUTE, &json!({"input": input})).json()["usage"]["prompt_tokens"].clone();
    assert_eq!((usage(""), usage("the")), (json!(2), json!(5)));
    // A longer list than waits at once, in the order of the list.
    let many: Vec<String> = (0..40).map(|i| texts()[i % 5].clone()).collect();
    let answer = server.post(ROUTE, &json!({"input": many})).json();
    assert!(bits(&answer) == (0..40).map(|i| expected[i % 5].clone()).collect::<Vec<_>>());
    assert!(server.metric("bitnet_encoder_tokens_total") > 1000.0);
    assert!(server.metric("bitnet_request_total{route=\"/v1/embeddings\",status=\"200\",finish=\"none\"}") >= 9.0);
    // Other matrices, other bits.
    assert!(by_command("f32") != expected);
}

#[test]
fn the_model_answers_where_its_name_is_given_or_there_is_no_encoder() {
    let body = json!({"input": ["a ferry", [5, 6, 7]], "encoding_format": "base64"});
    let plain = Server::start(&["--alias", "mini"]);
    let expected = plain.post(ROUTE, &body).json();
    assert_eq!((&expected["model"], bits(&expected)[1].len()), (&json!("mini"), 256));
    assert_eq!(plain.get("/v1/models").json()["data"].as_array().unwrap().len(), 1);
    let with_encoder = Server::start(&["--alias", "mini", "--embedder", &folder()]);
    let mut of_model = body;
    of_model["model"] = "mini".into();
    assert_eq!(with_encoder.post(ROUTE, &of_model).json(), expected);
}

#[test]
fn the_encoder_is_listed_beside_the_model() {
    let server = Server::start(&["--embedder", &folder(), "--alias", "mini"]);
    let list = server.get("/v1/models").json();
    let models = list["data"].as_array().unwrap();
    let ids: Vec<&Value> = models.iter().map(|model| &model["id"]).collect();
    assert_eq!(
        (ids, &list["first_id"], &list["last_id"]),
        (vec![&json!("mini"), &json!(ENCODER)], &json!("mini"), &json!(ENCODER))
    );
    let meta = &models[1]["meta"];
    assert_eq!((&meta["n_ctx"], &meta["n_embd"], &meta["n_vocab"]), (&json!(256), &json!(96), &json!(942)));
    assert_eq!((&meta["n_params"], &meta["ftype"], &meta["gates"]), (&json!(252_608), &json!("f32"), &json!(null)));
    assert_eq!(server.get("/v1/models/bert-tiny").json(), models[1]);
    let unknown = server.get("/v1/models/other");
    assert_eq!(unknown.status, 404);
    assert!(unknown.body.contains("`mini` and `bert-tiny`"), "{}", unknown.body);
}

#[test]
fn requests_that_the_encoder_cannot_take_are_refused_in_a_sentence() {
    let server = Server::start(&["--embedder", &folder()]);
    let long = "ferry ".repeat(400);
    let cases = [
        (json!({"input": [1, 2, 3]}), "input", "the sentence encoder reads texts"),
        (json!({"input": ["a", [1, 2]]}), "input", "check_embedding_ctx_length"),
        (json!({"input": []}), "input", "1 to 2048 texts"),
        (json!({}), "input", "missing"),
        (json!({"input": {"a": 1}}), "input", "a text, a list of texts"),
        (json!({"input": "a", "dimensions": 64}), "dimensions", "has to be 96"),
        (json!({"input": "a", "encoding_format": "hex"}), "encoding_format", "base64"),
    ];
    for (body, param, part) in cases {
        let reply = server.post(ROUTE, &body);
        let error = &reply.json()["error"];
        assert_eq!((reply.status, &error["param"]), (400, &json!(param)), "{body}: {error}");
        assert!(error["message"].as_str().unwrap().contains(part), "{body}: {error}");
    }
    let reply = server.post(ROUTE, &json!({"input": ["a", long]}));
    let error = &reply.json()["error"];
    assert_eq!((reply.status, &error["code"]), (400, &json!("context_length_exceeded")), "{error}");
    assert_eq!(error["n_ctx"], 256);
    assert!(error["n_prompt_tokens"].as_u64().unwrap() > 400, "{error}");
    assert_eq!(server.metric("bitnet_encoder_waiting"), 0.0);
}

/// The only slot computes an answer without an end; the encoder answers meanwhile, and the answer goes on while it computes.
#[test]
fn texts_wait_for_no_slot_and_an_answer_goes_on_beside_them() {
    let server = Server::start(&["--embedder", &folder(), "--slots", "1", "-c", "4096"]);
    let (_, running) = long_answer(&server, 4000);
    until(&server, "bitnet_step_seconds_count", |steps| steps > 2.0);
    let many = vec!["a ferry to the harbor ".repeat(14); 256];
    let (mut during, mut before) = (0, server.metric("bitnet_step_seconds_count"));
    std::thread::scope(|scope| {
        let reply = scope.spawn(|| server.post(ROUTE, &json!({"input": many})));
        while !reply.is_finished() {
            let (steps, tokens) =
                (server.metric("bitnet_step_seconds_count"), server.metric("bitnet_encoder_tokens_total"));
            during += u32::from(steps > before && tokens > 0.0);
            before = steps;
        }
        assert_eq!(reply.join().unwrap().status, 200);
    });
    assert!(during > 2, "steps were seen {during} times while texts were encoded");
    assert_eq!(server.metric("bitnet_requests_running"), 1.0, "the answer goes on");
    drop(running);
}

#[test]
fn a_list_that_takes_too_long_ends_and_leaves_nothing_behind() {
    let server = Server::start(&["--embedder", &folder(), "--request-time", "1"]);
    let reply = server.post(ROUTE, &json!({"input": vec!["a ferry to the harbor ".repeat(14); 2048]}));
    assert_eq!((reply.status, &reply.json()["error"]["type"]), (503, &json!("overloaded_error")));
    until(&server, "bitnet_encoder_waiting", |waiting| waiting == 0.0);
    assert_eq!(server.post(ROUTE, &json!({"input": "a"})).status, 200);
}

/// Texts of a key wait as its requests do.
#[test]
fn keys_have_their_limits_at_the_encoder_too() {
    let server = Server::start(&["--embedder", &folder(), "--api-key", "one", "--key-tokens", "20"]);
    let body = json!({"input": "the northern bridge over the river that the ferry crosses"}).to_string();
    let send = || server.send("POST", ROUTE, &[("x-api-key", "one")], body.as_bytes());
    let first = send();
    assert_eq!(first.status, 200, "{first:?}");
    let mut refused = (0..20).map(|_| send()).filter(|reply| reply.status == 429);
    let refused = refused.next().expect("the key has used its tokens");
    assert!(refused.header("retry-after").is_some() && refused.body.contains("20 tokens per minute"), "{refused:?}");
}

#[test]
fn command_lines_that_name_no_encoder_are_refused() {
    let serve = |more: &[&str]| bitnet([&["serve", "-m", student(), "--port", "0"][..], more].concat());
    let alone = serve(&["--embedder-precision", "q8_0"]).usage();
    assert!(alone.contains("--embedder <MODEL>"), "{alone}");
    let same = serve(&["--embedder", &folder(), "--alias", ENCODER]).usage();
    assert!(same.contains("--alias"), "{same}");
    for spec in ["hash", &fixture("craftsman-mini")] {
        let refused = serve(&["--embedder", spec]).refusal();
        assert!(refused.contains("no sentence encoder"), "{refused}");
    }
    let small = serve(&["--embedder", &folder(), "--memory", "9MB"]).refusal();
    assert!(small.contains("the server needs"), "{small}");
}

/// The line of the memory has the encoder, and the sum is larger by it.
#[test]
fn the_memory_of_the_encoder_is_planned() {
    let plan = |more: &[&str]| Server::start(more).metric("bitnet_memory_plan_bytes");
    let (with, without) = (plan(&["--embedder", &folder()]), plan(&[]));
    // At least the file of the weights.
    assert!(with - without > 1_014_312.0, "{with} {without}");
}
