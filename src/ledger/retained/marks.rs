//! Marks: up to where in the partitions of messages a node's work is complete (R4a). They are in the same partitions as
//! the records that they speak of, so who reads a mark has read those.

use std::collections::BTreeMap;

use crate::ledger::ids::{Incarnation, Place};

/// For each partition of messages, what is complete below it.
pub type Vector = BTreeMap<Place, i64>;

/// The tick of a duty taken over: older than every sample, so that no mark of the keeper's goes out before it is done
/// (R4c).
pub const DUTY_TICK: u32 = 0;

/// All marks of `mqtt.retained`.
#[derive(Debug, Default)]
pub struct Marks {
    by_partition: BTreeMap<u32, BTreeMap<Incarnation, Vector>>,
}

impl Marks {
    /// Takes the mark of a node in a partition; none: nothing of it is left to do there.
    pub fn apply(&mut self, partition: u32, incarnation: Incarnation, mark: Option<Vec<(Place, i64)>>) {
        let marks = self.by_partition.entry(partition).or_default();
        match mark {
            Some(mark) => marks.insert(incarnation, mark.into_iter().collect()),
            None => marks.remove(&incarnation),
        };
    }

    /// The nodes with a mark in a partition.
    pub fn in_partition(&self, partition: u32) -> impl Iterator<Item = (Incarnation, &Vector)> {
        let marks = self.by_partition.get(&partition).into_iter().flatten();
        marks.map(|(incarnation, mark)| (*incarnation, mark))
    }

    /// Partitions with marks.
    pub fn partitions(&self) -> impl Iterator<Item = u32> {
        self.by_partition.keys().copied()
    }

    /// R5e: whether the marks of all nodes have come to `starts`. That of `own` must be there: it is younger than the
    /// first marks of all whose messages may be before these starts.
    pub fn have_passed(&self, partition: u32, own: Incarnation, starts: &Vector) -> bool {
        let Some(marks) = self.by_partition.get(&partition) else { return false };
        let has_passed = |mark: &Vector| {
            starts.iter().all(|(place, start)| *start <= 0 || mark.get(place).is_some_and(|done| done >= start))
        };
        marks.contains_key(&own) && marks.values().all(has_passed)
    }
}

/// When the node's own mark may rise (R4a).
///
/// The ends of all partitions are sampled. What the node appends afterwards is behind them and has a later tick; so once
/// nothing of the sample's tick or an earlier one is left to do, the sample is the mark.
#[derive(Debug)]
pub struct Sampler {
    tick: u32,
    sample: Option<(u32, Vector)>,
    emitted: Option<Vector>,
}

impl Default for Sampler {
    fn default() -> Self {
        Self { tick: DUTY_TICK + 1, sample: None, emitted: None }
    }
}

impl Sampler {
    /// What the node appends now belongs to this tick.
    pub const fn tick(&self) -> u32 {
        self.tick
    }

    /// Whether a sample waits.
    pub const fn has_sample(&self) -> bool {
        self.sample.is_some()
    }

    /// The ends of all partitions, asked for when there was no sample. [`Sampler::tick`] is another one then.
    pub fn on_ends(&mut self, ends: Vector) {
        self.sample = Some((self.tick, ends));
        self.tick = self.tick.saturating_add(1);
    }

    /// The mark to write now. `oldest_tick`: of what is not complete and read back, appends without outcome included.
    pub fn poll(&mut self, oldest_tick: u32) -> Option<Vec<(Place, i64)>> {
        let (_, ends) = self.sample.take_if(|(tick, _)| *tick < oldest_tick)?;
        if self.emitted.as_ref() == Some(&ends) {
            return None;
        }
        let mark = ends.iter().map(|(place, end)| (*place, *end)).collect();
        self.emitted = Some(ends);
        Some(mark)
    }

    /// A mark was not written: the next one goes out even if it says the same.
    pub fn forget_emitted(&mut self) {
        self.emitted = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::arbitrary::incarnation;

    const P: Place = Place { topic: 1, partition: 0 };
    const Q: Place = Place { topic: 1, partition: 1 };

    #[test]
    fn a_mark_waits_for_everything_of_its_tick_or_older() {
        let mut sampler = Sampler::default();
        let first = sampler.tick();
        sampler.on_ends([(P, 5)].into());
        assert_eq!(sampler.poll(DUTY_TICK), None);
        assert_eq!(sampler.poll(first), None, "something of the sample's tick is open");
        assert_eq!(sampler.poll(sampler.tick()), Some(vec![(P, 5)]), "what came after the sample is behind it");
        assert_eq!(sampler.poll(u32::MAX), None, "once");
    }

    #[test]
    fn a_mark_that_says_nothing_new_is_not_written_unless_the_last_one_was_lost() {
        let mut sampler = Sampler::default();
        for written in [true, false] {
            sampler.on_ends([(P, 5)].into());
            assert_eq!(sampler.poll(u32::MAX).is_some(), written);
        }
        sampler.forget_emitted();
        sampler.on_ends([(P, 5)].into());
        assert!(sampler.poll(u32::MAX).is_some());
    }

    #[test]
    fn a_start_is_passed_when_all_marks_are_there_the_own_one_among_them() {
        let (own, other) = (incarnation(1), incarnation(2));
        let mut marks = Marks::default();
        let starts: Vector = [(P, 5), (Q, 0)].into();
        marks.apply(3, other, Some(vec![(P, 9)]));
        assert!(!marks.have_passed(3, own, &starts), "the own mark is missing");
        marks.apply(3, own, Some(vec![(P, 4)]));
        assert!(!marks.have_passed(3, own, &starts));
        marks.apply(3, own, Some(vec![(P, 5)]));
        assert!(marks.have_passed(3, own, &starts), "nothing can be before the beginning of Q");
        marks.apply(3, other, Some(vec![(P, 4)]));
        assert!(!marks.have_passed(3, own, &starts));
        marks.apply(3, other, None);
        assert!(marks.have_passed(3, own, &starts), "the duty of the dead is done");
        assert!(!marks.have_passed(2, own, &starts), "each partition has its own marks");
    }
}
