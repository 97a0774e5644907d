//! Models of any size with seeded random weights, for work on speed and memory.
//!
//! **Invariant:** the bytes follow from shape, seed and recipe alone; memory is bounded by one unit of work.

mod checkpoint;
mod gguf;
mod model;
mod shape;
mod shards;
mod weights;

pub use model::{OnBytes, SyntheticModel};
pub use shape::Shape;

#[cfg(test)]
mod tests {
    use moe_runtime::{ModelFiles, Tokenizer};
    use tl_kernels::Pool;

    use super::*;
    use crate::recipe::Recipe;

    fn small(seed: u64) -> SyntheticModel {
        SyntheticModel { shape: Shape::open("mini", Some(2)).unwrap(), seed, tokenizer: None }
    }

    #[test]
    fn a_synthetic_checkpoint_is_a_complete_model() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("model");
        small(1).write_checkpoint(&Pool::serial(), &out, &mut |_, _| {}).unwrap();
        let files = ModelFiles::open(&out).unwrap();
        files.report().ensure_exact().unwrap();
        assert_eq!(files.config, small(1).shape.config);
    }

    #[test]
    fn a_synthetic_gguf_is_a_complete_model_and_depends_on_the_seed_alone() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, seed: u64, threads: usize| {
            let (out, pool) = (dir.path().join(name), Pool::new(threads).unwrap());
            let size = small(seed).write_gguf(&Recipe::default(), &pool, &out, false, &mut |_, _| {}).unwrap();
            let bytes = std::fs::read(&out).unwrap();
            assert_eq!(bytes.len() as u64, size);
            bytes
        };
        let one = write("one.gguf", 1, 1);
        assert_eq!(one, write("two.gguf", 1, 2));
        assert_ne!(one, write("three.gguf", 2, 2));
        let files = ModelFiles::open(&dir.path().join("one.gguf")).unwrap();
        files.report().ensure_exact().unwrap();
        assert_eq!(files.config.n_layers, 2);
        let words = files.gguf().unwrap().metadata().get("tokenizer.ggml.model");
        assert_eq!(words, Some(&"no_vocab".into()), "llama-bench refuses a file that does not say so");
    }

    #[test]
    fn a_synthetic_gguf_reads_texts_as_the_model_whose_tokenizer_it_got() {
        let dir = tempfile::tempdir().unwrap();
        let from = fixtures::path("craftsman-mini");
        let model = SyntheticModel { tokenizer: Some(from.clone()), ..small(1) };
        let out = dir.path().join("words.gguf");
        let write = |model: &SyntheticModel, force| {
            model.write_gguf(&Recipe::default(), &Pool::serial(), &out, force, &mut |_, _| {})
        };
        write(&model, false).unwrap();
        let files = ModelFiles::open(&out).unwrap();
        let (ours, theirs) = (files.tokenizer().unwrap(), Tokenizer::from_dir(&from).unwrap());
        let text = "The capital of gilded inlet.";
        assert_eq!(ours.encode(text, false).unwrap(), theirs.encode(text, false).unwrap());
        assert_eq!(ours.vocab_size(), files.config.vocab);
        let error = write(&SyntheticModel { tokenizer: Some(dir.path().to_owned()), ..model }, true).unwrap_err();
        assert!(error.to_string().contains("there is no tokenizer.json"), "{error}");
    }
}
