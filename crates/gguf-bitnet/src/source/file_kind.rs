//! The kinds of files that stand where a model should, recognised by their first bytes.
//!
//! A download that went wrong leaves a pointer, a web page or the error message of a server under the name of the model;
//! an archive, a pickle or a file of an older engine may be the model in a form that is not read here. Each kind has a
//! sentence that says what the file is and what to do.
//!
//! Sources: the Git LFS pointer specification, the zip, gzip, zstd, xz, 7z and tar formats, the pickle opcodes of Python,
//! the magics of llama.cpp before GGUF.

use std::fmt;

/// Bytes at the start of a file that [`FileKind::of`] looks at: a tar header has its magic at byte 257.
pub(crate) const START_BYTES: usize = 512;

/// A kind of file that is neither GGUF nor safetensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileKind {
    /// The text that Git keeps in place of a file that Git LFS stores.
    LfsPointer,
    /// A page in HTML that a site answered in place of the file.
    WebPage,
    /// XML, as object stores answer.
    Xml,
    /// A JSON object or list.
    Json,
    /// A text that is none of the kinds above.
    Text,
    /// A compressed file or an archive, by the name of its format.
    Archive(&'static str),
    /// Weights in the serialisation of Python, which can run code when it is read.
    Pickle,
    /// Arrays in the formats of NumPy (`.npy`, `.npz`).
    NumPy,
    /// A graph in the ONNX format.
    Onnx,
    /// Weights of Keras, in HDF5.
    Hdf5,
    /// A graph of TensorFlow Lite.
    TfLite,
    /// A model or an adapter of llama.cpp from the time before GGUF.
    OldGgml,
    /// Calibration data of llama.cpp in its older form.
    ImportanceMatrix,
    /// The packed weights that this program keeps beside a model.
    LayoutCache,
    /// A program; llamafiles are programs with a model inside.
    Program,
    /// A paper or a page in PDF.
    Document,
    /// Bytes that are all zero, as an interrupted download leaves them.
    Zeros,
    /// A pipe, a socket or a device.
    Special,
}

/// First bytes that decide the kind.
const MAGICS: [(&[u8], FileKind); 26] = [
    (b"version https://git-lfs.github.com/spec/", FileKind::LfsPointer),
    (b"version https://hawser.github.com/spec/", FileKind::LfsPointer),
    (b"\x1f\x8b", FileKind::Archive("gzip")),
    (b"\x28\xb5\x2f\xfd", FileKind::Archive("zstd")),
    (b"\xfd7zXZ\0", FileKind::Archive("xz")),
    (b"BZh", FileKind::Archive("bzip2")),
    (b"7z\xbc\xaf\x27\x1c", FileKind::Archive("7z")),
    (b"Rar!", FileKind::Archive("rar")),
    (b"\x04\x22\x4d\x18", FileKind::Archive("lz4")),
    (b"\x93NUMPY", FileKind::NumPy),
    (b"\x89HDF\r\n", FileKind::Hdf5),
    (b"%PDF-", FileKind::Document),
    (b"\x7fELF", FileKind::Program),
    (b"MZ", FileKind::Program),
    (b"\xcf\xfa\xed\xfe", FileKind::Program),
    // The magics are numbers, so that little-endian files have their letters reversed.
    (b"lmgg", FileKind::OldGgml),
    (b"fmgg", FileKind::OldGgml),
    (b"tjgg", FileKind::OldGgml),
    (b"algg", FileKind::OldGgml),
    (b"ggml", FileKind::OldGgml),
    (b"ggmf", FileKind::OldGgml),
    (b"ggjt", FileKind::OldGgml),
    (b"ggla", FileKind::OldGgml),
    (b"bitnet-tiles-", FileKind::LayoutCache),
    (b"PK\x05\x06", FileKind::Archive("zip")),
    (b"PK\x07\x08", FileKind::Archive("zip")),
];

