//! What the tail says: records to their subscribers.

use smallvec::SmallVec;

use super::Fanout;
use super::lag::{Lag, Waits};
use super::round::{Held, Verdict};
use crate::journal::{Batch, Offset, Partition, StoredRecord, Tail, TailEvent};
use crate::ledger::ids::{Origin, Place};
use crate::message::{self, Decoded, Message};
use crate::mqtt::packet::QoS;
use crate::node::connections::ConnectionId;
use crate::node::mailbox::Pushed;
use crate::ops::metrics::DropReason;
use crate::route::mapping::MappedTopic;
use crate::route::partition::partition_of;
use crate::session::{Delivery, Subscription};

/// One matching subscription of a record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub(super) connection: ConnectionId,
    pub(super) subscription: Subscription,
    /// The round that is still open.
    pub(super) held_by: Option<u64>,
}

/// Where a record is, and when it is handed over.
#[derive(Clone, Copy, Debug)]
pub(super) struct At {
    pub(super) partition: Partition,
    pub(super) offset: Offset,
    /// `None`: the journal does not know the kafka topic's id.
    pub(super) place: Option<Place>,
    pub(super) tick: u32,
}

impl At {
    fn origin(&self) -> Option<Origin> {
        self.place.map(|place| Origin { place, offset: self.offset.0 })
    }
}

/// What one connection gets of a record.
#[derive(Debug)]
pub(super) enum Due {
    Nothing,
    Now(Delivery),
    /// Once the round says whether the subscription started before it.
    Held(u64, Delivery),
}

impl Fanout {
    pub(super) fn on_tail(&mut self, event: TailEvent, tail: &mut dyn Tail) {
        match event {
            TailEvent::Batch(batch) => self.on_batch(batch, tail),
            TailEvent::Progress { partition, next, ends: _ } => self.advance(partition, next),
            TailEvent::BelowLogStart { partition, position, log_start } => {
                self.on_below_log_start(partition, position, log_start, tail);
            }
            TailEvent::Rewound { partition, position, end } => self.on_rewound(partition, position, end, tail),
            TailEvent::Gap { partition, why } => self.on_gap(partition, &why, tail),
            TailEvent::Recreated { topic } => self.on_recreated(topic),
            TailEvent::PartitionsAdded { topic, partitions } => self.on_partitions_added(topic, partitions),
        }
    }

    fn on_batch(&mut self, batch: Batch, tail: &mut dyn Tail) {
        self.metrics.tail_batches.inc();
        let partition = batch.partition;
        let topic = partition.topic;
        let (mut read, mut wanted) = (0_u64, 0_u64);
        let mut mismatch = false;
        let hashed_over = self.interest.hashed_over(topic);
        let (place, tick) = (self.places.place(partition), self.watermarks.tick());
        for record in &batch {
            read += 1;
            let Some(key) = record.key else { continue };
            mismatch |= hashed_over.is_some_and(|over| partition_of(key, over) != partition.number);
            let at = At { partition, offset: record.offset, place, tick };
            wanted += u64::from(self.on_record(at, key, &record));
        }
        self.metrics.tail_records_read.inc_by(read);
        self.metrics.tail_records_wanted.inc_by(wanted);
        let next = batch.next_offset;
        self.recent.add(batch);
        self.advance(partition, next);
        if mismatch {
            self.on_foreign_partitioner(topic);
        }
        self.drop_unwanted(partition, tail);
    }

    /// True if anybody wants it.
    fn on_record(&mut self, at: At, key: &[u8], record: &StoredRecord<'_>) -> bool {
        let mapping = std::sync::Arc::clone(&self.mapping);
        let Some(topic) = mapping.to_mqtt(MappedTopic(at.partition.topic.0), key) else { return false };
        let found = &mut self.found;
        found.clear();
        self.trie.matches(&topic, |connection, entry| {
            let held_by = match entry.round.judge(at.partition, at.offset) {
                Verdict::Deliver => None,
                Verdict::Hold => Some(entry.round.number),
                Verdict::Skip => return,
            };
            found.push(Found { connection, subscription: entry.subscription, held_by });
        });
        if self.found.is_empty() {
            return false;
        }
        let Some(message) = self.decode(&topic, record) else { return false };
        let mut found = std::mem::take(&mut self.found);
        found.sort_by_key(|found| found.connection);
        for same in found.chunk_by(|a, b| a.connection == b.connection) {
            self.offer(at, &message, same);
        }
        self.found = found;
        true
    }

    /// `None` for what is no message: a tombstone, a fence.
    pub(super) fn decode(&self, topic: &str, record: &StoredRecord<'_>) -> Option<Message> {
        match message::decode(topic, record.value(), record.headers()) {
            Decoded::Message { message, headers_ignored } => {
                if headers_ignored > 0 {
                    self.metrics.headers_ignored.inc_by(u64::from(headers_ignored));
                }
                Some(message)
            }
            Decoded::Tombstone | Decoded::Fence => None,
        }
    }

    fn offer(&mut self, at: At, message: &Message, found: &[Found]) {
        let Some(connection) = found.first().map(|found| found.connection) else { return };
        match self.due(at, message, found) {
            Due::Nothing => {}
            Due::Now(delivery) => self.push(connection, at.partition, at.offset, delivery),
            Due::Held(round, delivery) => {
                let held = Held { connection, partition: at.partition, offset: at.offset, delivery };
                self.open_round(round).held.push(held);
            }
        }
    }

