//! The names of fields that have no effect, each told once: by them an operator sees what clients ask for in vain.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use super::openapi;
use crate::output;

/// Most names that are told: clients choose them.
const MOST: usize = 256;
/// Longest name that is told.
const MAX_BYTES: usize = 64;
/// Fields that name a session or the model, and those that some route refuses.
const READ: [&str; 16] = [
    "model",
    "user",
    "metadata",
    "prompt_cache_key",
    "functions",
    "function_call",
    "audio",
    "modalities",
    "web_search_options",
    "background",
    "conversation",
    "previous_response_id",
    "prompt",
    "truncation",
    "suffix",
    "best_of",
];

/// The names that were told.
#[derive(Debug, Default)]
pub(crate) struct Ignored(Mutex<HashSet<String>>);

impl Ignored {
    /// Prints the names of a request to `route` that are new here.
    pub(crate) fn note<'a>(&self, route: &str, names: impl Iterator<Item = &'a str>) {
        let new = self.new_names(route, names);
        if !new.is_empty() {
            output::note(format_args!("{route}: fields without effect: {}", new.join(", ")));
        }
    }

    /// The names that the route does not read and that were not told yet. Names that are no plain words are left out: they
    /// may be text.
    fn new_names<'a>(&self, route: &str, names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
        let Some(fields) = openapi::fields_of(route) else { return Vec::new() };
        let is_word = |name: &str| {
            name.len() <= MAX_BYTES && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
        };
        let unread = names.filter(|name| is_word(name) && !READ.contains(name) && !fields.contains(name));
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        unread.filter(|name| told.len() < MOST && told.insert((*name).to_owned())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_names_are_told_once_and_not_without_end() {
        let ignored = Ignored::default();
        let new = |names: &[&'static str]| ignored.new_names("/chat/completions", names.iter().copied());
        assert_eq!(new(&["messages", "store", "seed", "model", "a text", "x\ny"]), ["store"]);
        assert_eq!(new(&["store", "verbosity"]), ["verbosity"]);
        assert!(ignored.new_names("/metrics", ["x"].into_iter()).is_empty(), "a route without a body");
        let many: Vec<String> = (0..2 * MOST).map(|i| i.to_string()).collect();
        assert_eq!(ignored.new_names("/v1/messages", many.iter().map(String::as_str)).len(), MOST - 2);
    }
}
