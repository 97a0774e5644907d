//! The store: a redb file with one entry per checkpoint, subject and number.
//!
//! ```text
//! key     (BLAKE3 of the checkpoint, subject, number)       subject: `blk.3.ffn_up_exps.weight#17`, `lesson/outputs drift/layer 3,
//!                                                           expert 5`; number: 0, 1, 2, ...
//! value   the policy as JSON, with its kind
//! ```
//!
//! **Invariant:** entries are only added, all of one run in one transaction; of several with the same subject the last one
//! with settings holds.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, TableError};
use serde::{Deserialize, Serialize};

use super::error::PolicyError;
use super::lesson::KeyLesson;
use super::router::RouterPolicy;
use super::scales::TernaryScalePolicy;
use crate::error::Result;

/// Checkpoint, subject and number to a policy.
const POLICIES: TableDefinition<(&str, &str, u64), &[u8]> = TableDefinition::new("policies");

/// Something that a run learned about a part of a checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Policy {
    /// The scales of a ternary matrix, and the settings that made them.
    TernaryScale(TernaryScalePolicy),
    /// The fit of a router, and whether it was kept.
    Router(RouterPolicy),
    /// A lesson about a part of the student.
    Pattern(KeyLesson),
}

impl Policy {
    /// A lesson as an entry of a store: subject and policy.
    #[must_use]
    pub fn of_lesson(lesson: KeyLesson) -> (String, Policy) {
        (lesson.subject(), Policy::Pattern(lesson))
    }

    /// Whether a later run can take settings from it.
    fn has_settings(&self) -> bool {
        matches!(self, Policy::TernaryScale(policy) if policy.settings.is_some())
    }
}

/// A file of policies.
#[derive(Debug)]
pub struct PolicyStore {
    database: Database,
    path: PathBuf,
}

impl PolicyStore {
    /// Opens the store at `path`, and makes it if there is none.
    ///
    /// # Errors
    /// [`PolicyError`] for a file that is no store, is damaged, or is open elsewhere.
    pub fn open(path: &Path) -> Result<Self> {
        // The database checks its own pages by panicking.
        let opened = catch_unwind(AssertUnwindSafe(|| {
            let mut database = Database::create(path)?;
            database.check_integrity()?;
            Ok(database)
        }));
        match opened {
            Ok(database) => {
                let database = database.map_err(PolicyError::at::<redb::Error>(path))?;
                Ok(Self { database, path: path.to_owned() })
            }
            Err(_) => Err(PolicyError::Unusable { path: path.to_owned(), reason: "it is damaged".to_owned() }.into()),
        }
    }

    /// The last policy of each subject of a checkpoint; one with settings holds against later ones without.
    ///
    /// # Errors
    /// [`PolicyError`] when the file cannot be read.
    pub fn policies(&self, checkpoint: &str) -> Result<BTreeMap<String, Policy>> {
        let failed = PolicyError::at::<redb::Error>(&self.path);
        let found = self.read(checkpoint).map_err(failed)?;
        let mut policies = BTreeMap::new();
        for (subject, _, value) in found {
            // A kind that only later versions know is passed over.
            let Ok(policy) = serde_json::from_slice::<Policy>(&value) else { continue };
            if policy.has_settings() || policies.get(&subject).is_none_or(|last: &Policy| !last.has_settings()) {
                policies.insert(subject, policy);
            }
        }
        Ok(policies)
    }

    /// The lessons of each checkpoint, by finding and part, the earlier first.
    ///
    /// # Errors
    /// [`PolicyError`] when the file cannot be read.
    pub fn lessons(&self) -> Result<BTreeMap<String, Vec<KeyLesson>>> {
        let found = self.read_all().map_err(PolicyError::at::<redb::Error>(&self.path))?;
        let mut lessons: BTreeMap<String, Vec<KeyLesson>> = BTreeMap::new();
        for (checkpoint, value) in found {
            if let Ok(Policy::Pattern(lesson)) = serde_json::from_slice(&value) {
                lessons.entry(checkpoint).or_default().push(lesson);
            }
        }
        Ok(lessons)
    }

    /// The last fit of each router of a checkpoint's students, by the name of its tensor.
    ///
    /// # Errors
    /// [`PolicyError`] when the file cannot be read.
    pub fn routers(&self, checkpoint: &str) -> Result<BTreeMap<String, RouterPolicy>> {
        let routers = self.policies(checkpoint)?.into_iter().filter_map(|(tensor, policy)| match policy {
            Policy::Router(router) => Some((tensor, router)),
            _ => None,
        });
        Ok(routers.collect())
    }

