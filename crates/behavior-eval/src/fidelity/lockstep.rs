//! Two models over the same tokens, row by row, with two rows of logits in memory.
//!
//! Each model hands out its rows in its own loop, so the teacher runs on a thread of its own and passes a copy of one
//! row at a time: a single buffer travels to the student's side and back. Two rows are kept, that buffer and the row the
//! student lends; a teacher that is ahead waits.

use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};

use super::error::FidelityError;
use super::window::Window;
use crate::model::{LanguageModel, Role};
use crate::{Error, Result};

/// Takes the rows of one position: teacher, student.
type VisitPair<'a> = dyn FnMut(usize, &[f32], &[f32]) -> Result<()> + 'a;

/// A row of the teacher on its way.
struct SentRow {
    position: usize,
    logits: Vec<f32>,
}

/// Runs one model over a window, checks its rows against the contract and hands them to `visit` with their position.
pub(super) fn alone(
    role: Role,
    model: &mut dyn LanguageModel,
    window: &Window,
    visit: &mut dyn FnMut(usize, &[f32]) -> Result<()>,
) -> Result<()> {
    let (vocab_size, end) = (model.vocab_size(), window.seen().len());
    let broken = |got: String, want: String| contract(role, window.index, got, want);
    let (mut next, mut failure) = (window.first_row(), None);
    let ran = model.logits(window.seen(), window.first_row(), &mut |position, logits| {
        if failure.is_some() {
            return;
        }
        let visited = if position != next || position >= end {
            let want = if next < end { format!("position {next}") } else { "no further row".to_owned() };
            Err(broken(format!("the row of position {position}"), want))
        } else if logits.len() != vocab_size {
            Err(broken(format!("{} logits", logits.len()), vocab_size.to_string()))
        } else {
            next += 1;
            visit(position, logits)
        };
        failure = visited.err();
    });
    ran.map_err(|source| FidelityError::Model { role, window: window.index, source })?;
    match failure {
        Some(failure) => Err(failure),
        None if next < end => Err(broken("no further row".to_owned(), format!("position {next}"))),
        None => Ok(()),
    }
}

fn contract(role: Role, window: usize, got: String, want: String) -> Error {
    FidelityError::Contract { role, window, got, want }.into()
}

/// Runs both models over a window and hands their rows of each position to `visit`: teacher first.
pub(super) fn both(
    teacher: &mut (dyn LanguageModel + Send),
    student: &mut dyn LanguageModel,
    window: &Window,
    visit: &mut VisitPair<'_>,
) -> Result<()> {
    std::thread::scope(|scope| {
        let (rows, arriving) = sync_channel::<SentRow>(0);
        let (empties, returned) = channel::<Vec<f32>>();
        // The one buffer starts on the student's side; sending cannot fail while `returned` lives.
        let _ = empties.send(Vec::new());
        let sender = scope.spawn(move || send_rows(teacher, window, &rows, &returned));

        let outcome = alone(Role::Student, student, window, &mut |position, logits| {
            let row = receive(&arriving, position, window.index)?;
            visit(position, &row.logits, logits)?;
            // The teacher may have sent its last row and gone; the buffer is then not needed.
            let _ = empties.send(row.logits);
            Ok(())
        });
        // A teacher that still wants to send must see that the student's side is gone.
        drop((arriving, empties));
        let sent = sender.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        // The teacher's failure is the cause when both sides report one.
        sent.and(outcome)
    })
}

/// Runs the teacher and passes copies of its rows on.
fn send_rows(
    teacher: &mut (dyn LanguageModel + Send),
    window: &Window,
    rows: &SyncSender<SentRow>,
    returned: &Receiver<Vec<f32>>,
) -> Result<()> {
    let mut listening = true;
    alone(Role::Teacher, teacher, window, &mut |position, logits| {
        // Once the student has stopped, its error is the one to report, and the teacher's other rows are dropped.
        let buffer = if listening { returned.recv().ok() } else { None };
        let Some(mut buffer) = buffer else {
            listening = false;
            return Ok(());
        };
        buffer.clear();
        buffer.extend_from_slice(logits);
        listening = rows.send(SentRow { position, logits: buffer }).is_ok();
        Ok(())
    })
}

/// The student's side of the channel.
fn receive(arriving: &Receiver<SentRow>, position: usize, window: usize) -> Result<SentRow> {
    let got = match arriving.recv() {
        Ok(row) if row.position == position => return Ok(row),
        Ok(row) => format!("the row of position {}", row.position),
        Err(_) => "no further row".to_owned(),
    };
    Err(contract(Role::Teacher, window, got, format!("position {position}")))
}
