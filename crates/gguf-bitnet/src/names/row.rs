//! The names of one tensor in the table of an architecture.
//!
//! An architecture lists its tensors in the order in which files are written. Each [`NameRow`] gives one tensor's
//! canonical name (llama.cpp's), its name in a GGUF and in a checkpoint, its class, and the other spellings that readers
//! meet. Names of a layer leave out the prefix that holds the layer's number (`blk.3.`, `model.layers.3.`).

use super::class::TensorClass;

/// The place of a tensor in its model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Outside of the layers: one tensor per model.
    Model,
    /// One tensor in every layer that has it.
    Layer,
}

/// The program that gave a tensor its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// llama.cpp: layers are `blk.N.`.
    Gguf,
    /// Hugging Face transformers: layers are `model.layers.N.`.
    Checkpoint,
}

/// The part of a stored tensor that is the tensor of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// The stored tensor is the tensor of the row.
    Whole,
    /// The first half of the rows of every matrix: the gate in a fused gate and up.
    FirstHalf,
    /// The second half of the rows of every matrix: the up in a fused gate and up.
    SecondHalf,
    /// The key rows of every head of a fused `kv_b`, transposed.
    HeadKeys,
    /// The value rows of every head of a fused `kv_b`.
    HeadValues,
    /// The rows of every head that rotates halves, in the order that rotates neighbours: the two rows of a pair follow each
    /// other.
    HeadPairs,
}

/// A name under which a tensor may be stored. `{}` in it stands for the number of an expert: the stored tensor is that
/// expert's matrix of a stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spelling {
    dialect: Dialect,
    /// The name without the prefix of its layer.
    name: &'static str,
    piece: Piece,
}

impl Spelling {
    /// A name in GGUF files.
    #[must_use]
    pub const fn gguf(name: &'static str, piece: Piece) -> Spelling {
        Spelling { dialect: Dialect::Gguf, name, piece }
    }

    /// A name in checkpoints.
    #[must_use]
    pub const fn checkpoint(name: &'static str, piece: Piece) -> Spelling {
        Spelling { dialect: Dialect::Checkpoint, name, piece }
    }

    /// The expert number that `name` has in place of `{}`; `Some(None)` when the spelling has none and the names are
    /// equal, `None` when they differ.
    fn matches(&self, name: &str) -> Option<Option<usize>> {
        let Some((before, after)) = self.name.split_once("{}.") else { return (self.name == name).then_some(None) };
        let (expert, rest) = split_number(name.strip_prefix(before)?)?;
        (rest == after).then_some(Some(expert))
    }
}

/// The names and the class of one tensor of an architecture.
///
/// ```
/// use gguf_bitnet::{NameRow, TensorClass};
/// const UP: NameRow = NameRow::layer("ffn_up.weight", "mlp.up_proj.weight", TensorClass::DenseFfn);
/// assert_eq!(UP.canonical_name(3), "blk.3.ffn_up.weight");
/// assert_eq!(UP.checkpoint_name(3, None), "model.layers.3.mlp.up_proj.weight");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameRow {
    scope: Scope,
    name: &'static str,
    gguf: &'static str,
    checkpoint: Spelling,
    class: TensorClass,
    also: &'static [Spelling],
}

impl NameRow {
    /// A tensor outside of the layers.
    #[must_use]
    pub const fn model(name: &'static str, checkpoint: &'static str, class: TensorClass) -> NameRow {
        NameRow::new(Scope::Model, name, checkpoint, class)
    }

    /// A tensor of every layer, or of some.
    #[must_use]
    pub const fn layer(name: &'static str, checkpoint: &'static str, class: TensorClass) -> NameRow {
        NameRow::new(Scope::Layer, name, checkpoint, class)
    }

    const fn new(scope: Scope, name: &'static str, checkpoint: &'static str, class: TensorClass) -> NameRow {
        let checkpoint = Spelling::checkpoint(checkpoint, Piece::Whole);
        NameRow { scope, name, gguf: name, checkpoint, class, also: &[] }
    }

    /// The same row where GGUF files of the architecture use another name than the canonical one. Both are read.
    #[must_use]
    pub const fn written_as(self, gguf: &'static str) -> NameRow {
        NameRow { gguf, ..self }
    }

