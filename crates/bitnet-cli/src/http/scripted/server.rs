//! The routes over the script.

use std::convert::Infallible;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, header};
use axum::response::Response;
use gguf_bitnet::read_text;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use moe_runtime::{ChatTemplate, GrammarCompiler, JobQueue, OutputFormat, QueueLimits, SamplerConfig, Tokenizer};
use rlm_embed::encoder::{BaseEmbedder, BertEncoder, Precision};
use serde_json::Value;
use tl_kernels::Pool;

use super::player::{Script, play};
use crate::http::app::App;
use crate::http::engine::{Encoder, Engine, Facts, serve_texts};
use crate::http::routes::routes;
use crate::http::seal::Seal;
use crate::http::settings::Settings;

const SLOTS: usize = 2;
/// Tokens of a prompt and its answer.
const CONTEXT: usize = 2048;
/// Width of the vectors of texts.
const HIDDEN: usize = 8;

/// Control tokens of the mini teacher that the template below does without, and the markup in their place.
const RENAMED: [(&str, &str); 6] = [
    ("[MASK]", "<tool_call>"),
    ("[sMASK]", "</tool_call>"),
    ("<eop>", "<arg_key>"),
    ("<|system|>", "</arg_key>"),
    ("<|observation|>", "<arg_value>"),
    ("[gMASK]", "</arg_value>"),
];

const TEMPLATE: &str = "{% for m in messages %}{% if m.role == 'assistant' %}<|assistant|>\
    {% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}{{ m.content }}\
    {% for c in m.tool_calls or [] %}<tool_call>{{ c.function.name }}{{ c.function.arguments | tojson }}</tool_call>\
    {% endfor %}<|endoftext|>{% else %}<|user|>{{ m.content }}{% endif %}{% endfor %}{% if add_generation_prompt %}\
    <|assistant|>{% if enable_thinking is not defined or enable_thinking %}<think>{% endif %}{% endif %}";

/// The server, and the tokenizer of its clients' texts.
pub(super) struct ScriptedServer {
    pub(super) tokenizer: Tokenizer,
    runtime: tokio::runtime::Runtime,
    service: TowerToHyperService<Router>,
    script: Arc<Script>,
    engine: Arc<Engine>,
    players: Vec<JoinHandle<()>>,
}

/// The answer to a request.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) body: String,
}

impl Reply {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl ScriptedServer {
    pub(super) fn start() -> ScriptedServer {
        let tokenizer = tokenizer();
        let queue = JobQueue::new(QueueLimits::default(), SLOTS);
        let script = Script { vocab: tokenizer.vocab_size(), hidden: HIDDEN, ..Script::default() };
        let script = Arc::new(script);
        let app = Arc::new(App::new(settings()));
        let engine = Arc::new(engine(queue));
        app.ready(engine.clone());
        let (of_player, of_encoder) = ((engine.clone(), script.clone()), (engine.clone(), app.clone()));
        let player = std::thread::spawn(move || play(&of_player.0.queue, &of_player.1));
        let encoder = std::thread::spawn(move || {
            let (engine, app) = of_encoder;
            engine.encoder.iter().for_each(|encoder| serve_texts(encoder, &app, &engine, &AtomicBool::new(false)));
        });
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(2).enable_all().build().expect("threads start");
        let service = TowerToHyperService::new(routes(&app));
        ScriptedServer { tokenizer, runtime, service, script, engine, players: vec![player, encoder] }
    }

    /// Sends a body. Answers to it have the tokens of `script`.
    pub(super) fn post(&self, route: &str, body: &[u8], script: &[u32]) -> Reply {
        *self.script.tokens.lock().unwrap_or_else(PoisonError::into_inner) = script.to_vec();
        let request = Request::post(route)
            .header(header::HOST, "localhost")
            .header(header::CONTENT_LENGTH, body.len())
            .body(Body::from(body.to_vec()))
            .expect("the route is a constant");
        self.runtime.block_on(async {
            let answered: Result<Response, Infallible> = self.service.call(request).await;
            let Ok(response) = answered;
            let status = response.status().as_u16();
            let body = to_bytes(response.into_body(), usize::MAX).await.expect("a body without a connection ends");
            Reply { status, body: String::from_utf8(body.to_vec()).expect("answers are UTF-8") }
        })
    }
}

impl Drop for ScriptedServer {
    fn drop(&mut self) {
        self.engine.close();
        for player in self.players.drain(..) {
            // A player that panicked has failed the request that it played for.
            let _ = player.join();
        }
    }
}

fn settings() -> Settings {
    Settings {
        host: "127.0.0.1".to_owned(),
        port: 0,
        allowed_hosts: Vec::new(),
        keys: Vec::new(),
        // Above the deepest nesting that tests send; longer texts would take their time in the tokenizer.
        max_body_bytes: 24_000,
        max_tokens: CONTEXT,
        request_time: Duration::from_secs(600),
        drain_time: Duration::ZERO,
        vllm_names: false,
        debug_endpoints: false,
        thoughts_in_content: false,
    }
}

fn engine(queue: JobQueue) -> Engine {
    let tokenizer = tokenizer();
    let facts = facts("script", CONTEXT, [HIDDEN, tokenizer.vocab_size()]);
    Engine {
        template: ChatTemplate::of_model(&tokenizer).expect("the template compiles"),
        format: OutputFormat::of_model(&tokenizer),
        grammars: GrammarCompiler::of_model(&tokenizer),
        tokenizer,
        sampling: SamplerConfig::default(),
        seal: Seal::new(&facts.identity),
        facts,
        drafts: None,
        queue,
        encoder: Some(encoder()),
        slots: SLOTS,
        started: Instant::now(),
        planned_bytes: 0,
    }
}

fn facts(id: &str, n_ctx: usize, [hidden, vocab]: [usize; 2]) -> Facts {
    Facts {
        id: id.to_owned(),
        created_s: 0,
        n_ctx_train: n_ctx,
        n_ctx,
        n_params: 0,
        size_bytes: 0,
        ftype: String::new(),
        gates: None,
        identity: [7; 32],
        hidden,
        vocab,
    }
}

/// An encoder of two small layers.
fn encoder() -> Encoder {
    let folder = fixtures::path("goldens/bert-tiny");
    let bert = BertEncoder::load(&folder, Precision::F32, Arc::new(Pool::serial())).expect("the fixture is an encoder");
    let facts = facts("encoder", bert.max_tokens(), [bert.dims(), bert.vocabulary()]);
    Encoder { bert, facts, queue: JobQueue::new(QueueLimits::default(), 1) }
}

/// The tokenizer of the mini teacher with markup of thoughts and calls.
fn tokenizer() -> Tokenizer {
    let from = fixtures::path("craftsman-mini");
    let to = tempfile::tempdir().expect("a folder for temporary files");
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        let mut text = read_text(&from.join(name), 64 << 20).expect("the fixture is there");
        for (old, new) in RENAMED {
            text = text.replace(&format!("\"{old}\""), &format!("\"{new}\""));
        }
        if name == "tokenizer_config.json" {
            let mut config: Value = serde_json::from_str(&text).expect("the fixture is JSON");
            config["chat_template"] = TEMPLATE.into();
            text = config.to_string();
        }
        std::fs::write(to.path().join(name), text).expect("the folder can be written");
    }
    Tokenizer::from_dir(to.path()).expect("the renamed tokens are a vocabulary")
}
