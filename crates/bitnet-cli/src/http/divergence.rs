//! Where the prompt of a request leaves that of an earlier one, and why: both vendors' clients ask when a cached prompt is not
//! found again.

use std::collections::VecDeque;
use std::sync::Mutex;

use mla_attention::CompressedMlaCache;
use moe_runtime::{BlockName, ChatRequest};
use serde::Serialize;
use serde_json::{Value, json};

/// Most requests that later ones can be compared with.
const KEPT: usize = 1024;
/// Most names of blocks of all these requests together: 16 MiB.
const KEPT_BLOCKS: usize = (16 << 20) / size_of::<BlockName>();

/// The parts that a prompt was made of, as hashes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outline {
    tools: blake3::Hash,
    /// The system prompt at the beginning.
    system: blake3::Hash,
    /// Whether the answer begins with a thought, in words of the template.
    thinking: Option<bool>,
    /// The names of the full blocks, as the prompt cache has them; each covers the blocks before it too.
    blocks: Box<[BlockName]>,
    tokens: usize,
}

impl Outline {
    /// The outline of a conversation whose prompt has these tokens, of which the first `n_ctx` count: a longer prompt is refused.
    pub(crate) fn new(conversation: &ChatRequest, tokens: &[u32], n_ctx: usize) -> Outline {
        let is_system = |message: &&Value| message["role"] == "system";
        let tokens = &tokens[..tokens.len().min(n_ctx)];
        Outline {
            tools: hash(&conversation.tools),
            system: hash(&conversation.messages.first().filter(is_system)),
            thinking: conversation.enable_thinking,
            // All requests of a process have one model, so that no root has to tell models apart.
            blocks: BlockName::default().names(tokens).collect(),
            tokens: tokens.len(),
        }
    }

    /// Full blocks at the beginning that both prompts have.
    fn shared(&self, earlier: &Outline) -> usize {
        self.blocks.iter().zip(&earlier.blocks).take_while(|(now, then)| now == then).count()
    }

    /// Compares this outline with that of an earlier request.
    fn since(&self, earlier: &Outline) -> Divergence {
        let shared = self.shared(earlier);
        if shared == earlier.blocks.len() {
            return Divergence::None;
        }
        let reason = if self.tools != earlier.tools {
            Changed::Tools
        } else if self.system != earlier.system {
            Changed::System
        } else if self.thinking != earlier.thinking {
            Changed::Thinking
        } else {
            Changed::Messages
        };
        let reusable = shared * CompressedMlaCache::BLOCK;
        Divergence::At { reason, reusable, missed: earlier.tokens - reusable }
    }
}

/// A hash of a part of a request.
fn hash(part: &impl Serialize) -> blake3::Hash {
    // Values that came as JSON can be written as JSON.
    blake3::hash(&serde_json::to_vec(part).unwrap_or_default())
}

/// The first part that differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Changed {
    Tools,
    System,
    Thinking,
    Messages,
}

impl Changed {
    /// The word of `x-cache` and of the metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Changed::Tools => "tools_changed",
            Changed::System => "system_changed",
            Changed::Thinking => "thinking_changed",
            Changed::Messages => "messages_changed",
        }
    }
}

/// The place where a prompt leaves an earlier one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Divergence {
    /// The request names no earlier one.
    #[default]
    NotAsked,
    /// No request of this name is kept.
    NotFound,
    /// The earlier prompt is a beginning of this one, but for its last, partial block.
    None,
    At {
        reason: Changed,
        /// Tokens at the beginning that both prompts share.
        reusable: usize,
        /// Tokens of the earlier prompt behind them.
        missed: usize,
    },
}

impl Divergence {
    /// As Anthropic's field `diagnostics` of an answer: null without a divergence.
    pub(crate) fn anthropic(self) -> Value {
        let reason = match self {
            Divergence::NotAsked | Divergence::None => return Value::Null,
            Divergence::NotFound => json!({ "type": "previous_message_not_found" }),
            Divergence::At { reason: Changed::Thinking, .. } => json!({ "type": "unavailable" }),
            Divergence::At { reason, missed, .. } => {
                let ty = match reason {
                    Changed::Tools => "tools_changed",
                    Changed::System => "system_changed",
                    _ => "messages_changed",
                };
                json!({ "type": ty, "cache_missed_input_tokens": missed })
            }
        };
        json!({ "cache_miss_reason": reason })
    }

