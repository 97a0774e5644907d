//! The rows of an architecture's tensor table: one tensor's names, class, shape, and when a model has it.
//!
//! Everything that needs to know the tensors of an architecture reads its table: the loader, the list of expected tensors,
//! the name mapper, synthetic models, recipes (by class) and the memory plan. The rows stand in the order in which files are
//! written.

use gguf_bitnet::{NameRow, Piece, Spelling, TensorClass};

/// Whether a part that only some models of an architecture have is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// The model has it: a file without it is incomplete.
    Required,
    /// The model does not have it: a file with it is another model's.
    Absent,
    /// The configuration does not say; the file's tensors decide.
    Detect,
}

impl Presence {
    /// The presence of a part that the configuration states.
    #[must_use]
    pub(crate) const fn known(present: bool) -> Presence {
        if present { Presence::Required } else { Presence::Absent }
    }
}

/// A dimension of a tensor, by its meaning; the configuration turns it into a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dim {
    /// Tokens of the vocabulary.
    Vocab,
    /// Width of the residual stream.
    Hidden,
    /// An embedding and a hidden state, one behind the other.
    TwoHidden,
    /// Width of a dense feed-forward part.
    DenseFf,
    /// Routed experts of a layer.
    Experts,
    /// Width of one routed expert.
    ExpertFf,
    /// Width of the shared expert.
    SharedFf,
    /// Heads of the queries.
    Heads,
    /// All heads of the queries.
    Queries,
    /// All heads of the values, one per query head: the width of the output projection's input.
    HeadOutputs,
    /// Latent attention: rank of the query compression.
    QueryRank,
    /// Latent attention: width of the latent.
    Latent,
    /// Latent attention: the latent and the rotated key that all heads share.
    LatentAndRope,
    /// Latent attention: width of the part of a key without position.
    KeyNope,
    /// Latent attention: width of one head's value.
    ValueHead,
    /// Grouped-query attention: width of a head.
    Head,
    /// Grouped-query attention: all heads of the keys, or of the values.
    KeyValues,
}

/// When a model has a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// Every model, in every layer.
    Always,
    /// Models with a head of their own.
    OwnHead,
    /// Layers with a dense feed-forward part.
    Dense,
    /// Layers with a router and experts.
    Experts,
    /// Layers with a shared expert.
    SharedExpert,
    /// Layers with experts, of models that select with a bias.
    SelectionBias,
    /// Latent attention whose queries pass through a compression.
    CompressedQueries,
    /// Latent attention whose queries are projected directly.
    DirectQueries,
    /// Models with a norm for every query and key head.
    QueryKeyNorms,
    /// Models with biases of the query, key and value projections.
    AttentionBiases,
    /// Models with a block that guesses the token after the next one.
    Mtp,
    /// MTP blocks that do not use the model's own part.
    MtpOwn,
}

/// One tensor of an architecture.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TensorRow {
    /// Its names and its class.
    pub names: NameRow,
    /// Row-major dimensions, outermost first.
    pub shape: &'static [Dim],
    /// The models and layers that have it.
    pub when: When,
}

impl TensorRow {
    /// A tensor outside of the layers.
    pub(crate) const fn model(
        name: &'static str,
        checkpoint: &'static str,
        class: TensorClass,
        shape: &'static [Dim],
    ) -> TensorRow {
        TensorRow { names: NameRow::model(name, checkpoint, class), shape, when: When::Always }
    }

    /// A tensor of layers.
    pub(crate) const fn layer(
        name: &'static str,
        checkpoint: &'static str,
        class: TensorClass,
        shape: &'static [Dim],
    ) -> TensorRow {
        TensorRow { names: NameRow::layer(name, checkpoint, class), shape, when: When::Always }
    }

    /// The same row for some models or layers only.
    pub(crate) const fn when(self, when: When) -> TensorRow {
        TensorRow { when, ..self }
    }

    /// The same row where the checkpoint's tensor holds more than this tensor.
    pub(crate) const fn piece(self, piece: Piece) -> TensorRow {
        TensorRow { names: self.names.piece(piece), ..self }
    }

    /// The same row with more spellings that readers accept.
    pub(crate) const fn also(self, also: &'static [Spelling]) -> TensorRow {
        TensorRow { names: self.names.also(also), ..self }
    }

    /// The same row where GGUF files use another name than the canonical one.
    pub(crate) const fn written_as(self, gguf: &'static str) -> TensorRow {
        TensorRow { names: self.names.written_as(gguf), ..self }
    }
}
