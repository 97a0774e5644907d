//! Options from the environment and from a file, completions and manual pages.

use serde_json::Value;

use crate::common::{command, teacher};

/// Standard output and exit code of `bitnet` with these arguments and variables.
fn with(args: &[&str], variables: &[(&str, &str)]) -> (String, String, Option<i32>) {
    let ended = command().args(args).envs(variables.iter().copied()).write_stdin("a river").output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (text(ended.stdout), text(ended.stderr), ended.status.code())
}

#[test]
fn options_come_from_variables_and_from_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.toml");
    std::fs::write(&config, format!("model = {:?}\n[tokenize]\njson = true\ntext = \"a lake\"\n", teacher())).unwrap();
    let config = config.to_str().unwrap();
    let pieces = |variables: &[(&str, &str)], args: &[&str]| {
        let (out, err, code) = with(&[&["tokenize"], args].concat(), variables);
        assert_eq!(code, Some(0), "{err}");
        let found: Value = serde_json::from_str(&out).unwrap();
        found["pieces"].as_array().unwrap().iter().map(|piece| piece.as_str().unwrap()).collect::<String>()
    };
    assert_eq!(pieces(&[("BITNET_CONFIG", config)], &[]), "a lake");
    let both = [("BITNET_CONFIG", config), ("BITNET_TEXT", "a sea")];
    assert_eq!(pieces(&both, &[]), "a sea");
    assert_eq!(pieces(&both, &["--text", "a pond"]), "a pond");
    // The option contradicts --text, so the setting yields.
    assert_eq!(pieces(&both, &["--file", "-"]), "a river");
}

#[test]
fn a_wrong_setting_is_named_with_its_origin() {
    let (_, err, code) = with(&["bench", "-m", "no/such/model"], &[("BITNET_THREADS", "many")]);
    assert_eq!(code, Some(2), "{err}");
    assert!(err.contains("from 1 to 1024") && err.contains("note: --threads comes from BITNET_THREADS"), "{err}");
    let (_, err, code) = with(&["bench"], &[("BITNET_CONFIG", "no/such/config.toml")]);
    assert_eq!(code, Some(2), "{err}");
    assert!(err.contains("no/such/config.toml") && err.contains("BITNET_CONFIG"), "{err}");
}

#[test]
fn five_shells_get_completions_of_all_verbs() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let (script, err, code) = with(&["completions", shell], &[]);
        assert_eq!(code, Some(0), "{shell}: {err}");
        assert!(script.contains("eval-gates") && script.contains("max-tokens"), "{shell}");
    }
}

#[test]
fn every_verb_has_a_manual_page() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("man1");
    let (said, err, code) = with(&["man", "--out", out.to_str().unwrap()], &[]);
    assert_eq!(code, Some(0), "{err}");
    let pages = std::fs::read_dir(&out).unwrap().count();
    assert!(said.starts_with(&format!("{pages} manual pages")), "{said}");
    for (page, part) in
        [("bitnet.1", "bitnet"), ("bitnet-run.1", "max\\-tokens"), ("bitnet-eval-fidelity.1", "teacher")]
    {
        let text = std::fs::read_to_string(out.join(page)).unwrap();
        assert!(text.contains(".TH") && text.contains(part), "{page}: {text}");
    }
}
