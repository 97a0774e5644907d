//! Exceptions from a preset, by the names of tensors.

use gguf_bitnet::{TensorType, UnknownTypeName};
use regex_lite::Regex;

use super::error::RecipeError;

/// `REGEX=TYPE`: tensors whose whole name matches get this type. Later overrides win.
#[derive(Clone, Debug)]
pub struct Override {
    pub(super) pattern: String,
    pub(super) ty: TensorType,
    regex: Regex,
}

impl Override {
    /// Parses `REGEX=TYPE`, for example `blk\.0\..*=Q8_0`.
    ///
    /// # Errors
    /// [`RecipeError::Override`] when there is no `=`, the expression is invalid, or the type cannot be written.
    pub fn parse(text: &str) -> Result<Self, RecipeError> {
        let invalid = |reason: String| RecipeError::Override { text: text.to_owned(), reason };
        let (pattern, ty) = text.rsplit_once('=').ok_or_else(|| invalid("there is no `=`".to_owned()))?;
        let regex = Regex::new(&format!("^(?:{pattern})$")).map_err(|e| invalid(e.to_string()))?;
        let ty: TensorType = ty.trim().parse().map_err(|e: UnknownTypeName| invalid(e.to_string()))?;
        if !ty.is_writable() {
            return Err(invalid(format!("{ty} can be read but not written")));
        }
        Ok(Self { pattern: pattern.to_owned(), ty, regex })
    }

    /// Whether the whole `name` matches.
    pub(super) fn matches(&self, name: &str) -> bool {
        self.regex.is_match(name)
    }
}
