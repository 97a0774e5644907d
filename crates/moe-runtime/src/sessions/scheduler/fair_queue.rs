//! Things that wait: interactive before batch, keys in turn, first come first served within a key.

use std::collections::VecDeque;

use super::job::Priority;

/// Things under keys in two classes.
#[derive(Debug)]
pub(super) struct FairQueue<T> {
    /// The lines of both classes. The next thing is the first one of the first line, which then goes to the end.
    classes: [VecDeque<Line<T>>; 2],
}

#[derive(Debug)]
struct Line<T> {
    key: String,
    things: VecDeque<T>,
}

impl<T> FairQueue<T> {
    pub(super) fn new() -> FairQueue<T> {
        FairQueue { classes: [VecDeque::new(), VecDeque::new()] }
    }

    pub(super) fn len(&self) -> usize {
        self.classes.iter().flatten().map(|line| line.things.len()).sum()
    }

    pub(super) fn push(&mut self, priority: Priority, key: &str, thing: T) {
        let lines = &mut self.classes[priority as usize];
        match lines.iter_mut().find(|line| line.key == key) {
            Some(line) => line.things.push_back(thing),
            None => lines.push_back(Line { key: key.to_owned(), things: VecDeque::from([thing]) }),
        }
    }

    /// The next thing that `may` leave. Lines whose first thing may not leave keep their place.
    pub(super) fn pop(&mut self, may: impl Fn(&T) -> bool) -> Option<T> {
        for lines in &mut self.classes {
            let ready = lines.iter().position(|line| line.things.front().is_some_and(&may));
            if let Some(mut line) = ready.and_then(|index| lines.remove(index)) {
                let thing = line.things.pop_front();
                if !line.things.is_empty() {
                    lines.push_back(line);
                }
                return thing;
            }
        }
        None
    }

    /// Removes every thing that `is_gone` names.
    pub(super) fn take_where(&mut self, is_gone: impl Fn(&T) -> bool) -> Vec<T> {
        let mut taken = Vec::new();
        for lines in &mut self.classes {
            for line in lines.iter_mut() {
                let (gone, stays): (VecDeque<T>, VecDeque<T>) = line.things.drain(..).partition(&is_gone);
                line.things = stays;
                taken.extend(gone);
            }
            lines.retain(|line| !line.things.is_empty());
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interactive_first_keys_in_turn_first_come_within_a_key() {
        let mut queue = FairQueue::new();
        for (priority, key, thing) in [
            (Priority::Batch, "z", "z1"),
            (Priority::Interactive, "a", "a1"),
            (Priority::Interactive, "a", "a2"),
            (Priority::Interactive, "a", "a3"),
            (Priority::Interactive, "b", "b1"),
            (Priority::Interactive, "b", "b2"),
        ] {
            queue.push(priority, key, thing);
        }
        assert_eq!(queue.len(), 6);
        assert_eq!(queue.pop(|_| true), Some("a1"));
        queue.push(Priority::Interactive, "c", "c1");
        let order: Vec<_> = std::iter::from_fn(|| queue.pop(|_| true)).collect();
        assert_eq!(order, ["b1", "a2", "c1", "b2", "a3", "z1"]);
        assert_eq!((queue.len(), queue.pop(|_| true)), (0, None));
    }

    #[test]
    fn a_line_that_may_not_leave_lets_others_pass_and_keeps_its_place() {
        let mut queue = FairQueue::new();
        for (key, thing) in [("a", "a1"), ("b", "b1"), ("a", "a2"), ("b", "b2")] {
            queue.push(Priority::Interactive, key, thing);
        }
        let not_a = |thing: &&str| !thing.starts_with('a');
        assert_eq!(queue.pop(not_a), Some("b1"));
        assert_eq!(queue.pop(|_| true), Some("a1"));
        assert_eq!(queue.take_where(|thing| thing.starts_with('b')), ["b2"]);
        assert_eq!((queue.pop(not_a), queue.pop(|_| true), queue.len()), (None, Some("a2"), 0));
    }
}
