//! What operators, brokers and foreign programs do to a log: fences, compaction, retention, losses, other writers.

use super::MemoryLog;
use super::group::Sealed;
use super::log::Place;
use super::partition::{Fate, Writing};
use super::topics::Topic;
use crate::journal::{FenceForm, Offset, TailEvent};
use crate::message::{Header, RecordRef, headers};

/// A partition that is compacted is compacted on its own once it has doubled and is larger than this.
const COMPACT_FROM_BYTES: usize = 1 << 20;
/// The producer id of foreign programs that the fault plan brings.
const FOREIGN_PRODUCER_ID: i64 = 7;

/// What a foreign program writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForeignWrite {
    /// Plain records.
    Plain,
    /// A transaction that was committed.
    Committed,
    /// A transaction that was aborted.
    Aborted,
    /// A transaction that stays open until [`MemoryLog::end_foreign`].
    Open,
}

impl MemoryLog {
    /// Fences a producer id in one partition, whether it ever wrote there or not. False if there is no such partition.
    pub fn fence(&mut self, producer_id: i64, topic: &str, number: u32, form: FenceForm) -> bool {
        self.place(topic, number).is_some_and(|place| self.fence_at(producer_id, place, form))
    }

    pub(super) fn fence_at(&mut self, producer_id: i64, place: Place, form: FenceForm) -> bool {
        let now_ms = self.now_ms;
        let Some(log) = self.partition_mut(place) else { return false };
        match form {
            FenceForm::Marker => {
                log.fence(producer_id, 32766);
                log.skip(1);
                self.wake_followers(place);
            }
            // Kafka takes the same record again for a repetition.
            FenceForm::Record if !log.fence(producer_id, 32767) => {}
            FenceForm::Record => {
                let whose = producer_id.to_string();
                let headers = [Header { name: headers::FENCE, value: Some(whose.as_bytes()) }];
                let record =
                    RecordRef { key: Some(b"mqtt-fence"), value: None, headers: &headers, timestamp_ms: now_ms };
                let writing = Writing { producer_id, now_ms, fate: Fate::Committed };
                self.store(place, Sealed::of(&[record]), writing);
            }
        }
        true
    }

