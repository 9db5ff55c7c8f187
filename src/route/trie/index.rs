//! A hash table of entry numbers: what the entries are stays with their owner. Eight bytes a slot, never iterated.

/// Stands for no entry, node or level.
pub(super) const NONE: u32 = u32::MAX;

const EMPTY: u64 = u64::MAX;
const SLOTS_MIN: usize = 8;

/// Entry numbers by a 32-bit hash of what the entries hold: open addressing, linear probing, the hash kept in the slot
/// so that neither a probe nor growth has to look at an entry that is not the one.
#[derive(Debug, Default)]
pub(super) struct Index {
    slots: Vec<u64>,
    entries: usize,
}

impl Index {
    /// The entry under `hash` that `is` accepts.
    pub(super) fn find(&self, hash: u32, is: impl Fn(u32) -> bool) -> Option<u32> {
        let mut at = self.home(hash)?;
        loop {
            let slot = *self.slots.get(at)?;
            if slot == EMPTY {
                return None;
            }
            if hash_of(slot) == hash && is(entry_of(slot)) {
                return Some(entry_of(slot));
            }
            at = self.after(at);
        }
    }

    /// Adds an entry that is not there; `entry` is not [`NONE`].
    pub(super) fn insert(&mut self, hash: u32, entry: u32) {
        if (self.entries + 1) * 5 > self.slots.len() * 4 {
            self.resize((self.slots.len() * 2).max(SLOTS_MIN));
        }
        self.place((u64::from(hash) << 32) | u64::from(entry));
        self.entries += 1;
    }

    /// Takes an entry away, if it is there.
    pub(super) fn remove(&mut self, hash: u32, entry: u32) {
        let wanted = (u64::from(hash) << 32) | u64::from(entry);
        let Some(mut hole) = self.home(hash) else { return };
        while self.slots[hole] != wanted {
            if self.slots[hole] == EMPTY {
                return;
            }
            hole = self.after(hole);
        }
        // Entries behind the hole move into it unless that would put them before their home.
        let (mask, mut at) = (self.slots.len() - 1, self.after(hole));
        while self.slots[at] != EMPTY {
            let wish = hash_of(self.slots[at]) as usize & mask;
            if at.wrapping_sub(wish) & mask >= at.wrapping_sub(hole) & mask {
                self.slots[hole] = self.slots[at];
                hole = at;
            }
            at = self.after(at);
        }
        self.slots[hole] = EMPTY;
        self.entries -= 1;
        if self.entries == 0 {
            self.slots = Vec::new();
        } else if self.slots.len() > SLOTS_MIN && self.entries * 8 < self.slots.len() {
            self.resize(self.slots.len() / 2);
        }
    }

    fn home(&self, hash: u32) -> Option<usize> {
        Some(hash as usize & self.slots.len().checked_sub(1)?)
    }

    fn after(&self, at: usize) -> usize {
        (at + 1) & (self.slots.len() - 1)
    }

    fn place(&mut self, slot: u64) {
        let Some(mut at) = self.home(hash_of(slot)) else { return };
        while self.slots[at] != EMPTY {
            at = self.after(at);
        }
        self.slots[at] = slot;
    }

    fn resize(&mut self, slots: usize) {
        for slot in std::mem::replace(&mut self.slots, vec![EMPTY; slots]) {
            if slot != EMPTY {
                self.place(slot);
            }
        }
    }
}

fn hash_of(slot: u64) -> u32 {
    (slot >> 32) as u32
}

#[expect(clippy::cast_possible_truncation, reason = "the lower half is the entry")]
fn entry_of(slot: u64) -> u32 {
    slot as u32
}

/// Puts `entry` into a free slot or a new one, and returns its number.
pub(super) fn take_slot<E>(entries: &mut Vec<E>, free: &mut Vec<u32>, entry: E) -> u32 {
    if let Some(number) = free.pop() {
        if let Some(slot) = entries.get_mut(number as usize) {
            *slot = entry;
        }
        return number;
    }
    // Memory ends long before four thousand million entries of tens of bytes do.
    let number = u32::try_from(entries.len()).unwrap_or(NONE);
    entries.push(entry);
    number
}

/// Hash of a text under `seed`.
pub(super) fn hash_text(seed: u64, text: &str) -> u32 {
    let (words, tail) = text.as_bytes().as_chunks::<8>();
    let mut h = seed ^ (text.len() as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    for word in words {
        h = fold(h ^ u64::from_le_bytes(*word), seed);
    }
    let tail = tail.iter().fold(0, |word, &b| (word << 8) | u64::from(b));
    fold(fold(h ^ tail, seed), !seed).cast_hash()
}

/// Hash of a node's place under `seed`.
pub(super) fn hash_pair(seed: u64, parent: u32, level: u32) -> u32 {
    fold(fold((u64::from(parent) << 32) | u64::from(level), seed), !seed).cast_hash()
}

/// Both halves of the 128-bit product with a constant that `seed` changes.
fn fold(value: u64, seed: u64) -> u64 {
    let product = u128::from(value ^ 0xA076_1D64_78BD_642F) * u128::from(seed.rotate_left(32) ^ 0xE703_7ED1_A0B4_28DB);
    low(product) ^ low(product >> 64)
}

#[expect(clippy::cast_possible_truncation, reason = "the halves of the product are taken one by one")]
fn low(value: u128) -> u64 {
    value as u64
}

trait CastHash {
    fn cast_hash(self) -> u32;
}

impl CastHash for u64 {
    fn cast_hash(self) -> u32 {
        hash_of(self) ^ entry_of(self)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Few different hashes, so that probes run long and wrap around.
        #[test]
        fn holds_what_a_map_holds(steps in prop::collection::vec((any::<bool>(), 0..200_u32), 0..600)) {
            let (mut index, mut model) = (Index::default(), BTreeSet::new());
            let hash = |entry: u32| (entry % 7).wrapping_sub(3);
            for (add, entry) in steps {
                if !add {
                    index.remove(hash(entry), entry);
                    model.remove(&entry);
                } else if model.insert(entry) {
                    index.insert(hash(entry), entry);
                }
            }
            for entry in 0..200 {
                let found = index.find(hash(entry), |e| e == entry);
                prop_assert_eq!(found.is_some(), model.contains(&entry));
            }
            prop_assert_eq!(index.entries, model.len());
        }
    }

    #[test]
    fn hashes_of_similar_texts_differ() {
        let all: BTreeSet<_> = (0..10_000).map(|n| hash_text(7, &format!("vehicle-{n}")) & 0xf_ffff).collect();
        assert!(all.len() > 9_900, "{}", all.len());
    }
}
