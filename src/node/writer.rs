//! PUBLISH → append, and the way back of its outcome.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Waker;

use smallvec::SmallVec;
use tokio::sync::Notify;

use super::connections::{ConnectionId, Connections};
use super::fanout::FanoutHandle;
use super::retains::{RETAINS, Retains};
use super::steward::{STEWARD, StewardHandle};
use crate::clock;
use crate::journal::{
    AckGroup, AckSink, NotTaken, Offset, Outcome, Partition, Refusal, SharedJournal, Ticket, TopicIndex,
};
use crate::ledger::ids::Token;
use crate::message::{self, Message, Stamp};
use crate::mqtt::{Publish, ReasonCode};
use crate::ops::metrics::{DropReason, Metrics, TopicMetrics};
use crate::ops::tasks;
use crate::route::mapping::Mapping;
use crate::route::partition::partition_of;
use crate::session::{AppendOutcome, OwnedPublish};

/// Tickets of appends whose outcome nobody waits for.
pub const NOBODY: u64 = u64::MAX;

/// Tickets of what is appended to `mqtt.retained`.
pub(super) const RETAINED: u64 = u64::MAX - 3;

/// Takes publishes to their partition. Shared by all connections.
pub struct Writer {
    journal: SharedJournal,
    mapping: Arc<Mapping>,
    metrics: Arc<Metrics>,
    retains: Arc<Retains>,
    /// QoS 0 publishes that found no room, oldest first.
    ring: Mutex<Ring>,
    ring_bytes_max: usize,
    /// Set while this node may not append (DESIGN "Liveness").
    suspended: Arc<AtomicBool>,
    resumed: Notify,
    work: Notify,
}

#[derive(Debug, Default)]
struct Ring {
    waiting: VecDeque<Waiting>,
    bytes: usize,
}

#[derive(Debug)]
struct Waiting {
    publish: OwnedPublish,
    publisher: Option<Arc<str>>,
    bytes: usize,
}

/// What the node adds to a publish.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// Client id of the publisher.
    pub publisher: &'a str,
    /// Of a QoS 2 publish.
    pub token: Option<Token>,
}

impl Writer {
    /// A writer over `journal`, whose first kafka topics are those of `mapping`, in the same order. Nothing of clients is
    /// appended while `suspended` is set.
    pub fn new(
        journal: SharedJournal,
        mapping: Arc<Mapping>,
        metrics: Arc<Metrics>,
        retains: Arc<Retains>,
        suspended: Arc<AtomicBool>,
        ring_bytes_max: usize,
    ) -> Self {
        Self {
            journal,
            mapping,
            metrics,
            retains,
            ring: Mutex::default(),
            ring_bytes_max,
            suspended,
            resumed: Notify::new(),
            work: Notify::new(),
        }
    }

    /// Appends a publish of QoS 1 or 2. Its outcome comes to the connection's mailbox under `sequence`.
    ///
    /// # Errors
    /// [`NotTaken::Full`]: try again after [`Writer::room`]. The others are final.
    pub fn append(
        &self,
        connection: ConnectionId,
        sequence: u64,
        publish: &Publish<'_>,
        topic: &str,
        origin: Origin<'_>,
    ) -> Result<(), NotTaken> {
        self.hand_over(Ticket { owner: connection.as_u64(), sequence }, publish, topic, Some(origin))
    }

    /// Appends a will; its outcome comes to the ticket's owner.
    ///
    /// # Errors
    /// As [`Writer::append`].
    pub fn append_will(
        &self,
        ticket: Ticket,
        will: &OwnedPublish,
        token: Token,
        publisher: &str,
    ) -> Result<(), NotTaken> {
        let Some(publish) = will.publish() else { return Err(NotTaken::TooLarge) };
        self.hand_over(ticket, &publish, publish.topic, Some(Origin { publisher, token: Some(token) }))
    }

    /// Appends a QoS 0 publish: nobody waits for its outcome. Without room it waits in a bounded ring, from which the
    /// oldest is dropped and counted.
    pub fn append_qos0(&self, publish: &Publish<'_>, topic: &str, publisher: &str) {
        let behind_others = !self.lock_ring().waiting.is_empty();
        if !behind_others {
            match self.hand_over_qos0(publish, topic, Some(publisher)) {
                Ok(()) => return,
                Err(NotTaken::Full) => {}
                Err(NotTaken::TooLarge | NotTaken::NoSuchPartition | NotTaken::Closed) => {
                    self.metrics.publishes_dropped.inc(DropReason::Refused);
                    return;
                }
            }
        }
        let with_topic = Publish { topic, ..publish.clone() };
        if let Some(publish) = OwnedPublish::new(&with_topic) {
            self.keep_in_ring(publish, publisher);
        }
    }

