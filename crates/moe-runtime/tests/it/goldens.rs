//! Every golden checkpoint gives the numbers of transformers (see `fixtures/README.md` for how they were made).

use crate::golden::{load_changed, read_case, run};

#[test]
fn every_case_gives_the_numbers_of_transformers() {
    let cases = fixtures::golden_cases();
    assert!(cases.len() >= 5, "the golden checkpoints are there");
    for name in cases {
        let golden = read_case(&name);
        assert!(!golden.routing.is_empty() || name.starts_with("deepseek-v2"), "{name}: the golden has routings");
        let model = load_changed(&name, |_| {});
        let distance = run(&model, &golden.tokens, 64, ()).distance(&golden);
        assert!(distance.passes(), "{name}: {distance:?}");
    }
}
