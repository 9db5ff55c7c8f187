//! Subscribers that lag read what they missed, in their own time; the tail goes on for all others.
//!
//! From the moment its mailbox had no room, nothing of QoS 1 or 2 is pushed to a subscriber any more: the first missed
//! offset of each partition is noted. When half of its mailbox is free it joins the sweeps of those partitions
//! ([`super::sweep`]), until it has come to where the tail is. A resumed session begins like that.

use std::ops::Range;
use std::sync::Arc;

use super::lag::Waits;
use super::round::Verdict;
use super::tail::{At, Due, Found};
use super::watermark::BEFORE_ALL_TICKS;
use super::{Answer, Fanout};
use crate::journal::{Batch, Ends, Isolation, Offset, Partition, ReadAnswer, SharedJournal, StoredRecord};
use crate::mqtt::packet::QoS;
use crate::node::connections::ConnectionId;
use crate::node::mailbox::Pushed;
use crate::ops::tasks;
use crate::route::mapping::MappedTopic;

/// Bytes of one read, and of what is handed over in one turn.
const READ_BYTES_MAX: usize = 256 * 1024;
/// How long a read that brought nothing rests before it is asked again.
const READ_AGAIN_MS: u64 = 500;

/// The answer to a read.
#[derive(Debug)]
pub(super) struct CaughtUp {
    partition: Partition,
    question: u64,
    from: Offset,
    read: Read,
}

#[derive(Debug)]
enum Read {
    Records(ReadAnswer),
    /// There is nothing at that offset: it is before the log's start or beyond its end.
    Outside(Ends),
    Failed,
}

/// One subscriber in a sweep, while what was read is handed over.
#[derive(Debug)]
struct Rider {
    connection: ConnectionId,
    from: Offset,
    rides: bool,
}

impl Fanout {
    /// Does what is to be done for those that lag, but not too much in one turn.
    pub(super) fn catch_up(&mut self) {
        let mut bytes_left = READ_BYTES_MAX;
        while bytes_left > 0 {
            let Some(partition) = self.sweeps.next_work() else { return };
            let bytes = self.sweep(partition);
            bytes_left = bytes_left.saturating_sub(bytes);
        }
    }

    /// Bytes that were handed over.
    fn sweep(&mut self, partition: Partition) -> usize {
        // While the tail is not there, nobody knows how far to read.
        let Some(&tail) = self.positions.get(&partition) else { return 0 };
        let plan = self.sweeps.plan(partition, tail);
        for connection in plan.arrived {
            self.arrive(connection, partition);
        }
        let Some(from) = plan.read else { return 0 };
        if let Some((batches, next)) = self.recent.read(partition, from, tail, READ_BYTES_MAX) {
            self.metrics.catch_up_reads_from_memory.inc();
            self.hand_over(partition, &batches, &(from..next));
            return batches.iter().map(|batch| batch.records.len()).sum();
        }
        self.metrics.catch_up_reads.inc();
        let question = self.sweeps.asked(partition);
        let (journal, answers_to, isolation) = (Arc::clone(&self.journal), self.answers_to.clone(), self.isolation);
        tasks::spawn("catch up", async move {
            let read = read(&journal, partition, from, isolation).await;
            // An actor that is gone needs no answer.
            let _ = answers_to.send(Answer::CaughtUp(CaughtUp { partition, question, from, read })).await;
        });
        0
    }

    pub(super) fn on_caught_up(&mut self, caught_up: CaughtUp) {
        let CaughtUp { partition, question, from, read } = caught_up;
        if !self.sweeps.answered(partition, question) {
            return;
        }
        match read {
            Read::Records(answer) => {
                // A read may be ahead of the tail, which hands out from its position on: that is not missed yet.
                let tail = self.positions.get(&partition).copied().unwrap_or(from);
                self.hand_over(partition, &answer.batches, &(from..answer.next.min(tail)));
            }
            Read::Outside(ends) => {
                let clamped = self.sweeps.clamp(partition, &(ends.log_start..ends.high_watermark));
                self.report(partition, clamped);
            }
            Read::Failed => {}
        }
    }

    fn hand_over(&mut self, partition: Partition, batches: &[Batch], read: &Range<Offset>) {
        let riders = self.sweeps.riders(partition, read).into_iter();
        let mut riders: Vec<Rider> = riders.map(|(connection, from)| Rider { connection, from, rides: true }).collect();
        let mut left = riders.len();
        let place = self.places.place(partition);
        for record in batches.iter().flat_map(Batch::iter).filter(|record| read.contains(&record.offset)) {
            if left == 0 {
                break;
            }
            let at = At { partition, offset: record.offset, place, tick: BEFORE_ALL_TICKS };
            left -= self.hand_over_record(at, &record, &mut riders);
        }
        let riders = riders.iter().filter(|rider| rider.rides).map(|rider| rider.connection);
        self.sweeps.passed(partition, read, riders);
    }

