//! Versions, first bytes and limits of the files.

/// Version of an artifact's layout.
pub(super) const ARTIFACT_VERSION: u32 = 1;
/// Name of an artifact's file in the folder of its key.
pub(super) const FILE_NAME: &str = "artifact.bin";
/// First bytes of an artifact.
pub(super) const MAGIC: &[u8; 8] = b"CRAFTTA1";
/// Last bytes of an artifact.
pub(super) const END_MAGIC: &[u8; 8] = b"CRAFTTAE";
/// Version of the lines of a trace.
pub(super) const TRACE_VERSION: u32 = 1;
/// Longest line of a trace that is read, in bytes.
pub const MAX_LINE_BYTES: usize = 4 << 20;
