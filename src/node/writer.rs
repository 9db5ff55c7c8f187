//! PUBLISH → append, and the way back of its outcome.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;

use smallvec::SmallVec;
use tokio::sync::Notify;

use super::connections::{ConnectionId, Connections};
use crate::clock;
use crate::journal::{AckGroup, AckSink, NotTaken, Outcome, Partition, Refusal, SharedJournal, Ticket, TopicIndex};
use crate::message::{self, Stamp};
use crate::mqtt::{Publish, ReasonCode};
use crate::ops::metrics::{DropReason, Metrics, TopicMetrics};
use crate::ops::tasks;
use crate::route::mapping::Mapping;
use crate::route::partition::partition_of;
use crate::session::{AppendOutcome, OwnedPublish};

/// Tickets of appends whose outcome no connection waits for.
const NOBODY: u64 = u64::MAX;
/// Tickets of the writer's own appends, which it repeats until they are decided.
const WRITER: u64 = u64::MAX - 1;

/// Takes publishes to their partition. Shared by all connections.
pub struct Writer {
    journal: SharedJournal,
    mapping: Arc<Mapping>,
    metrics: Arc<Metrics>,
    /// QoS 0 publishes that found no room, oldest first.
    ring: Mutex<Ring>,
    ring_bytes_max: usize,
    /// Messages that must be appended although their connection is gone: wills.
    kept: Mutex<VecDeque<Kept>>,
    next_kept: AtomicU64,
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

/// A message the writer is responsible for, until it is written or refused.
#[derive(Debug)]
struct Kept {
    sequence: u64,
    publish: OwnedPublish,
    publisher: Arc<str>,
    state: KeptState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KeptState {
    /// To be handed to the journal.
    Due,
    /// Handed over, no outcome yet.
    Appended,
    /// Written, or refused for good.
    Done,
}

impl Writer {
    /// A writer over `journal`, whose first kafka topics are those of `mapping`, in the same order.
    pub fn new(journal: SharedJournal, mapping: Arc<Mapping>, metrics: Arc<Metrics>, ring_bytes_max: usize) -> Self {
        Self {
            journal,
            mapping,
            metrics,
            ring: Mutex::default(),
            ring_bytes_max,
            kept: Mutex::default(),
            next_kept: AtomicU64::new(0),
            work: Notify::new(),
        }
    }

    /// Appends a QoS 1 publish. Its outcome comes to the connection's mailbox under `sequence`.
    ///
    /// # Errors
    /// [`NotTaken::Full`]: try again after [`Writer::room`]. The others are final.
    pub fn append(
        &self,
        connection: ConnectionId,
        sequence: u64,
        publish: &Publish<'_>,
        topic: &str,
        publisher: &str,
    ) -> Result<(), NotTaken> {
        self.hand_over(Ticket { owner: connection.as_u64(), sequence }, publish, topic, Some(publisher))
    }

