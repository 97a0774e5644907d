//! Evidence is read from texts that no template of the suites worded: other turns of phrase, other questions, values of
//! several words, entities and relations of the real world.

use behavior_eval::labels::{Evidence, LabelThresholds, labels};
use behavior_eval::suite::{Chunk, Label, Prompt, render_user};

/// A prompt whose sources are named by the chunks unless `source|text` says otherwise.
fn prompt(question: &str, texts: &[&str]) -> Prompt {
    let chunk = |(i, text): (usize, &&str)| {
        let (source, text) = text.split_once('|').map_or((format!("source-{i}"), *text), |(s, t)| (s.to_owned(), t));
        Chunk { id: format!("c{i}"), source, text: text.to_owned() }
    };
    let chunks: Vec<Chunk> = texts.iter().enumerate().map(chunk).collect();
    Prompt {
        id: "p".to_owned(),
        label: None,
        system: String::new(),
        user: render_user(&chunks, question),
        question: question.to_owned(),
        context: chunks.iter().map(|chunk| chunk.id.clone()).collect(),
        relevant: None,
        gold_answer: None,
        chunks,
    }
}

/// Answers with the number of their sources, joined words.
fn answers(question: &str, texts: &[&str]) -> Vec<(String, u64)> {
    let evidence = Evidence::of(&prompt(question, texts));
    evidence.clusters.iter().map(|cluster| (cluster.core.join(" "), cluster.weight())).collect()
}

fn label(question: &str, texts: &[&str]) -> Option<Label> {
    labels(&[prompt(question, texts)], &LabelThresholds::default()).prompts[0].label
}

/// Ways to say that the relation of an entity is a value. None is a template of the suites.
const PHRASINGS: [&str; 14] = [
    "{v} is the {r} of {e}.",
    "{e}'s {r} is {v}.",
    "According to the almanac, the {r} of {e} was {v}.",
    "Scholars agree that {v} is the {r} of {e}.",
    "In {e}, the {r} is {v}.",
    "{e} has {v} as its {r}.",
    "As for the {r} of {e}, it is {v}.",
    "{v} serves as the {r} of {e}.",
    "The {r} of {e}: {v}.",
    "The official {r} of {e} remains {v}, as travellers report.",
    "The {r} of {e}, as records say, is {v}.",
    "It is widely believed that the {r} of {e} is {v}.",
    "To this day {v} is the {r} of {e}.",
    "The {r} of {e} is called {v}, which surprises visitors.",
];

fn worded(phrasing: &str, relation: &str, entity: &str, value: &str) -> String {
    phrasing.replace("{r}", relation).replace("{e}", entity).replace("{v}", value)
}

#[test]
fn every_phrasing_gives_the_value() {
    for (relation, entity, value) in [
        ("capital", "gilded inlet", "Sabopol"),
        ("river", "Oz", "Old Muddy Creek"),
        ("patron", "New South Wales", "Saint Brigid"),
        ("currency", "quiet harbor", "crown 7"),
    ] {
        for phrasing in PHRASINGS {
            let text = worded(phrasing, relation, entity, value);
            for question in [
                format!("What is the {relation} of {entity}?"),
                format!("Name the {relation} of {entity}."),
                format!("What is {entity}'s {relation}?"),
            ] {
                let found = answers(&question, &[&text]);
                assert_eq!(found.len(), 1, "{question} {text} {found:?}");
                let value = value.to_lowercase();
                let is_value = found[0].0 == value
                    || (found[0].0.contains(&value) && found[0].0.split(' ').count() <= value.split(' ').count() + 1);
                assert!(is_value, "{question} {text} {found:?}");
            }
        }
    }
}

