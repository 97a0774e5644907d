//! Names of answers, calls and requests: a prefix and 24 characters that do not repeat.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const LENGTH: usize = 24;

/// Makes the names of this process.
pub(crate) struct Ids;

/// Different in every process: the standard library seeds its maps from the system's random source.
static KEY: LazyLock<[u8; 32]> = LazyLock::new(|| {
    let mut hasher = blake3::Hasher::new();
    for n in 0..4u64 {
        hasher.update(&RandomState::new().hash_one(n).to_le_bytes());
    }
    *hasher.finalize().as_bytes()
});
static NEXT: AtomicU64 = AtomicU64::new(0);

impl Ids {
    /// The next name with this prefix.
    pub(crate) fn make(prefix: &str) -> String {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let mut hasher = blake3::Hasher::new_keyed(&KEY);
        hasher.update(&number.to_le_bytes());
        let mut bytes = [0; LENGTH];
        hasher.finalize_xof().fill(&mut bytes);
        let letters = bytes.iter().map(|byte| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()]));
        prefix.chars().chain(letters).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Ids;

    #[test]
    fn names_differ_and_have_their_form() {
        let names: std::collections::BTreeSet<String> = (0..1000).map(|_| Ids::make("msg_")).collect();
        assert_eq!(names.len(), 1000);
        let is_base62 = |name: &String| name[4..].bytes().all(|byte| byte.is_ascii_alphanumeric());
        assert!(names.iter().all(|name| name.len() == 28 && name.starts_with("msg_") && is_base62(name)));
    }
}
