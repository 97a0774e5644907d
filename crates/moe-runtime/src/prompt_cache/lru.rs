//! Things under names within a bound on their bytes, the least recently used of which gives way.

use std::collections::{BTreeMap, HashMap};

use super::name::BlockName;

/// Things under names, and the order of their last use.
#[derive(Debug)]
pub(super) struct Lru<V> {
    bound: u64,
    bytes: u64,
    /// Uses so far: the number of the next one.
    uses: u64,
    entries: HashMap<BlockName, Entry<V>>,
    /// The name that each use was the last one of.
    order: BTreeMap<u64, BlockName>,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    bytes: u64,
    last_use: u64,
}

impl<V> Lru<V> {
    /// Nothing, within `bound` bytes.
    pub(super) fn new(bound: u64) -> Lru<V> {
        Lru { bound, bytes: 0, uses: 0, entries: HashMap::new(), order: BTreeMap::new() }
    }

    /// Bytes of all that is held.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn contains(&self, name: &BlockName) -> bool {
        self.entries.contains_key(name)
    }

    /// The value under `name`, which counts as a use.
    pub(super) fn get(&mut self, name: &BlockName) -> Option<&V> {
        let entry = self.entries.get_mut(name)?;
        self.order.remove(&entry.last_use);
        entry.last_use = self.uses;
        self.order.insert(self.uses, *name);
        self.uses += 1;
        Some(&entry.value)
    }

    /// How many things of this size can be held.
    pub(super) fn room_for(&self, bytes: u64) -> usize {
        usize::try_from(self.bound / bytes.max(1)).unwrap_or(usize::MAX)
    }

    /// Holds `value` as the most recently used one, in place of an earlier one under `name`.
    pub(super) fn insert(&mut self, name: BlockName, value: V, bytes: u64) {
        self.remove(&name);
        self.bytes += bytes;
        self.entries.insert(name, Entry { value, bytes, last_use: self.uses });
        self.order.insert(self.uses, name);
        self.uses += 1;
    }

    /// Gives up the value under `name`.
    pub(super) fn remove(&mut self, name: &BlockName) -> Option<V> {
        let entry = self.entries.remove(name)?;
        self.order.remove(&entry.last_use);
        self.bytes -= entry.bytes;
        Some(entry.value)
    }

    /// Gives up the least recently used value while the bound is exceeded.
    pub(super) fn pop_excess(&mut self) -> Option<BlockName> {
        let (_, &name) = self.order.first_key_value().filter(|_| self.bytes > self.bound)?;
        self.remove(&name);
        Some(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_gives_way() {
        let name = |i: u8| BlockName([i; 32]);
        let mut lru = Lru::new(30);
        for i in 0..3 {
            lru.insert(name(i), i, 10);
        }
        assert_eq!((lru.bytes(), lru.pop_excess()), (30, None));
        assert_eq!(lru.get(&name(0)), Some(&0));
        lru.insert(name(3), 3, 15);
        assert_eq!([lru.pop_excess(), lru.pop_excess(), lru.pop_excess()], [Some(name(1)), Some(name(2)), None]);
        assert!(lru.contains(&name(0)) && lru.contains(&name(3)) && lru.get(&name(1)).is_none());
        lru.insert(name(3), 4, 5);
        assert_eq!((lru.bytes(), lru.get(&name(3))), (15, Some(&4)), "replaced");
        assert_eq!([10, 30, 31].map(|bytes| lru.room_for(bytes)), [3, 1, 0]);
        assert_eq!((lru.remove(&name(3)), lru.remove(&name(3)), lru.bytes()), (Some(4), None, 10));
    }
}