/// Any mixture of phrasings agrees when the values do, and disagrees when they do not.
#[test]
fn phrasings_agree_by_value() {
    let question = "What is the capital of gilded inlet?";
    for shift in 0..PHRASINGS.len() {
        let say =
            |i: usize, value: &str| worded(PHRASINGS[(shift + i) % PHRASINGS.len()], "capital", "gilded inlet", value);
        let four: Vec<String> = (0..4).map(|i| say(i, "Port Sabo")).collect();
        let four: Vec<&str> = four.iter().map(String::as_str).collect();
        assert_eq!(label(question, &four), Some(Label::Resolved), "{four:#?} {:?}", answers(question, &four));
        let split: Vec<String> = (0..4).map(|i| say(3 * i, if i % 2 == 0 { "Port Sabo" } else { "Sebolum" })).collect();
        let split: Vec<&str> = split.iter().map(String::as_str).collect();
        assert_eq!(label(question, &split), Some(Label::Contested), "{split:#?} {:?}", answers(question, &split));
        let others = [say(0, "Port Sabo").replace("capital", "anthem"), say(1, "Sebolum").replace("gilded", "amber")];
        let others: Vec<&str> = others.iter().map(String::as_str).collect();
        assert_eq!(
            label(question, &others),
            Some(Label::Indeterminate),
            "{others:#?} {:?}",
            answers(question, &others)
        );
        let mut one = others.clone();
        one.push(split[0]);
        assert_eq!(label(question, &one), Some(Label::Indeterminate), "{one:#?} {:?}", answers(question, &one));
    }
}

#[test]
fn questions_of_other_forms() {
    let founded = [
        "Gilded inlet was founded by Robert Kemp.",
        "Robert Kemp founded gilded inlet in 1820.",
        "The founder of gilded inlet is Robert Kemp.",
        "Amber tower was founded by Jane Doe.",
        "It was Robert Kemp who founded gilded inlet.",
    ];
    let found = answers("Who founded gilded inlet?", &founded);
    assert_eq!(found, [("robert kemp".to_owned(), 4)], "{found:?}");
    assert_eq!(label("Who founded gilded inlet?", &founded), Some(Label::Resolved));
    assert_eq!(answers("Who founded gilded inlet?", &founded[3..4]), []);

    let river = ["The Volta flows through Oz.", "Through Oz flows the Volta.", "The Nile flows through Egypt."];
    assert_eq!(answers("Which river flows through Oz?", &river), [], "no chunk speaks of a river");
    assert_eq!(answers("What flows through Oz?", &river), [("volta".to_owned(), 2)]);

    let export = ["Oz exports copper.", "Copper is exported by Oz.", "Oz exports tin.", "Tin is the export of Oz."];
    assert_eq!(answers("What does Oz export?", &export), [("copper".to_owned(), 2), ("tin".to_owned(), 2)]);
    assert_eq!(label("What does Oz export?", &export), Some(Label::Contested));
}

#[test]
fn what_only_looks_alike_does_not_bear() {
    let question = "What is the capital of west inlet?";
    for other in [
        "The west capital of gilded inlet is Sabopol.",
        "The capital of north west inlet is Sabopol.",
        "The capital of west harbor is Inlet.",
        "The capitals differ.",
        "West inlet is old.",
        "",
    ] {
        assert_eq!(answers(question, &[other]), [], "{other}");
    }
    // A question without content words bears on nothing.
    assert_eq!(answers("What is it?", &["It is Sabopol."]), []);
    assert_eq!(answers("", &["It is Sabopol."]), []);
}

#[test]
fn answers_may_repeat_words_of_the_question_and_deny() {
    let mexico = ["The capital of Mexico is Mexico City.", "Mexico City is the capital of Mexico."];
    assert_eq!(answers("What is the capital of Mexico?", &mexico), [("mexico city".to_owned(), 2)]);
    let denied = ["The capital of Oz is Ozo.", "The capital of Oz is not Ozo."];
    assert_eq!(answers("What is the capital of Oz?", &denied).len(), 2);
    // Over two sentences.
    let two = ["Gilded inlet is small. Its capital is Sabopol."];
    assert_eq!(answers("What is the capital of gilded inlet?", &two).len(), 1);
}

