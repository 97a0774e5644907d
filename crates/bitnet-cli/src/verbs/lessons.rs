//! `bitnet lessons`: what runs learned about students, for people.

use std::path::PathBuf;

use anyhow::{Result, anyhow};
use rlm_refine::policy::{KeyLesson, LearnedBy, Part, PolicyStore, RouterPolicy};
use serde_json::json;

use crate::args::{STORE, path_not_stream};
use crate::output;

/// Characters of a BLAKE3 that tell students of a table apart.
const SHORT: usize = 12;

/// Show what refinements and gates learned about students of a teacher.
///
/// `refine --lessons FILE` and `eval-gates --lessons FILE` add to such a store; nothing is ever removed from it.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The store that runs filled with --lessons
    #[arg(value_name = "FILE", value_parser = path_not_stream(STORE))]
    store: PathBuf,
    /// Print the lessons as JSON, by the BLAKE3 of the teacher
    #[arg(long)]
    json: bool,
}

pub(crate) fn execute(args: &Args) -> Result<()> {
    if !args.store.is_file() {
        let path = args.store.display();
        return Err(anyhow!(
            "{path} is no file: name the store that `refine --lessons` or `eval-gates --lessons` filled"
        ));
    }
    let store = PolicyStore::open(&args.store)?;
    let teachers = store.lessons()?.into_iter();
    let teachers = teachers.map(|(teacher, lessons)| Ok((store.routers(&teacher)?, teacher, lessons)));
    let teachers = teachers.collect::<Result<Vec<_>>>()?;
    if args.json {
        let shown = teachers
            .iter()
            .map(|(routers, teacher, lessons)| (teacher.clone(), json!({ "lessons": lessons, "routers": routers })));
        return output::json(&shown.collect::<serde_json::Map<_, _>>());
    }
    if teachers.is_empty() {
        return output::line("The store holds no lesson.");
    }
    for (routers, teacher, lessons) in &teachers {
        output::line(format_args!("students of {teacher}: {} lessons", lessons.len()))?;
        let headings = ["part", "finding", "figure", "before", "after", "n", "learned by", "student"];
        let mut table = output::table(headings, headings.len());
        for lesson in lessons {
            table.add_row(row(lesson));
        }
        output::line(table)?;
        for (tensor, router) in routers {
            output::line(fit(tensor, router))?;
        }
        for settings in lessons.iter().filter_map(settings) {
            output::line(format_args!("settings: {}", output::name(settings)))?;
        }
    }
    Ok(())
}

fn row(lesson: &KeyLesson) -> [String; 8] {
    let figure = |value: f64| format!("{value:.4}");
    let learned_by = match lesson.learned_by {
        LearnedBy::Refinement => "refinement",
        LearnedBy::Gates => "gates",
    };
    [
        lesson.about.name(),
        lesson.finding.words().to_owned(),
        lesson.finding.unit().to_owned(),
        figure(lesson.before),
        lesson.after.map_or_else(String::new, figure),
        lesson.n.to_string(),
        learned_by.to_owned(),
        lesson.student.chars().take(SHORT).collect(),
    ]
}

/// The last fit of a router in words.
fn fit(tensor: &str, router: &RouterPolicy) -> String {
    let RouterPolicy { method, agreement_before, agreement_after, is_kept } = router;
    let fate = if *is_kept { "kept" } else { "left as it was" };
    let (tensor, method) = (output::name(tensor), output::name(method));
    format!(
        "last fit of {tensor} by {method}: agreement {agreement_before:.4} before, {agreement_after:.4} after, {fate}"
    )
}

fn settings(lesson: &KeyLesson) -> Option<&str> {
    match &lesson.about {
        Part::Settings(settings) => Some(settings),
        _ => None,
    }
}