    /// A foreign program writes; says at which offset.
    pub fn write_foreign(
        &mut self,
        producer_id: i64,
        topic: &str,
        number: u32,
        records: &[RecordRef<'_>],
        write: ForeignWrite,
    ) -> Option<Offset> {
        let place = self.place(topic, number)?;
        let fate = if write == ForeignWrite::Plain { Fate::Committed } else { Fate::Undecided };
        let writing = Writing { producer_id, now_ms: self.now_ms, fate };
        let offset = self.store(place, Sealed::of(records), writing);
        match write {
            ForeignWrite::Plain | ForeignWrite::Open => {}
            ForeignWrite::Committed => self.decide(place, producer_id, Fate::Committed),
            ForeignWrite::Aborted => self.decide(place, producer_id, Fate::Aborted),
        }
        Some(Offset(offset))
    }

    /// Ends a foreign program's open transaction.
    pub fn end_foreign(&mut self, producer_id: i64, topic: &str, number: u32, commit: bool) {
        if let Some(place) = self.place(topic, number) {
            self.decide(place, producer_id, if commit { Fate::Committed } else { Fate::Aborted });
        }
    }

    fn decide(&mut self, place: Place, producer_id: i64, fate: Fate) {
        if let Some(log) = self.partition_mut(place) {
            log.end_transaction(producer_id, fate);
        }
        self.wake_followers(place);
    }

    /// Uses up offsets in a partition with nothing that can be read.
    pub fn leave_hole(&mut self, topic: &str, number: u32, offsets: u32) {
        if let Some(place) = self.place(topic, number) {
            self.skip_offsets(place, offsets);
        }
    }

    /// Compacts a partition, whatever its kafka topic's policy is.
    pub fn compact(&mut self, topic: &str, number: u32) {
        if let Some(place) = self.place(topic, number) {
            self.compact_at(place);
        }
    }

    /// Retention: what is before `offset` no longer exists.
    pub fn delete_before(&mut self, topic: &str, number: u32, offset: Offset) {
        let Some(place) = self.place(topic, number) else { return };
        if let Some(log) = self.partition_mut(place) {
            log.delete_before(offset.0);
        }
        self.wake_followers(place);
    }

    /// Kafka loses acknowledged records: those in batches that reach beyond `end`.
    pub fn lose_end(&mut self, topic: &str, number: u32, end: Offset) {
        let Some(place) = self.place(topic, number) else { return };
        let Some(log) = self.partition_mut(place) else { return };
        log.lose_end(end.0);
        let end = Offset(log.end);
        for (tail, partition, position) in self.followers(place) {
            if position > end.0 {
                let position = Offset(position);
                self.break_off(tail, partition, TailEvent::Rewound { partition, position, end });
            }
        }
    }

    /// Every tail of a partition loses its place.
    pub fn break_tails(&mut self, topic: &str, number: u32, why: &str) {
        let Some(place) = self.place(topic, number) else { return };
        for (tail, partition, _) in self.followers(place) {
            self.break_off(tail, partition, TailEvent::Gap { partition, why: why.into() });
        }
    }

    /// Deletes a kafka topic. Its followers get a `Gap` for each partition.
    pub fn delete_topic(&mut self, name: &str) {
        let Some(slot) = self.by_name.get(name).copied() else { return };
        for number in 0..self.topics.get(slot).map_or(0, |topic| topic.spec.partitions) {
            self.break_tails(name, number, "the kafka topic was deleted");
        }
        self.remove_topic(name, slot);
        self.resolve_names();
    }

    /// Deletes a kafka topic and creates it again under the same name. Its followers get `Recreated`.
    pub fn recreate_topic(&mut self, name: &str) {
        let Some(slot) = self.by_name.get(name).copied() else { return };
        let Some(spec) = self.topics.get(slot).map(|topic| topic.spec.clone()) else { return };
        self.tell_followers(slot, |topic| TailEvent::Recreated { topic });
        for number in 0..spec.partitions {
            for (tail, partition, _) in self.followers(Place { slot, number }) {
                self.unfollow(tail, partition);
            }
        }
        self.remove_topic(name, slot);
        self.add_topic(spec);
        self.resolve_names();
    }

    fn remove_topic(&mut self, name: &str, slot: usize) {
        self.by_name.remove(name);
        if let Some(topic) = self.topics.get_mut(slot) {
            topic.partitions.clear();
        }
    }

    /// Gives a kafka topic more partitions, up to `partitions`.
    pub fn add_partitions(&mut self, name: &str, partitions: u32) {
        let Some(slot) = self.by_name.get(name).copied() else { return };
        let Some(topic) = self.topics.get_mut(slot).filter(|topic| topic.spec.partitions < partitions) else { return };
        topic.spec.partitions = partitions;
        topic.partitions.resize_with(partitions as usize, Default::default);
        self.tell_followers(slot, |topic| TailEvent::PartitionsAdded { topic, partitions });
    }

    pub(super) fn store(&mut self, place: Place, sealed: Sealed, writing: Writing) -> i64 {
        let Some(topic) = self.topics.get_mut(place.slot) else { return -1 };
        let stamped = topic.stamped;
        let Some(log) = topic.partitions.get_mut(place.number as usize) else { return -1 };
        let before = log.stored_bytes;
        let offset = log.append(sealed, writing, stamped);
        if !topic.compacted {
            self.droppable_bytes += log.stored_bytes - before;
        }
        self.wake_followers(place);
        offset
    }

    pub(super) fn skip_offsets(&mut self, place: Place, offsets: u32) {
        if let Some(log) = self.partition_mut(place) {
            log.skip(offsets);
        }
        self.wake_followers(place);
    }

    pub(super) fn store_aborted_junk(&mut self, place: Place) {
        let junk = RecordRef { key: Some(b"aborted"), value: Some(b"junk"), headers: &[], timestamp_ms: self.now_ms };
        let writing = Writing { producer_id: FOREIGN_PRODUCER_ID, now_ms: self.now_ms, fate: Fate::Undecided };
        self.store(place, Sealed::of(&[junk]), writing);
        self.decide(place, FOREIGN_PRODUCER_ID, Fate::Aborted);
    }

    /// After something landed: compaction if its time has come, retention if there is too much.
    pub(super) fn keep_within_bounds(&mut self, place: Place) {
        let Some(topic) = self.topics.get(place.slot) else { return };
        if topic.compacted {
            let has_doubled = topic.partitions.get(place.number as usize).is_some_and(|log| {
                log.stored_bytes >= COMPACT_FROM_BYTES && log.stored_bytes >= 2 * log.compacted_bytes
            });
            if has_doubled || self.dice.chance(self.plan.compaction_permille) {
                self.compact_at(place);
            }
        } else if self.droppable_bytes > self.limits.stored_bytes_max {
            self.drop_oldest();
        }
    }

    fn compact_at(&mut self, place: Place) {
        let Self { topics, dice, now_ms, .. } = self;
        let Some(topic) = topics.get_mut(place.slot) else { return };
        let tombstones_after_ms = now_ms.saturating_sub(topic.tombstones_kept_ms);
        let lag_from_ms = now_ms.saturating_sub(topic.compaction_lag_ms);
        if let Some(log) = topic.partitions.get_mut(place.number as usize) {
            log.compact(tombstones_after_ms, lag_from_ms, || dice.coin());
        }
    }

    /// Drops a sixteenth of what may be stored, from whichever partition is largest.
    fn drop_oldest(&mut self) {
        let Self { topics, limits, droppable_bytes, .. } = self;
        let goal = limits.stored_bytes_max - limits.stored_bytes_max / 16;
        let droppable = |topic: &&mut Topic| !topic.compacted;
        *droppable_bytes =
            topics.iter_mut().filter(droppable).flat_map(|topic| &topic.partitions).map(|log| log.stored_bytes).sum();
        while *droppable_bytes > goal {
            let logs = topics.iter_mut().filter(droppable).flat_map(|topic| &mut topic.partitions);
            let Some(log) = logs.max_by_key(|log| log.stored_bytes) else { return };
            let before = log.stored_bytes;
            // The newest batch stays: whoever waits for it must be able to read it.
            if log.batches.len() < 2 || !log.delete_oldest() {
                return;
            }
            *droppable_bytes -= before - log.stored_bytes;
        }
    }
}
