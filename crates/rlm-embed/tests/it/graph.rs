//! Relations between statements, the recursion over a small corpus, and the figures of the benchmark.

use std::sync::Arc;

use rlm_embed::bench::{CachedEmbedder, ClaimSet, Kind, fit_rules, flags, measure, parse_claims};
use rlm_embed::encoder::{BaseEmbedder, HashEmbedder, cosine};
use rlm_embed::graph::{Evidence, Passage, Relation, RelationRules, Signal, Signals, Statement};
use rlm_embed::recursion::{Corpus, MergeWeights, RecursionConfig, RlmEmbedder, StopReason, Variant};
use rlm_embed::store::{FlatNeighborStore, NewChunk};
use tl_kernels::Pool;

fn relation(a: &str, b: &str) -> Relation {
    let rules = RelationRules::default();
    let forth = rules.relation(&Statement::new(a), &Statement::new(b), 0.9);
    assert_eq!(forth, rules.relation(&Statement::new(b), &Statement::new(a), 0.9), "{a} / {b}");
    forth
}

#[test]
fn words_tell_contradictions() {
    let negation = Relation::Contradicts(Signal::Negation);
    for (a, b, expected) in [
        ("The Orra bridge is open.", "The Orra bridge is not open.", negation),
        ("The Orra bridge is open.", "The Orra bridge isn't open.", negation),
        ("The Orra bridge is open.", "The Orra bridge is closed.", Relation::Contradicts(Signal::Antonym)),
        ("The Orra bridge is not open.", "The Orra bridge is closed.", Relation::Agrees),
        ("The Orra is 412 km long.", "The Orra is 914 km long.", Relation::Contradicts(Signal::Number)),
        ("The Orra is 1,200 km long.", "The Orra is 1200 km long.", Relation::Agrees),
        ("The Orra has three bridges.", "The Orra has 4 bridges.", Relation::Contradicts(Signal::Number)),
        (
            "The Orra bridge was built by Senn.",
            "The Orra bridge was built by Marl.",
            Relation::Contradicts(Signal::Entity),
        ),
        ("Orrin cures fever.", "Marol cures fever.", Relation::Unrelated),
        ("Fishing in the lake Orra is allowed.", "Fishing in the lake Senn is banned.", Relation::Unrelated),
        ("The Orra bridge is open.", "A violin has four strings.", Relation::Unrelated),
        ("", "", Relation::Unrelated),
        ("漢字", "漢字", Relation::Agrees),
    ] {
        assert_eq!(relation(a, b), expected, "{a} / {b}");
    }
    // Forms and synonyms of one denial: each of these was taken for a contradiction or for agreement before.
    for (a, b, expected) in [
        ("The guards refuse visitors.", "The guards refused visitors.", Relation::Agrees),
        ("The Orra trial failed.", "The Orra trial was a failure.", Relation::Agrees),
        ("The Orra trial was a success.", "The Orra trial was a failure.", negation),
        ("The king was absent from Orra.", "The king was missing from Orra.", Relation::Agrees),
        ("The king was absent from Orra.", "The king was not present in Orra.", Relation::Agrees),
        ("It is false that Orra is open.", "It is true that Orra is open.", negation),
        ("It is false that Orra is open.", "It is true that Orra is closed.", Relation::Agrees),
        ("The council rejected the Orra plan.", "The council refused the Orra plan.", Relation::Agrees),
        ("The council rejected the Orra plan.", "The council accepted the Orra plan.", negation),
    ] {
        assert_eq!(relation(a, b), expected, "{a} / {b}");
    }
    let far = RelationRules::default();
    let (a, b) = (Statement::new("The gate is open."), Statement::new("The gate is not open."));
    assert_eq!(far.relation(&a, &b, 0.1), Relation::Unrelated, "the vectors take part");
    let without = RelationRules { signals: Signals { negation: false, ..Signals::ALL }, ..far };
    assert_eq!(without.relation(&a, &b, 0.9), Relation::Agrees, "a signal that is off tells nothing");
}

/// Two denials in a chunk of two sentences do not cancel each other, and a denial of one thing does not deny another.
#[test]
fn chunks_are_compared_sentence_by_sentence() {
    let open = "The Orra bridge is open.";
    let negation = Relation::Contradicts(Signal::Negation);
    for (chunk, expected) in [
        ("The Orra bridge is not open. It never carried trains.", negation),
        ("The Orra bridge is open. It never carried trains.", Relation::Agrees),
        ("It never carried trains. The Orra bridge is open.", Relation::Agrees),
        ("It was built in 1890. The Orra bridge is closed.", Relation::Contradicts(Signal::Antonym)),
        ("A violin has four strings. It is never loud.", Relation::Unrelated),
    ] {
        assert_eq!(relation(open, chunk), expected, "{chunk}");
        assert_eq!(relation(chunk, chunk), Relation::Agrees, "{chunk}");
    }
    let numbers = ("Orra is 412 km long. It has 3 bridges.", "Orra is 412 km long. It has 9 bridges.");
    assert_eq!(relation(numbers.0, numbers.1), Relation::Contradicts(Signal::Number));
    let subjects = ("The Orra is old. It has 3 bridges.", "The Senn is old. It has 9 bridges.");
    assert_eq!(relation(subjects.0, subjects.1), Relation::Unrelated, "other names, other subjects");
    let long = "Orra is not open. ".repeat(100_000);
    assert_eq!(relation(&long, &long), Relation::Agrees, "a hostile text costs bounded time");
    // A sentence is compared by its first 256 words: 252 of these, and a denial in front of or behind the bound.
    let words: Vec<String> = (0..252).map(|n| format!("Name{}x", n)).collect();
    let sentence = |end: &str| format!("Orra is {} {end}.", words.join(" "));
    assert_eq!(relation(&sentence("open"), &sentence("not open")), negation);
    assert_eq!(relation(&sentence("wide open"), &sentence("wide open not")), Relation::Agrees);
    let names = |letter: char| (0..200_000).map(|n| format!("{letter}{n} ")).collect::<String>();
    let (one, other) = (Statement::new(&names('A')), Statement::new(&names('B')));
    assert_eq!((one.names().count(), other.names().count()), (256, 256), "one long sentence");
}