    fn hand_over_qos0(&self, publish: &Publish<'_>, topic: &str, publisher: Option<&str>) -> Result<(), NotTaken> {
        let ticket = if publish.retain { self.retains.ticket() } else { Ticket { owner: NOBODY, sequence: 0 } };
        self.hand_over(ticket, publish, topic, publisher.map(|publisher| Origin { publisher, token: None }))
    }

    fn keep_in_ring(&self, publish: OwnedPublish, publisher: &str) {
        let bytes = publish.bytes();
        let mut ring = self.lock_ring();
        ring.bytes += bytes;
        ring.waiting.push_back(Waiting { publish, publisher: Some(Arc::from(publisher)), bytes });
        while ring.bytes > self.ring_bytes_max {
            let Some(oldest) = ring.waiting.pop_front() else { break };
            ring.bytes = ring.bytes.saturating_sub(oldest.bytes);
            self.metrics.publishes_dropped.inc(DropReason::KafkaAway);
        }
        drop(ring);
        self.work.notify_one();
    }

    /// Resolves when an append may be tried again.
    pub async fn room(&self) {
        loop {
            let resumed = self.resumed.notified();
            if !self.suspended.load(Ordering::Acquire) {
                break;
            }
            resumed.await;
        }
        self.journal.room().await;
    }

    /// The node suspends, or goes on.
    pub fn on_suspended(&self) {
        if !self.suspended.load(Ordering::Acquire) {
            self.resumed.notify_waiters();
            self.work.notify_one();
        }
    }

    fn hand_over(
        &self,
        ticket: Ticket,
        publish: &Publish<'_>,
        topic: &str,
        origin: Option<Origin<'_>>,
    ) -> Result<(), NotTaken> {
        if self.suspended.load(Ordering::Acquire) {
            return Err(NotTaken::Full);
        }
        let (mapped, key) = self.mapping.to_kafka(topic);
        let topic_index = TopicIndex(mapped.0);
        let partitions = self.journal.partitions(topic_index);
        if partitions == 0 {
            return Err(NotTaken::NoSuchPartition);
        }
        let partition = Partition { topic: topic_index, number: partition_of(&key, partitions) };
        let token = origin.and_then(|origin| origin.token).map(Token::to_bytes);
        let stamp = Stamp {
            wall_ms: clock::wall_ms(),
            publisher: origin.map(|origin| origin.publisher),
            token: token.as_ref().map(<[u8; Token::BYTES]>::as_slice),
        };
        if publish.retain {
            // Before the append: its outcome may be there before this returns.
            self.retains.add(ticket, Message::new(topic, publish.into(), Stamp { token: None, ..stamp }));
        }
        let result =
            message::encode(publish.into(), stamp, &key, |record| self.journal.append(ticket, partition, record));
        if result.is_err() && publish.retain {
            self.retains.take(ticket);
        }
        result
    }

    fn lock_ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands over what waits here. Runs for the life of the node.
    pub async fn run(self: Arc<Self>) {
        loop {
            self.work.notified().await;
            while self.hand_over_ring() {
                self.room().await;
            }
        }
    }

    /// True if there was no room and something still waits.
    fn hand_over_ring(&self) -> bool {
        let mut ring = self.lock_ring();
        while let Some(front) = ring.waiting.front() {
            if let Some(publish) = front.publish.publish() {
                let result = self.hand_over_qos0(&publish, publish.topic, front.publisher.as_deref());
                if result == Err(NotTaken::Full) {
                    return true;
                }
            }
            if let Some(taken) = ring.waiting.pop_front() {
                ring.bytes = ring.bytes.saturating_sub(taken.bytes);
            }
        }
        false
    }

    /// Whether nothing waits here any more.
    pub fn is_idle(&self) -> bool {
        self.lock_ring().waiting.is_empty()
    }
}

/// Counters of each kafka topic, in the order of the journal's topics.
pub type TopicCounters = Vec<TopicMetrics>;

