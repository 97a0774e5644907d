//! `prove perplexity`: the mini teacher on held-out text, against the figure of transformers.

use std::path::Path;

use super::proof::Proof;
use crate::bitnet::{self, arg};
use crate::outcome::Outcome;
use crate::repo;
use crate::report::number;

/// Largest relative difference from the published figure.
const TOLERANCE: f64 = 2e-4;

pub(super) fn prove(proof: &mut Proof<'_>, binary: &Path) -> Outcome {
    let fixtures = repo::root().join("fixtures");
    let teacher = fixtures.join("craftsman-mini");
    let want = published(&std::fs::read_to_string(teacher.join("FIGURES.md"))?)
        .ok_or("fixtures/craftsman-mini/FIGURES.md does not state the held-out perplexity")?;
    let text = fixtures.join("texts/heldout.txt");
    let report =
        bitnet::json(binary, &["eval", "fidelity", "--student", arg(&teacher)?, "--text", arg(&text)?, "--json"])?;
    let got = number(&report, "perplexity.value")?;
    let off = (got / want - 1.0).abs();
    proof.figure(
        "held-out perplexity of the mini teacher",
        format!("{got:.4}, {:.4} % from transformers", 100.0 * off),
        format!("{want} within 0.02 %"),
        off <= TOLERANCE,
    );
    Ok(())
}

/// The number after "perplexity" in the line on held-out text.
fn published(figures: &str) -> Option<f64> {
    let line = figures.lines().find(|line| line.contains("Held-out text"))?;
    line.split_once("perplexity ")?.1.split_whitespace().next()?.trim_end_matches(['.', ',', ';']).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::published;

    #[test]
    fn the_figure_is_found_in_its_sentence() {
        assert_eq!(published("- Held-out text: 9 tokens (positions 1..2): perplexity 10.6592\n"), Some(10.6592));
        assert_eq!(published("nothing"), None);
    }
}
