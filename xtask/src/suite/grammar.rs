//! Makes suites of any size from the grammar of the mini teacher's retrieval task.
//!
//! A prompt asks for the relation of an entity and shows six or seven chunks. On a resolved prompt four or five chunks
//! agree on the answer, on a contested one two stand against two, on an indeterminate one there is none or a single one.
//! The rest is about another relation of the same entity or the same relation of another.
//!
//! **Invariant:** the same spec gives the same prompts on every platform, and every draw is the one that
//! `fixtures/craftsman-mini/train/rag.py` makes from the same seed. `fixtures/goldens/grammar.json` holds prompts that
//! the script made.

use clap::ValueEnum;

use super::lists;
use super::mersenne::Mersenne;
use super::prompt::{Chunk, Label, Prompt};

/// The system message of every prompt.
const SYSTEM: &str = "Cite the sources or refuse.";
/// Ways to state a fact.
const PHRASINGS: [&str; 3] =
    ["The {r} of {e} is {v}.", "Records say the {r} of {e} is {v}.", "It is known that the {r} of {e} is {v}."];
/// How many made-up values there are.
const VALUES: usize = 300;

/// Which entities a suite asks about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Entities {
    /// The tenth of all entities that training never used
    HeldOut,
    /// The other nine tenths
    Training,
}

/// How the prompts of a suite are divided between the labels, as weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LabelWeights {
    resolved: u32,
    contested: u32,
    indeterminate: u32,
}

impl std::str::FromStr for LabelWeights {
    type Err = String;

    /// Reads three weights such as `4,3,3`.
    fn from_str(text: &str) -> Result<Self, String> {
        let weights: Result<Vec<u32>, _> = text.split(',').map(str::parse).collect();
        match weights.as_deref() {
            Ok(&[resolved, contested, indeterminate]) => Ok(Self { resolved, contested, indeterminate }),
            _ => Err("three weights are needed, for example 4,3,3".to_owned()),
        }
    }
}

/// The options that determine a suite.
#[derive(Clone, Copy, Debug)]
pub(super) struct SuiteSpec {
    pub(super) prompts: usize,
    pub(super) seed: u64,
    pub(super) labels: LabelWeights,
    pub(super) entities: Entities,
    /// Seed that divides the entities and makes up the values; 7 divides them as the mini teacher's training did.
    pub(super) split_seed: u64,
}

/// The prompts of a spec, one after the other.
pub(super) struct Prompts {
    random: Mersenne,
    labels: std::vec::IntoIter<Label>,
    values: Vec<String>,
    entities: Vec<String>,
    relations: Vec<&'static str>,
    sources: Vec<&'static str>,
    made: usize,
}

/// The statement of one chunk.
#[derive(Clone, PartialEq, Eq)]
struct Fact {
    entity: String,
    relation: &'static str,
    value: String,
}

impl SuiteSpec {
    /// The prompts, in their order; an error where there would be none.
    pub(super) fn generate(&self) -> Result<Prompts, String> {
        let mut random = Mersenne::new(self.seed);
        let mut labels = self.labels.divide(self.prompts)?;
        random.shuffle(&mut labels);
        let (values, training, held_out) = pools(self.split_seed);
        let entities = match self.entities {
            Entities::HeldOut => held_out,
            Entities::Training => training,
        };
        Ok(Prompts {
            random,
            labels: labels.into_iter(),
            values,
            entities,
            relations: list(lists::RELATIONS),
            sources: list(lists::SOURCES),
            made: 0,
        })
    }
}

impl LabelWeights {
    /// Whole numbers of prompts in these shares; the largest remainders are rounded up. Sorted by label.
    fn divide(self, prompts: usize) -> Result<Vec<Label>, String> {
        let weights = [self.resolved, self.contested, self.indeterminate].map(u128::from);
        let all: u128 = weights.iter().sum();
        if prompts == 0 || all == 0 {
            return Err(
                "a suite of no prompts, or without a label of positive weight, would be empty; ask for at least \
                        one of each"
                    .to_owned(),
            );
        }
        let exact = weights.map(|weight| weight * prompts as u128);
        let mut counts = exact.map(|share| (share / all) as usize);
        let mut by_remainder = [0, 1, 2];
        by_remainder.sort_by_key(|&i| std::cmp::Reverse(exact[i] % all));
        let missing = prompts - counts.iter().sum::<usize>();
        by_remainder.iter().take(missing).for_each(|&i| counts[i] += 1);
        Ok(Label::ALL.into_iter().zip(counts).flat_map(|(label, n)| std::iter::repeat_n(label, n)).collect())
    }
}

