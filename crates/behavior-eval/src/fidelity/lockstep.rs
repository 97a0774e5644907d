//! Two models over the same tokens, row by row, with two rows of logits in memory.
//!
//! Each model hands out its rows in its own loop, so the teacher runs on a thread of its own and passes a copy of one
//! row at a time: a single buffer travels to the student's side and back. What is kept is that buffer and the row the
//! student lends; a teacher that is ahead waits.

use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use crate::model::{LanguageModel, Role};
use crate::{Error, Result};

/// What is done with the rows of one position: teacher, student.
pub(crate) type VisitPair<'a> = dyn FnMut(usize, &[f32], &[f32]) -> Result<()> + 'a;

/// A row of the teacher on its way.
struct Row {
    position: usize,
    logits: Vec<f32>,
}

/// Checks the rows of one model against the contract.
pub(crate) struct Sequence {
    role: Role,
    window: usize,
    next: usize,
    end: usize,
    vocab_size: usize,
}

impl Sequence {
    /// Expects rows `from..end` of `vocab_size` logits.
    pub(crate) fn new(role: Role, window: usize, from: usize, end: usize, vocab_size: usize) -> Self {
        Self { role, window, next: from, end, vocab_size }
    }

    fn broken(&self, got: String, want: String) -> Error {
        Error::Contract { role: self.role, window: self.window, got, want }
    }

    /// Takes note of a row.
    pub(crate) fn row(&mut self, position: usize, logits: usize) -> Result<()> {
        if position != self.next || position >= self.end {
            return Err(self.broken(
                format!("the row of position {position}"),
                match self.next {
                    next if next < self.end => format!("position {next}"),
                    _ => "no further row".to_owned(),
                },
            ));
        }
        if logits != self.vocab_size {
            return Err(self.broken(format!("{logits} logits"), format!("{}", self.vocab_size)));
        }
        self.next += 1;
        Ok(())
    }

    /// Whether all rows came.
    pub(crate) fn finish(&self) -> Result<()> {
        if self.next < self.end {
            return Err(self.broken("no further row".to_owned(), format!("position {}", self.next)));
        }
        Ok(())
    }
}

/// Runs one model and hands its rows to `visit` with their position.
pub(crate) fn alone(
    role: Role,
    model: &mut dyn LanguageModel,
    window: usize,
    tokens: &[u32],
    from: usize,
    visit: &mut dyn FnMut(usize, &[f32]) -> Result<()>,
) -> Result<()> {
    let mut sequence = Sequence::new(role, window, from, tokens.len(), model.vocab_size());
    let mut failure = None;
    let ran = model.logits(tokens, from, &mut |position, logits| {
        if failure.is_none() {
            failure = sequence.row(position, logits.len()).and_then(|()| visit(position, logits)).err();
        }
    });
    ran.map_err(|source| Error::Model { role, window, source })?;
    failure.map_or_else(|| sequence.finish(), Err)
}

/// Runs both models and hands their rows of each position to `visit`: teacher first.
pub(crate) fn both(
    teacher: &mut (dyn LanguageModel + Send),
    student: &mut dyn LanguageModel,
    window: usize,
    tokens: &[u32],
    from: usize,
    visit: &mut VisitPair<'_>,
) -> Result<()> {
    std::thread::scope(|scope| {
        let (rows, arriving) = sync_channel::<Row>(0);
        let (empties, returned) = channel::<Vec<f32>>();
        // The one buffer starts on the student's side; sending cannot fail while `returned` lives.
        let _ = empties.send(Vec::new());
        let sender = scope.spawn(move || send_rows(teacher, window, tokens, from, &rows, &returned));

        let outcome = alone(Role::Student, student, window, tokens, from, &mut |position, logits| {
            let row = receive(&arriving, position, window)?;
            visit(position, &row.logits, logits)?;
            give_back(&empties, row.logits);
            Ok(())
        });
        // A teacher that still wants to send must see that nobody listens.
        drop((arriving, empties));
        let sent = sender.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        // The teacher's failure is the cause when both sides report one.
        sent.and(outcome)
    })
}

/// The teacher's side.
fn send_rows(
    teacher: &mut (dyn LanguageModel + Send),
    window: usize,
    tokens: &[u32],
    from: usize,
    rows: &SyncSender<Row>,
    returned: &Receiver<Vec<f32>>,
) -> Result<()> {
    let mut listening = true;
    alone(Role::Teacher, teacher, window, tokens, from, &mut |position, logits| {
        // Once the student has stopped, its error is the one to report: run out quietly.
        let buffer = if listening { returned.recv().ok() } else { None };
        let Some(mut buffer) = buffer else {
            listening = false;
            return Ok(());
        };
        buffer.clear();
        buffer.extend_from_slice(logits);
        listening = rows.send(Row { position, logits: buffer }).is_ok();
        Ok(())
    })
}

/// The student's side of the channel.
fn receive(arriving: &Receiver<Row>, position: usize, window: usize) -> Result<Row> {
    let short =
        |got: String| Err(Error::Contract { role: Role::Teacher, window, got, want: format!("position {position}") });
    match arriving.recv() {
        Ok(row) if row.position == position => Ok(row),
        Ok(row) => short(format!("the row of position {}", row.position)),
        Err(_) => short("no further row".to_owned()),
    }
}

fn give_back(empties: &Sender<Vec<f32>>, buffer: Vec<f32>) {
    // The teacher may have sent its last row and gone; then nobody needs the buffer.
    let _ = empties.send(buffer);
}
