//! Pre-tokenizers: the rules that cut text into words before byte-pair encoding.
//!
//! GGUF names a pre-tokenizer (`tokenizer.ggml.pre`), `tokenizer.json` spells it out. [`GGUF_SCHEMES`] holds the ones both can
//! say; any other one of `tokenizer.json` is kept as it stands, if it is made of known and harmless parts.

use serde_json::{Value as Json, json};

use super::expressions::{DEEPSEEK_CODER, DEEPSEEK_LLM, DEEPSEEK_V3, DIGIT, GLM, GPT2, QWEN};
use crate::error::{Error, Result};
use crate::text::error::TextError;

/// The differences between the expressions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// Up to three digits make a word.
    Glm,
    /// One digit makes a word.
    Qwen,
    /// The oldest form: case counts, line ends are white space like any other.
    Gpt2,
    /// Every digit is a word, and cuts the text; the parts between are cut as in `Gpt2`.
    Smollm,
}

/// A pre-tokenizer that GGUF has a name for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Scheme {
    /// Its GGUF names; the first is the one we write.
    pub(super) names: &'static [&'static str],
    /// Expressions applied in turn, each splitting the pieces that the one before left.
    pub(super) patterns: &'static [&'static str],
    /// The same for `words.rs`; `None` where only the crate `tokenizers` cuts so.
    #[cfg_attr(all(feature = "tokenizers", not(test)), allow(dead_code, reason = "the tokenizers crate cuts itself"))]
    pub(super) style: Option<Style>,
    /// Whether a word that is a token skips the merges.
    pub(super) ignore_merges: bool,
}

/// The named pre-tokenizers; the first entry with the right patterns is the one we write.
pub(super) static GGUF_SCHEMES: [Scheme; 8] = [
    Scheme { names: &["glm4", "chatglm-bpe"], patterns: &[GLM], style: Some(Style::Glm), ignore_merges: true },
    Scheme {
        names: &["llama-bpe", "llama3", "llama-v3"],
        patterns: &[GLM],
        style: Some(Style::Glm),
        ignore_merges: true,
    },
    Scheme { names: &["qwen2"], patterns: &[QWEN], style: Some(Style::Qwen), ignore_merges: false },
    Scheme { names: &["gpt-2", "gpt2"], patterns: &[GPT2], style: Some(Style::Gpt2), ignore_merges: false },
    Scheme { names: &["smollm"], patterns: &[DIGIT, GPT2], style: Some(Style::Smollm), ignore_merges: false },
    Scheme { names: &["deepseek-llm"], patterns: DEEPSEEK_LLM, style: None, ignore_merges: false },
    Scheme { names: &["deepseek-coder"], patterns: DEEPSEEK_CODER, style: None, ignore_merges: false },
    Scheme { names: &["deepseek-v3"], patterns: DEEPSEEK_V3, style: None, ignore_merges: false },
];

/// The rule that cuts text into words.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum PreTokenizer {
    /// One that GGUF can name.
    Gguf(&'static Scheme),
    /// One that only `tokenizer.json` can say.
    Custom {
        /// The value of `pre_tokenizer`.
        pre_tokenizer: Json,
        /// The value of `normalizer`; null without one.
        normalizer: Json,
    },
}

impl PreTokenizer {
    /// The pre-tokenizer that GGUF calls `name`.
    pub(super) fn by_name(name: &str) -> Option<Self> {
        GGUF_SCHEMES.iter().find(|scheme| scheme.names.contains(&name)).map(Self::Gguf)
    }

    /// From the `pre_tokenizer` and `normalizer` of a `tokenizer.json`.
    ///
    /// # Errors
    /// [`TextError::Unsupported`] for parts other than those listed in [`check_parts`], or without a byte-level step.
    pub(super) fn from_json(pre_tokenizer: &Json, normalizer: &Json) -> Result<Self> {
        let normalizes = check_normalizer(normalizer)?;
        let mut byte_level = false;
        check_parts(pre_tokenizer, &mut byte_level)?;
        if !byte_level {
            return Err(unsupported("a pre-tokenizer without `ByteLevel`".to_owned()));
        }
        let patterns = patterns(pre_tokenizer);
        let scheme = patterns.and_then(|found| GGUF_SCHEMES.iter().find(|scheme| found == scheme.patterns));
        Ok(match scheme {
            Some(scheme) if !normalizes => Self::Gguf(scheme),
            _ => Self::Custom { pre_tokenizer: pre_tokenizer.clone(), normalizer: normalizer.clone() },
        })
    }

    /// The form of `tokenizer.json`: pre-tokenizer and normalizer.
    pub(super) fn to_json(&self) -> (Json, Json) {
        match self {
            Self::Custom { pre_tokenizer, normalizer } => (pre_tokenizer.clone(), normalizer.clone()),
            Self::Gguf(scheme) => {
                let split = |pattern: &&str| json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
                let bytes =
                    json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
                let steps: Vec<Json> = scheme.patterns.iter().map(split).chain([bytes]).collect();
                (json!({"type": "Sequence", "pretokenizers": steps}), Json::Null)
            }
        }
    }
}

fn unsupported(feature: String) -> Error {
    Error::Text(TextError::Unsupported { feature, remedy: "use a checkpoint with a byte-level BPE tokenizer" })
}

fn kind(part: &Json) -> &str {
    part.get("type").and_then(Json::as_str).unwrap_or_default()
}