#[test]
fn signals_count_sources_and_not_chunks() {
    let question = "What is the capital of Oz?";
    let copies = ["atlas|The capital of Oz is Ozo."; 5];
    let evidence = Evidence::of(&prompt(question, &copies));
    assert_eq!((evidence.redundancy(), evidence.fragility(), evidence.disagreement()), (1, 1.0, 0.0));
    assert_eq!(label(question, &copies), Some(Label::Indeterminate));

    let say = |n: usize, value: &str| vec![format!("The capital of Oz is {value}."); n];
    let signals = |texts: Vec<String>| {
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let evidence = Evidence::of(&prompt(question, &texts));
        (evidence.redundancy(), evidence.disagreement(), evidence.fragility())
    };
    // sources per answer -> redundancy, 2 (all - largest) / all, 1 / largest
    assert_eq!(signals(vec![]), (0, 0.0, 1.0));
    assert_eq!(signals(say(1, "Ozo")), (1, 0.0, 1.0));
    assert_eq!(signals([say(4, "Ozo"), say(1, "Uzu")].concat()), (4, 0.4, 0.25));
    assert_eq!(signals([say(2, "Ozo"), say(2, "Uzu")].concat()), (2, 1.0, 0.5));
    assert_eq!(signals([say(3, "Ozo"), say(2, "Uzu")].concat()), (3, 0.8, 1.0 / 3.0));
    assert_eq!(signals([say(1, "Ozo"), say(1, "Uzu"), say(1, "Aza")].concat()), (1, 1.0, 1.0));
}

/// The rules in their order, and the label between all rules.
#[test]
fn the_first_rule_that_matches_labels() {
    let thresholds = LabelThresholds::default();
    assert_eq!(thresholds.label(9, 0.41, 1.0), Some(Label::Contested));
    assert_eq!(thresholds.label(4, 0.40, 1.0), Some(Label::Resolved));
    assert_eq!(thresholds.label(3, 0.40, 0.71), Some(Label::Indeterminate));
    assert_eq!(thresholds.label(3, 0.40, 0.70), None);
    let loose = LabelThresholds { redundancy: 1.0, ..thresholds };
    assert_eq!(loose.label(2, 0.0, 0.5), Some(Label::Resolved));
}

#[test]
fn the_sensitivity_table_names_what_flips() {
    let say = |values: &[&str]| -> Vec<String> {
        values.iter().map(|value| format!("The capital of Oz is {value}.")).collect()
    };
    let prompts: Vec<Prompt> = [
        say(&["Ozo", "Ozo", "Ozo", "Ozo", "Uzu"]), // disagreement 0.4: resolved, contested from 0.3 on
        say(&["Ozo", "Ozo", "Ozo"]),               // redundancy 3: unlabelled, resolved from 2.9 on
        say(&["Ozo", "Ozo", "Ozo", "Ozo"]),        // stays
    ]
    .iter()
    .map(|texts| prompt("What is the capital of Oz?", &texts.iter().map(String::as_str).collect::<Vec<_>>()))
    .collect();
    let report = labels(&prompts, &LabelThresholds::default());
    assert!(report.figures.accuracy.is_none());
    assert_eq!((report.figures.counts.resolved, report.figures.counts.unlabelled), (2, 1));
    let flips: Vec<(&str, f64, u64)> =
        report.figures.sensitivity.iter().map(|row| (row.threshold, row.value, row.flips)).collect();
    let want = [
        ("disagreement", 0.3, 1),
        ("disagreement", 0.5, 0),
        ("redundancy", 2.9, 1),
        ("redundancy", 3.1, 0),
        ("fragility", 0.6, 0),
        ("fragility", 0.8, 0),
    ];
    assert_eq!(flips, want);
    assert_eq!(report.figures.sensitivity[0].moves[0].from, Some(Label::Resolved));
    assert_eq!(report.figures.sensitivity[0].moves[0].to, Some(Label::Contested));
}
