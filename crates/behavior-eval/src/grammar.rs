//! Makes suites of any size from the grammar of the mini teacher's retrieval task.
//!
//! A prompt asks for the relation of an entity and shows six or seven chunks. On a resolved prompt four or five chunks
//! agree on the answer, on a contested one two stand against two, on an indeterminate one there is none or a single one.
//! The rest is about another relation of the same entity or the same relation of another.
//!
//! **Invariant:** the same spec gives the same prompts on every platform, and every draw is the one that
//! `fixtures/craftsman-mini/train/rag.py` makes from the same seed.

use std::io::Write;

use serde_json::json;

use crate::error::{Error, Result};
use crate::suite::{Chunk, Label, Prompt, render_user};

mod lists;
mod mersenne;

use mersenne::Mersenne;

/// The message that goes before every prompt.
const SYSTEM: &str = "Cite the sources or refuse.";
/// Ways to state a fact.
const PHRASINGS: [&str; 3] =
    ["The {r} of {e} is {v}.", "Records say the {r} of {e} is {v}.", "It is known that the {r} of {e} is {v}."];
/// How many made-up values there are.
const VALUES: usize = 300;

/// Which entities a suite asks about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entities {
    /// The tenth that is kept from training.
    HeldOut,
    /// The others.
    Training,
}

/// How the prompts of a suite are divided between the labels, as weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LabelWeights {
    /// Weight of resolved prompts.
    pub resolved: u32,
    /// Weight of contested prompts.
    pub contested: u32,
    /// Weight of indeterminate prompts.
    pub indeterminate: u32,
}

impl Default for LabelWeights {
    /// As in the suite of 200 prompts: 80, 60, 60.
    fn default() -> Self {
        Self { resolved: 4, contested: 3, indeterminate: 3 }
    }
}

/// What a suite is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SuiteSpec {
    /// Number of prompts.
    pub prompts: usize,
    /// Seed of the prompts.
    pub seed: u64,
    /// Shares of the labels.
    pub labels: LabelWeights,
    /// Which entities.
    pub entities: Entities,
    /// Seed that divides the entities and makes up the values; 7 divides them as the mini teacher's training did.
    pub split_seed: u64,
}

impl Default for SuiteSpec {
    fn default() -> Self {
        let labels = LabelWeights::default();
        Self { prompts: 200, seed: 0, labels, entities: Entities::HeldOut, split_seed: 7 }
    }
}

/// The prompts of a spec, one after the other.
pub struct Prompts {
    random: Mersenne,
    labels: std::vec::IntoIter<Label>,
    values: Vec<String>,
    entities: Vec<String>,
    relations: Vec<&'static str>,
    sources: Vec<&'static str>,
    made: usize,
}

/// What a chunk states.
#[derive(Clone, PartialEq, Eq)]
struct Fact {
    entity: String,
    relation: &'static str,
    value: String,
}

impl SuiteSpec {
    /// The prompts.
    ///
    /// # Errors
    /// [`Error::EmptySuite`] for no prompts or no label.
    ///
    /// ```
    /// use behavior_eval::grammar::SuiteSpec;
    /// let mut prompts = SuiteSpec { prompts: 10, seed: 3, ..SuiteSpec::default() }.generate()?;
    /// let first = prompts.next().unwrap();
    /// assert!(first.user.ends_with(&first.question) && first.chunks.len() >= 6);
    /// assert_eq!(prompts.count(), 9);
    /// # Ok::<(), behavior_eval::Error>(())
    /// ```
    pub fn generate(&self) -> Result<Prompts> {
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
    /// Whole numbers of prompts in these shares, those with the largest remainders rounded up; sorted by label.
    fn divide(self, prompts: usize) -> Result<Vec<Label>> {
        let weights = [self.resolved, self.contested, self.indeterminate].map(u128::from);
        let all: u128 = weights.iter().sum();
        if prompts == 0 || all == 0 {
            return Err(Error::EmptySuite);
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
        Prompt {
            id,
            label: Some(label),
            system: SYSTEM.to_owned(),
            user: render_user(&chunks, &question),
            question,
            context: chunks.iter().map(|chunk| chunk.id.clone()).collect(),
            relevant: Some(relevant),
            gold_answer: Some(gold_answer),
            chunks,
        }
    }

    /// A fact beside the question; `None` where the draw happens to be about the question itself.
    fn distractor(&mut self, entity: &str, relation: &'static str) -> Option<Fact> {
        let other = self.random.choice(&self.entities).clone();
        let is_same_entity = self.random.unit() < 0.5;
        // A draw that the Python form compares with its share of hard distractors, which is all of them.
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

/// Writes one prompt as a line of the suite and its chunks as lines of the corpus.
///
/// # Errors
/// Those of the writers.
pub fn write(prompt: &Prompt, suite: &mut impl Write, corpus: &mut impl Write) -> std::io::Result<()> {
    let line = json!({
        "prompt_id": prompt.id,
        "label": prompt.label,
        "system": prompt.system,
        "user": prompt.user,
        "question": prompt.question,
        "context": prompt.context,
        "relevant": prompt.relevant,
        "gold_answer": prompt.gold_answer,
    });
    writeln!(suite, "{line}")?;
    for chunk in &prompt.chunks {
        let line = json!({
            "prompt_id": prompt.id, "chunk_id": chunk.id, "source": chunk.source, "text": chunk.text,
        });
        writeln!(corpus, "{line}")?;
    }
    Ok(())
}
