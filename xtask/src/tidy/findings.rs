//! The problems and remarks that the checks collect.

/// A rule that reports without failing until the whole repository keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rule {
    /// No circle between the files of a crate.
    Circles,
    /// One path to each public item.
    OnePath,
    /// A doc comment says more than three words.
    ShortDocs,
    /// A sentence names its subject.
    Subjects,
    /// One integration test binary per crate.
    TestBinaries,
    /// A dependency is used.
    Dependencies,
    /// A path that a document names exists.
    Paths,
}

/// Rules that the repository does not keep yet: their findings are counted and fail nothing.
const PENDING: &[Rule] = &[Rule::Circles, Rule::OnePath, Rule::ShortDocs, Rule::Subjects, Rule::Paths];

/// A problem fails the run; a remark (a soft limit) is printed and does not.
#[derive(Default)]
pub(super) struct Findings {
    pub(super) problems: Vec<String>,
    pub(super) remarks: Vec<String>,
    /// Breaches of pending rules.
    pub(super) pending: Vec<(Rule, String)>,
}

impl Findings {
    pub(super) fn problem(&mut self, text: impl Into<String>) {
        self.problems.push(text.into());
    }

    pub(super) fn remark(&mut self, text: impl Into<String>) {
        self.remarks.push(text.into());
    }

    /// A problem, unless the rule is pending.
    pub(super) fn breach(&mut self, rule: Rule, text: impl Into<String>) {
        if PENDING.contains(&rule) { self.pending.push((rule, text.into())) } else { self.problem(text) }
    }
}