impl FileKind {
    /// The kind of the file that starts with these bytes ([`START_BYTES`] of them, or the whole file); `None` for bytes
    /// that are not recognised. The caller has seen that they begin neither a GGUF nor a safetensors file.
    pub(crate) fn of(start: &[u8]) -> Option<FileKind> {
        let start = &start[..start.len().min(START_BYTES)];
        if let Some((_, kind)) = MAGICS.iter().find(|(magic, _)| start.starts_with(magic)) {
            return Some(*kind);
        }
        match start {
            [] => None,
            [b'P', b'K', 3, 4, ..] => Some(zip_kind(start)),
            // The opcode PROTO with the number of the protocol.
            [0x80, 2..=5, ..] => Some(FileKind::Pickle),
            _ if start.get(257..262) == Some(b"ustar") => Some(FileKind::Archive("tar")),
            _ if start.get(4..8) == Some(b"TFL3") => Some(FileKind::TfLite),
            _ if is_onnx(start) => Some(FileKind::Onnx),
            _ if is_importance_matrix(start) => Some(FileKind::ImportanceMatrix),
            _ if start.iter().all(|&byte| byte == 0) => Some(FileKind::Zeros),
            _ => text_kind(start),
        }
    }

    /// The kind of a page that was saved in place of a text such as JSON: an error or log-in page, as HTML or XML.
    pub fn of_page(text: &str) -> Option<FileKind> {
        text_kind(&text.as_bytes()[..text.len().min(START_BYTES)])
            .filter(|kind| matches!(kind, FileKind::WebPage | FileKind::Xml))
    }

    /// Whether these bytes are a Git LFS pointer.
    pub(crate) fn is_pointer(start: &[u8]) -> bool {
        FileKind::of(start) == Some(FileKind::LfsPointer)
    }

    /// The file, as the end of a sentence that begins with "the file is".
    fn noun(self) -> &'static str {
        match self {
            FileKind::LfsPointer => "a Git LFS pointer, a small text in place of the real file",
            FileKind::WebPage => "a web page, such as the log-in or error page of the site it was fetched from",
            FileKind::Xml => "an XML text, such as the error message of the server it was fetched from",
            FileKind::Json => "a JSON text, such as a configuration or the error message of a server",
            FileKind::Text => "a text, neither GGUF nor safetensors",
            FileKind::Archive(_) => "an archive",
            FileKind::Pickle => "a PyTorch pickle, which can run code when it is read and is never read here",
            FileKind::NumPy => "a file of NumPy arrays",
            FileKind::Onnx => "an ONNX graph",
            FileKind::Hdf5 => "a file of Keras weights (HDF5)",
            FileKind::TfLite => "a TensorFlow Lite graph",
            FileKind::OldGgml => "a GGML file from the time before GGUF",
            FileKind::ImportanceMatrix => "an importance matrix, which is calibration data",
            FileKind::LayoutCache => "a layout cache of this program",
            FileKind::Program => "a program",
            FileKind::Document => "a PDF document",
            FileKind::Zeros => "only zeros at its start, as an interrupted download leaves it",
            FileKind::Special => "a pipe, a socket or a device",
        }
    }

    /// The advice at the end of the sentence.
    fn remedy(self) -> &'static str {
        match self {
            FileKind::LfsPointer => "run `git lfs pull` in its repository, or download the file itself",
            FileKind::WebPage | FileKind::Xml => "download the file itself, with access to it",
            FileKind::Json => "name the directory of the model, or download its file again",
            FileKind::Text | FileKind::Zeros => "download the file again",
            FileKind::Archive(_) => "unpack it and name the model inside",
            FileKind::Pickle => "convert it to safetensors, or fetch the model as safetensors or GGUF",
            FileKind::NumPy | FileKind::Onnx | FileKind::Hdf5 | FileKind::TfLite => {
                "fetch the model as safetensors or GGUF"
            }
            FileKind::OldGgml => "convert the model's original checkpoint to GGUF",
            FileKind::ImportanceMatrix => "name the model that it was measured on",
            FileKind::LayoutCache => "name the model that it was made for",
            FileKind::Program => "name a model file; the one inside a llamafile must be extracted first",
            FileKind::Document => "name the model file",
            FileKind::Special => "name a regular file; a text may also come from standard input, as `-`",
        }
    }
}

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FileKind::Archive(format) => write!(f, "the file is {} ({format}): {}", self.noun(), self.remedy()),
            kind => write!(f, "the file is {}: {}", kind.noun(), kind.remedy()),
        }
    }
}