    /// Appends a QoS 0 publish: nobody waits for its outcome. Without room it waits in a bounded ring, from which the
    /// oldest is dropped and counted.
    pub fn append_qos0(&self, publish: &Publish<'_>, topic: &str, publisher: &str) {
        let behind_others = !self.lock_ring().waiting.is_empty();
        if !behind_others {
            let ticket = Ticket { owner: NOBODY, sequence: 0 };
            match self.hand_over(ticket, publish, topic, Some(publisher)) {
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

    /// Takes over a message for good: it is appended, again if its fate is unknown, until it is written or refused.
    pub fn keep(&self, publish: OwnedPublish, publisher: &str) {
        let sequence = self.next_kept.fetch_add(1, Ordering::Relaxed);
        let kept = Kept { sequence, publish, publisher: Arc::from(publisher), state: KeptState::Due };
        self.lock_kept().push_back(kept);
        self.work.notify_one();
    }

    /// Resolves when an append may be tried again.
    pub async fn room(&self) {
        self.journal.room().await;
    }

    fn hand_over(
        &self,
        ticket: Ticket,
        publish: &Publish<'_>,
        topic: &str,
        publisher: Option<&str>,
    ) -> Result<(), NotTaken> {
        let (mapped, key) = self.mapping.to_kafka(topic);
        let topic_index = TopicIndex(mapped.0);
        let partitions = self.journal.partitions(topic_index);
        if partitions == 0 {
            return Err(NotTaken::NoSuchPartition);
        }
        let partition = Partition { topic: topic_index, number: partition_of(&key, partitions) };
        let stamp = Stamp { wall_ms: clock::wall_ms(), publisher, token: None };
        message::encode(publish.into(), stamp, &key, |record| self.journal.append(ticket, partition, record))
    }

    fn lock_kept(&self) -> std::sync::MutexGuard<'_, VecDeque<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_ring(&self) -> std::sync::MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands over what waits here. Runs for the life of the node.
    pub async fn run(self: Arc<Self>) {
        loop {
            self.work.notified().await;
            while self.hand_over_one() {
                self.journal.room().await;
            }
        }
    }

    /// True if there was no room and something still waits.
    fn hand_over_one(&self) -> bool {
        self.hand_over_kept() || self.hand_over_ring()
    }

    fn hand_over_kept(&self) -> bool {
        let mut kept = self.lock_kept();
        kept.retain(|kept| kept.state != KeptState::Done);
        for kept in kept.iter_mut().filter(|kept| kept.state == KeptState::Due) {
            let Some(publish) = kept.publish.publish() else { continue };
            let ticket = Ticket { owner: WRITER, sequence: kept.sequence };
            kept.state = match self.hand_over(ticket, &publish, publish.topic, Some(&kept.publisher)) {
                Ok(()) => KeptState::Appended,
                Err(NotTaken::Full) => return true,
                Err(NotTaken::TooLarge | NotTaken::NoSuchPartition | NotTaken::Closed) => {
                    self.metrics.publishes_dropped.inc(DropReason::Refused);
                    KeptState::Done
                }
            };
        }
        false
    }

    fn hand_over_ring(&self) -> bool {
        let mut ring = self.lock_ring();
        while let Some(front) = ring.waiting.front() {
            if let Some(publish) = front.publish.publish() {
                let ticket = Ticket { owner: NOBODY, sequence: 0 };
                let result = self.hand_over(ticket, &publish, publish.topic, front.publisher.as_deref());
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

    fn on_kept(&self, sequence: u64, outcome: Outcome) {
        let mut kept = self.lock_kept();
        if let Some(kept) = kept.iter_mut().find(|kept| kept.sequence == sequence) {
            kept.state = match outcome {
                Outcome::Written(_) => KeptState::Done,
                // A duplicate is legal at QoS 1, a loss is not.
                Outcome::Unknown | Outcome::Refused(Refusal::Deadline) => KeptState::Due,
                Outcome::Refused(why) => {
                    tracing::warn!(%why, "a will was refused");
                    KeptState::Done
                }
            };
        }
        drop(kept);
        self.work.notify_one();
    }

    /// Whether nothing waits here any more.
    pub fn is_idle(&self) -> bool {
        let kept = self.lock_kept();
        kept.iter().all(|kept| kept.state == KeptState::Done) && self.lock_ring().waiting.is_empty()
    }
}

/// Counters of each kafka topic, in the order of the journal's topics.
pub type TopicCounters = Vec<TopicMetrics>;

/// Brings outcomes to the mailboxes of the connections that wait for them; one wake-up per connection and response.
pub struct AckRouter {
    connections: Arc<Connections>,
    topics: TopicCounters,
    wakers: Mutex<Vec<Waker>>,
    writer: std::sync::OnceLock<std::sync::Weak<Writer>>,
}

impl AckRouter {
    /// A router to these connections.
    pub fn new(connections: Arc<Connections>, topics: TopicCounters) -> Self {
        Self { connections, topics, wakers: Mutex::default(), writer: std::sync::OnceLock::new() }
    }

    /// The writer exists only after the journal, which needs the router.
    pub fn set_writer(&self, writer: &Arc<Writer>) {
        // Set once by the composition root.
        let _ = self.writer.set(Arc::downgrade(writer));
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
}

impl AckSink for AckRouter {
    fn on_acks(&self, group: &AckGroup<'_>) {
        let outcome = outcome_for_client(group.outcome);
        self.count(group);
        let mut woken: SmallVec<[Waker; 8]> = SmallVec::new();
        self.connections.with(|mailbox_of| {
            for ticket in group.tickets {
                match ticket.owner {
                    NOBODY => {}
                    WRITER => {
                        if let Some(writer) = self.writer.get().and_then(std::sync::Weak::upgrade) {
                            writer.on_kept(ticket.sequence, group.outcome);
                        }
                    }
                    owner => {
                        // A connection that is gone needs no acknowledgement.
                        if let Some(mailbox) = mailbox_of(ConnectionId::from_u64(owner)) {
                            woken.extend(mailbox.push_outcome(ticket.sequence, outcome));
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
