//! The HTTP server: the APIs of OpenAI and Anthropic over one loaded model, and over a sentence encoder beside it.
//!
//! | file or folder | contents |
//! |---|---|
//! | `server`, `socket` | connections and their deadlines, signals, the end |
//! | `routes` | from paths to handlers, and the layers around them |
//! | `access` | hosts, origins and keys |
//! | `app`, `settings` | what all requests share |
//! | `engine/` | the loaded model and the encoder, their facts, the threads that compute |
//! | `request/` | bodies and fields |
//! | `answer/` | from an order to the parts of an answer |
//! | `stream` | answers as server-sent events |
//! | `dialects/` | the APIs, one file or folder each |
//! | `page`, `openapi` | the built-in page, and the description of the routes |
//! | `divergence` | where the prompt of a request leaves that of an earlier one |
//! | `scripted/` | the server without a socket and a model, for tests and fuzz targets |
//! | `metrics`, `tally` | counts, and one request in them |
//! | `ignored` | the names of fields without effect, for the output of the server |
//! | `failure`, `ids`, `seal` | errors, names, thoughts that clients send back |
//!
//! Imports go one way: `server` -> `routes` -> `dialects` -> `stream` -> `answer` -> `request` -> `app` -> `engine`.
//!
//! **Invariant:** no text of a request or an answer is logged or counted.

mod access;
mod answer;
mod app;
mod dialects;
mod divergence;
mod engine;
mod failure;
mod ids;
mod ignored;
mod metrics;
mod number;
mod openapi;
mod page;
mod request;
mod routes;
#[cfg(any(test, fuzzing))]
pub(crate) mod scripted;
mod seal;
mod server;
mod settings;
mod socket;
mod stream;
mod tally;

pub(crate) use engine::{Encoder, Engine, Facts};
pub(crate) use seal::Seal;
pub(crate) use server::serve;
pub(crate) use settings::Settings;
