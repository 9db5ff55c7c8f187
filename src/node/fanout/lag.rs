//! A subscriber that cannot keep up reads from Kafka what it missed, in its own time; the tail goes on for all others.
//!
//! From the moment its mailbox had no room, nothing of QoS 1 is pushed to it any more: the first missed offset of each
//! partition is noted. When half of its mailbox is free, the missed records are read and pushed, one partition after the
//! other, until the reading has come to where the tail is.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::round::Verdict;
use super::{Answer, Fanout, delivery_of};
use crate::journal::{JournalError, Offset, Partition, ReadAnswer, StoredRecord, TopicIndex};
use crate::mqtt::packet::QoS;
use crate::node::connections::ConnectionId;
use crate::node::mailbox::Pushed;
use crate::ops::tasks;
use crate::route::mapping::MappedTopic;
use crate::session::{Delivery, Subscription};

/// Bytes of one read.
const READ_BYTES_MAX: usize = 256 * 1024;
/// How long a read that failed rests before it is asked again.
const READ_AGAIN_MS: u64 = 500;

/// What a lagging subscriber missed.
#[derive(Debug)]
pub(super) struct Lag {
    /// The first missed offset of each partition.
    from: BTreeMap<Partition, Offset>,
    /// A read is under way.
    reading: bool,
}

/// It is not known yet where the only matching subscription starts.
struct NotStarted;

/// The answer to a read.
#[derive(Debug)]
pub(super) struct CaughtUp {
    connection: ConnectionId,
    partition: Partition,
    answer: Result<ReadAnswer, JournalError>,
}

impl Lag {
    pub(super) fn since(partition: Partition, offset: Offset) -> Self {
        Self { from: [(partition, offset)].into(), reading: false }
    }

    pub(super) fn missed(&mut self, partition: Partition, offset: Offset) {
        self.from.entry(partition).or_insert(offset);
    }

    pub(super) fn forget_topic(&mut self, topic: TopicIndex) {
        self.from.retain(|partition, _| partition.topic != topic);
    }
}

impl Fanout {
    /// Reads on for a lagging subscriber, unless it is being done.
    pub(super) fn catch_up(&mut self, connection: ConnectionId) {
        let Some(follower) = self.followers.get_mut(&connection) else { return };
        let Some(lag) = follower.lag.as_mut().filter(|lag| !lag.reading) else { return };
        let Some((&partition, &from)) = lag.from.first_key_value() else {
            follower.lag = None;
            self.metrics.lagging.dec();
            return;
        };
        lag.reading = true;
        let (journal, answers_to, isolation) = (Arc::clone(&self.journal), self.answers_to.clone(), self.isolation);
        tasks::spawn("catch up", async move {
            let answer = journal.read(partition, from, READ_BYTES_MAX, isolation).await;
            if answer.is_err() {
                tokio::time::sleep(std::time::Duration::from_millis(READ_AGAIN_MS)).await;
            }
            // An actor that is gone needs no answer.
            let _ = answers_to.send(Answer::CaughtUp(CaughtUp { connection, partition, answer })).await;
        });
    }

    pub(super) fn on_caught_up(&mut self, caught_up: CaughtUp) {
        let CaughtUp { connection, partition, answer } = caught_up;
        let Some(lag) = self.followers.get_mut(&connection).and_then(|follower| follower.lag.as_mut()) else { return };
        lag.reading = false;
        let Some(&from) = lag.from.get(&partition) else {
            self.catch_up(connection);
            return;
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                tracing::debug!(%error, ?partition, "a lagging subscriber waits");
                self.catch_up(connection);
                return;
            }
        };
        if answer.ends.log_start > from {
            self.count_lost(answer.ends.log_start.0.saturating_sub(from.0));
        }
        // A read may be ahead of the tail, which hands out from its position on: that is not missed yet.
        let read_to = self.positions.get(&partition).map_or(answer.next, |&position| answer.next.min(position));
        let next = match self.push_missed(connection, &answer, from..read_to) {
            Ok(()) => read_to,
            Err(stopped_at) => stopped_at,
        };
        self.after_read(connection, partition, next, read_to);
    }

    fn after_read(&mut self, connection: ConnectionId, partition: Partition, next: Offset, read_to: Offset) {
        let at_tail = self.positions.get(&partition).is_none_or(|&position| next >= position);
        let Some(follower) = self.followers.get_mut(&connection) else { return };
        let Some(lag) = follower.lag.as_mut() else { return };
        if at_tail {
            lag.from.remove(&partition);
        } else {
            lag.from.insert(partition, next);
        }
        let stopped = next < read_to;
        if !stopped || follower.mailbox.want_room() {
            self.catch_up(connection);
        }
    }

    /// `Err(offset)`: the mailbox had no room for the record there, or it is not known yet whether it is to be delivered.
    fn push_missed(
        &mut self,
        connection: ConnectionId,
        answer: &ReadAnswer,
        missed: Range<Offset>,
    ) -> Result<(), Offset> {
        for batch in &answer.batches {
            for record in batch.iter().filter(|record| missed.contains(&record.offset)) {
                let delivery = match self.delivery_for(connection, batch.partition, &record) {
                    Ok(Some(delivery)) => delivery,
                    Ok(None) => continue,
                    Err(NotStarted) => return Err(record.offset),
                };
                let Some(follower) = self.followers.get(&connection) else { return Ok(()) };
                match follower.mailbox.push_delivery(delivery) {
                    (Pushed::Taken, waker) => self.wakers.extend(waker),
                    (Pushed::Full, _) => return Err(record.offset),
                    (Pushed::Gone, _) => return Ok(()),
                }
            }
        }
        Ok(())
    }

    /// What the subscriber gets of a record it missed; QoS 0 was dropped when it was missed, and a subscription that is
    /// younger than the record missed nothing.
    fn delivery_for(
        &self,
        connection: ConnectionId,
        partition: Partition,
        record: &StoredRecord<'_>,
    ) -> Result<Option<Delivery>, NotStarted> {
        let Some(follower) = self.followers.get(&connection) else { return Ok(None) };
        let to_mqtt = |key| self.mapping.to_mqtt(MappedTopic(partition.topic.0), key);
        let Some(topic) = record.key.and_then(to_mqtt) else { return Ok(None) };
        let mut matching: Vec<Subscription> = Vec::new();
        let mut held = false;
        self.trie.matches(&topic, |found, entry| {
            if found == connection {
                match entry.round.judge(partition, record.offset) {
                    Verdict::Deliver => matching.push(entry.subscription),
                    Verdict::Hold => held = true,
                    Verdict::Skip => {}
                }
            }
        });
        if matching.is_empty() {
            return if held { Err(NotStarted) } else { Ok(None) };
        }
        let Some(message) = self.decode(&topic, record) else { return Ok(None) };
        let own = message.publisher() == Some(follower.client_id.as_str());
        let matching = matching.into_iter().filter(|subscription| !(subscription.options.no_local && own));
        Ok(delivery_of(&message, matching).filter(|delivery| delivery.qos > QoS::AtMostOnce))
    }
}
