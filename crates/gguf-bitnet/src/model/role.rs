//! The purposes that files of tensors have: a model, or one of the companions that lie beside models in the same formats.

use std::fmt;

/// The purpose of a file of tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A language model of whatever architecture.
    Model,
    /// Low-rank changes to a model (LoRA).
    Adapter,
    /// The part of a multimodal model that turns pictures or sound into embeddings (`mmproj`).
    Projector,
    /// Calibration data for quantising (`imatrix`).
    ImportanceMatrix,
    /// Directions that steer the hidden states of a model.
    ControlVector,
    /// A tokenizer without a model.
    Vocabulary,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Model => "a language model",
            Role::Adapter => "an adapter (LoRA), which holds changes to another model: name that model",
            Role::Projector => {
                "a projector (mmproj), which turns pictures or sound into the input of a language model: name that model"
            }
            Role::ImportanceMatrix => {
                "an importance matrix (imatrix), which is calibration data: name the model that it was measured on"
            }
            Role::ControlVector => "a control vector, which steers another model: name that model",
            Role::Vocabulary => "a vocabulary without a model: name the file that has the weights",
        })
    }
}