/// Refuses parts that could panic or that this runtime has no test for.
fn check_parts(part: &Json, byte_level: &mut bool) -> Result<()> {
    match kind(part) {
        "Sequence" => {
            let steps = part.get("pretokenizers").and_then(Json::as_array);
            steps.into_iter().flatten().try_for_each(|step| check_parts(step, byte_level))
        }
        "ByteLevel" => {
            *byte_level = true;
            Ok(())
        }
        "Split" | "Digits" | "Punctuation" | "Whitespace" | "WhitespaceSplit" => Ok(()),
        other => Err(unsupported(format!("pre-tokenizer `{other}`"))),
    }
}

/// Whether the normalizer does anything.
fn check_normalizer(normalizer: &Json) -> Result<bool> {
    match (normalizer, kind(normalizer)) {
        (Json::Null, _) => Ok(false),
        (_, "NFC" | "NFD" | "NFKC" | "NFKD") => Ok(true),
        (_, "Sequence") => {
            let steps = normalizer.get("normalizers").and_then(Json::as_array);
            steps.into_iter().flatten().try_fold(false, |any, step| Ok(check_normalizer(step)? || any))
        }
        (_, other) => Err(unsupported(format!("normalizer `{other}`"))),
    }
}

/// The expressions, if the pre-tokenizer is splits that isolate their matches, followed by one byte-level step.
fn patterns<'a>(pre_tokenizer: &'a Json) -> Option<Vec<&'a str>> {
    let steps = match kind(pre_tokenizer) {
        "Sequence" => pre_tokenizer.get("pretokenizers")?.as_array()?.as_slice(),
        _ => std::slice::from_ref(pre_tokenizer),
    };
    let (last, splits) = steps.split_last()?;
    let flag = |name: &str, default: bool| last.get(name).map_or(Some(default), Json::as_bool);
    if kind(last) != "ByteLevel" || flag("add_prefix_space", true)? {
        return None;
    }
    let pattern = |step: &'a Json| match kind(step) {
        "Split" => {
            let isolated = step.get("behavior").and_then(Json::as_str) == Some("Isolated")
                && step.get("invert").and_then(Json::as_bool) == Some(false);
            step.get("pattern")?.get("Regex")?.as_str().filter(|_| isolated)
        }
        "Digits" => step.get("individual_digits").and_then(Json::as_bool)?.then_some(DIGIT),
        _ => None,
    };
    let mut patterns: Vec<&str> = splits.iter().map(pattern).collect::<Option<_>>()?;
    if flag("use_regex", true)? {
        patterns.push(GPT2);
    }
    Some(patterns)
}

#[cfg(test)]
mod tests {
    use super::{GGUF_SCHEMES, PreTokenizer};
    use serde_json::{Value as Json, json};

    #[test]
    fn named_schemes_survive_the_round_trip() {
        for scheme in &GGUF_SCHEMES {
            let (pre, normalizer) = PreTokenizer::Gguf(scheme).to_json();
            let PreTokenizer::Gguf(back) = PreTokenizer::from_json(&pre, &normalizer).unwrap() else {
                panic!("{:?} is not recognised", scheme.names);
            };
            assert_eq!(back.patterns, scheme.patterns);
            for name in scheme.names {
                assert_eq!(PreTokenizer::by_name(name), Some(PreTokenizer::Gguf(scheme)));
            }
        }
        assert_eq!(PreTokenizer::by_name("deepseek-r2"), None);
    }

    #[test]
    fn another_expression_or_a_normalizer_is_custom() {
        let (mut pre, _) = PreTokenizer::Gguf(&GGUF_SCHEMES[0]).to_json();
        let nfc = json!({"type": "Sequence", "normalizers": [{"type": "NFC"}]});
        assert!(matches!(PreTokenizer::from_json(&pre, &nfc).unwrap(), PreTokenizer::Custom { .. }));
        let nothing = json!({"type": "Sequence", "normalizers": []});
        assert!(matches!(PreTokenizer::from_json(&pre, &nothing).unwrap(), PreTokenizer::Gguf(_)));
        pre["pretokenizers"][0]["pattern"]["Regex"] = json!("x");
        assert!(matches!(PreTokenizer::from_json(&pre, &Json::Null).unwrap(), PreTokenizer::Custom { .. }));
        let gpt2 = json!({"type": "ByteLevel", "add_prefix_space": false});
        assert_eq!(PreTokenizer::from_json(&gpt2, &Json::Null).unwrap(), PreTokenizer::Gguf(&GGUF_SCHEMES[3]));
    }

    #[test]
    fn unknown_parts_are_refused_by_name() {
        for (pre, normalizer, needle) in [
            (json!({"type": "Metaspace"}), Json::Null, "`Metaspace`"),
            (
                json!({"type": "Sequence", "pretokenizers": [{"type": "FixedLength", "length": 0}]}),
                Json::Null,
                "`FixedLength`",
            ),
            (json!({"type": "Digits"}), Json::Null, "without `ByteLevel`"),
            (Json::Null, Json::Null, "pre-tokenizer ``"),
            (json!({"type": "ByteLevel"}), json!({"type": "Lowercase"}), "`Lowercase`"),
        ] {
            let error = PreTokenizer::from_json(&pre, &normalizer).unwrap_err().to_string();
            assert!(error.contains(needle), "{error}");
        }
    }
}
