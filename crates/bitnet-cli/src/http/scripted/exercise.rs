//! Bodies and answers out of arbitrary bytes.
//!
//! **Invariant:** no bytes make the server panic or answer with a status of 500 or more, and a streamed answer has the content
//! of the whole one.

use serde_json::{Map, Value, json};

use super::server::{Reply, ScriptedServer};
use super::views::{self, Views};

/// The dialects with answers that can be streamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    Chat,
    Completions,
    Responses,
    Messages,
}

impl Dialect {
    pub(crate) const ALL: [Dialect; 4] = [Dialect::Chat, Dialect::Completions, Dialect::Responses, Dialect::Messages];

    pub(super) fn route(self) -> &'static str {
        match self {
            Dialect::Chat => "/v1/chat/completions",
            Dialect::Completions => "/v1/completions",
            Dialect::Responses => "/v1/responses",
            Dialect::Messages => "/v1/messages",
        }
    }

    fn whole(self, answer: &Value) -> Views {
        match self {
            Dialect::Chat => views::whole_chat(answer),
            Dialect::Completions => views::whole_completion(answer),
            Dialect::Responses => views::whole_response(answer),
            Dialect::Messages => views::whole_message(answer),
        }
    }

    fn streamed(self, stream: &str) -> Views {
        match self {
            Dialect::Chat => views::streamed_chat(stream),
            Dialect::Completions => views::streamed_completion(stream),
            Dialect::Responses => views::streamed_response(stream),
            Dialect::Messages => views::streamed_message(stream),
        }
    }
}

/// A server that takes anything.
pub(crate) struct Exercise {
    pub(super) server: ScriptedServer,
    /// The tokens of markup and those that end answers.
    special: Vec<u32>,
}

impl Exercise {
    pub(crate) fn start() -> Exercise {
        let server = ScriptedServer::start();
        let markup = ["<think>", "</think>", "<tool_call>", "</tool_call>", "<arg_key>", "</arg_key>", "<arg_value>"];
        let ids = markup.iter().chain(&["</arg_value>"]).map(|text| server.tokenizer.token_to_id(text));
        let mut special = ids.collect::<Option<Vec<u32>>>().expect("the vocabulary has the markup");
        special.extend(server.tokenizer.stop_ids().first());
        Exercise { server, special }
    }

    /// The tokens that bytes stand for: a byte below 64 is markup or an end, and any other one begins the number of a token.
    pub(super) fn script(&self, bytes: &[u8]) -> Vec<u32> {
        let (mut tokens, mut bytes) = (Vec::new(), bytes.iter());
        while let Some(&first) = bytes.next() {
            tokens.push(match usize::from(first) {
                low @ ..64 => self.special[low % self.special.len()],
                high => {
                    let number = high << 8 | bytes.next().map_or(0, |&second| usize::from(second));
                    u32::try_from(number % self.server.tokenizer.vocab_size()).expect("a number of 16 bits")
                }
            });
        }
        tokens
    }

    /// Sends a body and checks the answer.
    pub(super) fn body(&self, route: &str, body: &[u8], script: &[u32]) -> u16 {
        let reply = self.server.post(route, body, script);
        self.check(route, &reply, body);
        reply.status
    }

    /// Sends a body twice, once for the whole answer and once for a stream, and compares the two.
    pub(super) fn both(&self, dialect: Dialect, body: &Map<String, Value>, script: &[u32]) -> u16 {
        let mut body = body.clone();
        let mut send = |stream: bool| {
            body.insert("stream".to_owned(), stream.into());
            if matches!(dialect, Dialect::Chat | Dialect::Completions) {
                body.insert("stream_options".to_owned(), json!({ "include_usage": true }));
            }
            let body = Value::from(body.clone()).to_string();
            let reply = self.server.post(dialect.route(), body.as_bytes(), script);
            self.check(dialect.route(), &reply, body.as_bytes());
            reply
        };
        let (whole, streamed) = (send(false), send(true));
        assert_eq!(whole.status, streamed.status, "{body:?}");
        if whole.status == 200 {
            let views = (dialect.whole(&whole.json()), dialect.streamed(&streamed.body));
            assert_eq!(views.0, views.1, "{dialect:?}, {script:?}, {body:?}");
        }
        whole.status
    }

    /// One input of a fuzzer: the bytes as a body, the same body for both ways to answer, and the bytes as an answer. Returns
    /// the status of the answer to the bytes themselves.
    pub(crate) fn input(&self, dialect: Dialect, bytes: &[u8]) -> u16 {
        let script = self.script(bytes);
        let status = self.body(dialect.route(), bytes, &script);
        if let Ok(Value::Object(body)) = serde_json::from_slice(bytes) {
            self.both(dialect, &body, &script);
        }
        status
    }

    fn check(&self, route: &str, reply: &Reply, body: &[u8]) {
        let sent = || String::from_utf8_lossy(body);
        assert!(reply.status < 500, "{route}: {reply:?} for {}", sent());
        if reply.status >= 400 {
            let error = reply.json();
            let message = error["error"]["message"].as_str().unwrap_or_default();
            assert!(!message.is_empty(), "{route}: {reply:?} for {}", sent());
            assert_eq!(error["type"] == "error", route.contains("messages"), "{route}: {error}");
        }
    }
}