/// Whether a zip file holds a PyTorch checkpoint, by the name of its first entry.
fn zip_kind(start: &[u8]) -> FileKind {
    let length = start.get(26..28).map_or(0, |bytes| usize::from(u16::from_le_bytes([bytes[0], bytes[1]])));
    let name = start.get(30..).unwrap_or_default();
    let name = &name[..length.min(name.len())];
    let ends = |suffix: &[u8]| name.ends_with(suffix);
    if ends(b"data.pkl") || ends(b"/version") || ends(b"/byteorder") || ends(b"/.format_version") {
        FileKind::Pickle
    } else if ends(b".npy") {
        FileKind::NumPy
    } else {
        FileKind::Archive("zip")
    }
}

/// A `ModelProto`: field 1 is the version of the format, field 2 the name of the program that wrote it.
fn is_onnx(start: &[u8]) -> bool {
    let [0x08, 1..=40, 0x12, length @ 1..=64, producer @ ..] = start else { return false };
    producer.len() >= usize::from(*length) && producer[..usize::from(*length)].iter().all(u8::is_ascii_graphic)
}

/// The older form of llama.cpp: the number of tensors, then the length of a name and the name.
fn is_importance_matrix(start: &[u8]) -> bool {
    let number = |at: usize| Some(i32::from_le_bytes(start.get(at..at + 4)?.try_into().ok()?));
    let (Some(1..=65_536), Some(length @ 8..=128)) = (number(0), number(4)) else { return false };
    let name = usize::try_from(length).ok().and_then(|length| start.get(8..8 + length));
    name.is_some_and(|name| name.ends_with(b".weight") && name.iter().all(u8::is_ascii_graphic))
}

