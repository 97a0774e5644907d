//! The folder of the local Hugging Face cache, as `huggingface_hub` finds it.
//!
//! The first of `HF_HUB_CACHE`, `HUGGINGFACE_HUB_CACHE` and `HF_HOME/hub` counts; `HF_HOME` is `huggingface` in
//! `XDG_CACHE_HOME`, or in `~/.cache`. `~` and variables in these values are replaced, in this order. A variable that is
//! set to nothing counts as not set.
//!
//! Source: `huggingface_hub/constants.py`; `os.path.expanduser` and `os.path.expandvars` of Python.

use std::path::{MAIN_SEPARATOR, Path, PathBuf};

/// Reads an environment variable.
type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The folder of the Hugging Face cache, for [`resolve_model`](crate::resolve_model), by the variables of `env`; `None`
/// where the user has no home.
///
/// ```
/// use gguf_bitnet::hub_folder;
/// let folder = hub_folder(&|name| (name == "HF_HOME").then(|| "/models".to_owned()));
/// assert_eq!(folder, Some("/models/hub".into()));
/// ```
#[must_use]
pub fn hub_folder(env: Env<'_>) -> Option<PathBuf> {
    let set = |name: &str| env(name).filter(|value| !value.is_empty());
    let named = set("HF_HUB_CACHE").or_else(|| set("HUGGINGFACE_HUB_CACHE"));
    let hub = match named {
        Some(hub) => hub,
        None => {
            let default = || {
                let cache = set("XDG_CACHE_HOME").or_else(|| Some(join(&home(env)?, ".cache")))?;
                Some(join(&cache, "huggingface"))
            };
            join(&expanded(&set("HF_HOME").or_else(default)?, env), "hub")
        }
    };
    Some(PathBuf::from(expanded(&hub, env)))
}

fn home(env: Env<'_>) -> Option<String> {
    let home = env("HOME").or_else(|| env("USERPROFILE")).filter(|home| !home.is_empty());
    // Without the variable, the system's list of users has it.
    home.or_else(|| std::env::home_dir()?.into_os_string().into_string().ok())
}

fn join(folder: &str, name: &str) -> String {
    Path::new(folder).join(name).to_string_lossy().into_owned()
}

/// The path with `~` at its start replaced by the home of the user, and then `$NAME` and `${NAME}` by their values.
/// Another user's `~name` and variables that are not set stay as they are.
fn expanded(path: &str, env: Env<'_>) -> String {
    let rest = path.strip_prefix('~').filter(|rest| rest.is_empty() || rest.starts_with(['/', MAIN_SEPARATOR]));
    let path = match (rest, home(env)) {
        (Some(rest), Some(home)) => format!("{}{rest}", home.trim_end_matches('/')),
        _ => path.to_owned(),
    };
    let mut out = String::new();
    let mut left = path.as_str();
    while let Some(at) = left.find('$') {
        out.push_str(&left[..at]);
        let after = &left[at + 1..];
        let name = match after.strip_prefix('{').and_then(|braced| braced.split_once('}')) {
            Some((name, _)) => Some((name, name.len() + 2)),
            None => {
                let end = after.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(after.len());
                (end > 0).then_some((&after[..end], end))
            }
        };
        match name.and_then(|(name, length)| Some((env(name)?, length))) {
            Some((value, length)) => {
                out.push_str(&value);
                left = &after[length..];
            }
            None => {
                out.push('$');
                left = after;
            }
        }
    }
    out + left
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[derive(serde::Deserialize)]
    struct Case {
        env: HashMap<String, String>,
        hub: PathBuf,
    }

    #[test]
    fn the_cache_is_where_huggingface_hub_has_it() {
        let text = std::fs::read_to_string(fixtures::path("goldens/hub-cache.json")).unwrap();
        let cases: Vec<Case> = serde_json::from_str(&text).unwrap();
        assert!(cases.len() > 20);
        for Case { env, hub } in cases {
            assert_eq!(hub_folder(&|name| env.get(name).cloned()), Some(hub), "{env:?}");
        }
    }

    #[test]
    fn a_variable_that_is_set_to_nothing_is_not_set() {
        let env = |name: &str| match name {
            "HF_HUB_CACHE" | "HF_HOME" => Some(String::new()),
            "XDG_CACHE_HOME" => Some("/x".to_owned()),
            _ => None,
        };
        assert_eq!(hub_folder(&env), Some(PathBuf::from("/x/huggingface/hub")));
    }
}