/// Who else hears of outcomes; they exist only after the journal, which needs the router.
#[derive(Debug)]
struct Others {
    steward: StewardHandle,
    fanout: FanoutHandle,
}

/// Brings outcomes to the mailboxes of the connections that wait for them; one wake-up per connection and response.
pub struct AckRouter {
    connections: Arc<Connections>,
    topics: TopicCounters,
    retains: Arc<Retains>,
    wakers: Mutex<Vec<Waker>>,
    others: OnceLock<Others>,
    /// Connections that are gone and whose appends have no outcome yet: the steward hears of those.
    draining: Mutex<HashSet<ConnectionId>>,
    draining_count: AtomicUsize,
    /// Partitions in which an append of this node may still land although it has had its outcome.
    in_doubt: Mutex<HashSet<Partition>>,
    in_doubt_count: AtomicUsize,
}

impl AckRouter {
    /// A router to these connections.
    pub fn new(connections: Arc<Connections>, topics: TopicCounters, retains: Arc<Retains>) -> Self {
        Self {
            connections,
            topics,
            retains,
            wakers: Mutex::default(),
            others: OnceLock::new(),
            draining: Mutex::default(),
            draining_count: AtomicUsize::new(0),
            in_doubt: Mutex::default(),
            in_doubt_count: AtomicUsize::new(0),
        }
    }

    /// Who else hears of outcomes.
    pub fn set_others(&self, steward: StewardHandle, fanout: FanoutHandle) {
        // Set once by the composition root.
        let _ = self.others.set(Others { steward, fanout });
    }

    /// The connection is about to leave the table: from then on its outcomes go to the steward.
    pub fn begin_draining(&self, id: ConnectionId) {
        let mut draining = self.lock_draining();
        draining.insert(id);
        self.draining_count.store(draining.len(), Ordering::Release);
    }

    /// All of its outcomes are there.
    pub fn end_draining(&self, id: ConnectionId) {
        let mut draining = self.lock_draining();
        draining.remove(&id);
        self.draining_count.store(draining.len(), Ordering::Release);
    }

    fn on_late(&self, id: ConnectionId, sequence: u64, outcome: AppendOutcome) {
        if self.draining_count.load(Ordering::Acquire) > 0
            && self.lock_draining().contains(&id)
            && let Some(others) = self.others.get()
        {
            others.steward.late(id, sequence, outcome);
        }
    }

    /// Whether an append that has had its outcome may still land: its fate was unknown, and nothing that was appended to
    /// the same partition later was written ([`Outcome::Unknown`]).
    pub fn is_in_doubt(&self) -> bool {
        self.in_doubt_count.load(Ordering::Acquire) > 0
    }

    /// Outcomes of one partition come in the order of the appends.
    fn note_doubt(&self, partition: Partition, outcome: Outcome) {
        let is_settled = match outcome {
            Outcome::Written(_) => true,
            Outcome::Unknown => false,
            Outcome::Refused(_) => return,
        };
        if is_settled && !self.is_in_doubt() {
            return;
        }
        let mut in_doubt = self.in_doubt.lock().unwrap_or_else(PoisonError::into_inner);
        if is_settled {
            in_doubt.remove(&partition);
        } else {
            in_doubt.insert(partition);
        }
        self.in_doubt_count.store(in_doubt.len(), Ordering::Release);
    }

    fn lock_draining(&self) -> MutexGuard<'_, HashSet<ConnectionId>> {
        self.draining.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, group: &AckGroup<'_>) {
        let Some(topic) = self.topics.get(usize::from(group.partition.topic.0)) else { return };
        let counter = match group.outcome {
            Outcome::Written(_) => &topic.written,
            Outcome::Refused(_) => &topic.refused,
            Outcome::Unknown => &topic.unknown,
        };
        counter.inc_by(group.tickets.len() as u64);
    }

    fn on_retained(&self, sequence: u64, outcome: Outcome) {
        if let Some(others) = self.others.get() {
            others.fanout.retained(sequence, outcome);
        }
    }

    /// R1: an append that is acknowledged becomes an obligation towards `mqtt.retained`.
    fn on_retains(&self, group: &AckGroup<'_>) {
        for (index, ticket) in group.tickets.iter().enumerate() {
            match nth(group.outcome, index) {
                Outcome::Written(offset) => {
                    if self.retains.on_written(*ticket, group.partition, offset)
                        && let Some(others) = self.others.get()
                    {
                        others.fanout.retain(*ticket);
                    }
                }
                Outcome::Refused(_) => drop(self.retains.take(*ticket)),
                // It may be in the log: it keeps the mark below it until that is known (R4a).
                Outcome::Unknown => {
                    if self.retains.has(*ticket)
                        && let Some(others) = self.others.get()
                    {
                        others.fanout.doubt_retain(*ticket, group.partition);
                    }
                }
            }
        }
    }
}