/// Answers to a question tell what words and vectors do not, and the graph has an edge for each relation.
#[test]
fn evidence_reads_answers_where_a_question_lets_them_be_parsed() {
    let texts = ["The port of Orra is Senn.", "Senn is the port of Orra.", "The port of Orra is Marl.", "Rain fell."];
    let vectors = [[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 0.0]];
    let passages: Vec<Passage> = texts.iter().zip(&vectors).map(|(text, v)| Passage::new(text, v)).collect();
    let without = Signals { negation: false, number: false, antonym: false, entity: false };
    let rules = RelationRules { signals: without, ..RelationRules::default() };
    let asked = Evidence::of(Some("What is the port of Orra?"), &passages, &rules);
    assert_eq!(asked.relation(0, 1), Relation::Agrees);
    assert_eq!(asked.relation(2, 1), Relation::Contradicts(Signal::Answer));
    assert_eq!((asked.graph.clusters(), asked.graph.opponents(2)), (vec![0, 0, 2, 3], vec![0, 1]));
    assert!(asked.graph.is_contested(1) && !asked.graph.is_contested(3));
    assert_eq!(asked.graph.minimal_cut(1).unwrap().weight, 1.0);
    // Without the question: far vectors are unrelated, and no signal is on.
    let unasked = Evidence::of(None, &passages, &rules);
    assert_eq!((unasked.relation(0, 1), unasked.relation(0, 2)), (Relation::Unrelated, Relation::Agrees));
}

struct Notes {
    store: FlatNeighborStore,
    encoder: HashEmbedder,
}

fn notes(texts: &[&str]) -> Notes {
    let mut encoder = HashEmbedder::new(128);
    let mut store = FlatNeighborStore::in_memory(128, encoder.identity(), Arc::new(Pool::serial()));
    let ids: Vec<String> = (0..texts.len()).map(|n| n.to_string()).collect();
    let chunks: Vec<NewChunk> = ids.iter().zip(texts).map(|(id, text)| NewChunk { id, source: "", text }).collect();
    store.add(&chunks, &encoder.embed(texts).unwrap()).unwrap();
    Notes { store, encoder }
}

const TEXTS: [&str; 5] = [
    "The Orra bridge is open to carts.",
    "The Orra bridge is open to carts today.",
    "The Orra bridge is closed to carts.",
    "The Orra bridge is closed to carts today.",
    "A violin has strings and a bow.",
];

fn config(variant: Variant) -> RecursionConfig {
    let rules = RelationRules { least_cosine: 0.3, ..RelationRules::default() };
    RecursionConfig { rules, ..RecursionConfig::new(variant) }
}

#[test]
fn a_contested_chunk_is_flagged_and_moves_away_from_its_opponents() {
    let Notes { store, encoder } = notes(&TEXTS);
    let mut embedder = RlmEmbedder::new(encoder, config(Variant::Twin));
    let corpus = Corpus::exact(&store);
    let found = embedder.embed(TEXTS[0], Some(0), corpus).unwrap();
    assert_eq!(found.stop, StopReason::Contested);
    assert_eq!(found.cluster, Some(0));
    assert!(found.neighbors.iter().all(|n| n.row != 0), "a chunk is not its own neighbour");
    for neighbor in &found.neighbors {
        assert_eq!(neighbor.contradicts(), [2, 3].contains(&neighbor.row), "{neighbor:?}");
    }
    let before = cosine(store.vector(0), store.vector(2));
    let after = cosine(&found.vector, found.twin.as_ref().unwrap());
    assert!(after < before - 0.05, "{after} after {before}");

    // Adding the opposing side moves the vector towards it.
    embedder.config().weights = MergeWeights::TOWARDS_ANTI;
    let towards = embedder.embed(TEXTS[0], Some(0), corpus).unwrap();
    assert!(cosine(&towards.vector, store.vector(2)) > cosine(&found.vector, store.vector(2)));

    let calm = embedder.embed(TEXTS[4], Some(4), corpus).unwrap();
    assert_eq!((calm.stop, calm.cluster, calm.twin), (StopReason::Converged, Some(4), None));
    assert!(calm.confidence > 0.99);
}