    /// As OpenAI's field `prompt_cache_diagnostics` of a response.
    pub(crate) fn openai(self) -> Value {
        match self {
            Divergence::NotAsked => Value::Null,
            Divergence::NotFound => json!({ "type": "comparison_response_not_found" }),
            Divergence::None => json!({ "type": "cache_hit" }),
            Divergence::At { reason, reusable, missed } => {
                let reason = match reason {
                    Changed::Tools => "tools_changed",
                    Changed::Thinking => "reasoning_effort_changed",
                    // The system prompt is a part of the input here.
                    Changed::System | Changed::Messages => "input_changed",
                };
                json!({
                    "type": "cache_miss",
                    "reason": reason,
                    "cache_missed_tokens": missed,
                    "comparison_reusable_tokens": reusable,
                })
            }
        }
    }
}

/// The outlines of the last requests, by the ids of their answers: the oldest gives way where there are too many of them, or too
/// many names of blocks.
#[derive(Debug)]
pub(crate) struct Outlines {
    kept: Mutex<Kept>,
    most_blocks: usize,
}

#[derive(Debug)]
struct Request {
    id: String,
    /// The name of its session; empty for a request that names no session.
    session: String,
    outline: Outline,
}

/// A request beside the earlier ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Compared {
    /// Against the one that the client names.
    pub(crate) named: Divergence,
    /// The first part that the nearest one had otherwise: the one that shares most blocks, or the last one of the session.
    pub(crate) changed: Option<Changed>,
}

#[derive(Debug, Default)]
struct Kept {
    requests: VecDeque<Request>,
    /// Names of blocks of all requests.
    blocks: usize,
}

impl Default for Outlines {
    fn default() -> Outlines {
        Outlines { kept: Mutex::default(), most_blocks: KEPT_BLOCKS }
    }
}

impl Outlines {
    /// Compares `outline` with that of the answer `earlier` and with that of the nearest request, and keeps it for the answer
    /// `id` in this session, whose name is empty where there is none.
    pub(crate) fn compare(&self, earlier: Option<&str>, id: &str, session: &str, outline: Outline) -> Compared {
        let kept = &mut *self.kept.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let named = match earlier {
            None => Divergence::NotAsked,
            Some(earlier) => {
                let found = kept.requests.iter().rev().find(|request| request.id == earlier);
                found.map_or(Divergence::NotFound, |then| outline.since(&then.outline))
            }
        };
        let shared = kept.requests.iter().map(|request| (outline.shared(&request.outline), request));
        let near = shared.filter(|(shared, r)| *shared > 0 || (!session.is_empty() && r.session == session));
        let changed = match near.max_by_key(|(shared, _)| *shared).map(|(_, nearest)| outline.since(&nearest.outline)) {
            Some(Divergence::At { reason, .. }) => Some(reason),
            _ => None,
        };
        kept.blocks += outline.blocks.len();
        kept.requests.push_back(Request { id: id.to_owned(), session: session.to_owned(), outline });
        while kept.requests.len() > KEPT || kept.blocks > self.most_blocks {
            let Some(oldest) = kept.requests.pop_front() else { break };
            kept.blocks -= oldest.outline.blocks.len();
        }
        Compared { named, changed }
    }
}

#[cfg(test)]
mod tests {
    use moe_runtime::ChatRequest;
    use serde_json::json;

    use super::{Changed, Divergence, KEPT, Outline, Outlines};

    fn conversation(system: &str, tools: usize) -> ChatRequest {
        ChatRequest {
            messages: vec![json!({"role": "system", "content": system}), json!({"role": "user", "content": "x"})],
            tools: vec![json!({"name": "read"}); tools],
            ..ChatRequest::default()
        }
    }

    fn named(outlines: &Outlines, earlier: Option<&str>, id: &str, outline: &Outline) -> Divergence {
        outlines.compare(earlier, id, "", outline.clone()).named
    }

    #[test]
    fn the_nearest_request_tells_the_change() {
        let outlines = Outlines::default();
        let changed = |session: &str, conversation: &ChatRequest, tokens: &[u32]| {
            outlines.compare(None, "x", session, Outline::new(conversation, tokens, 1000)).changed
        };
        let tokens: Vec<u32> = (0..300).collect();
        let others: Vec<u32> = (1000..1300).collect();
        assert_eq!(changed("a", &conversation("s", 1), &tokens), None, "the first request");
        assert_eq!(changed("b", &conversation("t", 1), &others), None, "no other session has this beginning");
        assert_eq!(changed("a", &conversation("t", 2), &others[10..]), Some(Changed::Tools), "of the session");
        let mut cut = tokens.clone();
        cut[200] = 7;
        assert_eq!(changed("", &conversation("s", 1), &cut), Some(Changed::Messages), "of the same beginning");
        assert_eq!(changed("a", &conversation("s", 1), &tokens), None, "the nearest one had it all");
    }

