//! A set of sequence numbers, one bit each: exact, whatever was lost or repeated, and small for days of load.

/// How far ahead of everything seen a sequence may be; further is no message of a sane run, and would cost memory.
const AHEAD_MAX: u64 = 1 << 27;

/// What [`Sequences::insert`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Later than all before it.
    InOrder,
    /// For the first time, but after a later one.
    Late,
    /// Not for the first time.
    Again,
    /// Impossibly far ahead; it was not taken.
    Absurd,
}

/// Sequence numbers from `first` on.
#[derive(Clone, Debug, Default)]
pub struct Sequences {
    /// Smaller ones are not asked for.
    first: u64,
    /// One more than the largest.
    next: u64,
    count: u64,
    /// Bit `b` of word `w` stands for `(first / 64 + w) * 64 + b`.
    words: Vec<u64>,
}

impl Sequences {
    /// Nothing yet, asked for from `first` on.
    pub fn starting_at(first: u64) -> Self {
        Self { first, next: first, count: 0, words: Vec::new() }
    }

    /// All of `0..count`.
    pub fn all(count: u64) -> Self {
        let mut words = vec![u64::MAX; usize::try_from(count / 64).unwrap_or(usize::MAX)];
        words.push((1 << (count % 64)) - 1);
        Self { first: 0, next: count, count, words }
    }

    /// Takes one.
    pub fn insert(&mut self, sequence: u64) -> Seen {
        if sequence < self.first {
            return Seen::Late;
        }
        if sequence - self.next.min(sequence) > AHEAD_MAX {
            return Seen::Absurd;
        }
        let Ok(index) = usize::try_from(sequence / 64 - self.base()) else { return Seen::Absurd };
        if index >= self.words.len() {
            self.words.resize(index + 1, 0);
        }
        let bit = 1 << (sequence % 64);
        let Some(word) = self.words.get_mut(index) else { return Seen::Absurd };
        if *word & bit != 0 {
            return Seen::Again;
        }
        *word |= bit;
        self.count += 1;
        if sequence < self.next {
            return Seen::Late;
        }
        self.next = sequence + 1;
        Seen::InOrder
    }

    /// One more than the largest.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// How many there are.
    pub fn len(&self) -> u64 {
        self.count
    }

    /// How many of these are in none of `others`.
    pub fn missing_from(&self, others: &[&Self]) -> u64 {
        let base = self.base();
        self.words
            .iter()
            .zip(base..)
            .map(|(word, at)| {
                let elsewhere = others.iter().fold(0, |all, other| all | other.word(at));
                u64::from((word & !elsewhere).count_ones())
            })
            .sum()
    }

    /// How many are in at least one of `sets`.
    pub fn united(sets: &[&Self]) -> u64 {
        let (base, end) = Self::words_spanned(sets);
        (base..end).map(|at| u64::from(sets.iter().fold(0, |all, set| all | set.word(at)).count_ones())).sum()
    }

    /// How many between the first asked for and the largest seen are in none of `sets`.
    pub fn gaps(sets: &[&Self]) -> u64 {
        let first = sets.iter().map(|set| set.first).min().unwrap_or(0);
        let next = sets.iter().map(|set| set.next).max().unwrap_or(0);
        next.saturating_sub(first).saturating_sub(Self::united(sets))
    }

    fn words_spanned(sets: &[&Self]) -> (u64, u64) {
        let base = sets.iter().map(|set| set.base()).min().unwrap_or(0);
        let end = sets.iter().map(|set| set.next.div_ceil(64)).max().unwrap_or(0);
        (base, end)
    }

    fn base(&self) -> u64 {
        self.first / 64
    }

    /// The bits of `at * 64 ..`.
    fn word(&self, at: u64) -> u64 {
        let index = at.checked_sub(self.base()).and_then(|index| usize::try_from(index).ok());
        index.and_then(|index| self.words.get(index)).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(first: u64, sequences: &[u64]) -> Sequences {
        let mut set = Sequences::starting_at(first);
        for &sequence in sequences {
            set.insert(sequence);
        }
        set
    }

    #[test]
    fn every_kind_of_arrival_is_told_apart() {
        let mut set = Sequences::default();
        assert_eq!(set.insert(0), Seen::InOrder);
        assert_eq!(set.insert(70), Seen::InOrder);
        assert_eq!(set.insert(3), Seen::Late);
        assert_eq!(set.insert(3), Seen::Again);
        assert_eq!(set.insert(70), Seen::Again);
        assert_eq!(set.insert(71 + AHEAD_MAX), Seen::InOrder);
        assert_eq!(set.insert(u64::MAX), Seen::Absurd);
        assert_eq!(set.len(), 4);
    }

    #[test]
    fn a_late_joiner_is_owed_nothing_from_before() {
        let set = of(130, &[130, 131, 133, 129]);
        assert_eq!(set.len(), 3);
        assert_eq!(Sequences::gaps(&[&set]), 1);
    }

    #[test]
    fn missing_is_what_nobody_has() {
        let owed = Sequences::all(130);
        assert_eq!(owed.len(), 130);
        assert_eq!(owed.missing_from(&[]), 130);
        let evens = of(0, &(0..130).step_by(2).collect::<Vec<_>>());
        assert_eq!(owed.missing_from(&[&evens]), 65);
        let odds = of(65, &(65..130).step_by(2).collect::<Vec<_>>());
        assert_eq!(owed.missing_from(&[&evens, &odds]), 32);
        assert_eq!(evens.missing_from(&[&owed]), 0);
        assert_eq!(Sequences::all(128).missing_from(&[&Sequences::all(127)]), 1);
    }

    #[test]
    fn a_union_counts_what_several_have_once() {
        let (a, b) = (of(0, &[0, 1, 2, 100]), of(64, &[64, 100, 300]));
        assert_eq!(Sequences::united(&[&a, &b]), 6);
        assert_eq!(Sequences::gaps(&[&a, &b]), 295);
        assert_eq!(Sequences::united(&[]), 0);
        assert_eq!(Sequences::gaps(&[]), 0);
    }
}
