//! `bitnet embed` and `bitnet index`: from texts to a search that names contradictions.

use serde_json::Value;

use crate::common::{bitnet, fixture};

fn arguments<'a>(before: &[&'a str], model: &'a str) -> Vec<&'a str> {
    [before, &["-m", model, "--threads", "1"]].concat()
}

#[test]
fn one_vector_per_text() {
    let model = fixture("goldens/bert-tiny");
    let out = bitnet(arguments(&["embed", "--text", "a bridge", "--text", "the northern bridge"], &model)).done();
    let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((lines.len(), &lines[1]["text"]), (2, &Value::from("the northern bridge")));
    let values: Vec<f64> = lines[0]["vector"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
    assert_eq!(values.len(), 96);
    assert!((values.iter().map(|x| x * x).sum::<f64>() - 1.0).abs() < 1e-5);

    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("v.safetensors");
    let texts = fixture("goldens/bert-tiny/texts.json");
    let ended = bitnet(arguments(&["embed", "--file", &texts, "-o", file.to_str().unwrap()], &model));
    assert!(ended.stderr.contains("64 vectors of 96 values"), "{}", ended.stderr);
    assert!(file.is_file());
}

#[test]
fn an_index_is_built_continued_searched_and_thinned_out() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (index, notes, more) = (path("i.rlm"), path("notes.txt"), path("more.jsonl"));
    std::fs::write(&notes, "The Orra bridge is open to carts.\n\nThe Orra bridge is closed to carts.\n").unwrap();
    std::fs::write(&more, "{\"id\":\"m\",\"text\":\"A violin has strings.\"}\n").unwrap();
    let build = || bitnet(arguments(&["index", "build", &index, &notes, &more], "hash")).done();
    assert!(build().contains("3 chunks added, 0 replaced, 0 left as they were, 3 in all"));
    assert!(build().contains("0 chunks added, 0 replaced, 3 left as they were, 3 in all"));
    std::fs::write(&more, "{\"id\":\"m\",\"text\":\"A violin has four strings.\"}\n").unwrap();
    assert!(build().contains("0 chunks added, 1 replaced, 2 left as they were, 3 in all"));

    let query = arguments(&["index", "query", &index, "Is the Orra bridge open?", "--json"], "hash");
    let found = bitnet(&query).json();
    let results = found["results"].as_array().unwrap();
    assert_eq!(results.len(), 3);
    assert_eq!(results[0]["text"], "The Orra bridge is open to carts.");
    assert_eq!(results[0]["contradicted_by"][0]["sign"], "antonym");
    assert_eq!(results[2]["contradicted_by"].as_array().unwrap().len(), 0);
    let looped = bitnet([&query[..], &["--recursion", "on"]].concat()).json();
    assert!(looped["recursion"]["iterations"].as_u64().unwrap() >= 1);
    let shown = bitnet(arguments(&["index", "query", &index, "Orra", "-k", "2"], "hash")).done();
    assert!(shown.contains("contradicted by"), "{shown}");

    let model = fixture("goldens/bert-tiny");
    let other = bitnet(arguments(&["index", "query", &index, "Orra"], &model)).refusal();
    assert!(other.contains("another embedder"), "{other}");
    let removed = bitnet(["index", "remove", &index, &notes]).done();
    assert!(removed.contains("2 chunks removed, 1 left"), "{removed}");
    assert!(bitnet(["index", "remove", &index, "nothing"]).refusal().contains("`nothing`"));
    let missing = bitnet(arguments(&["index", "add", &path("no.rlm"), &notes], "hash")).refusal();
    assert!(missing.contains("no.rlm"), "{missing}");
}

#[test]
fn the_benchmark_reports_every_variant_with_intervals() {
    let claims = fixture("claims");
    let report = bitnet(arguments(&["embed", "bench", "--claims", &claims, "--repeat", "1"], "hash")).json();
    assert_eq!(report["claims"], 100);
    for variant in ["A", "B", "C"] {
        let difference = &report["variants"][variant]["difference"]["separation"];
        assert!(difference["low95"].as_f64().unwrap() <= difference["high95"].as_f64().unwrap(), "{variant}");
    }
    let separation = |name: &str| report["anti"][name]["separation"].as_f64().unwrap();
    assert!(
        separation("-0.2") > separation("0") && separation("0") > separation("0.1"),
        "the sign of the third weight"
    );
    assert!(report["flags"]["all"]["negated"]["flagged"].as_u64().unwrap() > 0);
}