    /// How many got off.
    fn hand_over_record(&mut self, at: At, record: &StoredRecord<'_>, riders: &mut [Rider]) -> usize {
        let mapping = Arc::clone(&self.mapping);
        let to_mqtt = |key| mapping.to_mqtt(MappedTopic(at.partition.topic.0), key);
        let Some(topic) = record.key.and_then(to_mqtt) else { return 0 };
        let mut found = std::mem::take(&mut self.found);
        found.clear();
        self.trie.matches(&topic, |connection, entry| {
            let rider = riders.binary_search_by(|rider| rider.connection.cmp(&connection)).ok();
            let rider = rider.and_then(|place| riders.get(place));
            if !rider.is_some_and(|rider| rider.rides && rider.from <= at.offset) {
                return;
            }
            let held_by = match entry.round.judge(at.partition, at.offset) {
                Verdict::Deliver => None,
                Verdict::Hold => Some(entry.round.number),
                Verdict::Skip => return,
            };
            found.push(Found { connection, subscription: entry.subscription, held_by });
        });
        found.sort_by_key(|found| found.connection);
        let mut got_off = 0;
        let message = if found.is_empty() { None } else { self.decode(&topic, record) };
        if let Some(message) = message {
            for same in found.chunk_by(|a, b| a.connection == b.connection) {
                let due = self.due(at, &message, same);
                let Some(connection) = same.first().map(|found| found.connection) else { continue };
                if self.hand_to(connection, at, due) {
                    continue;
                }
                got_off += 1;
                if let Ok(place) = riders.binary_search_by(|rider| rider.connection.cmp(&connection))
                    && let Some(rider) = riders.get_mut(place)
                {
                    rider.rides = false;
                }
            }
        }
        self.found = found;
        got_off
    }

    /// False if the subscriber got off: there was no room, or it is not known yet whether it is to have the message. QoS 0
    /// was dropped when it was missed.
    fn hand_to(&mut self, connection: ConnectionId, at: At, due: Due) -> bool {
        match due {
            Due::Nothing => true,
            Due::Held(_, delivery) | Due::Now(delivery) if delivery.qos == QoS::AtMostOnce => true,
            Due::Held(round, _) => {
                self.get_off(connection, at.partition, at.offset, Waits::Start);
                self.open_round(round).unstarted.push(connection);
                false
            }
            Due::Now(delivery) => {
                let Some(follower) = self.followers.get(&connection) else { return false };
                let bytes = delivery.bytes();
                match follower.mailbox.push_delivery(delivery) {
                    (Pushed::Taken, waker) => {
                        self.wakers.extend(waker);
                        true
                    }
                    (Pushed::Full, _) => {
                        self.fall_behind(connection, at.partition, at.offset, bytes);
                        false
                    }
                    (Pushed::Gone, _) => {
                        self.get_off(connection, at.partition, at.offset, Waits::Gone);
                        false
                    }
                }
            }
        }
    }

    /// A subscriber that waited for this joins the sweeps of its partitions.
    pub(super) fn board_from(&mut self, connection: ConnectionId, waited_for: Waits) {
        let lag = self.followers.get(&connection).and_then(|follower| follower.lag.as_ref());
        if lag.is_some_and(|lag| lag.waits == waited_for) {
            self.board(connection);
        }
    }

    /// A subscriber that lags joins the sweeps of its partitions.
    pub(super) fn board(&mut self, connection: ConnectionId) {
        let Some(follower) = self.followers.get_mut(&connection) else { return };
        let Some(lag) = &mut follower.lag else { return };
        lag.waits = Waits::Nothing;
        for (&partition, &from) in &lag.from {
            self.sweeps.join(partition, connection, from);
        }
        self.end_lag(connection);
    }

    /// A subscriber has come to where the tail is.
    pub(super) fn arrive(&mut self, connection: ConnectionId, partition: Partition) {
        let lag = self.followers.get_mut(&connection).and_then(|follower| follower.lag.as_mut());
        if let Some(lag) = lag {
            lag.from.remove(&partition);
            self.end_lag(connection);
        }
    }

    fn end_lag(&mut self, connection: ConnectionId) {
        let Some(follower) = self.followers.get_mut(&connection) else { return };
        if follower.lag.as_ref().is_some_and(|lag| lag.is_over()) {
            follower.lag = None;
            self.metrics.lagging.dec();
        }
    }
}

async fn read(journal: &SharedJournal, partition: Partition, from: Offset, isolation: Isolation) -> Read {
    let read = match journal.read(partition, from, READ_BYTES_MAX, isolation).await {
        Ok(answer) if answer.next > from => return Read::Records(answer),
        Ok(answer) => Read::Records(answer),
        Err(error) => {
            tracing::debug!(%error, ?partition, "lagging subscribers wait");
            match journal.ends(&[partition]).await.as_deref() {
                Ok([ends]) if from < ends.log_start || from > ends.high_watermark => return Read::Outside(*ends),
                Ok(_) | Err(_) => Read::Failed,
            }
        }
    };
    tokio::time::sleep(std::time::Duration::from_millis(READ_AGAIN_MS)).await;
    read
}