    fn read_all(&self) -> Result<Vec<(String, Vec<u8>)>, redb::Error> {
        let read = self.database.begin_read()?;
        let table = match read.open_table(POLICIES) {
            Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
            table => table?,
        };
        let mut found = Vec::new();
        for entry in table.iter()? {
            let (key, value) = entry?;
            found.push((key.value().0.to_owned(), value.value().to_vec()));
        }
        Ok(found)
    }

    /// The entries of a checkpoint, those of a subject in the order of their numbers.
    fn read(&self, checkpoint: &str) -> Result<Vec<(String, u64, Vec<u8>)>, redb::Error> {
        let read = self.database.begin_read()?;
        let table = match read.open_table(POLICIES) {
            Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
            table => table?,
        };
        let mut found = Vec::new();
        for entry in table.range((checkpoint, "", 0)..)? {
            let (key, value) = entry?;
            let (owner, subject, number) = key.value();
            if owner != checkpoint {
                break;
            }
            found.push((subject.to_owned(), number, value.value().to_vec()));
        }
        Ok(found)
    }

    /// Adds policies of a checkpoint, with the events `TernaryPolicyStored` and `KeyLessonExtracted`; all of them or, when it
    /// fails, none.
    ///
    /// # Errors
    /// [`PolicyError`] when the file cannot be written.
    pub fn append(&self, checkpoint: &str, policies: &[(String, Policy)]) -> Result<()> {
        let failed = PolicyError::at::<redb::Error>(&self.path);
        self.write(checkpoint, policies).map_err(failed)?;
        for (subject, policy) in policies {
            announce(checkpoint, subject, policy);
        }
        Ok(())
    }

    fn write(&self, checkpoint: &str, policies: &[(String, Policy)]) -> Result<(), redb::Error> {
        let mut numbers: BTreeMap<String, u64> = BTreeMap::new();
        for (subject, number, _) in self.read(checkpoint)? {
            numbers.insert(subject, number + 1);
        }
        let write = self.database.begin_write()?;
        {
            let mut table = write.open_table(POLICIES)?;
            for (subject, policy) in policies {
                let number = numbers.entry(subject.clone()).or_default();
                let value = serde_json::to_vec(policy).expect("a policy is numbers and names");
                table.insert((checkpoint, &**subject, *number), &*value)?;
                *number += 1;
            }
        }
        Ok(write.commit()?)
    }
}

