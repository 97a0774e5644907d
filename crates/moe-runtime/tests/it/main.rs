//! From configuration to answers: the forward pass of whole models against transformers, against itself and damaged on
//! purpose; routing, tokenizers, chat templates and storage.

mod adapters;
mod backend;
mod chat;
mod chunks;
mod config;
mod constructs;
mod decoded;
mod dense;
mod drafts;
mod expert_memory;
mod experts;
mod generation;
mod golden;
mod goldens;
mod grammar;
mod injection;
mod kernels;
mod loading;
mod memory_source;
mod mtp;
mod naive_mla;
mod negative;
mod output;
mod packing;
mod prompt_cache;
mod readme;
mod router;
mod scheduler;
mod segments;
mod side_files;
mod tables;
mod ternary;
mod tile_cache;
mod tokenizer;
mod weight_reads;
