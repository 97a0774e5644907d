//! Replaces the metadata of a GGUF file by an atomic copy, without touching a weight.
//!
//! **Invariant:** the file at the path is either as it was or complete with the new metadata; its identity is the one the
//! caller expects, checked on the copy before the copy takes the file's place.

use std::path::Path;

use super::error::ModelError;
use super::identity::identity_of;
use super::replace::replace_checked;
use crate::error::{Locate, Result};
use crate::gguf::{GgufFile, GgufWriter, Metadata};
use crate::source::TensorSource;
use crate::store::{output_path, require_space};

/// Bytes of a tensor that are copied before its pages are handed back.
const CHUNK_BYTES: usize = 32 << 20;

/// Writes the model at `path` again, with its metadata changed by `change`. The copy must have this `identity`
/// (hexadecimal BLAKE3, see [`identity`](crate::identity())), so `change` may touch only keys that are no part of the
/// identity. `progress` is called with the bytes done and their total, over copying and checking.
///
/// # Errors
/// [`ModelError::IdentityChanged`] when the changed copy does not have the identity; [`ModelError::SplitRewrite`] for
/// a split set; [`StoreError::NotEnoughSpace`](crate::StoreError::NotEnoughSpace);
/// [`StoreError::Io`](crate::StoreError::Io). The file is then unchanged.
pub fn rewrite_metadata(
    path: &Path,
    identity: &str,
    change: impl FnOnce(&mut Metadata),
    progress: &mut dyn FnMut(u64, u64),
) -> Result<()> {
    // The model behind a link is written again, and the link stays.
    let path = &output_path(path)?;
    let file = GgufFile::open(path)?;
    if file.n_parts() > 1 {
        return Err(ModelError::SplitRewrite { count: file.n_parts() }.in_file(path));
    }
    let mut metadata = file.metadata().clone();
    change(&mut metadata);
    let mut writer = GgufWriter::new(&metadata, file.tensors().to_vec()).map_err(|e| e.in_file(path))?;
    require_space(path, writer.file_bytes())?;
    let total: u64 = file.tensors().iter().map(|info| info.bytes).sum();
    let progress = std::cell::RefCell::new(progress);
    let report = |done| (progress.borrow_mut())(done, 2 * total);
    replace_checked(
        path,
        |out| {
            writer.begin(out)?;
            let mut done = 0;
            for index in 0..file.tensors().len() {
                let data = file.bytes(index)?;
                for chunk in data.chunks(CHUNK_BYTES) {
                    writer.write_tensor(out, index, chunk)?;
                    file.release(index);
                    done += chunk.len() as u64;
                    report(done);
                }
            }
            // Windows cannot replace a file that is open.
            drop(file);
            writer.finish()
        },
        |written| {
            let got = identity_of(written, Some(written.metadata()), &mut |done, _| report(total + done))?;
            if got.to_hex().as_str() != identity {
                return Err(ModelError::IdentityChanged { expected: identity.to_owned(), got: got.to_string() }.into());
            }
            Ok(())
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::{TensorInfo, TensorType, identity};
    use ternary_core::Bytes;

    fn model(dir: &Path) -> std::path::PathBuf {
        let path = dir.join("m.gguf");
        let mut metadata = Metadata::default();
        metadata.insert("general.name", "m");
        let info = TensorInfo { name: "w".into(), shape: vec![9], ty: TensorType::F32, bytes: 36 };
        GgufWriter::write_file(&path, &metadata, &[(info, Bytes::from((0..36).collect::<Vec<u8>>()))]).unwrap();
        path
    }

    #[test]
    fn keys_that_do_not_count_can_be_replaced_again_and_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = model(dir.path());
        let before = identity(&GgufFile::open(&path).unwrap()).unwrap().to_string();
        for (i, text) in ["a", "a longer verdict than before", "b"].into_iter().enumerate() {
            let mut last = (0, 0);
            let change = |metadata: &mut Metadata| {
                metadata.insert("craftsman.gates.verdict", text);
            };
            rewrite_metadata(&path, &before, change, &mut |done, total| last = (done, total)).unwrap();
            assert_eq!(last, (72, 72));
            let file = GgufFile::open(&path).unwrap();
            assert_eq!(identity(&file).unwrap().to_string(), before, "{i}");
            assert_eq!(file.metadata().str("craftsman.gates.verdict").unwrap(), Some(text));
            assert_eq!(file.bytes(0).unwrap()[..], (0..36).collect::<Vec<u8>>());
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn a_model_behind_a_link_is_rewritten_and_the_link_stays() {
        let (dir, disk) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let path = model(disk.path());
        let link = dir.path().join("link.gguf");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let before = identity(&GgufFile::open(&path).unwrap()).unwrap().to_string();
        let change = |metadata: &mut Metadata| {
            metadata.insert("craftsman.gates.verdict", "SHIP");
        };
        rewrite_metadata(&link, &before, change, &mut |_, _| {}).unwrap();
        assert!(link.is_symlink());
        let file = GgufFile::open(&path).unwrap();
        assert_eq!(file.metadata().str("craftsman.gates.verdict").unwrap(), Some("SHIP"));
        for folder in [&dir, &disk] {
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
        }
    }

    #[test]
    fn another_model_is_refused_and_the_file_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = model(dir.path());
        let whole = std::fs::read(&path).unwrap();
        let right = identity(&GgufFile::open(&path).unwrap()).unwrap().to_string();
        let rename = |metadata: &mut Metadata| {
            metadata.insert("general.name", "other");
        };
        for error in [
            rewrite_metadata(&path, &"0".repeat(64), |_| {}, &mut |_, _| {}).unwrap_err(),
            rewrite_metadata(&path, &right, rename, &mut |_, _| {}).unwrap_err(),
        ] {
            assert!(matches!(error.root(), Error::Model(ModelError::IdentityChanged { .. })), "{error}");
            assert!(error.to_string().contains("m.gguf"), "{error}");
        }
        assert_eq!(std::fs::read(&path).unwrap(), whole);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
