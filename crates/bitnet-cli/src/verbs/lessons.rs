//! `bitnet lessons`: what runs learned about students, for people.

use std::path::PathBuf;

use anyhow::{Result, anyhow};
use rlm_refine::policy::{KeyLesson, LearnedBy, Part, PolicyStore};

use crate::args::path_not_stream;
use crate::output;

const STORE: &str = "a store is read at several places: write the name of a file";

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
    let lessons = PolicyStore::open(&args.store)?.lessons()?;
    if args.json {
        return output::json(&lessons);
    }
    if lessons.is_empty() {
        return output::line("The store holds no lesson.");
    }
    for (teacher, lessons) in &lessons {
        output::line(format_args!("students of {teacher}: {} lessons", lessons.len()))?;
        let mut table = output::table(["part", "finding", "figure", "before", "after", "n", "learned by"], 7);
        for lesson in lessons {
            table.add_row(row(lesson));
        }
        output::line(table)?;
        for settings in lessons.iter().filter_map(settings) {
            output::line(format_args!("settings: {}", output::name(settings)))?;
        }
    }
    Ok(())
}

fn row(lesson: &KeyLesson) -> [String; 7] {
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
    ]
}

fn settings(lesson: &KeyLesson) -> Option<&str> {
    match &lesson.about {
        Part::Settings(settings) => Some(settings),
        _ => None,
    }
}