    #[test]
    fn the_first_part_that_differs_is_the_reason() {
        let tokens: Vec<u32> = (0..300).collect();
        let mut changed = tokens.clone();
        changed[130] = 7;
        let first = Outline::new(&conversation("a", 1), &tokens, 1000);
        let at = |reason| Divergence::At { reason, reusable: 128, missed: 172 };
        let since = |conversation: &ChatRequest, tokens: &[u32]| Outline::new(conversation, tokens, 1000).since(&first);
        assert_eq!(since(&conversation("a", 2), &changed), at(Changed::Tools));
        assert_eq!(since(&conversation("b", 1), &changed), at(Changed::System));
        assert_eq!(since(&conversation("a", 1), &changed), at(Changed::Messages));
        let thinking = ChatRequest { enable_thinking: Some(true), ..conversation("a", 1) };
        assert_eq!(since(&thinking, &changed), at(Changed::Thinking));
        // Changes behind the earlier prompt cost nothing.
        let longer: Vec<u32> = (0..900).collect();
        assert_eq!(since(&conversation("b", 2), &longer), Divergence::None);
        assert_eq!(
            since(&conversation("a", 1), &tokens[..100]),
            Divergence::At { reason: Changed::Messages, reusable: 64, missed: 236 }
        );
    }

    #[test]
    fn the_words_are_those_of_the_vendors() {
        let at = |reason| Divergence::At { reason, reusable: 128, missed: 172 };
        let reason = |divergence: Divergence| divergence.anthropic()["cache_miss_reason"].clone();
        assert_eq!(reason(at(Changed::Tools)), json!({"type": "tools_changed", "cache_missed_input_tokens": 172}));
        assert_eq!(reason(at(Changed::System))["type"], "system_changed");
        assert_eq!(reason(at(Changed::Messages))["type"], "messages_changed");
        assert_eq!(reason(at(Changed::Thinking)), json!({"type": "unavailable"}));
        assert_eq!(reason(Divergence::NotFound), json!({"type": "previous_message_not_found"}));
        assert!(Divergence::None.anthropic().is_null() && Divergence::NotAsked.anthropic().is_null());
        let miss = at(Changed::Tools).openai();
        assert_eq!((&miss["type"], &miss["reason"]), (&json!("cache_miss"), &json!("tools_changed")));
        assert_eq!((&miss["cache_missed_tokens"], &miss["comparison_reusable_tokens"]), (&json!(172), &json!(128)));
        assert_eq!(Divergence::None.openai(), json!({"type": "cache_hit"}));
        assert_eq!(Divergence::NotFound.openai(), json!({"type": "comparison_response_not_found"}));
        assert!(Divergence::NotAsked.openai().is_null());
    }

    #[test]
    fn the_oldest_request_is_forgotten() {
        let outlines = Outlines::default();
        let outline = Outline::new(&conversation("a", 0), &[1; 70], 1000);
        for n in 0..=KEPT {
            assert_eq!(named(&outlines, None, &n.to_string(), &outline), Divergence::NotAsked);
        }
        assert_eq!(named(&outlines, Some("0"), "x", &outline), Divergence::NotFound);
        assert_eq!(named(&outlines, Some("2"), "y", &outline), Divergence::None);
    }

    #[test]
    fn long_prompts_are_forgotten_earlier_than_short_ones() {
        // Blocks of 64 tokens: 3 of a short prompt, 9 of a long one, 24 of all that are kept.
        let n_kept = |n_tokens: usize| {
            let outlines = Outlines { most_blocks: 24, ..Outlines::default() };
            let outline = Outline::new(&conversation("a", 0), &vec![1; n_tokens], 1000);
            for n in 0..20 {
                named(&outlines, None, &n.to_string(), &outline);
            }
            let kept = outlines.kept.lock().unwrap();
            assert_eq!(kept.blocks, kept.requests.iter().map(|request| request.outline.blocks.len()).sum::<usize>());
            kept.requests.len()
        };
        assert_eq!([n_kept(0), n_kept(200), n_kept(600)], [20, 8, 2]);
    }

    #[test]
    fn tokens_behind_the_context_do_not_count() {
        let tokens: Vec<u32> = (0..300).collect();
        let outline = |tokens: &[u32]| Outline::new(&conversation("a", 0), tokens, 200);
        assert_eq!((outline(&tokens).blocks.len(), outline(&tokens).tokens), (3, 200));
        assert_eq!(outline(&tokens), outline(&tokens[..200]));
    }
}
