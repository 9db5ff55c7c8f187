//! What goes wrong with a log, or changes about it, while it is followed.

use super::Fanout;
use super::lag::Waits;
use super::sweep::{self, Clamped};
use super::watermark::Decision;
use crate::journal::{Offset, Partition, Tail, TopicIndex};

impl Fanout {
    pub(super) fn on_below_log_start(
        &mut self,
        partition: Partition,
        position: Offset,
        log_start: Offset,
        tail: &mut dyn Tail,
    ) {
        self.metrics.tail_gaps.inc();
        self.count_lost(log_start.0.saturating_sub(position.0));
        tracing::warn!(?partition, ?position, ?log_start, "retention removed records that were not read yet");
        self.follow_again(partition, log_start, tail);
    }

    /// Kafka lost the end of the partition.
    pub(super) fn on_rewound(&mut self, partition: Partition, position: Offset, end: Offset, tail: &mut dyn Tail) {
        self.metrics.tail_gaps.inc();
        tracing::error!(?partition, ?position, ?end, "Kafka lost acknowledged records of this partition");
        self.follow_again(partition, end, tail);
        self.move_before(partition, end);
        let Some(place) = self.places.place(partition) else { return };
        let touching = self.durable_touching(|touched| touched == partition);
        let detach = self.watermarks.on_rewound(place, end.0, &touching);
        self.carry_out(Decision { detach, ..Decision::default() });
    }

    pub(super) fn on_gap(&mut self, partition: Partition, why: &str, tail: &mut dyn Tail) {
        self.metrics.tail_gaps.inc();
        tracing::warn!(?partition, why, "the tail lost its place");
        if let Some(&position) = self.positions.get(&partition) {
            self.follow_again(partition, position, tail);
        }
    }

    fn follow_again(&mut self, partition: Partition, from: Offset, tail: &mut dyn Tail) {
        if self.interest.is_wanted(partition) {
            self.follow_at(partition, from, tail);
        } else {
            self.positions.remove(&partition);
            self.recent.forget(partition);
        }
    }

    /// Positions beyond the end name records that are still to come.
    fn move_before(&mut self, partition: Partition, end: Offset) {
        let exists = Offset(0)..end;
        let mut clamped = self.sweeps.clamp(partition, &exists);
        #[expect(clippy::iter_over_hash_type, reason = "each is changed for itself, whatever the order")]
        for follower in self.followers.values_mut() {
            follower.filters.iter().for_each(|subscribed| subscribed.round.rewind(partition, end));
            let Some(lag) = follower.lag.as_mut().filter(|lag| lag.waits != Waits::Nothing) else { continue };
            if let Some(from) = lag.from.get_mut(&partition).filter(|from| **from > end) {
                clamped.add(sweep::clamp(from, &exists));
            }
        }
        self.report(partition, clamped);
    }

    /// Says what was lost when positions were moved into what exists.
    pub(super) fn report(&self, partition: Partition, clamped: Clamped) {
        if clamped.below > 0 {
            self.count_lost(clamped.lost);
            let subscribers = clamped.below;
            tracing::warn!(?partition, subscribers, "retention removed records that they had not read yet");
        }
        if clamped.beyond > 0 {
            self.metrics.tail_gaps.inc();
            let subscribers = clamped.beyond;
            tracing::error!(?partition, subscribers, "Kafka lost records that they had acknowledged");
        }
    }

    /// A new kafka topic under the old name: everything in it is new.
    pub(super) fn on_recreated(&mut self, topic: TopicIndex) {
        self.metrics.tail_gaps.inc();
        tracing::warn!(topic = self.topic_name(topic), "the kafka topic was deleted and created again");
        self.places.set(topic, self.journal.topic_id(topic));
        let gone: Vec<Partition> = self.positions.keys().copied().filter(|p| p.topic == topic).collect();
        for partition in gone {
            self.positions.remove(&partition);
            self.recent.forget(partition);
            self.sweeps.drop_partition(partition);
        }
        #[expect(clippy::iter_over_hash_type, reason = "each is changed for itself, whatever the order")]
        for follower in self.followers.values_mut() {
            follower.filters.iter().for_each(|subscribed| subscribed.round.forget_topic(topic));
            if let Some(lag) = &mut follower.lag {
                lag.forget_topic(topic);
            }
            if follower.lag.as_ref().is_some_and(|lag| lag.is_over()) {
                follower.lag = None;
                self.metrics.lagging.dec();
            }
        }
        let wanted = self.interest.wanted_of(topic);
        self.collecting.from_log_start.extend(&wanted);
        self.collecting.partitions.extend(wanted);
        self.collecting.changed.insert(topic);
        self.ask();
    }

    /// A partition that did not exist is read from its beginning; keys may have moved, so pruning ends.
    pub(super) fn on_partitions_added(&mut self, topic: TopicIndex, partitions: u32) {
        tracing::warn!(topic = self.topic_name(topic), partitions, "the kafka topic has more partitions");
        let known = self.journal.partitions(topic).min(partitions);
        let before: Vec<Partition> = self.interest.wanted_of(topic);
        self.interest.grow(topic, partitions.max(known));
        self.interest.stop_pruning(topic);
        let added = self.interest.wanted_of(topic).into_iter().filter(|p| !self.positions.contains_key(p));
        let added: Vec<Partition> = added.collect();
        let highest_before = before.iter().map(|p| p.number).max();
        let new = added.iter().copied().filter(|p| highest_before.is_none_or(|highest| p.number > highest));
        self.collecting.from_log_start.extend(new);
        self.collecting.partitions.extend(added);
        self.collecting.changed.insert(topic);
        self.ask();
    }

    pub(super) fn on_foreign_partitioner(&mut self, topic: TopicIndex) {
        if !self.interest.stop_pruning(topic) {
            return;
        }
        self.metrics.foreign_partitioner.inc();
        tracing::warn!(
            topic = self.topic_name(topic),
            "a producer puts keys into other partitions than murmur2 does: all partitions are read from now on"
        );
        let added = self.interest.wanted_of(topic).into_iter().filter(|p| !self.positions.contains_key(p));
        self.collecting.partitions.extend(added);
        self.collecting.changed.insert(topic);
        self.ask();
    }
}