impl AckSink for AckRouter {
    fn on_acks(&self, group: &AckGroup<'_>) {
        let outcome = outcome_for_client(group.outcome);
        self.count(group);
        self.note_doubt(group.partition, group.outcome);
        if group.outcome == Outcome::Unknown
            && usize::from(group.partition.topic.0) < self.topics.len()
            && let Some(others) = self.others.get()
        {
            // Before its outcomes: who hears of one must find the partition in doubt.
            others.steward.unknown(group.partition);
        }
        if !self.retains.is_empty() {
            self.on_retains(group);
        }
        let mut woken: SmallVec<[Waker; 8]> = SmallVec::new();
        self.connections.with(|mailbox_of| {
            for (index, ticket) in group.tickets.iter().enumerate() {
                match ticket.owner {
                    NOBODY | RETAINS => {}
                    RETAINED => self.on_retained(ticket.sequence, nth(group.outcome, index)),
                    STEWARD => {
                        if let Some(others) = self.others.get() {
                            others.steward.outcome(ticket.sequence, group.outcome);
                        }
                    }
                    owner => {
                        let id = ConnectionId::from_u64(owner);
                        match mailbox_of(id) {
                            Some(mailbox) => woken.extend(mailbox.push_outcome(ticket.sequence, outcome)),
                            None => self.on_late(id, ticket.sequence, outcome),
                        }
                    }
                }
            }
        });
        if !woken.is_empty() {
            self.wakers.lock().unwrap_or_else(PoisonError::into_inner).extend(woken);
        }
    }

    fn flush(&self) {
        let wakers = std::mem::take(&mut *self.wakers.lock().unwrap_or_else(PoisonError::into_inner));
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// The outcome of one append of a group.
fn nth(outcome: Outcome, index: usize) -> Outcome {
    match outcome {
        Outcome::Written(Offset(first)) => Outcome::Written(Offset(first + i64::try_from(index).unwrap_or(0))),
        Outcome::Refused(_) | Outcome::Unknown => outcome,
    }
}

/// What a client may be told (MQTT5 §3.4.2.1).
fn outcome_for_client(outcome: Outcome) -> AppendOutcome {
    match outcome {
        Outcome::Written(_) => AppendOutcome::Written,
        Outcome::Refused(Refusal::TooLarge) => AppendOutcome::Refused(ReasonCode::QuotaExceeded),
        Outcome::Refused(Refusal::NotAuthorized) => AppendOutcome::Refused(ReasonCode::NotAuthorized),
        Outcome::Refused(Refusal::Invalid | Refusal::NoSuchPartition) => {
            AppendOutcome::Refused(ReasonCode::ImplementationSpecificError)
        }
        // Not in the log, or perhaps: the client must send again, so it must not be told anything.
        Outcome::Refused(Refusal::Deadline | Refusal::Fenced) | Outcome::Unknown => AppendOutcome::Unknown,
    }
}

/// Starts the task that hands over what waits in the writer.
pub fn start(writer: Arc<Writer>) {
    tasks::spawn("writer", writer.run());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_in_doubt_until_something_later_is_written_there() {
        let router = AckRouter::new(Arc::new(Connections::new(1)), Vec::new(), Arc::default());
        let tickets = [Ticket { owner: NOBODY, sequence: 0 }];
        let in_doubt_after = |number, outcome| {
            let partition = Partition { topic: TopicIndex(0), number };
            router.on_acks(&AckGroup { partition, outcome, tickets: &tickets });
            router.is_in_doubt()
        };
        assert!(!in_doubt_after(0, Outcome::Written(Offset(0))));
        assert!(in_doubt_after(0, Outcome::Unknown));
        assert!(in_doubt_after(1, Outcome::Written(Offset(0))), "another partition says nothing of it");
        assert!(in_doubt_after(0, Outcome::Refused(Refusal::Deadline)), "what was not sent settles nothing");
        assert!(!in_doubt_after(0, Outcome::Written(Offset(1))));
    }
}