    /// The same row where the tensor of the checkpoint holds more than this tensor.
    #[must_use]
    pub const fn piece(self, piece: Piece) -> NameRow {
        NameRow { checkpoint: Spelling { piece, ..self.checkpoint }, ..self }
    }

    /// The same row with more spellings that readers accept.
    #[must_use]
    pub const fn also(self, also: &'static [Spelling]) -> NameRow {
        NameRow { also, ..self }
    }

    /// Whether the tensor stands in layers or outside of them.
    #[must_use]
    pub const fn scope(&self) -> Scope {
        self.scope
    }

    /// The canonical name without the prefix of its layer.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The role of the tensor in its model.
    #[must_use]
    pub const fn class(&self) -> TensorClass {
        self.class
    }

    /// The part of the checkpoint's tensor that is this tensor.
    #[must_use]
    pub const fn checkpoint_piece(&self) -> Piece {
        self.checkpoint.piece
    }

    /// Whether checkpoints store the stack as one tensor per expert.
    #[must_use]
    pub fn is_per_expert(&self) -> bool {
        self.checkpoint.name.contains("{}")
    }

    /// The canonical name; a tensor outside of the layers ignores `layer`.
    #[must_use]
    pub fn canonical_name(&self, layer: usize) -> String {
        self.prefixed(Dialect::Gguf, layer, self.name)
    }

    /// The name in a GGUF that is written.
    #[must_use]
    pub fn gguf_name(&self, layer: usize) -> String {
        self.prefixed(Dialect::Gguf, layer, self.gguf)
    }

    /// The name in a checkpoint: of one expert's matrix where the checkpoint stores them apart (expert 0 with `None`),
    /// of the fused tensor where it holds several.
    #[must_use]
    pub fn checkpoint_name(&self, layer: usize, expert: Option<usize>) -> String {
        let name = self.checkpoint.name.replacen("{}", &expert.unwrap_or(0).to_string(), 1);
        self.prefixed(Dialect::Checkpoint, layer, &name)
    }

    fn prefixed(&self, dialect: Dialect, layer: usize, name: &str) -> String {
        match (self.scope, dialect) {
            (Scope::Model, _) => name.to_owned(),
            (Scope::Layer, Dialect::Gguf) => format!("blk.{layer}.{name}"),
            (Scope::Layer, Dialect::Checkpoint) => format!("model.layers.{layer}.{name}"),
        }
    }

    /// Whether a tensor outside of the layers has this name in a GGUF, or `unwrapped`, which is the name without the
    /// prefixes of wrappers, in a checkpoint.
    pub(super) fn is_model_name(&self, name: &str, unwrapped: &str) -> bool {
        let checkpoint = self.checkpoint.name;
        let trunk = checkpoint.strip_prefix("model.").unwrap_or(checkpoint);
        self.scope == Scope::Model && (name == self.name || name == self.gguf || unwrapped == trunk)
    }

    /// The piece and the expert that a tensor of a layer holds under this name, given without its prefix.
    pub(super) fn find(&self, dialect: Dialect, name: &str) -> Option<(Piece, Option<usize>)> {
        if self.scope == Scope::Model {
            return None;
        }
        let own: &[Spelling] = match dialect {
            Dialect::Gguf => &[Spelling::gguf(self.name, Piece::Whole), Spelling::gguf(self.gguf, Piece::Whole)],
            Dialect::Checkpoint => &[self.checkpoint],
        };
        let mut spellings = own.iter().chain(self.also).filter(|spelling| spelling.dialect == dialect);
        spellings.find_map(|spelling| spelling.matches(name).map(|expert| (spelling.piece, expert)))
    }
}

/// Splits `12.rest` into the number and the rest. A number with a sign or a leading zero is refused, because writers never
/// write one, and so is one that does not fit.
pub(super) fn split_number(text: &str) -> Option<(usize, &str)> {
    let (digits, rest) = text.split_once('.')?;
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    if !plain || (digits.len() > 1 && digits.starts_with('0')) || rest.is_empty() {
        return None;
    }
    Some((digits.parse().ok()?, rest))
}