fn list(words: &'static str) -> Vec<&'static str> {
    words.split_ascii_whitespace().collect()
}

/// Values, entities for training, entities that are held out.
fn pools(seed: u64) -> (Vec<String>, Vec<String>, Vec<String>) {
    let mut random = Mersenne::new(seed);
    let (syllables, endings) = (list(lists::SYLLABLES), list(lists::ENDINGS));
    let mut values = std::collections::BTreeSet::new();
    while values.len() < VALUES {
        let word = [*random.choice(&syllables), *random.choice(&syllables), *random.choice(&endings)].concat();
        let (first, rest) = word.split_at(1);
        values.insert(first.to_uppercase() + rest);
    }
    let nouns = list(lists::NOUNS);
    let mut entities: Vec<String> = list(lists::ADJECTIVES)
        .iter()
        .flat_map(|first| nouns.iter().map(move |second| format!("{first} {second}")))
        .collect();
    random.shuffle(&mut entities);
    let training = entities.split_off(entities.len() / 10);
    (values.into_iter().collect(), training, entities)
}

impl Iterator for Prompts {
    type Item = Prompt;

    fn next(&mut self) -> Option<Prompt> {
        let label = self.labels.next()?;
        self.made += 1;
        Some(self.prompt(format!("p-{:04}", self.made), label))
    }
}

impl Prompts {
    /// One prompt. The order of the draws is part of the format.
    fn prompt(&mut self, id: String, label: Label) -> Prompt {
        let entity = self.random.choice(&self.entities).clone();
        let relation = *self.random.choice(&self.relations);
        let pair = self.random.sample(&self.values, 2);
        let n = 6 + self.random.below(2);
        let answer = |i: usize| Fact { entity: entity.clone(), relation, value: pair[i].clone() };
        let mut facts = match label {
            Label::Resolved => vec![answer(0); *self.random.choice(&[4, 4, 5])],
            Label::Contested => vec![answer(0), answer(0), answer(1), answer(1)],
            Label::Indeterminate => vec![answer(0); usize::from(self.random.unit() < 0.35)],
        };
        while facts.len() < n {
            facts.extend(self.distractor(&entity, relation));
        }
        self.random.shuffle(&mut facts);
        let mut numbers = self.random.sample(&(1..=40).collect::<Vec<u32>>(), facts.len());
        numbers.sort_unstable();
        let sources = self.random.sample(&self.sources, facts.len());
        let chunks: Vec<Chunk> = facts
            .iter()
            .zip(numbers.iter().zip(sources))
            .map(|(fact, (number, source))| {
                let phrasing = self.random.choice(&PHRASINGS);
                let text =
                    phrasing.replace("{r}", fact.relation).replace("{e}", &fact.entity).replace("{v}", &fact.value);
                Chunk { id: format!("doc-{number}"), source: source.to_owned(), text }
            })
            .collect();
        let giving = |i: usize| -> Vec<String> {
            let wanted = answer(i);
            facts.iter().zip(&chunks).filter(|(fact, _)| **fact == wanted).map(|(_, chunk)| chunk.id.clone()).collect()
        };
        let (gold_answer, relevant) = gold(label, &entity, relation, &pair, [giving(0), giving(1)], &chunks);
        let question = format!("What is the {relation} of {entity}?");
        Prompt { id, label, system: SYSTEM.to_owned(), question, relevant, gold_answer, chunks }
    }

    /// A fact beside the question; `None` where the draw happens to be about the question itself.
    fn distractor(&mut self, entity: &str, relation: &'static str) -> Option<Fact> {
        let other = self.random.choice(&self.entities).clone();
        let is_same_entity = self.random.unit() < 0.5;
        // The Python form compares this draw with its share of hard distractors, which is 1. The draw is unused here, but
        // without it all later draws would differ.
        self.random.unit();
        let (entity_drawn, relation_drawn) =
            if is_same_entity { (entity.to_owned(), *self.random.choice(&self.relations)) } else { (other, relation) };
        let value = self.random.choice(&self.values).clone();
        let is_beside = (entity_drawn.as_str(), relation_drawn) != (entity, relation);
        is_beside.then_some(Fact { entity: entity_drawn, relation: relation_drawn, value })
    }
}

/// The answer the suite's author would give, and the chunks it cites in their order.
fn gold(
    label: Label,
    entity: &str,
    relation: &str,
    values: &[String],
    [first, second]: [Vec<String>; 2],
    chunks: &[Chunk],
) -> (String, Vec<String>) {
    let cite = |ids: &[String]| ids.iter().map(|id| format!(" [{id}]")).collect::<String>();
    match label {
        Label::Resolved => (format!("The {relation} of {entity} is {}.{}", values[0], cite(&first)), first),
        Label::Contested => {
            let place = |ids: &[String]| chunks.iter().position(|chunk| ids.first() == Some(&chunk.id));
            let mut sides = [(&values[0], &first), (&values[1], &second)];
            sides.sort_by_key(|(_, ids)| place(ids));
            let [(a, a_ids), (b, b_ids)] = sides;
            let answer = format!("Sources disagree: {a}{} or {b}{}.", cite(a_ids), cite(b_ids));
            let both = chunks.iter().map(|chunk| &chunk.id).filter(|id| first.contains(id) || second.contains(id));
            (answer, both.cloned().collect())
        }
        Label::Indeterminate => {
            (format!("I cannot determine the {relation} of {entity}: insufficient evidence."), Vec::new())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::{Entities, LabelWeights, SuiteSpec};
    use crate::repo;
    use crate::suite::prompt::{Label, Prompt};

    /// The shares of the fixture suite of 200 prompts: 80, 60 and 60.
    const SHARES: LabelWeights = weights(4, 3, 3);
    const SPEC: SuiteSpec =
        SuiteSpec { prompts: 200, seed: 0, labels: SHARES, entities: Entities::HeldOut, split_seed: 7 };

    const fn weights(resolved: u32, contested: u32, indeterminate: u32) -> LabelWeights {
        LabelWeights { resolved, contested, indeterminate }
    }

    fn prompts(spec: SuiteSpec) -> Vec<Prompt> {
        spec.generate().expect("not empty").collect()
    }

    /// The entity that a question of the grammar asks about.
    fn entity(question: &str) -> String {
        question.rsplit(" of ").next().expect("every question names an entity").to_owned()
    }

    #[test]
    fn the_draws_are_those_of_the_python_form() {
        let golden = std::fs::read_to_string(repo::root().join("fixtures/goldens/grammar.json")).unwrap();
        let golden: Value = serde_json::from_str(&golden).unwrap();
        let runs = golden.as_array().unwrap();
        assert_eq!(runs.len(), 3);
        for run in runs {
            let prompts = prompts(SuiteSpec { prompts: 20, seed: run["seed"].as_u64().unwrap(), ..SPEC });
            let wanted = run["prompts"].as_array().unwrap();
            assert_eq!(prompts.len(), wanted.len());
            for (prompt, want) in prompts.iter().zip(wanted) {
                assert_eq!(prompt.label.name(), want["label"], "{}", prompt.id);
                assert_eq!(prompt.user(), want["user"]);
                assert_eq!(prompt.question, want["question"]);
                assert_eq!(prompt.gold_answer, want["answer"]);
                assert_eq!(Value::from(prompt.relevant.clone()), want["relevant"]);
                for (chunk, want) in prompt.chunks.iter().zip(want["chunks"].as_array().unwrap()) {
                    let got = [&chunk.id, &chunk.source, &chunk.text];
                    assert_eq!(
                        got.map(String::as_str),
                        ["id", "source", "text"].map(|field| want[field].as_str().unwrap())
                    );
                }
            }
        }
    }

    #[test]
    fn labels_come_in_the_asked_shares() {
        let count = |prompts_wanted, labels| {
            let prompts = prompts(SuiteSpec { prompts: prompts_wanted, labels, ..SPEC });
            Label::ALL.map(|label| prompts.iter().filter(|prompt| prompt.label == label).count())
        };
        assert_eq!(count(200, SHARES), [80, 60, 60]);
        assert_eq!(count(10, weights(1, 1, 1)), [4, 3, 3]);
        assert_eq!(count(7, weights(0, 0, u32::MAX)), [0, 0, 7]);
        assert_eq!(count(5, weights(u32::MAX, u32::MAX, 1)), [3, 2, 0]);
        for (prompts, labels) in [(0, SHARES), (5, weights(0, 0, 0))] {
            assert!(SuiteSpec { prompts, labels, ..SPEC }.generate().is_err_and(|e| e.contains("empty")));
        }
    }

    #[test]
    fn seeds_decide_and_entities_are_held_out() {
        let of = |seed, entities, split_seed| prompts(SuiteSpec { prompts: 400, seed, entities, split_seed, ..SPEC });
        assert_eq!(of(1, Entities::HeldOut, 7), of(1, Entities::HeldOut, 7));
        assert_ne!(of(1, Entities::HeldOut, 7), of(2, Entities::HeldOut, 7));
        assert_ne!(of(1, Entities::HeldOut, 7), of(1, Entities::HeldOut, 8));
        let asked = |entities| -> BTreeSet<String> {
            of(3, entities, 7).iter().map(|prompt| entity(&prompt.question)).collect()
        };
        assert!(asked(Entities::HeldOut).is_disjoint(&asked(Entities::Training)));
        // The suites of the fixtures ask about the same held-out tenth.
        let held_out: BTreeSet<String> =
            prompts(SuiteSpec { prompts: 30_000, ..SPEC }).iter().map(|prompt| entity(&prompt.question)).collect();
        let fixture = std::fs::read_to_string(repo::root().join("fixtures/suites/suite-200.jsonl")).unwrap();
        for line in fixture.lines() {
            let prompt: Value = serde_json::from_str(line).unwrap();
            let entity = entity(prompt["question"].as_str().unwrap());
            assert!(held_out.contains(&entity), "{entity}");
        }
    }
}