    /// One message to one connection, whatever number of its subscriptions match [MQTT-3.3.4-2].
    pub(super) fn due(&self, at: At, message: &Message, found: &[Found]) -> Due {
        let Some(first) = found.first() else { return Due::Nothing };
        let Some(follower) = self.followers.get(&first.connection) else { return Due::Nothing };
        let own = message.publisher() == Some(follower.client_id.as_str());
        let started = found.iter().any(|found| found.held_by.is_none());
        let matching = found
            .iter()
            .filter(|found| found.held_by.is_none() == started && !(found.subscription.options.no_local && own));
        let delivery = delivery_of(message, matching.map(|found| found.subscription), at);
        match (delivery, first.held_by) {
            (None, _) => Due::Nothing,
            (Some(delivery), Some(round)) if !started => Due::Held(round, delivery),
            (Some(delivery), Some(_) | None) => Due::Now(delivery),
        }
    }

    pub(super) fn push(&mut self, connection: ConnectionId, partition: Partition, offset: Offset, delivery: Delivery) {
        let Some(follower) = self.followers.get_mut(&connection) else { return };
        let must_arrive = delivery.qos > QoS::AtMostOnce;
        if let Some(lag) = follower.lag.as_mut().filter(|lag| lag.holds_back(partition)) {
            if must_arrive {
                lag.missed(partition, offset);
                return;
            }
            // QoS 0 is never read again, so it overtakes nothing of its own QoS: a resumed session gets what is live at once.
            if !lag.lets_qos_0_pass(partition, offset) {
                self.metrics.publishes_dropped.inc(DropReason::QueueFull);
                return;
            }
        }
        let bytes = delivery.bytes();
        let windowed = self.snapshots.contains_key(&connection).then(|| (delivery.message.clone(), delivery.origin));
        match follower.mailbox.push_delivery(delivery) {
            (Pushed::Taken, waker) => {
                self.wakers.extend(waker);
                if let Some((message, origin)) = windowed {
                    self.note_sent(connection, message.topic(), origin);
                }
            }
            (Pushed::Full, _) if must_arrive => self.fall_behind(connection, partition, offset, bytes),
            (Pushed::Full, _) => self.metrics.publishes_dropped.inc(DropReason::QueueFull),
            // Its position is still to be asked for.
            (Pushed::Gone, _) if must_arrive => self.get_off(connection, partition, offset, Waits::Gone),
            (Pushed::Gone, _) => {}
        }
    }

    pub(super) fn advance(&mut self, partition: Partition, next: Offset) {
        if let Some(position) = self.positions.get_mut(&partition) {
            *position = next.max(*position);
            let positions = &self.positions;
            self.starting.retain(|round| !round.try_pass(positions));
            self.sweeps.wake(partition);
        }
    }

    /// The tail goes on at `from`, wherever it was.
    pub(super) fn follow_at(&mut self, partition: Partition, from: Offset, tail: &mut dyn Tail) {
        self.positions.insert(partition, from);
        self.recent.start(partition, from);
        self.sweeps.wake(partition);
        tail.follow(partition, from);
    }

    /// A node without subscribers reads nothing.
    pub(super) fn drop_unwanted(&mut self, partition: Partition, tail: &mut dyn Tail) {
        if !self.interest.is_wanted(partition) && self.positions.remove(&partition).is_some() {
            self.recent.forget(partition);
            self.sweeps.drop_partition(partition);
            tail.unfollow(partition);
        }
    }

    /// There is no room for a message that must arrive.
    pub(super) fn fall_behind(&mut self, connection: ConnectionId, partition: Partition, offset: Offset, bytes: usize) {
        let open = self.asked.iter().chain([&self.collecting]).map(|open| &open.round);
        self.starting.iter().chain(open).for_each(|round| round.keep_starts());
        self.get_off(connection, partition, offset, Waits::Room);
        if self.followers.get(&connection).is_some_and(|follower| follower.mailbox.want_room(bytes)) {
            self.board(connection);
        }
    }

    /// Takes a subscriber out of all sweeps, in this partition at `offset`.
    pub(super) fn get_off(&mut self, connection: ConnectionId, partition: Partition, offset: Offset, waits: Waits) {
        let Some(follower) = self.followers.get_mut(&connection) else { return };
        let metrics = &self.metrics;
        let lag = follower.lag.get_or_insert_with(|| {
            metrics.lagging.inc();
            Box::new(Lag::new(std::collections::BTreeMap::new(), waits))
        });
        for (&partition, from) in &mut lag.from {
            *from = self.sweeps.leave(partition, connection).unwrap_or(*from);
        }
        lag.from.insert(partition, offset);
        lag.waits = waits;
    }
}

/// The highest QoS of the matching subscriptions, all their identifiers; `None` if there is none.
fn delivery_of(message: &Message, matching: impl Iterator<Item = Subscription>, at: At) -> Option<Delivery> {
    let mut granted = None;
    let mut retain = false;
    let mut subscription_ids: SmallVec<[u32; 1]> = SmallVec::new();
    for subscription in matching {
        granted = granted.max(Some(subscription.options.qos));
        retain |= subscription.options.retain_as_published && message.retain();
        subscription_ids.extend(subscription.id);
    }
    granted.map(|granted| Delivery {
        message: message.clone(),
        qos: granted.min(message.qos()),
        retain,
        subscription_ids,
        origin: at.origin(),
        tick: at.tick,
    })
}
