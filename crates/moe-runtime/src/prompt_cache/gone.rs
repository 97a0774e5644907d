//! The names of blocks that had to give way, so that a miss can be told from a prompt that was never seen.

use std::collections::{HashSet, VecDeque};

use super::name::BlockName;

/// Most names that are kept: those of 4 million tokens, which take about 8 MiB in both containers.
const MOST: usize = 1 << 16;

/// The last names; the oldest is forgotten first.
#[derive(Debug, Default)]
pub(super) struct Gone {
    order: VecDeque<BlockName>,
    names: HashSet<BlockName>,
}

impl Gone {
    pub(super) fn contains(&self, name: &BlockName) -> bool {
        self.names.contains(name)
    }

    pub(super) fn insert(&mut self, name: BlockName) {
        if !self.names.insert(name) {
            return;
        }
        self.order.push_back(name);
        if self.order.len() > MOST
            && let Some(oldest) = self.order.pop_front()
        {
            self.names.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_name_is_forgotten() {
        let name = |i: usize| {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&i.to_le_bytes());
            BlockName(bytes)
        };
        let mut gone = Gone::default();
        for i in (0..MOST).chain(0..MOST) {
            gone.insert(name(i));
        }
        assert!(gone.contains(&name(0)) && gone.order.len() == MOST, "a name counts once");
        gone.insert(name(MOST));
        assert!(!gone.contains(&name(0)) && gone.contains(&name(1)) && gone.contains(&name(MOST)));
        assert_eq!(gone.order.len(), gone.names.len());
    }
}