/// The event of a policy that was stored; that of a router is emitted when it is fitted.
fn announce(checkpoint: &str, subject: &str, policy: &Policy) {
    match policy {
        Policy::TernaryScale(scale) => tracing::info!(
            name: "TernaryPolicyStored",
            checkpoint,
            subject,
            scale_mean = scale.scale_mean,
            scale_spread = scale.scale_spread,
            sparsity = scale.sparsity,
            output_cosine = scale.output_cosine,
            "TernaryPolicyStored"
        ),
        Policy::Pattern(lesson) => tracing::info!(
            name: "KeyLessonExtracted",
            checkpoint,
            part = lesson.about.name(),
            finding = lesson.finding.words(),
            before = lesson.before,
            after = lesson.after,
            n = lesson.n,
            "KeyLessonExtracted"
        ),
        Policy::Router(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::policy::{Finding, LearnedBy, MatrixSettings, Part, ScaleGrid};

    fn policy(sparsity: f64) -> Policy {
        Policy::TernaryScale(TernaryScalePolicy {
            scale_mean: 0.25,
            scale_spread: 0.125,
            sparsity,
            output_cosine: Some(0.75),
            settings: None,
        })
    }

    #[test]
    fn the_last_policy_of_a_subject_holds_and_none_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("policies.redb");
        let add = |checkpoint: &str, entries: &[(&str, f64)]| {
            let entries: Vec<_> = entries.iter().map(|(name, value)| ((*name).to_owned(), policy(*value))).collect();
            PolicyStore::open(&path).unwrap().append(checkpoint, &entries).unwrap();
        };
        assert!(PolicyStore::open(&path).unwrap().policies("a").unwrap().is_empty());
        add("a", &[("up", 0.1), ("down", 0.2)]);
        add("ab", &[("up", 0.9)]);
        add("a", &[("up", 0.3), ("up", 0.4)]);
        let store = PolicyStore::open(&path).unwrap();
        let found = store.policies("a").unwrap();
        assert_eq!(found, [("down".to_owned(), policy(0.2)), ("up".to_owned(), policy(0.4))].into());
        assert_eq!(store.read("a").unwrap().len(), 4, "entries are only added");
        assert_eq!(store.policies("ab").unwrap().len(), 1);
        assert!(store.policies("b").unwrap().is_empty());
    }

    #[test]
    fn settings_hold_against_later_policies_without() {
        let dir = tempfile::tempdir().unwrap();
        let store = PolicyStore::open(&dir.path().join("policies.redb")).unwrap();
        let settings = MatrixSettings { shrinkage: 0.1, target_mix: 1.0, scale_grid: ScaleGrid::One };
        let Policy::TernaryScale(without) = policy(0.5) else { panic!("a policy of scales") };
        let with = Policy::TernaryScale(TernaryScalePolicy { settings: Some(settings), ..without });
        for entry in [policy(0.1), with.clone(), policy(0.2)] {
            store.append("a", &[("up".to_owned(), entry)]).unwrap();
        }
        assert_eq!(store.policies("a").unwrap()["up"], with);
    }

    #[test]
    fn lessons_and_routers_lie_beside_scales_and_are_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let store = PolicyStore::open(&dir.path().join("policies.redb")).unwrap();
        let lesson = |expert, before| KeyLesson {
            student: "s".to_owned(),
            learned_by: LearnedBy::Refinement,
            about: Part::Expert { layer: 3, expert },
            finding: Finding::ExpertDrifts,
            before,
            after: None,
            n: 12,
        };
        let add = |checkpoint: &str, lessons: &[KeyLesson]| {
            store.append(checkpoint, &lessons.iter().cloned().map(Policy::of_lesson).collect::<Vec<_>>()).unwrap();
        };
        add("a", &[lesson(5, 0.25), lesson(2, 0.5)]);
        let router =
            RouterPolicy { method: "ridge".to_owned(), agreement_before: 0.5, agreement_after: 0.75, is_kept: true };
        store
            .append(
                "a",
                &[
                    ("blk.3.ffn_gate_inp.weight".to_owned(), Policy::Router(router.clone())),
                    ("up".to_owned(), policy(0.1)),
                ],
            )
            .unwrap();
        add("a", &[lesson(5, 0.125)]);
        add("b", &[lesson(1, 0.5)]);
        let lessons = store.lessons().unwrap();
        assert_eq!(lessons["a"], [lesson(2, 0.5), lesson(5, 0.25), lesson(5, 0.125)]);
        assert_eq!(lessons["b"], [lesson(1, 0.5)]);
        let policies = store.policies("a").unwrap();
        assert_eq!(policies["blk.3.ffn_gate_inp.weight"], Policy::Router(router.clone()));
        assert_eq!(store.routers("a").unwrap(), [("blk.3.ffn_gate_inp.weight".to_owned(), router)].into());
        assert!(store.routers("b").unwrap().is_empty());
        assert_eq!(policies["up"], policy(0.1));
        assert_eq!(policies["lesson/outputs drift/layer 3, expert 5"], Policy::Pattern(lesson(5, 0.125)));
    }

    #[test]
    fn a_file_that_is_no_store_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notes.txt");
        fs::write(&path, "nothing to see").unwrap();
        let refused = PolicyStore::open(&path).unwrap_err().to_string();
        assert!(refused.contains("notes.txt") && refused.contains("policy store"), "{refused}");
        assert_eq!(fs::read(&path).unwrap(), b"nothing to see");
        let path = dir.path().join("policies.redb");
        let entries: Vec<_> = (0..200).map(|i| (format!("matrix {i}"), policy(0.5))).collect();
        PolicyStore::open(&path).unwrap().append("a", &entries).unwrap();
        let whole = fs::read(&path).unwrap();
        for page in 1..whole.len() / 4096 {
            let mut bytes = whole.clone();
            bytes[page * 4096..][..4096].fill(0x5a);
            fs::write(&path, &bytes).unwrap();
            match PolicyStore::open(&path).and_then(|store| store.policies("a")) {
                Ok(found) => assert_eq!(found.len(), 200, "page {page} was not used"),
                Err(refused) => assert!(refused.to_string().contains("policies.redb"), "{refused}"),
            }
        }
        fs::write(&path, &whole).unwrap();
        let _open = PolicyStore::open(&path).unwrap();
        let refused = PolicyStore::open(&path).unwrap_err().to_string();
        assert!(refused.contains("in use"), "{refused}");
    }
}
