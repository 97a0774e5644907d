//! The stages of a job, for progress.

/// The stage that a job is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Errors of types are measured; done and in all count layers and the head.
    Measure,
    /// The source is read once for its BLAKE3.
    Hash,
    /// Networks are calibrated, layer by layer; done and in all count networks.
    Calibrate,
    /// Tensors are encoded and written.
    Encode,
    /// The written file is read and checked.
    Verify,
}

impl Stage {
    /// A word for progress.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Stage::Measure => "measuring layers",
            Stage::Hash => "reading the source",
            Stage::Calibrate => "calibrating networks",
            Stage::Encode => "quantising",
            Stage::Verify => "verifying",
        }
    }
}

/// A function that is called with the stage and its bytes (or networks), done and in all.
pub type OnProgress<'a> = dyn FnMut(Stage, u64, u64) + 'a;