/// The kind of a text; `None` for bytes that are no text.
fn text_kind(start: &[u8]) -> Option<FileKind> {
    let text = match std::str::from_utf8(start) {
        Ok(text) => text,
        // A character may be cut off at the end.
        Err(error) if error.error_len().is_none() => std::str::from_utf8(&start[..error.valid_up_to()]).ok()?,
        Err(_) => return None,
    };
    if text.chars().any(|c| c.is_control() && !matches!(c, '\t' | '\n' | '\r')) {
        return None;
    }
    let text = text.trim_start_matches('\u{feff}').trim_start();
    let begins = |word: &str| text.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word));
    Some(if begins("<!doctype") || begins("<html") || begins("<head") || begins("<body") || begins("<!--") {
        FileKind::WebPage
    } else if begins("<?xml") {
        if text.to_ascii_lowercase().contains("<html") { FileKind::WebPage } else { FileKind::Xml }
    } else if text.starts_with(['{', '[']) {
        FileKind::Json
    } else {
        FileKind::Text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_recognised_by_its_first_bytes() {
        let mut tar = vec![b'a'; 512];
        tar[257..262].copy_from_slice(b"ustar");
        let zip = |name: &str| {
            let mut bytes = b"PK\x03\x04".to_vec();
            bytes.resize(26, 0);
            bytes.extend((name.len() as u16).to_le_bytes());
            bytes.extend([0, 0]);
            bytes.extend(name.as_bytes());
            bytes.extend(b"rest");
            bytes
        };
        let mut matrix = [3i32, 21].map(i32::to_le_bytes).concat();
        matrix.extend(b"blk.0.attn_out.weight\x01\0\0\0");
        let table: Vec<(Vec<u8>, Option<FileKind>)> = vec![
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n".into(), Some(FileKind::LfsPointer)),
            (b"\n<!DOCTYPE html>\n<html>".into(), Some(FileKind::WebPage)),
            (b"\xef\xbb\xbf<HTML>".into(), Some(FileKind::WebPage)),
            (b"<?xml version=\"1.0\"?><html>".into(), Some(FileKind::WebPage)),
            (b"<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code>".into(), Some(FileKind::Xml)),
            (b"{\"error\":\"Repository not found\"}".into(), Some(FileKind::Json)),
            (b" [1, 2]".into(), Some(FileKind::Json)),
            (b"Entry not found".into(), Some(FileKind::Text)),
            ("größe".as_bytes()[..4].into(), Some(FileKind::Text)),
            (b"\x1f\x8b\x08\0".into(), Some(FileKind::Archive("gzip"))),
            (b"\x28\xb5\x2f\xfd".into(), Some(FileKind::Archive("zstd"))),
            (b"\xfd7zXZ\0\0".into(), Some(FileKind::Archive("xz"))),
            (b"BZh9".into(), Some(FileKind::Archive("bzip2"))),
            (b"7z\xbc\xaf\x27\x1c\0".into(), Some(FileKind::Archive("7z"))),
            (b"Rar!\x1a".into(), Some(FileKind::Archive("rar"))),
            (tar, Some(FileKind::Archive("tar"))),
            (zip("weights/model.gguf"), Some(FileKind::Archive("zip"))),
            (b"PK\x05\x06\0\0".into(), Some(FileKind::Archive("zip"))),
            (zip("archive/data.pkl"), Some(FileKind::Pickle)),
            (b"\x80\x02\x8a\x0al\xfc\x9c".into(), Some(FileKind::Pickle)),
            (zip("a.npy"), Some(FileKind::NumPy)),
            (b"\x93NUMPY\x01\0".into(), Some(FileKind::NumPy)),
            (b"\x08\x07\x12\x07pytorch\x1a".into(), Some(FileKind::Onnx)),
            (b"\x89HDF\r\n\x1a\n".into(), Some(FileKind::Hdf5)),
            (b"\x1c\0\0\0TFL3".into(), Some(FileKind::TfLite)),
            (b"lmgg\0\0".into(), Some(FileKind::OldGgml)),
            (b"tjgg\x03\0\0\0".into(), Some(FileKind::OldGgml)),
            (b"algg\x01\0\0\0".into(), Some(FileKind::OldGgml)),
            (matrix, Some(FileKind::ImportanceMatrix)),
            (b"bitnet-tiles-1\n\0".into(), Some(FileKind::LayoutCache)),
            (b"\x7fELF\x02".into(), Some(FileKind::Program)),
            (b"MZqFpD='".into(), Some(FileKind::Program)),
            (b"%PDF-1.7".into(), Some(FileKind::Document)),
            (vec![0; 64], Some(FileKind::Zeros)),
            (vec![0], Some(FileKind::Zeros)),
            // A model, or bytes that say nothing.
            (Vec::new(), None),
            (b"GGUF\x03\0\0\0".into(), None),
            (b"\xff\xfe\xfd\xfc\x01\x02".into(), None),
        ];
        for (bytes, kind) in table {
            assert_eq!(FileKind::of(&bytes), kind, "{bytes:02x?}");
        }
    }

    #[test]
    fn a_sentence_says_what_the_file_is_and_what_to_do() {
        let sentence = FileKind::LfsPointer.to_string();
        assert!(sentence.contains("Git LFS pointer") && sentence.contains("git lfs pull"), "{sentence}");
        let sentence = FileKind::Archive("zip").to_string();
        assert_eq!(sentence, "the file is an archive (zip): unpack it and name the model inside");
    }
}
