//! Thoughts in an opaque form that clients send back: a tag that only this model makes, and the text.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

const TAG_BYTES: usize = 16;

/// Seals thoughts of one model.
#[derive(Clone, Debug)]
pub(crate) struct Seal {
    key: [u8; 32],
}

impl Seal {
    /// The seal of the model with this identity. It is the same after a restart.
    pub(crate) fn new(identity: &[u8; 32]) -> Seal {
        Seal { key: blake3::derive_key("craftsman ultra 2026 sealed thought", identity) }
    }

    pub(crate) fn close(&self, text: &str) -> String {
        let mut bytes = self.tag(text).to_vec();
        bytes.extend_from_slice(text.as_bytes());
        STANDARD.encode(bytes)
    }

    /// The text that was sealed; `None` for a seal of another model and for anything else.
    pub(crate) fn open(&self, sealed: &str) -> Option<String> {
        let bytes = STANDARD.decode(sealed).ok()?;
        let (tag, text) = bytes.split_at_checked(TAG_BYTES)?;
        let text = std::str::from_utf8(text).ok()?;
        (tag == self.tag(text)).then(|| text.to_owned())
    }

    fn tag(&self, text: &str) -> [u8; TAG_BYTES] {
        let mut tag = [0; TAG_BYTES];
        tag.copy_from_slice(&blake3::keyed_hash(&self.key, text.as_bytes()).as_bytes()[..TAG_BYTES]);
        tag
    }
}

#[cfg(test)]
mod tests {
    use super::Seal;

    #[test]
    fn only_the_own_seal_opens() {
        let seal = Seal::new(&[1; 32]);
        let sealed = seal.close("größer als 1");
        assert_eq!(seal.open(&sealed).as_deref(), Some("größer als 1"));
        assert_eq!(Seal::new(&[2; 32]).open(&sealed), None);
        for other in ["", "AAAA", "no base64!", &sealed[..sealed.len() - 4]] {
            assert_eq!(seal.open(other), None, "{other}");
        }
    }
}
