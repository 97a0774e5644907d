//! Whether two models are a teacher and its student: of one shape, and with the same meaning of every token.

use moe_runtime::ModelFiles;

use crate::error::{Error, Result};

/// Refuses a teacher that differs from the student in architecture, shape or tokens. The student's tokens are given to both,
/// so another token behind an id would train the student towards predictions about another text.
///
/// # Errors
/// [`Error::NotAPair`] with the first difference, and a tokenizer that cannot be read.
pub(crate) fn ensure_pair(teacher: &ModelFiles, student: &ModelFiles) -> Result<()> {
    for ((what, teacher), (_, student)) in facts(teacher).into_iter().zip(facts(student)) {
        if teacher != student {
            return Err(Error::NotAPair { what: what.to_owned(), teacher, student });
        }
    }
    let tokenizers = [teacher.tokenizer()?, student.tokenizer()?];
    for id in 0..u32::try_from(student.config.vocab).unwrap_or(u32::MAX) {
        let [of_teacher, of_student] = [0, 1].map(|i| tokenizers[i].token_text(id));
        // A checkpoint has more rows than its tokenizer has tokens; a GGUF fills the rest with names.
        let is_unused = tokenizers.iter().all(|tokenizer| tokenizer.is_unused(id));
        if of_teacher != of_student && !is_unused {
            let [teacher, student] = [of_teacher, of_student].map(|text| format!("{text:?}"));
            return Err(Error::NotAPair { what: format!("token {id}"), teacher, student });
        }
    }
    let [of_teacher, of_student] = [0, 1].map(|i| format!("{:?}", tokenizers[i].raw_prefix()));
    if of_teacher != of_student {
        let what = "the tokens in front of a text".to_owned();
        return Err(Error::NotAPair { what, teacher: of_teacher, student: of_student });
    }
    Ok(())
}

fn facts(files: &ModelFiles) -> [(&'static str, String); 7] {
    let c = &files.config;
    let router = c.moe.as_ref().map(|moe| &moe.router);
    [
        ("architecture", c.arch.gguf_name().to_owned()),
        ("number of layers", c.n_layers.to_string()),
        ("width", c.hidden.to_string()),
        ("vocabulary", c.vocab.to_string()),
        ("number of experts", router.map_or(0, |router| router.n_experts).to_string()),
        ("number of experts per token", router.map_or(0, |router| router.top_k).to_string()),
        ("gating of the experts", router.map_or_else(|| "none".to_owned(), |router| router.gating.to_string())),
    ]
}