#[test]
fn without_a_pass_or_a_corpus_the_encoder_is_left_alone() {
    let Notes { store, encoder } = notes(&TEXTS);
    let off = RecursionConfig { max_iterations: 0, ..config(Variant::Corpus) };
    let mut embedder = RlmEmbedder::new(encoder.clone(), off);
    let found = embedder.embed("An unknown text.", None, Corpus::exact(&store)).unwrap();
    assert_eq!(found.vector, encoder.clone().embed(&["An unknown text."]).unwrap());
    assert_eq!((found.iterations, found.confidence, found.cluster), (0, 1.0, None));

    let empty = FlatNeighborStore::in_memory(128, encoder.identity(), Arc::new(Pool::serial()));
    for variant in [Variant::Query, Variant::Corpus, Variant::Twin] {
        let mut embedder = RlmEmbedder::new(encoder.clone(), config(variant));
        let found = embedder.embed(TEXTS[0], None, Corpus::exact(&empty)).unwrap();
        assert!(cosine(&found.vector, store.vector(0)) > 0.999_9 && found.neighbors.is_empty());
    }
}

fn claims(split: &str, most: usize) -> ClaimSet {
    let text = std::fs::read_to_string(fixtures::path(format!("claims/{split}.jsonl"))).unwrap();
    let mut claims = parse_claims(&text).unwrap();
    claims.truncate(most);
    let distractors = ["Boxes allow you to store data on the heap.".to_owned()];
    ClaimSet::new(claims, &distractors, &mut HashEmbedder::new(256), Arc::new(Pool::serial())).unwrap()
}

/// The splits share no wording: no four words in a row that are the same in two of them.
#[test]
fn the_wordings_of_the_splits_do_not_overlap() {
    let runs = |split: &str| {
        let set = claims(split, usize::MAX);
        let texts = set.store.live_rows().take(set.n_claim_texts()).map(|row| set.store.chunk(row).text.to_lowercase());
        let mut runs = std::collections::BTreeSet::new();
        for text in texts {
            let words: Vec<&str> =
                text.split_whitespace().filter(|word| !word.chars().any(|c| c.is_ascii_digit())).collect();
            runs.extend(words.windows(4).map(|run| run.join(" ")));
        }
        runs
    };
    let splits = ["fit", "tune", "test"].map(runs);
    for (a, b) in [(0, 1), (0, 2), (1, 2)] {
        let both: Vec<_> = splits[a].intersection(&splits[b]).collect();
        assert!(both.is_empty(), "{both:?}");
    }
}

#[test]
fn flags_are_counted_per_kind_and_thresholds_are_fitted() {
    let set = claims("fit", 60);
    let fitted = fit_rules(&set);
    let counts = flags(&set, &fitted.best);
    let caught = |kind: Kind| counts[&kind].flagged as f64 / counts[&kind].pairs as f64;
    for (kind, least) in [(Kind::Negated, 0.8), (Kind::Number, 0.8), (Kind::Entity, 0.5), (Kind::Antonym, 0.5)] {
        assert!(caught(kind) >= least, "{kind:?}: {counts:?}");
    }
    assert!(caught(Kind::Paraphrase) < 0.2 && caught(Kind::Unrelated) < 0.2, "{counts:?}");
    let blind = RelationRules {
        signals: Signals { negation: false, number: false, antonym: false, entity: false },
        ..fitted.best
    };
    assert!(flags(&set, &blind).values().all(|count| count.flagged == 0));
}

#[test]
fn figures_of_the_recursion_differ_from_those_of_the_encoder_alone() {
    let set = claims("fit", 20);
    let mut encoder = CachedEmbedder::new(HashEmbedder::new(256));
    let rules = fit_rules(&set).best;
    let alone = measure(&set, &mut encoder, None).unwrap();
    let config = RecursionConfig { rules, ..RecursionConfig::new(Variant::Corpus) };
    let looped = measure(&set, &mut encoder, Some(config)).unwrap();
    let mean = |figures: &[rlm_embed::bench::ClaimFigures], of: fn(&rlm_embed::bench::ClaimFigures) -> f64| {
        figures.iter().map(of).sum::<f64>() / figures.len() as f64
    };
    assert!(mean(&looped, |f| f.separation) > mean(&alone, |f| f.separation));
    assert!(mean(&looped, |f| f.false_neighbors) < mean(&alone, |f| f.false_neighbors));
    assert!(looped.iter().any(|f| f.drift > 0.0) && alone.iter().all(|f| f.drift == 0.0));
    let queries = RecursionConfig { rules, ..RecursionConfig::new(Variant::Query) };
    let queries = measure(&set, &mut encoder, Some(queries)).unwrap();
    assert!(queries.iter().any(|f| f.drift > 0.0), "a query moves with its corpus");
    let off = RecursionConfig { max_iterations: 0, ..config };
    let none = measure(&set, &mut encoder, Some(off)).unwrap();
    assert_eq!(none[0].separation, alone[0].separation, "no pass changes no vector");
}
