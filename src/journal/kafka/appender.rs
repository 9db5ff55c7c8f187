//! Appends: records go straight into the open batch of their partition, and one actor ([`sender`]) sends what is ready.

mod lane;
mod produce;
mod sender;
mod slot;
mod turn;
mod verdict;

pub use produce::{TopicBatches, frame as produce_frame};
pub use verdict::Verdict;

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use kafka_protocol::messages::TopicName;
use tokio::sync::Notify;
use tokio::time::timeout;

use self::lane::Stamp;
use self::sender::Sender;
use self::slot::Slot;
use super::metadata::Metadata;
use super::options::KafkaOptions;
use super::stats::JournalStats;
use crate::journal::{AckSink, NotTaken, Partition, Ticket, TopicIndex};
use crate::message::RecordRef;

/// What callers use.
pub struct Appender {
    shared: Arc<Shared>,
}

/// What callers and the sender share.
struct Shared {
    options: Arc<KafkaOptions>,
    /// By topic and partition. Written only when partitions are added.
    slots: RwLock<Vec<Vec<Arc<Slot>>>>,
    /// Lanes that the sender has to look at.
    told: Mutex<Vec<usize>>,
    wake: Notify,
    pending_bytes: AtomicUsize,
    /// There is room again, or appends were settled.
    settled: Notify,
    state: AtomicU8,
    fenced: AtomicBool,
}

/// Takes appends.
const OPEN: u8 = 0;
/// Takes none any more.
const CLOSED: u8 = 1;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the sender needs beside the options.
pub struct AppenderParts {
    /// Topics by index.
    pub names: Vec<TopicName>,
    /// Who leads.
    pub metadata: Metadata,
    /// This incarnation.
    pub producer_id: i64,
    /// Takes outcomes.
    pub sink: Arc<dyn AckSink>,
    /// Counts.
    pub stats: Arc<JournalStats>,
}

impl Appender {
    /// Starts the sender.
    pub fn start(options: &Arc<KafkaOptions>, parts: AppenderParts) -> Self {
        let shared = Arc::new(Shared {
            options: Arc::clone(options),
            slots: RwLock::new(vec![Vec::new(); parts.names.len()]),
            told: Mutex::default(),
            wake: Notify::new(),
            pending_bytes: AtomicUsize::new(0),
            settled: Notify::new(),
            state: AtomicU8::new(OPEN),
            fenced: AtomicBool::new(false),
        });
        let stamp = Stamp {
            producer_id: parts.producer_id,
            compression: options.compression,
            batch_bytes_max: options.batch_bytes_max,
        };
        let sender = Sender::new(Arc::clone(&shared), parts, stamp);
        crate::ops::tasks::spawn("kafka appender", sender.run());
        Self { shared }
    }

    /// Takes a record: see [`crate::journal::Journal::append`].
    ///
    /// # Errors
    /// [`NotTaken`].
    pub fn append(&self, ticket: Ticket, partition: Partition, record: &RecordRef<'_>) -> Result<(), NotTaken> {
        let shared = &*self.shared;
        if !shared.has_room() {
            return Err(NotTaken::Full);
        }
        let slots = shared.slots.read().unwrap_or_else(PoisonError::into_inner);
        let slot = slots
            .get(usize::from(partition.topic.0))
            .and_then(|topic| topic.get(partition.number as usize))
            .ok_or(NotTaken::NoSuchPartition)?;
        let put = slot.put(record, ticket, || shared.is_closed(), &shared.pending_bytes)?;
        if put.tell {
            lock(&shared.told).push(slot.lane);
            shared.wake.notify_one();
        }
        Ok(())
    }

    /// Waits for room in the budget.
    pub async fn room(&self) {
        self.shared.until(|shared| shared.has_room() || shared.is_closed()).await;
    }

    /// Waits for the outcomes of everything taken so far.
    pub async fn flush(&self, limit: Duration) -> bool {
        let slots: Vec<Vec<Arc<Slot>>> = self.shared.slots.read().unwrap_or_else(PoisonError::into_inner).clone();
        let taken: Vec<(Arc<Slot>, u64)> =
            slots.into_iter().flatten().map(|slot| (Arc::clone(&slot), slot.taken())).collect();
        let all = self.shared.until(|_| taken.iter().all(|(slot, taken)| slot.decided() >= *taken));
        timeout(limit, all).await.is_ok()
    }

    /// Bytes taken and not yet settled.
    pub fn pending_bytes(&self) -> usize {
        self.shared.pending_bytes.load(Ordering::Relaxed)
    }

    /// Whether somebody fenced this incarnation's producer.
    pub fn is_fenced(&self) -> bool {
        self.shared.fenced.load(Ordering::Relaxed)
    }
}

impl Drop for Appender {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl Shared {
    fn has_room(&self) -> bool {
        self.pending_bytes.load(Ordering::Relaxed) < self.options.append_bytes_max
    }

    fn is_closed(&self) -> bool {
        self.state.load(Ordering::Relaxed) == CLOSED
    }

    /// No appends from now on; the sender settles the rest.
    fn close(&self) {
        self.state.store(CLOSED, Ordering::Relaxed);
        self.wake.notify_one();
        self.settled.notify_waiters();
    }

    async fn until(&self, reached: impl Fn(&Self) -> bool) {
        loop {
            let settled = self.settled.notified();
            tokio::pin!(settled);
            settled.as_mut().enable();
            if reached(self) {
                return;
            }
            settled.await;
        }
    }

    /// Slots for partitions that were added; the new ones.
    fn grow(&self, topic: TopicIndex, partitions: u32, first_lane: usize) -> Vec<Arc<Slot>> {
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        let Some(slots) = slots.get_mut(usize::from(topic.0)) else { return Vec::new() };
        let have = u32::try_from(slots.len()).unwrap_or(u32::MAX);
        let added = (have..partitions).zip(first_lane..).map(|(number, lane)| {
            let KafkaOptions { batch_bytes_max, group_bytes, .. } = *self.options;
            Arc::new(Slot::new(Partition { topic, number }, lane, batch_bytes_max, group_bytes))
        });
        let added: Vec<Arc<Slot>> = added.collect();
        slots.extend(added.iter().cloned());
        added
    }
}
